"""Do two clips have the same class? Errors of that decision over all thresholds of a similarity.

`y_true` is (pairs,), 1 for a pair of one class and 0 for another; `y_pred` is (pairs,), a similarity, larger for pairs that
are more likely of one class. A pair with a clip that could not be read has minus infinity if it is of one class, and
infinity if it is not, so that it is wrong at every threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: between the groups of the two clips of a pair, and between their names
BETWEEN_GROUPS, BETWEEN_NAMES = "\t", " and "

#: (..., thresholds) false alarms and misses, as shares -> (...)
OfErrors = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def find_errors(
    y_true: NDArray[Any], y_pred: NDArray[Any], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the shares of both errors at every threshold, from the highest to the lowest.

    Args:
        y_true, y_pred: (pairs,), see the module's docstring.
        weights: (samples, pairs) how often each pair counts.

    Returns:
        (samples, thresholds) false alarms, rising from 0 to 1, and misses, falling from 1 to 0; NaN where a sample has
        pairs of one kind only.

    Example:
        >>> alarms, misses = find_errors(np.array([1.0, 0.0]), np.array([0.9, 0.1]), np.ones((1, 2)))
        >>> alarms.tolist(), misses.tolist()
        ([[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    """
    order = np.argsort(-y_pred, kind="stable")
    scores, is_same = y_pred[order], y_true[order] > 0
    is_last = np.append(scores[1:] != scores[:-1], True)  # equal scores are accepted together
    ordered = weights[:, order]
    n_same = np.where(is_same, ordered, 0.0).cumsum(axis=1)[:, is_last]
    n_other = np.where(is_same, 0.0, ordered).cumsum(axis=1)[:, is_last]
    start = np.zeros((len(weights), 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        alarms = np.concatenate([start, n_other / n_other[:, -1:]], axis=1)
        misses = 1 - np.concatenate([start, n_same / n_same[:, -1:]], axis=1)
    return alarms, misses


def find_eer(alarms: NDArray[np.float64], misses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the equal error rate: where misses and false alarms are equally frequent, on the line between thresholds.

    Args:
        alarms, misses: (..., thresholds), as `find_errors` gives them, from the highest threshold to the lowest. From the
            lowest to the highest, please give the misses first: the first of the two rises from 0 to 1.

    Returns:
        (...) 0..1; NaN where the errors are NaN.

    Source: as usual in speaker verification, such as Nagrani, Chung & Zisserman, "VoxCeleb", Interspeech 2017; the point
        of the ROC curve, joined by straight lines, that lies on the other diagonal.

    Example:
        >>> find_eer(np.array([[0.0, 0.0, 0.5, 1.0]]), np.array([[1.0, 0.5, 0.0, 0.0]])).tolist()
        [0.25]
    """
    distance = misses - alarms  # falls from 1 to -1
    after = np.maximum((distance <= 0).argmax(axis=-1), 1)[..., None]
    one, other = (np.take_along_axis(distance, at, axis=-1) for at in (after - 1, after))
    start, end = (np.take_along_axis(alarms, at, axis=-1) for at in (after - 1, after))
    step = np.divide(one, one - other, out=np.zeros_like(one), where=one != other)
    return (start + step * (end - start))[..., 0]


def find_area(alarms: NDArray[np.float64], misses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the area under the ROC curve: the chance that a pair of one class is more similar than a pair of two.

    Args:
        alarms, misses: (..., thresholds), as `find_errors` gives them.

    Returns:
        (...) 0..1; pairs of equal similarity count half.

    Example:
        >>> find_area(np.array([[0.0, 0.0, 1.0]]), np.array([[1.0, 0.0, 0.0]])).tolist()
        [1.0]
    """
    hits = 1 - misses
    return (np.diff(alarms, axis=-1) * (hits[..., 1:] + hits[..., :-1]) / 2).sum(axis=-1)


def find_least_cost(
    alarms: NDArray[np.float64], misses: NDArray[np.float64], p_target: float, c_miss: float = 1.0, c_alarm: float = 1.0
) -> NDArray[np.float64]:
    """Find the least cost over all thresholds, where pairs of one class are rare (minDCF).

    Args:
        alarms, misses: (..., thresholds), as `find_errors` gives them.
        p_target: how frequent pairs of one class are where the decision is used, above 0 and below 1.
        c_miss, c_alarm: cost of a miss and of a false alarm, above 0.

    Returns:
        (...) 0..1: the cost as a share of that of the better of two blind decisions, to accept all or none.

    Source: detection cost function of NIST's speaker recognition evaluations; with p_target 0.01 and 0.05 and costs of 1
        as in the VoxCeleb speaker recognition challenges.

    Example:
        >>> find_least_cost(np.array([[0.0, 0.0, 1.0]]), np.array([[1.0, 0.5, 0.0]]), 0.01).tolist()
        [0.5]
    """
    costs = c_miss * p_target * misses + c_alarm * (1 - p_target) * alarms
    return costs.min(axis=-1) / min(c_miss * p_target, c_alarm * (1 - p_target))


def make_pair_score(of_errors: OfErrors, name: str) -> Callable[[ArrayLike, ArrayLike], float]:
    """Make a metric, (y_true, y_pred) -> score, from a function of the errors.

    Example:
        >>> make_pair_score(find_area, "pair_auc")([1, 0, 1], [0.9, 0.1, 0.5])
        1.0
    """

    def score(y_true: ArrayLike, y_pred: ArrayLike) -> float:
        true, similar = np.asarray(y_true), np.asarray(y_pred, np.float64)
        if true.ndim != 1 or true.shape != similar.shape:
            raise ValueError(f"pairs need one label and one similarity each, got {true.shape} and {similar.shape}")
        if not 0 < (true > 0).sum() < len(true):
            raise ValueError("pairs need some of one class and some of two, got only one kind")
        return float(of_errors(*find_errors(true, similar, np.ones((1, len(true)))))[0])

    score.__name__ = name
    return score


def resample_pairs(
    of_errors: OfErrors, y_true: NDArray[Any], y_pred: NDArray[Any], index: NDArray[np.int64], counts: NDArray[Any]
) -> NDArray[np.float64]:
    """Score bootstrap samples that draw whole groups of clips: a pair counts as often as both of its groups are drawn.

    Pairs share clips, so that drawing pairs one by one would give an interval that is too narrow.

    Args:
        of_errors: function of the errors.
        y_true, y_pred: (pairs,), see the module's docstring.
        index: (pairs, 2) numbers of the groups of both clips, or (pairs,) where a pair has one group.
        counts: (resamples, groups) how often each group is drawn.

    Returns:
        (resamples,) scores; NaN for samples with pairs of one kind only.

    Source: Davezies, D'Haultfoeuille & Guyonvarch, "Empirical process results for exchangeable arrays", Annals of
        Statistics 49 (2021): the bootstrap of pairs that share units.

    Example:
        >>> index = np.array([[0, 1], [1, 2]])
        >>> weigh_pairs(index, np.array([[2, 1, 3]])).tolist()
        [[2.0, 3.0]]
        >>> resample_pairs(find_area, np.array([1, 0]), np.array([0.9, 0.1]), index, np.array([[2, 1, 3]])).tolist()
        [1.0]
    """
    return of_errors(*find_errors(y_true, y_pred, weigh_pairs(index, counts)))


def weigh_pairs(index: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Count how often each pair is in each bootstrap sample; a pair within one group counts as often as the group.

    Args:
        index, counts: as for `resample_pairs`.

    Returns:
        (resamples, pairs).

    Example:
        >>> weigh_pairs(np.array([[0, 0], [0, 1]]), np.array([[3, 2]])).tolist()
        [[3.0, 6.0]]
    """
    drawn = counts.astype(np.float64)
    if index.ndim == 1:
        return drawn[:, index]
    first, second = index[:, 0], index[:, 1]
    return drawn[:, first] * np.where(first == second, 1.0, drawn[:, second])


def split_groups(groups: NDArray[np.str_]) -> NDArray[np.str_]:
    r"""Split the groups of pairs, which results hold as one text, into those of both clips.

    Args:
        groups: (pairs,) texts, the groups of both clips with a tab between them.

    Returns:
        (pairs, 2) texts; (pairs,) unchanged where some text has no tab.

    Example:
        >>> split_groups(np.array(["a\tb", "b\tc"])).tolist(), split_groups(np.array(["a", "b"])).tolist()
        ([['a', 'b'], ['b', 'c']], ['a', 'b'])
    """
    parts = [str(text).split(BETWEEN_GROUPS) for text in groups]
    return np.array(parts) if all(len(one) == 2 for one in parts) else groups


#: name of a metric -> its function of the errors
PAIR_SCORES: dict[str, OfErrors] = {
    "pair_auc": find_area,
    "pair_eer": find_eer,
    "min_dcf_1_percent": partial(find_least_cost, p_target=0.01),
    "min_dcf_5_percent": partial(find_least_cost, p_target=0.05),
}
