"""Which clips: audio files, folders and CSV files, read one after the other and never held in memory as a whole."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from evar.audio.reading import FFMPEG_SUFFIXES
from evar.config.registry import near_miss, stays_below

#: what libsndfile reads, and ffmpeg where it is installed, by the endings that people give it (not RAW, which has no
#: header, nor matrices in .mat)
AUDIO_SUFFIXES = frozenset(
    [
        ".aif",
        ".aifc",
        ".aiff",
        ".au",
        ".avr",
        ".caf",
        ".flac",
        ".mp3",
        ".nist",
        ".oga",
        ".ogg",
        ".opus",
        ".rf64",
        ".sd2",
        ".snd",
        ".sph",
        ".voc",
        ".w64",
        ".wav",
        ".wve",
        ".xi",
        *FFMPEG_SUFFIXES,
    ]
)


@dataclass(frozen=True)
class Clip:
    """One audio file to embed.

    Attributes:
        path: as the output names it: as it stands in the CSV, else as the user would open it.
        file: where it is.
        columns: what the CSV's other columns say about it.
    """

    path: str
    file: Path
    columns: tuple[str, ...] = ()


class Source:
    """Clips in a fixed order; each iteration reads folders and CSV files anew.

    Args:
        words: audio files, folders (searched to the bottom, in the order of the names, hidden ones left out) and CSV
            files with a `path` column, as typed.
        data_root: where relative paths of a CSV begin; None: at the CSV's folder.

    Attributes:
        columns: names of the CSV's other columns.

    Raises:
        ValueError: if nothing is at a word, a CSV has no `path`, or sources have different columns.
    """

    def __init__(self, words: Sequence[str], data_root: str | Path | None = None) -> None:
        self.words = list(words)
        self.data_root = Path(data_root) if data_root else None
        if not words:
            raise ValueError("expected at least one audio file, folder or CSV, got none")
        for word in words:
            if not Path(word).exists():
                raise ValueError(f"no file or folder {word!r} here ({Path.cwd()})")
        found = {word: _csv_columns(word) if _is_csv(word) else () for word in words}
        self.columns = found[words[0]]
        for word, columns in found.items():
            if columns != self.columns:
                raise ValueError(
                    f"{words[0]} carries the columns {list(self.columns)}, but {word} {list(columns)}; "
                    "embed them into two files"
                )

    def __iter__(self) -> Iterator[Clip]:
        """The clips.

        Raises:
            ValueError: if a row of a CSV cannot be used, or a folder holds no audio.
        """
        for word in self.words:
            if _is_csv(word):
                yield from self._rows(word)
            elif Path(word).is_dir():
                path = None
                for path in audio_below(word):
                    yield Clip(_printable(path), Path(path))
                if path is None:
                    raise ValueError(f"no audio below {word}; looked for {', '.join(sorted(AUDIO_SUFFIXES))}")
            else:
                yield Clip(_printable(word), Path(word))

    def _rows(self, word: str) -> Iterator[Clip]:
        root = self.data_root or Path(word).parent
        line = 1
        with _reading(word) as reader:
            header = next(reader)
            place = header.index("path")
            for row in reader:
                line = reader.line_num
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(f"{word} line {line} has {len(row)} values, expected {len(header)} as in line 1")
                if any("\0" in cell for cell in row):
                    raise ValueError(f"{word} line {line} holds a NUL character; is the file damaged?")
                path, columns = row[place], tuple(row[:place] + row[place + 1 :])
                if not (Path(path).is_absolute() or stays_below(path)):
                    raise ValueError(
                        f"{word} line {line}: path {path!r} must be absolute, or relative with '/' and without '..'; "
                        "--data_root says where relative ones begin"
                    )
                yield Clip(path, root / path, columns)
        if line == 1:
            raise ValueError(f"{word} has no rows below its header")


def portions(clips: Iterable[Clip], n_clips: int) -> Iterator[list[Clip]]:
    """Clips in lists of `n_clips`, the last one shorter: the same list of files always has the same portions."""
    waiting = iter(clips)
    while portion := list(islice(waiting, n_clips)):
        yield portion


def audio_below(folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Paths of the audio files in a folder and the folders in it, by name.

    Args:
        folder: as typed; the paths begin with it.
        above: device and inode of the folders around it: a link that leads back to one of them is not followed.
    """
    status = os.stat(folder)
    here = (*above, (status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    for name, is_folder in found:
        path = os.path.join(folder, name)
        if is_folder:
            inner = os.stat(path)
            if (inner.st_dev, inner.st_ino) not in here:
                yield from audio_below(path, here)
        elif os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES:
            yield path


def _is_csv(word: str) -> bool:
    return Path(word).suffix.lower() == ".csv" and Path(word).is_file()


@contextmanager
def _reading(word: str) -> Iterator[Any]:
    """A CSV's reader; whatever goes wrong is said in one sentence that names the file."""
    with open(word, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            yield reader
        except UnicodeDecodeError:
            raise ValueError(f"{word} is not in UTF-8; save it again as CSV UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{word} line {reader.line_num} is not readable as CSV ({error})") from error


def _csv_columns(word: str) -> tuple[str, ...]:
    with _reading(word) as reader:
        header: list[str] = next(reader, [])
    if "path" not in header:
        raise ValueError(f"{word} needs a column 'path'; {near_miss('path', header)}")
    if len(set(header)) != len(header) or "" in header:
        raise ValueError(f"{word} must name each of its columns, and once, got {header}")
    return tuple(name for name in header if name != "path")


def _printable(path: str) -> str:
    """A file name that is no UTF-8 (old archives) would not fit into any output: its odd bytes are written out."""
    return path.encode("utf-8", "backslashreplace").decode()
