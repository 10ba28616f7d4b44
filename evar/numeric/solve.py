"""Solve many logistic problems side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from evar.numeric.logistic import BATCHED_NUMBERS, NUMBERS_AT_ONCE, SHAPES_APART, fit_batch
from evar.numeric.logistic_problem import LogisticFit, LogisticProblem


def solve_all(problems: Sequence[LogisticProblem]) -> list[LogisticFit]:
    """Solve several problems, those of about one shape side by side.

    Problems whose coordinates are `evar.numeric.logistic_problem.Coordinates` instead of a tensor are solved in passes over
    their rows, one after another.

    Args:
        problems: of any shapes.

    Returns:
        The solution of each, with a batch axis of 1.

    Example:
        >>> X, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]).double(), torch.tensor([0, 0, 1, 1])
        >>> (fit,) = solve_all([LogisticProblem(X, y, (1.0,), 2, 3e-6, 100)])
        >>> fit.weights.shape, bool(fit.converged.all())
        (torch.Size([1, 1, 2, 1]), True)
    """
    from evar.numeric.streamed import fit_streamed

    alike: dict[tuple[Any, ...], list[int]] = {}
    found: dict[int, LogisticFit] = {}
    for index, one in enumerate(problems):
        if not isinstance(one.coordinates, Tensor):
            found[index] = fit_streamed(one)
            continue
        # Of about one shape, so that little is computed for padding.
        shape = tuple(-(-size // SHAPES_APART) for size in one.coordinates.shape)
        key = (shape, len(one.strengths), one.n_classes, one.labels.dim(), one.max_iter)
        alike.setdefault(key, []).append(index)
    for indices in alike.values():
        one = problems[indices[0]]
        n_logits = len(one.coordinates) * one.n_classes * len(one.strengths)
        n_most = max(1, min(BATCHED_NUMBERS // max(1, math.prod(one.coordinates.shape)), NUMBERS_AT_ONCE // n_logits))
        for first in range(0, len(indices), n_most):
            batch = indices[first : first + n_most]
            found.update(zip(batch, _solve_batch([problems[index] for index in batch]), strict=True))
    return [found[index] for index in range(len(problems))]


def _solve_batch(batch: Sequence[LogisticProblem]) -> Iterator[LogisticFit]:
    """Solutions of problems that are solved side by side."""
    shape = [max(one.coordinates.shape[axis] for one in batch) for axis in (0, 1)]
    features = torch.zeros(len(batch), *shape, dtype=torch.float64)  # (batch, clips, rank), zero-padded
    labels = torch.zeros(len(batch), shape[0], *batch[0].labels.shape[1:], dtype=torch.int64)
    row_weights = features.new_zeros(len(batch), shape[0])
    for at, one in enumerate(batch):
        n_clips, rank = one.coordinates.shape
        assert isinstance(one.coordinates, Tensor)
        features[at, :n_clips, :rank] = one.coordinates
        labels[at, :n_clips], row_weights[at, :n_clips] = one.labels, 1.0
    strengths = features.new_tensor([one.strengths for one in batch])
    tol = features.new_tensor([one.tol for one in batch])
    fit = fit_batch(features, labels, row_weights, strengths, tol, batch[0].n_classes, batch[0].max_iter)
    for at, one in enumerate(batch):
        own = slice(at, at + 1)
        weights = fit.weights[own, ..., : one.coordinates.shape[1]]
        yield LogisticFit(weights, fit.intercepts[own], fit.converged[own], fit.n_iter[own])
