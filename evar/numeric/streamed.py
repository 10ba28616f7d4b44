"""`evar._logistic` for features that do not fit in memory: the same problem, Newton steps whose every product is one pass
over the rows.

Nothing of the size of the clips is held: classes' probabilities are computed again from the weights in each pass. Weights
live in the principal axes of the standardised features, as there, but the rows are neither standardised nor turned; the
weights are, which is cheaper. Chunks of a pass are float64 for objective and gradient, float32 for the curvature that
steers a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evar.numeric.logistic_problem import (
    MAX_HALVINGS,
    NUMBERS_AT_ONCE,
    SINGLE_PRECISION_STEPS,
    Coordinates,
    LogisticFit,
    LogisticProblem,
)
from evar.numeric.newton import Curvature, newton_step


@dataclass(frozen=True)
class _At:
    """The objective at some weights.

    Attributes:
        value: (strength,).
        gradient: (strength, class, column).
        spread: (strength, class, class) mean covariance of the classes, or (strength, class) mean variance of labels.
    """

    value: Tensor
    gradient: Tensor
    spread: Tensor


class _Problem:
    """Rows, labels, and the passes over them. Weights are (strength, class, column), the intercept's column last."""

    def __init__(self, problem: LogisticProblem, coordinates: Coordinates) -> None:
        self.coordinates, self.labels, self.n_classes = coordinates, problem.labels, problem.n_classes
        self.is_multilabel = problem.labels.dim() == 2
        rank = coordinates.shape[1]
        self.penalty = torch.ones(rank + 1, dtype=torch.float64)
        self.penalty[-1] = 0.0
        self.energy = len(coordinates) * torch.cat([coordinates.energies, torch.ones(1, dtype=torch.float64)])

    def _passes(self, weights: Sequence[Tensor], dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        """For each chunk its rows, their labels, and logits (strength, class, clips) by each of some weights."""
        turned = []
        for one in weights:
            flat, offset = self.coordinates.for_stored(one[..., :-1])
            turned.append((flat.to(dtype), (offset + one[..., -1])[..., None].to(dtype)))
        n_most = NUMBERS_AT_ONCE // (len(weights[0]) * self.n_classes)
        for part, rows in self.coordinates.chunks(dtype, max(1, n_most)):
            logits = [(flat.flatten(0, 1) @ rows.T).unflatten(0, flat.shape[:2]) + offsets for flat, offsets in turned]
            yield rows, self.labels[part], logits

    def _targets(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """(class, clips)."""
        shares = labels if self.is_multilabel else torch.nn.functional.one_hot(labels, self.n_classes)
        return shares.T.to(dtype)

    def _gathered(self, rows: Tensor, of_clips: Tensor) -> Tensor:
        """Sums over clips of (strength, class, clips) times rows as stored and 1: (strength, class, used + 1)."""
        sums = (of_clips.flatten(0, 1) @ rows).unflatten(0, of_clips.shape[:2])
        return torch.cat([sums, of_clips.sum(dim=2, keepdim=True)], dim=2).double()

    def _turned(self, sums: Tensor) -> Tensor:
        """(strength, class, used + 1) -> (strength, class, column)."""
        return torch.cat([self.coordinates.from_stored(sums[..., :-1], sums[..., -1]), sums[..., -1:]], dim=2)

    def at(self, weights: Tensor, strengths: Tensor) -> _At:
        """Value, gradient and spread, in one pass."""
        n_strengths, n_used = len(weights), len(self.coordinates.basis)
        losses = torch.zeros(n_strengths, dtype=torch.float64)
        sums = torch.zeros(n_strengths, self.n_classes, n_used + 1, dtype=torch.float64)
        n_spread = (self.n_classes,) if self.is_multilabel else (self.n_classes, self.n_classes)
        spread = torch.zeros(n_strengths, *n_spread, dtype=torch.float64)
        softplus = torch.nn.functional.softplus
        for rows, labels, (logits,) in self._passes([weights], torch.float64):
            targets = self._targets(labels, torch.float64)
            partition = softplus(logits).sum(dim=1) if self.is_multilabel else torch.logsumexp(logits, dim=1)
            losses += (partition - (logits * targets).sum(dim=1)).sum(dim=1)
            shares = torch.sigmoid(logits) if self.is_multilabel else torch.softmax(logits, dim=1)
            sums += self._gathered(rows, shares - targets)
            if self.is_multilabel:
                spread += (shares * (1 - shares)).sum(dim=2)
            else:
                spread += torch.diag_embed(shares.sum(dim=2)) - shares @ shares.mT
        value = strengths * losses + 0.5 * (self.penalty * weights.square()).sum(dim=(1, 2))
        gradient = strengths[:, None, None] * self._turned(sums) + self.penalty * weights
        return _At(value, gradient, spread / len(self.coordinates))

    def curved(self, weights: Tensor, vector: Tensor, strengths: Tensor, dtype: torch.dtype) -> Tensor:
        """Second derivatives at `weights` times `vector`, both (strength, class, column), in one pass."""
        sums = torch.zeros(*weights.shape[:2], len(self.coordinates.basis) + 1, dtype=torch.float64)
        for rows, _, (logits, change) in self._passes([weights, vector], dtype):
            if self.is_multilabel:
                shares = torch.sigmoid(logits)
                weighted = shares * (1 - shares) * change
            else:
                shares = torch.softmax(logits, dim=1)
                weighted = shares * (change - (shares * change).sum(dim=1, keepdim=True))
            sums += self._gathered(rows, weighted)
        return strengths * self._turned(sums) + self.penalty * vector


class _Curvature(Curvature):
    """The curvature at some weights; an item of `newton_step` is a strength."""

    def __init__(
        self, problem: _Problem, weights: Tensor, spread: Tensor, strengths: Tensor, dtype: torch.dtype
    ) -> None:
        self.problem, self.weights, self.dtype = problem, weights, dtype
        self.precondition(spread, problem.energy[None], problem.penalty, strengths, problem.is_multilabel, dtype)

    def times(self, vector: Tensor) -> Tensor:
        """(strength, class, column) -> the same shape."""
        strengths = self.strengths.double()
        return self.problem.curved(self.weights, vector.double(), strengths, self.dtype).to(self.dtype)

    def keep(self, kept: Tensor) -> None:
        """Drop the strengths where `kept` (strength) is False."""
        super().keep(kept)
        self.weights = self.weights[kept]


def fit_streamed(problem: LogisticProblem) -> LogisticFit:
    """Solve a problem whose coordinates are `Coordinates`, as `fit_logistic` does, with a batch axis of 1."""
    assert isinstance(problem.coordinates, Coordinates)
    passes = _Problem(problem, problem.coordinates)
    strengths = torch.tensor(problem.strengths, dtype=torch.float64)
    scaled = strengths * (0.5 if problem.n_classes == 2 and not passes.is_multilabel else 1.0)
    solved = torch.zeros(len(strengths), problem.n_classes, problem.coordinates.shape[1] + 1, dtype=torch.float64)
    converged = torch.zeros(len(strengths), dtype=torch.bool)
    n_iter = torch.zeros(len(strengths), dtype=torch.int64)
    active, weights = torch.arange(len(strengths)), solved.clone()
    here = passes.at(weights, scaled)
    for count in range(problem.max_iter):
        dtype = torch.float32 if count < SINGLE_PRECISION_STEPS else torch.float64
        curvature = _Curvature(passes, weights, here.spread, scaled, dtype)
        step, is_solved = newton_step(curvature, here.gradient)
        slope = (here.gradient * step).sum(dim=(1, 2))  # (strength,), <= 0
        length = torch.ones_like(slope)
        for _ in range(MAX_HALVINGS):
            there = passes.at(weights + length[:, None, None] * step, scaled)
            # The last term forgives rounding, which alone remains near the minimum.
            is_short = there.value > here.value + 1e-4 * length * slope + 1e-12 * here.value.abs()
            if not bool(is_short.any()):
                break
            length = torch.where(is_short, length / 2, length)
        weights, here = weights + length[:, None, None] * step, there
        is_done = (-slope <= 2 * scaled * problem.tol**2) & (length == 1) & is_solved
        solved[active], converged[active] = weights, is_done
        n_iter[active] += 1
        if bool(is_done.all()):
            break
        if bool(is_done.any()):
            left = ~is_done
            active, scaled, weights = active[left], scaled[left], weights[left]
            here = _At(here.value[left], here.gradient[left], here.spread[left])
    if not passes.is_multilabel:
        solved -= solved.mean(dim=1, keepdim=True)
    return LogisticFit(solved[None, ..., :-1], solved[None, ..., -1], converged[None], n_iter[None])
