"""Tables for the terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from evar.config.plain_text import make_printable
from evar.report.tables.cells import make_sections
from evar.report.tables.compared import mark_equals
from evar.report.tables.costs import add_costs
from evar.report.tables.layout import TERMINAL, count_text_columns, lay_out_cells, list_remarks
from evar.report.tables.section import Section
from evar.results import Failure, Result
from evar.results.costs import load_costs


def format_terminal_table(
    results: Sequence[Result],
    failures: Sequence[Failure] = (),
    out: Path | None = None,
    width: int = 100,
    *,
    with_cost: bool = False,
) -> str:
    """Format the main tables as plain text for the end of a run; a table too wide goes on below itself.

    Args:
        results: in any order.
        failures: cells without a result.
        out: results folder with the predictions, for the interval of several seeds.
        width: columns of the terminal.
        with_cost: show what each row costs; needs the results folder.

    Example:
        >>> print(format_terminal_table([]))
        There are no results yet.
    """
    tables = [mark_equals(section, out) for section in make_sections(results, failures, out)]
    if with_cost and out is not None:
        records = load_costs(out)
        tables = [add_costs(section, records) for section in tables]
    return format_terminal_sections(tables, width)


def format_terminal_sections(tables: Sequence[Section], width: int = 100) -> str:
    """Format tables as plain text, each with its notes."""
    parts = []
    for section in tables:
        header, body = lay_out_cells(section, False, TERMINAL)
        table = format_text_table(header, body, count_text_columns(False), width)
        said = list_remarks(section, False, TERMINAL)
        notes = "\n".join(textwrap.fill(text, width, subsequent_indent="  ") for text in said)
        parts.append("\n\n".join([make_printable(section.title, one_line=True), table, notes]))
    return "\n\n\n".join(parts) or "There are no results yet."


def format_text_table(
    header: Sequence[Sequence[str]], body: Sequence[Sequence[str]], n_text_columns: int, width: int = 100
) -> str:
    """Format a table for a terminal; one that is too wide goes on below itself, the first columns repeated.

    Example:
        >>> print(format_text_table([["encoder", "esc10"]], [["logmel", "71.0"]], n_text_columns=1))
        encoder  esc10
        -------  -----
        logmel    71.0
    """
    lines = [*header, *body]
    widths = [max(map(measure_text, column)) for column in zip(*lines, strict=True)]
    blocks = []
    for columns in _split_columns(widths, n_text_columns, width):
        chosen = [widths[column] for column in columns]
        rendered = [align_columns([line[c] for c in columns], chosen, n_text_columns) for line in lines]
        rendered.insert(len(header), ["-" * size for size in chosen])
        blocks.append("\n".join("  ".join(line).rstrip() for line in rendered))
    return "\n\n".join(blocks)


def _split_columns(widths: Sequence[int], n_text_columns: int, width: int) -> list[list[int]]:
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
    """Fill the texts of a line up to the widths of their columns: text to the left, numbers to the right.

    Example:
        >>> align_columns(["logmel", "85.3"], [8, 6], n_text_columns=1)
        ['logmel  ', '  85.3']
    """
    padded = []
    for column, (text, width) in enumerate(zip(line, widths, strict=True)):
        space = " " * (width - measure_text(text))
        padded.append(text + space if column < n_text_columns else space + text)
    return padded


def measure_text(text: str) -> int:
    r"""Columns that a text takes in a terminal.

    Example:
        >>> measure_text("ab"), measure_text("\u65e5\u672c")
        (2, 4)
    """
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
