"""Pair verification: have two test clips the same class? Decided by their cosine; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.metrics.pairs import BETWEEN_GROUPS, BETWEEN_NAMES
from evar.probes.comparing import Compared, ComparedClips, ComparingProbe
from evar.probes.protocol import ProbeTraits
from evar.probes.spaces import SPACES

#: what intervals draw: the groups of clips, or the classes (speakers)
UNITS = ("groups", "classes")
#: clips up to which all of their pairs are listed before some are drawn: 8 million pairs
_MOST_LISTED = 4000
#: numbers of directions in memory at once: 32 MB
_NUMBERS_AT_ONCE = 2**22
#: draws without a new pair, after which no more are looked for
_PATIENCE = 20


class PairsProbe(ComparingProbe):
    """Cosine of both clips of a pair; published pairs, or pairs that are drawn by a fixed rule.

    The rule: all pairs of test clips of one class, without those of one group (cuts of one recording); if there are more
    than `most_pairs` / 2, so many are drawn evenly. As many pairs of two classes are drawn evenly from all such pairs,
    likewise without those of one group. Order and draw depend on the clips of the round and on `draw_seed` alone, so that
    all encoders are tested on the same pairs.

    Args:
        spaces, metric, valid_clips: as for `ComparingProbe`.
        most_pairs: that are drawn, at least 2.
        draw_seed: of the draw.
        interval_over: "groups": intervals draw the groups of clips, and a pair counts as often as those of both of its clips
            are drawn; "classes": likewise classes (speakers), for what would change with other speakers.
        published: (pairs of text, text, whether they are of one class), where the task has published pairs, which are used
            as they are; a run sets it.

    Example:
        >>> X, y = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]]), [0, 0, 1, 1]
        >>> probe = PairsProbe(spaces=("raw",)).fit(X, y, None, None)
        >>> found = probe.compare(X, ComparedClips.of(y, ["a", "b", "c", "d"], ["a", "b", "c", "d"]))
        >>> found.names.tolist(), found.y_true.tolist()
        (['a and b', 'a and d', 'b and d', 'c and d'], [1.0, 0.0, 0.0, 1.0])
    """

    traits = ProbeTraits(compares_clips=True, reads_pairs=True)

    def __init__(
        self,
        spaces: Sequence[str] = SPACES,
        metric: str = "pair_auc",
        valid_clips: ComparedClips | None = None,
        most_pairs: int = 20_000,
        draw_seed: int = 0,
        interval_over: str = "groups",
        published: Any = None,
    ) -> None:
        self.spaces = spaces
        self.metric = metric
        self.valid_clips = valid_clips
        self.most_pairs = most_pairs
        self.draw_seed = draw_seed
        self.interval_over = interval_over
        self.published = published

    def compare(self, X: Any, clips: ComparedClips) -> Compared:
        """Compare test clips as `ComparingProbe.compare` does; published pairs are used where there are some."""
        self._test_pairs = self._find_published(clips)
        try:
            return super().compare(X, clips)
        finally:
            del self._test_pairs

    def _find_published(self, clips: ComparedClips) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
        """Find (pairs, 2) positions of the clips of the published pairs, and whether both are of one class."""
        if self.published is None:
            return None
        place = {name: number for number, name in enumerate(clips.names.tolist())}
        kept = [
            (place[one], place[other], same) for one, other, same in self.published if one in place and other in place
        ]
        if not kept:
            raise ValueError(f"none of {len(self.published)} published pairs is of clips that are tested")
        both = np.array([pair[:2] for pair in kept], np.int64)
        return both, np.array([pair[2] for pair in kept], bool)

    def _compare(self, directions: NDArray[np.float32], clips: ComparedClips) -> Compared:
        if self.interval_over not in UNITS:
            raise ValueError(f"interval_over must be {' or '.join(UNITS)}, got {self.interval_over!r}")
        known = getattr(self, "_test_pairs", None)
        if known is None:
            both = draw_pairs(clips.y, clips.groups, self.most_pairs, self.draw_seed)
            is_same = clips.y[both[:, 0]] == clips.y[both[:, 1]]
            facts: dict[str, Any] = {"pairs": "drawn"}
        else:
            both, is_same = known
            facts = {"pairs": "published", "n_published": len(self.published)}
        first, second = both.T
        scores = _compare_pairs(directions, both)
        is_read = clips.is_readable[first] & clips.is_readable[second]
        scores = np.where(is_read, scores, np.where(is_same, -np.inf, np.inf))
        units = clips.groups if self.interval_over == "groups" else clips.y.astype(str)
        return Compared(
            _join(clips.names, first, second, BETWEEN_NAMES),
            _join(units, first, second, BETWEEN_GROUPS),
            is_same.astype(np.float64),
            scores,
            {**facts, "n_same": int(is_same.sum()), "n_different": int((~is_same).sum())},
        )


def _compare_pairs(directions: NDArray[np.float32], both: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute (pairs,) cosines, some at a time: the directions of all pairs may not fit into memory."""
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, directions.shape[1]))
    parts = [both[start : start + at_once] for start in range(0, len(both), at_once)]
    return np.concatenate(
        [(directions[pairs[:, 0]].astype(np.float64) * directions[pairs[:, 1]]).sum(axis=1) for pairs in parts]
    )


def _join(texts: NDArray[np.str_], first: NDArray[np.int64], second: NDArray[np.int64], between: str) -> NDArray[Any]:
    return np.char.add(np.char.add(texts[first], between), texts[second])


def draw_pairs(y: NDArray[np.int64], groups: NDArray[np.str_], most_pairs: int, seed: int) -> NDArray[np.int64]:
    """Draw pairs of clips, equally many of one class and of two, none of one group.

    Args:
        y: (clips,) class of each clip.
        groups: (clips,) group of each clip.
        most_pairs: of both kinds together, at least 2.
        seed: of the draw.

    Returns:
        (pairs, 2) positions, the smaller first, sorted.

    Raises:
        ValueError: if there is no pair of one of the kinds.

    Example:
        >>> draw_pairs(np.array([0, 0, 0, 1]), np.array(["a", "a", "b", "c"]), 4, seed=0).tolist()
        [[0, 2], [0, 3], [1, 2], [1, 3]]
    """
    if most_pairs < 2:
        raise ValueError(f"most_pairs must be at least 2, got {most_pairs}")
    rng = np.random.default_rng(seed)
    numbers = np.unique(groups, return_inverse=True)[1]
    list_some = _list_all_pairs if len(y) <= _MOST_LISTED else _draw_some_pairs
    same, different = (list_some(y, numbers, is_same, most_pairs // 2, rng) for is_same in (True, False))
    n_each = min(len(same), len(different), most_pairs // 2)
    if not n_each:
        kind = "one class" if not len(same) else "two classes"
        raise ValueError(f"there is no pair of clips of {kind} in different groups, so that pairs cannot be drawn")
    kept = [rng.choice(pairs, n_each, replace=False) for pairs in (same, different)]
    return np.array(sorted(map(tuple, np.concatenate(kept).tolist())), np.int64)


def _list_all_pairs(
    y: NDArray[np.int64], groups: NDArray[np.int64], is_same: bool, n_wanted: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """List all pairs of one kind, (pairs, 2)."""
    first, second = np.triu_indices(len(y), 1)
    kept = ((y[first] == y[second]) == is_same) & (groups[first] != groups[second])
    return np.stack([first[kept], second[kept]], axis=1)


def _draw_some_pairs(
    y: NDArray[np.int64], groups: NDArray[np.int64], is_same: bool, n_wanted: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw (pairs, 2) at least `n_wanted` pairs of one kind, each equally likely, fewer if there are hardly more."""
    order = np.argsort(y, kind="stable")
    starts = np.searchsorted(y[order], y)  # (clips,) where the clips of a clip's class begin in that order
    sizes = np.bincount(y)[y]  # (clips,) how many they are
    # Each pair of one class is equally likely if its first clip is drawn by the number of its partners.
    chances = (sizes - 1) / (sizes - 1).sum() if is_same and (sizes > 1).any() else None
    found, n_vain, n_drawn = np.empty(0, np.int64), 0, 4 * n_wanted + 1000
    while len(found) < n_wanted and n_vain < _PATIENCE:
        first = rng.choice(len(y), n_drawn, p=chances)
        second = order[starts[first] + rng.integers(0, sizes[first])] if is_same else rng.integers(0, len(y), n_drawn)
        kept = ((y[first] == y[second]) == is_same) & (groups[first] != groups[second])
        codes = np.minimum(first, second)[kept] * len(y) + np.maximum(first, second)[kept]
        more = np.unique(np.concatenate([found, codes]))
        n_vain, found = (n_vain + 1 if len(more) == len(found) else 0), more
    return np.stack([found // len(y), found % len(y)], axis=1)
