"""Uncertainty of a score: the bootstrap over test clips, whole groups within each round."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evar.metrics.named import METRICS
from evar.metrics.pairs import split_groups
from evar.metrics.resampling import resample_mean

# Resampling counts in memory at once, as a count of numbers: 32 MB for any size of the test set.
_COUNTS_AT_ONCE = 4_000_000

#: (rows of a round, group of each as a number, (resamples, groups) counts) -> (resamples,)
Statistic = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[Any]], NDArray[np.float64]]
#: number of a round, its first resample here, and how often each group is drawn, (some resamples, groups)
Draw = tuple[int, int, NDArray[Any]]


def bootstrap_interval(
    correct: ArrayLike,
    groups: ArrayLike,
    rounds: ArrayLike,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of the mean over rounds of each round's mean correctness.

    Clips cut from one recording are right or wrong together, so whole groups are drawn with replacement, within each
    round; drawing single clips would give an interval that is too narrow. It tells how the score would move with
    other test recordings of the same kind, not with another training set. Percentile intervals are somewhat narrow
    below about 20 groups, and of zero width where every clip is right or every clip is wrong.

    Args:
        correct: (clips,) correctness of each test clip in 0..1: 0 or 1, or its average over seeds.
        groups: (clips,) labels; clips with one label in one round stay together.
        rounds: (clips,) round (fold) that each clip was tested in; a clip tested twice appears twice.
        n_resamples: bootstrap samples, at least 1.
        level: coverage, strictly between 0 and 1.
        seed: of the draws; the same inputs and seed give the same interval.

    Returns:
        (low, high) in 0..1; (0.0, 1.0) where no round has two groups, as the interval is then unknown.

    Raises:
        ValueError: if the inputs differ in length, are empty, or are out of range.

    Source: percentile method, Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13; resampling whole
        clusters, Field & Welsh, "Bootstrapping clustered data", J. R. Stat. Soc. B 69 (2007).

    Example:
        >>> low, high = bootstrap_interval([1, 1, 1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3], [0] * 8)
        >>> low, high
        (0.25, 1.0)
    """
    values, group_of, round_of = np.asarray(correct, dtype=np.float64), np.asarray(groups), np.asarray(rounds)
    if values.ndim != 1 or len(values) == 0 or group_of.shape != values.shape or round_of.shape != values.shape:
        raise ValueError(
            "correct, groups and rounds must be of one shape (clips,) with at least 1 clip, got "
            f"{values.shape}, {group_of.shape} and {round_of.shape}"
        )
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError("correct must lie in 0..1 for every clip; is it a percentage, or a score of another metric?")
    if n_resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"n_resamples must be >= 1 and level strictly between 0 and 1, got {n_resamples} and {level}; "
            "is the level in percent?"
        )
    resampled = _resample(
        lambda rows, index, counts: resample_mean(values[rows, None], index, counts),
        group_of,
        round_of,
        n_resamples,
        seed,
    )
    return (0.0, 1.0) if resampled is None else _find_percentiles(resampled, level)


def bootstrap_scores(
    metric: str,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    groups: ArrayLike,
    rounds: ArrayLike,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Compute the score of bootstrap samples of the test clips, drawn as in `bootstrap_interval`: mean over rounds.

    The draws depend on groups, rounds, n_resamples and seed alone: the samples of two encoders tested on the same clips
    are the same, and the difference of two results is a paired bootstrap of the difference.

    Args:
        metric: name in `METRICS`.
        y_true: (clips,) class numbers or values, or (clips, labels) of 0 and 1.
        y_pred: predictions in the form that the metric takes, of the same shape.
        groups, rounds: as for `bootstrap_interval`; the group of a pair of clips is the groups of both, with a tab between
            them, and the pair counts as often as both are drawn.
        n_resamples: bootstrap samples, at least 1.
        seed: of the draws.

    Returns:
        (n_resamples,) scores; all NaN where no round has two groups, as the interval is then unknown.

    Raises:
        ValueError: if the inputs differ in length or are empty.

    Example:
        >>> scores = bootstrap_scores("accuracy", [0, 1] * 8, [0, 1] * 4 + [1, 1] * 4, range(16), [0] * 16)
        >>> scores.shape, bool(0.7 < scores.mean() < 0.8)
        ((2000,), True)
    """
    true, predicted, group_of, round_of = map(np.asarray, (y_true, y_pred, groups, rounds))
    if true.shape != predicted.shape or not len(true) or not group_of.shape == round_of.shape == true.shape[:1]:
        raise ValueError(
            "y_true and y_pred must be of one shape, one row per clip as in groups and rounds, got "
            f"{true.shape}, {predicted.shape}, {group_of.shape} and {round_of.shape}"
        )
    of_metric = METRICS[metric].resampled
    if of_metric is None:
        raise ValueError(f"{metric} has no bootstrap; it is only shown beside a task's own metric")

    def statistic(rows: NDArray[np.int64], index: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return of_metric(true[rows], predicted[rows], index, counts)

    # A row is compared with many others, and ranking all labels again takes seconds: the last few samples are kept.
    is_kept = not METRICS[metric].is_mean and group_of.dtype.kind != "O"  # objects are told apart by their place
    key = (of_metric, n_resamples, seed, _hash_arrays(true, predicted, group_of, round_of)) if is_kept else None
    if (known := _kept_scores.get(key)) is not None:
        return known.copy()
    drawn = split_groups(group_of) if METRICS[metric].kind == "pairs" else group_of
    found = _resample(statistic, drawn, round_of, n_resamples, seed)
    scores = np.full(n_resamples, np.nan) if found is None else found
    if is_kept:
        _keep_scores(key, scores)
    return scores


#: scores of the bootstrap samples that were computed last, 8 to 16 KB each, and how many are kept
_kept_scores: dict[Any, NDArray[np.float64]] = {}
_MOST_KEPT = 64


def _keep_scores(key: Any, scores: NDArray[np.float64]) -> None:
    """Keep the scores of bootstrap samples in place of the oldest ones."""
    while len(_kept_scores) >= _MOST_KEPT:
        _kept_scores.pop(next(iter(_kept_scores), None), None)
    _kept_scores[key] = scores.copy()


def _hash_arrays(*arrays: NDArray[Any]) -> bytes:
    """Tell arrays apart by their content."""
    digest = hashlib.sha256()
    for one in arrays:
        digest.update(f"{one.dtype.str} {one.shape} ".encode())
        digest.update(np.ascontiguousarray(one).tobytes())
    return digest.digest()


def bootstrap_many(
    metric: str,
    y_true: ArrayLike,
    y_preds: ArrayLike,
    groups: ArrayLike,
    rounds: ArrayLike,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """`bootstrap_scores` of many runs that were tested on the same clips, at little more than the cost of one.

    Args:
        metric: name in `METRICS`.
        y_true: (clips,) as for `bootstrap_scores`.
        y_preds: (runs, clips) predictions.
        groups, rounds: (clips,) as for `bootstrap_interval`.
        n_resamples: bootstrap samples, at least 1.
        seed: of the draws, which all runs share.

    Returns:
        (runs, n_resamples) scores; all NaN where no round has two groups.

    Raises:
        ValueError: as `bootstrap_scores`.

    Example:
        >>> y = np.array([0, 1] * 8)
        >>> many = bootstrap_many("accuracy", y, [y, 1 - y], range(16), [0] * 16)
        >>> one = bootstrap_scores("accuracy", y, y, range(16), [0] * 16)
        >>> many.shape, bool(np.array_equal(many[0], one)), float(many[1].max())
        ((2, 2000), True, 0.0)
    """
    true, predicted, group_of, round_of = map(np.asarray, (y_true, y_preds, groups, rounds))
    of_metric = METRICS[metric].resampled
    if metric != "accuracy" or predicted.ndim != 2 or of_metric is None:  # accuracy of all runs is one matrix product
        runs = [
            bootstrap_scores(metric, true, run, group_of, round_of, n_resamples=n_resamples, seed=seed)
            for run in predicted
        ]
        return np.stack(runs)
    if predicted.shape[1:] != true.shape or not len(true) or not group_of.shape == round_of.shape == true.shape:
        raise ValueError(
            "y_preds must be (runs, clips), and y_true, groups and rounds (clips,), got "
            f"{predicted.shape}, {true.shape}, {group_of.shape} and {round_of.shape}"
        )
    is_right = (predicted == true).astype(np.float64)

    def statistic(rows: NDArray[np.int64], index: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.float64]:
        values = np.concatenate([np.ones((1, len(rows))), is_right[:, rows]])  # (1 + runs, clips of the round)
        of_groups = np.stack([np.bincount(index, weights=row, minlength=counts.shape[1]) for row in values], axis=1)
        sums = counts.astype(np.float64) @ of_groups
        return sums[:, 1:] / sums[:, :1]

    found = _resample(statistic, group_of, round_of, n_resamples, seed, len(predicted))
    return np.full((len(predicted), n_resamples), np.nan) if found is None else found.T


def score_interval(
    metric: str,
    y_true: ArrayLike,
    y_preds: Sequence[ArrayLike],
    groups: ArrayLike,
    rounds: ArrayLike,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of a score by any metric, averaged over runs (seeds) on the same test clips.

    A clip that is drawn twice makes a ranking look better than it is, and a correlation otherwise: the distance of the
    bootstrap's mean from the score, its bias, is taken off both ends where the metric is no mean over clips.

    Args:
        metric: name in `METRICS`.
        y_true: (clips,) true classes or numbers, or (clips, labels) of 0 and 1.
        groups, rounds: (clips,) group and round of each clip.
        y_preds: predictions of each run, shaped as the metric takes them: (clips,) or (clips, labels).
        level: coverage, strictly between 0 and 1.
        seed: of the draws, which all runs share.

    Returns:
        (low, high); the metric's whole range where no round has two groups.

    Raises:
        ValueError: as `bootstrap_scores`, or if there is no run.

    Source: bias correction, Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 10.

    Example:
        >>> low, high = score_interval("pearson", [1.0, 2, 3, 4, 5, 6], [[1.0, 2, 3, 4, 6, 5]], range(6), [0] * 6)
        >>> bool(0 < low < high <= 1)
        True
    """
    if not len(y_preds):
        raise ValueError("score_interval needs the predictions of at least one run, got none")
    n_resamples = METRICS[metric].n_resamples
    runs = [
        bootstrap_scores(metric, y_true, run, groups, rounds, n_resamples=n_resamples, seed=seed) for run in y_preds
    ]
    scores = np.mean(runs, axis=0)
    scores = scores[np.isfinite(scores)]  # a sample of very few clips may have nothing to score
    least, most = METRICS[metric].bounds
    if not len(scores):
        return least, most
    low, high = _find_percentiles(scores, level)
    if METRICS[metric].is_mean:
        return low, high
    bias = float(scores.mean() - np.mean([_score(metric, y_true, run, rounds) for run in y_preds]))
    return min(max(low - bias, least), most), min(max(high - bias, least), most)


def score_rounds(metric: str, y_true: ArrayLike, y_pred: ArrayLike, rounds: ArrayLike) -> list[float]:
    """Score each round by itself.

    Args:
        metric: name in `METRICS`.
        y_true, y_pred: (clips, ...), as the metric takes them.
        rounds: (clips,) the round in which a clip was tested.

    Returns:
        One score a round, in the order of the rounds' numbers.

    Example:
        >>> score_rounds("accuracy", [0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1])
        [1.0, 0.5]
    """
    true, predicted, round_of = map(np.asarray, (y_true, y_pred, rounds))
    function = METRICS[metric].function
    return [float(function(true[round_of == one], predicted[round_of == one])) for one in np.unique(round_of)]


def _score(metric: str, y_true: ArrayLike, y_pred: ArrayLike, rounds: ArrayLike) -> float:
    """Mean over rounds of each round's score."""
    return float(np.mean(score_rounds(metric, y_true, y_pred, rounds)))


def _find_percentiles(scores: NDArray[np.float64], level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def _resample(
    statistic: Statistic,
    group_of: NDArray[Any],
    round_of: NDArray[Any],
    n_resamples: int,
    seed: int,
    n_values: int | None = None,
) -> NDArray[np.float64] | None:
    """Mean over rounds of a statistic in each bootstrap sample, (resamples,), or (resamples, n_values) of several at once.

    None if no round has two groups.
    """
    of_rounds = [np.flatnonzero(round_of == current) for current in np.unique(round_of)]
    # Of pairs there are two groups, (rows, 2), which are drawn from one set.
    indices = [np.unique(group_of[rows], return_inverse=True)[1].reshape(group_of[rows].shape) for rows in of_rounds]
    sizes = tuple(int(index.max()) + 1 for index in indices)
    if max(sizes) < 2:
        return None
    at_once = max(1, _COUNTS_AT_ONCE // max(map(len, of_rounds)))
    # Rows of one table are tested on the same clips: drawing again would take longer than all else.
    is_small = sum(sizes) * n_resamples <= _COUNTS_AT_ONCE
    total = np.zeros(n_resamples if n_values is None else (n_resamples, n_values))
    for number, start, counts in (_keep_draws if is_small else _make_draws)(sizes, n_resamples, at_once, seed):
        total[start : start + len(counts)] += statistic(of_rounds[number], indices[number], counts)
    return total / len(of_rounds)


def _make_draws(sizes: Sequence[int], n_resamples: int, at_once: int, seed: int) -> Iterator[Draw]:
    """Count how often each group of each round is in each bootstrap sample."""
    generator = np.random.default_rng(seed)
    for number, n_groups in enumerate(sizes):
        for start in range(0, n_resamples, at_once):
            n_now = min(at_once, n_resamples - start)
            yield number, start, generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_now)


@lru_cache(maxsize=4)
def _keep_draws(sizes: tuple[int, ...], n_resamples: int, at_once: int, seed: int) -> list[Draw]:
    """`_make_draws`, kept: 8 MB or less."""
    drawn = _make_draws(sizes, n_resamples, at_once, seed)
    # No group can be drawn more often than there are groups, and the smallest type that can say so is the fastest.
    kept = np.min_scalar_type(max(sizes))
    return [(number, start, counts.astype(kept)) for number, start, counts in drawn]
