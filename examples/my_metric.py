"""A metric of your own: the share of clips whose class is right or one beside it, for classes that have an order.

Name it in the YAML of a task, and every table, interval and test uses it:

    metric: examples/my_metric.py:NEAR_ACCURACY

`evar.metrics.own` says what a metric must keep. A broken promise is named when the task is loaded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from evar.metrics import Metric


def near_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return the share of clips whose predicted class is at most one class away from the true one.

    Args:
        y_true: (clips,) true class numbers.
        y_pred: (clips,) predicted class numbers; below 0 (an unreadable clip) is never right.

    Returns:
        A fraction in 0..1.

    Raises:
        ValueError: if the two differ in length or there is no clip.
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.shape != predicted.shape or not len(true):
        raise ValueError(f"expected two arrays of one length, got shapes {true.shape} and {predicted.shape}")
    return float(np.mean((np.abs(true - predicted) <= 1) & (predicted >= 0)))


def guess_near(y_true: ArrayLike, n_classes: int) -> float:
    """Return what guessing scores: the two classes at the ends have one neighbour, the others two."""
    true = np.asarray(y_true)
    n_near = 1 + (true > 0).astype(int) + (true < n_classes - 1)
    return float(np.mean(n_near / n_classes))


NEAR_ACCURACY = Metric(near_accuracy, kind="multiclass", chance=guess_near, display_name="accuracy within one class")
