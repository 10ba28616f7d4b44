"""What a change of the test clips costs: score, loss, interval and paired test of the same probes on both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evar.metrics.intervals import score_interval, score_rounds
from evar.metrics.named import METRICS
from evar.metrics.significance import compare_pairs


@dataclass(frozen=True)
class Loss:
    """The comparison of altered clips with clean ones, in fractions.

    Attributes:
        score, interval: of the altered clips, mean over runs, and (low, high).
        loss, loss_interval: clean minus altered, or altered minus clean of errors; above 0 the alteration did harm.
        p, test: two-sided, for no loss.
    """

    score: float
    interval: tuple[float, float]
    loss: float
    loss_interval: tuple[float, float]
    p: float
    test: str


def measure_loss(
    metric: str,
    y_true: ArrayLike,
    clean: Sequence[ArrayLike],
    altered: Sequence[ArrayLike],
    groups: ArrayLike,
    rounds: ArrayLike,
) -> Loss:
    """Compare predictions for altered clips with those for the same clips unaltered.

    Args:
        metric: name in `METRICS`.
        y_true: (clips,) or (clips, labels) true values.
        clean, altered: predictions of each run, shaped as the metric takes them; scores are means over runs.
        groups, rounds: (clips,) group and round of each clip; whole groups are drawn within each round.

    Returns:
        The loss, with the interval and test of `compare_pairs`.

    Raises:
        ValueError: if shapes differ, or there is no run.

    Example:
        >>> found = measure_loss("accuracy", [0] * 40, [[0] * 40], [[0] * 30 + [1] * 10], range(40), [0] * 40)
        >>> found.score, found.loss, found.loss_interval[0] > 0
        (0.75, 0.25, True)
    """
    true, round_of = np.asarray(y_true), np.asarray(rounds)
    difference = compare_pairs(metric, true, clean, altered, groups, round_of)
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    low, high = score_interval(metric, true, altered, groups, round_of)
    ends = sorted((sign * difference.low, sign * difference.high))
    score = float(np.mean([score_rounds(metric, true, np.asarray(run), round_of) for run in altered]))
    loss = sign * difference.value + 0.0  # no minus zero
    return Loss(score, (float(low), float(high)), loss, (ends[0], ends[1]), difference.p, difference.test)
