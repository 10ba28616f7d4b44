"""Recognising checkpoints of patch transformers by their tensors, for errors that name the encoder that takes the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from evar.encoders._checkpoints_cnn import recognise_cnn
from evar.encoders.weights import WRAPPERS, load_strict, read_checkpoint


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
    """Return the kind of checkpoint that these tensors belong to, None if no rule knows it.

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
        name: of the encoder that should load it.
        kind: what it takes.

    Raises:
        ValueError: if the file is of another known kind; the message names the encoder that takes it.

    Example:
        >>> import torch
        >>> refuse_other({"pos_embed": torch.zeros(1, 513, 768)}, Path("x.pth"), "ced.tiny", "ced.tiny")
        Traceback (most recent call last):
        ValueError: x.pth is a pre-trained Audio-MAE, which ced.tiny does not take; use audio_mae
    """
    found = recognise(state)
    if found is not None and found.kind != kind:
        raise ValueError(f"{path.name} is {found.what}, which {name} does not take; use {found.encoder}")


def load_or_explain(
    encoder: nn.Module,
    convert: Callable[[dict[str, Any]], dict[str, Tensor]],
    weights: str | Path,
    name: str,
    ignore: tuple[str, ...],
) -> None:
    """Load a checkpoint into an encoder; if it does not fit, say what it is and which encoder takes it.

    Args:
        encoder: to load into.
        convert: content of the file -> tensors by the encoder's own names.
        weights: the file or folder.
        name: of the encoder's YAML, for the message.
        ignore: as for `load_strict`.

    Raises:
        ValueError: if it does not fit; where no rule knows the file, with the first differences.

    Example:
        >>> import tempfile, torch
        >>> linear = nn.Linear(1, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"w": torch.ones(1, 1), "b": torch.zeros(1)}, f"{folder}/x.pth")
        ...     load_or_explain(
        ...         linear, lambda file: {"weight": file["w"], "bias": file["b"]}, f"{folder}/x.pth", "mine", ()
        ...     )
        >>> linear.weight.item()
        1.0
    """
    path, checkpoint = Path(weights), read_checkpoint(weights)
    try:
        load_strict(encoder, convert(checkpoint), path, ignore)
    except ValueError as error:
        found = recognise(_list_tensors(checkpoint))
        if found is None or name in re.findall(r"[\w.]+", found.encoder):
            raise
        raise ValueError(
            f"{path.name} is {found.what}, which {name} does not take; use {found.encoder} ({error})"
        ) from error


def _list_tensors(checkpoint: Mapping[str, Any], before: str = "") -> dict[str, Tensor]:
    """List every tensor of a checkpoint, without the wrappers around them."""
    found: dict[str, Tensor] = {}
    for name, value in checkpoint.items():
        if isinstance(value, Tensor):
            found[f"{before}{name}"] = value
        elif isinstance(value, Mapping) and name != "_ema":
            found |= _list_tensors(value, "" if name in WRAPPERS else f"{before}{name}.")
    return found


def _count_positions(state: State, name: str = "pos_embed") -> int:
    """Count the entries of the table of positions, with those of whole-clip tokens; 0 if there is no table."""
    table = state.get(name)
    return table.shape[1] if table is not None and table.dim() == 3 else 0


def _recognise_masked_autoencoder(state: State) -> Known | None:
    """Audio-MAE, MaskSpec, M2D and MSM-MAE share names; the size of the table of positions tells them apart."""
    rows, fine_tuned = _count_positions(state), "fc_norm.weight" in state
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
        return Known(f"m2d.{rows // 5}", f"an M2D with {rows // 5} time patches", by_rows.get(rows, "m2d"))
    return None


def _recognise_spectrogram_transformer(state: State) -> Known | None:
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


def _recognise_fairseq(state: State) -> Known | None:
    """MAE-AST and BEATs project patches alike. The two sizes of MAE-AST's patches have the same tensors."""
    projection = _find_ending(state, "post_extract_proj.weight")
    if projection is None:
        return None
    if _find_ending(state, "patch_embedding.weight") is not None:
        size = {768: "base", 1024: "large"}.get(len(projection), "other")
        if "predictor.weight" in state:
            return Known(f"beats.{size}.as2m", f"a BEATs fine-tuned on AudioSet ({size})", "beats.as2m")
        encoders = {"base": "beats.iter3, beats.iter3_plus or openbeats.base", "large": "openbeats.large"}
        return Known(f"beats.{size}", f"a pre-trained BEATs ({size})", encoders.get(size, "a YAML of your own"))
    if "batch_norm.running_mean" in state:
        return Known("mae_ast", "an MAE-AST", "mae_ast.patch or mae_ast.frame")
    return None


def _recognise_eat(state: State) -> Known | None:
    """EAT and SSLAM cannot be told apart; fine-tuned ones have a head behind a LayerNorm."""
    kernel = _find_ending(state, "local_encoder.proj.weight")
    if kernel is None:
        return None
    size = {768: "base", 1024: "large"}.get(len(kernel), "other")
    if _find_ending(state, "fc_norm.weight") is not None:
        encoder = "eat.as2m or sslam.as2m" if size == "base" else "eat.large with the option n_classes: 527"
        return Known(f"eat.{size}.as2m", f"an EAT or SSLAM fine-tuned on AudioSet ({size})", encoder)
    encoder = "eat.base or sslam" if size == "base" else "eat.large"
    return Known(f"eat.{size}", f"a pre-trained EAT or SSLAM ({size})", encoder)


def _recognise_atst(state: State) -> Known | None:
    """ATST-Frame normalises frames; ATST-Clip has a token of the whole clip."""
    if _find_ending(state, "patch_embed.patch_embed.weight") is None:
        return None
    if _find_ending(state, "norm_frame.weight") is not None:
        return Known("atst_frame", "an ATST-Frame", "atst_frame")
    return Known("atst_clip", "an ATST-Clip", "atst_clip")


def _recognise_position_of_time(state: State) -> Known | None:
    """CED and Dasheng share names; the size of a patch tells them apart, and CED has a head unless it only begins."""
    kernel = _find_ending(state, "patch_embed.proj.weight")
    if _find_ending(state, "time_pos_embed") is None or kernel is None or kernel.dim() != 4:
        return None
    has_tags, width = _find_ending(state, "outputlayer.1.weight") is not None, len(kernel)
    if kernel.shape[2] == 64:
        size = {768: "base", 1280: "0_6b", 1536: "1_2b"}.get(width, "base")
        if has_tags:
            return Known("dasheng.as2m", "a Dasheng fine-tuned on AudioSet", "dasheng.as2m")
        return Known(f"dasheng.{size}", f"a pre-trained Dasheng of width {width}", f"dasheng.{size}")
    size = {192: "tiny", 256: "mini", 384: "small"}.get(width, "base")
    if not has_tags:
        return Known(
            "ced.start", "what CED's training starts from, without tags", f"the tagger's file, with ced.{size}"
        )
    return Known(f"ced.{size}", f"a CED of width {width}", f"ced.{size}")


def _recognise_htsat(state: State) -> Known | None:
    """HTS-AT alone; CLAP's audio towers are the same network below another name."""
    if _find_ending(state, "tscam_conv.weight") is None or any(name.startswith("audio_") for name in state):
        return None
    return Known("htsat", "an HTS-AT with its AudioSet tags", "htsat")


def _recognise_passt(state: State) -> Known | None:
    """Find the stride and the length of training clips from the sizes of the two tables of positions."""
    times, bands = state.get("time_new_pos_embed"), state.get("freq_new_pos_embed")
    if times is None or bands is None:
        return None
    sizes = (bands.shape[2], times.shape[3])
    encoder = {
        (12, 99): "passt or passt.kd",
        (8, 62): "passt.s16",
    }.get(sizes, f"passt with the option n_columns: {sizes[1]}")
    words = f"a PaSST of width {times.shape[1]} with positions for {sizes[0]} bands and {sizes[1]} columns"
    return Known(f"passt.{sizes[0]}.{sizes[1]}", words, encoder)


def _recognise_convolutional(state: State) -> Known | None:
    """PSLA, ESResNeXt-fbsp, YAMNet, and EfficientAT by its width."""
    if _find_ending(state, "effnet._conv_head.weight") is not None and _find_ending(state, "head_weight") is not None:
        return Known("psla", "a PSLA", "psla")
    if "fbsp.fb" in state:
        return Known("esresnext_fbsp", "an ESResNeXt-fbsp", "esresnext_fbsp")
    if "layer1.fused.conv.weight" in state:
        return Known("yamnet", "a YAMNet", "yamnet")
    head = state.get("features.16.0.weight")
    if head is None or "features.13.block.2.conc_se_layers.0.fc1.weight" not in state:
        return None
    name = {96: "mn01", 192: "mn02", 384: "mn04", 480: "mn05", 960: "mn10", 1920: "mn20", 2880: "mn30", 3840: "mn40"}
    encoder = f"efficientat.{name[len(head)]}" if len(head) in name else "efficientat.mn10 with the option width"
    return Known(f"efficientat.{len(head)}", f"an EfficientAT with {len(head)} channels", encoder)


def _recognise_cnn(state: State) -> Known | None:
    """OpenL3, Wav2CLIP, BYOL-A, BYOL-S, COALA, COLA, DECAR and DeLoRes."""
    found = recognise_cnn(state)
    return None if found is None else Known(*found)


def _recognise_clap(state: State) -> Known | None:
    """LAION-CLAP by the names of its halves, official or a hub's; MS-CLAP by those of its audio half."""
    is_hub = any(name.startswith("audio_model.audio_encoder.") for name in state)
    if is_hub or _find_ending(state, "audio_branch.patch_embed.proj.weight") is not None:
        kernel = _find_ending(state, "patch_embed.proj.weight")
        is_base = kernel is not None and len(kernel) == 128
        encoder = "clap.laion_music" if is_base else "clap.laion"
        return Known(encoder, f"a LAION-CLAP with HTS-AT {'base' if is_base else 'tiny'}", encoder)
    if _find_ending(state, "audio_encoder.base.htsat.bn0.weight") is not None:
        return Known("clap.ms2023", "an MS-CLAP 2023", "clap.ms2023")
    if _find_ending(state, "audio_encoder.base.conv_block1.conv1.weight") is not None:
        return Known("clap.ms2022", "an MS-CLAP 2022", "clap.ms2022")
    return None


def _find_ending(state: State, end: str) -> Tensor | None:
    """Find the first tensor whose name has this ending, behind any wrapper."""
    return next((value for name, value in state.items() if name == end or name.endswith(f".{end}")), None)


RULES: list[Rule] = [
    _recognise_clap,
    _recognise_masked_autoencoder,
    _recognise_spectrogram_transformer,
    _recognise_fairseq,
    _recognise_eat,
    _recognise_atst,
    _recognise_position_of_time,
    _recognise_htsat,
    _recognise_passt,
    _recognise_convolutional,
    _recognise_cnn,
]
