"""Newton's method for many logistic problems side by side: the one core of the solver in memory and of the one that reads
its rows in parts.

An item is a problem at one strength. Its step solves curvature x step = -gradient (`evar.numeric.newton`), and is halved
until the objective falls enough. Curvature products are float32 at first, as they steer a step but do not decide where it
ends, and float64 after 25 steps: where clips are fitted almost perfectly, float32 rounds their curvature away. An item ends
when it has converged, has taken as many steps as it may, or stalls: when no halving of its step lowers the objective. A
stalled item keeps its weights, and counts as not converged.

Source: truncated Newton steps with backtracking, Nocedal & Wright, "Numerical Optimization" (2006), ch. 3 and 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from evar.numeric.newton import Curvature, Systems, is_thin

#: Newton steps whose curvature products are float32
SINGLE_PRECISION_STEPS = 25
#: times that a step may be halved
MAX_HALVINGS = 30

Found = TypeVar("Found")


class Items:
    """Problems at one strength each, and where they are.

    Attributes:
        in_step: whether all items wait for each other; so it is where a product is a pass over stored rows.
        place: (item,) int64, number of the item among all.
        strengths, tol: (item,) float64.
        n_iter: (item,) int64, Newton steps taken.
        weights: (item, class, column) float64, the intercept's column last.
    """

    in_step = False
    place: Tensor
    strengths: Tensor
    tol: Tensor
    n_iter: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def only(self, kept: Tensor) -> Any:
        """Return the items where `kept` (item,) is True, or those at ascending positions."""
        raise NotImplementedError

    def put(self, at: Tensor, moved: Any) -> None:
        """Take over the changed values of the items at some positions, (some items,)."""
        raise NotImplementedError

    def start_systems(self, dtype: torch.dtype) -> tuple[Curvature, Tensor]:
        """Return the curvature, whose products are `dtype`, and the gradient (item, class, column)."""
        return self.open_systems(dtype)

    def open_systems(self, dtype: torch.dtype) -> tuple[Curvature, Tensor]:
        """Return curvature and gradient (item, class, column) of items that join those of `start_systems`."""
        raise NotImplementedError

    def move(self, step: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Go along a step, as far as the objective falls.

        Args:
            step: (item, class, column).
            slope: (item,) derivative of the objective along it, <= 0.

        Returns:
            Whether the whole step was gone, and whether none was because the search stalled, (item,) each.
        """
        raise NotImplementedError


def search_line(
    evaluate: Callable[[Tensor], tuple[Tensor, Found]], value: Tensor, slope: Tensor
) -> tuple[Tensor, Found, Tensor]:
    """Halve steps until the objective falls by a share of what its slope promises.

    Args:
        evaluate: length of the steps (item,) -> value of the objective there (item,), and other values of the same point.
        value: (item,) of the objective where the steps begin.
        slope: (item,) derivative of the objective along the steps, <= 0.

    Returns:
        The lengths (item,), what was found there, and whether the search stalled (item,): then neither the length nor what
        was found may be used.

    Source: sufficient decrease with backtracking, Nocedal & Wright (2006), algorithm 3.1.

    Example:
        >>> square = lambda length: ((1 - 4 * length).square(), 1 - 4 * length)  # from 1 along -4
        >>> length, found, is_stalled = search_line(square, torch.ones(1), torch.tensor([-8.0]))
        >>> length.tolist(), found.tolist(), is_stalled.tolist()
        ([0.25], [0.0], [False])
    """
    length = torch.ones_like(slope)
    for _ in range(MAX_HALVINGS):
        there, found = evaluate(length)
        # The last term forgives rounding, which alone remains near the minimum.
        is_short = there > value + 1e-4 * length * slope + 1e-12 * value.abs()
        if not bool(is_short.any()):
            break
        length = torch.where(is_short, length / 2, length)
    return length, found, is_short


def has_converged(slope: Tensor, strengths: Tensor, tol: Tensor | float) -> Tensor:
    """Tell for each item whether a full Newton step could move no probability of a fitted clip by more than `tol`.

    A Newton step lowers the objective by half its slope. Of that, strength x KL divergence is owed to each clip, and by
    Pinsker's inequality a divergence of 2 tol^2 moves no probability by more than tol.

    Args:
        slope: (item,) derivative of the objective along the full step, <= 0.
        strengths: (item,).
        tol: (item,), or one for all.

    Example:
        >>> has_converged(torch.tensor([-1e-12, -1e-3]), torch.ones(2), 1e-3)
        tensor([ True, False])
    """
    return -slope <= 2 * strengths * tol**2


def descend(items: Items, max_iter: int) -> Tensor:
    """Move every item to its minimum.

    Args:
        items: where they begin; they are moved in place.
        max_iter: Newton steps of an item at most.

    Returns:
        Whether each has converged, (item,).
    """
    converged = torch.zeros_like(items.place, dtype=torch.bool)
    _descend(items, converged, torch.float32, min(SINGLE_PRECISION_STEPS, max_iter))
    _descend(items, converged, torch.float64, max_iter)
    return converged


def _descend(every: Items, converged: Tensor, dtype: torch.dtype, n_most: int) -> None:
    """Move the items that have not `converged` (item) until they have, stall, or have taken `n_most` steps."""
    is_left = ~converged & (every.n_iter < n_most)
    n_left = int(is_left.sum())
    if not n_left:
        return
    items = every if n_left == len(every) else every.only(is_left)
    curvature, gradient = items.start_systems(dtype)
    systems = Systems(curvature, gradient, items.in_step)
    is_left = is_left[is_left]
    while n_left:
        at = systems.take()
        step, is_solved = systems.steps(at)
        moved = items.only(at)
        slope = (gradient[at] * step).sum(dim=(1, 2))
        is_whole, is_stalled = moved.move(step, slope)
        is_done = has_converged(slope, moved.strengths, moved.tol) & is_whole & is_solved
        items.put(at, moved)
        converged[moved.place] = is_done
        goes_on = ~is_done & ~is_stalled & (moved.n_iter < n_most)
        if bool(goes_on.any()):
            curvature, new_gradient = moved.only(goes_on).open_systems(dtype)
            gradient[at[goes_on]] = new_gradient
            systems.put(at[goes_on], curvature, new_gradient)
        ended = at[~goes_on]
        is_left[ended] = False
        n_left -= len(ended)
        if n_left and is_thin(n_left, len(items)):
            if items is not every:
                every.put(items.place, items)
            items, gradient = items.only(is_left), gradient[is_left]
            systems.keep(is_left)
            is_left = is_left[is_left]
    if items is not every:
        every.put(items.place, items)
