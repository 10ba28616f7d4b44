"""L2-regularised logistic regression, exact, for many strengths and many problems at once: one class of several
(multinomial), or any number of labels a clip (one binary problem for each label, all solved side by side).

Method: Newton's, of many problems and strengths side by side, each at its own pace (`evar.numeric.descent`). Gradients,
objective and line search are float64.
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

from evar.numeric.descent import Items, descend, search_line
from evar.numeric.logistic_problem import LogisticFit, compute_losses, compute_shares, scale_strengths
from evar.numeric.newton import Curvature

# Numbers in one (batch, strength, class, clips) array: 256 MB in float64; beyond it problems and strengths are solved in
# turn.
NUMBERS_AT_ONCE = 2**25


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
            1 if a clip may have several.
        strengths: values of C, positive; large means little regularisation.
        n_classes: at least 2, or 1 if a clip may have several.
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
    n_problems = len(features)
    if row_weights is None:
        row_weights = features.new_ones(features.shape[:2])
    of_each = features.new_tensor(strengths).expand(n_problems, -1)
    return fit_batch(features, labels, row_weights, of_each, features.new_full((n_problems,), tol), n_classes, max_iter)


def fit_batch(
    features: Tensor,
    labels: Tensor,
    row_weights: Tensor,
    strengths: Tensor,
    tol: Tensor,
    n_classes: int,
    max_iter: int,
) -> LogisticFit:
    """Solve a batch of problems, each at strengths and a tolerance of its own.

    Args:
        features, labels, row_weights, n_classes, max_iter: as for `fit_logistic`.
        strengths: (batch, strength) float64, positive.
        tol: (batch,) float64.

    Returns:
        The solutions.
    """
    ones = features.new_ones(*features.shape[:2], 1)
    problem = _Problem(torch.cat([features, ones], dim=2), labels, row_weights, n_classes)
    n_problems, n_clips, n_columns = problem.design.shape
    # Always from zero: a solution of weaker or fewer clips is a worse start, as the clips that it gets wrong are then
    # the only ones with curvature, far from the average that the preconditioner knows.
    weights = features.new_zeros(*strengths.shape, n_classes, n_columns)
    converged = torch.zeros(strengths.shape, dtype=torch.bool, device=features.device)
    n_iter = torch.zeros(strengths.shape, dtype=torch.int64, device=features.device)
    scaled = scale_strengths(strengths, n_classes, problem.is_multilabel)
    at_once = max(1, NUMBERS_AT_ONCE // (n_problems * n_clips * n_classes))
    for part in torch.arange(strengths.shape[1], device=features.device).split(at_once):
        items = _Items.at_zero(problem, scaled[:, part], tol)
        shape = scaled[:, part].shape
        converged[:, part] = descend(items, max_iter).view(shape)
        weights[:, part], n_iter[:, part] = items.weights.unflatten(0, shape), items.n_iter.view(shape)
    # Adding a constant to all classes changes no probability; the penalty's minimum has none.
    if not problem.is_multilabel:
        weights -= weights.mean(dim=2, keepdim=True)
    return LogisticFit(weights[..., :-1], weights[..., -1], converged, n_iter)


#: numbers in the coordinates of a batch of problems (160 MB in all that is made of them)
BATCHED_NUMBERS = 2**22


#: sizes of problems that are solved side by side lie less far apart
SHAPES_APART = 32


class _Problem:
    """Data of a batch of problems; the last column of a design is the intercept's.

    What is solved are items: a problem at one strength each, in the order of their problems. Weights are (item, class,
    column) and logits (item, class, clips): long axes last, so that all strengths and classes of a problem are the rows
    of one product, which is fast even when they are few.
    """

    def __init__(self, design: Tensor, labels: Tensor, row_weights: Tensor, n_classes: int) -> None:
        self.design = design  # (batch, clips, column)
        self.turned = _turn_design(design)  # (batch, column, clips)
        self.n_classes = n_classes
        self.is_multilabel = labels.dim() == 3
        shares = labels if self.is_multilabel else torch.nn.functional.one_hot(labels, n_classes)
        self.targets = shares.mT.to(design)  # (batch, class, clips)
        self.row_weights = row_weights[:, None]  # (batch, 1, clips)
        self.energy = (design.square() * row_weights[:, :, None]).sum(dim=1)  # (batch, column)
        self.penalty = design.new_ones(design.shape[2])  # (column,)
        self.penalty[-1] = 0.0


def _turn_design(design: Tensor) -> Tensor:
    """(batch, column, clips): copied into the faster layout for products that sum over columns where that is cheap."""
    return design.mT.contiguous() if design.numel() <= 2 * BATCHED_NUMBERS else design.mT


def _multiply_by_problem(rows: Tensor, matrices: Tensor, counts: Sequence[int]) -> Tensor:
    """(item, class, i) times the (i, j) of the problem of each, of which there are `counts` -> (item, class, j)."""
    n_items, n_classes, _ = rows.shape
    if min(counts) == max(counts):
        return torch.bmm(rows.reshape(len(counts), -1, rows.shape[2]), matrices).view(n_items, n_classes, -1)
    product = rows.new_empty(n_items * n_classes, matrices.shape[2])
    flat = rows.reshape(n_items * n_classes, -1)
    end = 0
    for number, count in enumerate(counts):
        if count:
            start, end = end, end + count * n_classes
            torch.mm(flat[start:end], matrices[number], out=product[start:end])
    return product.view(n_items, n_classes, -1)


@dataclass
class _Items(Items):
    """Items in memory, and where they are.

    Attributes:
        problem: data of their problems.
        place: (item,) int64, number of the item among all.
        owner: (item,) int64, position of the problem; ascending.
        strengths, tol: (item,).
        n_iter: (item,) int64, Newton steps taken.
        weights: (item, class, column).
        logits: (item, class, clips).
        value: (item,) of the objective.
    """

    problem: _Problem
    place: Tensor
    owner: Tensor
    strengths: Tensor
    tol: Tensor
    n_iter: Tensor
    weights: Tensor
    logits: Tensor
    value: Tensor

    @classmethod
    def at_zero(cls, problem: _Problem, strengths: Tensor, tol: Tensor) -> _Items:
        """Every problem at each of its strengths (batch, strength), all weights 0."""
        n_problems, n_clips, n_columns = problem.design.shape
        owner = torch.arange(n_problems, device=strengths.device).repeat_interleave(strengths.shape[1])
        place, zeros = torch.arange(len(owner), device=owner.device), problem.design.new_zeros
        weights = zeros(len(owner), problem.n_classes, n_columns)
        logits = zeros(len(owner), problem.n_classes, n_clips)
        n_iter = torch.zeros_like(owner)
        items = cls(problem, place, owner, strengths.flatten(), tol[owner], n_iter, weights, logits, zeros(len(owner)))
        items.value = items.objective(logits, weights)
        return items

    def only(self, kept: Tensor) -> _Items:
        """Those where `kept` (item) is True, or at ascending positions."""
        own = (self.place, self.owner, self.strengths, self.tol, self.n_iter, self.weights, self.logits, self.value)
        return _Items(self.problem, *(value[kept] for value in own))

    def put(self, at: Tensor, moved: _Items) -> None:
        """Take over what has changed of the items at some positions."""
        self.n_iter[at], self.weights[at] = moved.n_iter, moved.weights
        self.logits[at], self.value[at] = moved.logits, moved.value

    def counts(self) -> list[int]:
        """Count the items of each problem."""
        return self.owner.bincount(minlength=len(self.problem.design)).tolist()

    def of_problems(self, values: Tensor) -> Tensor:
        """(batch, ...) -> (item, ...), or (1, ...) of a batch of one."""
        return values if len(values) == 1 else values[self.owner]

    def objective(self, logits: Tensor, weights: Tensor) -> Tensor:
        """(item,) value to minimise."""
        losses = compute_losses(logits, self.of_problems(self.problem.targets), self.problem.is_multilabel)
        ridge = (self.problem.penalty * weights.square()).sum(dim=(1, 2))
        return self.strengths * (losses * self.of_problems(self.problem.row_weights[:, 0])).sum(dim=1) + 0.5 * ridge

    def start_systems(self, dtype: torch.dtype) -> tuple[_Curvature, Tensor]:
        """See the base class."""
        curvature, gradient = self.open_systems(dtype)
        design = self.problem.design.to(dtype)
        return curvature.over(design, _turn_design(design)), gradient

    def open_systems(self, dtype: torch.dtype) -> tuple[_Curvature, Tensor]:
        """See the base class; products need the designs of `start_systems`."""
        probabilities = compute_shares(self.logits, self.problem.is_multilabel)
        residual = probabilities - self.of_problems(self.problem.targets)
        residual *= self.of_problems(self.problem.row_weights)
        gradient = _multiply_by_problem(residual, self.problem.design, self.counts())
        gradient *= self.strengths[:, None, None]
        return _Curvature(self, probabilities, dtype), gradient.add_(self.problem.penalty * self.weights)

    def move(self, step: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class."""
        logit_step = _multiply_by_problem(step, self.problem.turned, self.counts())

        def evaluate(length: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
            scale = length[:, None, None]
            weights, logits = self.weights + scale * step, self.logits + scale * logit_step
            value = self.objective(logits, weights)
            return value, (weights, logits, value)

        length, found, is_stalled = search_line(evaluate, self.value, slope)
        if bool(is_stalled.any()):
            own = (self.weights, self.logits, self.value)
            for new, old in zip(found, own, strict=True):
                new[is_stalled] = old[is_stalled]
        self.weights, self.logits, self.value = found
        self.n_iter = self.n_iter + 1
        return (length == 1) & ~is_stalled, is_stalled


class _Curvature(Curvature):
    """The curvature of items at their probabilities (item, class, clips)."""

    def __init__(self, items: _Items, probabilities: Tensor, dtype: torch.dtype) -> None:
        problem = items.problem
        self.owner = items.owner
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

    def over(self, design: Tensor, turned: Tensor) -> _Curvature:
        """Itself, with the designs that products need: (batch, clips, column) and (batch, column, clips)."""
        self.design, self.turned = design, turned
        self.counts = self.owner.bincount(minlength=len(design)).tolist()
        return self

    def times(self, vector: Tensor, is_open: Tensor) -> Tensor:
        """See the base class; those that are not needed ride along."""
        logits = _multiply_by_problem(vector, self.turned, self.counts)
        if not self.is_multilabel:
            logits -= (self.share * logits).sum(dim=1, keepdim=True)
        logits *= self.weighted
        return torch.addcmul(
            self.penalty * vector, self.strengths, _multiply_by_problem(logits, self.design, self.counts)
        )

    def keep(self, kept: Tensor) -> None:
        """Drop the items where `kept` (item) is False, and the designs of problems without any."""
        super().keep(kept)
        self.share, self.weighted = self.share[kept], self.weighted[kept]
        held, self.owner = torch.unique_consecutive(self.owner[kept], return_inverse=True)
        is_less = len(held) < len(self.design)
        self.over(*(value[held] if is_less else value for value in (self.design, self.turned)))

    def put(self, at: Tensor, other: Curvature) -> None:
        """Replace the items at some positions by those of `other`."""
        assert isinstance(other, _Curvature)
        super().put(at, other)
        self.share[at], self.weighted[at] = other.share, other.weighted
