"""Metrics of tasks in which a clip has a number: agreement of predicted and true values.

All come from sums over clips (`stack_moments`), so that weighted clips, and with them bootstrap samples, cost one product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pearson(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Linear correlation of predicted and true values.

    Args:
        y_true: (clips,) numbers.
        y_pred: (clips,) numbers.

    Returns:
        -1..1; 0 if one of the two is constant.

    Raises:
        ValueError: if the shapes differ, there is no clip, or a number is not finite.

    Source: equals `scipy.stats.pearsonr` (tested).

    Example:
        >>> round(pearson([1, 2, 3, 4], [1, 3, 2, 4]), 6)
        0.8
    """
    return float(correlate_moments(_sum_moments(y_true, y_pred)))


def r2(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the share of the true values' variance that the predictions explain: the coefficient of determination.

    Args:
        y_true: (clips,) numbers.
        y_pred: (clips,) numbers.

    Returns:
        At most 1; 0 for predicting the mean, below 0 for worse; 0 if the true values are constant.

    Raises:
        ValueError: as `pearson`.

    Source: equals scikit-learn's `r2_score` (tested), but for constant true values.

    Example:
        >>> r2([1, 2, 3, 4], [1, 3, 2, 4])
        0.6
    """
    return float(explain_moments(_sum_moments(y_true, y_pred)))


def mean_absolute_error(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the mean distance between predicted and true values, in the labels' unit.

    Args:
        y_true: (clips,) numbers.
        y_pred: (clips,) numbers.

    Returns:
        At least 0, in the unit of the labels; 0 is best.

    Raises:
        ValueError: as `pearson`.

    Source: equals scikit-learn's `mean_absolute_error` (tested).

    Example:
        >>> mean_absolute_error([1, 2, 3, 4], [1, 3, 2, 4])
        0.5
    """
    true, predicted = _check_pair(y_true, y_pred)
    return float(np.abs(true - predicted).mean())


def stack_moments(y_true: NDArray[np.float64], y_pred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what correlations are sums of, for each clip: 1, t, p, t^2, p^2 and t p.

    t and p are the values less the mean of the true ones. Taking a mean away loses nothing and keeps the differences of sums
    from rounding.

    Args:
        y_true, y_pred: (clips,) numbers.

    Returns:
        (clips, 6).

    Example:
        >>> stack_moments(np.array([1.0, 3.0]), np.array([2.0, 2.0])).tolist()
        [[1.0, -1.0, 0.0, 1.0, 0.0, -0.0], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]]
    """
    centre = y_true.mean()
    t, p = y_true - centre, y_pred - centre
    return np.stack([np.ones_like(t), t, p, t * t, p * p, t * p], axis=1)


def correlate_moments(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute Pearson's correlation from sums over clips.

    Args:
        sums: (..., 6) weighted sums of `stack_moments`.

    Returns:
        (...) correlations in -1..1; 0 where either is constant.

    Example:
        >>> moments = stack_moments(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0]))
        >>> round(float(correlate_moments(moments.sum(axis=0))), 6)
        0.8
    """
    n, t, p, tt, pp, tp = np.moveaxis(sums, -1, 0)
    spread = np.maximum(n * tt - t * t, 0) * np.maximum(n * pp - p * p, 0)
    is_flat = spread <= 1e-20 * (n * tt) * (n * pp)
    found = (n * tp - t * p) / np.sqrt(np.where(is_flat, 1.0, spread))
    return np.where(is_flat, 0.0, np.clip(found, -1, 1))


def explain_moments(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the coefficient of determination from sums over clips.

    Args:
        sums: (..., 6) weighted sums of `stack_moments`.

    Returns:
        (...) at most 1; 0 where the true values are constant.

    Example:
        >>> moments = stack_moments(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0]))
        >>> float(explain_moments(moments.sum(axis=0)))
        0.6
    """
    n, t, _, tt, pp, tp = np.moveaxis(sums, -1, 0)
    total = tt - t * t / n
    is_flat = total <= 1e-12 * tt
    return np.where(is_flat, 0.0, 1 - (tt - 2 * tp + pp) / np.where(is_flat, 1.0, total))


def _sum_moments(y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.float64]:
    return stack_moments(*_check_pair(y_true, y_pred)).sum(axis=0)


def _check_pair(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    true, predicted = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if true.ndim != 1 or true.shape != predicted.shape or not len(true):
        raise ValueError(
            f"y_true and y_pred must be numbers of one shape (clips,) with at least 1 clip, got {true.shape} and "
            f"{predicted.shape}"
        )
    if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        raise ValueError("y_true and y_pred must be finite; did the probe diverge?")
    return true, predicted
