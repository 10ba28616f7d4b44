"""The front-end of ESResNeXt-fbsp: a Fourier transform whose every frequency is a learned wavelet."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evar.encoders._logmel import Count

FRAME, HOP, N_FFT = 1654, 561, 2048
N_KERNELS, N_BINS = N_FFT // 2 + 1, 1023
POWER_FLOOR, TINY = 1e-18, 1e-8
#: of the Blackman-Harris window with four terms
TERMS = (0.35875, -0.48829, 0.14128, -0.01168)
# Frames that are transformed at once.
_CHUNK = 4096


class WaveletSpectrum(nn.Module):
    """Decibels of complex frequency B-spline wavelets: (batch, samples) -> (batch, time, 1023).

    Frames of 1654 samples every 561, times a periodic Blackman-Harris window. Wavelet k, of order m, bandwidth b and centre
    c (three learned numbers each), is sqrt(b) s(t)^m exp(-i c t) / sqrt(2048) with s(t) = sin(a) / a, a = b t / m, over 2048
    points of t from -pi to pi, of which a frame sees those in the middle. With m = 0, b = 1 and c = k this is a Fourier
    transform.

    Args:
        double: compute in float64 (where the device knows it). The wavelets reach angles of 3217 radians, which float32
            tells apart by some 1e-4 only, and digital silence is nothing but rounding errors in float32.

    Source: Guzhov et al., "ESResNe(X)t-fbsp: Learning Robust Time-Frequency Transformation of Audio", IJCNN 2021.

    Example:
        >>> WaveletSpectrum()(torch.zeros(1, 44100), torch.tensor([44100])).shape
        torch.Size([1, 77, 1023])
    """

    def __init__(self, *, double: bool = True) -> None:
        super().__init__()
        self.double_inside = double
        self.m = nn.Parameter(torch.zeros(N_KERNELS))
        self.fb = nn.Parameter(torch.ones(N_KERNELS))
        self.fc = nn.Parameter(torch.arange(N_KERNELS).float())
        self._kept: tuple[tuple[object, ...], Tensor] | None = None

    def frames(self, n_samples: Count) -> Count:
        """Count the frames of a clip: one, and one more for every 561 samples, or part of them, beyond 1654.

        Args:
            n_samples: samples of the clip: a number, or (batch,) numbers.

        Returns:
            Frames, of the same kind as `n_samples`.

        Example:
            >>> WaveletSpectrum().frames(44100), WaveletSpectrum().frames(100)
            (77, 1)
        """
        more = -((FRAME - n_samples) // HOP)
        return 1 + (more.clamp(min=0) if isinstance(more, Tensor) else max(0, more))

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the decibels of every frame.

        Args:
            waveform: (batch, samples).
            lengths: (batch,) valid samples of each clip. Half of the zeros that its last frame needs stand in front of it,
                the other half behind it.

        Returns:
            (batch, time, 1023) decibels, at least -180; float32, or float64 where the parameters are.

        Example:
            >>> WaveletSpectrum()(torch.zeros(1, 100), torch.tensor([100])).unique().tolist()
            [-180.0]
        """
        counts = self.frames(lengths)
        n_frames = int(counts.max())
        is_double = self.double_inside and waveform.device.type != "mps"  # MPS has no float64
        centred = torch.zeros(
            len(waveform),
            FRAME + (n_frames - 1) * HOP,
            dtype=torch.float64 if is_double else torch.float32,
            device=waveform.device,
        )
        for row, (length, count) in enumerate(zip(lengths.tolist(), counts.tolist(), strict=True)):
            before = (FRAME + (count - 1) * HOP - length) // 2
            centred[row, before : before + length] = waveform[row, :length].to(centred.dtype)
        kernels, window = self._get_kernels(centred), make_window().to(centred)
        frames = centred.unfold(1, FRAME, HOP)
        if torch.jit.is_tracing():
            return self._to_decibels(frames * window, kernels)
        parts = frames.split(max(1, _CHUNK // len(frames)), dim=1)
        return torch.cat([self._to_decibels(part * window, kernels) for part in parts], dim=1)

    def _to_decibels(self, frames: Tensor, kernels: Tensor) -> Tensor:
        """(batch, time, sample) -> (batch, time, bin)."""
        power = (frames @ kernels).square().unflatten(2, (2, -1)).sum(dim=2)
        return (10.0 * power.masked_fill(power == 0, POWER_FLOOR).log10()).to(self.fc.dtype)

    def _get_kernels(self, like: Tensor) -> Tensor:
        """(sample, real and imaginary parts x bin); kept while the parameters stay as they are and nothing is trained."""
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            return self._make_kernels(like)
        state = (like.device, *((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters()))
        if self._kept is None or self._kept[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = (state, self._make_kernels(like))
        return self._kept[1]

    def _make_kernels(self, like: Tensor) -> Tensor:
        first = (N_FFT - FRAME) // 2
        points = torch.linspace(-1.0, 1.0, N_FFT, dtype=like.dtype, device=like.device)[first : first + FRAME]
        time = math.pi * points + TINY
        order, band, centre = (p[:N_BINS, None].to(like.dtype) for p in (self.m, self.fb, self.fc))
        angle = band * time / (order + TINY)
        spline = torch.where(angle == 0, torch.ones_like(angle), angle.sin() / angle)
        # A power of a negative number is complex: its angle is pi times the order.
        kernels = torch.polar(spline.abs() ** order, order * math.pi * (spline < 0))
        kernels = kernels * torch.polar(torch.ones_like(angle), -centre * time) * (band.sqrt() / math.sqrt(N_FFT))
        return torch.cat([kernels.real, kernels.imag]).T


def make_window() -> Tensor:
    """Make the periodic Blackman-Harris window of a frame: (1654,) in float32, as checkpoints hold it.

    Example:
        >>> round(make_window().max().item(), 4)
        1.0
    """
    steps = 2.0 * math.pi * torch.arange(FRAME, dtype=torch.float64) / FRAME
    waves = torch.stack([term * (number * steps).cos() for number, term in enumerate(TERMS)])
    return waves.sum(dim=0).float()
