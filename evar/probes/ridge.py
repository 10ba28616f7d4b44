"""The linear probe of tasks in which a clip's label is a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from evar.config.registry import near_miss
from evar.metrics import METRICS
from evar.numeric.axes import standardisation
from evar.numeric.logistic import principal_coordinates
from evar.probes.checks import STRENGTHS, check_features, check_numbers
from evar.probes.choosing import choose_setting
from evar.probes.protocol import ProbeTraits


class RidgeProbe(RegressorMixin, BaseEstimator):
    """Standardise, then ridge regression whose strength is chosen on validation clips.

    Features and labels are standardised by mean and standard deviation of the training clips. Every strength C
    minimises C x 0.5 x (sum of squared errors) + 0.5 x ||w||^2, the intercept unpenalised: scikit-learn's
    `Ridge(alpha=1 / C)`. All strengths come from one eigendecomposition. The best validation score wins; of equal
    scores the smaller squared error, then the smaller C.

    Args:
        strengths: values of C to choose from, positive; a single one needs no validation clips.
        refit: clips of the final fit with the chosen strength: "train_and_valid" or "train".
        metric: name in `evar.metrics.METRICS`, of kind regression.

    Attributes:
        strength_: the chosen C.
        valid_scores_: (strengths,) score on the validation clips; empty without any.
        valid_score_: of the chosen C; None without validation clips.
        on_grid_edge_: whether the chosen C is the smallest or largest of several.
        coef_: (width,) float64, for features and labels as given.
        intercept_: float.
        n_features_in_: width.

    Source: Hoerl & Kennard, "Ridge Regression", Technometrics 12 (1970).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(90, 8))
        >>> y = 5 + X[:, 0] + 0.1 * rng.normal(size=90)
        >>> probe = RidgeProbe().fit(X[:50], y[:50], X[50:70], y[50:70])
        >>> bool(METRICS["pearson"].function(y[70:], probe.predict(X[70:])) > 0.95)
        True
    """

    traits = ProbeTraits(kinds=("regression",))

    def __init__(
        self, strengths: Sequence[float] = STRENGTHS, refit: str = "train_and_valid", metric: str = "pearson"
    ) -> None:
        self.strengths = strengths
        self.refit = refit
        self.metric = metric

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> RidgeProbe:
        """Choose the strength and fit.

        Args:
            X: (clips, width) embeddings of the training clips.
            y: (clips,) numbers.
            X_valid, y_valid: of the validation clips; None if there is only one strength.

        Returns:
            self.

        Raises:
            ValueError: if a setting, shape or value is not legal, all labels are equal, or several strengths are given
                without validation clips.
        """
        strengths = sorted({float(strength) for strength in self.strengths})
        if not strengths or strengths[0] <= 0 or self.refit not in ("train", "train_and_valid"):
            raise ValueError(
                f"strengths must be positive and refit train or train_and_valid, got {self.strengths} and {self.refit!r}"
            )
        if self.metric not in METRICS:
            raise ValueError(f"no metric {self.metric!r}; {near_miss(self.metric, METRICS)}")
        has_valid = X_valid is not None and y_valid is not None
        if not has_valid and len(strengths) > 1:
            raise ValueError(f"choosing among {len(strengths)} strengths needs X_valid and y_valid")
        features, labels = check_features(X, "training"), check_numbers(y, len(np.asarray(X)), "training")
        self.n_features_in_ = features.shape[1]
        self.mean_, self.scale_ = standardisation(features)
        self._centre, self._spread = float(labels.mean()), float(labels.std())
        if not self._spread > 1e-12 * max(1.0, abs(self._centre)):
            raise ValueError(f"a probe needs training clips of different labels, got {labels[0]} for all {len(labels)}")
        self.strength_, self.valid_scores_ = strengths[0], np.zeros(0)
        self.valid_score_: float | None = None
        if has_valid:
            valid = check_features(X_valid, "validation")
            y_valid = check_numbers(y_valid, len(valid), "validation")
            self._choose(self._solve(features, labels, strengths), valid, y_valid, strengths)
            if self.refit == "train_and_valid":
                features, labels = np.concatenate([features, valid]), np.concatenate([labels, y_valid])
        self.on_grid_edge_ = len(strengths) > 1 and self.strength_ in (strengths[0], strengths[-1])
        ((weights, intercept),) = self._solve(features, labels, [self.strength_])
        varies = self.scale_ > 0
        self.coef_ = np.zeros(self.n_features_in_)
        self.coef_[varies] = self._spread * weights / self.scale_[varies]
        self.intercept_ = float(self._centre + self._spread * intercept - self.coef_ @ self.mean_)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the number of each clip.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips,) float64, in the unit of the labels.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0.0, 1.0, 4.0, 5.0]
            >>> RidgeProbe((1e6,)).fit(X, y).predict([[2.0]]).round(3).tolist()
            [2.0]
        """
        check_is_fitted(self, "coef_")
        features = check_features(X, "given")
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {features.shape[1]} features, expected {self.n_features_in_}; is it another layer?"
            )
        return np.asarray(features.astype(np.float64, copy=False) @ self.coef_ + self.intercept_)

    def _standardise(self, features: NDArray[Any]) -> NDArray[np.float64]:
        varies = self.scale_ > 0
        return np.asarray((features[:, varies].astype(np.float64) - self.mean_[varies]) / self.scale_[varies])

    def _solve(
        self, features: NDArray[Any], labels: NDArray[np.float64], strengths: Sequence[float]
    ) -> list[tuple[NDArray[np.float64], float]]:
        """Weights (varying feature,) and intercept of standardised features and labels, for each strength."""
        rows, targets = self._standardise(features), (labels - self._centre) / self._spread
        # Validation clips move the mean, and the intercept is free of penalty: fit deviations, then add it.
        offset, level = rows.mean(axis=0), targets.mean()
        coordinates, basis = principal_coordinates(torch.from_numpy(rows - offset))
        energy, products = coordinates.square().sum(dim=0).numpy(), coordinates.numpy().T @ (targets - level)
        found = []
        for strength in strengths:
            weights = basis.numpy() @ (products / (energy + 1 / strength))
            found.append((weights, float(level - offset @ weights)))
        return found

    def _choose(
        self,
        solutions: Sequence[tuple[NDArray[np.float64], float]],
        valid: NDArray[Any],
        y_valid: NDArray[np.float64],
        strengths: Sequence[float],
    ) -> None:
        metric, rows = METRICS[self.metric], self._standardise(valid)
        predicted = [self._centre + self._spread * (rows @ weights + level) for weights, level in solutions]
        scores = [metric.function(y_valid, one) for one in predicted]
        errors = [float(np.mean((y_valid - one) ** 2)) for one in predicted]
        best = choose_setting(self.metric, scores, errors, strengths)
        self.strength_, self.valid_score_, self.valid_scores_ = strengths[best], float(scores[best]), np.array(scores)
