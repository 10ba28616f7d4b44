"""Which rows `evar compare` shows, and what still differs among them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

from evar.config.registry import near_miss
from evar.report.tables.section import Section
from evar.results import Failure, Result

#: column of `--filter` -> the names that a row has there, any of which a pattern may match
COLUMNS: dict[str, Callable[[Result], tuple[str, ...]]] = {
    "encoder": lambda row: (row.encoder,),
    "task": lambda row: (row.task,),
    "protocol": lambda row: (row.protocol,),
    "layers": lambda row: ("+".join(row.layers), *(("default",) if row.default else ())),
    "fusion": lambda row: (row.fusion,),
    "metric": lambda row: (row.metric,),
    "weights": lambda row: (row.weights,),
    "seed": lambda row: (str(row.seed),),
    "limit": lambda row: (str(row.limit or "none"),),
    "task_version": lambda row: (row.task_version,),
    "protocol_version": lambda row: (str(row.params.get("protocol_version", "")),),
    "index": lambda row: (row.index_sha256 or "none",),
}
#: columns that a failed cell may name too
_OF_FAILURES = ("encoder", "task", "protocol", "metric", "seed", "limit", "task_version")
#: columns whose rows never share a table, and those whose rows never share a column of one
_APART, _SIDE_BY_SIDE = ("protocol", "protocol_version", "limit"), ("task_version", "metric", "index")


def parse_filter(text: str) -> dict[str, list[str]]:
    """Column -> patterns, any of which may match.

    Args:
        text: "encoder=byol*|msm_mae*,task=esc10": commas join columns, bars join patterns of one.

    Raises:
        ValueError: if a column is unknown or a part has no pattern.

    Example:
        >>> parse_filter("encoder=byol*|ast, task=esc10")
        {'encoder': ['byol*', 'ast'], 'task': ['esc10']}
    """
    found: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        column, sign, patterns = (piece.strip() for piece in part.partition("="))
        if column not in COLUMNS:
            raise ValueError(f"--filter has no column {column!r}; {near_miss(column, COLUMNS)}")
        if not sign or not all(piece.strip() for piece in patterns.split("|")):
            raise ValueError(
                f"--filter must be COLUMN=PATTERN|PATTERN,..., got {part!r}; several patterns of a column are joined by |"
            )
        found.setdefault(column, []).extend(pattern.strip() for pattern in patterns.split("|"))
    return found


def select_rows(rows: Sequence[Result], patterns: Mapping[str, Sequence[str]]) -> list[Result]:
    """Rows whose every named column matches one of its patterns (`*` and `?` as in file names; case matters).

    Example:
        >>> select_rows([], {"encoder": ["byol*"]})
        []
    """
    return [row for row in rows if all(_matches(COLUMNS[column](row), wanted) for column, wanted in patterns.items())]


def select_failures(failures: Sequence[Failure], patterns: Mapping[str, Sequence[str]]) -> list[Failure]:
    """Select failed cells that may be among the rows: their known values match, so that no failure is lost."""
    return [
        failure
        for failure in failures
        if all(
            _matches((str(failure.cell[column] or "none"),), wanted) or column not in _OF_FAILURES
            for column, wanted in patterns.items()
            if column in failure.cell
        )
    ]


def explain_no_match(rows: Sequence[Result], patterns: Mapping[str, Sequence[str]]) -> str:
    """Why no row is left: the column that no row matches, with what it has, or that no row matches them together."""
    for column, wanted in patterns.items():
        there = sorted({name for row in rows for name in COLUMNS[column](row)})
        if not any(_matches((name,), wanted) for name in there):
            return f"no row has {column}={'|'.join(wanted)}; {near_miss(wanted[0], there)}"
    parts = ",".join(f"{column}={'|'.join(wanted)}" for column, wanted in patterns.items())
    return f"none of {len(rows)} rows matches all of {parts}, though each part matches some"


def explain_differences(tables: Sequence[Section]) -> list[str]:
    """Write one sentence for whatever keeps rows out of one table or one column, with the filter that leaves one."""
    shown = [row for table in tables for row in table.results]
    sentences = []
    for column in _APART:
        groups = _group_by(shown, "protocol").values() if column == "protocol_version" else [shown]
        sentences += [text for rows in groups if (text := _explain_tables(rows, column))]
    for table in tables:
        for task, rows in _group_by(table.results, "task").items():
            sentences += [text for column in _SIDE_BY_SIDE if (text := _explain_columns(table, task, rows, column))]
    return sentences


def _explain_tables(rows: Sequence[Result], column: str) -> str:
    """Say that rows stand in separate tables since they differ in something; "" where they do not."""
    kinds = _group_by(rows, column)
    if len(kinds) < 2:
        return ""
    named = ", ".join(f"{name or 'unknown'}: {_count_rows(found)}" for name, found in kinds.items())
    of = f" of protocol {rows[0].protocol}" if column == "protocol_version" else ""
    return (
        f"The rows{of} stand in separate tables, since they differ in {column} ({named}); "
        f"--filter={column}={next(iter(kinds))} leaves one."
    )


def _explain_columns(table: Section, task: str, rows: Sequence[Result], column: str) -> str:
    """Say that a task has several columns since its rows differ in something; "" where they do not."""
    kinds = _group_by(rows, column)
    if len(kinds) < 2:
        return ""
    short = {name: name[:8] if column == "index" else name for name in kinds}
    named = "; ".join(f"{short[name]}: {_name_encoders(found)}" for name, found in kinds.items())
    first = short[next(iter(kinds))]
    pattern = f"{first}*" if column == "index" and first != "none" else first
    return (
        f"{table.title}: {task} has more than one column, since its rows differ in {column} ({named}); "
        f"--filter=task={task},{column}={pattern} leaves one."
    )


def _matches(names: Sequence[str], wanted: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in wanted)


def _group_by(rows: Sequence[Result], column: str) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for row in rows:
        groups.setdefault(COLUMNS[column](row)[0], []).append(row)
    return dict(sorted(groups.items()))


def _count_rows(rows: Sequence[Result]) -> str:
    return f"{len(rows)} row" + ("s" if len(rows) != 1 else "")


def _name_encoders(rows: Sequence[Result]) -> str:
    return ", ".join(sorted({row.encoder for row in rows}))
