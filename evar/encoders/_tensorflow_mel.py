"""TensorFlow's spectra and mel bands, rounded to float32 where TensorFlow rounds.

Deep networks without trained weights, and networks on the faintest bands, show these roundings: embeddings differ by
1e-5 to 5e-5 from those of exact arithmetic. Everything else about them is what `_logmel.MelSpectrogram` computes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evar.encoders._logmel import Count

_CHUNK = 2**12  # frames that are transformed at once
_FACTOR, _KNEE_HZ = np.float32(1127.0), np.float32(700.0)


class TensorflowMel(nn.Module):
    """Mel bands of magnitudes of whole frames: (batch, samples) -> (batch, time, mel).

    Args:
        sample_rate: Hz.
        win_length, hop, n_fft: samples of a frame, between frames, and of the Fourier transform.
        n_mels: bands.
        f_min, f_max: edges of the bands, Hz.

    Source: tf.signal.stft and tf.signal.linear_to_mel_weight_matrix: HTK's mel, triangles linear in mel, peak 1.

    Example:
        >>> TensorflowMel(16000, 400, 160, 1024, 64, 60.0, 7800.0)(torch.zeros(2, 16000)).shape
        torch.Size([2, 98, 64])
    """

    filterbank: Tensor

    def __init__(
        self, sample_rate: int, win_length: int, hop: int, n_fft: int, n_mels: int, f_min: float, f_max: float
    ) -> None:
        super().__init__()
        self.win_length, self.hop, self.n_fft = win_length, hop, n_fft
        filters = make_single_filterbank(sample_rate, n_fft, n_mels, f_min, f_max)
        self.register_buffer("filterbank", torch.from_numpy(filters), persistent=False)

    def frames(self, n_samples: Count) -> Count:
        """Count the whole frames of a clip.

        Args:
            n_samples: a number, or (batch,) numbers, at least a frame.

        Example:
            >>> TensorflowMel(16000, 400, 160, 1024, 64, 60.0, 7800.0).frames(16000)
            98
        """
        return 1 + (n_samples - self.win_length) // self.hop

    def forward(self, waveform: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, mel) magnitudes."""
        frames = waveform.unfold(1, self.win_length, self.hop)
        if torch.jit.is_tracing():
            return compute_single_magnitudes(frames, self.n_fft) @ self.filterbank
        parts = [compute_single_magnitudes(part, self.n_fft) @ self.filterbank for part in frames.split(_CHUNK, dim=1)]
        return torch.cat(parts, dim=1)


def compute_single_magnitudes(frames: Tensor, n_fft: int) -> Tensor:
    """Magnitudes of the spectra of frames under a periodic Hann window, in float32 throughout.

    scipy rounds as TensorFlow does. torch's transforms, and float64, differ from it by up to 0.02 dB in the faintest of
    256 bands. No gradient passes to the waveform.

    Args:
        frames: (batch, time, sample).
        n_fft: samples of the Fourier transform; shorter frames are filled up with zeros.

    Returns:
        (batch, time, bin) on the device of the frames.

    Example:
        >>> compute_single_magnitudes(torch.ones(1, 1, 4), 4).flatten().tolist()
        [2.0, 1.0, 0.0]
    """
    from scipy.fft import rfft

    n = int(frames.shape[-1])
    angles = np.float32(2 * np.pi) * np.arange(n, dtype=np.float32) / np.float32(n)
    hann = np.float32(0.5) - np.float32(0.5) * np.cos(angles)
    if torch.jit.is_tracing():  # for `evar export`: no trace follows what scipy does
        return torch.fft.rfft(frames * torch.from_numpy(hann), n=n_fft).abs()
    windowed = frames.detach().cpu().numpy() * hann
    return torch.from_numpy(np.abs(rfft(windowed, n_fft))).to(frames.device)


def make_single_filterbank(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float
) -> NDArray[np.float32]:
    """TensorFlow's mel filters, whose differences of mels are rounded to float32.

    Args:
        sample_rate, n_fft, n_mels, f_min, f_max: as for `evar.encoders._logmel.mel_filterbank`.

    Returns:
        (bin, mel).

    Example:
        >>> make_single_filterbank(16000, 1024, 64, 60.0, 7800.0).shape
        (513, 64)
    """

    def to_mel(hertz: NDArray[np.float32]) -> NDArray[np.float32]:
        return _FACTOR * np.log((np.float32(1) + hertz / _KNEE_HZ).astype(np.float64)).astype(np.float32)

    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=np.float32)[1:]
    low, high = to_mel(np.array([f_min, f_max], np.float32))
    edges = low + (high - low) / np.float32(n_mels + 1) * np.arange(n_mels + 2, dtype=np.float32)
    edges[-1] = high
    mels = to_mel(bins)[:, None]
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    filters = np.maximum(np.float32(0), np.minimum(rising, falling))
    return np.pad(filters, ((1, 0), (0, 0))).astype(np.float32)  # the bin of frequency 0 counts for nothing
