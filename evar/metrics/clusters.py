"""Agreement of clusters with classes, from the table that counts the clips of each class in each cluster.

`y_true` holds the class and `y_pred` the cluster of each clip, as whole numbers. The numbers of the clusters have no
meaning: only which clips are together counts. Clips that could not be read (-1) are one more cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: (..., classes, clusters) counts -> (...) scores
Agreement = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def count_together(y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.float64]:
    """Count the clips of each class in each cluster.

    Args:
        y_true, y_pred: (clips,) class and cluster of each clip.

    Returns:
        (classes, clusters) counts.

    Raises:
        ValueError: if the two differ in length, or there is no clip.

    Example:
        >>> count_together([0, 0, 1], [5, 5, 2]).tolist()
        [[0.0, 2.0], [1.0, 0.0]]
    """
    true, found = np.asarray(y_true), np.asarray(y_pred)
    if true.ndim != 1 or true.shape != found.shape or not len(true):
        raise ValueError(f"classes and clusters must be one of each clip, got {true.shape} and {found.shape}")
    rows, columns = (np.unique(values, return_inverse=True)[1] for values in (true, found))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    return table


def compute_nmi(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the mutual information of class and cluster, divided by the mean of their two entropies.

    It is the same number as the V-measure: the harmonic mean of homogeneity (each cluster holds one class) and
    completeness (each class is in one cluster).

    Args:
        table: (..., classes, clusters) counts, not all zero.

    Returns:
        (...) 0..1; 1 for one class in one cluster, where there is nothing to agree on.

    Source: Rosenberg & Hirschberg, "V-Measure: A Conditional Entropy-Based External Cluster Evaluation Measure", EMNLP
        2007; Vinh, Epps & Bailey, "Information Theoretic Measures for Clusterings Comparison", JMLR 11 (2010).

    Example:
        >>> compute_nmi(np.array([[2.0, 0.0], [0.0, 2.0]])).item(), compute_nmi(np.array([[1.0, 1.0], [1.0, 1.0]])).item()
        (1.0, 0.0)
    """
    shares = table / table.sum(axis=(-2, -1), keepdims=True)
    of_classes, of_clusters = _find_entropy(shares.sum(axis=-1)), _find_entropy(shares.sum(axis=-2))
    mutual = of_classes + of_clusters - _find_entropy(shares.reshape(*shares.shape[:-2], -1))
    total = of_classes + of_clusters
    nmi = 2 * mutual / np.where(total > 1e-12, total, 1.0)
    return np.where(total > 1e-12, np.clip(nmi, 0.0, 1.0), 1.0)


def compute_ari(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the adjusted Rand index: agreement about pairs of clips, 0 on average for random clusters.

    Args:
        table: (..., classes, clusters) counts, not all zero.

    Returns:
        (...) at most 1, and at least -0.5.

    Source: Hubert & Arabie, "Comparing partitions", Journal of Classification 2 (1985).

    Example:
        >>> tables = np.array([[[2.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]])
        >>> compute_ari(tables).round(6).tolist()
        [1.0, -0.5]
    """
    n_pairs = _count_pairs(table.sum(axis=(-2, -1)))
    together = _count_pairs(table).sum(axis=(-2, -1))
    in_class = _count_pairs(table.sum(axis=-1)).sum(axis=-1)
    in_cluster = _count_pairs(table.sum(axis=-2)).sum(axis=-1)
    expected = in_class * in_cluster / np.where(n_pairs > 0, n_pairs, 1.0)
    span = (in_class + in_cluster) / 2 - expected
    return np.where(np.abs(span) > 1e-12, (together - expected) / np.where(np.abs(span) > 1e-12, span, 1.0), 1.0)


def make_score(agreement: Agreement, name: str) -> Callable[[ArrayLike, ArrayLike], float]:
    """Make a metric, (y_true, y_pred) -> score, from a function of the table.

    Example:
        >>> make_score(compute_nmi, "nmi")([0, 0, 1], [1, 1, 0])
        1.0
    """

    def score(y_true: ArrayLike, y_pred: ArrayLike) -> float:
        return float(agreement(count_together(y_true, y_pred)))

    score.__name__ = name
    return score


def resample_agreement(
    agreement: Agreement,
    y_true: NDArray[Any],
    y_pred: NDArray[Any],
    index: NDArray[np.int64],
    counts: NDArray[Any],
) -> NDArray[np.float64]:
    """Score bootstrap samples that draw whole groups of clips; the clusters stay as they are.

    Args:
        agreement: function of a table.
        y_true, y_pred: (clips,) class and cluster.
        index: (clips,) number of the group of each clip.
        counts: (resamples, groups) how often each group is drawn.

    Returns:
        (resamples,) scores.

    Example:
        >>> each = np.array([0, 1])  # two clips: classes, clusters and groups
        >>> resample_agreement(compute_nmi, each, each, each, np.array([[1, 1]])).tolist()
        [1.0]
    """
    from scipy.sparse import csr_array

    rows, columns = (np.unique(values, return_inverse=True)[1] for values in (y_true, y_pred))
    n_classes, n_clusters = int(rows.max()) + 1, int(columns.max()) + 1
    shape = (counts.shape[1], n_classes * n_clusters)
    of_groups = csr_array((np.ones(len(index)), (index, rows * n_clusters + columns)), shape=shape)
    scores = []
    at_once = max(1, 4_000_000 // shape[1])
    for start in range(0, len(counts), at_once):
        tables = counts[start : start + at_once].astype(np.float64) @ of_groups  # (some resamples, cells)
        scores.append(agreement(np.asarray(tables).reshape(-1, n_classes, n_clusters)))
    return np.concatenate(scores)


def name_clusters(y: ArrayLike, clusters: ArrayLike) -> NDArray[np.int64]:
    """Number clusters by the classes that they agree with best, one cluster for each class.

    No score depends on these numbers; a table of classes and clusters can be read by them.

    Args:
        y: (clips,) class of each clip.
        clusters: (clips,) number of its cluster, 0..; at most as many as there are classes in `y`.

    Returns:
        (clips,) the number of a class for each clip; clips stay together as they were.

    Raises:
        ValueError: if there are more clusters than classes.

    Source: assignment of largest sum, Kuhn, "The Hungarian Method for the assignment problem" (1955).

    Example:
        >>> name_clusters([7, 7, 9], [1, 1, 0]).tolist()
        [7, 7, 9]
    """
    from scipy.optimize import linear_sum_assignment

    labels, numbers = np.asarray(y), np.asarray(clusters)
    table = count_together(labels, numbers)
    if table.shape[1] > table.shape[0]:
        raise ValueError(f"there are {table.shape[1]} clusters and {table.shape[0]} classes; expected at most as many")
    of_classes, of_clusters = linear_sum_assignment(-table)
    names = np.zeros(table.shape[1], np.int64)
    names[of_clusters] = np.unique(labels)[of_classes]
    return names[np.unique(numbers, return_inverse=True)[1]]


def _count_pairs(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts * (counts - 1) / 2


def _find_entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the entropy of counts, (..., parts) -> (...), in nats."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=-1)
