"""Files that a source names more than once: each is encoded once, and its rows are used wherever it stands.

Within a part, `PartWriter.of_file` sees to that. Over parts, a repeated file has a home, the part that names it first;
later parts hold no rows of it and say where they are. Only files that do repeat are remembered by their path. To find
them takes eight bytes a clip, so memory hardly grows with the number of clips.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.segments import format_address

if TYPE_CHECKING:
    from evar.exporting.sources import Clip


class FileCounter:
    """Counts files without remembering their paths.

    Example:
        >>> from pathlib import Path
        >>> from evar.exporting.sources import Clip
        >>> counter = FileCounter()
        >>> counter.add([Clip("a.wav", Path("a.wav")), Clip("b.wav", Path("b.wav")), Clip("a.wav", Path("a.wav"))])
        >>> len(counter.find_repeated())
        1
    """

    def __init__(self) -> None:
        self._hashes = array("Q")

    def add(self, clips: Sequence[Clip]) -> None:
        """Count the files of some clips."""
        self._hashes.extend(_hash_path(name_file(clip)) for clip in clips)

    def find_repeated(self) -> frozenset[int]:
        """Return the hashes of files that were counted more than once.

        Example:
            >>> FileCounter().find_repeated()
            frozenset()
        """
        ordered = np.sort(np.frombuffer(self._hashes, np.uint64)) if self._hashes else np.zeros(0, np.uint64)
        return frozenset(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]).tolist())


class Homes:
    """Where the rows of repeated files are: the part that names the file first, and the position of the clip there.

    Args:
        repeated: as `FileCounter.find_repeated` gives them.
    """

    def __init__(self, repeated: frozenset[int] = frozenset()) -> None:
        self._repeated = repeated
        self.places: dict[str, tuple[str, int]] = {}

    @property
    def has_repeats(self) -> bool:
        """True if any file is named more than once."""
        return bool(self._repeated)

    def visit(self, digest: str, clips: Sequence[Clip]) -> frozenset[int]:
        """Go through the clips of the next part; parts must come in the order of the source.

        Args:
            digest: of the part.
            clips: of the part.

        Returns:
            Positions of clips whose file has its home in an earlier part.
        """
        if not self._repeated:
            return frozenset()
        elsewhere = []
        for position, clip in enumerate(clips):
            name = name_file(clip)
            if _hash_path(name) not in self._repeated:
                continue
            if self.places.setdefault(name, (digest, position))[0] != digest:
                elsewhere.append(position)
        return frozenset(elsewhere)


def name_file(clip: Clip) -> str:
    """Return the path by which a file, or a part of it, is known again.

    Example:
        >>> from pathlib import Path
        >>> from evar.exporting.sources import Clip
        >>> name_file(Clip("a", Path("sounds/../a.wav"))) == os.path.abspath("a.wav")
        True
    """
    path = os.path.abspath(clip.file)
    return path if clip.times is None else format_address(path, *clip.times)


def _hash_path(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "big")
