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

    A family writes `forward` from `compute_normalised_input`, and the network.
    """

    sample_rate = 16000
    ignored_tensors = ("front_end.",)  # window and filterbank: formulas

    def __init__(self) -> None:
        super().__init__()
        self.mel = DecibelMel(512, 0.0, 8000.0, TOP_DB)
        self.init_bn = nn.BatchNorm1d(N_MELS)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the original file and of the hub's to this module's own names.

        Args:
            checkpoint: content of the file, wrappers included.

        Returns:
            tensor name of this module -> tensor.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> list(describe_encoder("ced.tiny").convert({"model": {"encoder.init_bn.1.weight": torch.ones(64)}}))
            ['init_bn.weight']
        """
        state = state_dict_of(checkpoint)
        return {name.removeprefix("encoder.").replace("init_bn.1.", "init_bn."): value for name, value in state.items()}

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames of clips: 1 + samples // 160.

        Args:
            lengths: (batch,) valid samples of each clip, at 16 kHz.

        Returns:
            (batch,) frames.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("ced.tiny").network_input_frames(torch.tensor([16000, 8000])).tolist()
            [101, 51]
        """
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel in decibels, before the BatchNorm.

        Args:
            waveform: (batch, samples) in [-1, 1] at 16 kHz.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch, time, 64) decibels.

        Example:
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("ced.tiny", "random", n_blocks=1)
            >>> encoder.network_input(torch.zeros(1, 16000), torch.tensor([16000])).shape
            torch.Size([1, 101, 64])
        """
        return self.mel(waveform, lengths)

    def compute_normalised_input(self, waveform: Tensor, lengths: Tensor, n_frames: int) -> Tensor:
        """Compute the input of the network.

        Args:
            waveform, lengths: as for `forward`.
            n_frames: to fill with zeros up to, after the BatchNorm.

        Returns:
            (batch, time, 64), zeros beyond each clip's own frames; time is at least n_frames.

        Example:
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("ced.tiny", "random", n_blocks=1)
            >>> encoder.compute_normalised_input(torch.zeros(1, 16000), torch.tensor([16000]), n_frames=112).shape
            torch.Size([1, 112, 64])
        """
        bands = self.init_bn(self.network_input(waveform, lengths).transpose(1, 2)).transpose(1, 2)  # (batch, time, 64)
        beyond = torch.arange(bands.shape[1], device=bands.device)[None, :] >= self.mel.frames(lengths)[:, None]
        return nn.functional.pad(
            bands.masked_fill(beyond[:, :, None], 0.0), (0, 0, 0, max(0, n_frames - bands.shape[1]))
        )
