"""Scores and their uncertainty: pure functions on numpy arrays, found by name in `METRICS`."""

from evar.metrics import comparing as _comparing
from evar.metrics.classes import (
    accuracy,
    balanced_accuracy,
    calibration_error,
    chroma_accuracy,
    macro_f1,
    sensitivity_specificity,
    weighted_key_score,
)
from evar.metrics.events import event_onset_f1, event_onset_f1_50ms, segment_error_rate
from evar.metrics.intervals import bootstrap_interval, bootstrap_many, bootstrap_scores, score_interval
from evar.metrics.labels import auc, d_prime, eer, equal_error_accuracy, mean_average_precision
from evar.metrics.named import KINDS, METRICS, Metric, estimate_chance, list_extra_metrics
from evar.metrics.own import check_metric, register_metric
from evar.metrics.paired import holm, paired_permutation
from evar.metrics.values import mean_absolute_error, pearson, r2

assert _comparing  # its metrics are found by name, too

__all__ = [
    "KINDS",
    "METRICS",
    "Metric",
    "accuracy",
    "auc",
    "balanced_accuracy",
    "bootstrap_interval",
    "bootstrap_many",
    "bootstrap_scores",
    "calibration_error",
    "check_metric",
    "chroma_accuracy",
    "d_prime",
    "eer",
    "equal_error_accuracy",
    "estimate_chance",
    "event_onset_f1",
    "event_onset_f1_50ms",
    "holm",
    "list_extra_metrics",
    "macro_f1",
    "mean_absolute_error",
    "mean_average_precision",
    "paired_permutation",
    "pearson",
    "r2",
    "register_metric",
    "score_interval",
    "segment_error_rate",
    "sensitivity_specificity",
    "weighted_key_score",
]
