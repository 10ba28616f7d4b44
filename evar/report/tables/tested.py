"""Predictions of rows, as tables compare them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evar.results import Result, load_predictions

if TYPE_CHECKING:
    import numpy as np


def load_row_predictions(out: Path, result: Result) -> dict[str, np.ndarray]:
    """Read the predictions of a row, and check that its metric takes them.

    Args:
        out: results folder.
        result: the row.

    Returns:
        clip, round, group, y_true and y_pred, each of shape (clips,) or, for kinds with several numbers a clip, (clips, n).

    Raises:
        FileNotFoundError: if there are no predictions.
        ValueError: if the file is torn, or holds predictions of another kind of task.
    """
    from evar.metrics import METRICS

    found = load_predictions(out, result.id)
    if result.metric in METRICS:
        kind, true = METRICS[result.metric].kind, found["y_true"]
        is_whole = true.dtype.kind in "iu"
        fits = {
            "multiclass": true.ndim == 1 and is_whole,
            "multilabel": true.ndim == 2 and is_whole,
            "regression": true.ndim == 1 and not is_whole,
            "events": true.ndim == 2 and true.shape[1] == 3,
            "captions": true.ndim == 2 and is_whole,
            "queries": true.ndim == 2 and true.shape[1] == 4,
            "clusters": true.ndim == 1 and is_whole,
            "pairs": true.ndim == 1 and not is_whole,
        }
        if not fits[kind]:
            raise ValueError(
                f"predictions/{result.id}.npz must hold {kind} predictions, as {result.metric} takes them, got y_true of "
                f"shape {true.shape} and {true.dtype}; run the row again"
            )
    return found
