"""Decide by the validation score: which of several is best, which of two epochs, and when to stop.

Every probe, the fusion search and fine-tuning decide here, so that the rules stand in one place: a score is compared in
the metric's own direction (`Metric.orient`), equal scores are settled by a smaller loss and then by the simpler setting,
and if nothing else decides, the candidate that is listed first wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from evar.metrics import METRICS

#: one number for each candidate
Values = Sequence[float] | NDArray[Any]
#: what an epoch must do to replace the best one so far: beat its score; beat or equal it; beat it, or equal it with a
#: smaller loss
Ties = Literal["first", "last", "loss"]


def rank_candidates(goodness: Values, *ties: Sequence[Any] | NDArray[Any]) -> list[int]:
    """Sort candidates from the best to the worst.

    Args:
        goodness: (candidates,) larger is better; scores come from `Metric.orient`.
        ties: further values of each candidate, of which the smaller wins; the first of them decides between candidates
            of equal goodness, the second where that is equal too, and so on.

    Returns:
        Positions of the candidates; those that are equal in everything stay in their order.

    Example:
        >>> rank_candidates([0.5, 0.9, 0.9], [3, 2, 1])
        [2, 1, 0]
    """
    keys = [(-value, *others) for value, *others in zip(goodness, *ties, strict=True)]
    return sorted(range(len(keys)), key=keys.__getitem__)


def choose_best(goodness: Values, *ties: Sequence[Any] | NDArray[Any]) -> int:
    """Return the position of the best candidate.

    Args:
        goodness: (candidates,) larger is better.
        ties: (candidates,) further values, of which the smaller wins if the goodness is equal.

    Raises:
        ValueError: if there is no candidate.

    Example:
        >>> choose_best([0.9, 0.9, 0.8], [0.3, 0.2, 0.1])
        1
    """
    keys = [(-value, *others) for value, *others in zip(goodness, *ties, strict=True)]
    return min(range(len(keys)), key=keys.__getitem__)


def choose_setting(metric: str, scores: Values, *ties: Sequence[Any] | NDArray[Any]) -> int:
    """Return the position of the setting with the best validation score.

    Args:
        metric: name in `evar.metrics.METRICS`, which says whether higher is better.
        scores: (settings,) in the metric's unit.
        ties: as for `rank_candidates`: usually the validation losses, then the settings from simple to complex.

    Example:
        >>> choose_setting("accuracy", [0.8, 0.8], [0.5, 0.4]), choose_setting("mean_absolute_error", [3.0, 2.0])
        (1, 1)
    """
    orient = METRICS[metric].orient
    return choose_best([orient(score) for score in scores], *ties)


def is_getting_worse(metric: str, scores: Values, losses: Values) -> bool:
    """Tell whether the last setting is worse than the best one before it, in its score and in its loss.

    Settings are tried from the most to the least regularised. From the first that is worse in both, the others only
    overfit more, and need not be tried.

    Args:
        metric: name in `evar.metrics.METRICS`.
        scores: (settings,) on the validation clips, in the order of trying.
        losses: (settings,) likewise.

    Example:
        >>> is_getting_worse("accuracy", [0.7, 0.8, 0.75], [0.6, 0.5, 0.55])
        True
        >>> is_getting_worse("accuracy", [0.7, 0.8, 0.75], [0.6, 0.5, 0.45])
        False
    """
    if len(scores) < 2:
        return False
    *before, last = [METRICS[metric].orient(score) for score in scores]
    return bool(last < max(before) and losses[-1] > min(losses[:-1]))


def count_always_tried(n_settings: int) -> int:
    """Count the settings that are always tried, independent of their scores: the more regularised half and two more.

    Args:
        n_settings: how many there are, at least 1.

    Example:
        >>> count_always_tried(8), count_always_tried(1)
        (6, 2)
    """
    return (n_settings + 4) // 2


def is_improvement(
    metric: str, score: float, loss: float, best_score: float, best_loss: float, ties: Ties = "first"
) -> bool:
    """Tell whether an epoch replaces the best one so far.

    Args:
        metric: name in `evar.metrics.METRICS`.
        score, loss: of the epoch, on the validation clips.
        best_score, best_loss: of the best epoch so far.
        ties: what happens at an equal score: the "first" epoch stays, the "last" one replaces it, or the one with the
            smaller "loss" wins.

    Example:
        >>> is_improvement("accuracy", 0.8, 0.5, 0.8, 0.6), is_improvement("accuracy", 0.8, 0.5, 0.8, 0.6, "loss")
        (False, True)
    """
    orient = METRICS[metric].orient
    if score == best_score:
        return ties == "last" or (ties == "loss" and loss < best_loss)
    return bool(orient(score) > orient(best_score))


@dataclass
class BestEpoch:
    """The best epoch of a training so far, and how many epochs have passed without a better one.

    Args:
        metric: name in `evar.metrics.METRICS`.
        ties: as for `is_improvement`.
        score, loss: of the best epoch, on the validation clips.
        epoch: its number, counted from 1; 0 before the first.
        n_without: validations since then that were no improvement.

    Example:
        >>> best = BestEpoch("accuracy")
        >>> [best.take(score, loss=1.0, epoch=1 + at) for at, score in enumerate([0.5, 0.7, 0.6])]
        [True, True, False]
        >>> best.epoch, best.n_without
        (2, 1)
    """

    metric: str
    ties: Ties = "first"
    score: float = -math.inf
    loss: float = math.inf
    epoch: int = 0
    n_without: int = 0

    def take(self, score: float, loss: float, epoch: int) -> bool:
        """Compare an epoch with the best one so far, and remember it if it is better.

        Args:
            score, loss: of the epoch, on the validation clips.
            epoch: its number, counted from 1.

        Returns:
            Whether it is the best one now; the first always is.

        Example:
            >>> best = BestEpoch("mean_absolute_error")
            >>> best.take(2.0, 1.0, 1), best.take(3.0, 1.0, 2), best.score
            (True, False, 2.0)
        """
        if self.epoch == 0 or is_improvement(self.metric, score, loss, self.score, self.loss, self.ties):
            self.score, self.loss, self.epoch, self.n_without = score, loss, epoch, 0
            return True
        self.n_without += 1
        return False
