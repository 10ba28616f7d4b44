"""Logistic regression on one draw of few labelled clips, whose strength is chosen within the draw in closed form.

A strength is judged by leaving out one group of clips after another, as ridge regression on one-hot classes allows without
fitting again. It stands for logistic regression, whose loss is that of ridge regression up to the second order around
weights of zero: with K classes the strength C belongs to alpha = K / C. The chosen strength is then fitted by logistic
regression itself.

Source: leave-out residuals of ridge regression, Rifkin & Lippert, "Notes on Regularized Least Squares" (2007); of whole
groups, An, Liu & Venkatesh, "Fast cross-validation algorithms for least squares support vector machine and kernel ridge
regression", Pattern Recognition 40 (2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.metrics import METRICS
from evar.numeric.logistic import principal_coordinates
from evar.numeric.logistic_problem import LogisticFit, LogisticProblem
from evar.probes.choosing import choose_setting
from evar.probes.draws import list_members

#: groups that two classes must have, so that leaving one out says anything
LEAST_GROUPS = 3


@dataclass(frozen=True)
class DrawSettings:
    """How draws are fitted.

    Attributes:
        strengths: values of C to choose from.
        strength: C where a draw is too small to choose.
        most_separable: largest C to choose for draws with no more clips than features.
        metric: name in `evar.metrics.METRICS`, by which a strength is chosen.
        tol, max_iter: as in `evar.numeric.logistic.fit_logistic`.
    """

    strengths: tuple[float, ...]
    strength: float
    most_separable: float
    metric: str
    tol: float
    max_iter: int

    def be_closer(self, times: float) -> DrawSettings:
        """Return the same settings with a tolerance that is `times` times smaller."""
        return replace(self, tol=self.tol / times)


@dataclass(frozen=True, eq=False)
class Draw:
    """The labelled clips of one draw, and how a probe is fitted on them.

    Attributes:
        X: (clips, width) vectors.
        y: (clips,) labels, of 2 classes or more.
        groups: (clips,) group of each clip.
        settings: of the fit.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    groups: NDArray[Any]
    settings: DrawSettings

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class DrawModel:
    """A fitted classifier.

    Attributes:
        classes: (classes,) labels, sorted.
        weights: (classes, width) float64, for features as given.
        intercepts: (classes,) float64.
        strength: the C that was used.
        is_chosen: whether it was chosen within the draw.
        converged: whether the fit reached its tolerance.
    """

    classes: NDArray[Any]
    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    strength: float
    is_chosen: bool
    converged: bool

    def decide(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return logits (clips, classes) of vectors (clips, width)."""
        return X @ self.weights.T + self.intercepts

    def predict(self, X: NDArray[np.float64]) -> NDArray[Any]:
        """Return the most probable class (clips,) of vectors (clips, width)."""
        return self.classes[self.decide(X).argmax(axis=1)]


@dataclass(frozen=True, eq=False)
class PreparedDraw:
    """A draw in its principal coordinates, with its strength, ready to be fitted.

    Attributes:
        draw: the clips.
        mean, scale: (width,) of its clips; a scale of 0 leaves a feature out.
        basis: (used features, rank) float64.
        problem: for `evar.numeric.solve.solve_all`.
        is_chosen: whether the strength was chosen within the draw.
    """

    draw: Draw
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    basis: Tensor
    problem: LogisticProblem
    is_chosen: bool

    @classmethod
    def of(cls, draw: Draw) -> PreparedDraw:
        """Standardise a draw by its own clips, rotate it to its principal axes, and choose its strength.

        Args:
            draw: clips and settings.

        Example:
            >>> settings = DrawSettings((0.01, 0.1), 0.1, 0.1, "accuracy", 1e-4, 100)
            >>> one = PreparedDraw.of(Draw(np.eye(4), np.array([0, 1, 0, 1]), np.arange(4), settings))
            >>> one.problem.coordinates.shape, one.problem.n_classes
            (torch.Size([4, 3]), 2)
        """
        X = draw.X.astype(np.float64)
        mean, scale = X.mean(axis=0), X.std(axis=0)
        scale[scale <= 1e-12 * np.abs(mean)] = 0.0  # what rounding leaves of a constant feature
        varies = scale > 0
        coordinates, basis = principal_coordinates(torch.from_numpy((X[:, varies] - mean[varies]) / scale[varies]))
        classes, numbers = np.unique(draw.y, return_inverse=True)
        settings = draw.settings
        strength = choose_strength(coordinates.numpy(), draw) if coordinates.shape[1] else None
        problem = LogisticProblem(
            coordinates,
            torch.from_numpy(numbers.astype(np.int64)),
            (settings.strength if strength is None else strength,),
            len(classes),
            settings.tol,
            settings.max_iter,
        )
        return cls(draw, mean, scale, basis, problem, strength is not None)

    def make_model(self, fit: LogisticFit) -> DrawModel:
        """Turn the solution in principal coordinates into weights for the features as they were given."""
        varies = self.scale > 0
        weights = np.zeros((self.problem.n_classes, len(self.scale)))
        weights[:, varies] = (fit.weights[0, 0] @ self.basis.T).numpy() / self.scale[varies]
        return DrawModel(
            np.unique(self.draw.y),
            weights,
            fit.intercepts[0, 0].numpy() - weights @ self.mean,
            self.problem.strengths[0],
            self.is_chosen,
            bool(fit.converged.all()),
        )


def choose_strength(coordinates: NDArray[np.float64], draw: Draw) -> float | None:
    """Choose the strength of a draw by leaving out one group after another.

    The best score wins; of equal scores, the smaller squared error, then the smaller strength.

    Args:
        coordinates: (clips, rank) of the standardised features in their principal axes: orthogonal, centred columns.
        draw: the same clips.

    Returns:
        A strength; None if fewer than two classes have `LEAST_GROUPS` groups: a choice would be mere chance.

    Example:
        >>> settings = DrawSettings((0.01, 0.1), 0.1, 0.1, "accuracy", 1e-4, 100)
        >>> X, y = np.array([[-3.0], [-2], [-1], [1], [2], [3]]), np.array([0, 0, 0, 1, 1, 1])
        >>> choose_strength(X, Draw(X, y, np.arange(6), settings))
        0.1
        >>> choose_strength(X, Draw(X, y, np.array([0, 0, 1, 1, 2, 2]), settings)) is None
        True
    """
    settings = draw.settings
    classes, numbers = np.unique(draw.y, return_inverse=True)
    members, n_groups = _count_groups(draw.groups, numbers, len(classes))
    if (n_groups >= LEAST_GROUPS).sum() < 2:
        return None
    is_wide = len(draw) <= draw.X.shape[1]
    strengths = [c for c in sorted(settings.strengths) if not is_wide or c <= settings.most_separable]
    if len(strengths) < 2:
        return None
    energies = np.square(coordinates).sum(axis=0)
    axes = coordinates / np.sqrt(energies)
    targets = np.eye(len(classes))[numbers]
    scores, losses = [], []
    alphas = len(classes) / np.array(strengths)
    for left_out in predict_left_out(axes, energies / (energies + alphas[:, None]), targets, members):
        scores.append(float(METRICS[settings.metric].function(draw.y, classes[left_out.argmax(axis=1)])))
        losses.append(float(np.square(left_out - targets).mean()))
    return strengths[choose_setting(settings.metric, np.round(scores, 12), losses, strengths)]


def _count_groups(
    groups: NDArray[Any], numbers: NDArray[np.int64], n_classes: int
) -> tuple[list[NDArray[np.int64]] | None, NDArray[np.int64]]:
    """Count the members of each group, None where every clip is its own; and the groups of each class."""
    if len(np.unique(groups)) == len(groups):
        return None, np.bincount(numbers, minlength=n_classes)
    members = list_members(groups)
    n_groups = np.zeros(n_classes, np.int64)
    for own in members:
        n_groups[np.unique(numbers[own])] += 1
    return members, n_groups


def predict_left_out(
    axes: NDArray[np.float64],
    shares: NDArray[np.float64],
    targets: NDArray[np.float64],
    members: Sequence[NDArray[np.int64]] | None = None,
) -> NDArray[np.float64]:
    """Predict each clip by ridge regressions on all clips but its group, in closed form.

    The intercept is not penalised.

    Args:
        axes: (clips, rank) orthonormal, centred columns that the features span.
        shares: (penalties, rank) of each axis that each penalty leaves, 0..1.
        targets: (clips, outputs).
        members: positions of the clips of each group, where every clip lies in one; None: every clip is its own group.

    Returns:
        (penalties, clips, outputs).

    Example:
        >>> X = np.array([[-3.0], [-1.0], [1.0], [3.0]])
        >>> predict_left_out(X / np.sqrt(20), np.ones((1, 1)), 2 * X + 5).ravel().round(6).tolist()
        [-1.0, 3.0, 7.0, 11.0]
    """
    n_clips, n_outputs = targets.shape
    weights = shares.T[:, :, None] * (axes.T @ targets)[:, None]  # (rank, penalties, outputs)
    fitted = (axes @ weights.reshape(len(weights), -1)).reshape(n_clips, -1, n_outputs) + targets.mean(axis=0)
    residuals = targets[:, None] - fitted  # (clips, penalties, outputs)
    if members is None:
        rest = 1 - 1 / n_clips - np.square(axes) @ shares.T  # (clips, penalties)
        found = targets[:, None] - residuals / np.maximum(rest, 1e-9)[:, :, None]
        return np.asarray(found.swapaxes(0, 1))
    every = np.empty((len(shares), n_clips, n_outputs))
    for at, share in enumerate(shares):
        for own in members:
            kept = np.eye(len(own)) - 1 / n_clips - (axes[own] * share) @ axes[own].T
            every[at, own] = targets[own] - np.linalg.lstsq(kept, residuals[own, at], rcond=1e-9)[0]
    return every
