"""Scores of many bootstrap samples at once: sums over the clips of each sample, for every form of a metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evar.metrics.values import stack_moments

#: (y_true, y_pred, group of each clip as a number, (resamples, groups) counts) -> (resamples,)
Resampled = Callable[[NDArray[Any], NDArray[Any], NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


def resample_mean(values: NDArray[np.float64], index: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Average a value of each clip over bootstrap samples that draw whole groups of clips.

    Args:
        values: (clips, 1).
        index: (clips,) number of the group of each clip, 0..groups-1.
        counts: (resamples, groups) how often each group is drawn.

    Returns:
        (resamples,) means.

    Example:
        >>> resample_mean(np.array([[1.0], [0.0], [0.0]]), np.array([0, 1, 1]), np.array([[1, 1], [2, 0]])).round(3)
        array([0.333, 1.   ])
    """
    # Groups differ in size, so the number of clips drawn varies too: a ratio, not a fixed denominator.
    sums = sum_samples(np.concatenate([np.ones_like(values), values], axis=1), index, counts)
    return sums[:, 1] / sums[:, 0]


def sum_samples(values: NDArray[np.float64], index: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Sum values over the clips of each sample.

    Args:
        values: (clips, n).
        index, counts: as for `resample_mean`.

    Returns:
        (resamples, n) sums.

    Example:
        >>> sum_samples(np.array([[1.0], [2.0]]), np.array([0, 1]), np.array([[2, 0], [1, 1]])).tolist()
        [[2.0], [3.0]]
    """
    n_groups = counts.shape[1]
    of_groups = np.stack([np.bincount(index, weights=column, minlength=n_groups) for column in values.T], axis=1)
    return np.asarray(counts @ of_groups, np.float64)


def resample_hits(credit: Callable[[Any, Any], NDArray[Any]]) -> Resampled:
    """Make the bootstrap of a mean over clips.

    Args:
        credit: (y_true, y_pred) -> (clips,) the credit of each clip, in 0..1.

    Returns:
        A function for `Metric.resampled`.
    """
    return lambda true, predicted, index, counts: resample_mean(
        credit(true, predicted).astype(np.float64)[:, None], index, counts
    )


def resample_parts(find_part: Callable[[NDArray[Any]], NDArray[Any]]) -> Resampled:
    """Make the bootstrap of the mean over parts of the clips of their share of right answers.

    Args:
        find_part: (clips,) true classes -> (clips,) number of the part that each clip belongs to.

    Returns:
        A function for `Metric.resampled`; a part that a sample has no clip of is left out of its mean.
    """

    def resample(
        true: NDArray[Any], predicted: NDArray[Any], index: NDArray[np.int64], counts: NDArray[Any]
    ) -> NDArray[np.float64]:
        own = find_part(true)
        is_part = (own[:, None] == np.unique(own)).astype(np.float64)  # (clips, parts)
        n, right = (sum_samples(each, index, counts) for each in (is_part, is_part * (true == predicted)[:, None]))
        with np.errstate(invalid="ignore"):
            return np.where(n > 0, right / np.where(n > 0, n, 1), 0.0).sum(axis=1) / (n > 0).sum(axis=1)

    return resample


def resample_moments(compute: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Resampled:
    """Make the bootstrap of a score that follows from the sums of `stack_moments`.

    Args:
        compute: (..., 6) sums -> (...) scores.

    Returns:
        A function for `Metric.resampled`.
    """
    return lambda true, predicted, index, counts: compute(sum_samples(stack_moments(true, predicted), index, counts))


def resample_labels(compute: Callable[..., NDArray[np.float64]]) -> Resampled:
    """Make the bootstrap of a mean over labels.

    Args:
        compute: (y_true (clips, labels), y_score, weights (weightings, clips)) -> (weightings, labels), NaN where a label
            cannot be scored.

    Returns:
        A function for `Metric.resampled`.
    """

    def resample(
        true: NDArray[Any], score: NDArray[Any], index: NDArray[np.int64], counts: NDArray[Any]
    ) -> NDArray[np.float64]:
        values = compute(true.astype(bool), score, counts[:, index].astype(np.float64))  # (resamples, labels)
        is_there = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            return np.where(is_there, values, 0.0).sum(axis=1) / is_there.sum(axis=1)

    return resample


def resample_function(function: Callable[[ArrayLike, ArrayLike], float]) -> Resampled:
    """Make the bootstrap of any function of y_true and y_pred: it is called once for each sample.

    Args:
        function: (y_true, y_pred) -> score.

    Returns:
        A function for `Metric.resampled`: y_true (clips, ...), y_pred (clips, ...), group of each clip (clips,), counts
        (resamples, groups) -> scores (resamples,).

    Example:
        >>> slow = resample_function(lambda y_true, y_pred: float(np.mean(y_true == y_pred)))
        >>> slow(np.array([0, 1, 1]), np.array([0, 0, 0]), np.array([0, 1, 1]), np.array([[1, 1], [2, 0]])).round(3)
        array([0.333, 1.   ])
    """

    def resample(
        true: NDArray[Any], predicted: NDArray[Any], index: NDArray[np.int64], counts: NDArray[Any]
    ) -> NDArray[np.float64]:
        drawn = [np.repeat(np.arange(len(true)), own[index]) for own in counts.astype(np.int64)]
        return np.array([float(function(true[clips], predicted[clips])) for clips in drawn])

    return resample
