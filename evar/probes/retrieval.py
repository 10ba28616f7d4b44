"""Retrieval of clips by their captions, and of captions by their clips: cosine similarity, nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from evar.metrics.retrieval import rank_matches
from evar.probes.checks import check_features
from evar.probes.protocol import ProbeTraits
from evar.probes.zero_shot import to_directions


class RetrievalProbe(BaseEstimator):
    """Ranks by the cosine between clips and captions.

    Args:
        text: (clips of the task,) arrays (captions, width) of vectors.

    Example:
        >>> probe = RetrievalProbe([np.eye(2)[:1], np.eye(2)[1:]]).fit(np.eye(2), None, None, None)
        >>> probe.rank(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
        array([[1., 1.],
               [1., 1.]])
    """

    traits = ProbeTraits(kinds=("captions",), reads_text=True)

    def __init__(self, text: Any = None) -> None:
        self.text = text

    def fit(self, X: Any, y: Any, X_valid: Any, y_valid: Any) -> RetrievalProbe:
        """Check the vectors; nothing is learned.

        Args:
            X: (clips, width) vectors of the training clips.
            y, X_valid, y_valid: not used.

        Raises:
            ValueError: if there is no text.
        """
        if self.text is None:
            raise ValueError(
                "a retrieval probe needs vectors of captions, and text is None; does the encoder read text?"
            )
        self.n_features_in_ = np.shape(X)[1]
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the number of the clip whose first caption is nearest to each clip.

        Args:
            X: (clips, width) vectors, finite.

        Returns:
            (clips,) numbers of clips of the task.
        """
        first = to_directions(np.stack([own[0] for own in self.text]))
        return (to_directions(check_features(X, "given")) @ first.T).argmax(axis=1)

    def rank(self, X: ArrayLike, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Rank clips and their captions among each other.

        Args:
            X: (clips, width) vectors of the clips that are searched.
            rows: (clips,) their numbers in the task; their captions are the ones that are searched.

        Returns:
            (clips, 2 x most captions of a clip of the task), as in `evar.metrics.retrieval`; infinity beyond a clip's own.

        Raises:
            ValueError: if clips and captions differ in width.
        """
        clips = to_directions(check_features(X, "given"))
        own = [np.asarray(self.text[row]) for row in rows]
        captions = to_directions(np.concatenate(own))
        if clips.shape[1] != captions.shape[1]:
            raise ValueError(
                f"the clips have {clips.shape[1]} features and the captions {captions.shape[1]}; is it the layer that sound "
                "and text share?"
            )
        owners = np.repeat(np.arange(len(own)), [len(one) for one in own])
        places = np.concatenate([np.arange(len(one)) for one in own])
        most = max(len(one) for one in self.text)
        ranks = np.full((len(own), 2 * most), np.inf)
        for half, found in enumerate(rank_matches(clips @ captions.T, owners)):
            ranks[owners, half * most + places] = found
        return ranks
