"""Features that are read part by part, for probes whose features do not fit in memory together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.numeric.axes import standardisation

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: bytes that are read at once
CHUNK_BYTES = 2**24


class Rows:
    """Features (clips, width); only the rows that are needed are in memory.

    Slicing gives rows again and reads nothing; `read` reads; `np.asarray` reads all.

    Attributes:
        shape: (clips, width).
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, n_clips: int, width: int) -> None:
        self.shape = (n_clips, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Rows:
        raise NotImplementedError

    def read(self, rows: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:
        """Read some rows.

        Args:
            rows: slice, or positions (some clips,).

        Returns:
            (some clips, width) float32.
        """
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.read(), dtype)

    def parts(self, n_most: int | None = None) -> Iterator[slice]:
        """Yield slices of all rows in turn.

        Args:
            n_most: rows of a slice at most; None leaves it to `CHUNK_BYTES`, which holds in any case.

        Example:
            >>> list(RowsInMemory(np.zeros((5, 2), np.float32)).parts(2))
            [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
        """
        n = max(1, CHUNK_BYTES // (4 * self.shape[1]))
        n = n if n_most is None else max(1, min(n, n_most))
        yield from (slice(start, min(start + n, len(self))) for start in range(0, len(self), n))


class RowsInMemory(Rows):
    """An array that is there already, for probes whose work on it would not fit beside it.

    Example:
        >>> rows = RowsInMemory(np.arange(6, dtype=np.float32).reshape(3, 2))[np.array([2, 0])]
        >>> rows.shape, rows.read(slice(0, 1)).tolist()
        ((2, 2), [[4.0, 5.0]])
    """

    def __init__(self, array: NDArray[Any]) -> None:
        super().__init__(*array.shape)
        self._array = array

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Rows:
        return RowsInMemory(self._array[rows])

    def read(self, rows: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:
        """Read some rows: slice or positions (some clips,) -> (some clips, width) float32."""
        return np.asarray(self._array[rows], np.float32)


class RowsJoined(Rows):
    """The rows of one, and then those of another.

    Example:
        >>> one, other = (RowsInMemory(np.full((n, 1), n, np.float32)) for n in (2, 3))
        >>> RowsJoined(one, other)[slice(1, 4)].read(np.array([2, 0])).tolist()
        [[3.0], [2.0]]
    """

    def __init__(self, first: Rows, second: Rows) -> None:
        super().__init__(len(first) + len(second), first.shape[1])
        self._first, self._second = first, second

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> Rows:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                n = len(self._first)
                if stop <= n:
                    return self._first[start:stop]
                if start >= n:
                    return self._second[start - n : stop - n]
                return RowsJoined(self._first[start:], self._second[: stop - n])
            rows = np.arange(start, stop, step)
        raise TypeError(f"joined rows are taken by a slice of step 1, got {type(rows).__name__}; read() takes any")

    def read(self, rows: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:
        """Read some rows: slice or positions (some clips,) -> (some clips, width) float32."""
        index = np.arange(len(self))[rows]
        is_first = index < len(self._first)
        out = np.empty((len(index), self.shape[1]), np.float32)
        out[is_first] = self._first.read(index[is_first])
        out[~is_first] = self._second.read(index[~is_first] - len(self._first))
        return out


def standardisation_of(rows: NDArray[Any] | Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each feature, of an array or of rows that are read in two passes over parts.

    Args:
        rows: (clips, width).

    Returns:
        Mean and population standard deviation, (width,) float64 each; 0 where rounding explains all the spread.

    Raises:
        ValueError: if a value of `Rows` is not finite; arrays are checked when they come in.

    Example:
        >>> standardisation_of(RowsInMemory(np.float32([[1, 5], [3, 5]])))
        (array([2., 5.]), array([1., 0.]))
    """
    if not isinstance(rows, Rows):
        return standardisation(rows)
    total, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for part in rows.parts():
        values = rows.read(part)
        if not np.isfinite(values).all():
            clip = int(np.argwhere(~np.isfinite(values))[0][0]) + part.start
            raise ValueError(
                f"the training embeddings hold NaN or infinite values, the first at clip {clip}; did the encoder overflow "
                "in half precision?"
            )
        total += values.sum(axis=0, dtype=np.float64)
    mean = total / len(rows)
    for part in rows.parts():
        squares += np.square(rows.read(part) - mean).sum(axis=0)
    scale = np.sqrt(squares / len(rows))
    is_constant = scale <= 10 * np.finfo(np.float32).eps * np.abs(mean)
    return mean, np.where(is_constant, 0.0, scale)
