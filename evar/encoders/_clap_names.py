"""Names of tensors of LAION-CLAP: those of the hub's port become those of the official files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_HUB_AUDIO = "audio_model.audio_encoder."
#: a part of a hub name -> the same in an official file
_PARTS = (
    (_HUB_AUDIO, "audio_branch."),
    ("audio_projection.linear1.", "audio_projection.0."),
    ("audio_projection.linear2.", "audio_projection.2."),
    ("text_model.", "text_branch."),
    ("text_projection.linear1.", "text_projection.0."),
    ("text_projection.linear2.", "text_projection.2."),
)
_AUDIO_PARTS = (
    ("batch_norm.", "bn0."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.self.relative", ".attn.relative"),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
)
_QKV = ("query", "key", "value")


def to_laion_names(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Rename the tensors of a hub's ClapModel to those of an official file, which stay as they are.

    Args:
        state: tensor name, without "module." -> tensor.

    Returns:
        The tensors by official names, and whether they were a hub's.

    Example:
        >>> place = "audio_model.audio_encoder.layers.0.blocks.0.attention.self"
        >>> hub = {f"{place}.{part}.bias": torch.zeros(2) for part in _QKV}
        >>> renamed, was_hub = to_laion_names(hub)
        >>> was_hub, {name: len(value) for name, value in renamed.items()}
        (True, {'audio_branch.layers.0.blocks.0.attn.qkv.bias': 6})
    """
    if not any(name.startswith(_HUB_AUDIO) for name in state):
        return dict(state), False
    renamed: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        for hub, official in _PARTS:
            if name.startswith(hub):
                name = official + name.removeprefix(hub)
        if not name.startswith("audio_branch."):
            renamed[name] = value
            continue
        for hub, official in _AUDIO_PARTS:
            name = name.replace(hub, official)
        part = next((part for part in _QKV if f".attention.self.{part}." in name), None)
        if part is None:
            renamed[name] = value
        else:
            joined.setdefault(name.replace(f".attention.self.{part}.", ".attn.qkv."), {})[part] = value
    for name, parts in joined.items():
        renamed[name] = torch.cat([parts[part] for part in _QKV if part in parts])
    return renamed, True


def split_laion_text(state: Mapping[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    """Take the text half out of the tensors of an official file.

    Args:
        state: as `to_laion_names` gives it.
        path: of the checkpoint, for the error.

    Returns:
        {"network": ..., "projection": ...}, each tensor name -> tensor.

    Raises:
        ValueError: if there is no text half.

    Example:
        >>> split_laion_text({"text_branch.a": torch.ones(1), "text_projection.0.bias": torch.ones(2)}, Path("x.pt"))
        {'network': {'a': tensor([1.])}, 'projection': {'0.bias': tensor([1., 1.])}}
    """
    parts = {"network": "text_branch.", "projection": "text_projection."}
    found = {
        part: {name.removeprefix(before): value for name, value in state.items() if name.startswith(before)}
        for part, before in parts.items()
    }
    if not found["network"]:
        raise ValueError(f"{path.name} holds no text half: it is the half that hears alone")
    return found
