"""The probe of few labelled clips: how well a feature works when only a few clips of each class are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from evar.probes.checks import check_pair
from evar.probes.draws import draw_clips
from evar.probes.linear import BYTES_OF_FEATURE, LinearProbe
from evar.probes.protocol import ProbeTraits

__all__ = ["FewShotProbe", "draw_clips"]

Split = tuple[ArrayLike, ArrayLike, ArrayLike | None, ArrayLike | None]


class FewShotProbe(ClassifierMixin, BaseEstimator):
    """Logistic regression on a few training clips of each class, drawn at random; each seed is a draw.

    Nothing is chosen: where labels are this few, there are no validation clips to choose on. Features are standardised by
    the clips that were drawn, and the strength is fixed.

    Args:
        n_per_class: clips drawn of each class; all of a class that has fewer.
        strength: C of the logistic regression, as in `LinearProbe`.
        random_state: of the draw.

    Attributes:
        drawn_: (clips,) positions of the drawn training clips, rising.
        classes_, coef_, intercept_, converged_, n_features_in_: as in `LinearProbe`.

    Source: no choice on validation clips, Perez et al., "True Few-Shot Learning with Language Models", NeurIPS 2021.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(90) % 3
        >>> X = rng.normal(size=(90, 20)) + 5 * np.eye(20)[y]
        >>> probe = FewShotProbe(n_per_class=5).fit(X[:60], y[:60])
        >>> len(probe.drawn_), bool(probe.score(X[60:], y[60:]) > 0.8)
        (15, True)
    """

    # The split that is passed in holds every clip in single precision; the fit itself holds the clips that are drawn.
    traits = ProbeTraits(
        fits_together=True,
        count_bytes=lambda probe, n_clips, width, n_classes: (
            width * (4 * n_clips + BYTES_OF_FEATURE * min(n_clips, probe.n_per_class * n_classes))
        ),
    )

    def __init__(self, n_per_class: int = 5, strength: float = 0.1, random_state: int = 0) -> None:
        self.n_per_class = n_per_class
        self.strength = strength
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> FewShotProbe:
        """Draw and fit.

        Args:
            X: (clips, width) embeddings of the training clips.
            y: (clips,) labels.
            X_valid, y_valid: not looked at.

        Returns:
            self.

        Raises:
            ValueError: if a setting, shape or value is not legal.
        """
        return self.fit_together([self], [(X, y, X_valid, y_valid)])[0]

    @staticmethod
    def fit_together(probes: Sequence[FewShotProbe], splits: Sequence[Split]) -> Sequence[FewShotProbe]:
        """Fit several probes, each on its own clips, side by side.

        Args:
            probes: unfitted.
            splits: X and y of each, as in `fit`, and two values that are not used.

        Returns:
            The probes, fitted.

        Raises:
            ValueError: as `fit`.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> draws = [FewShotProbe(n_per_class=1, random_state=seed) for seed in range(2)]
            >>> [len(probe.drawn_) for probe in FewShotProbe.fit_together(draws, [(X, y, None, None)] * 2)]
            [2, 2]
        """
        inner, drawn_splits = [], []
        for probe, (X, y, _, _) in zip(probes, splits, strict=True):
            features, labels = check_pair(X, y, "training")
            if probe.n_per_class < 1:
                raise ValueError(f"n_per_class must be at least 1, got {probe.n_per_class}")
            probe.drawn_ = draw_clips(labels, probe.n_per_class, probe.random_state)
            inner.append(LinearProbe(strengths=(probe.strength,)))
            drawn_splits.append((features[probe.drawn_], labels[probe.drawn_], None, None))
        for probe, fitted in zip(probes, LinearProbe.fit_together(inner, drawn_splits), strict=True):
            probe._fitted = fitted
            for name in ("classes_", "coef_", "intercept_", "converged_", "n_features_in_"):
                setattr(probe, name, getattr(fitted, name))
        return probes

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
            >>> FewShotProbe(n_per_class=2).fit(X, y).predict_proba(X).shape
            (4, 2)
        """
        check_is_fitted(self, "drawn_")
        return self._fitted.predict_proba(X)

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
            >>> FewShotProbe(n_per_class=2).fit(X, y).predict([[0.5], [4.5]]).tolist()
            [0, 1]
        """
        check_is_fitted(self, "drawn_")
        return self._fitted.predict(X)
