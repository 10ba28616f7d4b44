"""One logistic problem: its loss, gradient and coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.numeric.rows import Rows


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

    def only(self, strength: int) -> LogisticFit:
        """Return the fit at one strength, by its position; its axis stays, of length 1."""
        own = slice(strength, strength + 1)
        return LogisticFit(*(value[:, own] for value in (self.weights, self.intercepts, self.converged, self.n_iter)))

    def logits(self, features: Tensor) -> Tensor:
        """Return logits, before softmax or sigmoid.

        Args:
            features: (batch, clips, feature) float64.

        Returns:
            (batch, strength, class, clips).
        """
        logits = self.weights.flatten(1, 2) @ features.mT
        return logits.unflatten(1, self.weights.shape[1:3]) + self.intercepts[..., None]


@dataclass(frozen=True)
class LogisticProblem:
    """One problem for `evar.numeric.solve.solve_all`.

    Attributes:
        coordinates: (clips, rank) float64, or `Coordinates`, which are computed when needed.
        labels: (clips,) int64 class numbers, or (clips, class) int64 of 0 and 1 if a clip may have several.
        strengths: values of C, positive.
        n_classes: at least 2, or 1 if a clip may have several.
        tol: as for `evar.numeric.logistic.fit_logistic`.
        max_iter: Newton steps at most.
    """

    coordinates: Tensor | Coordinates
    labels: Tensor
    strengths: tuple[float, ...]
    n_classes: int
    tol: float
    max_iter: int


def scale_strengths(strengths: Tensor, n_classes: int, is_multilabel: bool) -> Tensor:
    """Return the strengths (strength,) for one weight vector for each class.

    With two classes the penalty counts the one vector w of their difference, as scikit-learn's does; two symmetric vectors
    +-w/2 have half its penalty, hence half the strength.

    Example:
        >>> scale_strengths(torch.tensor([1.0]), 2, False), scale_strengths(torch.tensor([1.0]), 3, False)
        (tensor([0.5000]), tensor([1.]))
    """
    return strengths * (0.5 if n_classes == 2 and not is_multilabel else 1.0)


def compute_losses(logits: Tensor, targets: Tensor, is_multilabel: bool) -> Tensor:
    """Return the log-loss of each clip in nats; of several labels a clip, the sum over them.

    Args:
        logits: (item, class, clips).
        targets: (item or 1, class, clips) of 0 and 1, or (class, clips).
        is_multilabel: whether each label has a loss of its own.

    Returns:
        (item, clips).

    Example:
        >>> compute_losses(torch.zeros(1, 2, 1), torch.tensor([[1.0], [0.0]]), False)
        tensor([[0.6931]])
    """
    softplus = torch.nn.functional.softplus
    partition = softplus(logits).sum(dim=1) if is_multilabel else torch.logsumexp(logits, dim=1)
    return partition - (logits * targets).sum(dim=1)


def compute_shares(logits: Tensor, is_multilabel: bool) -> Tensor:
    """Return probabilities: (item, class, clips) logits -> the same shape; classes of one clip sum to 1 but for labels.

    Example:
        >>> compute_shares(torch.zeros(1, 4, 1), False).flatten().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return torch.sigmoid(logits) if is_multilabel else torch.softmax(logits, dim=1)


#: numbers of a (strength, class, clips) array of a chunk
NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class Coordinates:
    """Rows in the principal axes of a set of rows, computed when needed; stands where (clips, rank) tensors stand.

    Attributes:
        rows: (clips, width) as stored.
        varies: (width,) features that are used.
        mean, scale: (used,) float64, that standardise them.
        basis: (used, rank) float64.
        energies: (rank,) sum of squares of each coordinate over a clip, on average.
    """

    rows: Rows
    varies: NDArray[np.bool_]
    mean: Tensor
    scale: Tensor
    basis: Tensor
    energies: Tensor

    @classmethod
    def of(cls, rows: Rows, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> Coordinates:
        """Find the principal axes of rows, in one pass over them.

        Args:
            rows: (clips, width).
            mean, scale: (width,) that standardise them; a scale of 0 leaves a feature out.

        Returns:
            The rows in their axes; nothing is turned yet.
        """
        varies = scale > 0
        n_used = int(varies.sum())
        nothing = torch.zeros(n_used, 0, dtype=torch.float64)
        scaling = [torch.from_numpy(np.asarray(value[varies], np.float64)) for value in (mean, scale)]
        found = cls(rows, varies, scaling[0], scaling[1], nothing, torch.zeros(0, dtype=torch.float64))
        gram = torch.zeros(n_used, n_used, dtype=torch.float64)
        for _, chunk in found.chunks(torch.float64):
            standard = (chunk - found.mean) / found.scale
            gram += standard.T @ standard
        if not len(gram):
            return found
        values, vectors = torch.linalg.eigh(gram)
        kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        return replace(found, basis=vectors[:, kept], energies=values[kept] / len(rows))

    @property
    def shape(self) -> tuple[int, int]:
        """(clips, rank)."""
        return len(self.rows), self.basis.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Coordinates:
        return replace(self, rows=self.rows[part])

    def chunks(self, dtype: torch.dtype, n_most: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield the rows in parts, as stored: neither standardised nor turned.

        Args:
            dtype: of the rows.
            n_most: rows of a part at most.

        Yields:
            Slice of the clips, and their rows (some clips, used).
        """
        for part in self.rows.parts(n_most):
            values = self.rows.read(part)
            yield part, torch.from_numpy(values if self.varies.all() else values[:, self.varies]).to(dtype)

    def for_stored(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Turn weights of coordinates into weights of rows as stored.

        Args:
            weights: (..., rank).

        Returns:
            (..., used), and what must be added to their products with rows (...).
        """
        flat = (weights @ self.basis.T) / self.scale
        return flat, -(flat @ self.mean)

    def from_stored(self, sums: Tensor, totals: Tensor) -> Tensor:
        """Turn sums over rows as stored into sums over coordinates.

        Args:
            sums: (..., used) sums over clips of a factor times the row.
            totals: (...) sums of the factors.

        Returns:
            (..., rank) sums of the factor times the coordinates.
        """
        return ((sums - totals[..., None] * self.mean) / self.scale) @ self.basis

    def logits(self, fit: LogisticFit) -> Tensor:
        """Return logits of all rows, before softmax or sigmoid, in bounded memory but for the result.

        Args:
            fit: of a problem with these coordinates.

        Returns:
            (strength, class, clips) float32.
        """
        flat, offset = self.for_stored(fit.weights[0])  # (strength, class, used)
        added = (offset + fit.intercepts[0]).flatten()[:, None]
        n_most = NUMBERS_AT_ONCE // len(added)
        parts = [
            (flat.flatten(0, 1) @ chunk.T + added).float() for _, chunk in self.chunks(torch.float64, max(1, n_most))
        ]
        return torch.cat(parts, dim=1).unflatten(0, fit.intercepts.shape[1:])
