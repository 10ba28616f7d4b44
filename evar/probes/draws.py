"""Draws of a few labelled clips of each class: at random, and with whole groups of clips kept together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: of a draw: a whole number, or several that name it together
Seed = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class FittingClips:
    """Facts about the clips that a probe is fitted on: training clips first, and after them the validation clips.

    Attributes:
        positions: (clips,) rows of the task's index.
        groups: (clips,) names of the recordings, speakers or instruments that the clips come from.
        is_valid_drawn: whether the validation clips were drawn from the published training part.

    Example:
        >>> FittingClips(np.array([3, 1]), np.array(["a", "b"])).is_valid_drawn
        False
    """

    positions: NDArray[np.int64]
    groups: NDArray[Any]
    is_valid_drawn: bool = False


def draw_clips(y: NDArray[Any], n_per_class: int, seed: Seed) -> NDArray[np.int64]:
    """Draw some clips of each class at random.

    Args:
        y: (clips,) labels.
        n_per_class: clips of each class, at least 1; all of a class that has fewer.
        seed: of the draw.

    Returns:
        (drawn,) int64 positions of the clips, rising.

    Example:
        >>> draw_clips(np.array([0, 0, 0, 1, 1, 2]), 2, seed=0).tolist()
        [0, 2, 3, 4, 5]
    """
    shuffled = np.random.default_rng(seed).permutation(len(y))
    kept = [shuffled[y[shuffled] == label][:n_per_class] for label in np.unique(y)]
    return np.sort(np.concatenate(kept))


def draw_groups(y: NDArray[Any], groups: ArrayLike, n_per_class: int, seed: Seed) -> NDArray[np.int64]:
    """Draw whole groups at random until each class has enough clips.

    The groups are gone through in a random order that depends on the seed alone. A group is taken whole if one of its
    classes still lacks clips, and else not at all. So a class may get more clips than requested, and never fewer unless it
    has fewer. The draw of a larger number holds every clip of the draw of a smaller number with the same seed.

    Args:
        y: (clips,) labels.
        groups: (clips,) group of each clip; clips of one recording share one.
        n_per_class: clips of each class at least, 1 or more.
        seed: of the draw.

    Returns:
        (drawn,) int64 positions of the clips, rising.

    Example:
        >>> draw_groups(np.array([0, 0, 0, 0, 1, 1]), ["a", "a", "b", "b", "c", "d"], 1, seed=0).tolist()
        [0, 1, 4]
        >>> y = np.array([0, 0, 0, 1, 1, 2])  # where every clip is its own group, it is `draw_clips`
        >>> draw_groups(y, range(6), 2, seed=0).tolist() == draw_clips(y, 2, seed=0).tolist()
        True
    """
    if len(np.unique(np.asarray(groups))) == len(y):
        return draw_clips(y, n_per_class, seed)
    classes, numbers = np.unique(y, return_inverse=True)
    members = list_members(groups)
    counts, taken = np.zeros(len(classes), np.int64), []
    lacking = len(classes)
    for number in np.random.default_rng(seed).permutation(len(members)):
        own = numbers[members[number]]
        if (counts[own] < n_per_class).any():
            taken.append(members[number])
            np.add.at(counts, own, 1)
            lacking = int((counts < n_per_class).sum())
        if not lacking:
            break
    return np.sort(np.concatenate(taken))


def list_members(groups: ArrayLike) -> list[NDArray[np.int64]]:
    """List the clips of each group, groups in the order of their first clip.

    Args:
        groups: (clips,) group of each clip.

    Returns:
        (clips of a group,) int64 positions for each group, rising.

    Example:
        >>> [clips.tolist() for clips in list_members(["b", "a", "b"])]
        [[0, 2], [1]]
    """
    _, first, numbers = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(numbers))[:-1])
    return [parts[at] for at in np.argsort(first)]


def list_points(n_most: int) -> list[int]:
    """List the numbers of labelled clips per class at which a curve is measured: 1, 2, 5, 10, 20, 50, ...

    Args:
        n_most: clips of the largest class; the numbers lie below it, because the last point of a curve is all clips.

    Example:
        >>> list_points(40), list_points(1)
        ([1, 2, 5, 10, 20], [])
    """
    found, scale = [], 1
    while scale < n_most:
        found += [step * scale for step in (1, 2, 5) if step * scale < n_most]
        scale *= 10
    return found
