"""A fitted linear classifier: its scores and predictions, independent of the solver that fitted it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from evar.numeric.softmax import compute_shares
from evar.probes.checks import check_features, check_width


class LinearClassifier(ClassifierMixin, BaseEstimator):
    """Logits, probabilities and classes from coefficients that a subclass fits.

    Attributes:
        classes_: (classes,) labels, sorted.
        coef_: (classes, width) float64, or (1, width) for two classes; for features as given.
        intercept_: (classes,) float64, or (1,) for two classes.
        n_features_in_: width.
    """

    classes_: NDArray[Any]
    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    n_features_in_: int

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return logits.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, classes) float64, in the order of `classes_`; (clips,) for two classes, positive for the second.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> from evar.probes.linear import LinearProbe
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> (LinearProbe((1.0,)).fit(X, y).decision_function(X) > 0).tolist()
            [False, False, True, True]
        """
        check_is_fitted(self)
        X = check_features(X, "given")
        check_width(X, self.n_features_in_, self)
        scores = X.astype(np.float64, copy=False) @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, classes) float64 in 0..1, in the order of `classes_`; rows sum to 1.

        Raises:
            ValueError: as `decision_function`.

        Example:
            >>> from evar.probes.linear import LinearProbe
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> LinearProbe((1.0,)).fit(X, y).predict_proba(X[:1]).round(2).tolist()
            [[0.77, 0.23]]
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([-scores / 2, scores / 2], axis=1)
        return compute_shares(scores)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each clip.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips,) labels.

        Raises:
            ValueError: as `decision_function`.

        Example:
            >>> from evar.probes.linear import LinearProbe
            >>> X, y = np.float32([[0], [1], [4], [5]]), ["low", "low", "high", "high"]
            >>> LinearProbe((1.0,)).fit(X, y).predict([[0.5], [4.5]]).tolist()
            ['low', 'high']
        """
        scores = self.decision_function(X)
        index = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[index]
