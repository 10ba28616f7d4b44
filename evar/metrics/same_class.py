"""Retrieval of sounds by a sound: every clip is a query, and clips of its class should be nearest to it.

A clip never finds itself. Clips of the query's group (cuts of one recording, say) are not searched at all: they count
neither as right nor as wrong, since they would be found by the recording and not by the class. A query without a clip of
its class in another group has nothing to find, and is left out.

`y_true` is (queries, 4), whole numbers: right clips, clips that are searched, class of the query, clips of its group that
are left out. `y_pred` is (queries, 4): average precision, rank of the first right clip (1 is best; infinity if none could be
read), and right clips among the first 5 and among the first 10.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: similarities in memory at once, as a count of numbers: 64 MB for any number of clips
_NUMBERS_AT_ONCE = 2**24
_N_RIGHT, _N_SEARCHED = 0, 1
_PRECISION, _FIRST, _AMONG_5, _AMONG_10 = range(4)


def rank_sounds(
    directions: ArrayLike, y: ArrayLike, groups: ArrayLike, is_readable: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Rank all clips for each clip by cosine similarity, and note where those of its class stand.

    Of equal similarities, those of wrong clips come first: an encoder that cannot tell clips apart gains nothing.

    Args:
        directions: (clips, width) vectors of length 1; rows of clips that could not be read may hold anything.
        y: (clips,) whole numbers, the class of each clip.
        groups: (clips,) labels; clips of one group are never searched for each other.
        is_readable: (clips,) False for clips that could not be read: as queries they find nothing, and they are never
            found; None: all could.

    Returns:
        y_true (queries, 4) and y_pred (queries, 4), see the module's docstring, and (queries,) positions of the queries.

    Example:
        >>> directions = np.array([[1.0, 0.0], [0.8, 0.6], [0.9, 0.436], [0.0, 1.0]])
        >>> y_true, y_pred, queries = rank_sounds(directions, [0, 0, 1, 0], ["a", "b", "c", "d"])
        >>> y_pred[0].round(3).tolist()  # of clip 0: right ones at ranks 2 and 3
        [0.583, 2.0, 2.0, 2.0]
        >>> queries.tolist()  # clip 2 has no other clip of its class
        [0, 1, 3]
    """
    labels, numbers = np.asarray(y), np.unique(np.asarray(groups), return_inverse=True)[1]
    readable = np.ones(len(labels), bool) if is_readable is None else np.asarray(is_readable, bool)
    vectors = np.where(readable[:, None], np.asarray(directions, np.float64), 0.0)
    true, found, queries = [], [], []
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, len(labels)))
    for start in range(0, len(labels), at_once):
        similar = vectors[start : start + at_once] @ vectors.T  # (some clips, clips)
        for query in range(start, min(start + at_once, len(labels))):
            is_searched = numbers != numbers[query]
            is_right = is_searched & (labels == labels[query])
            n_right, n_searched = int(is_right.sum()), int(is_searched.sum())
            if not n_right:
                continue
            ranks: NDArray[np.int64] = np.zeros(0, np.int64)
            if readable[query]:
                own = similar[query - start]
                ranks = _rank_right(own[is_right & readable], own[is_searched & ~is_right & readable])
            true.append((n_right, n_searched, int(labels[query]), len(labels) - 1 - n_searched))
            found.append(_summarise_ranks(ranks, n_right))
            queries.append(query)
    return (
        np.array(true, np.int64).reshape(-1, 4),
        np.array(found, np.float64).reshape(-1, 4),
        np.array(queries, np.int64),
    )


def _rank_right(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the ranks of the right clips among all, rising; equally similar wrong clips stand before them."""
    rising = np.sort(right)
    places = np.searchsorted(rising, wrong, side="right")  # how many right clips are not nearer than each wrong one
    counts = np.bincount(places, minlength=len(rising) + 1)
    n_before = counts[::-1].cumsum()[::-1][1:]  # (right,) wrong clips that are at least as near, for rising similarity
    return np.arange(1, len(rising) + 1) + n_before[::-1]


def _summarise_ranks(ranks: NDArray[Any], n_right: int) -> tuple[float, float, float, float]:
    precision = float((np.arange(1, len(ranks) + 1) / ranks).sum()) / n_right
    first = float(ranks[0]) if len(ranks) else np.inf
    return precision, first, float((ranks <= 5).sum()), float((ranks <= 10).sum())


def value_queries(y_pred: ArrayLike, what: str) -> NDArray[np.float64]:
    """Return what each query adds to a metric, 0..1.

    Args:
        y_pred: (queries, 4), see the module's docstring.
        what: "map", the average precision; "recall_at_N", whether a right clip is among the first N; "precision_at_5" or
            "precision_at_10", the share of right clips among the first.

    Returns:
        (queries,) values; their mean is the metric.

    Raises:
        ValueError: if there is no such value.

    Source: average precision over all ranks, Manning, Raghavan & Schuetze, "Introduction to Information Retrieval" (2008),
        section 8.4; recall at N as in metric learning, Jegou et al., "Product Quantization for Nearest Neighbor Search",
        IEEE TPAMI 33 (2011): whether the first N hold a right one.

    Example:
        >>> found = np.array([[0.583, 2, 3, 4]])
        >>> value_queries(found, "map").item(), value_queries(found, "recall_at_1").item()
        (0.583, 0.0)
        >>> value_queries(found, "precision_at_5").item()
        0.6
    """
    columns = np.asarray(y_pred, np.float64)
    if what == "map":
        return columns[:, _PRECISION]
    if what.startswith("recall_at_"):
        return (columns[:, _FIRST] <= int(what.removeprefix("recall_at_"))).astype(np.float64)
    if what == "precision_at_5":
        return columns[:, _AMONG_5] / 5
    if what == "precision_at_10":
        return columns[:, _AMONG_10] / 10
    raise ValueError(f"no value {what!r} of a query; there are map, recall_at_N, precision_at_5 and precision_at_10")


def guess_queries(y_true: NDArray[Any], what: str) -> float:
    """Compute what a random order of the clips scores on average.

    Args:
        y_true: (queries, 4), see the module's docstring.
        what: as for `value_queries`.

    Returns:
        The expected score, 0..1.

    Example:
        >>> y_true = np.array([[1, 4, 0, 0]])  # one right clip of four
        >>> round(guess_queries(y_true, "map"), 4), guess_queries(y_true, "recall_at_1")
        (0.5208, 0.25)
    """
    each, counts = np.unique(y_true[:, [_N_RIGHT, _N_SEARCHED]], axis=0, return_counts=True)
    values = [_guess_one(int(n_right), int(n_searched), what) for n_right, n_searched in each]
    return float(np.average(values, weights=counts))


def _guess_one(n_right: int, n_searched: int, what: str) -> float:
    """Compute the expected value of one query; at rank k a clip is right with chance R / N."""
    if what == "map":
        ranks = np.arange(1, n_searched + 1)
        share = (n_right - 1) / (n_searched - 1) if n_searched > 1 else 0.0
        return float(((1 + (ranks - 1) * share) / ranks).sum() / n_searched)
    most = int(what.rpartition("_")[2])
    if what.startswith("precision_at_"):
        return min(n_searched, most) * n_right / n_searched / most
    missed = 1.0
    for place in range(min(most, n_searched)):
        missed *= max(n_searched - n_right - place, 0) / (n_searched - place)
    return 1 - missed
