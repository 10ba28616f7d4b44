"""Is the difference between two features more than chance? Tests on the same test clips, and their correction."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Signs in memory at once, as a count of numbers: 32 MB for any size of the test set.
_NUMBERS_AT_ONCE = 4_000_000


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
        p in 0..1; 1 if no group differs.

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
    at_once = max(1, _NUMBERS_AT_ONCE // len(shares))
    for start in range(0, n_permutations, at_once):
        signs = generator.choice([-1.0, 1.0], size=(min(at_once, n_permutations - start), len(shares)))
        as_extreme += int(np.sum(np.abs(signs @ shares) >= least))
    return (1 + as_extreme) / (1 + n_permutations)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Correct the p-values of several tests, so that the chance of any false alarm is at most the level.

    Args:
        p_values: (tests,) in 0..1.

    Returns:
        (tests,) corrected p-values in 0..1, in the same order.

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
