"""Rows of published numbers in a table, clearly apart from what was measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evar.config.folders import names
from evar.config.published import PublishedConfig, PublishedRow, load_published_config
from evar.report.tables.section import Cell, Row, Section


def load_published(published: str | Sequence[str | PublishedConfig]) -> list[PublishedConfig]:
    """Load the files of published numbers that the caller names.

    Args:
        published: "all", names or paths of YAML files joined by commas, or a list of names, of paths and of what
            `load_published_config` gave.

    Raises:
        ValueError: if a name is unknown; near misses are named.

    Example:
        >>> [one.title for one in load_published("evar, msm_mae")]
        ['EVAR', 'MSM-MAE']
    """
    if isinstance(published, str):
        published = names("published") if published == "all" else published.split(",")
    found = [one.strip() if isinstance(one, str) else one for one in published]
    return [load_published_config(one) if isinstance(one, str) else one for one in found if one]


def add_published_rows(section: Section, known: Sequence[PublishedConfig]) -> Section:
    """Return the table with rows of published numbers below ours; they take no part in ranks, bold or averages.

    Published numbers are of all clips and of their protocol, so a table of a limit, or of another kind of protocol, gets
    none: a subset's score is never set beside them.

    Args:
        section: of our rows.
        known: what to show of it: encoders with a score on at least one of the table's tasks.
    """
    if section.limit is not None:
        return section
    added = []
    for one in known:
        if section.protocol not in one.beside:
            continue
        for row in one.rows:
            cells = [_make_cell(one, row, column.task, index, section) for index, column in enumerate(section.columns)]
            if any(cell is not None for cell in cells):
                name = f"{one.title}, {one.source}; {one.protocol}"
                added.append(Row(row.label, f"published: {one.name}", None, None, tuple(cells), published=name))
    return replace(section, rows=(*section.rows, *added))


def explain_missing_rows(section: Section, known: Sequence[PublishedConfig]) -> str:
    """Explain in one sentence why a table has no published numbers; "" if it has some."""
    if not known or any(row.published for row in section.rows):
        return ""
    start = f"No published numbers beside {section.title}: "
    if section.limit is not None:
        return start + f"they are of all clips, and these rows of at most {section.limit} of each split or fold."
    fitting = [one for one in known if section.protocol in one.beside]
    if not fitting:
        beside = sorted({protocol for one in known for protocol in one.beside})
        return start + f"they were made by another kind of protocol, and are shown beside {' and '.join(beside)} only."
    tasks = sorted({column.task for column in section.columns})
    return start + f"{', '.join(one.name for one in fitting)} have none of {', '.join(tasks)}."


def _make_cell(one: PublishedConfig, row: PublishedRow, task: str, column: int, section: Section) -> Cell | None:
    if task not in one.tasks or task in one.other_tasks:
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
    notes = (f"{task}: {one.caveats[task]}",) if task in one.caveats else ()
    return Cell(score=score, interval=interval, ours=ours[0] if len(ours) == 1 else None, notes=notes)
