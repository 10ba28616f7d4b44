"""Label-free hints about layers: numbers that need the vectors of some clips and nothing else.

How many directions a layer uses (`effective_rank`), how much its vectors point the same way (`mean_cosine`), how many
numbers would describe a clip (`intrinsic_dimension`), and which layers say the same (`linear_cka`). They are hints:
whether one of them goes along with accuracy is shown beside them in `hints.md`, and often none does.

Conventions of all functions: X is (clips, width), at least 3 clips, finite; anything else is a ValueError. What the
vectors give no answer to, such as the dimension of a layer that is the same for every clip, is NaN. Clips that are
duplicates of others are clips like any other, except for `intrinsic_dimension`. Arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vectors = NDArray[np.float64]

#: clips that `measure` looks at by default: the (clips, clips) products stay below 8 MB a layer
MAX_CLIPS = 1000
MIN_CLIPS = 3
#: share of the clips, those with the largest ratio of distances, that the line of TwoNN is fitted without
DISCARDED = 0.1
#: a feature that varies less than this, relative to its largest value, is constant: float32 cannot hold less
_CONSTANT = 1e-7
#: two clips nearer than this, relative to their distance from the mean clip, are one
_DUPLICATE = 1e-6
#: clips whose products are turned into float64 at once
_BLOCK = 64


def effective_rank(X: ArrayLike) -> float:
    """Compute over how many directions the clips spread: exp of the entropy of the normalised singular values.

    The variant of singular values, p_i = s_i / sum(s), not that of eigenvalues (variances, s_i squared), which gives
    smaller numbers. Features are centred first, which Roy and Vetterli do not do: otherwise the mean vector of features
    that are never negative would be counted as the one direction that matters. k directions of equal spread give k; the
    largest value is min(clips - 1, width), so compare layers on the same clips only.

    Args:
        X: (clips, width).

    Returns:
        1..min(clips - 1, width); NaN if all clips are alike.

    Raises:
        ValueError: if X is not (clips, width), has fewer than 3 clips or is not finite.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007. As a hint
    without labels: Garrido et al., "RankMe", ICML 2023 (there without centring).

    Example:
        >>> round(effective_rank([[1, 0], [-1, 0], [0, 1], [0, -1]]), 6)
        2.0
    """
    centred = _center(_check_vectors(X))
    return _compute_entropy_rank(centred @ centred.T if _is_wide(centred) else centred.T @ centred)


def mean_cosine(X: ArrayLike) -> float:
    """Compute the mean cosine similarity between pairs of distinct clips: near 0 isotropic, near 1 all in a narrow cone.

    Exact, through the sum of the vectors at length 1: (|sum(u)|^2 - n) / (n (n - 1)). Features are not centred, so that
    features that are never negative have a positive mean.

    Args:
        X: (clips, width). A clip whose vector is zero has no direction and is left out.

    Returns:
        -1..1; NaN if fewer than 2 clips have a direction.

    Raises:
        ValueError: as `effective_rank`.

    Source: Ethayarajh, "How Contextual are Contextualized Word Representations?", EMNLP-IJCNLP 2019, section 4.1
    (baseline for anisotropy, there over sampled pairs).

    Example:
        >>> round(mean_cosine([[2, 0], [0, 1], [1, 1]]), 4)  # (0 + 0.7071 + 0.7071) / 3
        0.4714
    """
    vectors = _check_vectors(X)
    norms = _measure_norms(vectors)
    n = int((norms > 0).sum())
    if n < 2:
        return float("nan")
    weights = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)  # (clips,)
    total = weights @ vectors  # (width,), the sum of the vectors at length 1, without a copy of them
    return float(np.clip((total @ total - n) / (n * (n - 1)), -1.0, 1.0))


def linear_cka(X: ArrayLike, Y: ArrayLike) -> float:
    """Compute how similarly two layers arrange the same clips: linear centred kernel alignment, 0..1.

    |Y'X|^2 / (|X'X| |Y'Y|) with Frobenius norms and centred features. Invariant to rotation, to isotropic scaling and to
    shifts of either layer, but not to general linear maps. Computed from (width, width) or from (clips, clips) products,
    whichever takes fewer operations; both give the same number.

    Pitfall: of layers much wider than there are clips, even unrelated noise comes near 1, so low values say more than
    high ones.

    Args:
        X: (clips, width) of one layer.
        Y: (clips, width') of another, the same clips in the same order.

    Returns:
        0..1; NaN if either layer is the same for all clips.

    Raises:
        ValueError: as `effective_rank`, or if the two differ in clips.

    Source: Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019.

    Example:
        >>> X = np.array([[0.0, 1.0], [2.0, 1.0], [1.0, 4.0], [5.0, 2.0]])
        >>> round(linear_cka(X, 3 * X[:, ::-1] + 7), 6), round(linear_cka(X, X**2), 2)
        (1.0, 0.94)
    """
    x, y = _center(_check_vectors(X)), _center(_check_vectors(Y, "Y"))
    if len(x) != len(y):
        raise ValueError(f"X and Y must be of the same clips, got {len(x)} and {len(y)}; was a clip left out of one?")
    n, (p, q) = len(x), (x.shape[1], y.shape[1])
    if n * n * (p + q) < n * (p * p + q * q + p * q):
        products = x @ x.T, y @ y.T
        cross = np.vdot(*products)
    else:
        products = x.T @ x, y.T @ y
        cross = np.square(y.T @ x).sum()
    norms = np.linalg.norm(products[0]) * np.linalg.norm(products[1])
    return float(np.clip(cross / norms, 0.0, 1.0)) if norms > 0 else float("nan")


def cka_matrix(layers: Sequence[ArrayLike]) -> Vectors:
    """`linear_cka` of every pair of layers, each layer's products computed once.

    Args:
        layers: (clips, width) each, the same clips in the same order; one (clips, clips) float32 array each is held.

    Returns:
        (layers, layers), symmetric, 1 on the diagonal; NaN in the row and column of a layer that is constant.

    Raises:
        ValueError: as `linear_cka`, or if there is no layer.

    Source: as `linear_cka`.

    Example:
        >>> X = np.array([[0.0, 1.0], [2.0, 1.0], [1.0, 4.0], [5.0, 2.0]])
        >>> cka_matrix([X, X**2]).round(2).tolist()
        [[1.0, 0.94], [0.94, 1.0]]
    """
    centred = [_center(_check_vectors(layer, f"layer {index}")) for index, layer in enumerate(layers)]
    if len({len(layer) for layer in centred}) != 1:
        counts = [len(layer) for layer in centred]
        raise ValueError(f"cka_matrix needs at least one layer and the same clips in each, got {counts} clips")
    return _compare_grams([_normalise(layer @ layer.T) for layer in centred])


def intrinsic_dimension(X: ArrayLike) -> float:
    """Estimate how many numbers describe a clip, from the ratio of the distances to its two nearest neighbours (TwoNN).

    With mu = r2 / r1 of each clip sorted, and F its empirical distribution, -log(1 - F) against log(mu) is a line
    through the origin whose slope is the dimension. The line is fitted without the 10 % of the clips that have the
    largest mu, as the paper does. Clips that agree to 1e-6 of their distance from the mean clip are duplicates, which
    the model does not know: one of each set is kept. Dimensions above some 15 are estimated too low, as there are
    never enough clips.

    Args:
        X: (clips, width).

    Returns:
        Above 0; NaN if fewer than 3 clips are distinct, or all have two neighbours at one distance.

    Raises:
        ValueError: as `effective_rank`.

    Source: Facco, d'Errico, Rodriguez and Laio, "Estimating the intrinsic dimension of datasets by a minimal
    neighborhood information", Scientific Reports 7, 2017.

    Example:
        >>> place = np.random.default_rng(0).uniform(size=(1000, 1))
        >>> round(intrinsic_dimension(place * [[1.0, 2.0, 3.0]]), 1)
        1.0
    """
    centred = _center(_check_vectors(X))
    return _compute_two_nn(centred @ centred.T)


#: name in tables and files -> function of one layer
HINTS: dict[str, Callable[[ArrayLike], float]] = {
    "effective_rank": effective_rank,
    "mean_cosine": mean_cosine,
    "intrinsic_dimension": intrinsic_dimension,
}


def measure(
    vectors: Callable[[str], NDArray[Any]], layers: Sequence[str], seed: int = 0, max_clips: int = MAX_CLIPS
) -> dict[str, Any]:
    """Compute all hints of every layer on the same clips, reading one layer at a time.

    Args:
        vectors: layer name -> (clips, width); a row that is not finite is a clip that cannot be used.
        layers: names, shallow to deep.
        seed: of the draw where there are more usable clips than `max_clips`; labels have no say in it.
        max_clips: look at no more clips than these.

    Returns:
        Plain data that goes into `evar.results.hints.HintsRecord` as it is; None stands for NaN:
        layers; widths (features of each); n_usable and n_clips (clips that could be used, and that were looked at);
        seed; numbers (hint -> one per layer); cka (one list per layer).

    Raises:
        ValueError: if there is no layer, fewer than 3 clips are usable, or layers differ in their clips.

    Example:
        >>> X = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [np.nan, 0.0]])
        >>> found = measure({"a": X, "b": 2 * X}.__getitem__, ["a", "b"])
        >>> found["n_clips"], [round(value, 6) for value in found["numbers"]["effective_rank"]]
        (4, [2.0, 2.0])
    """
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"measure needs at least one layer, and each once, got {list(layers)}")
    if max_clips < MIN_CLIPS:
        raise ValueError(f"max_clips must be at least {MIN_CLIPS}, got {max_clips}")
    from threadpoolctl import threadpool_limits

    usable, chosen = np.zeros(0, bool), np.zeros(0, np.int64)
    numbers: dict[str, list[float | None]] = {name: [] for name in HINTS}
    grams: list[NDArray[np.float32]] = []
    widths = []
    # One thread: products this small gain little from more, and lose tenfold where the other cores are busy.
    with threadpool_limits(1, user_api="blas"):
        for layer in layers:
            every = np.asarray(vectors(layer))
            if every.ndim != 2:
                raise ValueError(f"layer {layer} must be (clips, width), got shape {every.shape}")
            finite = np.isfinite(every).all(axis=1)  # (clips,)
            if not grams:
                usable, chosen = finite, _draw_clips(finite, seed, max_clips)
            _require_same_clips(finite, usable, layer, layers[0])
            own = _check_vectors(every[chosen], f"layer {layer}")
            gram = _measure_layer(own, numbers)
            grams.append(_normalise(gram))
            widths.append(own.shape[1])
        similarity = _compare_grams(grams)
    return {
        "layers": list(layers),
        "widths": widths,
        "n_usable": int(usable.sum()),
        "n_clips": len(chosen),
        "seed": seed,
        "numbers": numbers,
        "cka": [[_make_plain(value) for value in row] for row in similarity],
    }


def _require_same_clips(finite: NDArray[np.bool_], usable: NDArray[np.bool_], layer: str, first: str) -> None:
    if not np.array_equal(finite, usable):
        raise ValueError(
            f"layer {layer} must have the usable clips of layer {first}, {usable.sum()} of {len(usable)}, "
            f"but has {finite.sum()} of {len(finite)}; are both from one extraction?"
        )


def _measure_layer(vectors: Vectors, numbers: dict[str, list[float | None]]) -> Vectors:
    """Append every hint of one layer to its list, from (clips, clips) products made once; returns these."""
    centred = _center(vectors)
    gram = centred @ centred.T  # (clips, clips)
    found = {
        "effective_rank": _compute_entropy_rank(gram if _is_wide(centred) else centred.T @ centred),
        "mean_cosine": mean_cosine(vectors),
        "intrinsic_dimension": _compute_two_nn(gram),
    }
    for name, value in found.items():
        numbers[name].append(_make_plain(value))
    return gram


def _draw_clips(usable: NDArray[np.bool_], seed: int, max_clips: int) -> NDArray[np.int64]:
    """Row numbers of the clips to look at, in order."""
    rows = np.flatnonzero(usable)
    if len(rows) > max_clips:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_clips, replace=False))
    return rows


def _make_plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _check_vectors(X: ArrayLike, name: str = "X") -> Vectors:
    vectors = np.asarray(X, np.float64)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"{name} must be (clips, width) with at least one feature, got shape {vectors.shape}")
    if len(vectors) < MIN_CLIPS:
        raise ValueError(f"{name} must have at least {MIN_CLIPS} clips, got {len(vectors)}; fewer clips tell nothing")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity; leave out the clips that could not be read")
    return vectors


def _center(vectors: Vectors) -> Vectors:
    """Without the mean clip, and scaled to a largest value of 1, which no hint minds and no square overflows.

    A feature that varies by rounding alone becomes exactly 0.
    """
    centred = vectors - vectors.mean(axis=0)
    spread = _largest(centred)  # (width,)
    rounding = spread <= _CONSTANT * _largest(vectors)
    centred[:, rounding] = 0.0
    if not rounding.all():
        centred /= spread[~rounding].max()
    return centred


def _largest(vectors: Vectors) -> Vectors:
    """(width,) largest magnitude of each feature, without a copy of all."""
    return np.maximum(vectors.max(axis=0), -vectors.min(axis=0))


def _measure_norms(vectors: Vectors) -> Vectors:
    """(clips,) lengths, without a copy of all."""
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


def _is_wide(vectors: Vectors) -> bool:
    return vectors.shape[1] >= vectors.shape[0]


def _compute_entropy_rank(products: Vectors) -> float:
    """Effective rank from the products of centred features, (clips, clips) or (width, width): both have s_i squared."""
    squares = np.linalg.eigvalsh(products)
    squares = squares[squares > squares[-1] * len(squares) * np.finfo(np.float64).eps]  # the rest is rounding
    if not len(squares) or squares[-1] <= 0:
        return float("nan")
    singular = np.sqrt(squares)
    p = singular / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def _compute_two_nn(gram: Vectors) -> float:
    """TwoNN from (clips, clips) products of centred features."""
    norms = gram.diagonal()
    scale = norms[:, None] + norms[None, :]
    squares = np.maximum(scale - 2 * gram, 0.0)  # squared distances
    same = squares <= _DUPLICATE**2 * scale
    distinct = ~np.tril(same, -1).any(axis=1)  # no earlier clip is the same
    squares = squares[np.ix_(distinct, distinct)]
    n = len(squares)
    if n < MIN_CLIPS:
        return float("nan")
    np.fill_diagonal(squares, np.inf)
    nearest = np.partition(squares, 1, axis=1)[:, :2]  # (clips, 2): the first, the second
    log_mu = np.sort(0.5 * np.log(nearest[:, 1] / nearest[:, 0]))
    kept = int(n * (1 - DISCARDED))
    x, y = log_mu[:kept], -np.log1p(-np.arange(1, kept + 1) / n)
    # Distances that are all equal differ by rounding alone, which is no slope.
    return float((x @ y) / (x @ x)) if x[-1] > _CONSTANT else float("nan")


def _normalise(gram: Vectors) -> NDArray[np.float32]:
    """Products with a Frobenius norm of 1, so that CKA is their inner product; zeros where the layer is constant."""
    norm = np.linalg.norm(gram)
    return (gram / norm if norm > 0 else gram).astype(np.float32)


def _compare_grams(grams: Sequence[NDArray[np.float32]]) -> Vectors:
    """(layers, layers) from normalised (clips, clips) products; float64 a block of clips at a time."""
    similarity = np.zeros((len(grams), len(grams)))
    for begin in range(0, len(grams[0]), _BLOCK):
        rows = np.stack([gram[begin : begin + _BLOCK].ravel() for gram in grams]).astype(np.float64)
        similarity += rows @ rows.T
    norms = np.sqrt(similarity.diagonal())  # 1, but for the rounding to float32
    with np.errstate(invalid="ignore"):
        similarity /= np.where(norms > 0, norms, np.nan)[:, None] * norms
    similarity = np.clip((similarity + similarity.T) / 2, 0.0, 1.0)
    np.fill_diagonal(similarity, np.where(norms > 0, 1.0, np.nan))
    return similarity
