"""Engines that run the cells of a grid: this process, several processes of this machine, or a Ray cluster.

A grid is cut into units that do not need each other: a cell (encoder x task), or all cells of an encoder where a fusion
search looks at its tasks at once. Units share nothing but the feature store and the results folder, which several
processes may use at once, so a worker that is killed costs its own unit only, and the same command goes on with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evar.experiment.outcome import Outcome, record_failure
from evar.experiment.spec import GridSpec
from evar.lineval.processes import run_in_processes
from evar.lineval.ray_cluster import run_on_ray
from evar.lineval.run import run_grid
from evar.lineval.units import cut_units
from evar.numeric.device import pick_device
from evar.storage.mirror import at_hand


def run(grid: GridSpec) -> Outcome:
    """Run a grid by the engine that its resources name.

    Args:
        grid: as `evar.experiment.resolving.resolve_request` makes it.

    Returns:
        All rows of the grid, and the cells that failed with their reasons; rows stand in the order of the grid, whatever
        finished first.

    Raises:
        ValueError: if the device is not there.
        ImportError: if the engine is ray and ray is not installed.
        OSError: if a Ray cluster does not answer.
    """
    if grid.resources.engine == "local" and grid.resources.jobs == 1:
        return run_grid(grid)
    pick_device(grid.resources.device)
    units = cut_units(grid)
    runner = run_on_ray if grid.resources.engine == "ray" else run_in_processes
    found = runner(units, grid.resources) if units else {}
    return _join_outcomes(grid, units, found)


def _join_outcomes(grid: GridSpec, units: Sequence[GridSpec], found: Mapping[int, Outcome | str]) -> Outcome:
    """One outcome in the order of the grid; a unit without one fails with its reason, cell by cell."""
    whole, out = Outcome(), Path(at_hand(grid.resources.out))
    for rejection in grid.rejections:
        record_failure(whole, out, rejection.spec, rejection.reason)
    for at, unit in enumerate(units):
        of_unit = found[at]
        if isinstance(of_unit, str):
            for spec in unit.cells:
                record_failure(whole, out, spec, of_unit)
            continue
        whole.rows += of_unit.rows
        whole.failures += of_unit.failures
        whole.n_new += of_unit.n_new
        whole.n_encoded += of_unit.n_encoded
    return whole
