"""The text halves of the CLAP models, made from their checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from evar.encoders._clap_audio import SumProjection, two_layers
from evar.encoders._clap_names import split_laion_text, to_laion_names
from evar.encoders._text import ROBERTA, Language, TextHalf, Tokenizer
from evar.encoders.weights import read_checkpoint, state_dict_of

LONGEST_LAION = 77
#: of untrained text halves in tests
SMALL_BERT = {"num_hidden_layers": 1, "vocab_size": 300}
SMALL_GPT2 = {"n_layer": 1, "vocab_size": 300}


def build_laion_text(
    checkpoint: Path | None, width: int, untrained: Mapping[str, Any] | None = None, folder: Path | None = None
) -> TextHalf:
    """Make the text half of a LAION-CLAP: RoBERTa, its pooled first token, two linear layers, length 1.

    Args:
        checkpoint: official file, or folder or file of a hub port; None for random numbers.
        width: of the shared space.
        untrained: settings of an untrained network, over the published ones.
        folder: with the tokenizer and config.json, if it is not the checkpoint's own.

    Raises:
        ValueError: if the checkpoint has no text half, or it does not fit.
        FileNotFoundError: if files of the tokenizer are missing.
    """
    projection = partial(two_layers, n_out=width)
    if checkpoint is None:
        tokenizer = Tokenizer(ROBERTA, None, LONGEST_LAION)
        return TextHalf(ROBERTA, "pooler", projection, tokenizer, normalised=True, settings=untrained)
    state, _ = to_laion_names(state_dict_of(read_checkpoint(checkpoint)))
    text = split_laion_text(state, checkpoint)
    place = folder or (checkpoint if checkpoint.is_dir() else checkpoint.parent)
    return TextHalf(
        ROBERTA,
        "pooler",
        projection,
        Tokenizer(ROBERTA, place, LONGEST_LAION),
        normalised=True,
        state=text,
        settings=read_text_settings(place),
        where=checkpoint,
    )


def build_ms_text(
    language: Language,
    readout: str,
    checkpoint: Path | None,
    width: int,
    *,
    longest: int,
    ending: str = "",
    untrained: Mapping[str, Any] | None = None,
) -> TextHalf:
    """Make the text half of an MS-CLAP.

    Args:
        language, readout: as for `TextHalf`.
        checkpoint: the published file; None for random numbers.
        width: of the shared space.
        longest, ending: as for `Tokenizer`.
        untrained: settings of an untrained network, over the published ones.

    Raises:
        ValueError: if the checkpoint has no text half, or it does not fit.
        FileNotFoundError: if files of the tokenizer are missing.
    """
    projection = partial(SumProjection, n_out=width)
    if checkpoint is None:
        tokenizer = Tokenizer(language, None, longest)
        return TextHalf(language, readout, projection, tokenizer, normalised=False, settings=untrained)
    every = state_dict_of(read_checkpoint(checkpoint))
    parts = {"network": "caption_encoder.base.", "projection": "caption_encoder.projection."}
    state = {
        part: {name.removeprefix(before): value for name, value in every.items() if name.startswith(before)}
        for part, before in parts.items()
    }
    if not state["network"]:
        raise ValueError(f"{checkpoint.name} holds no caption_encoder: it is the half that hears alone")
    # MS-CLAP 2023 fills up with "!", whose number is 0, and counts the tokens that are none.
    tokenizer = Tokenizer(language, checkpoint.parent, longest, ending=ending, padding=0)
    return TextHalf(language, readout, projection, tokenizer, normalised=False, state=state, where=checkpoint)


def read_text_settings(folder: Path) -> dict[str, Any]:
    """Read a hub folder's settings of the text half from its config.json; nothing for official files.

    Args:
        folder: of the checkpoint.

    Example:
        >>> read_text_settings(Path("no/such/folder"))
        {}
    """
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("text_config") or {}
    except (OSError, ValueError, AttributeError):
        return {}
    names = ("num_attention_heads", "layer_norm_eps", "pad_token_id", "hidden_act")
    return {name: told[name] for name in names if name in told}
