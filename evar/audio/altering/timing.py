"""Alterations of time: a part of the clip, and a clip that begins elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def keep_middle(waveform: NDArray[np.float32], sample_rate: int, *, share: float) -> NDArray[np.float32]:
    """Keep the middle part of a clip; it becomes shorter.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        share: of its length, above 0 and at most 1.

    Example:
        >>> keep_middle(np.arange(8, dtype=np.float32), 8000, share=0.5).tolist()
        [2.0, 3.0, 4.0, 5.0]
    """
    n_kept = max(1, round(share * len(waveform)))
    start = (len(waveform) - n_kept) // 2
    return waveform[start : start + n_kept].copy()


def shift_time(waveform: NDArray[np.float32], sample_rate: int, *, shift_ms: float) -> NDArray[np.float32]:
    """Shift a clip in time; what leaves at the end comes in at the beginning (a circular shift), so that nothing is lost.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        shift_ms: milliseconds, below 0 earlier.

    Example:
        >>> shift_time(np.arange(4, dtype=np.float32), 1000, shift_ms=1.0).tolist()
        [3.0, 0.0, 1.0, 2.0]
    """
    return np.roll(waveform, round(shift_ms * sample_rate / 1000))
