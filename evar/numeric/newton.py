"""Newton's systems, curvature x step = -gradient, of many problems side by side, by preconditioned conjugate gradients.

An item is a problem at one strength. Items need not keep step with each other: one whose system is solved waits until
enough others are, is given its next system, and goes on. So products stay large and few of them are wasted.

Source: truncated Newton steps, Nocedal & Wright, "Numerical Optimization" (2006), ch. 7.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Each system is solved until its preconditioned residual has fallen to this share: more costs, less stalls.
_INNER_TOLERANCE = 0.25
_MAX_INNER = 200
#: share of the items that wait before they are taken, and that are finished before they are dropped
_WAITING = 0.25


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

    def times(self, vector: Tensor, is_open: Tensor) -> Tensor:
        """Multiply the second derivatives by a vector.

        Args:
            vector: (item, class, column).
            is_open: (item,) whose products are needed; those of the others may be anything finite.

        Returns:
            (item, class, column).
        """
        raise NotImplementedError

    def approximate_inverse(self, vector: Tensor) -> Tensor:
        """Multiply the approximate inverse by a vector: (item, class, column) -> the same shape."""
        if self.is_multilabel:
            return self.inverse * vector
        return self.axes @ (self.inverse * (self.axes.mT @ vector))

    def keep(self, kept: Tensor) -> None:
        """Drop the items where `kept` (item) is False."""
        self.strengths, self.axes, self.inverse = self.strengths[kept], self.axes[kept], self.inverse[kept]

    def put(self, at: Tensor, other: Curvature) -> None:
        """Replace the items at some positions (some items,) by those of `other`."""
        self.axes[at], self.inverse[at] = other.axes, other.inverse


@dataclass
class _Progress:
    """Progress of the systems of items.

    Attributes:
        size: (item, 1, 1) that gradients were scaled by.
        step, residual, direction: (item, class, column).
        error, goal: (item,) preconditioned residual, squared, and what it must fall to.
        n_products: (item,) int64.
        is_open: (item,) bool, goes on.
        is_solved: (item,) bool, the goal is reached.
        is_taken: (item,) bool, was given away since.
    """

    size: Tensor
    step: Tensor
    residual: Tensor
    direction: Tensor
    error: Tensor
    goal: Tensor
    n_products: Tensor
    is_open: Tensor
    is_solved: Tensor
    is_taken: Tensor

    @classmethod
    def start(cls, curvature: Curvature, gradient: Tensor) -> _Progress:
        """Before the first iteration."""
        # Scaled to 1, so that float32 neither overflows nor loses small gradients near the minimum.
        size = gradient.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-300)
        residual = (-gradient / size).to(curvature.inverse.dtype)
        direction = curvature.approximate_inverse(residual)
        error = (residual * direction).sum(dim=(1, 2))
        is_open = error > 0
        n_products = torch.zeros_like(error, dtype=torch.int64)
        zeros, goal = torch.zeros_like(residual), _INNER_TOLERANCE**2 * error
        return cls(
            size, zeros, residual, direction, error, goal, n_products, is_open, ~is_open, torch.zeros_like(is_open)
        )

    def only(self, kept: Tensor) -> _Progress:
        """Of the items where `kept` (item) is True."""
        return _Progress(**{name: value[kept] for name, value in vars(self).items()})

    def put(self, at: Tensor, other: _Progress) -> None:
        """Replace the items at some positions by those of `other`."""
        for name, value in vars(other).items():
            getattr(self, name)[at] = value


class Systems:
    """The systems of items, solved side by side.

    Args:
        curvature: of the items; it is changed as items come and go.
        gradient: (item, class, column) float64.
        in_step: whether all items wait for each other.
    """

    def __init__(self, curvature: Curvature, gradient: Tensor, in_step: bool = False) -> None:
        self._curvature, self._in_step = curvature, in_step
        self._now = _Progress.start(curvature, gradient)
        self._n_taken = 0

    def take(self) -> Tensor:
        """Iterate until about a quarter of the items that are left wait, or all of them where they go in step.

        Returns:
            (some items,) positions of those that wait, ascending; each is taken once.
        """
        n_left = len(self._now.error) - self._n_taken
        while True:
            n_open = int(self._now.is_open.sum())
            if not n_open or (not self._in_step and n_left - n_open >= max(1, int(_WAITING * n_left))):
                break
            self._iterate()
        at = torch.nonzero(~(self._now.is_open | self._now.is_taken))[:, 0]
        self._now.is_taken[at] = True
        self._n_taken += len(at)
        return at

    def _iterate(self) -> None:
        now = self._now
        bent = self._curvature.times(now.direction, now.is_open)
        length = torch.where(now.is_open, now.error / (now.direction * bent).sum(dim=(1, 2)), 0.0)[:, None, None]
        now.step.addcmul_(length, now.direction)
        now.residual.addcmul_(length, bent, value=-1)
        towards = self._curvature.approximate_inverse(now.residual)
        error = (now.residual * towards).sum(dim=(1, 2))
        is_far = error > now.goal
        now.n_products += now.is_open
        now.is_solved |= now.is_open & ~is_far
        now.is_open = now.is_open & is_far & (now.n_products < _MAX_INNER)
        share = torch.where(now.is_open, error / now.error, 0.0)[:, None, None]
        now.direction, now.error = towards.addcmul_(share, now.direction), error

    def steps(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the steps of items that were taken.

        Args:
            at: their positions.

        Returns:
            (some items, class, column) float64, and (some items,) whether the system was solved as closely as it should be.
        """
        return self._now.step[at].to(self._now.size.dtype) * self._now.size[at], self._now.is_solved[at]

    def put(self, at: Tensor, curvature: Curvature, gradient: Tensor) -> None:
        """Begin new systems at the positions of items that were taken.

        Args:
            at: their positions.
            curvature: of these items.
            gradient: (some items, class, column) float64.
        """
        self._curvature.put(at, curvature)
        self._now.put(at, _Progress.start(curvature, gradient))
        self._n_taken -= len(at)

    def keep(self, kept: Tensor) -> None:
        """Drop the items where `kept` (item) is False, all of which were taken."""
        self._curvature.keep(kept)
        self._now = self._now.only(kept)
        self._n_taken -= len(kept) - int(kept.sum())


def is_thin(n_left: int, n_items: int) -> bool:
    """Tell whether enough items are finished that dropping them pays: until then they ride along at full cost.

    Args:
        n_left: items that are not finished.
        n_items: all that are held.

    Example:
        >>> is_thin(3, 4), is_thin(4, 4)
        (True, False)
    """
    return n_left <= (1 - _WAITING) * n_items
