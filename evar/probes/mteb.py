"""The probe of MTEB's classification tasks, audio ones among them: 8 clips of each class, vectors as they are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from evar.probes.checks import check_features, check_pair, join_splits
from evar.probes.draws import FittingClips
from evar.probes.protocol import ProbeTraits


class MtebProbe(ClassifierMixin, BaseEstimator):
    """scikit-learn's logistic regression on 8 training clips of each class, as MTEB fits it; each seed is one of its draws.

    Vectors are used as they are, neither standardised nor normalised; C is 1, the solver L-BFGS with 100 iterations at most,
    whether or not it has converged. The draws follow MTEB's procedure: the training clips, in the order of the index, are
    shuffled by a generator that starts again from the same seed at every draw, each draw from the order that the one before
    left; the first 8 of each class are taken. Clips of one recording are not kept together, as MTEB does not.

    Args:
        n_per_class: clips of each class; all of a class that has fewer.
        strength: C of scikit-learn's `LogisticRegression`.
        max_iter: iterations at most.
        draw_seed: of the shuffles and of the regression.
        random_state: number of the draw, from 0.
        clips: places of the clips in the task's index; None: the order in which they are given.

    Attributes:
        drawn_: (clips,) positions among the clips of `fit`, in the order of the draw.
        classes_: (classes,) labels, sorted.
        converged_: whether the solver ended before `max_iter`.
        n_features_in_: width.

    Source: procedure and settings of `AbsTaskClassification` in mteb 2 (Muennighoff et al., "MTEB: Massive Text Embedding
        Benchmark", EACL 2023): samples_per_label 8, n_experiments 10, seed 42, LogisticRegression(max_iter=100).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(90) % 3
        >>> X = rng.normal(size=(90, 20)) + 5 * np.eye(20)[y]
        >>> probe = MtebProbe(random_state=2).fit(X[:60], y[:60])
        >>> len(probe.drawn_), bool(probe.score(X[60:], y[60:]) > 0.8)
        (24, True)
    """

    traits = ProbeTraits(reads_clips=True)

    def __init__(
        self,
        n_per_class: int = 8,
        strength: float = 1.0,
        max_iter: int = 100,
        draw_seed: int = 42,
        random_state: int = 0,
        clips: FittingClips | None = None,
    ) -> None:
        self.n_per_class = n_per_class
        self.strength = strength
        self.max_iter = max_iter
        self.draw_seed = draw_seed
        self.random_state = random_state
        self.clips = clips

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> MtebProbe:
        """Draw training clips, and fit a classifier on them.

        Args:
            X: (clips, width) vectors of the training clips.
            y: (clips,) labels.
            X_valid, y_valid: of the validation clips; they are drawn from only where they were drawn from the training clips
                themselves, since MTEB has no validation.

        Returns:
            self.

        Raises:
            ValueError: if a setting, shape or value is not legal.
        """
        from sklearn.linear_model import LogisticRegression

        features, labels = check_pair(X, y, "training")
        if self.clips is not None and self.clips.is_valid_drawn and X_valid is not None and np.size(X_valid):
            features, labels = join_splits(features, labels, *check_pair(X_valid, y_valid, "validation"))
        if self.n_per_class < 1 or self.random_state < 0:
            raise ValueError(
                f"n_per_class must be at least 1 and random_state 0 or more, got {self.n_per_class}, {self.random_state}"
            )
        order = np.arange(len(labels))
        if self.clips is not None:
            order = np.argsort(self.clips.positions[: len(labels)], kind="stable")
        self.drawn_ = order[draw_as_mteb(labels[order], self.n_per_class, self.random_state, self.draw_seed)]
        self.n_features_in_ = features.shape[1]
        self._model = LogisticRegression(C=self.strength, max_iter=self.max_iter, random_state=self.draw_seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `converged_` says it
            self._model.fit(features[self.drawn_], labels[self.drawn_])
        self.classes_ = self._model.classes_
        self.converged_ = bool(np.max(self._model.n_iter_) < self.max_iter)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, classes) float64 in 0..1, in the order of `classes_`; rows sum to 1.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> MtebProbe().fit(X, y).predict_proba(X).shape
            (4, 2)
        """
        check_is_fitted(self, "drawn_")
        return np.asarray(self._model.predict_proba(check_features(X, "given")), np.float64)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each clip.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips,) labels.

        Raises:
            ValueError: as `predict_proba`.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> MtebProbe().fit(X, y).predict([[0.5], [4.5]]).tolist()
            [0, 1]
        """
        check_is_fitted(self, "drawn_")
        return np.asarray(self._model.predict(check_features(X, "given")))


def draw_as_mteb(y: NDArray[Any], n_per_class: int, number: int, seed: int = 42) -> NDArray[np.int64]:
    """Draw clips as MTEB draws the training clips of its experiment of that number.

    Args:
        y: (clips,) labels, in the order of the data set.
        n_per_class: clips of each class; all of a class that has fewer.
        number: of the experiment, from 0.
        seed: of every shuffle.

    Returns:
        (drawn,) positions, in the order of the draw.

    Example:
        >>> y = np.array([0, 1] * 4)
        >>> draw_as_mteb(y, 1, 0).tolist(), draw_as_mteb(y, 1, 1).tolist()
        ([1, 0], [5, 4])
    """
    order = np.arange(len(y))
    for _ in range(number + 1):
        np.random.RandomState(seed).shuffle(order)
    counts: dict[Any, int] = {}
    drawn = []
    for position in order.tolist():
        label = y[position]
        if counts.get(label, 0) < n_per_class:
            counts[label] = counts.get(label, 0) + 1
            drawn.append(position)
    return np.array(drawn, np.int64)
