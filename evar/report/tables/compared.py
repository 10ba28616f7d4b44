"""Comparisons between the rows of a table: who is not significantly worse than the best, and differences to a baseline."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evar.report.tables.section import Cell, Section, is_better
from evar.report.tables.tested import load_row_predictions

if TYPE_CHECKING:
    import numpy as np

    from evar.metrics.significance import PairedDifference

#: chance of any false alarm in a table
LEVEL = 0.05


@dataclass(frozen=True)
class Tested:
    """Predictions of a cell: one run for each seed, in the order of round and clip."""

    metric: str
    clip: np.ndarray
    round: np.ndarray
    group: np.ndarray
    y_true: np.ndarray
    runs: list[np.ndarray]


def load_tested(cell: Cell | None, out: Path) -> Tested | None:
    """Load the predictions of the cell's rows; None if they are missing, or the seeds were tested on different clips."""
    import numpy as np

    if cell is None or not cell.results:
        return None
    runs, first = [], None
    for result in cell.results:
        try:
            run = load_row_predictions(out, result)
        except FileNotFoundError:
            return None
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
            return None
        order = np.lexsort((run["clip"], run["round"]))
        run = {name: values[order] for name, values in run.items()}
        if first is not None and not all(np.array_equal(run[name], first[name]) for name in ("clip", "round", "group")):
            return None
        first = run if first is None else first
        runs.append(run["y_pred"])
    assert first is not None
    metric = cell.results[0].metric
    return Tested(metric, first["clip"], first["round"], first["group"], first["y_true"], runs)


def subtract_scores(one: Tested | None, other: Tested | None) -> PairedDifference | None:
    """`one` minus `other`; None if they were not tested on the same clips, or the metric cannot be resampled."""
    from evar.metrics.significance import compare_pairs

    if one is None or other is None or not _is_paired(one, other):
        return None
    return compare_pairs(one.metric, one.y_true, one.runs, other.runs, one.group, one.round)


def _find_p_value(one: Tested | None, other: Tested | None) -> float | None:
    """Compute only the p-value of `subtract_scores`, which is quick if the metric is a mean over clips."""
    from evar.metrics.significance import compute_p_value

    if one is None or other is None or not _is_paired(one, other):
        return None
    return compute_p_value(one.metric, one.y_true, one.runs, other.runs, one.group, one.round)[0]


def _is_paired(one: Tested, other: Tested) -> bool:
    """Were they tested on the same clips, by a metric that can be resampled?"""
    import numpy as np

    from evar.metrics import METRICS

    if one.metric != other.metric or one.metric not in METRICS or METRICS[one.metric].resampled is None:
        return False
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("clip", "round", "group", "y_true")
    )


def mark_equals(section: Section, out: Path | None) -> Section:
    """Mark in each cell whether it is significantly worse than the best of its column.

    All cells are compared with the best of their column; Holm's correction is over all pairs of rows in all columns, as
    the best is chosen by the same scores.
    """

    from evar.metrics.significance import correct_for_the_best

    if out is None:
        return section
    p_values: dict[tuple[int, int], float] = {}  # (row, column) -> p of the distance to the best of the column
    n_pairs = 0
    for column in range(len(section.columns)):
        found, n_scored = _compare_column(section, column, out)
        p_values |= found
        n_pairs += n_scored * (n_scored - 1) // 2
    if not p_values:
        return section
    corrected = dict(zip(p_values, correct_for_the_best(list(p_values.values()), n_pairs).tolist(), strict=True))
    rows = []
    for index, row in enumerate(section.rows):
        cells = [
            cell and replace(cell, p_worse=corrected.get((index, column))) for column, cell in enumerate(row.cells)
        ]
        rows.append(replace(row, cells=tuple(cells)))
    return replace(section, rows=tuple(rows))


def _compare_column(section: Section, column: int, out: Path) -> tuple[dict[tuple[int, int], float], int]:
    """Compare the cells of a column with its best; returns (row, column) -> p, and the number of cells with a score."""
    scored = [
        (index, cell)
        for index, row in enumerate(section.rows)
        if (cell := row.cells[column]) is not None and cell.score is not None and cell.results
    ]
    if len(scored) < 2:
        return {}, len(scored)
    best, best_cell = max(scored, key=lambda entry: entry[1].score or 0.0)
    of_best = load_tested(best_cell, out)
    found = {}
    for index, cell in scored:
        if index != best and of_best is not None:
            p = _find_p_value(of_best, load_tested(cell, out))
            if p is not None:
                found[index, column] = p
    return found, len(scored)


def is_equal(cell: Cell, best_score: float) -> bool:
    """Is the cell worse than the best of its column, but not significantly?"""
    return cell.score is not None and is_better(best_score, cell.score) and (cell.p_worse or 0.0) > LEVEL
