"""The output before it is written: clips and vectors of all parts, read block by block in the order of the source."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from evar.exporting.parts import list_positions, locate_rows, read_record
from evar.exporting.sources import TIMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOAT_BYTES = 4
#: vectors that are in memory at a time while the output is put together
_BLOCK_BYTES, _BLOCK_ROWS = 32 * 2**20, 2**16


@dataclass(frozen=True)
class Row:
    """The rows of one clip, or a piece of them.

    Attributes:
        path, columns, seconds: of the clip.
        clip: its number among all clips of the output.
        first: the piece begins at this row of the clip; 0 unless frames are many.
        n_rows: of the piece.
        start, end: seconds from the beginning of the file, of the clip.
    """

    path: str
    columns: tuple[str, ...]
    seconds: float
    clip: int
    first: int
    n_rows: int
    start: float
    end: float


@dataclass
class Table:
    """The rows of an output, read from committed parts block by block.

    Attributes:
        folder: of the parts.
        digests: of the parts, in the order of the source.
        features: name -> width.
        columns: names of the columns that are carried along, without start and end.
        has_times: clips are parts of files, so each has a start and an end.
        hop: seconds between frames; 0 if a row is a clip.
        homes: path of a file that repeats -> its part, and its position there.
        meta: metadata of the output.
        n_clips, n_rows: without the bad clips.
        bad: [path, reason] of each clip that could not be used.
        longest: characters of the longest text in each text column.
    """

    folder: Path
    digests: Sequence[str]
    features: Mapping[str, int]
    columns: tuple[str, ...]
    hop: float
    homes: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    n_clips: int = 0
    n_rows: int = 0
    bad: list[list[str]] = field(default_factory=list)
    longest: dict[str, int] = field(default_factory=dict)
    has_times: bool = False

    def __post_init__(self) -> None:
        self.has_times = tuple(self.columns[-2:]) == TIMES
        self.columns = tuple(self.columns[:-2] if self.has_times else self.columns)
        self.longest = dict.fromkeys(("path", *self.columns), 1)
        for digest in self.digests:
            entries, bad = self._read_part(digest)
            self.bad += bad
            self.n_clips += len(entries)
            for path, columns, _, _, n_rows, _ in entries:
                self.n_rows += n_rows
                texts = columns[:-2] if self.has_times else columns
                for name, text in zip(self.longest, (path, *texts), strict=True):
                    self.longest[name] = max(self.longest[name], len(text))

    def clips(self) -> Iterator[list[Row]]:
        """Return the clips of one part after the other, in the order of the source.

        Yields:
            The clips of a part that has any, each with all its rows.

        Example:
            >>> import tempfile
            >>> from evar.exporting.parts import PartWriter
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
            for path, columns, seconds, _, n_rows, _ in self._read_part(digest)[0]:
                part.append(self._make_row(path, columns, seconds, number, 0, n_rows))
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
            >>> from evar.exporting.parts import PartWriter
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
            entries, _ = self._read_part(digest)
            own = features if any(not home for *_, home in entries) else ()  # a part may only point to others
            files = {name: open(locate_rows(self.folder, digest, name), "rb") for name in own}  # noqa: SIM115
            block: list[
                tuple[Row, int, str]
            ] = []  # a piece, its first row in the part's files, and another part's name
            n_block = 0
            try:
                for path, columns, seconds, begin, n_rows, home in entries:
                    number += 1
                    first = 0
                    while first < n_rows:
                        n_piece = min(n_rows - first, most - n_block)
                        piece = self._make_row(path, columns, seconds, number, first, n_piece)
                        block.append((piece, begin + first, home))
                        first, n_block = first + n_piece, n_block + n_piece
                        if n_block == most:
                            yield self._gather_vectors(block, features, files, n_block)
                            block, n_block = [], 0
                if block:
                    yield self._gather_vectors(block, features, files, n_block)
            finally:
                for file in files.values():
                    file.close()

    def _make_row(self, path: str, columns: Sequence[str], seconds: float, clip: int, first: int, n_rows: int) -> Row:
        start, end = (float(columns[-2]), float(columns[-1])) if self.has_times else (0.0, math.inf)
        texts = tuple(columns[:-2] if self.has_times else columns)
        end = end if math.isfinite(end) else start + seconds
        return Row(path, texts, seconds, clip, first, n_rows, start, end)

    def _gather_vectors(
        self,
        block: list[tuple[Row, int, str]],
        features: Sequence[str],
        files: Mapping[str, IO[bytes]],
        n_rows: int,
    ) -> tuple[list[Row], dict[str, NDArray[np.float32]]]:
        vectors = {}
        for name in features:
            width = self.features[name]
            value = np.empty((n_rows, width), np.float32)
            place = 0
            for row, begin, home in block:
                value[place : place + row.n_rows] = self._read_rows(files.get(name), home, name, begin, row.n_rows)
                place += row.n_rows
            vectors[name] = value
        return [row for row, _, _ in block], vectors

    def _read_rows(self, file: IO[bytes] | None, home: str, name: str, begin: int, n_rows: int) -> NDArray[np.float32]:
        """(rows, width) of a feature; from the file of another part where one is named."""
        if home or file is None:
            with open(locate_rows(self.folder, home, name), "rb") as other:
                return self._read_rows(other, "", name, begin, n_rows)
        width = self.features[name]
        file.seek(begin * width * _FLOAT_BYTES)
        return np.frombuffer(file.read(n_rows * width * _FLOAT_BYTES), "<f4").reshape(n_rows, width)

    def _read_part(self, digest: str) -> tuple[list[list[Any]], list[list[str]]]:
        """Usable clips of a part, (path, columns, seconds, first row, rows, part that has the rows or ""), and bad ones."""
        record = read_record(self.folder, digest)
        entries = {at: [*clip, ""] for at, clip in zip(list_positions(record), record["clips"], strict=True)}
        bad = dict(zip(record.get("bad_positions", range(len(record["bad"]))), record["bad"], strict=True))
        for position, path, columns, name in record.get("elsewhere", []):
            home, place = self.homes[name]
            of_home = read_record(self.folder, home)
            if place in (positions := list_positions(of_home)):
                _, _, *where = of_home["clips"][positions.index(place)]
                entries[position] = [path, columns, *where, home]
            else:
                reason = of_home["bad"][of_home["bad_positions"].index(place)][1]
                bad[position] = [path, reason]
        return [entries[position] for position in sorted(entries)], [bad[position] for position in sorted(bad)]
