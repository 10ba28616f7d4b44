"""Probabilities of classes from their scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def compute_shares(scores: NDArray[np.floating]) -> NDArray[Any]:
    """Compute the softmax of scores: the probability of each class of a clip.

    Args:
        scores: (clips, classes), of any size; only their differences count.

    Returns:
        (clips, classes) of the same precision, in 0..1; rows sum to 1.

    Example:
        >>> compute_shares(np.array([[0.0, 0.0], [1000.0, 0.0]])).tolist()
        [[0.5, 0.5], [1.0, 0.0]]
    """
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
