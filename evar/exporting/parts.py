"""Part files: they keep finished work until the output is put together from them.

A part holds the vectors of the clips of one portion of the source, in a folder beside the output::

    features.parquet.parts/lock                     held by the one run that writes this output
    features.parquet.parts/<digest>.<feature>.f32   (rows, width) float32, little-endian; clips in the order of encoding
    features.parquet.parts/<digest>.json            where each clip's rows are; written LAST: the commit record

The digest is that of all settings and of the portion's files, so a part is never taken for another. A kill leaves at most
one part without its record, which is made again from the beginning: the same files, batches and numbers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from evar.audio.contents import state_of
from evar.config.disk import explain_writing
from evar.exporting.repeats import name_file
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.exporting.sources import Clip


def digest_of(settings: str, clips: Sequence[Clip]) -> str:
    """Digest of a portion: the settings, and each file's place and state; its content is not read.

    Size and modification time alone would not tell a file from another one that was copied over it with its times.

    Args:
        settings: everything besides the audio that can change the rows, as text.
        clips: of the portion, in the order of the source.

    Returns:
        32 hexadecimal digits.

    Example:
        >>> from evar.exporting.sources import Clip
        >>> clips = [Clip("a.wav", Path("a.wav"))]
        >>> one, other = digest_of("all layers", clips), digest_of("last layer", clips)
        >>> len(one), one == other
        (32, False)
    """
    digest = hashlib.sha256(settings.encode())
    for clip in clips:
        try:
            status = clip.file.stat()
            state = list(state_of(status))
        except OSError:
            state = []  # missing: a bad clip, until it is there
        digest.update(json.dumps([clip.path, os.path.abspath(clip.file), state, clip.columns]).encode())
    return digest.hexdigest()[:32]


class PartWriter:
    """Writes one part: rows as they come and, when every clip is settled, its record.

    Args:
        folder: of the parts.
        digest: of the part.
        clips: of the portion, in the order of the source.
        features: name -> width.
        elsewhere: positions of clips whose file is in a part before this one (see `evar.exporting.repeats`).
    """

    def __init__(
        self,
        folder: Path,
        digest: str,
        clips: Sequence[Clip],
        features: Mapping[str, int],
        elsewhere: frozenset[int] = frozenset(),
    ) -> None:
        self.clips = clips
        self._elsewhere = elsewhere
        self._folder, self._digest, self._features = folder, digest, features
        self._files: dict[str, IO[bytes]] = {}
        self._places: dict[int, tuple[float, int, int]] = {}
        self._bad: dict[int, str] = {}
        self._n_rows = 0
        places: dict[str, list[int]] = {}
        for position, clip in enumerate(clips):
            if position not in elsewhere:
                places.setdefault(name_file(clip), []).append(position)
        #: position of the first clip of each file -> all that are of this file: it is decoded and encoded once
        self.of_file = {positions[0]: positions for positions in places.values()}
        if not self.of_file:
            self._commit_when_whole()

    def add(self, position: int, seconds: float, rows: Mapping[str, NDArray[np.float32]]) -> None:
        """Write one clip.

        Args:
            position: of the first clip of the file in the portion; the others get the same rows.
            seconds: that it lasts.
            rows: feature -> (rows, width) float32, finite: a row is a clip's vector or a frame.

        Example:
            >>> import tempfile
            >>> from evar.exporting.sources import Clip
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     part = PartWriter(Path(folder), "d1", [Clip("a.wav", Path("a.wav"))], {"fc": 2})
            ...     part.add(0, 1.5, {"fc": np.ones((1, 2), np.float32)})
            ...     record_file(Path(folder), "d1").read_text()
            '{"clips": [["a.wav", [], 1.5, 0, 1]], "bad": []}'
        """
        n_rows = len(next(iter(rows.values())))
        with explain_writing(self._folder):
            for name, value in rows.items():
                if name not in self._files:
                    self._files[name] = open(locate_rows(self._folder, self._digest, name), "wb")  # noqa: SIM115
                self._files[name].write(np.ascontiguousarray(value, "<f4").tobytes())
        self._places |= dict.fromkeys(self.of_file[position], (seconds, self._n_rows, n_rows))
        self._n_rows += n_rows
        self._commit_when_whole()

    def fail(self, position: int, reason: str) -> None:
        """Settle a file that cannot be used.

        Args:
            position: of the first clip of the file in the portion.
            reason: why it cannot be used, as the output will say it.

        Example:
            >>> import tempfile
            >>> from evar.exporting.sources import Clip
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     part = PartWriter(Path(folder), "d1", [Clip("a.wav", Path("a.wav"))], {"fc": 2})
            ...     part.fail(0, "the file is empty")
            ...     record_file(Path(folder), "d1").read_text()
            '{"clips": [], "bad": [["a.wav", "the file is empty"]], "positions": [], "bad_positions": [0]}'
        """
        self._bad |= dict.fromkeys(self.of_file[position], reason)
        self._commit_when_whole()

    def _commit_when_whole(self) -> None:
        """Bring everything to the disk, the record last."""
        if len(self._places) + len(self._bad) + len(self._elsewhere) < len(self.clips):
            return
        with explain_writing(self._folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
        usable = [(self.clips[position], self._places[position]) for position in sorted(self._places)]
        record: dict[str, Any] = {
            "clips": [[clip.path, clip.columns, *place] for clip, place in usable],
            "bad": [[self.clips[position].name, self._bad[position]] for position in sorted(self._bad)],
        }
        if self._bad or self._elsewhere:  # else the positions are 0, 1, 2, ...
            record |= {"positions": sorted(self._places), "bad_positions": sorted(self._bad)}
        if self._elsewhere:
            others = [(position, self.clips[position]) for position in sorted(self._elsewhere)]
            record["elsewhere"] = [[position, clip.path, clip.columns, name_file(clip)] for position, clip in others]
        write_atomic(record_file(self._folder, self._digest), json.dumps(record).encode())


def record_file(folder: Path, digest: str) -> Path:
    """Return the path of the commit record of a part.

    Args:
        folder: of the parts.
        digest: of the part.

    Returns:
        A path; the file is there once the part is whole.

    Example:
        >>> record_file(Path("features.npz.parts"), "d1").name
        'd1.json'
    """
    return folder / f"{digest}.json"


def remove_unfinished(folder: Path) -> None:
    """Remove the rows of parts that have no record: after a full disk they would only take the space that is needed."""
    for file in folder.glob("*.f32"):
        if not record_file(folder, file.name.split(".")[0]).is_file():
            with contextlib.suppress(OSError):
                file.unlink()


def locate_rows(folder: Path, digest: str, feature: str) -> Path:
    """Return the path of the rows of one feature of a part.

    Example:
        >>> locate_rows(Path("parts"), "ab12", "conv5").name
        'ab12.conv5.f32'
    """
    return folder / f"{digest}.{feature}.f32"


@lru_cache(maxsize=32)
def _parse_record(path: Path, _: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def read_record(folder: Path, digest: str) -> dict[str, Any]:
    """Read the commit record of a part, the last few from memory.

    Args:
        folder: of the parts.
        digest: of the part.

    Raises:
        FileNotFoundError: if the part is not committed.
    """
    path = record_file(folder, digest)
    return _parse_record(path, path.stat().st_mtime_ns)


def list_positions(record: Mapping[str, Any]) -> list[int]:
    """List the positions of the usable clips of a part; a part without bad ones need not say them.

    Example:
        >>> list_positions({"clips": ["a.wav", "b.wav"]}), list_positions({"clips": ["b.wav"], "positions": [1]})
        ([0, 1], [1])
    """
    return list(record.get("positions", range(len(record["clips"]))))


def is_committed(folder: Path, digest: str, homes: Mapping[str, tuple[str, int]], is_home: bool) -> bool:
    """Tell whether a part is there and can be used in an output in which files repeat.

    Args:
        folder: of the parts.
        digest: of the part.
        homes: as for `Table`.
        is_home: later parts may point to it, so it must say the positions of its clips.
    """
    if not record_file(folder, digest).is_file():
        return False
    record = read_record(folder, digest)
    if is_home and record["bad"] and "bad_positions" not in record:  # of a version that knew no repeats
        return False
    return all(homes.get(name, (digest, 0))[0] != digest for *_, name in record.get("elsewhere", []))
