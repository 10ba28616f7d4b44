"""The way from the waveform to the network that CED and Dasheng share: decibels, then a BatchNorm of the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evar.encoders._filterbanks import DecibelMel
from evar.encoders.base import Encoder
from evar.encoders.weights import state_dict_of

HOP, N_MELS, TOP_DB = 160, 64, 120.0


class BatchNormMel(Encoder):
    """An encoder on 64 mel bands in decibels, each band normalised by the statistics of its training.

    A family writes `forward` from `normalised`, and the network.
    """

    sample_rate = 16000
    ignored_tensors = ("front_end.",)  # window and filterbank: formulas

    def __init__(self) -> None:
        super().__init__()
        self.mel = DecibelMel(512, 0.0, 8000.0, TOP_DB)
        self.init_bn = nn.BatchNorm1d(N_MELS)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """The original file's names and the hub's to this module's."""
        state = state_dict_of(checkpoint)
        return {name.removeprefix("encoder.").replace("init_bn.1.", "init_bn."): value for name, value in state.items()}

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """1 + samples // 160."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples) -> (batch, time, 64) decibels, before the BatchNorm."""
        return self.mel(waveform, lengths)

    def normalised(self, waveform: Tensor, lengths: Tensor, n_frames: int) -> Tensor:
        """What the network sees.

        Args:
            waveform, lengths: as for `forward`.
            n_frames: to fill with zeros up to, after the BatchNorm.

        Returns:
            (batch, time, 64), zeros beyond each clip's own frames; time is at least n_frames.
        """
        bands = self.init_bn(self.network_input(waveform, lengths).transpose(1, 2)).transpose(1, 2)  # (batch, time, 64)
        beyond = torch.arange(bands.shape[1], device=bands.device)[None, :] >= self.mel.frames(lengths)[:, None]
        return nn.functional.pad(
            bands.masked_fill(beyond[:, :, None], 0.0), (0, 0, 0, max(0, n_frames - bands.shape[1]))
        )
