"""Scores and their uncertainty: pure functions on numpy arrays, found by name in `METRICS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Resampling counts held at once, in numbers: 32 MB, whatever the size of the test set.
_COUNTS_AT_ONCE = 4_000_000


def accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Share of clips whose predicted class is the true one.

    Args:
        y_true: (clips,) true classes, integers or names.
        y_pred: (clips,) predicted classes of the same type.

    Returns:
        A fraction in 0..1.

    Raises:
        ValueError: if there is no clip, or the two differ in shape.

    Source: equals scikit-learn's `accuracy_score` (tested).

    Example:
        >>> accuracy(["dog", "cat", "cat", "dog"], ["dog", "cat", "dog", "dog"])
        0.75
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.ndim != 1 or true.shape != predicted.shape or len(true) == 0:
        raise ValueError(
            f"accuracy needs y_true and y_pred of one shape (clips,) with at least 1 clip, got {true.shape} and "
            f"{predicted.shape}; are these scores instead of classes?"
        )
    return float(np.mean(true == predicted))


@dataclass(frozen=True)
class Metric:
    """A metric as tables and probes use it.

    Attributes:
        function: (y_true, y_pred) -> score.
        higher_is_better: False for errors and distances.
    """

    function: Callable[[ArrayLike, ArrayLike], float]
    higher_is_better: bool = True


#: metric name -> metric; the name is the function's name
METRICS: dict[str, Metric] = {"accuracy": Metric(accuracy)}


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
        (low, high) in 0..1; (0.0, 1.0) where no round has two groups, as nothing can then be said.

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
    generator = np.random.default_rng(seed)
    n_rounds, is_estimable = 0, False
    statistics = np.zeros(n_resamples)
    for current in np.unique(round_of):
        in_round = round_of == current
        members, index = np.unique(group_of[in_round], return_inverse=True)
        sizes = np.bincount(index).astype(np.float64)  # (groups,)
        sums = np.bincount(index, weights=values[in_round]).astype(np.float64)  # (groups,)
        statistics += _resampled_means(sums, sizes, n_resamples, generator)
        n_rounds += 1
        is_estimable |= len(members) > 1
    if not is_estimable:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low, high = np.quantile(statistics / n_rounds, [tail, 1 - tail])
    return float(low), float(high)


def paired_permutation(
    correct: ArrayLike,
    other: ArrayLike,
    groups: ArrayLike,
    rounds: ArrayLike,
    *,
    n_permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value of the difference between two features tested on the same clips.

    If the two were equally good, each recording could as well have favoured the other: the sign of each group's
    contribution to the difference of the mean over rounds is flipped at random, clips of a group together.

    Args:
        correct, other: (clips,) correctness of each test clip under the two, 0..1.
        groups, rounds: as for `bootstrap_interval`.
        n_permutations: random flips; where few groups differ, all flips are gone through instead.
        seed: of the flips.

    Returns:
        p in 0..1; 1 where no group differs.

    Raises:
        ValueError: if the shapes differ or there is no clip.

    Source: paired randomisation test, Edgington & Onghena, "Randomization Tests" (2007), ch. 6.

    Example:
        >>> paired_permutation([1] * 8, [0] * 8, range(8), [0] * 8)  # 2 of 2^8 flips are as extreme
        0.0078125
    """
    first, second = np.asarray(correct, dtype=np.float64), np.asarray(other, dtype=np.float64)
    group_of, round_of = np.asarray(groups), np.asarray(rounds)
    if first.ndim != 1 or not len(first) or not first.shape == second.shape == group_of.shape == round_of.shape:
        raise ValueError(
            "correct, other, groups and rounds must be of one shape (clips,) with at least 1 clip, got "
            f"{first.shape}, {second.shape}, {group_of.shape} and {round_of.shape}"
        )
    parts = []
    for current in np.unique(round_of):
        in_round = round_of == current
        _, index = np.unique(group_of[in_round], return_inverse=True)
        parts.append(np.bincount(index, weights=(first - second)[in_round]) / in_round.sum())
    shares = np.concatenate(parts)
    shares = shares[np.abs(shares) > 1e-12]
    if not len(shares):
        return 1.0
    least = abs(shares.sum()) - 1e-12
    if len(shares) <= 13:
        signs = 1 - 2 * ((np.arange(2 ** len(shares))[:, None] >> np.arange(len(shares))) & 1)
        return float(np.mean(np.abs(signs @ shares) >= least))
    generator, as_extreme = np.random.default_rng(seed), 0
    at_once = max(1, _COUNTS_AT_ONCE // len(shares))
    for start in range(0, n_permutations, at_once):
        signs = generator.choice([-1.0, 1.0], size=(min(at_once, n_permutations - start), len(shares)))
        as_extreme += int(np.sum(np.abs(signs @ shares) >= least))
    return (1 + as_extreme) / (1 + n_permutations)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values of several tests, corrected so that the chance of any false alarm is at most the level.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * (len(given) - np.arange(len(given))))
    corrected = np.empty(len(given))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], n_resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Mean correctness of one round in each bootstrap sample: (groups,) sums and sizes -> (resamples,)."""
    n_groups = len(sums)
    at_once = max(1, _COUNTS_AT_ONCE // n_groups)
    means = []
    for start in range(0, n_resamples, at_once):
        n_now = min(at_once, n_resamples - start)
        counts = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_now)  # (resamples, groups)
        # Groups differ in size, so the number of clips drawn varies too: a ratio, not a fixed denominator.
        means.append((counts @ sums) / (counts @ sizes))
    return np.concatenate(means)
