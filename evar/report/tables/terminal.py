"""Tables for the terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from evar.report.tables.cells import Section, sections
from evar.report.tables.compared import with_equals
from evar.report.tables.layout import TERMINAL, grid, n_text_columns_of, remarks
from evar.results import Failure, Result


def terminal_table(
    results: Sequence[Result], failures: Sequence[Failure] = (), out: Path | None = None, width: int = 100
) -> str:
    """The main tables as plain text for the end of a run; a table too wide goes on below itself.

    Args:
        results: in any order.
        failures: cells without a result.
        out: results folder with the predictions, for the interval of several seeds.
        width: columns of the terminal.

    Example:
        >>> print(terminal_table([]))
        There are no results yet.
    """
    return terminal_sections([with_equals(section, out) for section in sections(results, failures, out)], width)


def terminal_sections(tables: Sequence[Section], width: int = 100) -> str:
    """Tables as plain text, each with its notes."""
    parts = []
    for section in tables:
        header, body = grid(section, False, TERMINAL)
        table = text_table(header, body, n_text_columns_of(False), width)
        said = remarks(section, False, TERMINAL)
        notes = "\n".join(textwrap.fill(text, width, subsequent_indent="  ") for text in said)
        parts.append("\n\n".join([section.title, table, notes]))
    return "\n\n\n".join(parts) or "There are no results yet."


def text_table(
    header: Sequence[Sequence[str]], body: Sequence[Sequence[str]], n_text_columns: int, width: int = 100
) -> str:
    """A table for a terminal; one that is too wide goes on below itself, the first columns repeated."""
    lines = [*header, *body]
    widths = [max(map(measure_text, column)) for column in zip(*lines, strict=True)]
    blocks = []
    for columns in _blocks(widths, n_text_columns, width):
        chosen = [widths[column] for column in columns]
        rendered = [align_columns([line[c] for c in columns], chosen, n_text_columns) for line in lines]
        rendered.insert(len(header), ["-" * size for size in chosen])
        blocks.append("\n".join("  ".join(line).rstrip() for line in rendered))
    return "\n\n".join(blocks)


def _blocks(widths: Sequence[int], n_text_columns: int, width: int) -> list[list[int]]:
    """Columns that fit side by side; the first ones, which name a row, are repeated in each block."""
    named = list(range(n_text_columns))
    used = sum(widths[column] + 2 for column in named)
    blocks: list[list[int]] = []
    left = 0
    for column in range(n_text_columns, len(widths)):
        if not blocks or left < widths[column]:
            blocks.append(list(named))
            left = width - used
        blocks[-1].append(column)
        left -= widths[column] + 2
    return blocks or [named]


def align_columns(line: Sequence[str], widths: Sequence[int], n_text_columns: int) -> list[str]:
    padded = []
    for column, (text, width) in enumerate(zip(line, widths, strict=True)):
        space = " " * (width - measure_text(text))
        padded.append(text + space if column < n_text_columns else space + text)
    return padded


def measure_text(text: str) -> int:
    """Columns that a text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
