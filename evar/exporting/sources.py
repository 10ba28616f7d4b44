"""Which clips: audio files, folders and CSV files, read one after the other and never held in memory as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from evar.audio.folders import AUDIO_SUFFIXES, LeftOut, find_audio
from evar.audio.reading import AudioError, measure
from evar.audio.segments import Segment, cut_windows, format_address, require_window
from evar.config.registry import near_miss, stays_below
from evar.config.tables import TableFile, find_file, show_path

#: names of columns that cut a clip out of a file in a way that is not read
_OTHER_TIMES = frozenset(("duration", "start_sample", "end_sample", "begin_sample"))
#: other names of columns
_ALIASES = {
    **dict.fromkeys(("path", "file_name"), "path"),
    **dict.fromkeys(("start", "onset", "start_time", "start_s", "start_seconds", "begin"), "start"),
    **dict.fromkeys(("end", "offset", "end_time", "end_s", "end_seconds", "stop"), "end"),
}
#: columns of an output with the times of its clips, in seconds
TIMES = ("start", "end")


@dataclass(frozen=True)
class Clip:
    """One audio file, or a part of one, to embed.

    Attributes:
        path: as the output names it: as it stands in the CSV, else as the user would open it.
        file: where it is.
        columns: its values in the other columns of the CSV; if the source has times, start and end are the last two.
        times: start and end in seconds, of a part of the file; infinity stands for its end. None for the whole file.
    """

    path: str
    file: Path
    columns: tuple[str, ...] = ()
    times: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The path, with the times of a part."""
        return self.path if self.times is None else format_address(self.path, *self.times)

    def cut(self, times: tuple[float, float] | None) -> Clip:
        """Make the clip that is a part of the file; None for the whole file, in a source that has times."""
        told = ("0", "inf") if times is None else (repr(times[0]), repr(times[1]))
        return replace(self, columns=(*self.columns, *told), times=times)


class Source:
    """Clips in a fixed order; each iteration reads folders and CSV files again.

    Args:
        words: audio files, folders (searched to the bottom, in the order of the names, hidden ones left out) and CSV
            files with a `path` column, as typed.
        data_root: where relative paths of a CSV begin; None: at the CSV's folder.
        window, hop: seconds of a window, and from the beginning of one to that of the next; see
            `evar.audio.segments.cut_windows`. None takes files, or the parts that a CSV names, as they are.

    Attributes:
        columns: names of the CSV's other columns; behind them start and end, if there are parts or windows.
        left_out: files that the last iteration left out in folders.

    Raises:
        ValueError: if nothing is at a word, a CSV has no `path` or times that are not read, sources have different columns,
            or a window is no length.
    """

    def __init__(
        self,
        words: Sequence[str],
        data_root: str | Path | None = None,
        window: float | None = None,
        hop: float | None = None,
    ) -> None:
        if window is None and hop is not None:
            raise ValueError(f"hop is the time between windows; give the window too, got hop {hop:g} alone")
        self.windows = None if window is None else (window, hop or window)
        if self.windows:
            require_window(*self.windows)
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
        self._has_times = self.windows is not None or self.columns[-2:] == TIMES
        for word, columns in found.items():
            if columns != self.columns:
                raise ValueError(
                    f"{words[0]} carries the columns {list(self.columns)}, but {word} {list(columns)}; "
                    "embed them into two files"
                )
        if self.windows is not None and self.columns[-2:] != TIMES:
            self.columns = (*self.columns, *TIMES)

    def describe_windows(self) -> dict[str, float]:
        """Return the length of the windows and the time between them, as the metadata of an output says them."""
        return (
            {} if self.windows is None else {"window_seconds": self.windows[0], "window_hop_seconds": self.windows[1]}
        )

    def __iter__(self) -> Iterator[Clip]:
        """The clips, or the windows of each.

        Raises:
            ValueError: if a row of a CSV cannot be used, or a folder holds no audio.
        """
        for clip in self._list_clips():
            if self.windows is None:
                yield clip if clip.times or not self._has_times else clip.cut(None)
                continue
            start, end = clip.times or (0.0, math.inf)
            try:
                n_samples, sample_rate = measure(clip.file)
                if clip.times:
                    Segment(clip.file, start, end).locate(n_samples, sample_rate)
            except AudioError:  # it is named when it is to be read
                yield clip if clip.times else clip.cut(None)
                continue
            whole = replace(clip, columns=clip.columns[:-2]) if clip.times else clip
            for first, last in cut_windows(min(end, n_samples / sample_rate) - start, *self.windows):
                yield whole.cut((start + first, start + last))

    def _list_clips(self) -> Iterator[Clip]:
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
        others = [at for at, name in enumerate(table.columns) if name not in ("path", *TIMES)]
        for row in table.rows():
            is_empty = False
            path, columns = row[place], tuple(row[at] for at in others)
            if not (Path(path).is_absolute() or stays_below(path)):
                raise ValueError(
                    f"{word} line {table.line}: path {path!r} must be absolute, or relative with '/' and without '..'; "
                    "--data_root says where relative ones begin"
                )
            clip = Clip(show_path(path), find_file(path, root) or root / path, columns)
            times = _read_times(dict(zip(table.columns, row, strict=True)), f"{word} line {table.line}")
            yield clip if times is None else clip.cut(times)
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
    times = [name for name in table.columns if name.casefold() in _OTHER_TIMES]
    if times:
        raise ValueError(
            f"{word} has the columns {', '.join(times)}, which cut files into segments in a way that is not read: give "
            "start and end in seconds, or delete these columns to embed each file as a whole"
        )
    others = tuple(name for name in table.columns if name not in ("path", *TIMES))
    return (*others, *TIMES) if set(TIMES) & set(table.columns) else others


def _read_times(row: dict[str, str], where: str) -> tuple[float, float] | None:
    """Start and end of a row in seconds; None for a whole file.

    Raises:
        ValueError: if a time is no number, or the end is not after the start.
    """
    found = []
    for name, default in (("start", 0.0), ("end", math.inf)):
        text = row.get(name, "").strip()
        is_empty = text.casefold() in ("", "nan")
        try:
            found.append(default if is_empty else float(text))
        except ValueError:
            raise ValueError(f"{where}: {name} must be seconds, got {text!r}") from None
    start, end = found
    if not 0 <= start < end:
        raise ValueError(
            f"{where}: a part must begin at 0 or later and end after it begins, got {start:g} to {end:g} s"
        )
    return None if (start, end) == (0.0, math.inf) else (start, end)
