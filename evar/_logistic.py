"""L2-regularised multinomial logistic regression, exact, for many strengths and many problems at once.

Method: Newton steps whose linear systems are solved by preconditioned conjugate gradients. Gradients, objective and
line search are float64; only the curvature products, which steer a step but do not decide where it ends, are float32
(float64 after 25 steps: where clips are fitted almost perfectly, float32 rounds their curvature away).
The penalty does not change under a rotation of the features, so `principal_coordinates` turns them first: fewer
columns where clips are fewer than features, and nearly orthogonal columns, for which the preconditioner is close to
the true inverse curvature.

Source: objective as in scikit-learn's LogisticRegression; truncated Newton steps, Nocedal & Wright, "Numerical
Optimization" (2006), ch. 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Each Newton system is solved until its preconditioned residual has fallen to this share: more costs, less stalls.
_INNER_TOLERANCE = 0.25
_MAX_INNER = 200
_SINGLE_PRECISION_STEPS = 25
_MAX_HALVINGS = 30
# Numbers in one (batch, clips, strengths, classes) array: 256 MB in float64; beyond it strengths are solved in turn.
_NUMBERS_AT_ONCE = 2**25


@dataclass(frozen=True)
class LogisticFit:
    """Solutions of `fit_logistic`.

    Attributes:
        weights: (batch, feature, strength, class) float64; classes sum to 0.
        intercepts: (batch, strength, class) float64; classes sum to 0.
        converged: (batch, strength) bool.
        n_iter: (batch, strength) int64, Newton steps taken.
    """

    weights: Tensor
    intercepts: Tensor
    converged: Tensor
    n_iter: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(batch, clips, feature) -> (batch, clips, strength, class), before softmax."""
        n_problems, n_features, n_strengths, n_classes = self.weights.shape
        flat = self.weights.reshape(n_problems, n_features, -1)
        scores = (features @ flat).reshape(n_problems, -1, n_strengths, n_classes)
        return scores + self.intercepts[:, None]


def principal_coordinates(features: Tensor) -> tuple[Tensor, Tensor]:
    """Express rows in an orthonormal basis of the space that they span.

    A ridge-penalised linear model on the coordinates is the same model as on the features, with
    weights (feature) = basis @ weights (coordinate). Cost: one eigendecomposition of size min(clips, feature).

    Args:
        features: (clips, feature) float64, centred.

    Returns:
        Coordinates (clips, rank) and basis (feature, rank), float64; rank may be 0.

    Example:
        >>> rows = torch.tensor([[3.0, 4.0], [-3.0, -4.0]]).double()
        >>> coordinates, basis = principal_coordinates(rows)
        >>> coordinates.shape, torch.allclose(coordinates @ basis.T, rows)
        (torch.Size([2, 1]), True)
    """
    n_clips, n_features = features.shape
    if n_features == 0:
        return features, features.new_zeros(0, 0)
    is_wide = n_clips < n_features
    gram = features @ features.T if is_wide else features.T @ features
    values, vectors = torch.linalg.eigh(gram)
    # What rounding alone can produce is not a direction of the data.
    floor = values[-1] * len(values) * torch.finfo(values.dtype).eps
    is_kept = values > floor
    values, vectors = values[is_kept], vectors[:, is_kept]
    if not is_wide:
        return features @ vectors, vectors
    root = values.sqrt()
    return vectors * root, features.T @ (vectors / root)


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    strengths: Sequence[float],
    *,
    n_classes: int,
    row_weights: Tensor | None = None,
    start: LogisticFit | None = None,
    tol: float = 3e-6,
    max_iter: int = 100,
) -> LogisticFit:
    """Minimise C x (sum of the clips' log-losses) + 0.5 x ||weights||^2 for every problem and strength C.

    The intercept is not penalised. With two classes the penalty counts the one weight vector of the difference
    between the classes, as scikit-learn does, so results agree with its `LogisticRegression(C=C)` there too.

    Args:
        features: (batch, clips, feature) float64; problems with fewer clips or features are padded with zeros. Any
            scale is solved, but only `principal_coordinates` of standardised features are solved fast.
        labels: (batch, clips) int64 in 0..n_classes-1 (anything legal in padded rows).
        strengths: values of C, positive; large means little regularisation.
        n_classes: at least 2.
        row_weights: (batch, clips) float64, weight of each clip's log-loss, 0 in padded rows; None for all 1.
        start: solution to start from, of one strength.
        tol: stop when a full Newton step could move no fitted clip's probability by more (judged by the fall of the
            objective); the error left is smaller still, and that of other clips of the same kind about as small.
        max_iter: Newton steps at most.

    Returns:
        The solutions, for each strength in the given order.

    Raises:
        ValueError: if shapes do not fit, a strength is not positive, or there are fewer than 2 classes.

    Example:
        >>> X = torch.tensor([[[-2.0], [-1.0], [1.0], [2.0]]]).double()
        >>> fit = fit_logistic(X, torch.tensor([[0, 0, 1, 1]]), [1.0], n_classes=2)
        >>> round(float(fit.weights[0, 0, 0, 1] - fit.weights[0, 0, 0, 0]), 3)
        1.007
    """
    if features.dim() != 3 or labels.shape != features.shape[:2] or features.dtype != torch.float64:
        raise ValueError(
            "features must be (batch, clips, feature) float64 and labels (batch, clips), got "
            f"{tuple(features.shape)} {features.dtype} and {tuple(labels.shape)}"
        )
    if n_classes < 2 or not strengths or not all(0 < c < math.inf for c in strengths):
        raise ValueError(
            f"logistic regression needs 2 classes or more and positive strengths, got {n_classes} and {list(strengths)}"
        )
    n_problems, n_clips, n_features = features.shape
    if row_weights is None:
        row_weights = features.new_ones(n_problems, n_clips)
    ones = features.new_ones(n_problems, n_clips, 1)
    problem = _Problem(torch.cat([features, ones], dim=2), labels, row_weights, n_classes)
    # Weak ones first, so that a group of strengths can start from the one before it.
    order = sorted(range(len(strengths)), key=lambda index: strengths[index])
    at_once = max(1, _NUMBERS_AT_ONCE // (n_problems * n_clips * n_classes))
    weights = features.new_zeros(n_problems, n_features + 1, len(strengths), n_classes)
    converged = torch.zeros(n_problems, len(strengths), dtype=torch.bool, device=features.device)
    n_iter = torch.zeros(n_problems, len(strengths), dtype=torch.int64, device=features.device)
    begin = features.new_zeros(n_problems, n_features + 1, 1, n_classes)
    if start is not None:
        begin = torch.cat([start.weights, start.intercepts[:, None]], dim=1)
    for first in range(0, len(order), at_once):
        chosen = order[first : first + at_once]
        # Two symmetric vectors +-w/2 have half the penalty of w, hence half the strength.
        scaled = features.new_tensor([strengths[index] * (0.5 if n_classes == 2 else 1.0) for index in chosen])
        solution = _newton(problem, scaled, begin.expand(-1, -1, len(chosen), -1).clone(), tol, max_iter)
        weights[:, :, chosen], converged[:, chosen], n_iter[:, chosen] = solution
        begin = solution[0][:, :, -1:]
    # Adding a constant to all classes changes no probability; the penalty's minimum has none.
    weights -= weights.mean(dim=3, keepdim=True)
    return LogisticFit(weights[:, :-1], weights[:, -1], converged, n_iter)


class _Problem:
    """Data of a batch of problems, in both precisions; the last column is the intercept's."""

    def __init__(self, design: Tensor, labels: Tensor, row_weights: Tensor, n_classes: int) -> None:
        self.design = design  # (batch, clips, column)
        self.design_single = design.float()
        self.targets = torch.nn.functional.one_hot(labels, n_classes).to(design)[:, :, None]  # (batch, clips, 1, class)
        self.row_weights = row_weights[:, :, None]  # (batch, clips, 1)
        self.energy = (design.square() * self.row_weights).sum(dim=1)  # (batch, column)
        penalty = design.new_ones(design.shape[2])
        penalty[-1] = 0.0
        self.penalty = penalty[:, None, None]  # (column, 1, 1)

    def objective(self, logits: Tensor, weights: Tensor, strengths: Tensor) -> Tensor:
        """(batch, strength) value to minimise."""
        losses = torch.logsumexp(logits, dim=3) - (logits * self.targets).sum(dim=3)  # (batch, clips, strength)
        ridge = (self.penalty * weights.square()).sum(dim=(1, 3))
        return strengths * (losses * self.row_weights).sum(dim=1) + 0.5 * ridge


def _apply(matrix: Tensor, columns: Tensor) -> Tensor:
    """(batch, i, j) times (batch, j, strength, class) -> (batch, i, strength, class), as one product per problem."""
    return (matrix @ columns.flatten(2)).reshape(matrix.shape[0], -1, *columns.shape[2:])


def _newton(
    problem: _Problem, strengths: Tensor, weights: Tensor, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise from `weights` (batch, column, strength, class); returns weights, converged and steps."""
    solved = weights.clone()
    converged = torch.zeros(weights.shape[0], len(strengths), dtype=torch.bool, device=weights.device)
    n_iter = torch.zeros_like(converged, dtype=torch.int64)
    active = torch.arange(len(strengths), device=weights.device)
    logits = _apply(problem.design, weights)
    value = problem.objective(logits, weights, strengths)
    for count in range(max_iter):
        probabilities = torch.softmax(logits, dim=3)
        residual = (probabilities - problem.targets) * problem.row_weights[..., None]
        gradient = strengths[:, None] * _apply(problem.design.mT, residual) + problem.penalty * weights
        dtype = torch.float32 if count < _SINGLE_PRECISION_STEPS else torch.float64
        step, is_solved = _newton_step(problem, gradient, probabilities, strengths, dtype)
        logit_step = _apply(problem.design, step)
        slope = (gradient * step).sum(dim=(1, 3))  # (batch, strength), <= 0
        length = torch.ones_like(slope)
        for _ in range(_MAX_HALVINGS):
            scale = length[:, None, :, None]
            new_value = problem.objective(logits + scale * logit_step, weights + scale * step, strengths)
            # The last term forgives rounding, which alone remains near the minimum.
            is_short = new_value > value + 1e-4 * length * slope + 1e-12 * value.abs()
            if not bool(is_short.any()):
                break
            length = torch.where(is_short, length / 2, length)
        scale = length[:, None, :, None]
        weights, logits, value = weights + scale * step, logits + scale * logit_step, new_value
        # A Newton step lowers the objective by half its slope. Of that, strength x KL divergence is owed to each clip,
        # and by Pinsker's inequality a divergence of 2 tol^2 moves no probability by more than tol.
        is_done = (-slope <= 2 * strengths * tol**2) & (length == 1) & is_solved
        solved[:, :, active] = weights
        converged[:, active] = is_done
        n_iter[:, active] += 1
        is_left = ~is_done.all(dim=0)
        if not bool(is_left.any()):
            break
        if not bool(is_left.all()):
            active, strengths, value = active[is_left], strengths[is_left], value[:, is_left]
            weights, logits = weights[:, :, is_left], logits[:, :, is_left]
    return solved, converged, n_iter


def _newton_step(
    problem: _Problem, gradient: Tensor, probabilities: Tensor, strengths: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Solve curvature @ step = -gradient to `_INNER_TOLERANCE`: the step, and where that was reached.

    Preconditioner: the curvature that there would be if columns were orthogonal and every clip had the average
    class covariance, (strength x energy of the column) x covariance + penalty. Its eigenvectors over classes invert it.
    """
    design = problem.design_single if dtype == torch.float32 else problem.design
    share = probabilities.to(dtype)
    weighted = share * problem.row_weights[..., None].to(dtype)
    strength, penalty = strengths.to(dtype)[:, None], problem.penalty.to(dtype)

    total = problem.row_weights.sum(dim=1)[..., None, None].to(dtype)  # (batch, 1, 1, 1)
    mixed = torch.einsum("bnsk,bnsl->bskl", weighted, share)
    covariance = (torch.diag_embed(weighted.sum(dim=1)) - mixed) / total  # (batch, strength, class, class)
    # All classes moving together changes nothing; giving that direction curvature keeps the inverse finite.
    trace = covariance.diagonal(dim1=2, dim2=3).mean(dim=2)[..., None, None]
    spread, axes = torch.linalg.eigh(covariance + trace / covariance.shape[-1])
    energy = problem.energy.to(dtype)[:, :, None, None]
    inverse = 1 / (strength * energy * spread.clamp(min=0)[:, None] + penalty).clamp(min=1e-20)

    def precondition(vector: Tensor) -> Tensor:
        turned = vector.transpose(1, 2) @ axes  # (batch, strength, column, class)
        return ((turned * inverse.transpose(1, 2)) @ axes.mT).transpose(1, 2)

    def curvature(vector: Tensor) -> Tensor:
        logits = _apply(design, vector)
        centred = weighted * (logits - (share * logits).sum(dim=3, keepdim=True))
        return strength * _apply(design.mT, centred) + penalty * vector

    # Scaled to 1, so that float32 neither overflows nor loses small gradients near the minimum.
    size = gradient.abs().amax(dim=(1, 3), keepdim=True).clamp(min=1e-300)
    residual = (-gradient / size).to(dtype)
    step = torch.zeros_like(residual)
    towards = precondition(residual)
    direction = towards
    error = (residual * towards).sum(dim=(1, 3))  # (batch, strength)
    goal = _INNER_TOLERANCE**2 * error
    is_open = error > 0
    for _ in range(_MAX_INNER):
        if not bool(is_open.any()):
            break
        bent = curvature(direction)
        length = torch.where(is_open, error / (direction * bent).sum(dim=(1, 3)), 0.0)[:, None, :, None]
        step = step + length * direction
        residual = residual - length * bent
        towards = precondition(residual)
        new_error = (residual * towards).sum(dim=(1, 3))
        is_open = is_open & (new_error > goal)
        direction = towards + torch.where(is_open, new_error / error, 0.0)[:, None, :, None] * direction
        error = new_error
    return step.to(gradient.dtype) * size, ~is_open
