"""Alterations of level: gain, and peaks that are cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def convert_db(level: float) -> float:
    """Turn a level in dB into the factor on the amplitude, 10 ** (level / 20).

    Example:
        >>> convert_db(-20.0)
        0.1
    """
    return 10.0 ** (level / 20.0)


def scale_level(waveform: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """Multiply a clip, (samples,) float32, by a factor; it stays the same bit for bit where the factor is 1."""
    return (waveform * np.float32(gain)).astype(np.float32)


def change_level(waveform: NDArray[np.float32], sample_rate: int, *, gain_db: float) -> NDArray[np.float32]:
    """Make a clip louder or softer, and nothing else: values beyond full scale stay, since clipping is its own alteration.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        gain_db: dB, above 0 louder.

    Example:
        >>> change_level(np.array([0.1, -0.5], np.float32), 8000, gain_db=20.0).tolist()
        [1.0, -5.0]
    """
    return scale_level(waveform, convert_db(gain_db))


def clip_peaks(waveform: NDArray[np.float32], sample_rate: int, *, over_db: float) -> NDArray[np.float32]:
    """Cut off the peaks, as a recorder whose gain was set too high does; what lies below the limit stays as it is.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        over_db: how far the clip's peak is above the level that is cut off, dB.

    Example:
        >>> clip_peaks(np.array([0.2, -1.0, 0.05], np.float32), 8000, over_db=20.0).round(3).tolist()
        [0.10000000149011612, -0.10000000149011612, 0.05000000074505806]
    """
    limit = float(np.abs(waveform).max(initial=0.0)) * convert_db(-over_db)
    return np.clip(waveform, -limit, limit).astype(np.float32)
