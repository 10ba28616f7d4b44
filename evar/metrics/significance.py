"""Is one row of a table better than another? Paired comparisons on the same test clips, and ranks over many tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evar.metrics import METRICS, bootstrap_scores, holm, paired_permutation
from evar.metrics.pairs import split_groups

#: random flips where they cannot all be counted: p is then no smaller than 1 / 100,001
_N_FLIPS = 100_000
#: bootstrap samples of a difference of means
_N_RESAMPLES = 10_000
#: groups, from which the tails of a bootstrap distribution are taken for normal
_TAIL_FROM = 30
#: steps of the exact distribution of the sum of signs, beyond which it is sampled instead: 160 MB of numbers
_MOST_STEPS = 10_000_000
#: with fewer tasks or rows, ranks say nothing: no result could be significant
LEAST_TASKS, LEAST_ROWS = 5, 3


@dataclass(frozen=True)
class PairedDifference:
    """One feature's score minus another's, on the same clips.

    Attributes:
        value: mean over rounds and runs, in the metric's unit (1 is 100 percent).
        low, high: 95 % interval by paired bootstrap over groups.
        p: two-sided, for no difference; not corrected for other comparisons.
        test: that gave p: "McNemar", "randomisation" or "bootstrap".
    """

    value: float
    low: float
    high: float
    p: float
    test: str


def compare_pairs(
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
    a score that is a mean over clips comes from flipping, for whole groups, which of the two had which outcome
    (`randomisation_test`); where every clip is its own group, and one run is compared with one, that is McNemar's exact
    test. Of other metrics it is twice the smaller share of bootstrap samples on either side of no difference, or by a
    normal distribution where no sample lies on the other side.

    Args:
        metric: name in `evar.metrics.METRICS`, which can be resampled.
        y_true: (clips,) true classes or numbers, or (clips, labels) of 0 and 1.
        groups, rounds: (clips,) group and round of each clip.
        runs, others: predictions of each run (seed) of the two features, shaped as the metric takes them: (clips,) or
            (clips, labels); the scores of the runs are averaged.
        seed: of the resampling.

    Returns:
        The difference `runs` minus `others`.

    Raises:
        ValueError: if shapes differ, or there is no run.

    Source: paired bootstrap, Efron & Tibshirani, "An Introduction to the Bootstrap" (1993); McNemar, "Note on the sampling
        error of the difference between correlated proportions or percentages", Psychometrika 12 (1947).

    Example:
        >>> better = compare_pairs("accuracy", [0] * 40, [[0] * 40], [[0] * 30 + [1] * 10], range(40), [0] * 40)
        >>> better.value, better.low > 0, round(better.p, 4)
        (0.25, True, 0.002)
    """
    if not len(runs) or not len(others):
        raise ValueError("a comparison needs at least one run of each feature, got none")
    true, group_of, round_of = map(np.asarray, (y_true, groups, rounds))
    if METRICS[metric].is_mean:
        one, other = (
            np.mean([_find_outcomes(metric, true, np.asarray(run)) for run in side], axis=0) for side in (runs, others)
        )
        samples = _resample_mean_differences(one - other, group_of, round_of, seed)
    else:
        samples = _resample_differences(metric, true, runs, others, group_of, round_of, seed)
    value = _score(metric, true, runs, round_of) - _score(metric, true, others, round_of)
    width = METRICS[metric].bounds[1] - METRICS[metric].bounds[0]
    low, high = np.quantile(samples, [0.025, 0.975]) if len(samples) else (-width, width)
    p, test = _find_p_value(metric, true, runs, others, group_of, round_of, seed, samples)
    return PairedDifference(value, float(low), float(high), p, test)


def compute_p_value(
    metric: str,
    y_true: ArrayLike,
    runs: Sequence[ArrayLike],
    others: Sequence[ArrayLike],
    groups: ArrayLike,
    rounds: ArrayLike,
    *,
    seed: int = 0,
) -> tuple[float, str]:
    """Compute only the p-value and the name of the test of `compare_pairs`: without a bootstrap if the metric needs none.

    Args:
        metric: name in `evar.metrics.METRICS`.
        y_true, groups, rounds: (clips,) or (clips, labels) true labels; (clips,) group and (clips,) round of each clip.
        runs, others: predictions of each run of the two features, each shaped as the metric takes them.
        seed: of the resampling.

    Returns:
        p-value in 0..1, name of the test.

    Example:
        >>> compute_p_value("accuracy", [0] * 9, [[0] * 9], [[1] * 9], range(9), [0] * 9)
        (0.00390625, 'McNemar')
    """
    true, group_of, round_of = map(np.asarray, (y_true, groups, rounds))
    return _find_p_value(metric, true, runs, others, group_of, round_of, seed, None)


def _find_p_value(
    metric: str,
    y_true: NDArray[np.generic],
    runs: Sequence[ArrayLike],
    others: Sequence[ArrayLike],
    groups: NDArray[np.generic],
    rounds: NDArray[np.generic],
    seed: int,
    samples: NDArray[np.float64] | None,
) -> tuple[float, str]:
    if METRICS[metric].is_mean:
        one, other = (
            np.mean([_find_outcomes(metric, y_true, np.asarray(run)) for run in side], axis=0)
            for side in (runs, others)
        )
        return randomisation_test(one, other, groups, rounds, n_runs=(len(runs), len(others)), seed=seed)
    if samples is None:
        samples = _resample_differences(metric, y_true, runs, others, groups, rounds, seed)
    n_groups = _count_groups(metric, groups, rounds)
    return (_compute_tail(samples, n_groups) if len(samples) else 1.0), "bootstrap"


def _count_groups(metric: str, groups: NDArray[np.generic], rounds: NDArray[np.generic]) -> int:
    """Count the groups of all rounds; those of pairs of clips are the groups of their clips."""
    drawn = split_groups(np.asarray(groups, str)) if METRICS[metric].kind == "pairs" else groups
    return sum(len(np.unique(drawn[rounds == current])) for current in np.unique(rounds))


def _resample_differences(
    metric: str,
    y_true: NDArray[np.generic],
    runs: Sequence[ArrayLike],
    others: Sequence[ArrayLike],
    groups: NDArray[np.generic],
    rounds: NDArray[np.generic],
    seed: int,
) -> NDArray[np.float64]:
    """(resamples,) differences in bootstrap samples, the same samples for both; those without a score are left out."""
    n_resamples = METRICS[metric].n_resamples
    sides = [
        np.mean(
            [bootstrap_scores(metric, y_true, run, groups, rounds, n_resamples=n_resamples, seed=seed) for run in side],
            axis=0,
        )
        for side in (runs, others)
    ]
    found = sides[0] - sides[1]
    return found[np.isfinite(found)]


def _resample_mean_differences(
    difference: NDArray[np.float64], groups: NDArray[np.generic], rounds: NDArray[np.generic], seed: int
) -> NDArray[np.float64]:
    """Do the same for a score that is a mean over clips: (clips,) -> (resamples,); none if no round has two groups.

    Groups of one size and sum are alike, so it is drawn how many of each kind there are: the same distribution as drawing
    groups one by one, at a small part of the cost.
    """
    generator, total, each = np.random.default_rng(seed), np.zeros(_N_RESAMPLES), np.unique(rounds)
    is_estimable = False
    for current in each:
        own = rounds == current
        _, index, sizes = np.unique(groups[own], return_inverse=True, return_counts=True)
        sums = np.round(np.bincount(index, weights=difference[own]), 9)
        kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)  # (kinds, 2), (kinds,)
        drawn = generator.multinomial(len(sizes), counts / len(sizes), size=_N_RESAMPLES)  # (resamples, kinds)
        total += (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])
        is_estimable |= len(sizes) > 1
    return total / len(each) if is_estimable else total[:0]


def _compute_tail(differences: NDArray[np.float64], n_groups: int) -> float:
    """Twice the smaller share of samples on either side of 0; by a normal distribution where none is on one side.

    Without the latter p could not fall below 2 / 1,001, and nothing would survive a correction over a large table. Few
    groups say too little of the distribution's tails for that.
    """
    beyond = int(min((differences <= 0).sum(), (differences >= 0).sum()))
    p = min(1.0, 2 * (1 + beyond) / (1 + len(differences)))
    deviation = float(differences.std())
    if beyond == 0 and n_groups >= _TAIL_FROM and deviation > 0:
        p = min(p, math.erfc(abs(float(differences.mean())) / deviation / math.sqrt(2)))
    return p


def _find_outcomes(metric: str, y_true: NDArray[np.generic], y_pred: NDArray[np.generic]) -> NDArray[np.float64]:
    """Each clip's share in a score that is a mean over clips: 1 right, 0 wrong."""
    function = METRICS[metric].function
    if metric == "accuracy":
        return (y_true == y_pred).astype(np.float64)
    return np.array([function(y_true[at : at + 1], y_pred[at : at + 1]) for at in range(len(y_true))])


def randomisation_test(
    one: ArrayLike,
    other: ArrayLike,
    groups: ArrayLike,
    rounds: ArrayLike,
    *,
    n_runs: tuple[int, int] = (1, 1),
    seed: int = 0,
) -> tuple[float, str]:
    """Two-sided p-value of a paired difference: whole groups flip at random which of the two had which outcome.

    Every flip is counted, without going through them, where all clips weigh the same: one round, rounds of one size, or
    clips that are groups of their own (then all clips of all rounds weigh the same, as in McNemar's test). Otherwise
    flips are drawn.

    Args:
        one, other: (clips,) outcomes in 0..1, means over runs.
        groups, rounds: as for `evar.metrics.bootstrap_scores`.
        n_runs: of each side, so that their means are known to be fractions of it.
        seed: of the flips, where they are drawn.

    Returns:
        p in 0..1, and "McNemar" where every clip is its own group and one run is compared with one, else
        "randomisation".

    Raises:
        ValueError: if the shapes differ or there is no clip.

    Source: Edgington & Onghena, "Randomization Tests" (2007), ch. 6; McNemar (1947), as above.

    Example:
        >>> randomisation_test([1] * 9 + [0], [0] * 9 + [1], range(10), [0] * 10)  # 9 of 10: 2 x 11 of 1,024 flips
        (0.021484375, 'McNemar')
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    group_of, round_of = np.asarray(groups), np.asarray(rounds)
    if first.ndim != 1 or not len(first) or not first.shape == second.shape == group_of.shape == round_of.shape:
        raise ValueError(
            "one, other, groups and rounds must be of one shape (clips,) with at least 1 clip, got "
            f"{first.shape}, {second.shape}, {group_of.shape} and {round_of.shape}"
        )
    parts, sizes, largest = [], set(), 0
    for current in np.unique(round_of):
        own = round_of == current
        _, index, counts = np.unique(group_of[own], return_inverse=True, return_counts=True)
        parts.append(np.bincount(index, weights=(first - second)[own]))
        sizes.add(int(own.sum()))
        largest = max(largest, int(counts.max()))
    is_single = largest == 1
    test = "McNemar" if is_single and n_runs == (1, 1) else "randomisation"
    steps = math.lcm(*n_runs) * np.concatenate(parts)  # (groups,) whole numbers, but for rounding
    whole = np.rint(steps).astype(np.int64)
    if (len(sizes) == 1 or is_single) and np.allclose(steps, whole, atol=1e-6) and np.abs(whole).sum() < _MOST_STEPS:
        return _try_all_flips(whole), test
    return paired_permutation(first, second, group_of, round_of, n_permutations=_N_FLIPS, seed=seed), "randomisation"


def _try_all_flips(steps: NDArray[np.int64]) -> float:
    """Share of all sign patterns whose sum is as far from 0 as the observed one; (groups,) whole numbers."""
    from scipy.signal import fftconvolve
    from scipy.stats import binom

    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    chances = np.ones(1)  # of each sum, from -(len - 1) / 2 to as much
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        of_size = np.zeros(2 * size * count + 1)
        of_size[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = of_size if len(chances) == 1 else np.maximum(fftconvolve(chances, of_size), 0.0)
    sums = np.arange(len(chances)) - len(chances) // 2
    return float(min(1.0, chances[np.abs(sums) >= abs(int(steps.sum()))].sum()))


def correct_for_the_best(p_values: ArrayLike, n_pairs: int) -> NDArray[np.float64]:
    """Holm's correction of comparisons with the best row, where the scores themselves choose the best row.

    The best of many equal rows is the luckiest, so that its comparisons stand for those of all pairs: each pair that was
    not compared counts as one more test. Of 20 equal rows some would otherwise be called significantly worse in 22 of 100
    tables (simulated; the tests do so too).

    Args:
        p_values: (tests,) in 0..1, of the comparisons with the best of each column.
        n_pairs: pairs of rows, over all columns.

    Example:
        >>> correct_for_the_best([0.01, 0.2], n_pairs=3).tolist()  # three rows: two comparisons with the best
        [0.03, 0.4]
    """
    given = np.asarray(p_values, dtype=np.float64)
    return holm(np.concatenate([given, np.ones(max(0, n_pairs - len(given)))]))[: len(given)]


def _score(metric: str, y_true: NDArray[np.generic], runs: Sequence[ArrayLike], rounds: NDArray[np.generic]) -> float:
    """Mean over runs and rounds."""
    function, each = METRICS[metric].function, [rounds == one for one in np.unique(rounds)]
    return float(np.mean([function(y_true[own], np.asarray(run)[own]) for run in runs for own in each]))


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


def rank_rows(scores: ArrayLike) -> Ranking:
    """Rank rows over tasks and say which differences of their mean ranks are more than chance.

    Args:
        scores: (rows, tasks) of one kind, larger is better, no NaN; at least 3 rows and 5 tasks.

    Raises:
        ValueError: if there are fewer, or a score is missing.

    Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006): Friedman's test
        (equation 6) and Nemenyi's critical difference q x sqrt(k (k + 1) / (6 N)), where q is the 95 % quantile of the
        studentized range divided by sqrt(2).

    Example:
        >>> found = rank_rows([[0.9, 0.8, 0.7, 0.9, 0.8], [0.8, 0.7, 0.6, 0.8, 0.7], [0.1, 0.2, 0.3, 0.1, 0.2]])
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
