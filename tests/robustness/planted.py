"""Encoders and alterations with known answers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from toy import HOP, Bands

from evar.encoders.features import LayerInfo


class Planted(Bands):
    """One layer that ignores the level by construction, and one that is all zero for clips softer than -40 dB."""

    layer_infos = (LayerInfo("shape", 16, HOP, "mean"), LayerInfo("gated", 16, HOP, "mean"))
    default_layers = ("shape",)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        Bands.calls.append(len(waveform))
        frames = waveform.double().unfold(1, HOP, HOP)  # (batch, time, HOP)
        power = torch.fft.rfft(frames).abs().square()[..., 1:193].unflatten(-1, (16, 12)).sum(-1)  # (batch, time, 16)
        logs = torch.log(power + 1e-20)
        shape = (logs - logs.mean(-1, keepdim=True)).float()
        is_loud = frames.square().mean(-1, keepdim=True) > 1e-4
        return {"shape": shape, "gated": shape * is_loud}


def keep_all(waveform: np.ndarray, sample_rate: int, *, times: float) -> np.ndarray:
    """Change nothing."""
    return waveform


def fail_when_loud(waveform: np.ndarray, sample_rate: int, *, limit: float, rng: np.random.Generator) -> np.ndarray:
    """Fail for about half of the clips, which the clip's own draw decides."""
    if rng.random() < limit and len(waveform) != 16000:  # not the clip that a function is tried on
        raise RuntimeError("too loud")
    return waveform
