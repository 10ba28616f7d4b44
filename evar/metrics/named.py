"""Metrics by name: kind of task, bounds, chance level, and the score of bootstrap samples of each metric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evar.metrics.classes import (
    accuracy,
    balanced_accuracy,
    chroma_accuracy,
    credit_keys,
    macro_f1,
    sensitivity_specificity,
    weighted_key_score,
)
from evar.metrics.events import (
    COLLARS,
    compute_f1,
    event_onset_f1,
    event_onset_f1_50ms,
    segment_error_rate,
    stack_counts,
)
from evar.metrics.labels import (
    auc,
    average_precisions,
    d_prime,
    eer,
    equal_error_accuracy,
    equal_error_rates,
    mean_average_precision,
    roc_areas,
)
from evar.metrics.resampling import (
    Resampled,
    resample_hits,
    resample_labels,
    resample_moments,
    resample_parts,
    sum_samples,
)
from evar.metrics.retrieval import (
    compute_ratio,
    guess_hits,
    guess_precision,
    median_rank,
    stack_hits,
    stack_precisions,
)
from evar.metrics.values import correlate_moments, explain_moments, mean_absolute_error, pearson, r2

#: kinds of labels: one class, any number of classes, a number, events (a class with its begin and end), or captions (one or
#: more sentences)
KINDS = ("multiclass", "multilabel", "regression", "events", "captions")
#: kinds of metrics that compare the test clips of tasks of one class a clip with each other (`evar.metrics.comparing`):
#: each clip as a query, clusters of clips, pairs of clips
COMPARING_KINDS = ("queries", "clusters", "pairs")

#: (y_true of the test clips of a round, number of classes) -> expected score of guessing
Chance = Callable[[NDArray[Any], int], float]


@dataclass(frozen=True)
class Metric:
    """A metric, with everything that tables, probes and tests must know about it.

    A metric of your own is an object of this class in your own file; `evar.metrics.own` lists its promises.

    Args:
        function: (y_true, y_pred) -> score. For multiclass both are (clips,) class numbers; for multilabel y_true is
            (clips, labels) of 0 and 1 and y_pred scores of the same shape; for regression both are (clips,) numbers; for
            events both are (clips, 3) counts, see `evar.metrics.events.count_clip`; for captions ranks, see
            `evar.metrics.retrieval`.
        kind: of the tasks that the metric scores, one of `KINDS`; or one of `COMPARING_KINDS`, which no task is ranked by
            unless a protocol says so.
        resampled: computes the score of many bootstrap samples at once; None for metrics that no task is ranked by.
        bounds: lowest and highest score. The metric of a task is at most 1, and 1 is perfect, so that tables can show
            percent and average over tasks. Errors that have a unit are only shown beside it.
        higher_is_better: False for errors and distances.
        n_resamples: bootstrap samples of an interval; fewer where one sample takes long.
        is_mean: whether the score is a mean over clips. The bootstrap of any other score has a bias, which intervals
            take away.
        chance: expected score of guessing: a number, or a function of the labels of a round's test clips and the number
            of classes; None if it is not known.
        display_name: what tables and plots call it; "" for the name that it is listed under.
        is_default: whether new tasks of its kind get it.
        is_special: whether it means something only for some tasks, so that rows of others do not show it beside their own.
        source_sha256: 16 hexadecimal digits that tell the source of an own metric; "" for the metrics of this package.

    Example:
        >>> METRICS["accuracy"].bounds, METRICS["segment_error_rate"].orient(0.25)
        ((0.0, 1.0), -0.25)
    """

    function: Callable[[ArrayLike, ArrayLike], float]
    kind: str = "multiclass"
    resampled: Resampled | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    n_resamples: int = 2000
    is_mean: bool = False
    chance: float | Chance | None = None
    display_name: str = ""
    is_default: bool = False
    is_special: bool = False
    source_sha256: str = ""

    def orient(self, score: Any) -> Any:
        """Return a score, or an array of scores, so that larger is better.

        Args:
            score: in the metric's own unit.

        Returns:
            The score, with its sign changed where a lower score is better.

        Example:
            >>> METRICS["mean_absolute_error"].orient(2.0), METRICS["auc"].orient(0.75)
            (-2.0, 0.75)
        """
        return score if self.higher_is_better else -score

    @property
    def task_kind(self) -> str:
        """The kind of the tasks that are scored.

        Example:
            >>> METRICS["nmi"].kind, METRICS["nmi"].task_kind
            ('clusters', 'multiclass')
        """
        return "multiclass" if self.kind in COMPARING_KINDS else self.kind

    @property
    def worst(self) -> float:
        """A score that every other score beats: minus infinity, or infinity where lower is better.

        Example:
            >>> METRICS["accuracy"].worst, METRICS["mean_absolute_error"].worst
            (-inf, inf)
        """
        return -np.inf if self.higher_is_better else np.inf


def _compare_chroma(true: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.bool_]:
    return ((true - predicted) % 12 == 0) & (predicted >= 0)


def _guess_class(y_true: NDArray[Any], n_classes: int) -> float:
    return 1 / n_classes


def _guess_chroma(y_true: NDArray[Any], n_classes: int) -> float:
    """One of the pitch classes that the test notes have: 1/12 where all twelve occur, however many octaves there are."""
    return 1 / len(np.unique(np.asarray(y_true) % 12))


def _guess_labels(y_true: NDArray[Any], n_classes: int) -> float:
    """Mean frequency of the labels; a label without clips is not scored."""
    shares = y_true.mean(axis=0)
    return float(shares[shares > 0].mean())


def _retrieval(direction: str) -> dict[str, Metric]:
    """The metrics of one direction of retrieval: R@1, R@5, R@10, mAP@10 and the median rank."""
    short, is_text = direction.replace("_", "-"), direction == "text_to_audio"

    def make_average(stack: Callable[..., NDArray[np.float64]], chance: Chance | None, shown: str) -> Metric:
        return Metric(
            lambda true, ranks: float(compute_ratio(stack(true, ranks).sum(axis=0, keepdims=True))[0]),
            "captions",
            lambda true, ranks, index, counts: compute_ratio(sum_samples(stack(true, ranks), index, counts)),
            chance=chance,
            display_name=f"{short} {shown}",
        )

    def hits(most: int) -> Metric:
        stack = partial(stack_hits, direction=direction, most=most)
        return make_average(stack, lambda true, _: guess_hits(true, direction, most), f"R@{most}")

    found = {f"{direction}_recall_at_{most}": hits(most) for most in (1, 5, 10)}
    precisions = make_average(
        partial(stack_precisions, direction=direction),
        (lambda true, _: guess_precision(true)) if is_text else None,
        "mAP@10",
    )
    found[f"{direction}_map_at_10"] = replace(precisions, is_default=is_text)
    found[f"{direction}_median_rank"] = Metric(
        lambda true, ranks: median_rank(true, ranks, direction),
        "captions",
        bounds=(1.0, np.inf),
        higher_is_better=False,
        display_name=f"{short} median rank",
    )
    for name, metric in found.items():
        metric.function.__name__ = name
    return found


#: metric name -> metric; the name is the function's name, or "module:name" of an own metric (`evar.metrics.own`)
METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        accuracy,
        resampled=resample_hits(lambda true, predicted: true == predicted),
        is_mean=True,
        chance=_guess_class,
        is_default=True,
    ),
    "chroma_accuracy": Metric(
        chroma_accuracy, resampled=resample_hits(_compare_chroma), is_mean=True, chance=_guess_chroma
    ),
    "balanced_accuracy": Metric(
        balanced_accuracy, resampled=resample_parts(lambda true: true), n_resamples=1000, chance=_guess_class
    ),
    "macro_f1": Metric(macro_f1),
    "weighted_key_score": Metric(
        weighted_key_score,
        resampled=resample_hits(credit_keys),  # no is_mean: tests of means count clips that are right or wrong
        # A guess is right, a fifth above, relative or parallel equally often.
        chance=lambda y_true, n_classes: 2 / n_classes,
        is_special=True,
    ),
    "sensitivity_specificity": Metric(
        sensitivity_specificity,
        resampled=resample_parts(lambda true: np.minimum(true, 1)),
        chance=_guess_class,
        is_special=True,
    ),
    "mean_average_precision": Metric(
        mean_average_precision,
        "multilabel",
        resample_labels(average_precisions),
        n_resamples=1000,
        chance=_guess_labels,
        is_default=True,
    ),
    "auc": Metric(auc, "multilabel", resample_labels(roc_areas), n_resamples=1000, chance=0.5),
    "d_prime": Metric(d_prime, "multilabel", bounds=(-7.0, 7.0), chance=0.0),
    "equal_error_accuracy": Metric(
        equal_error_accuracy,
        "multilabel",
        resample_labels(lambda *args: 1 - equal_error_rates(*args)),
        n_resamples=1000,
        chance=0.5,
        display_name="1 - EER",
        is_special=True,
    ),
    "eer": Metric(eer, "multilabel", higher_is_better=False, chance=0.5, display_name="EER"),
    "pearson": Metric(
        pearson, "regression", resample_moments(correlate_moments), bounds=(-1.0, 1.0), chance=0.0, is_default=True
    ),
    # R2 has no least value; the end is finite, so that an interval that is not known can be written as JSON.
    "r2": Metric(r2, "regression", resample_moments(explain_moments), bounds=(-1e6, 1.0), chance=0.0),
    "event_onset_f1": Metric(
        event_onset_f1,
        "events",
        lambda true, found, index, counts: compute_f1(sum_samples(stack_counts(true, found), index, counts)),
        chance=0.0,
        is_default=True,
    ),
    "event_onset_f1_50ms": Metric(
        event_onset_f1_50ms,
        "events",
        lambda true, found, index, counts: compute_f1(sum_samples(stack_counts(true, found), index, counts)),
        chance=0.0,
        is_special=True,
    ),
    "segment_error_rate": Metric(
        segment_error_rate, "events", bounds=(0.0, np.inf), higher_is_better=False, chance=1.0
    ),
    **_retrieval("text_to_audio"),
    **_retrieval("audio_to_text"),
    "mean_absolute_error": Metric(mean_absolute_error, "regression", bounds=(0.0, np.inf), higher_is_better=False),
}


def estimate_chance(metric: str, y_true_of_rounds: Sequence[NDArray[Any]], n_classes: int) -> float | None:
    """Estimate the score that guessing would get, averaged over rounds.

    Args:
        metric: name in `METRICS`.
        y_true_of_rounds: labels of the test clips of each round, (clips,) or (clips, labels).
        n_classes: classes or labels of the task, at least 1; 0 for numbers.

    Returns:
        The score, in the metric's unit; None where chance is not known.

    Example:
        >>> notes = np.array([60, 62, 64, 72])  # four notes of three pitch classes
        >>> estimate_chance("accuracy", [notes], 88), estimate_chance("chroma_accuracy", [notes], 88)
        (0.011363636363636364, 0.3333333333333333)
    """
    chance = METRICS[metric].chance
    if not callable(chance):
        return chance
    found = [float(chance(y_true, n_classes)) for y_true in y_true_of_rounds]
    return found[0] if len(set(found)) == 1 else float(np.mean(found))


def find_default_metric(kind: str) -> str:
    """Return the name of the metric that new tasks of a kind get.

    Args:
        kind: one of `KINDS`.

    Raises:
        ValueError: if there is no such kind.

    Example:
        >>> find_default_metric("multilabel")
        'mean_average_precision'
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be {', '.join(KINDS)}, got {kind!r}")
    return next(name for name, metric in METRICS.items() if metric.kind == kind and metric.is_default)


def list_task_metrics(kind: str) -> list[str]:
    """Return the metrics of this package that a task of a kind can be ranked by.

    Args:
        kind: one of `KINDS`.

    Example:
        >>> list_task_metrics("multilabel")
        ['mean_average_precision', 'auc', 'equal_error_accuracy']
    """
    return [name for name, one in METRICS.items() if one.kind == kind and one.resampled and ":" not in name]


def list_extra_metrics(metric: str, n_classes: int, is_pitch: bool = False) -> list[str]:
    """Return the names of the metrics that a row shows beside the task's own.

    Args:
        metric: the task's own.
        n_classes: of the task.
        is_pitch: whether neighbouring classes are a semitone apart.

    Example:
        >>> list_extra_metrics("accuracy", 10), list_extra_metrics("pearson", 0)
        (['balanced_accuracy', 'macro_f1'], ['r2', 'mean_absolute_error'])
        >>> list_extra_metrics("chroma_accuracy", 88, is_pitch=True)
        ['accuracy', 'balanced_accuracy', 'macro_f1']
        >>> list_extra_metrics("equal_error_accuracy", 1)
        ['mean_average_precision', 'auc', 'd_prime', 'eer']
    """
    kind = METRICS[metric].kind
    return [
        name
        for name, other in METRICS.items()
        if other.kind == kind
        and name != metric
        and ":" not in name
        and not other.is_special
        and (name != "chroma_accuracy" or (is_pitch and n_classes > 12))
        and (name != "eer" or metric == "equal_error_accuracy")
        and (name != "event_onset_f1" or metric not in COLLARS)  # its counts have another collar
    ]


def get_display_name(metric: str) -> str:
    """Return the name of a metric in tables; a user's metric that cannot be imported here has the name after its colon.

    Args:
        metric: name, as a result holds it.

    Example:
        >>> get_display_name("accuracy"), get_display_name("lost/my_metric.py:TOP_HALF")
        ('accuracy', 'TOP_HALF')
    """
    known = METRICS.get(metric)
    return (known.display_name if known else "") or metric.rpartition(":")[2]
