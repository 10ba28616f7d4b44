"""One round of a row: predictions for its test clips, also for those that could not be read, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.metrics import METRICS, calibration_error, list_extra_metrics
from evar.metrics.events import count_clip, find_collar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Round, Task

#: predicted class of a test clip that could not be read: never right
UNREADABLE = -1
#: digits kept of what is computed from probabilities: thread count and batch size change it by about 1e-7, and two rows of
#: the same thing are to be equal byte for byte
DIGITS = 4
#: likewise of each clip's probability, which people read and sort by
CONFIDENCE_DIGITS = 3


@dataclass(frozen=True, eq=False)
class TestedPoint:
    """The draws of one number of labelled clips in one round.

    Attributes:
        n: clips per class that a draw aims at; None for all clips.
        n_clips: mean number of clips of a draw.
        n_classes: classes among all clips.
        n_short: classes that have fewer than n clips.
        n_free: draws that were too small to choose a strength.
        strengths: of each draw.
        y_pred: (draws, tested clips) predicted class numbers.
    """

    n: int | None
    n_clips: float
    n_classes: int
    n_short: int
    n_free: int
    strengths: tuple[float, ...]
    y_pred: NDArray[np.int64]


@dataclass(frozen=True)
class Items:
    """What was scored in a round where it is not the label of each test clip: queries, clusters, or pairs of clips.

    Attributes:
        names: (items,) texts: the path of a clip, or of two.
        groups: (items,) texts, by which intervals draw.
        y_true: (items, ...) what is true, as the metric takes it.
        facts: what else the row says of them.
    """

    names: NDArray[np.str_]
    groups: NDArray[np.str_]
    y_true: NDArray[Any]
    facts: Mapping[str, Any]


@dataclass
class FittedRound:
    """One round of one row: the predictions for its test clips.

    Attributes:
        a_round: which clips were which.
        tested: (clips,) rows of the task that count.
        y_pred: (clips,) predicted class numbers, UNREADABLE for bad clips; (clips, labels) float32 scores, -inf for bad
            clips; or (clips,) float64 values, the training clips' mean for bad ones.
        score: metric over them, at most 1.
        n_train, n_valid: clips fitted on.
        probe: the fitted estimator.
        norm_stats: (mean, std) that the encoder's input was normalised by in this round, None if it has none.
        extras: further metrics of the round, by name.
        confidence: (clips,) probability of the predicted class, 0..1, NaN for bad clips; None if the probe has none.
        template_scores: of zero-shot probes, what each template's prompts alone would score.
        fitted_on: positions of the training clips, and of the validation clips, that could be used; empty for fine-tuning.
        valid_shares: (validation clips, labels) probabilities from a probe that has not seen these clips, where thresholds
            are to be chosen; else None.
        curve: of label-efficiency curves, the draws of each number of labelled clips; else empty.
        items: what was scored in place of the labels of the tested clips; None for all probes that predict labels.
    """

    a_round: Round
    tested: NDArray[np.int64]
    y_pred: NDArray[Any]
    score: float
    n_train: int
    n_valid: int
    probe: Any
    norm_stats: tuple[float, float] | None = None
    extras: dict[str, float] = field(default_factory=dict)
    confidence: NDArray[np.float32] | None = None
    template_scores: tuple[float, ...] = ()
    fitted_on: tuple[NDArray[np.int64], ...] = ()
    valid_shares: NDArray[np.float64] | None = None
    curve: Sequence[TestedPoint] = ()
    items: Items | None = None

    def find_names(self, task: Task) -> NDArray[Any]:
        """Return (items,) paths of the tested clips, or names of what was scored."""
        return task.index["path"].to_numpy(str)[self.tested] if self.items is None else self.items.names

    def find_groups(self, task: Task) -> NDArray[Any]:
        """Return (items,) groups, by which intervals draw."""
        return task.groups[self.tested] if self.items is None else self.items.groups

    def find_truth(self, task: Task) -> NDArray[Any]:
        """Return (items, ...) what is true, as the metric takes it."""
        return task.truth[self.tested] if self.items is None else self.items.y_true


def list_usable(
    a_round: Round, usable: NDArray[np.bool_], task: str, *, needs_valid: bool, needs_train: bool = True
) -> list[NDArray[np.int64]]:
    """Return the training, validation and test clips of a round that can be used.

    Args:
        a_round: row numbers of the task.
        usable: (clips,) False for clips that could not be read.
        task: name, for the error.
        needs_valid: whether a round without validation clips is an error, too.
        needs_train: whether a round without training clips is one.

    Raises:
        ValueError: if no usable clip is left in a set that is needed.
    """
    train, valid, test = (rows[usable[rows]] for rows in (a_round.train, a_round.valid, a_round.test))
    if (needs_train and not len(train)) or not len(test) or (needs_valid and not len(valid)):
        sets = (
            "training, validation or test set" if needs_valid else "training or test set" if needs_train else "test set"
        )
        raise ValueError(f"{task} {a_round.name}: no usable clip is left in the {sets}")
    return [train, valid, test]


def place_predictions(
    task: Task, readable: NDArray[np.int64], predicted: Sequence[Any] | NDArray[Any], centre: float = 0.0
) -> NDArray[Any]:
    """Fill in predictions for clips that could not be read, so that every clip has one; these are never right.

    Args:
        task: its kind decides the form of a prediction.
        readable: (readable,) rows of the task.
        predicted: of them: class numbers, (readable, labels) scores, numbers, or (events, 3) arrays of class, onset and
            offset in seconds; of captions ranks, see `evar.metrics.retrieval`.
        centre: for tasks of numbers, the mean of the training clips, which stands for clips that could not be read.

    Returns:
        (clips,) or (clips, labels) as `FittedRound.y_pred`; for events (clips, 3) counts.
    """
    if task.config.kind == "events":
        counts = np.array([count_clip(events, np.empty((0, 3)))[1] for events in task.y], np.float64)
        for position, found in zip(readable, predicted, strict=True):
            counts[position] = count_clip(task.y[position], found, find_collar(task.config.metric))[1]
        return counts
    every: NDArray[Any]
    if task.config.kind == "captions":
        every = np.full(task.truth.shape, np.inf)
        every[readable] = predicted
        return every
    if task.config.kind == "multilabel":
        every = np.full(task.y.shape, -np.inf, np.float32)
    elif task.config.kind == "regression":
        every = np.full(len(task), centre)
    else:
        every = np.full(len(task), UNREADABLE, np.int64)
    every[readable] = predicted
    return every


def score_round(
    task: Task,
    a_round: Round,
    readable: NDArray[np.int64],
    y_pred: NDArray[Any],
    shares: NDArray[Any] | None,
    *,
    skip_bad: bool,
) -> dict[str, Any]:
    """Score the predictions of a round.

    Args:
        task: which labels are true.
        a_round: whose test clips count.
        readable: (readable,) test clips that could be read.
        y_pred: of every clip of the task, as `place_predictions` returns them.
        shares: (readable, classes) probabilities, or None.
        skip_bad: leave out clips that could not be read instead of counting them as wrong.

    Returns:
        `tested`, `y_pred`, `score`, `extras` and `confidence` of a `FittedRound`.
    """
    tested = readable if skip_bad else a_round.test
    score = float(METRICS[task.config.metric].function(task.truth[tested], y_pred[tested]))
    extras = score_extras(task, tested, y_pred[tested], shares if len(readable) == len(tested) else None)
    confidence = None if shares is None else _find_confidence(tested, readable, y_pred, shares)
    return {"tested": tested, "y_pred": y_pred[tested], "score": score, "extras": extras, "confidence": confidence}


def _find_confidence(
    tested: NDArray[np.int64], readable: NDArray[np.int64], y_pred: NDArray[Any], shares: NDArray[Any]
) -> NDArray[np.float32]:
    """Return the probability of the predicted class of each tested clip, (tested,), with few digits; NaN for bad clips."""
    of_task = np.full(len(y_pred), np.nan, np.float32)
    of_task[readable] = shares[np.arange(len(readable)), y_pred[readable]]
    return np.round(of_task[tested], CONFIDENCE_DIGITS)


def score_compared(metric: str, y_true: NDArray[Any], y_pred: NDArray[Any]) -> tuple[float, dict[str, float]]:
    """Score queries, clusters or pairs of a round.

    Args:
        metric: of the row.
        y_true, y_pred: (items, ...), as the metric takes them.

    Returns:
        The score, and the other metrics of the same kind by name.

    Example:
        >>> score_compared("nmi", np.array([0, 0, 1]), np.array([1, 1, 0]))
        (1.0, {'adjusted_rand_index': 1.0, 'v_measure': 1.0})
    """
    others = list_extra_metrics(metric, 0)
    score = float(METRICS[metric].function(y_true, y_pred))
    return score, {name: float(METRICS[name].function(y_true, y_pred)) for name in others}


def score_extras(
    task: Task, tested: NDArray[np.int64], y_pred: NDArray[Any], shares: NDArray[Any] | None
) -> dict[str, float]:
    """Return metrics beside the task's own, by name.

    Args:
        task: which labels are true.
        tested: (clips,) rows of the task.
        y_pred: of them, as in `FittedRound`.
        shares: (clips, classes) probabilities, for the calibration error; None where some clip has none.
    """
    y = task.truth[tested]
    names = list_extra_metrics(task.config.metric, len(task.config.classes), task.config.pitch)
    found = {}
    for name in names:
        try:
            found[name] = float(METRICS[name].function(y, y_pred))
        except ValueError:  # a small test set may have no label that both occurs and does not
            continue
    if shares is not None:
        found["calibration_error"] = round(calibration_error(y, shares), DIGITS)
    return found
