"""Tables for programs: CSV in long form, and JSON with everything that the tables show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evar.report.tables.costs import has_costs
from evar.report.tables.csv_text import format_csv_table
from evar.report.tables.section import Cell, Column, Row, Section

_CSV_COLUMNS = (
    *("protocol", "protocol_version", "limit", "encoder", "label", "weights", "layers", "fusion", "default", "depth"),
    *("task", "task_version", "metric", "score", "low", "high", "n_test", "seeds", "chance", "average", "rank"),
    *("p_worse", "published", "flags", "notes"),
)

#: of tables that show costs
_COST_COLUMNS = ("parameters", "seconds_per_second", "width", "bytes_per_clip", "device", "threads")


def format_csv(tables: Sequence[Section]) -> str:
    """Write one line a cell: scores, interval ends, chance and average as fractions 0..1, several values joined with ";".

    A failed cell has no score, and its reason among the notes. "label" is the encoder as the tables name it, with what
    tells apart two rows of one encoder. Text that a spreadsheet would run as a formula begins with an apostrophe.

    Args:
        tables: as `make_sections` gives them.
    """
    names = (*_CSV_COLUMNS, *(_COST_COLUMNS if any(map(has_costs, tables)) else ()))
    lines = []
    for section, row, column, cell in _list_cells(tables):
        values = {
            "protocol": section.protocol,
            "protocol_version": section.protocol_version,
            "limit": "" if section.limit is None else section.limit,
            "encoder": row.encoder,
            "label": row.encoder,
            "layers": row.layers,
            "depth": _format_fraction(row.depth),
            "task": column.task,
            "chance": _format_fraction(column.chance),
            "average": _format_fraction(row.average),
            "rank": _format_fraction(row.rank),
            **_list_values(cell),
            "p_worse": _format_fraction(cell.p_worse),
            "published": row.published,
            "flags": ";".join((*row.flags, *cell.flags)),
            "notes": ";".join(cell.notes),
            **({} if row.cost is None else {name: _or_empty(getattr(row.cost, name)) for name in _COST_COLUMNS}),
        }
        lines.append([values.get(name, "") for name in names])
    return format_csv_table(names, lines)


def _or_empty(value: object) -> object:
    return "" if value is None else value


def _list_cells(tables: Sequence[Section]) -> Iterator[tuple[Section, Row, Column, Cell]]:
    """Yield every cell that is there, with its table, row and column."""
    for section in tables:
        for row in section.rows:
            for column, cell in zip(section.columns, row.cells, strict=True):
                if cell is not None:
                    yield section, row, column, cell


def _list_values(cell: Cell) -> dict[str, object]:
    low, high = cell.interval or (None, None)
    if not cell.results:
        published = {"score": cell.score, "low": low, "high": high}
        return {name: _format_fraction(value) for name, value in published.items()}
    first = cell.results[0]
    return {
        "encoder": first.encoder,
        "weights": first.weights,
        "layers": "+".join(first.layers),
        "fusion": first.fusion,
        "default": str(first.default).lower(),
        "task_version": first.task_version,
        "metric": first.metric,
        "score": _format_fraction(cell.score),
        "low": _format_fraction(low),
        "high": _format_fraction(high),
        "n_test": first.n_test,
        "seeds": ";".join(str(result.seed) for result in cell.results),
    }


def _format_fraction(value: float | None) -> str:
    return "" if value is None else repr(round(value, 10))


def format_json(tables: Sequence[Section], more: Sequence[Mapping[str, Any]] = ()) -> str:
    """Write everything that the tables show, for programs: a list of tables, each with its cells.

    Fractions are 0..1; a cell's "ids" are the stems of its result files.

    Args:
        tables: as `make_sections` gives them.
        more: further keys of each table, such as differences to a baseline; none where empty.
    """
    found = []
    for section, further in zip(tables, more or [{}] * len(tables), strict=True):
        columns = [
            {"label": column.label, "task": column.task, "n_test": column.n_test, "chance": column.chance}
            for column in section.columns
        ]
        rows = [
            {"label": row.encoder, "layers": row.layers, "average": row.average, "rank": row.rank}
            | ({} if row.cost is None else {"cost": asdict(row.cost)})
            for row in section.rows
            if row.rank is not None or row.cost is not None
        ]
        found.append(
            {
                "title": section.title,
                "protocol": section.protocol,
                "protocol_version": section.protocol_version,
                "limit": section.limit,
                "columns": columns,
                "rows": rows,
                "cells": [_describe_cell(row, column, cell) for _, row, column, cell in _list_cells([section])],
                **further,
            }
        )
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _describe_cell(row: Row, column: Column, cell: Cell) -> dict[str, Any]:
    """Return one cell as plain data."""
    first = cell.results[0] if cell.results else None
    distance = None if cell.ours is None or cell.score is None else cell.ours - cell.score
    return {
        "encoder": first.encoder if first else row.encoder,
        "label": row.encoder,
        "layers": list(first.layers) if first else row.layers,
        "fusion": first.fusion if first else None,
        "task": column.task,
        "column": column.label,
        "metric": first.metric if first else None,
        "score": cell.score,
        "interval": None if cell.interval is None else list(cell.interval),
        "p_worse_than_best": cell.p_worse,
        "n_test": first.n_test if first else None,
        "seeds": [result.seed for result in cell.results],
        "ids": [result.id for result in cell.results],
        "extras": dict(first.extras) if first else {},
        "published": row.published or None,
        "ours_minus_published": distance,
        "flags": [*row.flags, *cell.flags],
        "notes": list(cell.notes),
    }
