"""Rows of numbers that lie on disk and are read in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.numeric.rows import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RowsOnDisk(Rows):
    """Layers side by side, in memory-mapped files.

    Args:
        files: layer -> the file of each segment, float32, little-endian.
        widths: layer -> features.
        segments, numbers: (clips,) which segment holds a clip, -1 for none (its features are NaN), and its row there.
    """

    def __init__(
        self,
        files: dict[str, Sequence[Path]],
        widths: dict[str, int],
        segments: NDArray[np.int64],
        numbers: NDArray[np.int64],
    ) -> None:
        super().__init__(len(segments), sum(widths[layer] for layer in files))
        self._files, self._widths, self._segments, self._numbers = files, widths, segments, numbers
        self._mapped: dict[tuple[str, int], NDArray[np.float32]] = {}

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Rows:
        return RowsOnDisk(self._files, self._widths, self._segments[rows], self._numbers[rows])

    def read(self, rows: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:
        """Read some rows: slice or positions (some clips,) -> (some clips, width) float32.

        Clips without features are rows of NaN.
        """
        segments, numbers = self._segments[rows], self._numbers[rows]
        out = np.full((len(segments), self.shape[1]), np.nan, np.float32)
        for segment in np.unique(segments[segments >= 0]):
            own = np.flatnonzero(segments == segment)
            own = own[np.argsort(numbers[own], kind="stable")]  # in file order
            start = 0
            for layer in self._files:
                end = start + self._widths[layer]
                out[own, start:end] = self._open_file(layer, int(segment))[numbers[own]]
                start = end
        return out

    def _open_file(self, layer: str, segment: int) -> NDArray[np.float32]:
        if (layer, segment) not in self._mapped:
            file, width = self._files[layer][segment], self._widths[layer]
            n_whole = file.stat().st_size // (self.dtype.itemsize * width)
            self._mapped[layer, segment] = np.memmap(file, dtype="<f4", mode="r", shape=(n_whole, width))
        return self._mapped[layer, segment]
