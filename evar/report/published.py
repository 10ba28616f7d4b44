"""Rows of published numbers in a table, clearly apart from what was measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evar.config import PublishedConfig, PublishedRow
from evar.report.cells import Cell, Row, Section


def with_published(section: Section, known: Sequence[PublishedConfig]) -> Section:
    """The table with rows of published numbers below ours; they take no part in ranks, bold or averages.

    Published numbers are of all clips, so a table of a limit gets none.

    Args:
        section: of our rows.
        known: what to show of it: encoders with a score on at least one of the table's tasks.
    """
    if section.limit is not None:
        return section
    added = []
    for one in known:
        for row in one.rows:
            cells = [_cell(one, row, column.task, index, section) for index, column in enumerate(section.columns)]
            if any(cell is not None for cell in cells):
                name = f"{one.title}, {one.source}; {one.protocol}"
                added.append(Row(row.label, f"published: {one.name}", None, None, tuple(cells), published=name))
    return replace(section, rows=(*section.rows, *added))


def _cell(one: PublishedConfig, row: PublishedRow, task: str, column: int, section: Section) -> Cell | None:
    if task not in one.tasks:
        return None
    at = one.tasks.index(task)
    score = row.scores[at] / 100
    half = row.plus_minus[at] / 100 if row.plus_minus else None
    interval = None if half is None else (score - half, score + half)
    ours = [
        cell.score
        for other in section.rows
        if other.first is not None and other.first.encoder == row.encoder and other.first.default
        if "random weights" not in other.flags
        if (cell := other.cells[column]) is not None and cell.score is not None and "random weights" not in cell.flags
    ]
    return Cell(score=score, interval=interval, ours=ours[0] if len(ours) == 1 else None)
