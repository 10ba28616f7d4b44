"""Cost: the score of each row against what it costs, with the rows that no other beats on both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evar.report.tables.costs import HEADINGS, describe_place, find_cost, format_cost
from evar.report.tables.section import Section
from evar.results.costs import CostRecord, load_costs
from evar.webpage.context import Context, name_row, to_percent
from evar.webpage.page import Part


def make_cost(context: Context) -> Part | None:
    """Make the part; None if no row has a width or a recorded cost.

    Args:
        context: the results folder.
    """
    records = load_costs(context.out)
    tables = [found for section in context.sections if (found := _describe_section(section, records))]
    if not tables:
        return None
    where = dict.fromkeys(
        describe_place(record.device, record.threads) for record in records if record.device and record.threads
    )
    return Part("cost", "Cost", {"where": " or ".join(where)}, {"tables": tables, "headings": list(HEADINGS)})


def _describe_section(section: Section, records: Sequence[CostRecord]) -> dict[str, Any] | None:
    """Describe the rows of one table that have a score; None if none has a cost."""
    rows = []
    for row in section.rows:
        cost = None if row.published else find_cost(row, records)
        scores = [to_percent(cell.score) if cell else None for cell in row.cells]
        if cost is None or all(score is None for score in scores):
            continue
        numbers = [cost.parameters, cost.seconds_per_second, cost.width, cost.bytes_per_clip]
        if all(number is None for number in numbers):
            continue
        rows.append(
            {
                "name": name_row(row),
                "costs": numbers,
                "texts": format_cost(cost),
                "where": describe_place(cost.device, cost.threads) if cost.device else "",
                "scores": [to_percent(row.average), *scores],
            }
        )
    if not rows:
        return None
    return {"title": section.title, "columns": [column.label for column in section.columns], "rows": rows}
