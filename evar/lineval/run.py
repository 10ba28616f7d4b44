"""Frozen evaluation: encoders x tasks, every layer from one pass, a probe per layer, one result file per row.

Nothing is computed twice: vectors come from the feature store, rows that have a result file are left alone, and a cell
that fails is recorded with its reason while the others go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evar.config.messages import tell
from evar.experiment.cell import Cell
from evar.experiment.loading import find_task, load_spec_encoder
from evar.experiment.outcome import EXPECTED_ERRORS, Outcome, clear_failure, load_row, record_failure
from evar.lineval.cells import Workplace, encode_rows, evaluate_cell
from evar.lineval.fusion_search import run_search
from evar.numeric.device import pick_device
from evar.storage.feature_store import FeatureStore
from evar.storage.mirror import at_hand

if TYPE_CHECKING:
    from evar.experiment.spec import GridSpec


def run_grid(grid: GridSpec) -> Outcome:
    """Run a grid in this process: one pass over the audio per encoder and clip policy, then a probe per row.

    Returns:
        All rows of the grid, and the cells that failed with their reasons.

    Raises:
        ValueError: if the device is not there.
    """
    workplace = open_workplace(grid)
    outcome = Outcome()
    for rejection in grid.rejections:
        record_failure(outcome, workplace.out, rejection.spec, rejection.reason)
    for name in grid.encoders:
        specs = grid.list_cells(name)
        try:
            encoder = load_spec_encoder(specs[0], pick_device(workplace.resources.device))
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            for spec in specs:
                record_failure(outcome, workplace.out, spec, error)
            continue
        done = []
        for spec in specs:
            try:
                cell = Cell(encoder, find_task(grid, spec), spec)
                evaluate_cell(cell, workplace, outcome)
            except EXPECTED_ERRORS as error:
                record_failure(outcome, workplace.out, spec, error)
            else:
                done.append(cell)
                clear_failure(workplace.out, spec)
        if name in grid.searches and done:
            if len(done) < len(specs):
                tell(f"{encoder.name}: the fusion search leaves out the tasks that failed")
            _run_search(done, grid, workplace, outcome)
    return outcome


def open_workplace(grid: GridSpec) -> Workplace:
    """Open the feature store and the results folder of a grid.

    Raises:
        ValueError: if the device is not there.
    """
    pick_device(grid.resources.device)
    out = at_hand(grid.resources.out)
    resources = dataclasses.replace(grid.resources, out=out)
    return Workplace(resources, FeatureStore(resources.store), Path(out))


def encode_grid(grid: GridSpec) -> int:
    """Fill the store with all that the missing rows of a grid are computed from; fit nothing.

    Returns:
        Clips that were encoded.

    Raises:
        ValueError, OSError, ImportError, RuntimeError: what keeps a cell from being encoded; nothing is recorded.
    """
    workplace, n_encoded = open_workplace(grid), 0
    for name in grid.encoders:
        specs = grid.list_cells(name)
        encoder = load_spec_encoder(specs[0], pick_device(workplace.resources.device))
        for spec in specs:
            cell = Cell(encoder, find_task(grid, spec), spec)
            rows = cell.list_rows()
            seeds = {row.seed for row in rows if load_row(workplace.out, row.id) is None}
            if seeds:
                n_encoded += encode_rows(cell, workplace, seeds, [row.selection for row in rows]).n_encoded
    return n_encoded


def _run_search(cells: Sequence[Cell], grid: GridSpec, workplace: Workplace, outcome: Outcome) -> None:
    """The fusion search of one encoder; if it fails, that is recorded for each of its tasks."""
    try:
        run_search(cells, grid.searches[cells[0].spec.encoder], workplace, outcome)
    except EXPECTED_ERRORS as error:
        for cell in cells:
            record_failure(outcome, workplace.out, cell.spec, error, layers="search")
    else:
        for cell in cells:
            clear_failure(workplace.out, cell.spec, layers="search")
