"""Labels as the numbers that models are fitted to, and their outputs as the metric takes them. Both runners do it here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def make_targets(
    y: NDArray[Any], kind: str, n_outputs: int, centre: float = 0.0, spread: float = 1.0
) -> NDArray[np.float64]:
    """Turn labels into targets: one-hot classes, labels as they are, or standardised numbers.

    Args:
        y: (clips,) class numbers from 0, (clips, labels) of 0 and 1, or (clips,) numbers.
        kind: "multiclass", "multilabel" or "regression".
        n_outputs: classes, labels, or 1.
        centre, spread: that numbers are standardised by.

    Returns:
        (clips, outputs).

    Example:
        >>> make_targets(np.array([2, 0]), "multiclass", 3).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        >>> make_targets(np.array([12.0, 8.0]), "regression", 1, centre=10.0, spread=2.0).tolist()
        [[1.0], [-1.0]]
    """
    if kind == "multiclass":
        return np.asarray(y[:, None] == np.arange(n_outputs), np.float64)
    if kind == "multilabel":
        return np.asarray(y, np.float64)
    return (np.asarray(y, np.float64)[:, None] - centre) / spread


def read_outputs(outputs: NDArray[Any], kind: str, centre: float = 0.0, spread: float = 1.0) -> NDArray[Any]:
    """Turn a model's outputs into the form that the metric takes: classes, scores of labels, or numbers.

    Args:
        outputs: (clips, outputs).
        kind: "multiclass", "multilabel" or "regression".
        centre, spread: that numbers were standardised by.

    Returns:
        (clips,) class numbers, (clips, labels) scores, or (clips,) numbers.

    Example:
        >>> read_outputs(np.array([[0.1, 0.7, 0.2]]), "multiclass").tolist()
        [1]
    """
    if kind == "multiclass":
        return outputs.argmax(axis=1)
    return outputs if kind == "multilabel" else centre + spread * outputs[:, 0].astype(np.float64)
