"""Kendall's tau-b: how far two lists of scores put the same things into the same order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def compute_kendall(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Compute Kendall's tau-b of many pairs of score lists at once.

    Args:
        first, second: (..., items) scores; leading axes are broadcast. Scores that are equal count as ties.

    Returns:
        (...) tau-b in -1..1; NaN where one list has ties only, or fewer than two items.

    Raises:
        ValueError: if the lists differ in length.

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).

    Example:
        >>> compute_kendall([[1, 2, 3], [3, 2, 1]], [1, 2, 3]).tolist()
        [1.0, -1.0]
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape[-1:] != other.shape[-1:]:
        raise ValueError(f"two rankings must be of the same items, got {one.shape[-1:]} and {other.shape[-1:]}")
    low, high = np.triu_indices(one.shape[-1], 1)
    steps = [np.sign(np.round(values[..., low] - values[..., high], 12)) for values in (one, other)]
    agreement = (steps[0] * steps[1]).sum(axis=-1)
    n_untied = [np.square(step).sum(axis=-1) for step in steps]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(agreement / np.sqrt(n_untied[0] * n_untied[1]))
