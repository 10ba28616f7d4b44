"""Metrics of tasks in which a clip has any number of labels: each label ranks the clips by its score.

Every metric is computed for weighted clips, so that a bootstrap sample costs a cumulative sum and no new sorting.
Labels that no clip (or every clip) of a test set has cannot be scored; they are left out of the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evar.metrics.pairs import find_eer


def mean_average_precision(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Compute the mean over labels of the average precision with which a label's score ranks the clips ("macro mAP").

    Args:
        y_true: (clips, labels) 0 or 1.
        y_score: (clips, labels) higher where the label is more likely; -inf for a clip that could not be read.

    Returns:
        A fraction in 0..1, over the labels that at least one clip has.

    Raises:
        ValueError: if the shapes differ, a value is not legal, or no clip has a label.

    Source: equals scikit-learn's `average_precision_score` of each label, ties included (tested).

    Example:
        >>> mean_average_precision([[1], [0], [1], [0]], [[0.9], [0.8], [0.7], [0.1]])
        0.8333333333333333
    """
    true, score = _check_pair(y_true, y_score)
    return _average_labels(average_precisions(true, score, np.ones((1, len(true)))), "mean_average_precision")


def auc(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Compute the mean over labels of the area under the ROC curve: how often a clip with the label outranks one without.

    Args:
        y_true: (clips, labels) 0 or 1.
        y_score: (clips, labels) higher where the label is more likely.

    Returns:
        A fraction in 0..1 (0.5 by chance), over the labels that some clips have and some have not.

    Raises:
        ValueError: as `mean_average_precision`.

    Source: equals scikit-learn's `roc_auc_score` of each label (tested).

    Example:
        >>> auc([[1], [0], [1], [0]], [[0.9], [0.8], [0.7], [0.1]])
        0.75
    """
    true, score = _check_pair(y_true, y_score)
    return _average_labels(roc_areas(true, score, np.ones((1, len(true)))), "auc")


def d_prime(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Compute the distance, in standard deviations, of two normal distributions that would have the mean AUC.

    Args:
        y_true: (clips, labels) 0 or 1.
        y_score: (clips, labels).

    Returns:
        sqrt(2) times the normal quantile of `auc`; 0 by chance. A perfect AUC is taken as that of one wrongly ordered
        pair in a million, so that the result is finite.

    Raises:
        ValueError: as `mean_average_precision`.

    Source: Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017, section 4.

    Example:
        >>> round(d_prime([[1], [0], [1], [0]], [[0.9], [0.8], [0.7], [0.1]]), 4)
        0.9539
    """
    from statistics import NormalDist

    return float(np.sqrt(2) * NormalDist().inv_cdf(min(max(auc(y_true, y_score), 1e-6), 1 - 1e-6)))


def eer(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Compute the mean over labels of the equal error rate, where misses and false alarms are equally frequent.

    Args:
        y_true: (clips, labels) 0 or 1.
        y_score: (clips, labels) higher where the label is more likely.

    Returns:
        A fraction in 0..1 (0 is perfect, 0.5 by chance), over the labels that some clips have and some have not.

    Raises:
        ValueError: as `mean_average_precision`.

    Source: the crossing of both error rates, between two thresholds on the straight line of the ROC curve; equals
        scikit-learn's `roc_curve` with that line (tested).

    Example:
        >>> eer([[1], [1], [0], [0]], [[0.9], [0.4], [0.6], [0.1]])
        0.5
    """
    true, score = _check_pair(y_true, y_score)
    return _average_labels(equal_error_rates(true, score, np.ones((1, len(true)))), "eer")


def equal_error_accuracy(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Compute the share of right decisions at the threshold where misses and false alarms are equally frequent: 1 - EER.

    Args:
        y_true: (clips, labels) 0 or 1.
        y_score: (clips, labels) higher where the label is more likely.

    Returns:
        A fraction in 0..1 (0.5 by chance): 1 less `eer`, so that 1 is perfect as for every metric that ranks a task.

    Raises:
        ValueError: as `mean_average_precision`.

    Source: as `eer`.

    Example:
        >>> equal_error_accuracy([[1], [1], [1], [0]], [[0.9], [0.8], [0.7], [0.1]])
        1.0
    """
    return 1 - eer(y_true, y_score)


def average_precisions(
    y_true: NDArray[np.bool_], y_score: NDArray[np.floating], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the average precision of each label for each weighting of the clips.

    Args:
        y_true: (clips, labels).
        y_score: (clips, labels).
        weights: (weightings, clips) at least 0; a bootstrap sample is how often each clip was drawn.

    Returns:
        (weightings, labels); NaN where no clip of positive weight has the label.

    Example:
        >>> y_true, y_score = np.array([[True], [False], [True]]), np.array([[0.9], [0.8], [0.7]])
        >>> average_precisions(y_true, y_score, np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])).round(3).tolist()
        [[0.833], [1.0]]
    """
    found = np.full((len(weights), y_true.shape[1]), np.nan)
    for label in range(y_true.shape[1]):
        order, ends = _rank_keys(-y_score[:, label])
        is_true = y_true[order, label]
        if not is_true.any():
            continue
        ranked = weights[:, order]  # (weightings, clips), best first
        # Clips of equal score enter together, so that their order in the index means nothing.
        seen = np.cumsum(ranked, axis=1)[:, ends[is_true]]  # (weightings, clips with the label)
        own = ranked[:, is_true]
        hits = np.cumsum(own, axis=1)[:, np.cumsum(is_true)[ends[is_true]] - 1]
        total = own.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(seen > 0, hits / seen, 0.0)
            found[:, label] = (own * precision).sum(axis=1) / total
    return found


def roc_areas(
    y_true: NDArray[np.bool_], y_score: NDArray[np.floating], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the area under the ROC curve of each label for each weighting of the clips.

    Args:
        y_true: (clips, labels).
        y_score: (clips, labels).
        weights: (weightings, clips) at least 0; a bootstrap sample is how often each clip was drawn.

    Returns:
        (weightings, labels) in 0..1; NaN where no clip of positive weight has the label, or every one has it.

    Example:
        >>> y_true, y_score = np.array([[True], [False], [True]]), np.array([[0.9], [0.8], [0.7]])
        >>> roc_areas(y_true, y_score, np.ones((1, 3))).tolist()
        [[0.5]]
    """
    found = np.full((len(weights), y_true.shape[1]), np.nan)
    for label in range(y_true.shape[1]):
        order, ends = _rank_keys(y_score[:, label])
        is_true = y_true[order, label]
        if is_true.all() or not is_true.any():
            continue
        ranked = weights[:, order]  # (weightings, clips), worst first
        own = ranked[:, is_true]
        below = np.cumsum(np.where(is_true, 0.0, ranked), axis=1)  # weight of clips without the label so far
        up_to = below[:, ends]  # ... ties included
        starts = np.flatnonzero(np.diff(ends, prepend=-1))  # first clip of each tie
        first = np.repeat(starts, np.diff(np.append(starts, len(ends))))
        before = np.where(first > 0, below[:, np.maximum(first - 1, 0)], 0.0)
        outranked = 0.5 * (up_to + before)[:, is_true]
        with np.errstate(invalid="ignore", divide="ignore"):
            found[:, label] = (own * outranked).sum(axis=1) / (own.sum(axis=1) * below[:, -1])
    return found


def equal_error_rates(
    y_true: NDArray[np.bool_], y_score: NDArray[np.floating], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the equal error rate of each label for each weighting of the clips.

    Args:
        y_true: (clips, labels).
        y_score: (clips, labels).
        weights: (weightings, clips) at least 0; a bootstrap sample is how often each clip was drawn.

    Returns:
        (weightings, labels) in 0..1; NaN where no clip of positive weight has the label, or every one has it.

    Example:
        >>> y_true = np.array([[True], [True], [False], [False]])
        >>> y_score = np.array([[0.9], [0.4], [0.6], [0.1]])
        >>> equal_error_rates(y_true, y_score, np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0]])).tolist()
        [[0.5], [0.0]]
    """
    found = np.full((len(weights), y_true.shape[1]), np.nan)
    for label in range(y_true.shape[1]):
        order, ends = _rank_keys(y_score[:, label])
        is_true = y_true[order, label]
        if is_true.all() or not is_true.any():
            continue
        # Thresholds lie above sets of equal scores: a clip below with the label is missed, one above without it is an alarm.
        last = np.unique(ends)
        ranked = weights[:, order]  # (weightings, clips), worst first
        missed, below = (np.cumsum(np.where(side, ranked, 0.0), axis=1)[:, last] for side in (is_true, ~is_true))
        with np.errstate(invalid="ignore", divide="ignore"):
            misses = np.pad(missed / missed[:, -1:], ((0, 0), (1, 0)))
            alarms = 1 - np.pad(below / below[:, -1:], ((0, 0), (1, 0)))
            found[:, label] = find_eer(misses, alarms)  # from the lowest threshold, so that misses rise
    return found


def _rank_keys(keys: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order of the clips by ascending key, and for each place the last place of its tie: (clips,) each."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    is_end = np.append(ranked[1:] != ranked[:-1], True)
    ends = np.flatnonzero(is_end)
    return order, ends[np.searchsorted(ends, np.arange(len(keys)))]


def _check_pair(y_true: ArrayLike, y_score: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    true, score = np.asarray(y_true), np.asarray(y_score)
    if true.ndim != 2 or true.shape != score.shape or 0 in true.shape:
        raise ValueError(
            f"y_true and y_score must be of one shape (clips, labels), got {true.shape} and {score.shape}; are these "
            "class numbers?"
        )
    if not np.isin(true, (0, 1)).all() or np.isnan(score).any():
        raise ValueError("y_true must be 0 or 1 and y_score never NaN; did the probe diverge?")
    return true.astype(bool), score


def _average_labels(values: NDArray[np.float64], name: str) -> float:
    if np.isnan(values).all():
        raise ValueError(f"{name} needs a label that some clip has; is the test set too small?")
    return float(np.nanmean(values))
