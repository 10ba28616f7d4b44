"""Tables of results: Markdown that also reads well in a terminal, and plain text.

Not by `tabulate`, which pandas needs for Markdown too: the table itself is six lines here, and it counts the columns of wide
characters and aligns cells that are no plain numbers, such as "**71.2** +-0.4".
"""

from __future__ import annotations

from collections.abc import Sequence

from evar.report.tables.layout import MARKDOWN, count_text_columns, escape_markdown, lay_out_cells, list_remarks
from evar.report.tables.section import Section
from evar.report.tables.terminal import align_columns, measure_text


def format_markdown(tables: Sequence[Section], *, by_layer: bool = False) -> str:
    """Format tables as Markdown, under headings, each with its notes; columns are aligned in the text too.

    Args:
        tables: as `make_sections` gives them.
        by_layer: one row a layer: a depth column, the best layer of each encoder in bold, no average and rank.
    """
    parts = ["# Every layer" if by_layer else "# Results"]
    if not tables:
        parts.append("There are no results yet.")
    for section in tables:
        (header, counts), body = lay_out_cells(section, by_layer, MARKDOWN)
        header = [f"{name} ({count})" if count else name for name, count in zip(header, counts, strict=True)]
        table = format_markdown_table(header, body, count_text_columns(by_layer))
        notes = "\n".join(f"- {text}" for text in list_remarks(section, by_layer, MARKDOWN))
        parts += [f"## {escape_markdown(section.title)}", table, notes]
    return "\n\n".join(parts) + "\n"


def format_markdown_table(header: Sequence[str], body: Sequence[Sequence[str]], n_text_columns: int) -> str:
    """Format a table whose columns are aligned in the text too: the first ones to the left, numbers to the right.

    Example:
        >>> print(format_markdown_table(["encoder", "a"], [["x", "1.0"]], 1))
        | encoder |   a |
        | ------- | --: |
        | x       | 1.0 |
    """
    lines = [header, *body]
    widths = [max(3, *map(measure_text, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i < n_text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    rendered = [align_columns(line, widths, n_text_columns) for line in lines]
    rendered.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in rendered)
