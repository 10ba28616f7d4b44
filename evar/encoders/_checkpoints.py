"""What a checkpoint of a patch transformer is, by its tensors: for errors that say which encoder takes the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Known:
    """A kind of checkpoint.

    Attributes:
        kind: short and unique ("audio_mae.as2m"); an encoder says which one it takes.
        what: in words, for an error ("a fine-tuned Audio-MAE").
        encoder: the name or names of the encoders that take it.
    """

    kind: str
    what: str
    encoder: str


State = Mapping[str, Tensor]
Rule = Callable[[State], Known | None]


def recognise(state: State) -> Known | None:
    """The kind of checkpoint that these tensors belong to, None where no rule knows it.

    Args:
        state: tensor name -> tensor, as `state_dict_of` gives them.

    Example:
        >>> import torch
        >>> recognise({"pos_embed": torch.zeros(1, 513, 768), "fc_norm.weight": torch.ones(768)}).encoder
        'audio_mae.as2m'
    """
    return next((known for rule in RULES if (known := rule(state)) is not None), None)


def refuse_other(state: State, path: Path, name: str, kind: str) -> None:
    """Refuse a checkpoint that is known to be of another kind.

    Args:
        state: as for `recognise`.
        path: of the file, for the message.
        name: of the encoder that was asked to load it.
        kind: what it takes.

    Raises:
        ValueError: if the file is of another known kind; the message names the encoder that takes it.
    """
    found = recognise(state)
    if found is not None and found.kind != kind:
        raise ValueError(f"{path.name} is {found.what}, which {name} does not take; use {found.encoder}")


def _rows(state: State, name: str = "pos_embed") -> int:
    """Entries of the table of positions, those of whole-clip tokens included; 0 where there is none."""
    table = state.get(name)
    return table.shape[1] if table is not None and table.dim() == 3 else 0


def _masked_autoencoder(state: State) -> Known | None:
    """Audio-MAE, MaskSpec, M2D and MSM-MAE share names; the size of the table of positions tells them apart."""
    rows, fine_tuned = _rows(state), "fc_norm.weight" in state
    if "blocks.0.attn.q_bias" in state:
        return Known("msm_mae", "an MSM-MAE", {66: "msm_mae.208", 161: "msm_mae.512"}.get(rows, "msm_mae.208"))
    if rows == 513:
        if fine_tuned:
            return Known("audio_mae.as2m", "an Audio-MAE fine-tuned on AudioSet", "audio_mae.as2m")
        return Known("audio_mae", "a pre-trained Audio-MAE", "audio_mae")
    if rows == 497:
        if fine_tuned:
            return Known("mask_spec.as2m", "a MaskSpec fine-tuned on AudioSet", "mask_spec.as2m")
        return Known("mask_spec", "a pre-trained MaskSpec", "mask_spec")
    if rows % 5 == 1 and "norm.weight" in state and not fine_tuned and ("norm_stats" in state or "cls_token" in state):
        by_rows = {191: "m2d, m2d.as or m2d.32k", 311: "m2d.as_ft, m2d.ft or m2d.clap", 251: "m2d.p16x4"}
        return Known("m2d", f"an M2D with {rows // 5} time patches", by_rows.get(rows, "m2d"))
    return None


def _spectrogram_transformer(state: State) -> Known | None:
    """SSAST and AST share the names of their network; SSAST has its training's heads, AST a classifier."""
    kernel = state.get("v.patch_embed.proj.weight")
    if kernel is None or kernel.dim() != 4:
        return None
    if "p_input_fdim" not in state and "mlp_head.1.weight" in state:
        return Known("ast", "an AST with its AudioSet classifier", "ast")
    size = {768: "", 384: "_small", 192: "_tiny"}.get(len(kernel), "")
    kind = "frame" if kernel.shape[2] == 128 else "patch"
    words = (
        f"a {size.removeprefix('_') or 'base'} SSAST on patches of {kernel.shape[2]} mels x {kernel.shape[3]} frames"
    )
    return Known(f"ssast.{kind}{size}", words, f"ssast.{kind}{size}")


def _fairseq(state: State) -> Known | None:
    """MAE-AST and BEATs project patches alike. The two sizes of MAE-AST's patches have the same tensors."""
    if "post_extract_proj.weight" not in state:
        return None
    if "patch_embedding.weight" in state:
        return Known("beats", "a BEATs", "a beats or openbeats encoder")
    if "batch_norm.running_mean" in state:
        return Known("mae_ast", "an MAE-AST", "mae_ast.patch or mae_ast.frame")
    return None


RULES: list[Rule] = [_masked_autoencoder, _spectrogram_transformer, _fairseq]
