"""L2-regularised logistic regression, exact, for many strengths and many problems at once: one class of several
(multinomial), or any number of labels a clip (one binary problem for each label, all solved side by side).

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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from evar._streamed import Coordinates

# Each Newton system is solved until its preconditioned residual has fallen to this share: more costs, less stalls.
_INNER_TOLERANCE = 0.25
_MAX_INNER = 200
_SINGLE_PRECISION_STEPS = 25
_MAX_HALVINGS = 30
# Numbers in one (batch, strength, class, clips) array: 256 MB in float64; beyond it strengths are solved in turn.
_NUMBERS_AT_ONCE = 2**25


@dataclass(frozen=True)
class LogisticFit:
    """Solutions of `fit_logistic`.

    Attributes:
        weights: (batch, strength, class, feature) float64; classes sum to 0 (multinomial).
        intercepts: (batch, strength, class) float64; classes sum to 0 (multinomial).
        converged: (batch, strength) bool.
        n_iter: (batch, strength) int64, Newton steps taken.
    """

    weights: Tensor
    intercepts: Tensor
    converged: Tensor
    n_iter: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(batch, clips, feature) -> (batch, strength, class, clips), before softmax or sigmoid."""
        logits = self.weights.flatten(1, 2) @ features.mT
        return logits.unflatten(1, self.weights.shape[1:3]) + self.intercepts[..., None]


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
    tol: float = 3e-6,
    max_iter: int = 100,
) -> LogisticFit:
    """Minimise C x (sum of the clips' log-losses) + 0.5 x ||weights||^2 for every problem and strength C.

    The intercept is not penalised. Of several labels a clip each has its own log-loss, and their sum is minimised, which
    is one binary problem for each label. With two classes, of which a clip has one, the penalty counts the one weight
    vector of the difference between the classes, as scikit-learn does, so results agree with its
    `LogisticRegression(C=C)` there too.

    Args:
        features: (batch, clips, feature) float64; problems with fewer clips or features are padded with zeros. Any
            scale is solved, but only `principal_coordinates` of standardised features are solved fast.
        labels: (batch, clips) int64 in 0..n_classes-1 (anything legal in padded rows), or (batch, clips, class) of 0 and
            1 where a clip may have several.
        strengths: values of C, positive; large means little regularisation.
        n_classes: at least 2, or 1 where a clip may have several.
        row_weights: (batch, clips) float64, weight of each clip's log-loss, 0 in padded rows; None for all 1.
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
        >>> round(float(fit.weights[0, 0, 1, 0] - fit.weights[0, 0, 0, 0]), 3)
        1.007
    """
    is_multilabel = labels.dim() == 3
    if features.dim() != 3 or labels.shape[:2] != features.shape[:2] or features.dtype != torch.float64:
        raise ValueError(
            "features must be (batch, clips, feature) float64 and labels (batch, clips) or (batch, clips, class), got "
            f"{tuple(features.shape)} {features.dtype} and {tuple(labels.shape)}"
        )
    if n_classes < 2 - is_multilabel or not strengths or not all(0 < c < math.inf for c in strengths):
        raise ValueError(
            f"logistic regression needs 2 classes or more and positive strengths, got {n_classes} and {list(strengths)}"
        )
    n_problems, n_clips, n_features = features.shape
    if row_weights is None:
        row_weights = features.new_ones(n_problems, n_clips)
    ones = features.new_ones(n_problems, n_clips, 1)
    problem = _Problem(torch.cat([features, ones], dim=2), labels, row_weights, n_classes)
    # Always from zero: a solution of weaker or fewer clips is a worse start, as the clips that it gets wrong are then
    # the only ones with curvature, far from the average that the preconditioner knows.
    weights = features.new_zeros(n_problems, len(strengths), n_classes, n_features + 1)
    converged = torch.zeros(n_problems, len(strengths), dtype=torch.bool, device=features.device)
    n_iter = torch.zeros(n_problems, len(strengths), dtype=torch.int64, device=features.device)
    # Two symmetric vectors +-w/2 have half the penalty of w, hence half the strength.
    scaled = features.new_tensor(strengths) * (0.5 if n_classes == 2 and not is_multilabel else 1.0)
    at_once = max(1, _NUMBERS_AT_ONCE // (n_problems * n_clips * n_classes))
    for part in torch.arange(len(strengths), device=features.device).split(at_once):
        weights[:, part], converged[:, part], n_iter[:, part] = _newton(problem, scaled[part], tol, max_iter)
    # Adding a constant to all classes changes no probability; the penalty's minimum has none.
    if not is_multilabel:
        weights -= weights.mean(dim=2, keepdim=True)
    return LogisticFit(weights[..., :-1], weights[..., -1], converged, n_iter)


#: numbers in a batch of small problems: beyond it, products are large enough to be fast one by one
_BATCHED_NUMBERS = 2**21


@dataclass(frozen=True)
class LogisticProblem:
    """One problem for `solve_all`: coordinates (clips, rank) float64 (or computed when needed), labels (clips,) or (clips,
    class), and settings."""

    coordinates: Tensor | Coordinates
    labels: Tensor
    strengths: tuple[float, ...]
    n_classes: int
    tol: float
    max_iter: int


def solve_all(problems: Sequence[LogisticProblem]) -> list[LogisticFit]:
    """Solve each problem, in batches where the settings agree and the problems are small; a batch axis of 1 each.

    Problems whose coordinates are no tensor, but `evar._streamed.Coordinates`, are solved in passes over their rows.
    """
    from evar._streamed import fit_streamed

    batches: dict[tuple[Any, ...], list[int]] = {}
    found: dict[int, LogisticFit] = {}
    for index, one in enumerate(problems):
        if not isinstance(one.coordinates, Tensor):
            found[index] = fit_streamed(one)
            continue
        is_small = one.coordinates.numel() * len(problems) <= _BATCHED_NUMBERS
        settings = (one.strengths, one.n_classes, one.tol, one.max_iter, one.labels.dim())
        batches.setdefault(settings if is_small else (*settings, index), []).append(index)
    for indices in batches.values():
        batch = [problems[index] for index in indices]
        shape = [max(one.coordinates.shape[axis] for one in batch) for axis in (0, 1)]
        features = torch.zeros(len(batch), *shape, dtype=torch.float64)  # (batch, clips, rank), zero-padded
        labels = torch.zeros(len(batch), shape[0], *batch[0].labels.shape[1:], dtype=torch.int64)
        row_weights = features.new_zeros(len(batch), shape[0])
        for at, one in enumerate(batch):
            n_clips, rank = one.coordinates.shape
            assert isinstance(one.coordinates, Tensor)
            features[at, :n_clips, :rank] = one.coordinates
            labels[at, :n_clips], row_weights[at, :n_clips] = one.labels, 1.0
        fit = fit_logistic(
            features,
            labels,
            batch[0].strengths,
            row_weights=row_weights,
            n_classes=batch[0].n_classes,
            tol=batch[0].tol,
            max_iter=batch[0].max_iter,
        )
        for at, (index, one) in enumerate(zip(indices, batch, strict=True)):
            own = slice(at, at + 1)
            weights = fit.weights[own, ..., : one.coordinates.shape[1]]
            found[index] = LogisticFit(weights, fit.intercepts[own], fit.converged[own], fit.n_iter[own])
    return [found[index] for index in range(len(problems))]


class _Problem:
    """Data of a batch of problems; the last column of a design is the intercept's.

    What is solved are items: a problem at one strength each, in the order of their problems. Weights are (item, class,
    column) and logits (item, class, clips): long axes last, so that all strengths and classes of a problem are the rows
    of one product, which is fast even when they are few.
    """

    def __init__(self, design: Tensor, labels: Tensor, row_weights: Tensor, n_classes: int) -> None:
        self.design = _Designs(design)
        self.design_single = _Designs(design.float())
        self.n_classes = n_classes
        self.is_multilabel = labels.dim() == 3
        shares = labels if self.is_multilabel else torch.nn.functional.one_hot(labels, n_classes)
        self.targets = shares.mT.to(design)  # (batch, class, clips)
        self.row_weights = row_weights[:, None]  # (batch, 1, clips)
        self.energy = (design.square() * row_weights[:, :, None]).sum(dim=1)  # (batch, column)
        self.penalty = design.new_ones(design.shape[2])  # (column,)
        self.penalty[-1] = 0.0


class _Designs:
    """Designs of a batch of problems, and products with the items that are being solved."""

    def __init__(self, design: Tensor) -> None:
        self.design = design  # (batch, clips, column)
        self.turned = design.mT.contiguous()  # the faster layout for products that sum over columns

    def logits(self, weights: Tensor, counts: Sequence[int]) -> Tensor:
        """Weights (item, class, column) of so many items of each problem -> (item, class, clips)."""
        return _times(weights, self.turned, counts)

    def sums(self, of_clips: Tensor, counts: Sequence[int]) -> Tensor:
        """(item, class, clips) -> sums over clips of these times their rows, (item, class, column)."""
        return _times(of_clips, self.design, counts)


def _times(rows: Tensor, matrices: Tensor, counts: Sequence[int]) -> Tensor:
    """(item, class, i) times (batch, i, j) -> (item, class, j), one product for the items of each problem."""
    n_items, n_classes, _ = rows.shape
    product = rows.new_empty(n_items * n_classes, matrices.shape[2])
    flat = rows.reshape(n_items * n_classes, -1)
    at = 0
    for matrix, count in zip(matrices, counts, strict=True):
        if count:
            end = at + count * n_classes
            torch.mm(flat[at:end], matrix, out=product[at:end])
            at = end
    return product.view(n_items, n_classes, -1)


@dataclass
class _Items:
    """The items that are not yet solved, and where they are.

    Attributes:
        problem: data of their problems.
        owner: (item,) int64, position of the problem; ascending.
        strengths: (item,).
        weights: (item, class, column).
        logits: (item, class, clips).
        value: (item,) of the objective.
    """

    problem: _Problem
    owner: Tensor
    strengths: Tensor
    weights: Tensor
    logits: Tensor
    value: Tensor

    @classmethod
    def at_zero(cls, problem: _Problem, strengths: Tensor) -> _Items:
        """Every problem at every strength, all weights 0."""
        n_problems, n_clips, n_columns = problem.design.design.shape
        owner = torch.arange(n_problems, device=strengths.device).repeat_interleave(len(strengths))
        zeros = problem.targets.new_zeros
        items = cls(
            problem,
            owner,
            strengths.repeat(n_problems),
            zeros(len(owner), problem.n_classes, n_columns),
            zeros(len(owner), problem.n_classes, n_clips),
            zeros(len(owner)),
        )
        items.value = items.objective(items.logits, items.weights)
        return items

    def counts(self) -> list[int]:
        """How many there are of each problem."""
        return self.owner.bincount(minlength=len(self.problem.targets)).tolist()

    def of_problems(self, values: Tensor) -> Tensor:
        """(batch, ...) -> (item, ...), or (1, ...) of a batch of one."""
        return values if len(values) == 1 else values[self.owner]

    def objective(self, logits: Tensor, weights: Tensor) -> Tensor:
        """(item,) value to minimise."""
        softplus = torch.nn.functional.softplus
        partition = softplus(logits).sum(dim=1) if self.problem.is_multilabel else torch.logsumexp(logits, dim=1)
        losses = partition - (logits * self.of_problems(self.problem.targets)).sum(dim=1)  # (item, clips)
        ridge = (self.problem.penalty * weights.square()).sum(dim=(1, 2))
        return self.strengths * (losses * self.of_problems(self.problem.row_weights[:, 0])).sum(dim=1) + 0.5 * ridge

    def probabilities(self) -> Tensor:
        """(item, class, clips)."""
        return torch.sigmoid(self.logits) if self.problem.is_multilabel else torch.softmax(self.logits, dim=1)

    def only(self, kept: Tensor) -> _Items:
        """Those where `kept` (item) is True."""
        own = (self.owner, self.strengths, self.weights, self.logits, self.value)
        return _Items(self.problem, *(value[kept] for value in own))


def _newton(problem: _Problem, strengths: Tensor, tol: float, max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    """Minimise for each strength: weights (batch, strength, class, column), converged and steps (batch, strength)."""
    items = _Items.at_zero(problem, strengths)
    solved = items.weights.clone()
    converged = torch.zeros_like(items.owner, dtype=torch.bool)
    n_iter = torch.zeros_like(items.owner)
    active = torch.arange(len(items.owner), device=strengths.device)
    for count in range(max_iter):
        counts = items.counts()
        probabilities = items.probabilities()
        residual = (probabilities - items.of_problems(problem.targets)) * items.of_problems(problem.row_weights)
        gradient = problem.design.sums(residual, counts) * items.strengths[:, None, None]
        gradient += problem.penalty * items.weights
        dtype = torch.float32 if count < _SINGLE_PRECISION_STEPS else torch.float64
        step, is_solved = newton_step(_Curvature(items, probabilities, dtype), gradient)
        logit_step = problem.design.logits(step, counts)
        slope = (gradient * step).sum(dim=(1, 2))  # (item,), <= 0
        length = torch.ones_like(slope)
        for _ in range(_MAX_HALVINGS):
            scale = length[:, None, None]
            weights, logits = items.weights + scale * step, items.logits + scale * logit_step
            value = items.objective(logits, weights)
            # The last term forgives rounding, which alone remains near the minimum.
            is_short = value > items.value + 1e-4 * length * slope + 1e-12 * items.value.abs()
            if not bool(is_short.any()):
                break
            length = torch.where(is_short, length / 2, length)
        items.weights, items.logits, items.value = weights, logits, value
        # A Newton step lowers the objective by half its slope. Of that, strength x KL divergence is owed to each clip,
        # and by Pinsker's inequality a divergence of 2 tol^2 moves no probability by more than tol.
        is_done = (-slope <= 2 * items.strengths * tol**2) & (length == 1) & is_solved
        solved[active] = items.weights
        converged[active] = is_done
        n_iter[active] += 1
        if bool(is_done.all()):
            break
        if bool(is_done.any()):
            active, items = active[~is_done], items.only(~is_done)
    shape = (len(problem.targets), len(strengths))
    return solved.unflatten(0, shape), converged.view(shape), n_iter.view(shape)


class Curvature:
    """Second derivatives of the objective, as products, and an approximate inverse of them.

    The inverse is that of the curvature that there would be if columns were orthogonal and every clip had the average
    class covariance: (strength x energy of the column) x covariance + penalty, diagonal in the covariance's axes.
    """

    def precondition(
        self,
        spread: Tensor,
        energy: Tensor,
        penalty: Tensor,
        strengths: Tensor,
        is_multilabel: bool,
        dtype: torch.dtype,
    ) -> None:
        """Set the approximate inverse.

        Args:
            spread: mean covariance of the classes (item, class, class), or mean variance of labels (item, class).
            energy: (item, column) sum of squares, or (1, column).
            penalty: (column,).
            strengths: (item,).
            is_multilabel: whether labels are problems of their own.
            dtype: of the products.
        """
        self.penalty, self.is_multilabel = penalty.to(dtype), is_multilabel
        self.strengths = strengths.to(dtype)[:, None, None]  # (item, 1, 1)
        spread, energy = spread.to(dtype), energy.to(dtype)[:, None, :]
        if is_multilabel:  # labels do not touch each other: the axes are the labels themselves
            self.axes = torch.ones_like(spread[..., None])
            self.inverse = 1 / (self.strengths * spread[..., None] * energy + self.penalty).clamp(min=1e-20)
            return
        # All classes moving together changes nothing; giving that direction curvature keeps the inverse finite.
        trace = spread.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
        values, self.axes = torch.linalg.eigh(spread + trace / spread.shape[-1])
        curved = self.strengths * values.clamp(min=0)[..., None] * energy + self.penalty
        self.inverse = 1 / curved.clamp(min=1e-20)  # (item, class, column)

    def times(self, vector: Tensor) -> Tensor:
        """(item, class, column) -> the same shape."""
        raise NotImplementedError

    def approximate_inverse(self, vector: Tensor) -> Tensor:
        """(item, class, column) -> the same shape."""
        if self.is_multilabel:
            return self.inverse * vector
        return self.axes @ (self.inverse * (self.axes.mT @ vector))

    def keep(self, kept: Tensor) -> None:
        """Drop the items where `kept` (item) is False."""
        self.strengths, self.axes, self.inverse = self.strengths[kept], self.axes[kept], self.inverse[kept]


class _Curvature(Curvature):
    """The curvature of items at their probabilities (item, class, clips)."""

    def __init__(self, items: _Items, probabilities: Tensor, dtype: torch.dtype) -> None:
        problem = items.problem
        self.design = problem.design_single if dtype == torch.float32 else problem.design
        self.owner, self.n_problems, self.counts = items.owner, len(problem.targets), items.counts()
        self.share = probabilities.to(dtype)
        row_weights = items.of_problems(problem.row_weights).to(dtype)
        self.weighted = self.share * row_weights
        n_clips = row_weights.sum(dim=2)  # (item, 1)
        if problem.is_multilabel:
            self.weighted = self.weighted * (1 - self.share)
            spread = self.weighted.sum(dim=2) / n_clips
        else:
            spread = torch.diag_embed(self.weighted.sum(dim=2)) - self.weighted @ self.share.mT
            spread = spread / n_clips[..., None]
        energy = items.of_problems(problem.energy)
        self.precondition(spread, energy, problem.penalty, items.strengths, problem.is_multilabel, dtype)

    def times(self, vector: Tensor) -> Tensor:
        """(item, class, column) -> the same shape."""
        logits = self.design.logits(vector, self.counts)
        if not self.is_multilabel:
            logits -= (self.share * logits).sum(dim=1, keepdim=True)
        logits *= self.weighted
        return torch.addcmul(self.penalty * vector, self.strengths, self.design.sums(logits, self.counts))

    def keep(self, kept: Tensor) -> None:
        """Drop the items where `kept` (item) is False."""
        super().keep(kept)
        self.share, self.weighted, self.owner = self.share[kept], self.weighted[kept], self.owner[kept]
        self.counts = self.owner.bincount(minlength=self.n_problems).tolist()


def newton_step(curvature: Curvature, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Solve curvature x step = -gradient by conjugate gradients: the step (item, class, column), and for which items
    `_INNER_TOLERANCE` was reached."""
    dtype = curvature.inverse.dtype
    # Scaled to 1, so that float32 neither overflows nor loses small gradients near the minimum.
    size = gradient.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-300)
    residual = (-gradient / size).to(dtype)
    solution = torch.zeros_like(residual)
    direction = curvature.approximate_inverse(residual)
    error = (residual * direction).sum(dim=(1, 2))  # (item,)
    goal = _INNER_TOLERANCE**2 * error
    is_open = error > 0
    is_unsolved = is_open.clone()
    step, left = solution.clone(), torch.arange(len(gradient), device=gradient.device)
    for _ in range(_MAX_INNER):
        n_open = int(is_open.sum())
        if not n_open:
            break
        if 4 * n_open <= 3 * len(is_open):  # solved items would ride along at full cost
            solution[left] = step
            left, step, residual, direction = left[is_open], step[is_open], residual[is_open], direction[is_open]
            error, goal = error[is_open], goal[is_open]
            curvature.keep(is_open)
            is_open = is_open[is_open]
        bent = curvature.times(direction)
        length = torch.where(is_open, error / (direction * bent).sum(dim=(1, 2)), 0.0)[:, None, None]
        step.addcmul_(length, direction)
        residual.addcmul_(length, bent, value=-1)
        towards = curvature.approximate_inverse(residual)
        new_error = (residual * towards).sum(dim=(1, 2))
        is_open = is_open & (new_error > goal)
        is_unsolved[left] = is_open
        direction = towards.addcmul_(torch.where(is_open, new_error / error, 0.0)[:, None, None], direction)
        error = new_error
    solution[left] = step
    return solution.to(gradient.dtype) * size, ~is_unsolved
