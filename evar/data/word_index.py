"""Look up which clips share words of their fingerprints with another sound, and at which offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: words that two sounds must have in common at one offset before they are compared bit by bit
VOTES = 2
#: a word that more clips than this have finds none of them
COMMON = 50


class WordIndex:
    """The words of clips in order, with clip and frame of each.

    A word that more than fifty clips have (hum, tones), or that occurs very often, is left out: it would find everything.

    Args:
        prints: of each clip, words (frames,) of 32 bits, and (frames,) False where a word comes from silence.

    Example:
        >>> words, is_sound = np.array([7, 8, 9, 9], np.uint32), np.ones(4, bool)
        >>> WordIndex([(words, is_sound)]).find_candidates((words[1:3], is_sound[1:3]))
        [(0, 1)]
    """

    def __init__(self, prints: Sequence[tuple[NDArray[np.uint32], NDArray[np.bool_]]]) -> None:
        words = np.concatenate([one[kept] for one, kept in prints] or [np.zeros(0, np.uint32)])
        frames = np.concatenate([np.flatnonzero(kept) for _, kept in prints] or [np.zeros(0, np.int64)])
        owners = np.repeat(np.arange(len(prints)), [int(kept.sum()) for _, kept in prints])
        order = np.argsort(words, kind="stable")
        words, owners, frames = words[order], owners[order], frames[order]
        starts = np.flatnonzero(np.diff(words, prepend=words[:1] ^ 1))
        counts = np.diff(np.append(starts, len(words)))
        is_new = np.diff(owners, prepend=-1) != 0  # within a word, the owners are in order
        is_new[starts] = True
        n_owners = np.add.reduceat(is_new, starts) if len(starts) else counts
        is_rare = (counts <= 4 * COMMON) & (n_owners <= COMMON)
        self._words, self._starts, self._counts = words[starts][is_rare], starts[is_rare], counts[is_rare]
        self._owners, self._frames = owners, frames

    def find_candidates(
        self,
        sound: tuple[NDArray[np.uint32], NDArray[np.bool_]],
        most_offsets: int | None = None,
        before: int | None = None,
    ) -> list[tuple[int, int]]:
        """Find clips with at least `VOTES` words of a sound at one offset.

        Args:
            sound: its words (frames,), and (frames,) False where a word comes from silence.
            most_offsets: offsets that are returned for each clip, those with the most common words first; None for all.
            before: only clips with a smaller number are looked for; None for all.

        Returns:
            (clip, offset): number of the clip, and how many frames later the common words are in the clip.
        """
        words, is_sound = sound
        places = np.flatnonzero(is_sound)
        if not len(self._words) or not len(places):
            return []
        wanted = words[places]
        at = np.minimum(np.searchsorted(self._words, wanted), len(self._words) - 1)
        hit = self._words[at] == wanted
        at, places = at[hit], places[hit]
        if len(places) < VOTES:
            return []
        counts = self._counts[at]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(self._starts[at], counts) + within
        offsets = self._frames[rows] - np.repeat(places, counts)
        if before is not None:
            is_before = self._owners[rows] < before
            rows, offsets = rows[is_before], offsets[is_before]
        shift = np.int64(2**31)
        keys, votes = np.unique((self._owners[rows].astype(np.int64) << 32) | (offsets + shift), return_counts=True)
        keys, votes = keys[votes >= VOTES], votes[votes >= VOTES]
        found: dict[int, list[int]] = {}
        for key in keys[np.argsort(-votes, kind="stable")].tolist():
            of_clip = found.setdefault(key >> 32, [])
            if most_offsets is None or len(of_clip) < most_offsets:
                of_clip.append((key & 0xFFFFFFFF) - 2**31)
        return [(clip, offset) for clip, of_clip in found.items() for offset in of_clip]
