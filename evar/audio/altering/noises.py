"""Alterations by noise: white, pink, or a recording, at an exact signal-to-noise ratio over the clip."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.altering.levels import convert_db
from evar.audio.reading import read

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Hz, below which pink noise rises no further: what lies there is not heard, and would hold much of its power
LOWEST_PINK = 20.0


def mix_at_ratio(waveform: NDArray[np.float32], noise: NDArray[np.floating], snr_db: float) -> NDArray[np.float32]:
    """Add a noise at a signal-to-noise ratio over the whole clip.

    Args:
        waveform: (samples,) float32. A silent clip has no ratio, and stays silent.
        noise: (samples,).
        snr_db: 10 log10 of the clip's power over the noise's power, dB; exact, not in the mean.

    Example:
        >>> mixed = mix_at_ratio(np.array([1.0, -1.0], np.float32), np.array([3.0, 3.0]), 20.0)
        >>> mixed.round(3).tolist()
        [1.100000023841858, -0.8999999761581421]
    """
    clip_power, noise_power = (
        np.mean(np.square(waveform, dtype=np.float64)),
        np.mean(np.square(noise, dtype=np.float64)),
    )
    if not clip_power > 0 or not noise_power > 0:
        return waveform.copy()
    return (waveform + noise * math.sqrt(clip_power / noise_power) * convert_db(-snr_db)).astype(np.float32)


def add_noise(waveform: NDArray[np.float32], snr_db: float, seed: int) -> NDArray[np.float32]:
    """Add white Gaussian noise at a signal-to-noise ratio over the whole clip.

    Args:
        waveform: (samples,) float32, not silent.
        snr_db: 10 log10 of the clip's power over the noise's power, dB; exact, not in the mean.
        seed: the same seed gives the same noise at every ratio, up to its level.
    """
    return mix_at_ratio(waveform, np.random.default_rng(seed).standard_normal(len(waveform)), snr_db)


def add_white_noise(
    waveform: NDArray[np.float32], sample_rate: int, *, snr_db: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add white Gaussian noise, with the same power at all frequencies up to half the recording's sample rate.

    Args:
        waveform: (samples,) float32. A silent clip stays silent.
        sample_rate: Hz; it changes nothing here.
        snr_db: 10 log10 of the clip's power over the noise's power, dB; exact, as for `mix_at_ratio`.
        rng: source of random numbers for the noise.

    Returns:
        (samples,) float32.

    Example:
        >>> clip = np.ones(8000, np.float32)
        >>> noisy = add_white_noise(clip, 8000, snr_db=20.0, rng=np.random.default_rng(0))
        >>> round(float(np.mean((noisy - clip) ** 2)), 4)
        0.01
    """
    return mix_at_ratio(waveform, rng.standard_normal(len(waveform)), snr_db)


def add_pink_noise(
    waveform: NDArray[np.float32], sample_rate: int, *, snr_db: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add Gaussian noise with the same power in each octave (from 20 Hz on), which much background sound resembles.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        snr_db: 10 log10 of the clip's power over the noise's power, dB; exact, as for `mix_at_ratio`.
        rng: source of random numbers for the noise.

    Returns:
        (samples,) float32.
    """
    return mix_at_ratio(waveform, make_pink_noise(len(waveform), sample_rate, rng), snr_db)


def make_pink_noise(n_samples: int, sample_rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw Gaussian noise whose power falls as 1 / frequency above 20 Hz, with no constant part.

    Args:
        n_samples: length.
        sample_rate: Hz.
        rng: source of random numbers.

    Returns:
        (n_samples,) float64.
    """
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequencies = np.fft.rfftfreq(n_samples, 1 / sample_rate)
    spectrum /= np.sqrt(np.maximum(frequencies, LOWEST_PINK))
    spectrum[0] = 0.0
    return np.fft.irfft(spectrum, n_samples)


def add_recording(
    waveform: NDArray[np.float32], sample_rate: int, *, snr_db: float, recording: str, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add a part of a recording, such as a crowd or a machine; a recording that is too short is repeated.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz; the recording is resampled to it.
        snr_db: 10 log10 of the clip's power over the noise's power, dB; exact, as for `mix_at_ratio`.
        recording: path of a sound file.
        rng: source of random numbers, which draws where the part begins.

    Returns:
        (samples,) float32.

    Raises:
        AudioError: if the recording cannot be read.
    """
    sound = _read_once(recording, sample_rate)
    start = int(rng.integers(max(1, len(sound) - len(waveform) + 1)))
    return mix_at_ratio(waveform, np.resize(sound[start:], len(waveform)), snr_db)


#: (path, time of change, Hz) -> its samples; the recording that was read last
_recordings: dict[tuple[str, int, int], NDArray[np.float32]] = {}


def _read_once(path: str, sample_rate: int) -> NDArray[np.float32]:
    import os

    key = (path, os.stat(path).st_mtime_ns if os.path.exists(path) else 0, sample_rate)
    found = _recordings.get(key)
    if found is None:
        found = read(path, sample_rate)
        if len(_recordings) >= 4:
            _recordings.clear()
        _recordings[key] = found
    return found
