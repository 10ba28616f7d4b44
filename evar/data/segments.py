"""Rows of an index that are parts of files: from columns of times to the names of clips, and from names to places on disk.

In an index, a part has its times in the columns start and end, in seconds. Inside evar, the name of the clip holds them:
`field.wav#t=1.5,4`. So every clip has a name of its own, and everything that is kept by clip follows.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from evar.audio.segments import Segment, format_address, format_seconds, name_file, parse_address
from evar.config.tables import real_path

#: columns of an index with the times of a part of a file, in seconds
TIMES = ("start", "end")


def name_segments(rows: pd.DataFrame, where: str = "the index") -> pd.DataFrame:
    """Put the times of an index into the names of its clips.

    Args:
        rows: of an index; the columns start and end may be missing, and cells of them empty or NaN. A row with neither is a
            whole file; one without an end goes to the end of its file.
        where: begins messages.

    Returns:
        The rows without the two columns; unchanged if there are none.

    Raises:
        ValueError: if a time is no number of seconds, or a row ends before it begins.

    Example:
        >>> rows = pd.DataFrame({"path": ["a.wav", "a.wav", "b.wav"], "start": ["0", "2.5", ""], "end": ["2.5", "4", ""]})
        >>> name_segments(rows)["path"].tolist()
        ['a.wav#t=0,2.5', 'a.wav#t=2.5,4', 'b.wav']
    """
    if "path" not in rows or ("start" not in rows and "end" not in rows):
        return rows
    nothing = [""] * len(rows)
    starts, ends = (rows[column].tolist() if column in rows else nothing for column in TIMES)
    names = []
    for path, start, end in zip(rows["path"].tolist(), starts, ends, strict=True):
        first, last = read_time(start, where), read_time(end, where)
        if first is None and last is None:
            names.append(path)
            continue
        first, last = first or 0.0, math.inf if last is None else last
        if not first < last:
            raise ValueError(f"{where}: {path} has a segment that ends before it begins, {first:g} to {last:g} s")
        names.append(format_address(path, first, last))
    return rows.assign(path=names).drop(columns=[column for column in TIMES if column in rows])


def read_time(cell: object, where: str = "the index") -> float | None:
    """Read a time in seconds; None for an empty cell or NaN.

    Raises:
        ValueError: if it is no number of seconds from 0 on.

    Example:
        >>> read_time("1.5"), read_time(""), read_time("nan"), read_time(float("nan"))
        (1.5, None, None, None)
    """
    text = str(cell).strip()
    if text.casefold() in ("", "nan", "none", "<na>"):
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}: start and end must be seconds from 0 on, got {text!r}")
    return seconds


def split_names(index: pd.DataFrame) -> pd.DataFrame:
    """Put the times of clips back into columns, as an index on disk has them; unchanged if every clip is a whole file.

    Example:
        >>> split_names(pd.DataFrame({"path": ["a.wav#t=0,2.5", "b.wav"], "label": ["x", "y"]})).values.tolist()
        [['a.wav', '0', '2.5', 'x'], ['b.wav', '', '', 'y']]
    """
    found = [parse_address(name) for name in index["path"]]
    if not any(found):
        return index
    times = [(one[1], one[2]) if one else (None, None) for one in found]
    columns = {
        "path": [name_file(name) for name in index["path"]],
        "start": ["" if start is None else format_seconds(start) for start, _ in times],
        "end": ["" if end is None or math.isinf(end) else format_seconds(end) for _, end in times],
    }
    return pd.DataFrame({**columns, **{name: index[name].tolist() for name in index.columns if name != "path"}})


def locate_clip(folder: Path, name: str) -> Path | Segment:
    """Return the file, or the part of a file, that a clip's name stands for.

    Args:
        folder: that paths begin at.
        name: of the clip.

    Example:
        >>> str(locate_clip(Path("field"), "a.wav#t=1.5,4")), str(locate_clip(Path("field"), "a.wav"))
        ('field/a.wav#t=1.5,4', 'field/a.wav')
    """
    found = parse_address(name)
    return real_path(folder, name) if found is None else Segment(real_path(folder, found[0]), *found[1:])
