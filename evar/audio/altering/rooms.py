"""Reverberation by impulse responses that are drawn: a direct sound, and noise that decays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.altering.levels import convert_db

if TYPE_CHECKING:
    from numpy.typing import NDArray


def add_reverberation(
    waveform: NDArray[np.float32],
    sample_rate: int,
    *,
    rt60_seconds: float,
    rng: np.random.Generator,
    direct_db: float = 0.0,
) -> NDArray[np.float32]:
    """Add the reverberation of a room, which is drawn at random; length and power of the clip stay.

    The direct sound stays where it is, and what would sound after the end of the clip is cut off.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        rt60_seconds: time in which the reverberation falls by 60 dB.
        rng: source of random numbers, which draws the room.
        direct_db: energy of the direct sound over that of the reverberation, dB.

    Example:
        >>> clip = np.zeros(8000, np.float32)
        >>> clip[100] = 1.0
        >>> wet = add_reverberation(clip, 8000, rt60_seconds=0.5, rng=np.random.default_rng(0))
        >>> len(wet), int(np.abs(wet).argmax()), float(np.abs(wet[:100]).max()) < 1e-6
        (8000, 100, True)
    """
    from scipy.signal import oaconvolve

    response = make_impulse_response(sample_rate, rt60_seconds, rng, direct_db)
    wet = oaconvolve(waveform.astype(np.float64), response)[: len(waveform)]
    before, after = (float(np.mean(np.square(one, dtype=np.float64))) for one in (waveform, wet))
    return (wet * (math.sqrt(before / after) if after > 0 else 1.0)).astype(np.float32)


def make_impulse_response(
    sample_rate: int, rt60_seconds: float, rng: np.random.Generator, direct_db: float = 0.0
) -> NDArray[np.float64]:
    """Draw the impulse response of a room: an impulse of 1, then Gaussian noise that decays exponentially.

    Args:
        sample_rate: Hz.
        rt60_seconds: time in which it falls by 60 dB; it ends there.
        rng: source of random numbers for the noise.
        direct_db: energy of the impulse over that of the noise, dB.

    Returns:
        (samples,), the impulse first.

    Source: J.-D. Polack, "La transmission de l'énergie sonore dans les salles", thesis, Le Mans 1988: late reverberation as
        Gaussian noise under an exponential decay.
    """
    times = np.arange(1, max(2, round(rt60_seconds * sample_rate))) / sample_rate
    tail = rng.standard_normal(len(times)) * 10.0 ** (-3.0 * times / rt60_seconds)  # amplitude: -60 dB at rt60
    tail *= convert_db(-direct_db) / math.sqrt(float(np.square(tail).sum()))
    return np.concatenate([[1.0], tail])
