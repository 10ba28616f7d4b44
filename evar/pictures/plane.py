"""Clip vectors in numbers and in the plane: which clips, how well classes hold together, and where a point goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS = ("tsne", "umap")
#: t-SNE's usual preparation, and its usual perplexity. Source: van der Maaten and Hinton, JMLR 9, 2008
MAX_COMPONENTS, MAX_PERPLEXITY = 50, 30.0
#: UMAP's usual number. Source: McInnes, Healy and Melville, arXiv 1802.03426
UMAP_NEIGHBOURS = 15
MIN_CLIPS = 5


def draw_balanced_subset(y: NDArray[np.int64], n_most: int, seed: int) -> NDArray[np.int64]:
    """Draw positions up to a largest number, with equally many of each class as long as the classes last.

    Args:
        y: (clips,) class numbers.
        n_most: positions to keep.
        seed: of the draw within each class.

    Returns:
        (clips',) positions, rising; all of them where they are no more than `n_most`.

    Example:
        >>> np.bincount(np.array([0, 0, 0, 0, 0, 0, 1, 1])[draw_balanced_subset(np.array([0, 0, 0, 0, 0, 0, 1, 1]), 5, 0)])
        array([3, 2])
    """
    if len(y) <= n_most:
        return np.arange(len(y))
    shuffled = np.random.default_rng(seed).permutation(len(y))
    turn = np.empty(len(y), np.int64)
    for label in np.unique(y):
        of_class = shuffled[y[shuffled] == label]
        turn[of_class] = np.arange(len(of_class))
    return np.sort(shuffled[np.argsort(turn[shuffled], kind="stable")][:n_most])  # all firsts, all seconds, ...


def standardise(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale each feature of (clips, width) to mean 0 and standard deviation 1; features that never change become 0."""
    vectors = vectors.astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    deviation = centred.std(axis=0)
    varies = deviation > 1e-7 * np.abs(vectors).max(axis=0)  # float32 noise of a constant is no variation
    return np.where(varies, centred / np.where(varies, deviation, 1.0), 0.0)


def compute_silhouette(vectors: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """Compute how much nearer clips are to their own class than to the next, -1..1: mean over clips, Euclidean distance.

    Args:
        vectors: (clips, width).
        y: (clips,) class numbers.

    Returns:
        -1..1; NaN if there is one class only, or as many classes as clips.

    Source: P. J. Rousseeuw, "Silhouettes", Journal of Computational and Applied Mathematics 20, 1987; scikit-learn's.
    """
    from sklearn.metrics import silhouette_score

    n_classes = len(np.unique(y))
    return float(silhouette_score(vectors, y)) if 2 <= n_classes < len(y) else float("nan")


def compute_purity(vectors: NDArray[np.float64], y: NDArray[np.int64], n_neighbours: int) -> float:
    """Compute the share of each clip's nearest neighbours that have its class, as the mean over clips.

    A clip is no neighbour of its own.

    Args:
        vectors: (clips, width).
        y: (clips,) class numbers.
        n_neighbours: 1..clips - 1, by Euclidean distance.

    Returns:
        0..1.

    Example:
        >>> compute_purity(np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 0]), 1)
        0.5
    """
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=n_neighbours).fit(vectors).kneighbors(return_distance=False)
    return float((y[nearest] == y[:, None]).mean())


def compute_chance_purity(y: NDArray[np.int64]) -> float:
    """Compute the purity of vectors that are independent of the class.

    Args:
        y: (clips,) class numbers, at least two clips.

    Returns:
        0..1.

    Example:
        >>> compute_chance_purity(np.array([0, 0, 1, 1]))
        0.3333333333333333
    """
    counts = np.bincount(y)
    return float((counts * (counts - 1)).sum() / (len(y) * (len(y) - 1)))


def require_method(method: str) -> None:
    """Fail before any work is done if a method's package is missing.

    Raises:
        ImportError: naming the package and the way round.
    """
    if method == "umap":
        try:
            from umap import UMAP  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"--method=umap needs the package umap-learn, which cannot be imported ({error}); "
                "`pip install umap-learn`, or take --method=tsne"
            ) from error


def place_clips(vectors: NDArray[np.float64], method: str, seed: int) -> NDArray[np.float64]:
    """Place clips in the plane, after principal components if there are more than MAX_COMPONENTS features.

    Args:
        vectors: (clips, width), standardised.
        method: "tsne" (perplexity 30, less for fewer than 91 clips) or "umap" (15 neighbours), both started from the first
            two principal components.
        seed: the same seed gives the same map on the same machine.

    Returns:
        (clips, 2); distances and axes have no unit.
    """
    from sklearn.decomposition import PCA

    if min(vectors.shape) > MAX_COMPONENTS:
        vectors = PCA(MAX_COMPONENTS, random_state=seed).fit_transform(vectors)
    if method == "umap":
        import warnings

        import umap

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="n_jobs value")  # a seed means one thread, and that is wanted
            mapper = umap.UMAP(
                n_neighbors=min(UMAP_NEIGHBOURS, len(vectors) - 1), random_state=seed, init=_find_start(vectors)
            )
            return np.asarray(mapper.fit_transform(vectors), np.float64)
    from sklearn.manifold import TSNE

    start = _find_start(vectors) * 1e-4  # as scikit-learn's init="pca", which wants two features at least
    return TSNE(perplexity=choose_perplexity(len(vectors)), init=start, random_state=seed).fit_transform(vectors)


def _find_start(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """(clips, 2) first two principal components, the first with deviation 1."""
    from sklearn.decomposition import PCA

    n_components = min(2, vectors.shape[1])
    places = PCA(n_components, svd_solver="full").fit_transform(vectors)
    places = np.pad(places, ((0, 0), (0, 2 - n_components)))
    return (places / (places[:, 0].std() or 1.0)).astype(np.float32)


def choose_perplexity(n_clips: int) -> float:
    """Choose t-SNE's perplexity, about how many neighbours count: a third of the clips at most.

    Example:
        >>> choose_perplexity(1000), choose_perplexity(31)
        (30.0, 10.0)
    """
    return min(MAX_PERPLEXITY, (n_clips - 1) / 3)
