"""The space in which clips are compared by cosine: vectors as they are, centred, standardised or whitened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.config.registry import near_miss
from evar.numeric.axes import principal_axes, standardisation

#: from the simplest; of equal validation scores the first wins
SPACES = ("raw", "centred", "standardised", "whitened")
#: training clips that a space is fitted on, at most: more change it little, and take memory
MOST_CLIPS = 20_000
#: smallest variance that is divided by, as a share of the mean over directions
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Space:
    """One of `SPACES`, fitted on training clips.

    Attributes:
        name: one of `SPACES`.
        mean: (width,) what is taken away; None for vectors as they are.
        scale: (width,) what each feature is divided by then, 0 for features that are left out; None where nothing is.
        axes: (width, components) directions that are rescaled; None but for whitened vectors.
        factors: (components,) what their coordinates are multiplied by, beyond that of all other directions.
        rest: what all other directions are multiplied by.
        shrinkage: share of the sphere in the correlations of whitened vectors, 0..1.

    Example:
        >>> X = np.array([[1.0, 10.0], [3.0, -10.0], [2.0, 0.0]])
        >>> fit_space("centred", X).find_directions(np.array([[5.0, 0.0]])).tolist()
        [[1.0, 0.0]]
    """

    name: str
    mean: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    axes: NDArray[np.float64] | None = None
    factors: NDArray[np.float64] | None = None
    rest: float = 1.0
    shrinkage: float = 0.0

    def find_directions(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """Return vectors of length 1 in this space; a clip at the mean has none, and stays zero.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, width) float32, or fewer features where some are left out.
        """
        values = X.astype(np.float64)
        if self.mean is not None:
            values -= self.mean
        if self.scale is not None:
            varies = self.scale > 0
            values = values[:, varies] / self.scale[varies]
        if self.axes is not None and self.factors is not None:
            values = self.rest * values + (values @ self.axes * (self.factors - self.rest)) @ self.axes.T
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        return np.asarray(values / np.where(lengths > 0, lengths, 1.0), np.float32)


def fit_space(name: str, X: NDArray[Any] | None) -> Space:
    """Fit one of the spaces.

    Args:
        name: "raw" changes nothing. "centred" takes the mean of the training clips away. "standardised" also divides each
            feature by its standard deviation. "whitened" then makes all directions equally wide and uncorrelated, by the
            correlations of the features, which are shrunk towards none as far as few clips ask for.
        X: (clips, width) vectors of the training clips; None is enough for "raw". Of more than `MOST_CLIPS` clips, as many
            are used, evenly spread over the rows.

    Returns:
        The space.

    Raises:
        ValueError: if there is no such space, or it needs training clips and there are not 2.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(500, 2)) @ np.array([[3.0, 2.0], [0.0, 1.0]]) + 5
        >>> centred, white = (fit_space(name, X).find_directions(X) for name in ("centred", "whitened"))
        >>> round(np.corrcoef(centred.T)[0, 1].item(), 1), abs(round(np.corrcoef(white.T)[0, 1].item(), 1))
        (0.6, 0.0)
    """
    if name not in SPACES:
        raise ValueError(f"no space {name!r}; {near_miss(name, SPACES)}")
    if name == "raw":
        return Space(name)
    if X is None or len(X) < 2:
        raise ValueError(f"vectors can be {name} only by at least 2 training clips, got {0 if X is None else len(X)}")
    if len(X) > MOST_CLIPS:
        X = X[np.linspace(0, len(X) - 1, MOST_CLIPS).round().astype(np.int64)]
    mean, scale = standardisation(X)
    if name == "centred":
        return Space(name, mean)
    return Space(name, mean, scale) if name == "standardised" else _fit_whitening(X, mean, scale)


def _fit_whitening(X: NDArray[Any], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> Space:
    """Fit the correlations of (clips, width) vectors, shrunk by the rule of Ledoit and Wolf, and their inverse root.

    Source: Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate
        Analysis 88 (2004).
    """
    varies = scale > 0
    if not varies.any():  # all training clips are equal: only the mean can be taken away
        return Space("whitened", mean)
    scaled = (X[:, varies].astype(np.float64) - mean[varies]) / scale[varies]
    n_clips, width = scaled.shape
    axes = principal_axes(scaled)
    variances = np.square(scaled @ axes).mean(axis=0)  # (components,) of the covariance that divides by clips
    average = float(variances.sum()) / width
    squares = float(np.square(variances).sum())  # of all entries of the covariance
    distance = squares - width * average**2
    error = (float(np.square(np.square(scaled).sum(axis=1)).mean()) - squares) / n_clips
    shrinkage = 1.0 if distance <= 0 else min(1.0, max(0.0, error / distance))
    least = max(shrinkage * average, _LEAST_VARIANCE * average)
    factors = 1 / np.sqrt(np.maximum((1 - shrinkage) * variances + shrinkage * average, least))
    return Space("whitened", mean, scale, axes, factors, float(1 / np.sqrt(least)), shrinkage)
