"""Comparisons between the rows of a table: who is not significantly worse than the best, and differences to a baseline."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evar.report.cells import Cell, Section, is_better
from evar.results import load_predictions

if TYPE_CHECKING:
    import numpy as np

    from evar.significance import PairedDifference

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


def tested(cell: Cell | None, out: Path) -> Tested | None:
    """What the cell's rows predicted; None where that is not there, or its seeds were tested on different clips."""
    import numpy as np

    if cell is None or not cell.results:
        return None
    runs, first = [], None
    for result in cell.results:
        try:
            run = load_predictions(out, result.id)
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


def difference(one: Tested | None, other: Tested | None) -> PairedDifference | None:
    """`one` minus `other`; None where they were not tested on the same clips, or the metric cannot be resampled."""
    import numpy as np

    from evar.metrics import METRICS
    from evar.significance import paired_difference

    if one is None or other is None or one.metric != other.metric:
        return None
    if one.metric not in METRICS or METRICS[one.metric].resampled is None:
        return None
    if not all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("clip", "round", "group", "y_true")
    ):
        return None
    return paired_difference(one.metric, one.y_true, one.runs, other.runs, one.group, one.round)


def with_equals(section: Section, out: Path | None) -> Section:
    """The table, where each cell knows whether it is significantly worse than the best of its column.

    All cells are compared with the best of their column; Holm's correction is over all pairs of rows in all columns, as
    the best is chosen by the same scores.
    """
    from evar.significance import corrected_for_the_best

    if out is None:
        return section
    places, p_values, n_pairs = [], [], 0
    for column in range(len(section.columns)):
        scored = [
            (index, cell)
            for index, row in enumerate(section.rows)
            if (cell := row.cells[column]) is not None and cell.score is not None and cell.results
        ]
        if len(scored) < 2:
            continue
        best = max(scored, key=lambda entry: entry[1].score or 0.0)
        of_best = tested(best[1], out)
        n_pairs += len(scored) * (len(scored) - 1) // 2
        for index, cell in scored:
            if index == best[0] or of_best is None:
                continue
            found = difference(of_best, tested(cell, out))
            if found is not None:
                places.append((index, column))
                p_values.append(found.p)
    if not places:
        return section
    corrected = dict(zip(places, corrected_for_the_best(p_values, n_pairs).tolist(), strict=True))
    rows = []
    for index, row in enumerate(section.rows):
        cells = [
            cell and replace(cell, p_worse=corrected.get((index, column))) for column, cell in enumerate(row.cells)
        ]
        rows.append(replace(row, cells=tuple(cells)))
    return replace(section, rows=tuple(rows))


@dataclass(frozen=True)
class Line:
    """One encoder's layers against the baseline on one task.

    Attributes:
        encoder, layers, task: as the table names them.
        difference: to the baseline; None where both were not tested on the same clips.
        p_holm: corrected over all lines of a table.
    """

    encoder: str
    layers: str
    task: str
    difference: PairedDifference | None
    p_holm: float | None


def against(section: Section, baseline: str, out: Path) -> list[Line]:
    """Every cell of a table minus that of the baseline in its column.

    Args:
        section: the table.
        baseline: an encoder's label, or label and layers as "crepe.tiny:conv5".
        out: results folder with the predictions.

    Raises:
        ValueError: if no row, or more than one, is that baseline.
    """
    from evar.metrics import holm
    from evar.registry import near_miss

    names = [f"{row.encoder}:{row.layers}" for row in section.rows]
    chosen = [i for i, row in enumerate(section.rows) if baseline in (row.encoder, names[i])]
    if not chosen:
        known = sorted({row.encoder for row in section.rows} | set(names))
        raise ValueError(f"table {section.title} has no row {baseline!r}; {near_miss(baseline, known)}")
    if len(chosen) > 1:
        which = [names[i] for i in chosen]
        raise ValueError(f"table {section.title} has {len(which)} rows of {baseline}; name one, such as {which[0]}")
    base = section.rows[chosen[0]]
    of_base = [tested(cell, out) for cell in base.cells]
    found = []
    for row in section.rows:
        if row is base or row.published:
            continue
        for column, cell, other in zip(section.columns, row.cells, of_base, strict=True):
            if cell is not None and cell.results:
                found.append(Line(row.encoder, row.layers, column.label, difference(tested(cell, out), other), None))
    known_p = [line.difference.p for line in found if line.difference is not None]
    corrected = iter(holm(known_p).tolist() if known_p else [])
    return [line if line.difference is None else replace(line, p_holm=next(corrected)) for line in found]


def against_lines(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Header and body of the differences as texts, in points of percent."""
    body = []
    for line in lines:
        start = [line.encoder, line.layers, line.task]
        found = line.difference
        if found is None or line.p_holm is None:
            body.append([*start, "-", "-", "-", "not tested on the same clips"])
            continue
        interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
        verdict = "not significant" if line.p_holm > LEVEL else "better" if found.value > 0 else "worse"
        p = "< 0.0001" if line.p_holm < 1e-4 else f"{line.p_holm:.4f}"
        body.append([*start, f"{100 * found.value:+.1f}", interval, p, verdict])
    return ["encoder", "layers", "task", "difference", "95 % interval", "p (Holm)", "verdict"], body


def is_equal(cell: Cell, best_score: float) -> bool:
    """Is the cell worse than the best of its column, but not significantly?"""
    return cell.score is not None and is_better(best_score, cell.score) and (cell.p_worse or 0.0) > LEVEL
