"""A probe on several layers at once: a softmax-weighted sum of the layers and a linear classifier, learned together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from evar.metrics import METRICS
from evar.numeric.axes import standardisation
from evar.probes.checks import STRENGTHS, check_features, check_pair
from evar.probes.choosing import choose_setting, count_always_tried, is_getting_worse
from evar.probes.protocol import ProbeTraits


class WeightedSumProbe(ClassifierMixin, BaseEstimator):
    """Weighted sum of layers, then multinomial logistic regression; the strength is chosen on validation clips.

    Each layer is standardised over the training clips, so that its weight does not depend on its scale. For every
    strength C (the weakest are left out as in `LinearProbe`), layer weights w = softmax(a) and a linear map W minimise

        C x (sum of the clips' log-losses) + 0.5 x ||W||^2

    on the training clips, by L-BFGS from equal weights; the weaker strengths start where the stronger ones ended. The
    problem is not convex, so that this is a minimum near equal weights, not surely the lowest; the features of different
    layers have little to do with each other, so that the weight often ends on a single layer. The best strength on the
    validation clips wins (score, then log-loss, then the smaller C), and the final fit starts from its solution.

    Args:
        n_layers: how many layers of equal width stand side by side in X.
        strengths: values of C to choose from, positive; a single one needs no validation clips.
        refit: clips of the final fit, if validation clips are given: "train_and_valid" or "train".
        metric: name in `evar.metrics.METRICS`.
        max_iter: L-BFGS steps at most, for each strength.
        tol: a fit ends where the largest component of the gradient of the mean log-loss is below this.

    Attributes:
        layer_weights_: (n_layers,) the softmax weights, which sum to 1.
        strength_, valid_score_, valid_log_loss_, classes_, n_features_in_, converged_: as in `LinearProbe`.
        valid_scores_, valid_log_losses_: of the strengths that were tried, from small to large.

    Source: Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark", Interspeech 2021, section 3
        (weighted sum of hidden states, weights learned with the head).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(120) % 3
        >>> informative = rng.normal(size=(120, 8)) + 3 * np.eye(8)[y]
        >>> X = np.concatenate([rng.normal(size=(120, 8)), informative], axis=1)  # the second layer separates the classes
        >>> probe = WeightedSumProbe(2, strengths=(1.0,)).fit(X[:90], y[:90])
        >>> bool(probe.layer_weights_[1] > 0.8), bool(probe.score(X[90:], y[90:]) > 0.8)
        (True, True)
    """

    traits = ProbeTraits()

    def __init__(
        self,
        n_layers: int = 1,
        strengths: Sequence[float] = STRENGTHS,
        refit: str = "train_and_valid",
        metric: str = "accuracy",
        max_iter: int = 300,
        tol: float = 1e-5,
    ) -> None:
        self.n_layers = n_layers
        self.strengths = strengths
        self.refit = refit
        self.metric = metric
        self.max_iter = max_iter
        self.tol = tol

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> WeightedSumProbe:
        """Choose the strength and fit.

        Args:
            X: (clips, n_layers x width) layers of equal width side by side, of the training clips.
            y: (clips,) labels.
            X_valid, y_valid: of the validation clips; None if there is only one strength.

        Returns:
            self.

        Raises:
            ValueError: if shapes do not fit, or several strengths are given without validation clips.
        """
        features, labels = check_pair(X, y, "training")
        if self.n_layers < 1 or features.shape[1] % self.n_layers:
            raise ValueError(f"X must hold {self.n_layers} layers of equal width, got {features.shape[1]} features")
        has_valid = X_valid is not None and y_valid is not None
        if not has_valid and len(self.strengths) > 1:
            raise ValueError(f"choosing among {len(self.strengths)} strengths needs X_valid and y_valid")
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ValueError(f"a probe needs training clips of at least 2 classes, got one class, {self.classes_[0]!r}")
        self.n_features_in_ = features.shape[1]
        self.mean_, self.scale_ = standardisation(features)
        train = self._standardise_layers(features)
        strengths = sorted(float(strength) for strength in self.strengths)
        self.valid_scores_ = self.valid_log_losses_ = np.zeros(0)
        start, self.strength_ = None, strengths[0]
        self.valid_score_: float | None = None
        self.valid_log_loss_: float | None = None
        if has_valid:
            valid_features, valid_labels = check_pair(X_valid, y_valid, "validation")
            valid = self._standardise_layers(valid_features)
            start = self._search(train, labels, valid, valid_labels, strengths)
            if self.refit == "train_and_valid":
                train = np.concatenate([train, valid], axis=1)
                labels = np.concatenate([labels, valid_labels])
                classes = np.unique(labels)
                start = start if np.array_equal(classes, self.classes_) else None
                self.classes_ = classes
        solution = self._solve(train, labels, self.strength_, start)
        self._logits_of_layers, self.coef_, self.intercept_ = self._unpack(solution.x)
        self.layer_weights_ = softmax(self._logits_of_layers)
        self.converged_ = bool(solution.success)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return logits.

        Args:
            X: (clips, n_layers x width) layers side by side, in the order of `fit`.

        Returns:
            (clips, classes) float64, in the order of `classes_`.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[0, 1], [1, 1], [4, 2], [5, 2]]), [0, 0, 1, 1]  # two layers of one feature
            >>> WeightedSumProbe(2, (1.0,)).fit(X, y).decision_function(X).shape
            (4, 2)
        """
        check_is_fitted(self, "layer_weights_")
        layers = self._standardise_layers(check_features(X, "given"))
        return _compute_logits(layers, self._logits_of_layers, self.coef_, self.intercept_)[1]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each clip.

        Args:
            X: (clips, n_layers x width) layers side by side, in the order of `fit`.

        Returns:
            (clips,) labels.

        Raises:
            ValueError: as `decision_function`.

        Example:
            >>> X, y = np.float32([[0, 1], [1, 1], [4, 2], [5, 2]]), ["low", "low", "high", "high"]
            >>> WeightedSumProbe(2, (1.0,)).fit(X, y).predict([[0.5, 1.0], [4.5, 2.0]]).tolist()
            ['low', 'high']
        """
        return self.classes_[self.decision_function(X).argmax(axis=1)]

    def _standardise_layers(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Standardised, (layer, clips, width) in single precision, which halves memory; a constant feature is 0."""
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {features.shape[1]} features, expected {self.n_features_in_}; are these other layers?"
            )
        varies = self.scale_ > 0
        scaled = np.where(varies, (features - self.mean_) / np.where(varies, self.scale_, 1.0), 0.0)
        layers = scaled.astype(np.float32).reshape(len(features), self.n_layers, -1)
        return np.ascontiguousarray(layers.transpose(1, 0, 2))

    def _search(
        self,
        train: NDArray[np.float32],
        y: NDArray[Any],
        valid: NDArray[np.float32],
        y_valid: NDArray[Any],
        strengths: Sequence[float],
    ) -> NDArray[np.float64]:
        """Set the best strength; returns its solution."""
        metric, solutions, start = METRICS[self.metric], [], None
        scores, losses = [], []
        known = np.isin(y_valid, self.classes_)
        index = np.searchsorted(self.classes_, y_valid[known])
        for strength in strengths:
            start = self._solve(train, y, strength, start).x
            solutions.append(start)
            logits = _compute_logits(valid, *self._unpack(start))[1]
            scores.append(metric.function(y_valid, self.classes_[logits.argmax(axis=1)]))
            picked = (logits - logsumexp(logits, axis=1, keepdims=True))[known, index]
            losses.append(float(-picked.mean()) if len(picked) else 0.0)
            if len(scores) >= count_always_tried(len(strengths)) and is_getting_worse(self.metric, scores, losses):
                break
        self.valid_scores_, self.valid_log_losses_ = np.array(scores), np.array(losses)
        best = choose_setting(self.metric, scores, losses, strengths[: len(scores)])
        self.strength_, self.valid_score_, self.valid_log_loss_ = strengths[best], float(scores[best]), losses[best]
        return solutions[best]

    def _unpack(self, packed: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Layer logits (layer,), coefficients (width, class), intercepts (class,)."""
        width, n_classes = self.n_features_in_ // self.n_layers, len(self.classes_)
        coef = packed[self.n_layers : self.n_layers + width * n_classes].reshape(width, n_classes)
        return packed[: self.n_layers], coef, packed[self.n_layers + width * n_classes :]

    def _solve(self, train: NDArray[np.float32], y: NDArray[Any], strength: float, start: Any) -> Any:
        """L-BFGS from a packed start, or from equal weights and a zero map."""
        index = np.searchsorted(self.classes_, y)
        n_layers, n_clips, width = train.shape
        n_classes = len(self.classes_)
        targets = np.zeros((n_clips, n_classes))
        targets[np.arange(n_clips), index] = 1.0
        decay = 1.0 / (strength * n_clips)  # the objective is divided by C x clips: a mean log-loss

        def value_and_gradient(packed: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            layers, coef, intercept = self._unpack(packed)
            weights = softmax(layers)
            joined, logits = _compute_logits(train, layers, coef, intercept)
            log_shares = logits - logsumexp(logits, axis=1, keepdims=True)
            error = (np.exp(log_shares) - targets) / n_clips  # (clips, classes)
            back = (error @ coef.T).astype(np.float32)  # (clips, width)
            of_weights = np.tensordot(train, back, axes=2)  # (layer,)
            of_layers = weights * (of_weights - weights @ of_weights)
            of_coef = joined.T @ error + decay * coef
            value = -float(log_shares[np.arange(n_clips), index].mean()) + 0.5 * decay * float((coef**2).sum())
            return value, np.concatenate([of_layers, of_coef.ravel(), error.sum(axis=0)])

        if start is None:
            start = np.zeros(n_layers + (width + 1) * n_classes)
        options = {"maxiter": self.max_iter, "gtol": self.tol, "ftol": 1e-12, "maxcor": 20}
        return minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)


def _compute_logits(
    layers: NDArray[np.float32],
    of_layers: NDArray[np.float64],
    coef: NDArray[np.float64],
    intercept: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Weighted sum (clips, width) of layers (layer, clips, width), and its logits (clips, class)."""
    joined = np.tensordot(softmax(of_layers).astype(np.float32), layers, axes=1)
    return joined, (joined @ coef.astype(np.float32)).astype(np.float64) + intercept
