"""Logistic regression on features that do not fit in memory: the problem of `evar.numeric.logistic`, solved by the same
core, where every product is one pass over the rows.

Nothing of the size of the clips is held: classes' probabilities are computed again from the weights in each pass. Weights
live in the principal axes of the standardised features, as there, but the rows are neither standardised nor turned; the
weights are, which is cheaper. All items go in step, so that each pass serves all of them that need one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from evar.numeric.descent import Items, descend, search_line
from evar.numeric.logistic_problem import (
    NUMBERS_AT_ONCE,
    Coordinates,
    LogisticFit,
    LogisticProblem,
    compute_losses,
    compute_shares,
    scale_strengths,
)
from evar.numeric.newton import Curvature


@dataclass(frozen=True)
class _At:
    """The objective at some weights.

    Attributes:
        value: (item,).
        gradient: (item, class, column).
        spread: (item, class, class) mean covariance of the classes, or (item, class) mean variance of labels.
    """

    value: Tensor
    gradient: Tensor
    spread: Tensor

    def only(self, kept: Tensor) -> _At:
        """Return those of the items where `kept` (item,) is True, or at some positions."""
        return _At(self.value[kept], self.gradient[kept], self.spread[kept])

    def put(self, at: Tensor, other: _At) -> None:
        """Replace those of the items at some positions."""
        for entry in fields(self):
            getattr(self, entry.name)[at] = getattr(other, entry.name)


class _Problem:
    """Rows, labels, and the passes over them. Weights are (strength, class, column), the intercept's column last."""

    def __init__(self, problem: LogisticProblem, coordinates: Coordinates) -> None:
        self.coordinates, self.labels, self.n_classes = coordinates, problem.labels, problem.n_classes
        self.is_multilabel = problem.labels.dim() == 2
        rank = coordinates.shape[1]
        self.penalty = torch.ones(rank + 1, dtype=torch.float64)
        self.penalty[-1] = 0.0
        self.energy = len(coordinates) * torch.cat([coordinates.energies, torch.ones(1, dtype=torch.float64)])

    def read_passes(
        self, weights: Sequence[Tensor], dtype: torch.dtype
    ) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        """Yield the rows of each chunk, their labels, and logits (strength, class, clips) by each of some weights."""
        turned = []
        for one in weights:
            flat, offset = self.coordinates.for_stored(one[..., :-1])
            turned.append((flat.to(dtype), (offset + one[..., -1])[..., None].to(dtype)))
        n_most = NUMBERS_AT_ONCE // (len(weights[0]) * self.n_classes)
        for part, rows in self.coordinates.chunks(dtype, max(1, n_most)):
            logits = [(flat.flatten(0, 1) @ rows.T).unflatten(0, flat.shape[:2]) + offsets for flat, offsets in turned]
            yield rows, self.labels[part], logits

    def expand_labels(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Return labels as (class, clips) of 0 and 1."""
        shares = labels if self.is_multilabel else torch.nn.functional.one_hot(labels, self.n_classes)
        return shares.T.to(dtype)

    def sum_over_clips(self, rows: Tensor, of_clips: Tensor) -> Tensor:
        """Sum (strength, class, clips) times rows as stored, and times 1, over clips: (strength, class, used + 1)."""
        sums = (of_clips.flatten(0, 1) @ rows).unflatten(0, of_clips.shape[:2])
        return torch.cat([sums, of_clips.sum(dim=2, keepdim=True)], dim=2).double()

    def turn_sums(self, sums: Tensor) -> Tensor:
        """Turn sums of rows as stored into sums of coordinates: (strength, class, used + 1) -> (strength, class, column)."""
        return torch.cat([self.coordinates.from_stored(sums[..., :-1], sums[..., -1]), sums[..., -1:]], dim=2)

    def evaluate(self, weights: Tensor, strengths: Tensor) -> _At:
        """Return value, gradient and spread at weights (strength, class, column), in one pass."""
        n_strengths, n_used = len(weights), len(self.coordinates.basis)
        losses = torch.zeros(n_strengths, dtype=torch.float64)
        sums = torch.zeros(n_strengths, self.n_classes, n_used + 1, dtype=torch.float64)
        n_spread = (self.n_classes,) if self.is_multilabel else (self.n_classes, self.n_classes)
        spread = torch.zeros(n_strengths, *n_spread, dtype=torch.float64)
        for rows, labels, (logits,) in self.read_passes([weights], torch.float64):
            targets = self.expand_labels(labels, torch.float64)
            losses += compute_losses(logits, targets, self.is_multilabel).sum(dim=1)
            shares = compute_shares(logits, self.is_multilabel)
            sums += self.sum_over_clips(rows, shares - targets)
            if self.is_multilabel:
                spread += (shares * (1 - shares)).sum(dim=2)
            else:
                spread += torch.diag_embed(shares.sum(dim=2)) - shares @ shares.mT
        value = strengths * losses + 0.5 * (self.penalty * weights.square()).sum(dim=(1, 2))
        gradient = strengths[:, None, None] * self.turn_sums(sums) + self.penalty * weights
        return _At(value, gradient, spread / len(self.coordinates))

    def multiply(self, weights: Tensor, vector: Tensor, strengths: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiply the second derivatives at `weights` by `vector`, both (strength, class, column), in one pass."""
        sums = torch.zeros(*weights.shape[:2], len(self.coordinates.basis) + 1, dtype=torch.float64)
        for rows, _, (logits, change) in self.read_passes([weights, vector], dtype):
            shares = compute_shares(logits, self.is_multilabel)
            if self.is_multilabel:
                weighted = shares * (1 - shares) * change
            else:
                weighted = shares * (change - (shares * change).sum(dim=1, keepdim=True))
            sums += self.sum_over_clips(rows, weighted)
        return strengths * self.turn_sums(sums) + self.penalty * vector


@dataclass
class _Items(Items):
    """A problem at its strengths, whose rows are read in passes.

    Attributes:
        problem: rows, labels and passes over them.
        place, strengths, tol, n_iter, weights: as in `Items`.
        here: the objective where they are.
    """

    problem: _Problem
    place: Tensor
    strengths: Tensor
    tol: Tensor
    n_iter: Tensor
    weights: Tensor
    here: _At

    in_step = True

    @classmethod
    def at_zero(cls, problem: _Problem, strengths: Tensor, tol: float) -> _Items:
        """Put the problem at each strength (item,) with all weights 0."""
        n_items, n_columns = len(strengths), problem.coordinates.shape[1] + 1
        place, weights = torch.arange(n_items), torch.zeros(n_items, problem.n_classes, n_columns, dtype=torch.float64)
        tols = torch.full_like(strengths, tol)
        return cls(
            problem, place, strengths, tols, torch.zeros_like(place), weights, problem.evaluate(weights, strengths)
        )

    def only(self, kept: Tensor) -> _Items:
        """See the base class."""
        return _Items(
            self.problem,
            self.place[kept],
            self.strengths[kept],
            self.tol[kept],
            self.n_iter[kept],
            self.weights[kept],
            self.here.only(kept),
        )

    def put(self, at: Tensor, moved: _Items) -> None:
        """See the base class."""
        self.n_iter[at], self.weights[at] = moved.n_iter, moved.weights
        self.here.put(at, moved.here)

    def open_systems(self, dtype: torch.dtype) -> tuple[_Curvature, Tensor]:
        """See the base class."""
        return _Curvature(self, dtype), self.here.gradient.clone()

    def move(self, step: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class; each halving is a pass."""

        def evaluate(length: Tensor) -> tuple[Tensor, tuple[Tensor, _At]]:
            weights = self.weights + length[:, None, None] * step
            there = self.problem.evaluate(weights, self.strengths)
            return there.value, (weights, there)

        length, (weights, there), is_stalled = search_line(evaluate, self.here.value, slope)
        if bool(is_stalled.any()):
            weights[is_stalled] = self.weights[is_stalled]
            there.put(is_stalled, self.here.only(is_stalled))
        self.weights, self.here, self.n_iter = weights, there, self.n_iter + 1
        return (length == 1) & ~is_stalled, is_stalled


class _Curvature(Curvature):
    """The curvature at the weights of items."""

    def __init__(self, items: _Items, dtype: torch.dtype) -> None:
        self.problem, self.weights, self.dtype = items.problem, items.weights.clone(), dtype
        energy, penalty = self.problem.energy[None], self.problem.penalty
        self.precondition(items.here.spread, energy, penalty, items.strengths, self.problem.is_multilabel, dtype)

    def times(self, vector: Tensor, is_open: Tensor) -> Tensor:
        """See the base class; those that are not needed are 0 and cost nothing."""
        product = torch.zeros_like(vector)
        product[is_open] = self.problem.multiply(
            self.weights[is_open], vector[is_open].double(), self.strengths[is_open].double(), self.dtype
        ).to(self.dtype)
        return product

    def keep(self, kept: Tensor) -> None:
        """Drop the items where `kept` (item,) is False."""
        super().keep(kept)
        self.weights = self.weights[kept]

    def put(self, at: Tensor, other: Curvature) -> None:
        """Replace the items at some positions by those of `other`."""
        assert isinstance(other, _Curvature)
        super().put(at, other)
        self.weights[at] = other.weights


def fit_streamed(problem: LogisticProblem) -> LogisticFit:
    """Solve a problem whose coordinates are read in parts, as `evar.numeric.logistic.fit_logistic` does in memory.

    Args:
        problem: its coordinates are `Coordinates`.

    Returns:
        The solutions, with a batch axis of 1.

    Example:
        >>> import numpy as np
        >>> from evar.numeric.rows import RowsInMemory
        >>> rows = RowsInMemory(np.float32([[-2.0], [-1.0], [1.0], [2.0]]))
        >>> coordinates = Coordinates.of(rows, np.zeros(1), np.ones(1))
        >>> fit = fit_streamed(LogisticProblem(coordinates, torch.tensor([0, 0, 1, 1]), (1.0,), 2, 3e-6, 100))
        >>> round(abs(float(fit.weights[0, 0, 1, 0] - fit.weights[0, 0, 0, 0])), 3)
        1.007
    """
    assert isinstance(problem.coordinates, Coordinates)
    passes = _Problem(problem, problem.coordinates)
    strengths = torch.tensor(problem.strengths, dtype=torch.float64)
    items = _Items.at_zero(passes, scale_strengths(strengths, problem.n_classes, passes.is_multilabel), problem.tol)
    converged = descend(items, problem.max_iter)
    weights = items.weights
    if not passes.is_multilabel:
        weights = weights - weights.mean(dim=1, keepdim=True)
    return LogisticFit(weights[None, ..., :-1], weights[None, ..., -1], converged[None], items.n_iter[None])
