"""Lists for the terminal.

Not by `rich`: its tables draw frames and wrap cells, so that a list could be neither copied nor searched by line, and
these are thirty lines without an import. Progress bars are `tqdm`'s, which has notebooks too.
"""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "  # between columns


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], width: int, line: int | None = None) -> str:
    """Aligned columns; long cells are cut.

    Args:
        header: names of the columns.
        rows: cells, as many a row as the header has.
        width: longest cell, in characters.
        line: longest line, in characters; the second column then gets the width that the others leave. None: a
            line is as long as its cells are.

    Returns:
        Lines with a rule below the header.

    Example:
        >>> print(columns(["name", "what it is"], [["a", "a network on the waveform"]], width=60, line=22))
        name  what it is
        ----------------------
        a     a network on…
    """
    table = [[shorten(cell, width) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    if line is not None:
        others = sum(widths) - widths[1] + len(GAP) * (len(widths) - 1)
        widths[1] = max(len(header[1]), min(widths[1], line - others))
    lines = [GAP.join(shorten(cell, w).ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
    rule = len(lines[0]) if line is None else sum(widths) + len(GAP) * (len(widths) - 1)
    return "\n".join([lines[0], "-" * rule, *lines[1:]])


def shorten(cell: str, width: int) -> str:
    """At most `width` characters; a longer text ends in "…", at a whole word where one ends near.

    Example:
        >>> shorten("a network on the waveform", 18), shorten("unforgettable", 6)
        ('a network on the…', 'unfor…')
    """
    if len(cell) <= width:
        return cell
    kept = cell[: width - 1]
    whole = kept.rpartition(" ")[0].rstrip(" ,;:(")
    return (whole if whole and len(whole) >= width - 8 else kept.rstrip()) + "…"


#: exit status: all well; some cell of the grid failed; the command line or the input is wrong
DONE, SOME_FAILED, WRONG = 0, 1, 2
