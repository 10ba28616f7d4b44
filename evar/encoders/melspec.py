"""Mel spectrogram without a logarithm: what a table loses when loudness is not compressed.

Paper: none. Checkpoint: none, nothing was trained.

Input: 16 kHz, any length. Magnitude spectra of 25 ms (400 samples, periodic Hann) every 10 ms, zero-padded to a Fourier
transform of 1024 samples; frames are centred, with zeros beyond the clip's ends; 64 bands from 50 to 8000 Hz (Slaney's
scale, triangles of peak 1).

Layers: `melspec` (64, hop 160), pooled to the mean and standard deviation over time: 128 features.
"""

from __future__ import annotations

from torch import Tensor

from evar.encoders.features import LayerInfo
from evar.encoders.logmel import LogMel


class MelSpec(LogMel):
    """Mel bands of magnitudes; see the module's docstring for the settings.

    Args:
        n_mels: bands.
        n_fft, win_length, hop: samples at 16 kHz.
        f_min, f_max: Hz.

    Raises:
        ValueError: if an option is out of range.

    Example:
        >>> import torch
        >>> MelSpec().encode(torch.zeros(1, 16000))["melspec"].shape
        torch.Size([1, 101, 64])
    """

    default_layers = ("melspec",)
    power = 1

    def __init__(
        self,
        n_mels: int = 64,
        n_fft: int = 1024,
        win_length: int = 400,
        hop: int = 160,
        f_min: float = 50.0,
        f_max: float = 8000.0,
    ) -> None:
        super().__init__(n_mels, n_fft, win_length, hop, f_min, f_max)
        self.layer_infos = (LayerInfo("melspec", n_mels, hop, "mean_std", "magnitude, no logarithm"),)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Map (batch, samples) to {"melspec": (batch, time, n_mels)}, magnitudes."""
        return {"melspec": self.mel(waveform)}
