"""What `evar search` prints and writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.applying.search import search
from evar.config.plain_text import make_cell_harmless, make_printable
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    import pandas as pd

#: columns that the terminal shows beside the path, and letters of the longest cell
_COLUMNS, _WIDTH = 3, 40


def find_and_show(
    features: str, query: str | None, like: str, unlike: str, output: Path | None, flags: Mapping[str, Any]
) -> str:
    """Search, write the CSV, and return the text for the terminal.

    Args:
        features: file of `evar embed`.
        query: as typed; None for none.
        like, unlike: comma lists, as typed.
        output: a CSV; None writes nothing.
        flags: the others, as `evar.search` takes them.

    Returns:
        A table, nearest first.

    Raises:
        ValueError, OSError, ImportError: as `evar.search`; or if the output's ending is another.
    """
    if output is not None and output.suffix.lower() != ".csv":
        raise ValueError(f"what is found is written as .csv, got {str(output)!r}; say {output.with_suffix('.csv')}")
    found = search(features, query, split_names(like), split_names(unlike), **flags)
    text = format_found(found)
    if output is not None:
        columns: dict[str, Any] = {name: [make_cell_harmless(value) for value in found[name]] for name in found.columns}
        made = found.assign(**columns).to_csv(index=False, lineterminator="\n", float_format="%.6g")
        write_atomic(output, made.encode("utf-8", "backslashreplace"))
        text += f"\nwritten: {output}"
    return text


def split_names(text: str) -> list[str]:
    """Return the names of a comma list; a file whose name holds a comma, given alone, is one name.

    Example:
        >>> split_names("a.wav, b.wav"), split_names("")
        (['a.wav', 'b.wav'], [])
    """
    if os.path.isfile(text):
        return [text]
    return [name.strip() for name in text.split(",") if name.strip()]


def format_found(found: pd.DataFrame) -> str:
    """Return what was found as aligned columns: rank, similarity, path, times of windows, and some columns of the file.

    Args:
        found: as `evar.search` returns it.

    Example:
        >>> import pandas
        >>> print(format_found(pandas.DataFrame({"rank": [1], "similarity": [0.91], "path": ["a.wav"]})))
        rank  similarity  path
        ----------------------
        1     0.910       a.wav
    """
    times = ["start", "end"] if "start" in found else []
    others = [name for name in found.columns if name not in ("rank", "similarity", "path", "start", "end", "seconds")]
    names = ["rank", "similarity", "path", *times, *others[:_COLUMNS]]
    table = [names] + [
        [_format_cell(name, value) for name, value in zip(names, row, strict=True)]
        for row in found[names].itertuples(index=False)
    ]
    widths = [max(len(row[at]) for row in table) for at in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _format_cell(name: str, value: Any) -> str:
    if name == "similarity":
        return f"{value:.3f}"
    if name in ("start", "end"):
        return f"{value:.2f}"
    shown = make_printable(value, one_line=True)
    if name == "path" or len(shown) <= _WIDTH:
        return shown
    return shown[: _WIDTH - 3] + "..."
