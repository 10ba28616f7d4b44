"""The rows of a table nearest to a direction, by cosine: exactly, in bounded memory, or by an index of faiss."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.registry import near_miss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.applying.feature_table import FeatureTable

#: how rows can be found
INDEXES = ("exact", "faiss")
#: candidates that faiss gives beyond those that are wanted: it rounds to single precision, and their order is then exact
_SPARE = 16


def require_index(index: str) -> None:
    """Check that rows can be found by an index: that there is one of the name, and that its package is installed.

    Raises:
        ValueError: if there is no such index.
        ImportError: if faiss is not installed.

    Example:
        >>> require_index("exact")
        >>> require_index("exakt")
        Traceback (most recent call last):
        ValueError: no index 'exakt'; it has exact, faiss; did you mean 'exact'?
    """
    if index not in INDEXES:
        raise ValueError(f"no index {index!r}; {near_miss(index, INDEXES)}")
    if index == "faiss":
        try:
            import faiss  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"--index=faiss needs faiss ({error}); pip install 'evar-audio[faiss]', or leave it out: the exact search "
                "finds the same rows"
            ) from error


def scale_rows(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Scale vectors (rows, width) to length 1; a vector of zeros stays as it is.

    Example:
        >>> scale_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    rows = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0))


def join_examples(
    positive: NDArray[np.float32], negative: NDArray[np.float32] | None = None, weight: float = 0.5
) -> NDArray[np.float64]:
    """Make one direction of examples: the mean of the positive ones, minus a weight times the mean of the negative ones.

    Each example is scaled to length 1 first, so that none outweighs the others.

    Args:
        positive: (examples, width), at least one.
        negative: (examples, width) of what is not wanted; None for none.
        weight: of the negative examples, 0 or above.

    Returns:
        (width,) of length 1.

    Raises:
        ValueError: if the examples cancel each other, or the only one is all zeros.

    Source: Rocchio, "Relevance Feedback in Information Retrieval", 1971, on vectors of length 1.

    Example:
        >>> join_examples(np.float32([[2, 0]]), np.float32([[0, 3]]), weight=0.75).tolist()
        [0.8, -0.6]
    """
    direction = scale_rows(positive).mean(axis=0)
    if negative is not None and len(negative):
        direction = direction - weight * scale_rows(negative).mean(axis=0)
    length = float(np.linalg.norm(direction))
    if length < 1e-9:
        raise ValueError("the examples have no direction in common: is one of them silent, or both liked and unliked?")
    return np.asarray(direction / length)


def rank_rows(
    table: FeatureTable, direction: NDArray[np.float64], k: int, without: Collection[int] = (), index: str = "exact"
) -> list[tuple[int, float]]:
    """Find the rows with the largest cosine to a direction.

    Args:
        table: file of `evar embed`, read block by block.
        direction: (width,) of length 1.
        k: how many rows.
        without: rows that are left out, such as the examples themselves.
        index: "exact", or "faiss": an exact flat index in memory, whose candidates are ordered in double precision.

    Returns:
        Row numbers and cosines in -1..1, the largest first; of equal ones the earlier row. The cosine of a vector of zeros
        is 0.
    """
    if index == "exact":
        return _choose_best(((first, block) for first, block in table.read_blocks()), direction, k, set(without))
    import faiss

    flat = faiss.IndexFlatIP(table.width)
    for _, block in table.read_blocks():
        flat.add(np.ascontiguousarray(scale_rows(block), np.float32))
    wanted = min(flat.ntotal, k + len(without) + _SPARE)
    _, found = flat.search(np.ascontiguousarray(direction[None], np.float32), wanted)
    rows = sorted(int(row) for row in found[0] if row >= 0)
    vectors = table.read_vectors(rows)
    return _choose_best(((row, vectors[at : at + 1]) for at, row in enumerate(rows)), direction, k, set(without))


def _compute_cosines(block: NDArray[np.float32], direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the cosines (rows,) of vectors (rows, width) to a direction of length 1, in double precision."""
    rows = block.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return np.asarray((rows @ direction) / np.where(lengths > 0, lengths, 1.0))


def _choose_best(
    blocks: Iterable[tuple[int, NDArray[np.float32]]], direction: NDArray[np.float64], k: int, without: set[int]
) -> list[tuple[int, float]]:
    rows, cosines = np.zeros(0, np.int64), np.zeros(0)
    for first, block in blocks:
        of_block = _compute_cosines(block, direction)
        numbers = np.arange(first, first + len(block))
        kept = np.flatnonzero(~np.isin(numbers, list(without)) & np.isfinite(of_block))
        rows, cosines = np.concatenate([rows, numbers[kept]]), np.concatenate([cosines, of_block[kept]])
        order = np.lexsort((rows, -cosines))[:k]
        rows, cosines = rows[order], cosines[order]
    return [(int(row), float(np.clip(cosine, -1.0, 1.0))) for row, cosine in zip(rows, cosines, strict=True)]
