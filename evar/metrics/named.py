"""Metrics by name: what each says of a task, and how it is computed for bootstrap samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evar.metrics.classes import accuracy, balanced_accuracy, chroma_accuracy, macro_f1
from evar.metrics.events import event_onset_f1, f1_of, segment_error_rate, sums_of_clips
from evar.metrics.labels import areas, auc, average_precisions, d_prime, mean_average_precision
from evar.metrics.values import mean_absolute_error, moments, pearson, pearson_of, r2

#: what a clip's label is: one class, any number of classes, a number, or events (a class, when it begins and ends)
KINDS = ("multiclass", "multilabel", "regression", "events")

#: (y_true, y_pred, group of each clip as a number, (resamples, groups) counts) -> (resamples,)
Resampled = Callable[[NDArray[Any], NDArray[Any], NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Metric:
    """A metric as tables and probes use it.

    Attributes:
        function: (y_true, y_pred) -> score. y_pred is class numbers for multiclass, (clips, labels) scores for
            multilabel, values for regression; for events both are counts, see `evar.metrics.events.counted`.
        kind: of the tasks that it judges.
        resampled: the score of bootstrap samples; None for metrics that no task is ranked by.
        bounds: lowest and highest score. A task's own metric is at most 1, and 1 is perfect, so that tables can show
            percent and average over tasks; errors that have a unit are shown beside it.
        higher_is_better: False for errors and distances.
        n_resamples: bootstrap samples of an interval; fewer where one is costly.
        is_mean: is it a mean over clips? The bootstrap of any other score is off by a bias, which intervals take away.
    """

    function: Callable[[ArrayLike, ArrayLike], float]
    kind: str = "multiclass"
    resampled: Resampled | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    n_resamples: int = 2000
    is_mean: bool = False


def resampled_mean(values: NDArray[np.float64], index: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Mean of the clips' values, (clips, 1), in each sample: (resamples,)."""
    # Groups differ in size, so the number of clips drawn varies too: a ratio, not a fixed denominator.
    sums = _sums(np.concatenate([np.ones_like(values), values], axis=1), index, counts)
    return sums[:, 1] / sums[:, 0]


def _sums(values: NDArray[np.float64], index: NDArray[np.int64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """(clips, n) values summed over each sample's clips: (resamples, n)."""
    n_groups = counts.shape[1]
    of_groups = np.stack([np.bincount(index, weights=column, minlength=n_groups) for column in values.T], axis=1)
    return np.asarray(counts @ of_groups, np.float64)


def _of_hits(is_right: Callable[[Any, Any], NDArray[np.bool_]]) -> Resampled:
    return lambda true, predicted, index, counts: resampled_mean(
        is_right(true, predicted).astype(np.float64)[:, None], index, counts
    )


def _of_moments(of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Resampled:
    return lambda true, predicted, index, counts: of(_sums(moments(true, predicted), index, counts))


def _of_labels(of: Callable[..., NDArray[np.float64]]) -> Resampled:
    def resampled(
        true: NDArray[Any], score: NDArray[Any], index: NDArray[np.int64], counts: NDArray[Any]
    ) -> NDArray[np.float64]:
        values = of(true.astype(bool), score, counts[:, index].astype(np.float64))  # (resamples, labels)
        is_there = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            return np.where(is_there, values, 0.0).sum(axis=1) / is_there.sum(axis=1)

    return resampled


def _same_chroma(true: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.bool_]:
    return ((true - predicted) % 12 == 0) & (predicted >= 0)


#: metric name -> metric; the name is the function's name
METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, resampled=_of_hits(lambda true, predicted: true == predicted), is_mean=True),
    "chroma_accuracy": Metric(chroma_accuracy, resampled=_of_hits(_same_chroma), is_mean=True),
    "balanced_accuracy": Metric(balanced_accuracy),
    "macro_f1": Metric(macro_f1),
    "mean_average_precision": Metric(
        mean_average_precision, "multilabel", _of_labels(average_precisions), n_resamples=1000
    ),
    "auc": Metric(auc, "multilabel", _of_labels(areas), n_resamples=1000),
    "d_prime": Metric(d_prime, "multilabel", bounds=(-7.0, 7.0)),
    "pearson": Metric(pearson, "regression", _of_moments(pearson_of), bounds=(-1.0, 1.0)),
    "r2": Metric(r2, "regression", bounds=(-np.inf, 1.0)),
    "event_onset_f1": Metric(
        event_onset_f1,
        "events",
        lambda true, found, index, counts: f1_of(_sums(sums_of_clips(true, found), index, counts)),
    ),
    "segment_error_rate": Metric(segment_error_rate, "events", bounds=(0.0, np.inf), higher_is_better=False),
    "mean_absolute_error": Metric(mean_absolute_error, "regression", bounds=(0.0, np.inf), higher_is_better=False),
}


def extra_metrics(metric: str, n_classes: int, is_pitch: bool = False) -> list[str]:
    """Names of the metrics that a row shows beside the task's own.

    Args:
        metric: the task's own.
        n_classes: of the task.
        is_pitch: are neighbouring classes a semitone apart?

    Example:
        >>> extra_metrics("accuracy", 10), extra_metrics("pearson", 0)
        (['balanced_accuracy', 'macro_f1'], ['r2', 'mean_absolute_error'])
    """
    kind = METRICS[metric].kind
    return [
        name
        for name, other in METRICS.items()
        if other.kind == kind
        and name != metric
        and (name != "chroma_accuracy" or (is_pitch and n_classes > 12))
        and (name != "accuracy")
    ]
