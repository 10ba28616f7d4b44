"""Index makers: a folder in a data set's published layout -> its index. Published splits only; nothing is drawn.

A maker is named in a task's YAML (`index_maker`) and called with the folder that holds the landmark. It returns one row a
clip: path (below that folder), label, split or fold, and where known group.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evar.config.registry import near_miss, stays_below


def published_file(top: Path, name: str, get_it: str) -> Path:
    """A split list or table that must lie in the data set's folder or, where it is no part of the archive, beside it.

    Args:
        top: the data set's folder.
        name: path below it.
        get_it: how to get the file, for the error.

    Raises:
        FileNotFoundError: if it is in neither place.
    """
    for folder in (top, top.parent):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{top / name} is not there, which tells the published split; {get_it}")


def read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV as text, after a check of its columns.

    Raises:
        ValueError: if a column is missing or the file is no CSV.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV ({' '.join(str(error).split())}); is the download whole?") from error
    for column in columns:
        if column not in table.columns:
            raise ValueError(f"{path} lacks the column {column!r}; {near_miss(column, list(table.columns))}")
    return table


def read_lines(path: Path, example: str) -> list[str]:
    """The lines of a split list, without blank ones; every one ends in a path that stays below the data set's folder.

    Args:
        path: of the list.
        example: what a line looks like, for the error.

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
