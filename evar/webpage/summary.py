"""Summary: what was compared, sentences on the numbers, the tables with all that a reader must know, and mean ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evar.report.plots.ranks import rank_rows
from evar.report.tables.compared import is_equal
from evar.report.tables.layout import FLAG_MEANINGS, MARKS, Dress, format_percent, has_average, list_remarks
from evar.report.tables.section import Cell, Column, Row, Section, is_better
from evar.report.where import Reading
from evar.webpage.context import Context, name_row
from evar.webpage.page import Part
from evar.webpage.sentences import describe_comparison, describe_findings

#: the words of the remarks below a table for what is marked in it; the templates escape them
_DRESS = Dress(str, str, str, "in bold", "underlined")


def make_summary(context: Context, readings: Sequence[Reading] = ()) -> Part:
    """Make the part that opens the page.

    Args:
        context: the results folder.
        readings: the layers that validation clips choose, for a sentence.
    """
    tables = [_describe_section(section, readings) for section in context.sections]
    for cell in (cell for table in tables for row in table["rows"] for cell in row["cells"]):
        if badge := context.settings.badges.get(cell["id"]):
            cell["flags"].append({"mark": badge[0], "meaning": badge[1]})
    ranks = [found for section in context.sections if (found := _list_ranks(section))]
    shown = {"tables": tables, "n_results": len(context.results), "ranks": ranks}
    return Part("summary", "Summary", shown, {"ranks": ranks})


def _describe_section(section: Section, readings: Sequence[Reading]) -> dict[str, Any]:
    marks = {flag: MARKS[at % len(MARKS)] * (at // len(MARKS) + 1) for at, flag in enumerate(section.flags)}
    ranked = len(section.columns) > 1 and any(row.rank is not None for row in section.rows)
    columns = [{"label": one.label, "n": one.n_test, "chance": _percent(one.chance)} for one in section.columns]
    chances = [one.chance for one in section.columns]
    known = [one for one in chances if one is not None]
    return {
        "title": section.title,
        "about": describe_comparison(section),
        "findings": describe_findings(section, readings),
        "columns": columns,
        "ranked": ranked,
        "averaged": ranked and has_average(section),
        "has_chance": bool(known),
        "average_chance": _percent(sum(known) / len(known)) if known and len(known) == len(chances) else "-",
        "has_published": any(row.published for row in section.rows),
        "rows": [_describe_row(section, row, marks) for row in section.rows],
        "remarks": list_remarks(section, False, _DRESS),
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else format_percent(value)


def _describe_row(section: Section, row: Row, marks: Mapping[str, str]) -> dict[str, Any]:
    best_average = max((other.average for other in section.rows if other.average is not None), default=0.0)
    best_rank = min((other.rank for other in section.rows if other.rank is not None), default=0.0)
    return {
        "encoder": row.encoder,
        "layers": row.layers,
        "published": row.published,
        "flags": _list_flags(row.flags, marks),
        "cells": [
            _describe_cell(section, row, column, cell, marks)
            for column, cell in zip(section.columns, row.cells, strict=True)
        ],
        "average": "-" if row.average is None else format_percent(row.average),
        "average_sort": -1.0 if row.average is None else row.average,
        "average_best": row.average is not None and not is_better(best_average, row.average),
        "rank": "-" if row.rank is None else f"{row.rank:.2f}",
        "rank_sort": 1e9 if row.rank is None else row.rank,
        "rank_best": row.rank is not None and not is_better(row.rank, best_rank),
    }


def _list_flags(flags: Sequence[str], marks: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"mark": marks[flag], "meaning": FLAG_MEANINGS.get(flag, flag)} for flag in flags]


def _describe_cell(
    section: Section, row: Row, column: Column, cell: Cell | None, marks: Mapping[str, str]
) -> dict[str, Any]:
    """Describe one score: its text, how it stands out, and what hovering over it tells."""
    if cell is None:
        return {"text": "-", "kind": "none", "sort": -2.0, "tip": "not run", "id": "", "flags": [], "notes": []}
    column_number = section.columns.index(column)
    rivals = [
        score
        for other in section.rows
        if not other.published and (there := other.cells[column_number]) and (score := there.score) is not None
    ]
    best, kind = max(rivals, default=0.0), "plain"
    if cell.score is None:
        kind = "failed"
    elif not row.published and not is_better(best, cell.score):
        kind = "best"
    elif not row.published and cell.p_worse is not None and is_equal(cell, best):
        kind = "equal"
    numbers = {note: str(index + 1) for index, note in enumerate(section.notes)}
    text = "failed" if cell.score is None else format_percent(cell.score, cell.interval)
    if cell.ours is not None and cell.score is not None:
        text += f" (ours {100 * (cell.ours - cell.score):+.1f})"
    return {
        "text": text,
        "kind": kind,
        "sort": -1.0 if cell.score is None else cell.score,
        "tip": _write_tip(row, column, cell, kind),
        "id": cell.results[0].id if cell.results else "",
        "flags": _list_flags(cell.flags, marks),
        "notes": [{"number": numbers[note], "text": note} for note in cell.notes],
    }


def _write_tip(row: Row, column: Column, cell: Cell, kind: str) -> str:
    """Write what hovering over a score tells."""
    if cell.score is None:
        return "; ".join(cell.notes)
    sentences = [f"{name_row(row)} on {column.label}: {100 * cell.score:.2f} %"]
    if cell.interval is not None:
        sentences.append(f"95 % interval {100 * cell.interval[0]:.1f} to {100 * cell.interval[1]:.1f} %")
    if cell.results:
        n_test = sorted({result.n_test for result in cell.results})
        sentences.append(f"n = {' and '.join(map(str, n_test))} test clips")
        if len(cell.results) > 1:
            sentences.append(f"mean of {len(cell.results)} seeds")
    if row.published:
        sentences.append(f"published, not measured here: {row.published}")
    if kind == "best":
        sentences.append("best of its column")
    elif cell.p_worse is not None:
        p = "< 0.0001" if cell.p_worse < 1e-4 else f"= {cell.p_worse:.4f}"
        verdict = "not significantly worse" if kind == "equal" else "significantly worse"
        sentences.append(f"{verdict} than the best of its column (p {p}, corrected)")
    if column.chance is not None:
        sentences.append(f"chance {100 * column.chance:.1f} %")
    return "; ".join(sentences)


def _list_ranks(section: Section) -> dict[str, Any] | None:
    """List mean ranks for a chart; None if a table has too few rows or tasks."""
    found = rank_rows(section)
    if isinstance(found, str):
        return None
    names, ranks = found
    order = sorted(range(len(names)), key=lambda row: ranks.ranks[row])
    return {
        "title": section.title,
        "names": [names[row] for row in order],
        "ranks": [round(float(ranks.ranks[row]), 3) for row in order],
        "critical": round(ranks.critical, 3),
        "p": "< 0.0001" if ranks.p < 1e-4 else f"= {ranks.p:.4f}",
        "n_tasks": ranks.n_tasks,
    }
