"""Thresholds of labels, chosen on validation clips: from which probability on a clip has a label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: threshold of a label that no validation clip has
DEFAULT = 0.5


def choose_thresholds(y: NDArray[Any], probabilities: NDArray[Any]) -> tuple[list[float], list[float | None]]:
    """Choose the threshold of each label that gives the best F1 on validation clips.

    Candidates lie half-way between neighbouring probabilities, so that a small change of a number moves no clip across; of
    equal F1, the threshold nearest to 0.5 is taken, and then the higher one. A label that no clip has keeps 0.5.

    Args:
        y: (clips, labels) 0 or 1.
        probabilities: (clips, labels) in 0..1, from a probe that has not seen these clips.

    Returns:
        Thresholds, and the F1 of each label at its threshold; None for a label that no clip has.

    Raises:
        ValueError: if the shapes differ.

    Source: van Rijsbergen, "Information Retrieval", 1979, for F1, the harmonic mean of precision and recall; chosen for each
        label by itself as in Yang, "A Study of Thresholding Strategies for Text Categorization", SIGIR 2001 ("SCut").

    Example:
        >>> choose_thresholds(np.array([[1], [1], [0]]), np.array([[0.9], [0.3], [0.1]]))
        ([0.2], [1.0])
        >>> choose_thresholds(np.array([[0], [0]]), np.array([[0.9], [0.3]]))
        ([0.5], [None])
    """
    true, shares = np.asarray(y), np.asarray(probabilities, np.float64)
    if true.shape != shares.shape or true.ndim != 2:
        raise ValueError(f"expected (clips, labels) of both, got shapes {true.shape} and {shares.shape}")
    pairs = [_choose_one(true[:, label] > 0, shares[:, label]) for label in range(true.shape[1])]
    return [threshold for threshold, _ in pairs], [f1 for _, f1 in pairs]


def _choose_one(true: NDArray[np.bool_], shares: NDArray[np.float64]) -> tuple[float, float | None]:
    if not true.any():
        return DEFAULT, None
    values = np.unique(shares)  # rising
    candidates = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2, [(values[-1] + 1) / 2]])
    order = np.argsort(shares, kind="stable")
    n_below = np.searchsorted(shares[order], candidates, side="left")  # clips that a threshold leaves without the label
    hits_below = np.concatenate([[0], np.cumsum(true[order])])[n_below]
    hits = true.sum() - hits_below
    f1 = 2 * hits / (true.sum() + len(true) - n_below)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    nearest = min(best.tolist(), key=lambda at: (round(abs(float(candidates[at]) - DEFAULT), 12), -candidates[at]))
    return round(float(candidates[nearest]), 9), round(float(f1[nearest]), 6)
