"""Is one row of a table better than another? Paired comparisons on the same test clips, and ranks over many tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evar.metrics import METRICS, bootstrap_scores, paired_permutation

#: more differing groups than this, and the sum of random signs is as good as normal
_NORMAL_FROM = 100
#: with fewer tasks or rows, ranks say nothing: no result could be significant
LEAST_TASKS, LEAST_ROWS = 5, 3


@dataclass(frozen=True)
class PairedDifference:
    """One feature's score minus another's, on the same clips.

    Attributes:
        value: mean over rounds and runs, in the metric's unit (1 is 100 percent).
        low, high: 95 % interval by paired bootstrap over groups.
        p: two-sided, for no difference; not corrected for other comparisons.
    """

    value: float
    low: float
    high: float
    p: float


def paired_difference(
    metric: str,
    y_true: ArrayLike,
    runs: Sequence[ArrayLike],
    others: Sequence[ArrayLike],
    groups: ArrayLike,
    rounds: ArrayLike,
    *,
    seed: int = 0,
) -> PairedDifference:
    """Compare two features by their predictions for the same test clips.

    The interval is that of the difference in bootstrap samples of whole groups, the same samples for both. The p-value of
    a score that is a mean over clips comes from flipping, for whole groups, which of the two had which outcome; where
    every clip is its own group, and one run is compared with one, that is McNemar's exact test. Of other metrics it is
    twice the smaller share of bootstrap samples on either side of no difference.

    Args:
        metric: name in `evar.metrics.METRICS`, which can be resampled.
        y_true, groups, rounds: as for `evar.metrics.bootstrap_scores`.
        runs, others: predictions of each run (seed) of the two features; their scores are averaged.
        seed: of the resampling.

    Returns:
        The difference `runs` minus `others`.

    Raises:
        ValueError: if shapes differ, or there is no run.

    Source: paired bootstrap, Efron & Tibshirani, "An Introduction to the Bootstrap" (1993); McNemar, "Note on the sampling
        error of the difference between correlated proportions or percentages", Psychometrika 12 (1947).

    Example:
        >>> better = paired_difference("accuracy", [0] * 40, [[0] * 40], [[0] * 30 + [1] * 10], range(40), [0] * 40)
        >>> better.value, better.low > 0, round(better.p, 4)
        (0.25, True, 0.002)
    """
    if not len(runs) or not len(others):
        raise ValueError("a comparison needs at least one run of each feature, got none")
    known = METRICS[metric]
    true, group_of, round_of = map(np.asarray, (y_true, groups, rounds))
    sides = [[np.asarray(run) for run in side] for side in (runs, others)]
    samples = [
        np.mean(
            [
                bootstrap_scores(metric, true, run, group_of, round_of, n_resamples=known.n_resamples, seed=seed)
                for run in side
            ],
            axis=0,
        )
        for side in sides
    ]
    value = float(np.mean([_score(metric, true, run, round_of) for run in sides[0]])) - float(
        np.mean([_score(metric, true, run, round_of) for run in sides[1]])
    )
    differences = samples[0] - samples[1]
    differences = differences[np.isfinite(differences)]
    width = known.bounds[1] - known.bounds[0]
    low, high = np.quantile(differences, [0.025, 0.975]) if len(differences) else (-width, width)
    if known.is_mean:
        means = [np.mean([run == true for run in side], axis=0) for side in sides]
        p = _flipped(means[0], means[1], group_of, round_of, seed)
    elif len(differences):
        beyond = min((differences <= 0).sum(), (differences >= 0).sum())
        p = min(1.0, 2 * (1 + beyond) / (1 + len(differences)))
    else:
        p = 1.0
    return PairedDifference(value, float(low), float(high), float(p))


def _flipped(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    groups: NDArray[np.generic],
    rounds: NDArray[np.generic],
    seed: int,
) -> float:
    """p-value of random signs of the groups' differences; by the normal distribution where very many differ."""
    parts = []
    for current in np.unique(rounds):
        own = rounds == current
        _, index = np.unique(groups[own], return_inverse=True)
        parts.append(np.bincount(index, weights=(one - other)[own]) / own.sum())
    shares = np.concatenate(parts)
    shares = shares[np.abs(shares) > 1e-12]
    if len(shares) <= _NORMAL_FROM:
        return paired_permutation(one, other, groups, rounds, seed=seed)
    return math.erfc(abs(shares.sum()) / math.sqrt(2 * float(np.square(shares).sum())))


def _score(metric: str, y_true: NDArray[np.generic], y_pred: NDArray[np.generic], rounds: NDArray[np.generic]) -> float:
    function = METRICS[metric].function
    return float(np.mean([function(y_true[rounds == one], y_pred[rounds == one]) for one in np.unique(rounds)]))


@dataclass(frozen=True)
class Ranking:
    """Ranks of rows over tasks.

    Attributes:
        ranks: (rows,) mean rank over the tasks, 1 the best; ties share the mean of their ranks.
        p: of Friedman's test that all rows are equally good.
        critical: two mean ranks that differ by less than this are not significantly different (Nemenyi, 5 %).
        n_tasks: that were ranked.
    """

    ranks: NDArray[np.float64]
    p: float
    critical: float
    n_tasks: int

    def cliques(self) -> list[list[int]]:
        """Largest sets of rows, in order of rank, no two of which differ significantly; sets of one are left out."""
        order = np.argsort(self.ranks, kind="stable")
        found: list[list[int]] = []
        for start in range(len(order)):
            end = start
            while end + 1 < len(order) and self.ranks[order[end + 1]] - self.ranks[order[start]] < self.critical:
                end += 1
            if end > start and not (found and int(order[end]) in found[-1]):
                found.append([int(row) for row in order[start : end + 1]])
        return found


def ranking(scores: ArrayLike) -> Ranking:
    """Rank rows over tasks and say which differences of their mean ranks are more than chance.

    Args:
        scores: (rows, tasks) of one kind, larger is better, no NaN; at least 3 rows and 5 tasks.

    Raises:
        ValueError: if there are fewer, or a score is missing.

    Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006): Friedman's test
        (equation 6) and Nemenyi's critical difference q x sqrt(k (k + 1) / (6 N)), where q is the 95 % quantile of the
        studentized range divided by sqrt(2).

    Example:
        >>> found = ranking([[0.9, 0.8, 0.7, 0.9, 0.8], [0.8, 0.7, 0.6, 0.8, 0.7], [0.1, 0.2, 0.3, 0.1, 0.2]])
        >>> found.ranks.tolist(), round(found.p, 4), round(found.critical, 3)
        ([1.0, 2.0, 3.0], 0.0067, 1.482)
    """
    from scipy.stats import chi2, rankdata, studentized_range

    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] < LEAST_ROWS or values.shape[1] < LEAST_TASKS:
        raise ValueError(f"ranks need at least {LEAST_ROWS} rows and {LEAST_TASKS} tasks, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("ranks need a score of every row on every task")
    k, n = values.shape
    each = rankdata(-np.round(values, 12), axis=0)  # (rows, tasks); ties share the mean of their ranks
    ranks = each.mean(axis=1)
    statistic = 12 * n / (k * (k + 1)) * (np.square(ranks).sum() - k * (k + 1) ** 2 / 4)
    ties = sum(float((counts**3 - counts).sum()) for counts in (np.unique(c, return_counts=True)[1] for c in each.T))
    correction = 1 - ties / (n * (k**3 - k))
    p = 1.0 if correction <= 0 else float(chi2.sf(statistic / correction, k - 1))
    q = float(studentized_range.ppf(0.95, k, np.inf)) / math.sqrt(2)
    return Ranking(ranks, p, q * math.sqrt(k * (k + 1) / (6 * n)), n)
