"""Part files: what is done stays done, until the output is put together from them.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from evar.audio.contents import state_of
from evar.config.disk import explain_writing
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.exporting.sources import Clip

_FLOAT_BYTES = 4
#: vectors that are in memory at a time while the output is put together
_BLOCK_BYTES, _BLOCK_ROWS = 32 * 2**20, 2**16


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
    """

    def __init__(self, folder: Path, digest: str, clips: Sequence[Clip], features: Mapping[str, int]) -> None:
        self.clips = clips
        self._folder, self._digest, self._features = folder, digest, features
        self._files: dict[str, IO[bytes]] = {}
        self._places: dict[int, tuple[float, int, int]] = {}
        self._bad: dict[int, str] = {}
        self._n_rows = 0
        places: dict[str, list[int]] = {}
        for position, clip in enumerate(clips):
            places.setdefault(os.path.abspath(clip.file), []).append(position)
        #: position of the first clip of each file -> all that are of this file: it is decoded and encoded once
        self.of_file = {positions[0]: positions for positions in places.values()}

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
                    self._files[name] = open(_rows_file(self._folder, self._digest, name), "wb")  # noqa: SIM115
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
            '{"clips": [], "bad": [["a.wav", "the file is empty"]]}'
        """
        self._bad |= dict.fromkeys(self.of_file[position], reason)
        self._commit_when_whole()

    def _commit_when_whole(self) -> None:
        """Bring everything to the disk, the record last."""
        if len(self._places) + len(self._bad) < len(self.clips):
            return
        with explain_writing(self._folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
        usable = [(self.clips[position], self._places[position]) for position in sorted(self._places)]
        record = {
            "clips": [[clip.path, clip.columns, *place] for clip, place in usable],
            "bad": [[self.clips[position].path, self._bad[position]] for position in sorted(self._bad)],
        }
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


def _rows_file(folder: Path, digest: str, feature: str) -> Path:
    return folder / f"{digest}.{feature}.f32"


@dataclass(frozen=True)
class Row:
    """The rows of one clip, or a piece of them.

    Attributes:
        path, columns, seconds: of the clip.
        clip: its number among all clips of the output.
        first: the piece begins at this row of the clip; 0 unless frames are many.
        n_rows: of the piece.
    """

    path: str
    columns: tuple[str, ...]
    seconds: float
    clip: int
    first: int
    n_rows: int


@dataclass
class Table:
    """What the output will hold, read from committed parts block by block.

    Attributes:
        folder: of the parts.
        digests: of the parts, in the order of the source.
        features: name -> width.
        columns: names of the columns that are carried along.
        hop: seconds between frames; 0 where a row is a clip.
        meta: what the output says about itself.
        n_clips, n_rows: without the bad clips.
        bad: [path, reason] of each clip that could not be used.
        longest: characters of the longest text in each text column.
    """

    folder: Path
    digests: Sequence[str]
    features: Mapping[str, int]
    columns: tuple[str, ...]
    hop: float
    meta: dict[str, Any] = field(default_factory=dict)
    n_clips: int = 0
    n_rows: int = 0
    bad: list[list[str]] = field(default_factory=list)
    longest: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.longest = dict.fromkeys(("path", *self.columns), 1)
        for digest in self.digests:
            record = self._record(digest)
            self.bad += record["bad"]
            self.n_clips += len(record["clips"])
            for path, columns, _, _, n_rows in record["clips"]:
                self.n_rows += n_rows
                for name, text in zip(self.longest, (path, *columns), strict=True):
                    self.longest[name] = max(self.longest[name], len(text))

    def clips(self) -> Iterator[list[Row]]:
        """The clips of one part after the other, in the order of the source.

        Yields:
            The clips of a part that has any, each with all its rows.

        Example:
            >>> import tempfile
            >>> from evar.exporting.sources import Clip
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     part = PartWriter(Path(folder), "d1", [Clip("a.wav", Path("a.wav"))], {"fc": 2})
            ...     part.add(0, 1.5, {"fc": np.ones((1, 2), np.float32)})
            ...     table = Table(Path(folder), ["d1"], {"fc": 2}, columns=(), hop=0.0)
            ...     [(row.path, row.seconds, row.n_rows) for rows in table.clips() for row in rows]
            [('a.wav', 1.5, 1)]
        """
        number = 0
        for digest in self.digests:
            part = []
            for path, columns, seconds, _, n_rows in self._record(digest)["clips"]:
                part.append(Row(path, tuple(columns), seconds, number, 0, n_rows))
                number += 1
            if part:
                yield part

    def blocks(self, features: Sequence[str] = ()) -> Iterator[tuple[list[Row], dict[str, NDArray[np.float32]]]]:
        """Rows and vectors, a bounded number at a time, in the order of the source; cut at the same places every time.

        Args:
            features: names of the wanted ones.

        Yields:
            The clips, or pieces of clips, of a block, and feature -> (rows of the block, width).

        Example:
            >>> import tempfile
            >>> from evar.exporting.sources import Clip
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     part = PartWriter(Path(folder), "d1", [Clip("a.wav", Path("a.wav"))], {"fc": 2})
            ...     part.add(0, 1.5, {"fc": np.ones((1, 2), np.float32)})
            ...     table = Table(Path(folder), ["d1"], {"fc": 2}, columns=(), hop=0.0)
            ...     [vectors["fc"].tolist() for _, vectors in table.blocks(["fc"])]
            [[[1.0, 1.0]]]
        """
        most = min(_BLOCK_ROWS, max(1, _BLOCK_BYTES // (_FLOAT_BYTES * sum(self.features.values()))))
        number = -1
        for digest in self.digests:
            files = {name: open(_rows_file(self.folder, digest, name), "rb") for name in features}  # noqa: SIM115
            block: list[tuple[Row, int]] = []  # a piece, and its first row in the part's files
            n_block = 0
            try:
                for path, columns, seconds, begin, n_rows in self._record(digest)["clips"]:
                    number += 1
                    first = 0
                    while first < n_rows:
                        n_piece = min(n_rows - first, most - n_block)
                        piece = Row(path, tuple(columns), seconds, number, first, n_piece)
                        block.append((piece, begin + first))
                        first, n_block = first + n_piece, n_block + n_piece
                        if n_block == most:
                            yield self._gather_vectors(block, files, n_block)
                            block, n_block = [], 0
                if block:
                    yield self._gather_vectors(block, files, n_block)
            finally:
                for file in files.values():
                    file.close()

    def _gather_vectors(
        self, block: list[tuple[Row, int]], files: Mapping[str, IO[bytes]], n_rows: int
    ) -> tuple[list[Row], dict[str, NDArray[np.float32]]]:
        vectors = {}
        for name, file in files.items():
            width = self.features[name]
            value = np.empty((n_rows, width), np.float32)
            place = 0
            for row, begin in block:
                file.seek(begin * width * _FLOAT_BYTES)
                value[place : place + row.n_rows] = np.frombuffer(
                    file.read(row.n_rows * width * _FLOAT_BYTES), "<f4"
                ).reshape(row.n_rows, width)
                place += row.n_rows
            vectors[name] = value
        return [row for row, _ in block], vectors

    def _record(self, digest: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(record_file(self.folder, digest).read_bytes())
        return record
