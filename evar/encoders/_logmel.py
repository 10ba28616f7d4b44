"""Mel filterbanks and a batched mel spectrogram: the front-end that log-mel encoders share.

Packages differ in five places, and each is an option here: the mel scale (HTK or Slaney), where a triangle is linear
(in Hz, as librosa draws it, or in mel, as HTK and Kaldi do), how a triangle is normalised, the window
(periodic or symmetric Hann, or Povey's), and the samples beyond the clip's two ends. The logarithm is left to the encoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evar.config.registry import near_miss

Count = TypeVar("Count", int, Tensor)

SCALES = ("htk", "slaney")
NORMS = ("none", "slaney", "sum")
SLOPES = ("hz", "mel")
WINDOWS = ("periodic", "symmetric", "povey")
POVEY_EXPONENT = 0.85
CENTERS = ("none", "constant", "reflect")

# Numbers (zero-padded frames) that are transformed at once: near the cache on CPU, bounded memory elsewhere.
_CPU_CHUNK = 2**19
_DEVICE_CHUNK = 2**26

# Slaney's scale: 200/3 Hz a mel up to 1 kHz, then 27 mels from there to 6.4 kHz, spaced evenly in log frequency.
_SLANEY_HZ_PER_MEL = 200.0 / 3.0
_SLANEY_KNEE_HZ = 1000.0
_SLANEY_KNEE_MEL = _SLANEY_KNEE_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(frequency: NDArray[np.floating] | float, scale: str) -> NDArray[np.float64]:
    """Convert frequencies in Hz, (bands,) or any other shape, >= 0, into mels of the "htk" or "slaney" scale.

    Source: HTK book, section 5.4: 2595 log10(1 + f / 700); Slaney, "Auditory Toolbox", Interval TR 1998-010.

    Example:
        >>> [round(float(hz_to_mel(1000.0, scale)), 2) for scale in ("htk", "slaney")]
        [999.99, 15.0]
    """
    hz = np.asarray(frequency, dtype=np.float64)
    if _require_known("scale", scale, SCALES) == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0))
    above = _SLANEY_KNEE_MEL + np.log(np.maximum(hz, _SLANEY_KNEE_HZ) / _SLANEY_KNEE_HZ) / _SLANEY_LOG_STEP
    return np.where(hz < _SLANEY_KNEE_HZ, hz / _SLANEY_HZ_PER_MEL, above)


def mel_to_hz(mel: NDArray[np.float64] | float, scale: str) -> NDArray[np.float64]:
    """Convert mels, (bands,) or any other shape, into Hz: the inverse of `hz_to_mel`.

    Example:
        >>> round(float(mel_to_hz(hz_to_mel(3000.0, "slaney"), "slaney")), 6)
        3000.0
    """
    mels = np.asarray(mel, dtype=np.float64)
    if _require_known("scale", scale, SCALES) == "htk":
        return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))
    above = _SLANEY_KNEE_HZ * np.exp((np.maximum(mels, _SLANEY_KNEE_MEL) - _SLANEY_KNEE_MEL) * _SLANEY_LOG_STEP)
    return np.where(mels < _SLANEY_KNEE_MEL, mels * _SLANEY_HZ_PER_MEL, above)


@lru_cache(maxsize=32)
def mel_filterbank(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    scale: str = "slaney",
    norm: str = "slaney",
    slope: str = "hz",
) -> NDArray[np.float64]:
    """Triangular filters whose edges are evenly spaced in mel.

    Args:
        sample_rate: Hz.
        n_fft: samples of the Fourier transform.
        n_mels: filters.
        f_min: lower edge of the first filter, Hz.
        f_max: upper edge of the last filter, Hz; None is sample_rate / 2.
        scale: "htk" or "slaney" mels.
        norm: "none" (peak 1), "slaney" (area 1 over Hz) or "sum" (weights over the bins add up to 1).
        slope: "hz" (triangles linear over Hz: librosa) or "mel" (linear over mel: HTK, Kaldi, VGGish, Essentia).

    Returns:
        (mel, bin), n_fft // 2 + 1 bins, read-only. A filter narrower than the bin spacing may be empty (all zero).

    Raises:
        ValueError: if an option is unknown or the edges are not 0 <= f_min < f_max <= sample_rate / 2.

    Source: `librosa.filters.mel` (slope "hz"), the HTK book 5.4 and Kaldi's mel-computations (slope "mel").

    Example:
        >>> mel_filterbank(16000, 512, 64).shape
        (64, 257)
    """
    _require_known("norm", norm, NORMS)
    _require_known("slope", slope, SLOPES)
    top = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < top <= sample_rate / 2 or n_mels < 1:
        raise ValueError(
            f"mel filters need n_mels >= 1 and 0 <= f_min < f_max <= {sample_rate / 2:g} Hz at {sample_rate} Hz, "
            f"got n_mels={n_mels}, f_min={f_min:g}, f_max={top:g}"
        )
    edge_mels = np.linspace(hz_to_mel(f_min, scale), hz_to_mel(top, scale), n_mels + 2)
    edges_hz = mel_to_hz(edge_mels, scale)
    bins_hz = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    edges, bins = (edges_hz, bins_hz) if slope == "hz" else (edge_mels, hz_to_mel(bins_hz, scale))
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
    filters = np.maximum(0.0, np.minimum(rising, falling))  # (mel, bin)
    if norm == "slaney":
        filters *= 2.0 / (edges_hz[2:] - edges_hz[:-2])[:, None]
    elif norm == "sum":
        totals = filters.sum(axis=1, keepdims=True)
        filters /= np.where(totals > 0, totals, 1.0)
    filters.setflags(write=False)  # it is cached: a caller's change would reach every other caller
    return filters


@dataclass(frozen=True)
class MelSettings:
    """Settings of a mel spectrogram: frames of the waveform, their spectra, and the bands.

    Attributes:
        sample_rate: Hz.
        n_fft: samples of the Fourier transform.
        hop: samples between frames.
        n_mels: bands.
        win_length: samples of the Hann window, at most n_fft (None: n_fft); the rest of the transform is zeros.
        f_min, f_max, scale, norm, slope: see `mel_filterbank`.
        window: "periodic" or "symmetric" Hann, or "povey" (Kaldi's: the symmetric one to the power 0.85).
        power: 2 for power spectra, 1 for magnitudes.
        center: "none": frame i starts at sample i x hop, and only frames inside the clip count (HTK, Kaldi, VGGish).
            "constant" or "reflect": frame i is centred on sample i x hop, with zeros or the mirrored clip beyond
            each clip's own two ends (librosa, torchaudio).
        remove_dc: subtract each frame's mean first (Kaldi).
        preemphasis: subtract that share of the previous sample within each frame, the first from itself (Kaldi).
        double: compute in float64 (where the device knows it) and round the bands to float32: for front-ends whose
            faintest bands matter, since float32 transforms leave errors of 1e-7 of the loudest band in all of them.

    Raises:
        ValueError: if an option is unknown or out of range.
    """

    sample_rate: int
    n_fft: int
    hop: int
    n_mels: int
    win_length: int | None = None
    f_min: float = 0.0
    f_max: float | None = None
    scale: str = "slaney"
    norm: str = "slaney"
    slope: str = "hz"
    window: str = "periodic"
    power: int = 2
    center: str = "constant"
    remove_dc: bool = False
    preemphasis: float = 0.0
    double: bool = False

    def __post_init__(self) -> None:
        _require_known("center", self.center, CENTERS)
        if self.hop < 1 or not 2 <= self.window_samples <= self.n_fft or self.power not in (1, 2):
            raise ValueError(
                f"a mel spectrogram needs hop >= 1, 2 <= win_length <= n_fft and power 1 or 2, "
                f"got hop={self.hop}, win_length={self.window_samples}, n_fft={self.n_fft}, power={self.power}"
            )
        _require_known("window", self.window, WINDOWS)

    @property
    def window_samples(self) -> int:
        """Samples of the window."""
        return self.n_fft if self.win_length is None else self.win_length

    def make_window(self) -> Tensor:
        """Compute the window: (window samples,) float64."""
        hann = torch.hann_window(self.window_samples, periodic=self.window == "periodic", dtype=torch.float64)
        return hann**POVEY_EXPONENT if self.window == "povey" else hann

    def make_filters(self) -> Tensor:
        """Compute the weight of each frequency bin in each band: (bin, mel) float64."""
        limits = (self.f_min, self.f_max, self.scale, self.norm, self.slope)
        return torch.from_numpy(mel_filterbank(self.sample_rate, self.n_fft, self.n_mels, *limits).T.copy())


class MelSpectrogram(nn.Module):
    """Mel bands of short-time spectra: (batch, samples) -> (batch, time, mel), on the waveform's device.

    Args:
        **options: the fields of `MelSettings`.

    Raises:
        ValueError: if an option is unknown or out of range.

    Example:
        >>> mel = MelSpectrogram(sample_rate=16000, n_fft=512, win_length=400, hop=160, n_mels=64)
        >>> mel(torch.zeros(2, 16000)).shape
        torch.Size([2, 101, 64])
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__()
        settings = MelSettings(**options)
        self.n_fft, self.hop, self.power = settings.n_fft, settings.hop, settings.power
        self.win_length, self.center = settings.window_samples, settings.center
        self.remove_dc, self.preemphasis = settings.remove_dc, settings.preemphasis
        window, filters = settings.make_window(), settings.make_filters()
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filterbank", filters.float(), persistent=False)
        # No buffers, because some devices (MPS) refuse float64: copied to where they are used, once.
        self._double = {torch.device("cpu"): (window, filters)} if settings.double else {}
        # The window sits in the middle of the n_fft samples around i x hop; only its own samples are ever cut out.
        is_inside = self.center == "none"
        self._left = 0 if is_inside else self.n_fft // 2 - (self.n_fft - self.win_length) // 2
        self._right = 0 if is_inside else self.win_length - self._left

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that gives a frame.

        Example:
            >>> [
            ...     MelSpectrogram(sample_rate=16000, n_fft=512, hop=160, n_mels=64, center=center).min_samples
            ...     for center in ("none", "constant", "reflect")
            ... ]
            [512, 1, 257]
        """
        return {"none": self.win_length, "constant": 1, "reflect": max(self._left, self._right) + 1}[self.center]

    def frames(self, n_samples: Count) -> Count:
        """Count the frames of clips of that many samples (a number, or a tensor of numbers).

        Example:
            >>> MelSpectrogram(sample_rate=16000, n_fft=512, hop=160, n_mels=64, center="none").frames(16000)
            97
        """
        inside = n_samples - self.win_length if self.center == "none" else n_samples
        return 1 + inside // self.hop

    def forward(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mel bands of every frame.

        Args:
            waveform: (batch, samples) in [-1, 1], zero beyond each clip's length.
            lengths: (batch,) valid samples, each >= `min_samples`; None if all are valid. Only "reflect" needs
                them: a clip must be mirrored at its own end, not at its batch's.

        Returns:
            (batch, time, mel) linear power or magnitude, >= 0; clip b owns its first `frames(lengths[b])` frames.

        Raises:
            ValueError: if the waveform is shorter than `min_samples`.

        Example:
            >>> mel = MelSpectrogram(sample_rate=16000, n_fft=512, hop=160, n_mels=64, center="reflect")
            >>> mel(torch.zeros(2, 3200), torch.tensor([3200, 1600])).shape
            torch.Size([2, 21, 64])
        """
        if waveform.shape[1] < self.min_samples:
            raise ValueError(
                f"waveform must have at least {self.min_samples} samples here, got {waveform.shape[1]}; "
                "zero-pad it first, as Encoder.encode does"
            )
        frames = self._pad_ends(waveform, lengths).unfold(1, self.win_length, self.hop)  # (batch, time, window)
        if torch.jit.is_tracing():  # for `evar export`: a graph has no pieces of a size that it does not know
            return self._bands(frames)
        chunk = _CPU_CHUNK if frames.device.type == "cpu" else _DEVICE_CHUNK
        n_frames = max(1, chunk // (len(frames) * self.n_fft))
        return torch.cat([self._bands(part) for part in frames.split(n_frames, dim=1)], dim=1)

    def _bands(self, frames: Tensor) -> Tensor:
        """(batch, time, window) -> (batch, time, mel)."""
        window, filterbank = self._constants(frames.device)
        frames = frames.to(window.dtype)
        if self.remove_dc:
            frames = frames - frames.mean(dim=2, keepdim=True)
        if self.preemphasis:
            previous = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
            frames = frames - self.preemphasis * previous
        spectrum = torch.fft.rfft(frames * window, n=self.n_fft)  # (batch, time, bin)
        bands = spectrum.abs() if self.power == 1 else spectrum.real.square() + spectrum.imag.square()
        return (bands @ filterbank).float()  # (batch, time, mel)

    def make_trainable(self) -> None:
        """Turn the filters into parameters (weights below 0 count as 0), which `state_dict` then holds.

        Example:
            >>> mel = MelSpectrogram(sample_rate=16000, n_fft=512, hop=160, n_mels=64)
            >>> mel.make_trainable()
            >>> {name: tuple(value.shape) for name, value in mel.state_dict().items()}
            {'filterbank': (257, 64)}
        """
        if not isinstance(self.filterbank, nn.Parameter):
            filterbank = self.filterbank
            del self.filterbank
            self.filterbank = nn.Parameter(filterbank)

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Window (sample,) and filterbank (bin, mel), in the precision to compute in."""
        if isinstance(self.filterbank, nn.Parameter):
            fixed = self._get_constants(device)[0]
            return fixed, self.filterbank.clamp(min=0).to(fixed.dtype)
        return self._get_constants(device)

    def _get_constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if not self._double or device.type == "mps":
            return self.window, self.filterbank
        if device not in self._double:
            self._double[device] = tuple(value.to(device) for value in self._double[torch.device("cpu")])  # type: ignore
        return self._double[device]

    def _pad_ends(self, waveform: Tensor, lengths: Tensor | None) -> Tensor:
        """(batch, left + samples + right): the clip with zeros or its mirror image beyond its two ends."""
        if self.center == "none":
            return waveform
        if self.center == "constant":
            return nn.functional.pad(waveform, (self._left, self._right))
        if lengths is None or bool((lengths == waveform.shape[1]).all()):
            return nn.functional.pad(waveform, (self._left, self._right), mode="reflect")
        padded = nn.functional.pad(waveform, (self._left, 0), mode="reflect")
        padded = nn.functional.pad(padded, (0, self._right))
        ends = lengths.to(waveform.device)[:, None]
        beyond = torch.arange(self._right, device=waveform.device)[None, :]
        mirrored = waveform.gather(1, ends - 2 - beyond)  # (batch, right)
        return padded.scatter(1, self._left + ends + beyond, mirrored)


def make_vggish_mel() -> MelSpectrogram:
    """Make the front-end that VGGish, YAMNet and TRILL share: 16 kHz, 25 ms every 10 ms, 64 bands from 125 to 7500 Hz.

    Returns:
        (batch, samples) -> (batch, time, 64) magnitudes.

    Example:
        >>> make_vggish_mel()(torch.zeros(1, 16000)).shape
        torch.Size([1, 98, 64])
    """
    return MelSpectrogram(
        sample_rate=16000,
        n_fft=512,
        win_length=400,
        hop=160,
        n_mels=64,
        f_min=125.0,
        f_max=7500.0,
        scale="htk",
        norm="none",
        slope="mel",
        power=1,
        center="none",
        double=True,
    )


def _require_known(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"no {option} {value!r}; {near_miss(value, known)}")
    return value
