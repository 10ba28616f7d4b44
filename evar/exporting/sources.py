"""Which clips: audio files, folders and CSV files, read one after the other and never held in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from evar.audio.folders import AUDIO_SUFFIXES, LeftOut, find_audio
from evar.config.registry import near_miss, stays_below
from evar.config.tables import TableFile, find_file, show_path

#: names of columns that cut a clip out of a file
_TIMES = frozenset(
    (
        "start", "end", "onset", "offset", "start_time", "end_time", "start_s", "end_s", "begin", "stop", "duration",
        "start_seconds", "end_seconds", "start_sample", "end_sample",
    )
)  # fmt: skip
#: other names of the column of paths
_ALIASES = dict.fromkeys(("path", "file_name"), "path")


@dataclass(frozen=True)
class Clip:
    """One audio file to embed.

    Attributes:
        path: as the output names it: as it stands in the CSV, else as the user would open it.
        file: where it is.
        columns: its values in the other columns of the CSV.
    """

    path: str
    file: Path
    columns: tuple[str, ...] = ()


class Source:
    """Clips in a fixed order; each iteration reads folders and CSV files again.

    Args:
        words: audio files, folders (searched to the bottom, in the order of the names, hidden ones left out) and CSV
            files with a `path` column, as typed.
        data_root: where relative paths of a CSV begin; None: at the CSV's folder.

    Attributes:
        columns: names of the CSV's other columns.
        left_out: files that the last iteration left out in folders.

    Raises:
        ValueError: if nothing is at a word, a CSV has no `path` or cuts files into segments, or sources have different
            columns.
    """

    def __init__(self, words: Sequence[str], data_root: str | Path | None = None) -> None:
        self.left_out = LeftOut()
        self.words = list(words)
        self.data_root = Path(data_root) if data_root else None
        if not words:
            raise ValueError("expected at least one audio file, folder or CSV, got none")
        for word in words:
            if not Path(word).exists():
                raise ValueError(f"no file or folder {word!r} here ({Path.cwd()})")
        found = {word: _read_csv_columns(word) if _is_csv(word) else () for word in words}
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
        self.left_out = LeftOut()
        for word in self.words:
            if _is_csv(word):
                yield from self._read_rows(word)
            elif Path(word).is_dir():
                path = None
                for path in find_audio(word, self.left_out):
                    yield Clip(show_path(path), Path(path))
                if path is None:
                    said = self.left_out.describe()
                    raise ValueError(
                        f"no audio below {word}; looked for {', '.join(sorted(AUDIO_SUFFIXES))}"
                        + (said and f"; {said}")
                    )
            else:
                yield Clip(show_path(word), Path(word))

    def _read_rows(self, word: str) -> Iterator[Clip]:
        root = self.data_root or Path(word).parent
        table = TableFile(word, _ALIASES)
        place, is_empty = table.columns.index("path"), True
        for row in table.rows():
            is_empty = False
            path, columns = row[place], tuple(row[:place] + row[place + 1 :])
            if not (Path(path).is_absolute() or stays_below(path)):
                raise ValueError(
                    f"{word} line {table.line}: path {path!r} must be absolute, or relative with '/' and without '..'; "
                    "--data_root says where relative ones begin"
                )
            yield Clip(show_path(path), find_file(path, root) or root / path, columns)
        if is_empty:
            raise ValueError(f"{word} has no rows below its header")


def portions(clips: Iterable[Clip], n_clips: int) -> Iterator[list[Clip]]:
    """Cut clips into portions: the same list of files always has the same portions.

    Args:
        clips: taken one portion at a time.
        n_clips: of a portion, at least 1.

    Yields:
        Lists of `n_clips`, the last one shorter.

    Example:
        >>> clips = [Clip(name, Path(name)) for name in ("a.wav", "b.wav", "c.wav")]
        >>> [[clip.path for clip in portion] for portion in portions(clips, 2)]
        [['a.wav', 'b.wav'], ['c.wav']]
    """
    waiting = iter(clips)
    while portion := list(islice(waiting, n_clips)):
        yield portion


def _is_csv(word: str) -> bool:
    return Path(word).suffix.lower() in (".csv", ".tsv") and Path(word).is_file()


def _read_csv_columns(word: str) -> tuple[str, ...]:
    table = TableFile(word, _ALIASES)
    if "path" not in table.columns:
        raise ValueError(f"{word} needs a column 'path'; {near_miss('path', table.columns)}")
    times = [name for name in table.columns if name.casefold() in _TIMES]
    if times:
        raise ValueError(
            f"{word} has the columns {', '.join(times)}, which cut files into segments; segments are not embedded yet: cut "
            "the files first, or delete these columns to embed each file as a whole"
        )
    return tuple(name for name in table.columns if name != "path")
