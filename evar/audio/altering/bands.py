"""Alterations of the band: filters, and resampling down and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.reading import resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: dB, by which the filters weaken what lies outside of the band
_STOP_DB = 60.0
#: Hz, between the band and what is weakened fully
_EDGE_HZ = 100.0


def keep_band(
    waveform: NDArray[np.float32], sample_rate: int, *, low_hz: float = 0.0, high_hz: float = math.inf
) -> NDArray[np.float32]:
    """Keep the frequencies of a band, without delay.

    The filter is symmetric (linear phase), 60 dB deep, and reaches -6 dB at the ends of the band.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        low_hz, high_hz: of the band; 0 and half the sample rate or more cut nothing.

    Returns:
        (samples,); the clip itself if nothing is cut.

    Example:
        >>> tones = np.sin(2 * np.pi * np.outer([100, 1000, 3800], np.arange(8000)) / 8000).astype(np.float32)
        >>> [round(float(np.std(keep_band(tone, 8000, low_hz=300, high_hz=3400))), 2) for tone in tones]
        [0.0, 0.71, 0.0]
    """
    from scipy.signal import firwin, kaiserord, oaconvolve

    cuts_low, cuts_high = low_hz > 0, high_hz < sample_rate / 2
    if not (cuts_low or cuts_high):
        return waveform.copy()
    n_taps, beta = kaiserord(_STOP_DB, _EDGE_HZ / (sample_rate / 2))
    n_taps |= 1  # odd: the delay is whole samples, and taken away
    edges = [low_hz] * cuts_low + [high_hz] * cuts_high
    taps = firwin(n_taps, edges, window=("kaiser", beta), pass_zero=not cuts_low, fs=sample_rate)
    whole = oaconvolve(waveform.astype(np.float64), taps)
    return whole[n_taps // 2 :][: len(waveform)].astype(np.float32)


def change_rate(waveform: NDArray[np.float32], sample_rate: int, *, rate_hz: int) -> NDArray[np.float32]:
    """Resample a clip to a lower rate and back: all frequencies above half of that rate are lost.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz; a clip whose rate is no higher than `rate_hz` stays the same.
        rate_hz: of the way between, Hz.

    Returns:
        (samples,).

    Example:
        >>> change_rate(np.ones(1000, np.float32), 16000, rate_hz=8000).shape
        (1000,)
    """
    if rate_hz >= sample_rate:
        return waveform.copy()
    there = resample(waveform, sample_rate, rate_hz)
    return fit_length(resample(there, rate_hz, sample_rate), len(waveform))


def fit_length(waveform: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
    """Bring a clip to a length: cut it at its end, or put zeros there.

    Args:
        waveform: (samples,) float32.
        n_samples: length wanted.

    Returns:
        (n_samples,) float32.

    Example:
        >>> fit_length(np.ones(2, np.float32), 3).tolist(), fit_length(np.ones(2, np.float32), 1).tolist()
        ([1.0, 1.0, 0.0], [1.0])
    """
    return np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform))))
