"""CSV for programs and spreadsheets: numbers stay numbers, and no cell is run as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from evar.config.plain_text import make_cell_harmless


def format_csv_table(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Write a table as CSV.

    Args:
        header: names of the columns.
        lines: cells, as many a line as the header has. Floats are written with at most 10 decimals; text of strangers
            that a spreadsheet would run or a terminal obey is made harmless.

    Returns:
        Lines that end in a line feed.

    Example:
        >>> print(format_csv_table(["label", "score"], [["=1+1", -0.5]]), end="")
        label,score
        '=1+1,-0.5
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for line in lines:
        writer.writerow([make_cell_harmless(repr(round(v, 10)) if isinstance(v, float) else v) for v in line])
    return buffer.getvalue()
