"""The linear probe of tasks in which a clip has any number of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from evar.metrics import METRICS
from evar.numeric.logistic_problem import Coordinates, LogisticProblem
from evar.probes.checks import STRENGTHS, check_features, check_labels, check_width
from evar.probes.linear import BYTES_OF_FEATURE, LinearProbe
from evar.probes.protocol import ProbeTraits, per_number


class MultilabelProbe(LinearProbe):
    """Standardise, then one binary logistic regression per label; all share the strength chosen on validation clips.

    As `LinearProbe` in every other respect: for each strength C it minimises C x (sum over clips and labels of the
    log-losses) + 0.5 x ||W||^2, which is a problem of its own for each label; all are solved side by side. A label that
    no training clip has gets a constant score.

    Args:
        strengths, refit, tol, search_tol, max_iter: as in `LinearProbe`.
        metric: name in `evar.metrics.METRICS`, of kind multilabel.

    Attributes:
        classes_: (labels,) 0, 1, ...: columns of y.
        coef_: (labels, width) float64; for features as given, not standardised.
        intercept_: (labels,) float64.
        valid_log_losses_: (strengths,) mean over clips of the sum of their labels' log-losses, in nats.
        strength_, valid_scores_, valid_score_, valid_log_loss_, on_grid_edge_, mean_, scale_, converged_, n_iter_,
            n_features_in_: as in `LinearProbe`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(90, 8))
        >>> y = (X[:, :3] > 0.5).astype(int)  # three labels, each from one feature
        >>> probe = MultilabelProbe().fit(X[:50], y[:50], X[50:70], y[50:70])
        >>> probe.predict_proba(X[70:]).shape, bool(METRICS["auc"].function(y[70:], probe.predict_proba(X[70:])) > 0.9)
        ((20, 3), True)
    """

    traits = ProbeTraits(
        kinds=("multilabel",), reads_parts=True, fits_together=True, count_bytes=per_number(BYTES_OF_FEATURE)
    )

    def __init__(
        self,
        strengths: Any = STRENGTHS,
        refit: str = "train_and_valid",
        metric: str = "mean_average_precision",
        tol: float = 3e-6,
        search_tol: float = 1e-3,
        max_iter: int = 100,
    ) -> None:
        super().__init__(strengths, refit, metric, tol, search_tol, max_iter)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return logits.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, labels) float64.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [[1, 0], [1, 0], [0, 1], [0, 1]]
            >>> MultilabelProbe((1.0,)).fit(X, y).decision_function(X).shape
            (4, 2)
        """
        features = check_features(X, "given")
        check_width(features, self.n_features_in_, self)
        return np.asarray(features.astype(np.float64, copy=False) @ self.coef_.T + self.intercept_)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each label.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, labels) float64 in 0..1; rows need not sum to 1.

        Raises:
            ValueError: as `decision_function`.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [[1, 0], [1, 0], [0, 1], [0, 1]]
            >>> bool(MultilabelProbe((1.0,)).fit(X, y).predict_proba(X)[0, 0] > 0.7)
            True
        """
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * self.decision_function(X)))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the labels that are more likely than not.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, labels) uint8 of 0 and 1.

        Raises:
            ValueError: as `decision_function`.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [[1, 0], [1, 0], [0, 1], [0, 1]]
            >>> MultilabelProbe((1.0,)).fit(X, y).predict([[0.5], [4.5]]).tolist()
            [[1, 0], [0, 1]]
        """
        return (self.decision_function(X) > 0).astype(np.uint8)

    def _check_pair(self, X: Any, y: Any, which: str) -> tuple[NDArray[Any], NDArray[Any]]:
        return check_features(X, which), check_labels(y, len(X), which)

    def _learn_classes(self, y: NDArray[Any]) -> None:
        self.classes_ = np.arange(y.shape[1])
        if not y.any():
            raise ValueError(f"a probe needs a training clip with a label, got {len(y)} clips without any")

    def _make_problem(
        self, coordinates: torch.Tensor | Coordinates, y: NDArray[Any], strengths: Any, tol: float
    ) -> LogisticProblem:
        labels = torch.from_numpy(y.astype(np.int64))
        return LogisticProblem(coordinates, labels, tuple(strengths), y.shape[1], tol, self.max_iter)

    def _validate(self, logits: torch.Tensor, y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        logits = logits.mT  # (strength, clips, label)
        targets = torch.from_numpy(y).to(logits).expand_as(logits)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        function = METRICS[self.metric].function
        scores = np.array([function(y, row) for row in logits.numpy()]) if y.any() else np.zeros(len(logits))
        return scores, losses.sum(dim=2).mean(dim=1).numpy()

    def _store_coefficients(self, weights: torch.Tensor, intercepts: torch.Tensor) -> None:
        varies = self.scale_ > 0
        self.coef_ = np.zeros((len(weights), self.n_features_in_))
        self.coef_[:, varies] = weights.numpy() / self.scale_[varies]
        self.intercept_ = intercepts.numpy() - self.coef_ @ self.mean_
