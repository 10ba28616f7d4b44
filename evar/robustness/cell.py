"""One cell, encoder x task: clean rows, their probes, and the score of these probes on altered test clips."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.messages import progress_bar, tell
from evar.experiment.outcome import Outcome, load_row
from evar.experiment.result_row import make_result, save_row
from evar.experiment.rounds import FittedRound, place_predictions
from evar.lineval.cells import encode_rows, group_rows
from evar.lineval.fit import fit_rows, predict_clips
from evar.results import Result
from evar.results.records import read_record
from evar.results.robustness import RobustnessRecord, make_robustness_record, robustness_path, save_robustness
from evar.robustness.records import CleanRow, make_record, name_record, save_altered_predictions
from evar.robustness.vectors import AlteredVectors, encode_altered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.experiment.cell import Cell
    from evar.experiment.selection import Selection
    from evar.experiment.spec import RowSpec
    from evar.extraction.conditions import Condition
    from evar.lineval.cell_features import Vectors
    from evar.lineval.cells import Workplace


@dataclass
class RobustnessOutcome(Outcome):
    """Clean rows, what alterations cost them, and failures.

    Attributes:
        records: of this request, old and new: for each row and alteration one a severity, and their mean.
        n_altered: altered clips encoded now, over all conditions.
        rows, n_new, n_encoded, failures: of the clean rows, as in `Outcome`.
    """

    records: list[RobustnessRecord] = field(default_factory=list)
    n_altered: int = 0

    def table(self) -> Any:
        """Return the records as a pandas table, one row each, in percent of the metric.

        Returns:
            DataFrame with the columns of robustness.csv.
        """
        import pandas as pd

        from evar.report.tables.altered import COLUMNS, list_lines

        return pd.DataFrame(list_lines(self.records), columns=list(COLUMNS))


def measure_cell(cell: Cell, workplace: Workplace, outcome: RobustnessOutcome, conditions: Sequence[Condition]) -> None:
    """Compute what is missing of a cell, and add all of its rows and records to the outcome.

    Args:
        cell: encoder, task, protocol and request.
        workplace: store and results folder.
        outcome: of the request.
        conditions: how test clips are altered.

    Raises:
        ValueError, OSError, RuntimeError: what keeps the cell from being computed; what was made stays.
    """
    rows = cell.list_rows()
    of_selection: dict[Selection, list[RowSpec]] = {}
    for row in rows:
        of_selection.setdefault(row.selection, []).append(row)
    pending: list[RowSpec] = []
    for selection, own in of_selection.items():
        found = _load_all(workplace, own, conditions)
        if found is None:
            pending += of_selection[selection]
        else:
            outcome.rows += found[0]
            outcome.records += found[1]
    if not pending:
        tell(f"{cell.label}: all {len(rows)} rows were tested under these alterations already")
        return
    seeds = {row.seed for row in pending}
    vectors = encode_rows(cell, workplace, seeds, [row.selection for row in pending])
    outcome.n_encoded += vectors.n_encoded
    altered = encode_altered(cell, workplace, vectors, conditions, sorted(seeds))
    outcome.n_altered += altered.n_encoded
    tell(f"{cell.label}: encoded {altered.n_encoded} altered clips under {len(conditions)} conditions")
    for condition in conditions:
        if failed := altered.list_failed(condition):
            at, reason = next(iter(failed.items()))
            tell(f"  {len(failed)} clips count as wrong, first {cell.task.index['path'][at]}: {reason}")
    _test_rows(cell, workplace, vectors, altered, pending, conditions, outcome)


def _load_all(
    workplace: Workplace, rows: Sequence[RowSpec], conditions: Sequence[Condition]
) -> tuple[list[Result], list[RobustnessRecord]] | None:
    """Read the rows and records of some layers; None if one is missing."""
    clean = [load_row(workplace.out, row.id) for row in rows]
    records = []
    for group in group_severities(conditions):
        path = robustness_path(workplace.out, name_record(rows, group))
        try:
            records.append(read_record(path, make_robustness_record))
        except (FileNotFoundError, ValueError):
            return None
    if None in clean:
        return None
    return [one for one in clean if one is not None], records


def group_severities(conditions: Sequence[Condition]) -> list[list[Condition]]:
    """Group conditions by the records that are written.

    Each condition has a record, and each alteration with several severities has one more, which averages their scores.

    Args:
        conditions: alterations at their severities.

    Returns:
        The conditions of each record.
    """
    found = [[one] for one in conditions]
    return found + [of for of in group_alterations(conditions) if len(of) > 1]


def group_alterations(conditions: Sequence[Condition]) -> list[list[Condition]]:
    """Group conditions by alteration: all severities of one alteration together."""
    together: dict[str, list[Condition]] = {}
    for condition in conditions:
        together.setdefault(condition.config.name, []).append(condition)
    return list(together.values())


def _test_rows(
    cell: Cell,
    workplace: Workplace,
    vectors: Vectors,
    altered: AlteredVectors,
    pending: Sequence[RowSpec],
    conditions: Sequence[Condition],
    outcome: RobustnessOutcome,
) -> None:
    """Fit the probes of the rows, and test each under every condition as soon as its seeds are complete."""
    n_seeds = len({row.seed for row in pending})
    n_tests = len(pending) // n_seeds * len(conditions)
    waiting: dict[Selection, list[tuple[RowSpec, Result, list[FittedRound]]]] = {}
    with progress_bar(total=n_tests, desc=f"altered {cell.label}", unit="test", delay=2, leave=False) as bar:
        for row, result, fitted in _fit_clean(cell, workplace, vectors, pending, outcome):
            own = waiting.setdefault(row.selection, [])
            own.append((row, result, fitted))
            if len(own) < n_seeds:
                continue
            del waiting[row.selection]
            clean = CleanRow(*(list(column) for column in zip(*own, strict=True)))
            for record in _test_row(cell, workplace, altered, clean, conditions):
                outcome.records.append(record)
                bar.update(len(record.severities) == 1)


def _fit_clean(
    cell: Cell, workplace: Workplace, vectors: Vectors, pending: Sequence[RowSpec], outcome: RobustnessOutcome
) -> Iterator[tuple[RowSpec, Result, list[FittedRound]]]:
    """Fit the probe of each row on clean clips; save the row as `evar lineval` does, unless it is there."""
    from sklearn.exceptions import ConvergenceWarning

    for together in group_rows(cell, vectors, pending):
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fits = fit_rows(cell, vectors, [(row.selection, row.seed) for row in together], workplace.resources.device)
        seconds = (time.perf_counter() - began) / len(together)
        for row, fitted in zip(together, fits, strict=True):
            result = load_row(workplace.out, row.id)
            if result is None:
                bad = vectors.find_bad(row.selection)
                result = make_result(cell, row, fitted, bad=bad, seconds=seconds, resources=workplace.resources)
                save_row(workplace.out, result, fitted, cell.task)
                outcome.n_new += 1
            outcome.rows.append(result)
            yield row, result, fitted


def _test_row(
    cell: Cell, workplace: Workplace, altered: AlteredVectors, clean: CleanRow, conditions: Sequence[Condition]
) -> Iterator[RobustnessRecord]:
    """Test the probes of some layers under every condition; save predictions and record of each at once."""
    selection = clean.rows[0].selection
    for of_alteration in group_alterations(conditions):
        predicted: dict[
            Condition, list[NDArray[Any]]
        ] = {}  # of one alteration at a time: of many labels they are large
        ids: dict[Condition, list[str]] = {}
        for group in group_severities(of_alteration):
            began = time.perf_counter()
            for condition in (one for one in group if one not in predicted):
                runs = [_predict_rounds(cell, altered, condition, selection, fitted) for fitted in clean.fits]
                name = name_record(clean.rows, [condition])
                predicted[condition] = runs
                ids[condition] = [name if number == 0 else f"{name}_{number}" for number in range(len(runs))]
                for id, values in zip(ids[condition], runs, strict=True):
                    save_altered_predictions(workplace.out, id, cell.task, clean, values)
            record = make_record(
                cell.task,
                clean,
                group,
                [predicted[one] for one in group],
                max((altered.list_failed(one) for one in group), key=len),
                [id for one in group for id in ids[one]],
                time.perf_counter() - began,
            )
            save_robustness(workplace.out, record)
            yield record


def _predict_rounds(
    cell: Cell,
    altered: AlteredVectors,
    condition: Condition,
    selection: Selection,
    fitted: Sequence[FittedRound],
) -> NDArray[Any]:
    """Predict the altered test clips of every round by the probe that its clean training clips gave: (clips, ...)."""
    task, found = cell.task, []
    usable = altered.clean.find_usable(selection)
    for one in fitted:
        train = one.a_round.train[usable[one.a_round.train]]
        places: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        values: list[Any] = []
        parts = altered.read_parts(condition, selection, one.norm_stats, one.tested, train)
        for positions, features in parts:
            places.append(positions)
            values.append(predict_clips(task, one.probe, features, np.arange(len(positions)))[0])
        centre = float(task.y[train].mean()) if task.config.kind == "regression" else 0.0
        everywhere = place_predictions(task, np.concatenate(places), np.concatenate(values) if values else [], centre)
        found.append(everywhere[one.tested])
    return np.concatenate(found)
