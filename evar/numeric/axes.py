"""The scale and the main directions of embeddings: what probes, fusions and searches take from the training clips."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def standardisation(X: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean and population standard deviation of each feature; 0 where rounding explains all the spread.

    Args:
        X: (clips, width) floating point.

    Returns:
        Both (width,). A feature that is constant but for its last bit must not be blown up to unit variance.

    Example:
        >>> standardisation(np.float32([[1, 5], [3, 5]]))
        (array([2., 5.]), array([1., 0.]))
    """
    mean = X.mean(axis=0, dtype=np.float64)
    scale = X.std(axis=0, dtype=np.float64)
    is_constant = scale <= 10 * np.finfo(X.dtype).eps * np.abs(mean)
    return mean, np.where(is_constant, 0.0, scale)


def principal_axes(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal directions of centred clips, the largest variance first.

    Args:
        X: (clips, width), each feature with mean 0.

    Returns:
        (width, components); fewer than width where the clips span less, down to 0. Cost: one eigendecomposition of size
        min(clips, width).

    Source: principal component analysis, as in Jolliffe, "Principal Component Analysis" (2002), ch. 3.

    Example:
        >>> abs(principal_axes(np.array([[3.0, 4.0], [-3.0, -4.0]]))).round(3).tolist()
        [[0.6], [0.8]]
    """
    n_clips, width = X.shape
    if width == 0:
        return np.zeros((0, 0))
    is_wide = n_clips < width
    values, vectors = np.linalg.eigh(X @ X.T if is_wide else X.T @ X)
    # What rounding alone can produce is not a direction of the data.
    kept = values > max(0.0, values[-1]) * len(values) * np.finfo(np.float64).eps
    values, vectors = values[kept][::-1], vectors[:, kept][:, ::-1]
    return X.T @ (vectors / np.sqrt(values)) if is_wide else vectors
