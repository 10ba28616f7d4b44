"""MFCC: cepstral coefficients and how they change, the classic features of speech and music before networks.

Paper: Davis and Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition in
Continuously Spoken Sentences", IEEE TASSP 1980. Checkpoint: none, nothing was trained.

Input: 16 kHz, any length. The log-mel of `logmel`: power spectra of 25 ms every 10 ms, 64 bands from 50 to 8000 Hz,
ln(x + 1e-6). Its orthonormal discrete cosine transform (type 2) over the bands gives the coefficients.

Layers, all of hop 160 and pooled to the mean and standard deviation over time: `mfcc` (20 coefficients, the first is
loudness); `delta`, the slope of each coefficient over 5 frames, by least squares, the first and last frame repeated
beyond the ends; `delta2`, the slope of the slope. The default is all three side by side: 120 features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evar.encoders.features import LayerInfo
from evar.encoders.logmel import LogMel

REACH = 2  # frames on either side of a slope


class Mfcc(LogMel):
    """Cepstral coefficients and their slopes; see the module's docstring for the settings.

    Args:
        n_mfcc: coefficients, at most n_mels.
        n_mels: bands.
        n_fft, win_length, hop: samples at 16 kHz.
        f_min, f_max: Hz.

    Raises:
        ValueError: if an option is out of range.

    Example:
        >>> Mfcc().encode(torch.zeros(1, 16000))["delta"].shape
        torch.Size([1, 101, 20])
    """

    default_layers = ("mfcc", "delta", "delta2")
    transform: Tensor

    def __init__(
        self,
        n_mfcc: int = 20,
        n_mels: int = 64,
        n_fft: int = 1024,
        win_length: int = 400,
        hop: int = 160,
        f_min: float = 50.0,
        f_max: float = 8000.0,
    ) -> None:
        if not 1 <= n_mfcc <= n_mels:
            raise ValueError(f"mfcc needs 1 to {n_mels} coefficients (n_mfcc), as many as bands at most, got {n_mfcc}")
        super().__init__(n_mels, n_fft, win_length, hop, f_min, f_max)
        self.register_buffer("transform", make_cosine_transform(n_mels, n_mfcc), persistent=False)
        notes = ("cepstral coefficients", "slope over 5 frames", "slope of the slope")
        self.layer_infos = tuple(
            LayerInfo(name, n_mfcc, hop, "mean_std", note)
            for name, note in zip(("mfcc", "delta", "delta2"), notes, strict=True)
        )

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Map (batch, samples) to "mfcc", "delta" and "delta2": (batch, time, n_mfcc)."""
        coefficients = super().forward(waveform, lengths)["logmel"] @ self.transform  # (batch, time, n_mfcc)
        frames = self.mel.frames(lengths)
        delta = compute_slopes(coefficients, frames)
        return {"mfcc": coefficients, "delta": delta, "delta2": compute_slopes(delta, frames)}


def make_cosine_transform(n_mels: int, n_mfcc: int) -> Tensor:
    """Make the first columns of the orthonormal discrete cosine transform of type 2.

    Args:
        n_mels: numbers that are transformed.
        n_mfcc: numbers that come out.

    Returns:
        (n_mels, n_mfcc).

    Source: the definition of the transform, `scipy.fft.dct(type=2, norm="ortho")`.

    Example:
        >>> (make_cosine_transform(4, 2).T @ make_cosine_transform(4, 2)).round(decimals=4).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    places = torch.arange(n_mels, dtype=torch.float64)[:, None] + 0.5
    table = (math.pi / n_mels * places * torch.arange(n_mfcc, dtype=torch.float64)).cos() * math.sqrt(2 / n_mels)
    table[:, 0] /= math.sqrt(2)
    return table.float()


def compute_slopes(values: Tensor, frames: Tensor) -> Tensor:
    """Compute how fast each feature rises, by least squares over 5 frames; the end frames are repeated.

    Args:
        values: (batch, time, feature).
        frames: (batch,) valid frames of each clip.

    Returns:
        (batch, time, feature), per frame.

    Source: HTK book, equation 5.16, with a window of 2.

    Example:
        >>> compute_slopes(torch.tensor([[[0.0], [1.0], [2.0], [3.0], [4.0]]]), torch.tensor([5]))[0, 2].tolist()
        [1.0]
    """
    places = torch.arange(values.shape[1], device=values.device)
    last = frames[:, None].to(values.device) - 1
    total = torch.zeros_like(values)
    for step in range(1, REACH + 1):
        later = torch.minimum(places[None, :] + step, last)  # (batch, time)
        earlier = (places - step).clamp(min=0)
        ahead = values.gather(1, later.clamp(min=0)[:, :, None].expand_as(values))
        total = total + step * (ahead - values[:, earlier])
    return total / (2 * sum(step * step for step in range(1, REACH + 1)))
