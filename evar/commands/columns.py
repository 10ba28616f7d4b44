"""Lists for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Aligned columns; long cells are cut at `width` characters."""
    cut = [[cell if len(cell) <= width else cell[: width - 1] + "…" for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cut) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cut]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
