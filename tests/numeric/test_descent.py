"""The core that both logistic solvers share: its line search, and what happens when that stalls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evar.numeric import newton
from evar.numeric.logistic_problem import Coordinates, LogisticProblem
from evar.numeric.rows import RowsInMemory
from evar.numeric.solve import solve_all


def make_problem(in_parts: bool, strengths: tuple[float, ...], max_iter: int = 60) -> LogisticProblem:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    X = (rng.normal(size=(40, 5)) + 2 * np.eye(5)[labels]).astype(np.float32)
    X -= X.mean(axis=0)
    coordinates = Coordinates.of(RowsInMemory(X), np.zeros(5), np.ones(5)) if in_parts else torch.from_numpy(X).double()
    return LogisticProblem(coordinates, torch.from_numpy(labels), strengths, 3, 3e-6, max_iter)


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_stalled_line_search_ends_the_loop_and_keeps_weights_and_objective_together(monkeypatch, in_parts):
    honest = newton.Systems.steps

    def uphill(self, at):
        step, is_solved = honest(self, at)
        return -1e12 * step, is_solved

    monkeypatch.setattr(newton.Systems, "steps", uphill)
    (fit,) = solve_all([make_problem(in_parts, (0.1, 1.0))])
    assert not fit.converged.any() and fit.weights.abs().max() == 0 and fit.intercepts.abs().max() == 0
    assert fit.n_iter.tolist() == [[2, 2]]  # one try whose products are float32, and one that is float64


@pytest.mark.parametrize("in_parts", [False, True])
def test_an_item_that_stalls_does_not_touch_the_others(monkeypatch, in_parts):
    (clean,) = solve_all([make_problem(in_parts, (0.1, 1.0))])
    honest = newton.Systems.steps

    def spoil_first(self, at):
        step, is_solved = honest(self, at)
        if len(at) and int(at[0]) == 0 and len(self._now.error) == 2:  # as long as both items are there
            step = step.clone()
            step[0] *= -1e12
        return step, is_solved

    monkeypatch.setattr(newton.Systems, "steps", spoil_first)
    (fit,) = solve_all([make_problem(in_parts, (0.1, 1.0))])
    assert bool(fit.converged[0, 1]) and torch.allclose(fit.weights[0, 1], clean.weights[0, 1], atol=1e-6)


def test_both_solvers_find_the_same_minimum():
    found = [solve_all([make_problem(in_parts, (1e-3, 1.0, 100.0))])[0] for in_parts in (False, True)]
    for in_memory, in_parts in [[fit.only(at) for fit in found] for at in range(3)]:
        assert bool(in_memory.converged.all()) and bool(in_parts.converged.all())
        shares = []
        for fit, problem in ((in_memory, make_problem(False, (1.0,))), (in_parts, make_problem(True, (1.0,)))):
            if isinstance(problem.coordinates, Coordinates):
                logits = problem.coordinates.logits(fit)
            else:
                logits = fit.logits(problem.coordinates[None])[0]
            shares.append(torch.softmax(logits.double(), dim=1))
        assert torch.allclose(*shares, atol=1e-5)
