"""Retrieval between clips and their captions, from ranks.

`y_true` and `y_pred` are (clips, 2 x captions), where `captions` is the largest number of captions of a clip. The first half
of `y_pred` holds, for each caption of a clip, the rank of the clip among all clips when the caption is the query (text to
audio). The second half holds the rank of that caption among all captions when the clip is the query (audio to text). The
first rank is 1; the rank of a clip that could not be read is infinity. `y_true` is 1 for a caption, and 0 if a clip has
fewer captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CUT = 10


def rank_matches(similar: ArrayLike, owners: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rank the clips for every caption, and the captions for every clip.

    Of equal similarities, those of wrong matches come first: an encoder that cannot tell things apart gains nothing.

    Args:
        similar: (clips, captions) similarities, larger is nearer.
        owners: (captions,) number of the clip that each caption belongs to.

    Returns:
        (captions,) rank of a caption's clip among all clips; (captions,) rank of a caption among all captions, with its own
        clip as the query.

    Example:
        >>> rank_matches([[0.9, 0.1, 0.5], [0.2, 0.3, 0.8]], [0, 0, 1])
        (array([1, 2, 1]), array([1, 3, 1]))
    """
    values, owner = np.asarray(similar, np.float64), np.asarray(owners, np.int64)
    numbers = np.arange(len(owner))
    own = values[owner, numbers]  # (caption,) similarity of a caption and its clip
    to_clip = (values >= own[None, :]).sum(axis=0)  # counts the clip itself
    to_caption = np.empty(len(owner), np.int64)
    for clip in np.unique(owner):
        is_own = owner == clip
        order = np.lexsort((is_own, -values[clip]))
        ranks = np.empty(len(owner), np.int64)
        ranks[order] = numbers + 1
        to_caption[is_own] = ranks[is_own]
    return to_clip, to_caption


def stack_hits(y_true: ArrayLike, y_pred: ArrayLike, direction: str, most: int) -> NDArray[np.float64]:
    """Count queries, and hits within the first `most`, of every clip.

    Args:
        y_true, y_pred: (clips, 2 x captions), see the docstring of the module.
        direction: "text_to_audio", where every caption is a query, or "audio_to_text", where every clip is one and its best
            caption counts.
        most: ranks that count.

    Returns:
        (clips, 2): queries and hits.

    Example:
        >>> stack_hits([[1, 1, 1, 1]], [[1, 7, 3, 2]], "text_to_audio", 5).tolist()
        [[2.0, 1.0]]
        >>> stack_hits([[1, 1, 1, 1]], [[1, 7, 3, 2]], "audio_to_text", 2).tolist()
        [[1.0, 1.0]]
    """
    there, ranks = _split(y_true, y_pred, direction)
    if direction == "text_to_audio":
        return np.stack([there.sum(axis=1), (ranks <= most).sum(axis=1)], axis=1).astype(np.float64)
    return np.stack([there.any(axis=1), ranks.min(axis=1) <= most], axis=1).astype(np.float64)


def stack_precisions(y_true: ArrayLike, y_pred: ArrayLike, direction: str) -> NDArray[np.float64]:
    """Sum queries, and their average precisions within the first ten, of every clip.

    A caption has one right clip, so that its average precision is 1 / rank. A clip has several right captions; the
    precision at each that is among the first ten is summed and divided by their number, at most ten.

    Args:
        y_true, y_pred: (clips, 2 x captions), see the docstring of the module.
        direction: as for `stack_hits`.

    Returns:
        (clips, 2): queries and the sum of their average precisions.

    Source: mAP@10 of the DCASE challenge's task of language-based audio retrieval.

    Example:
        >>> stack_precisions([[1, 1, 1, 1]], [[2, 40, 1, 4]], "text_to_audio").tolist()
        [[2.0, 0.5]]
        >>> stack_precisions([[1, 1, 1, 1]], [[2, 40, 1, 4]], "audio_to_text").tolist()  # (1 / 1 + 2 / 4) / 2
        [[1.0, 0.75]]
    """
    there, ranks = _split(y_true, y_pred, direction)
    if direction == "text_to_audio":
        return np.stack([there.sum(axis=1), np.where(ranks <= CUT, 1 / ranks, 0.0).sum(axis=1)], axis=1)
    ordered = np.sort(ranks, axis=1)
    precisions = np.where(ordered <= CUT, np.arange(1, ranks.shape[1] + 1) / ordered, 0.0)
    n_right = np.minimum(there.sum(axis=1), CUT)
    return np.stack([there.any(axis=1), precisions.sum(axis=1) / np.maximum(n_right, 1)], axis=1)


def median_rank(y_true: ArrayLike, y_pred: ArrayLike, direction: str) -> float:
    """Compute the median over queries of the rank of the (best) right answer, 1 for perfect.

    Args:
        y_true, y_pred: (clips, 2 x captions), see the docstring of the module.
        direction: as for `stack_hits`.

    Raises:
        ValueError: if half of the clips or more could not be read, so that the median is not a number.

    Example:
        >>> median_rank([[1, 1, 1, 1]], [[2, 40, 1, 4]], "text_to_audio")
        21.0
    """
    there, ranks = _split(y_true, y_pred, direction)
    found = ranks[there] if direction == "text_to_audio" else ranks.min(axis=1)[there.any(axis=1)]
    median = float(np.median(found))
    if not np.isfinite(median):
        raise ValueError("the median rank is infinite: half of the clips or more could not be read")
    return median


def compute_ratio(sums: ArrayLike) -> NDArray[np.float64]:
    """Divide the second column by the first.

    Args:
        sums: (n, 2), queries and what is averaged over them.

    Example:
        >>> compute_ratio([[4.0, 1.0]]).tolist()
        [0.25]
    """
    found = np.asarray(sums, np.float64)
    return found[:, 1] / found[:, 0]


def guess_hits(y_true: NDArray[Any], direction: str, most: int) -> float:
    """Compute the expected share of hits of a random order.

    Args:
        y_true: (clips, 2 x captions) of 0 and 1, see the docstring of the module.
        direction, most: as for `stack_hits`.

    Returns:
        The share, 0..1.

    Example:
        >>> guess_hits(np.ones((20, 4)), "text_to_audio", 5), round(guess_hits(np.ones((20, 4)), "audio_to_text", 1), 3)
        (0.25, 0.05)
    """
    there = y_true[:, : y_true.shape[1] // 2] > 0
    if direction == "text_to_audio":
        return min(1.0, most / len(there))
    n_captions, own = int(there.sum()), there.sum(axis=1)
    misses = np.ones(len(own))
    for place in range(min(most, n_captions)):  # the chance that none of a clip's own is among the first
        misses *= np.maximum(n_captions - own - place, 0) / (n_captions - place)
    return float((1 - misses).mean())


def guess_precision(y_true: NDArray[Any]) -> float:
    """Compute the expected average precision of a random order of clips: the mean of 1 / rank within the first ten.

    Args:
        y_true: (clips, 2 x captions); only the number of clips counts.

    Returns:
        The average precision, 0..1.

    Example:
        >>> round(guess_precision(np.ones((20, 4))), 3)
        0.146
    """
    return float(sum(1 / rank for rank in range(1, min(CUT, len(y_true)) + 1)) / len(y_true))


def _split(y_true: ArrayLike, y_pred: ArrayLike, direction: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which captions exist, and their ranks in one direction; infinity for those that do not exist."""
    true, ranks = np.asarray(y_true) > 0, np.asarray(y_pred, np.float64)
    half = true.shape[1] // 2
    part = slice(0, half) if direction == "text_to_audio" else slice(half, None)
    return true[:, part], np.where(true[:, part], ranks[:, part], np.inf)
