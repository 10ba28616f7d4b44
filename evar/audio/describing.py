"""Description of a whole file: as it is stored, and as an encoder receives it, mixed to mono and resampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.contents import load_content
from evar.audio.errors import AudioError
from evar.audio.opening import SPARE_SECONDS, Opened, open_sound, tell_cut_off
from evar.audio.reading import MIN_SECONDS, inspect
from evar.audio.segments import Segment, file_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Hz; encoders of speech and most of the others hear nothing above
HEARD_UP_TO = 8000.0
#: Hz at which sound ends that was once sampled at 8, 11.025, 12, 16, 22.05, 24 or 32 kHz
_EDGES = (4000.0, 5512.5, 6000.0, 8000.0, 11025.0, 12000.0, 16000.0)
#: power just above a band limit, as a share of that just below: 30 dB
_FALL = 1e-3
_FFT = 4096


@dataclass(frozen=True)
class Sound:
    """Description of a whole file.

    Attributes:
        sha256: of the file's bytes.
        seconds, sample_rate, channels, subtype: of the decoded sound; subtype is libsndfile's word for the coding.
        rms_db, peak_db: level over all channels, dB of full scale; -inf for digital silence.
        clipped: share of samples at the file's largest absolute value, where that is near full scale; else 0.
        is_finite: no sample is NaN or infinite.
        mono_db: level of the mean of the channels, which is what encoders get; far below `rms_db` where channels cancel.
        heard_db: level of the mono sound below 8 kHz.
        offset: mean of the mono samples (DC), in parts of full scale.
        band_limit: Hz above which the file is empty although its rate allows more; 0 if there is no limit.
    """

    sha256: str
    seconds: float
    sample_rate: int
    channels: int
    subtype: str
    rms_db: float
    peak_db: float
    clipped: float
    is_finite: bool
    mono_db: float = 0.0
    heard_db: float = 0.0
    offset: float = 0.0
    band_limit: float = 0.0


def describe(path: str | Path | Segment, most_seconds: float | None = None) -> Sound:
    """Decode a file, or a part of it, block by block, and measure it.

    Args:
        path: audio file or segment; the hash of a segment is that of its file, with its place.
        most_seconds: stop after this time; None measures the whole file. A part does not tell the length.

    Raises:
        AudioError: if it is missing, unreadable, empty, cut off or no audio.
    """
    info = inspect(path) if isinstance(path, Segment) else None
    content = load_content(file_of(path))
    with open_sound(content.path, content) as sound:
        measured = _Measured()
        most = np.inf if most_seconds is None else most_seconds * sound.sample_rate
        for block in sound.blocks(*(info.part if info and info.part else (0, None))):
            measured.add(block)
            if measured.n_samples >= most:
                break
        else:
            _require_sound(sound, measured.n_samples, info.part[1] if info and info.part else sound.n_samples)
        is_part = measured.n_samples >= most
        n_promised = info.part[1] if info and info.part else sound.n_samples
        digest = info.content_id if info else content.sha256()
        return measured.describe(digest, sound, n_promised if is_part else 0)


def _require_sound(sound: Opened, n_samples: int, n_promised: int) -> None:
    rate = sound.sample_rate
    if n_samples < n_promised - SPARE_SECONDS * rate:
        raise AudioError(tell_cut_off(n_samples / rate, n_promised / rate))
    if n_samples < MIN_SECONDS * rate:
        raise AudioError(f"{n_samples} samples at {rate} Hz are too short, under {MIN_SECONDS} s")


class _Measured:
    """Sums over the blocks of a file."""

    def __init__(self) -> None:
        self.energy, self.peak, self.at_peak, self.n_values = 0.0, 0.0, 0, 0
        self.mono_energy, self.mono_sum, self.n_samples = 0.0, 0.0, 0
        self.is_finite = True
        self.power = np.zeros(_FFT // 2 + 1)

    def add(self, block: NDArray[np.float32]) -> None:
        """Add (samples, channels)."""
        finite = np.isfinite(block)
        self.is_finite &= bool(finite.all())
        block = np.where(finite, block, np.float32(0))
        highest = float(np.abs(block).max(initial=0.0))
        if highest > self.peak:
            self.peak, self.at_peak = highest, 0
        self.at_peak += int((np.abs(block) >= self.peak).sum())
        self.energy += float(np.square(block, dtype=np.float64).sum())
        self.n_values += block.size
        mono = block.mean(axis=1, dtype=np.float64)  # (samples,)
        self.mono_energy += float(np.square(mono).sum())
        self.mono_sum += float(mono.sum())
        self.n_samples += len(mono)
        if len(mono) < _FFT:
            mono = np.pad(mono, (0, _FFT - len(mono)))
        frames = mono[: len(mono) // _FFT * _FFT].reshape(-1, _FFT)  # (frames, samples)
        self.power += (np.abs(np.fft.rfft((frames - frames.mean()) * np.hanning(_FFT), axis=1)) ** 2).sum(axis=0)

    def describe(self, sha256: str, sound: Opened, n_promised: int) -> Sound:
        """Sum up; of a part, the length is what the file promises."""
        bins = np.fft.rfftfreq(_FFT, 1 / sound.sample_rate).astype(np.float64)
        total = float(self.power.sum())
        heard = float(self.power[bins <= HEARD_UP_TO].sum()) / total if total else 0.0
        n = max(1, self.n_samples)
        return Sound(
            sha256, max(self.n_samples, n_promised) / sound.sample_rate, sound.sample_rate, sound.channels, sound.subtype,
            _to_decibels(self.energy / max(1, self.n_values)), _to_decibels(self.peak**2),
            self.at_peak / self.n_values if self.n_values and self.peak > 0.98 else 0.0, self.is_finite,
            _to_decibels(self.mono_energy / n), _to_decibels(self.mono_energy / n * heard), self.mono_sum / n,
            _find_band_limit(self.power, bins),
        )  # fmt: skip


def _to_decibels(power: float) -> float:
    return float(10 * np.log10(power)) if power > 0 else -np.inf


def _find_band_limit(power: NDArray[np.float64], bins: NDArray[np.float64]) -> float:
    """The lowest usual band limit at which the spectrum falls by 30 dB and stays there; 0 for none."""
    for edge in _EDGES:
        if edge > 0.9 * bins[-1]:
            break
        below = power[(bins > 0.8 * edge) & (bins < 0.95 * edge)].mean()
        above = power[bins > 1.05 * edge].mean()
        if below > 0 and above < _FALL * below:
            return edge
    return 0.0
