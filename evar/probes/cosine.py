"""Shared parts of probes that compare directions: standardised features of length 1, and the search for near clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from evar.config.registry import near_miss
from evar.metrics import METRICS
from evar.numeric.axes import standardisation
from evar.probes.checks import check_pair, check_width
from evar.probes.protocol import ProbeTraits

# Similarities in memory at once, as a count of numbers: 64 MB for any number of clips.
_NUMBERS_AT_ONCE = 2**24


class CosineProbe(BaseEstimator):
    """Base of these probes: directions of standardised features, and the mean and scale that make them.

    Features are standardised by the mean and standard deviation of the training clips, so that no feature outweighs the
    others by its unit, and then scaled to length 1.
    """

    traits = ProbeTraits()
    refit: str
    metric: str

    def _start(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None, y_valid: ArrayLike | None
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
        """The clips, checked; sets the scale and width."""
        if self.refit not in ("train", "train_and_valid"):
            raise ValueError(f"refit must be train or train_and_valid, got {self.refit!r}")
        if self.metric not in METRICS:
            raise ValueError(f"no metric {self.metric!r}; {near_miss(self.metric, METRICS)}")
        if (X_valid is None) != (y_valid is None):
            raise ValueError("X_valid and y_valid go together, but only one of them was given")
        X, y = self._check_pair(X, y, "training")
        self.n_features_in_ = X.shape[1]
        self.mean_, self.scale_ = standardisation(X)
        if X_valid is None or y_valid is None:
            return X, y, None, None
        return X, y, *self._check_pair(X_valid, y_valid, "validation")

    def _check_pair(self, X: Any, y: Any, which: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Features and classes of one split."""
        features, labels = check_pair(X, y, which)
        if which == "training" and len(np.unique(labels)) < 2:
            raise ValueError(f"a probe needs training clips of at least 2 classes, got one class, {labels[0]!r}")
        return features, labels

    def _select_final(
        self, X: NDArray[Any], y: NDArray[Any], X_valid: NDArray[Any] | None, y_valid: NDArray[Any] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Directions (clips, width) and class numbers (clips,) of the clips that `refit` says; sets the classes."""
        if X_valid is not None and y_valid is not None and self.refit == "train_and_valid":
            X, y = np.concatenate([X, X_valid]), np.concatenate([y, y_valid])
        self.classes_, numbers = np.unique(y, return_inverse=True)
        return self._find_directions(X), numbers.astype(np.int64)

    def _find_directions(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """(clips, width) of length 1; a constant feature counts for nothing, and a clip at the mean has no direction."""
        check_width(X, self.n_features_in_, self)
        varies = self.scale_ > 0
        scaled = (X[:, varies].astype(np.float64) - self.mean_[varies]) / self.scale_[varies]
        lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
        return np.asarray(scaled / np.where(lengths > 0, lengths, 1.0), np.float32)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of each clip with the largest share.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips,) labels.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.
        """
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return a share of each class.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, classes) float64 in 0..1, in the order of `classes_`; rows sum to 1.
        """
        raise NotImplementedError


class NearestProbe(CosineProbe):
    """Base of probes of the nearest clips: their settings and the search for these clips."""

    _clips: NDArray[np.float32]

    def __init__(
        self,
        ks: Sequence[int] = (1, 3, 5, 10, 20, 50),
        temperature: float = 0.07,
        refit: str = "train_and_valid",
        metric: str = "accuracy",
    ) -> None:
        self.ks = ks
        self.temperature = temperature
        self.refit = refit
        self.metric = metric

    def _check_ks(self, can_choose: bool) -> list[int]:
        ks = [int(k) for k in self.ks]
        if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
            raise ValueError(f"ks must be one or more different numbers of at least 1, got {self.ks!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not can_choose and len(ks) > 1:
            raise ValueError(f"choosing among {len(ks)} numbers of neighbours needs X_valid and y_valid")
        return ks

    def _find_neighbours(
        self, directions: NDArray[np.float32], most: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """(some clips, neighbours) numbers and votes, nearest first, of all clips in turn, in bounded memory."""
        n_known = len(self._clips)
        at_once = max(1, _NUMBERS_AT_ONCE // n_known)
        for start in range(0, len(directions), at_once):
            similar = directions[start : start + at_once] @ self._clips.T  # (some clips, known clips)
            nearest = np.argpartition(-similar, most - 1, axis=1)[:, :most]
            values = np.take_along_axis(similar, nearest, axis=1)
            order = np.argsort(-values, axis=1, kind="stable")
            nearest, values = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(values, order, axis=1)
            yield nearest, np.exp((values.astype(np.float64) - values[:, :1]) / self.temperature)
