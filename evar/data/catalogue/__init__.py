"""Index makers: a folder in a data set's published layout -> its index. Published splits only; nothing is drawn.

A maker is named in a task's YAML (`index_maker`) and called with the folder that holds the landmark. It returns one row a
clip: path (below that folder), label, split or fold, and if known group.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from evar.audio.folders import is_hidden
from evar.audio.not_audio import name_content
from evar.config.registry import stays_below
from evar.data.tables import read_frame


def find_published_file(top: Path, name: str, get_it: str, also: tuple[str, ...] = ()) -> Path:
    """Find a split list or table of a data set: in its folder or, where it is no part of the archive, beside it.

    Args:
        top: the data set's folder.
        name: path below it.
        get_it: how to get the file, for the error.
        also: if known copies and mirrors have it.

    Raises:
        FileNotFoundError: if it is in no place; the files that are there are named.
    """
    for path in (top / name, top.parent / name, *(top / other for other in also)):
        if path.is_file():
            return path
    # Mirrors unpack into folders of other names; if there are two, it is unclear which is meant.
    inner = [path for pattern in (f"*/{name}", f"*/*/{name}") for path in top.glob(pattern) if path.is_file()]
    inner = [path for path in inner if "__MACOSX" not in path.parts]
    if len(inner) == 1:
        return inner[0]
    raise FileNotFoundError(
        f"{top / name} is not there, which tells the published split; {get_it}; {top} holds {list_names(top)}"
    )


def list_names(folder: Path, n: int = 6) -> str:
    """List the first names in a folder, for an error."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir()) if folder.is_dir() else []
    names = [name for name in names if not is_hidden(name)]
    return ", ".join(names[:n]) + (f", ... ({len(names)} in all)" if len(names) > n else "") if names else "nothing"


def find_folder(top: Path, names: tuple[str, ...], example: str, get_it: str = "") -> str:
    """Find the folder of sounds below `top`, as a prefix of paths: "" or "audio/".

    Args:
        top: the data set's folder.
        names: where archives and mirrors have it, the published place first; "" is `top` itself.
        example: a pattern that matches a sound in it, such as "fold1/*.wav".
        get_it: what to do where it is nowhere; "" takes the published place, so that each missing clip is named.
    """
    for name in names:
        if any(True for _ in (top / name).glob(example)):
            return f"{name}/" if name else ""
    if get_it:
        raise FileNotFoundError(f"no sound such as {example} in {top} ({get_it}); it holds {list_names(top)}")
    return f"{names[0]}/" if names[0] else ""


def read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a CSV as text, after a check of its columns.

    Raises:
        ValueError: if a column is missing or the file is no CSV.
    """
    try:
        return read_frame(path, {name: name for name in columns}, columns)
    except ValueError as error:
        start = path.open("rb").read(64).lstrip().lower() if path.is_file() else b""
        what = name_content(start) if start.startswith((b"<", b"version")) else ""
        raise ValueError(f"{path} is {what}" if what else f"{error}; is the download whole?") from error


def read_columns(path: Path, columns: tuple[str, ...], separator: str = ",") -> list[dict[str, str]]:
    """Some columns of a table whose other columns may have no name, as pandas writes its row numbers.

    Args:
        path: of the table, in UTF-8.
        columns: that are needed.
        separator: between cells.

    Returns:
        One dictionary a row, with all columns; spaces around cells are taken off.

    Raises:
        ValueError: if a column is missing, a row is too short, or the file is no text.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, delimiter=separator))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table in UTF-8 ({error}); is the download whole?") from error
    names = [name.strip() for name in lines[0]] if lines else []
    missing = [column for column in columns if column not in names]
    if missing:
        is_page = "".join(names[:1]).lower().startswith(("<", "version"))
        what = "it is a web page or a Git LFS pointer" if is_page else f"it has {', '.join(names[:8]) or 'no columns'}"
        raise ValueError(f"{path} lacks the column {missing[0]!r}: {what}; is the download whole?")
    least = max(names.index(column) for column in columns) + 1
    rows = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < least:
            raise ValueError(f"{path} line {number}: expected at least {least} columns, got {len(cells)}: {cells[:4]}")
        rows.append(dict(zip(names, (cell.strip() for cell in cells), strict=False)))
    return rows


def require_below(path: Path, places: Iterable[str]) -> None:
    """Raise ValueError if a table names a clip that is not below the data set's folder.

    Args:
        path: of the table, for the error.
        places: of clips, as the table has them.
    """
    for place in places:
        if not stays_below(place):
            raise ValueError(f"{path}: path must stay below the data set's folder, got {place!r}")


def read_lines(path: Path, example: str) -> list[str]:
    """Read the lines of a split list, without blank ones; each ends in a path that stays below the data set's folder.

    Args:
        path: of the list.
        example: an example of a line, for the error.

    Raises:
        ValueError: if a path leaves the folder.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        if not stays_below(line.split()[-1]):
            raise ValueError(
                f"{path} line {number}: path must stay below the data set's folder, as in {example!r}, got {line!r}"
            )
    return lines
