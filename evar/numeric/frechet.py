"""Fréchet distance between two sets of vectors, each taken for a normal distribution, and what it would be of many more.

The distance of finite sets is too large: the fewer vectors, the more their covariances differ by chance. The excess falls as
1 / N, so that a straight line through distances of random parts of both sets, against 1 / N, meets the axis at the distance
of infinitely many vectors. Whole files are drawn, since the vectors of one file are alike.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017 (the distance); Kilgour et al., "Fréchet
    Audio Distance", Interspeech 2019; Chong & Forsyth, "Effectively Unbiased FID and Inception Score", CVPR 2020, and Gui et
    al., "Adapting Fréchet Audio Distance for Generative Music Evaluation", ICASSP 2024 (the line).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: parts into which the files of each set are divided at random; lines and errors are drawn from them
N_PARTS = 10
#: parts of a random subset, from the smallest to all
_SIZES = range(4, N_PARTS + 1)
#: random subsets of each size but the last
_DRAWS = 3


@dataclass(frozen=True)
class Extrapolation:
    """The distance of infinitely many vectors, by a straight line.

    Attributes:
        value: where the line meets 1 / N = 0; below 0 it stands for a distance that cannot be told from none.
        standard_error: of `value` with other files of the same kind, by the jackknife over `N_PARTS` parts of both sets,
            with that of the line through random points.
        slope: of the line, in distance for each unit of 1 / share of the files.
        r_squared: share of the points' variance that the line explains, 0..1; small where chance matters more than N.
        points: (share of the files of both sets, distance) of each random subset.
    """

    value: float
    standard_error: float
    slope: float
    r_squared: float
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FrechetDistance:
    """The squared Fréchet distance of two sets.

    Attributes:
        value: of all vectors; larger than that of infinitely many.
        of_means: part of it that the means make, the squared distance between them; the covariances make the rest.
        n_vectors, n_files: of the first and the second set.
        width: features of a vector.
        extrapolation: None where a set has fewer than `N_PARTS` files.
        warnings: sentences on what makes the numbers doubtful.
    """

    value: float
    of_means: float
    n_vectors: tuple[int, int]
    n_files: tuple[int, int]
    width: int
    extrapolation: Extrapolation | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Moments:
    """Mean and covariance of some vectors; the covariance as it is, or as factor.T @ factor where vectors are few."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64] | None = None
    factor: NDArray[np.float64] | None = None

    @property
    def spread(self) -> float:
        """The trace of the covariance."""
        if self.factor is not None:
            return float(np.square(self.factor).sum())
        assert self.covariance is not None
        return float(np.trace(self.covariance))


def measure_frechet_distance(
    first: ArrayLike,
    second: ArrayLike,
    first_files: ArrayLike | None = None,
    second_files: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> FrechetDistance:
    """Measure the Fréchet distance of two sets of vectors, and extrapolate it to infinitely many.

    Args:
        first, second: (vectors, width) of each set, at least 2 vectors.
        first_files, second_files: (vectors,) number of the file of each vector; None: each has its own.
        seed: of the random parts.

    Returns:
        The distance, squared as usual, in squared units of the features: distances of different layers or encoders cannot be
        compared with each other.

    Raises:
        ValueError: if shapes differ, a set has fewer than 2 vectors, or values are not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = measure_frechet_distance(rng.normal(size=(1000, 3)), rng.normal(size=(1000, 3)) + [2, 0, 0])
        >>> abs(found.value - 4) < 1, abs(found.extrapolation.value - 4) < 4 * found.extrapolation.standard_error
        (True, True)
    """
    sets, files = [], []
    for values, numbers, which in ((first, first_files, "first"), (second, second_files, "second")):
        vectors = np.asarray(values, np.float64)
        if vectors.ndim != 2 or len(vectors) < 2 or not np.isfinite(vectors).all():
            raise ValueError(
                f"the {which} set must be (vectors, width) of finite numbers with at least 2 vectors, got {vectors.shape}"
            )
        sets.append(vectors)
        found = np.arange(len(vectors)) if numbers is None else np.unique(np.asarray(numbers), return_inverse=True)[1]
        if found.shape != (len(vectors),):
            raise ValueError(
                f"the {which} set needs the file of each vector, got {found.shape} for {len(vectors)} vectors"
            )
        files.append(found)
    if sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"both sets must have one width, got {sets[0].shape[1]} and {sets[1].shape[1]} features")
    centre = (sets[0].mean(axis=0) + sets[1].mean(axis=0)) / 2  # moments of far-off vectors would lose digits
    rng = np.random.default_rng(seed)
    sides = [_Side.of(vectors - centre, of_file, rng) for vectors, of_file in zip(sets, files, strict=True)]
    everything = np.arange(N_PARTS)
    one, other = (side.take(everything) for side in sides)
    n_files = int(files[0].max()) + 1, int(files[1].max()) + 1
    can_extrapolate = min(n_files) >= N_PARTS
    return FrechetDistance(
        combine_moments(one, other),
        float(np.square(one.mean - other.mean).sum()),
        (len(sets[0]), len(sets[1])),
        n_files,
        sets[0].shape[1],
        _extrapolate(sides, rng) if can_extrapolate else None,
        _warn(sets, n_files),
    )


def _warn(sets: Sequence[NDArray[np.float64]], n_files: tuple[int, int]) -> tuple[str, ...]:
    found, width = [], sets[0].shape[1]
    few = [
        (name, len(vectors)) for name, vectors in zip(("first", "second"), sets, strict=True) if len(vectors) <= width
    ]
    if few:
        counts = " and ".join(f"the {name} set has {n} vectors" for name, n in few)
        found.append(
            f"{counts} for {width} dimensions: a covariance has directions without any spread, so that the distance is "
            "far too large, and the line through parts of it is bent; take more files, or shorter windows"
        )
    if min(n_files) < N_PARTS:
        found.append(f"the extrapolation needs {N_PARTS} files in each set, got {n_files[0]} and {n_files[1]}")
    return tuple(found)


def gaussian_frechet_distance(
    mean: ArrayLike, covariance: ArrayLike, mean_2: ArrayLike, covariance_2: ArrayLike
) -> float:
    """Compute the squared Fréchet distance of two normal distributions.

    It is |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). The last trace is the sum of the roots of the eigenvalues of
    F S2 F.T, where S1 = F.T F: a symmetric matrix, whose eigenvalues are real and are computed stably, in float64.

    Args:
        mean, mean_2: (width,).
        covariance, covariance_2: (width, width), symmetric.

    Source: Dowson & Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Analysis 12
        (1982).

    Example:
        >>> gaussian_frechet_distance([0, 0], np.eye(2), [3, 4], 4 * np.eye(2))  # 25 + 2 x (1 - 2)^2
        27.0
    """
    one, other = (
        _Moments(np.asarray(m, np.float64), np.asarray(c, np.float64))
        for m, c in ((mean, covariance), (mean_2, covariance_2))
    )
    return combine_moments(one, other)


def combine_moments(one: _Moments, other: _Moments) -> float:
    """Compute the squared Fréchet distance of two sets from their means and covariances; never below 0."""
    if other.factor is not None and (one.factor is None or len(other.factor) < len(one.factor)):
        one, other = other, one
    factor = _find_root(one.covariance) if one.factor is None else one.factor  # (rows, width)
    if other.factor is not None:
        crossed = factor @ other.factor.T
        symmetric = crossed @ crossed.T
    else:
        assert other.covariance is not None
        symmetric = factor @ other.covariance @ factor.T
    values = np.linalg.eigvalsh((symmetric + symmetric.T) / 2)
    shared = float(np.sqrt(np.maximum(values, 0.0)).sum())
    of_means = float(np.square(one.mean - other.mean).sum())
    return max(0.0, of_means + one.spread + other.spread - 2 * shared)


def _find_root(covariance: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Find a matrix F, (width, width), with F.T @ F = covariance."""
    assert covariance is not None
    values, axes = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * axes.T


@dataclass(frozen=True)
class _Side:
    """One set, in random parts of whole files: their counts, sums and products, or the vectors where they are few."""

    counts: NDArray[np.int64]
    sums: NDArray[np.float64]
    products: NDArray[np.float64] | None = None
    vectors: list[NDArray[np.float64]] = field(default_factory=list)

    @classmethod
    def of(cls, vectors: NDArray[np.float64], files: NDArray[np.int64], rng: np.random.Generator) -> _Side:
        """Divide the files of a set into parts at random."""
        n_files = int(files.max()) + 1
        part_of = rng.permutation(np.arange(n_files) % N_PARTS)[files]
        parts = [vectors[part_of == number] for number in range(N_PARTS)]
        counts, sums = np.array([len(part) for part in parts]), np.stack([part.sum(axis=0) for part in parts])
        if len(vectors) <= vectors.shape[1]:
            return cls(counts, sums, None, parts)
        return cls(counts, sums, np.stack([part.T @ part for part in parts]))

    def take(self, parts: NDArray[np.int64]) -> _Moments:
        """Compute mean and covariance of some of the parts."""
        n = int(self.counts[parts].sum())
        mean = self.sums[parts].sum(axis=0) / n
        if self.products is None:
            centred = np.concatenate([self.vectors[part] for part in parts]) - mean
            return _Moments(mean, factor=centred / np.sqrt(n - 1))
        products = self.products[parts].sum(axis=0)
        return _Moments(mean, (products - n * np.outer(mean, mean)) / (n - 1))


def _extrapolate(sides: Sequence[_Side], rng: np.random.Generator) -> Extrapolation:
    points = []
    for size in _SIZES:
        for _ in range(1 if size == N_PARTS else _DRAWS):
            one, other = (side.take(rng.choice(N_PARTS, size, replace=False)) for side in sides)
            points.append((size / N_PARTS, combine_moments(one, other)))
    x, y = np.array([[1 / share, value] for share, value in points]).T
    slope, _ = (float(value) for value in np.polyfit(x, y, 1))
    # The line meets x = 1 at the mean of equally large sets; its intercept is where 1 / N is 0.
    intercept = float(y.mean() - slope * x.mean())
    residuals, total = y - intercept - slope * x, y - y.mean()
    explained = 1 - float(np.square(residuals).sum() / max(np.square(total).sum(), 1e-300))
    of_line = float(
        np.square(residuals).sum() / (len(x) - 2) * (1 / len(x) + x.mean() ** 2 / np.square(x - x.mean()).sum())
    )
    error = float(np.sqrt(_jackknife(sides, rng) ** 2 + of_line))
    return Extrapolation(intercept, error, slope, max(0.0, explained), tuple(points))


def _jackknife(sides: Sequence[_Side], rng: np.random.Generator) -> float:
    """Compute the standard error of the extrapolated distance, which is computed without each of the parts.

    Without a part, twice the distance of all that is left, less the mean distance of its two halves, is where the line
    through these two sizes meets the axis.

    Source: delete-a-group jackknife, Kott, "The delete-a-group jackknife", J. Official Statistics 17 (2001).
    """
    values = []
    for left_out in range(N_PARTS):
        kept = np.delete(np.arange(N_PARTS), left_out)
        shuffled = rng.permutation(kept)
        halves = [shuffled[: len(kept) // 2], shuffled[len(kept) // 2 :]]
        whole = combine_moments(*(side.take(kept) for side in sides))
        x = [len(kept) / len(half) for half in halves]
        parts = [combine_moments(*(side.take(half) for side in sides)) for half in halves]
        slope = (float(np.mean(parts)) - whole) / (float(np.mean(x)) - 1)
        values.append(whole - slope)
    deviations = np.array(values) - np.mean(values)
    return float(np.sqrt((N_PARTS - 1) / N_PARTS * np.square(deviations).sum()))


def list_numbers(found: FrechetDistance) -> dict[str, Any]:
    """Return a distance as plain data, for JSON.

    Example:
        >>> list_numbers(FrechetDistance(1.0, 0.5, (3, 4), (3, 4), 2))["distance"]
        1.0
    """
    line = found.extrapolation
    return {
        "distance": found.value,
        "of_means": found.of_means,
        "n_vectors": list(found.n_vectors),
        "n_files": list(found.n_files),
        "width": found.width,
        "extrapolated": None if line is None else line.value,
        "standard_error": None if line is None else line.standard_error,
        "slope": None if line is None else line.slope,
        "r_squared": None if line is None else line.r_squared,
        "points": [] if line is None else [list(point) for point in line.points],
        "warnings": list(found.warnings),
    }
