"""Sounds far beyond full scale, which are integers stored as floats most of the time: encoders expect [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: largest sample, in parts of full scale, without a warning: lossy coding, gains and noise stay below it
FAR_BEYOND = 10.0


class LoudClips:
    """Clips far beyond full scale, counted while they are decoded; they are encoded as they are.

    Example:
        >>> found = LoudClips()
        >>> found.look("a.wav", np.float32([0.5, -1.2])), found.look("b.wav", np.float32([12000, -9000]))
        (None, None)
        >>> found.describe()
        '1 clips hold values far beyond full scale, first b.wav (peak 12000), as integers stored as floats do; ...'
    """

    def __init__(self) -> None:
        self._n_found = 0
        self._first = ""

    def look(self, name: object, samples: NDArray[np.float32]) -> None:
        """Look at a clip.

        Args:
            name: of the clip, for the sentence.
            samples: (samples,) float32, nominally in [-1, 1].

        Example:
            >>> found = LoudClips()
            >>> found.look("a.wav", np.zeros(4, np.float32))
            >>> found.describe()
            ''
        """
        peak = float(np.abs(samples).max(initial=0.0))
        if peak > FAR_BEYOND:
            self._first = self._first or f"{name} (peak {peak:.0f})"
            self._n_found += 1

    def describe(self) -> str:
        """Say how many loud clips were found, and what to do; "" if there were none.

        Example:
            >>> LoudClips().describe()
            ''
        """
        if not self._n_found:
            return ""
        return (
            f"{self._n_found} clips hold values far beyond full scale, first {self._first}, as integers stored as floats "
            "do; encoders expect [-1, 1]: divide them (by 32768 for 16 bits)"
        )
