"""Better, worse, a tie, or unknown: the paired difference between the choice and another candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evar.report.tables.compared import LEVEL, Tested, subtract_scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: chance of seeing a difference that is there, which a power estimate aims at
POWER = 0.8
BETTER, WORSE, TIE, OPEN, UNTESTED = "better", "worse", "tie", "cannot tell", "not tested"
#: most clips that a power estimate names; beyond this the two are as good as equal
MOST = 10_000_000


@dataclass(frozen=True)
class Verdict:
    """A candidate against the choice.

    Attributes:
        word: "better" or "worse" (than the choice, significantly), "tie" (the difference is surely smaller than the margin),
            "cannot tell", or "not tested" (not on the same clips, or there are no predictions).
        difference: candidate minus choice, as a fraction; None where it is not tested.
        low, high: 95 % interval of the difference.
        p: corrected, for no difference.
        p_tie: corrected, for a difference as large as the margin; small where it is a tie.
        test: that gave p.
        power: chance of a significant result with the clips (or tasks) at hand if the true difference is the observed one.
        n_more: test clips (or tasks) that would be needed beyond those at hand to see the observed difference with a chance
            of 80 %; None where it is seen already, where there is no difference to see, or where it is not tested.
    """

    word: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_tie: float | None = None
    test: str = ""
    power: float | None = None
    n_more: int | None = None


@dataclass(frozen=True)
class Observed:
    """A difference before it is corrected for the number of comparisons.

    Attributes:
        value, low, high, p, test: as of `PairedDifference`, candidate minus choice.
        error: standard error of the value.
        n, n_groups: test clips (or tasks), and the groups that they come from.
        least_error: error that a test for a tie goes by, where it is larger.
        freedom: degrees of freedom of the error; infinite where many groups gave it.
    """

    value: float
    low: float
    high: float
    p: float
    test: str
    error: float
    n: int
    n_groups: int
    least_error: float = 0.0
    freedom: float = math.inf


def observe_clips(candidate: Tested | None, choice: Tested | None) -> Observed | None:
    """Take the difference of two features on the same test clips.

    The error is half the bootstrap interval over 1.96. A test for a tie takes at least that of one disagreeing group among
    n + 2: features that agree on ten clips are not known to agree.

    Returns:
        None where they were not tested on the same clips.

    Source: one disagreement among n + 2, after Agresti & Min, "Simple improved confidence intervals for comparing matched
        proportions", Statistics in Medicine 24 (2005).
    """
    found = subtract_scores(candidate, choice)
    if found is None or candidate is None:
        return None
    from evar.metrics import METRICS

    least, most = METRICS[candidate.metric].bounds
    n_groups = len(set(zip(candidate.round.tolist(), candidate.group.tolist(), strict=True)))
    error, floor = (found.high - found.low) / (2 * 1.959964), (most - least) / (n_groups + 2)
    numbers = found.value, found.low, found.high, found.p, found.test
    return Observed(*numbers, error or floor, len(candidate.clip), n_groups, floor)


def observe_tasks(candidate: ArrayLike, choice: ArrayLike) -> Observed | None:
    """Take the mean difference of two features over tasks; each task counts once.

    Args:
        candidate, choice: (tasks,) scores 0..1.

    Returns:
        The difference, with an interval by Student's t, and p by flipping signs of tasks; None for a single task.

    Example:
        >>> observe_tasks([0.9, 0.8, 0.7, 0.9, 0.8, 0.6], [0.8, 0.6, 0.6, 0.8, 0.6, 0.5]).p
        0.03125
    """
    import numpy as np
    from scipy.stats import t

    from evar.metrics import paired_permutation

    one, other = np.asarray(candidate, dtype=np.float64), np.asarray(choice, dtype=np.float64)
    n = len(one)
    if n < 2:
        return None
    value = float(np.mean(one - other))
    p = paired_permutation(one, other, np.arange(n), np.zeros(n, dtype=int))
    error = max(float(np.std(one - other, ddof=1)) / math.sqrt(n), 1e-9)
    half = float(t.ppf(0.975, n - 1)) * error
    return Observed(value, value - half, value + half, p, "sign flips over tasks", error, n, n, 0.0, n - 1.0)


def judge(found: Sequence[Observed | None], tie: float, *, n_pairs: int | None = None) -> list[Verdict]:
    """Judge all candidates against the choice, corrected for the number of comparisons (Holm).

    Args:
        found: differences, candidate minus choice; None where there is none.
        tie: margin of a tie, a fraction.
        n_pairs: number of pairs of candidates where the choice was made by the same test scores: then each pair counts as
            one comparison. None where validation clips made the choice.

    Returns:
        One verdict each.

    Example:
        >>> judge([Observed(-0.3, -0.4, -0.2, 1e-6, "McNemar", 0.05, 100, 100)], 0.02)[0].word
        'worse'
    """
    from evar.metrics import holm
    from evar.metrics.significance import correct_for_the_best

    known = [one for one in found if one is not None]
    if not known:
        return [Verdict(UNTESTED)] * len(found)
    p_values = [one.p for one in known]
    corrected = holm(p_values) if n_pairs is None else correct_for_the_best(p_values, n_pairs)
    ties = holm([_test_tie(one, tie) for one in known])
    level = LEVEL / (n_pairs or len(known))
    made = iter(
        [_make_verdict(one, float(p), float(q), level) for one, p, q in zip(known, corrected, ties, strict=True)]
    )
    return [Verdict(UNTESTED) if one is None else next(made) for one in found]


def _test_tie(found: Observed, tie: float) -> float:
    """Compute the p-value of two one-sided tests that the difference is as large as the margin (a test for a tie).

    Source: Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", J. Pharmacokinetics and
        Biopharmaceutics 15 (1987).
    """
    beyond = (tie - abs(found.value)) / max(found.error, found.least_error)
    return _tail(beyond, found.freedom)


def _tail(z: float, freedom: float) -> float:
    """Compute the chance of a larger value under a normal or Student's t distribution."""
    if math.isinf(freedom):
        return 0.5 * math.erfc(z / math.sqrt(2))
    from scipy.stats import t

    return float(t.sf(z, freedom))


def _make_verdict(found: Observed, p: float, p_tie: float, level: float) -> Verdict:
    from statistics import NormalDist

    word = OPEN
    if p <= LEVEL:
        word = BETTER if found.value > 0 else WORSE
    elif p_tie <= LEVEL:
        word = TIE
    shift, critical = abs(found.value) / found.error, NormalDist().inv_cdf(1 - level / 2)
    power = NormalDist().cdf(shift - critical)
    n_more: int | None = None
    if word == OPEN and abs(found.value) > 1e-12:
        needed = found.n * ((critical + NormalDist().inv_cdf(POWER)) / shift) ** 2 if shift > 0 else math.inf
        # Sign flips of n groups give no p below 2 / 2^n: some groups are needed for any result.
        needed = max(needed, found.n * math.ceil(1 + math.log2(1 / level)) / found.n_groups)
        n_more = max(1, math.ceil(needed) - found.n) if needed < MOST else None
    numbers: dict[str, Any] = {"difference": found.value, "low": found.low, "high": found.high, "p": p, "p_tie": p_tie}
    return Verdict(word, **numbers, test=found.test, power=power, n_more=n_more)
