"""Where the cells of a grid run: one after another here, in several processes of this machine, or on a Ray cluster.

A grid is cut into units that do not need each other: a cell (encoder x task), or all cells of an encoder where a fusion
search looks at its tasks at once. Units share nothing but the feature store and the results folder, which several
processes may use at once, so a worker that is killed costs its own unit only, and the same command goes on with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

from evar.data.task_config import load_task_config
from evar.experiment.outcome import Outcome, record_failure
from evar.experiment.request import checked
from evar.experiment.settings import Settings
from evar.lineval.processes import run_in_processes
from evar.lineval.ray_cluster import run_on_ray
from evar.lineval.run import run_grid
from evar.lineval.units import units
from evar.numeric.device import pick_device
from evar.storage.mirror import at_hand


def run(settings: Settings) -> Outcome:
    """Run a grid by the engine that its settings name.

    Returns:
        All rows of the grid, and the cells that failed with their reasons; rows stand in the order of the grid, whatever
        finished first.

    Raises:
        ValueError: if a name or setting is unknown or contradicts another, before any work is done.
        ImportError: if the engine is ray and ray is not installed.
    """
    if settings.engine == "local" and settings.jobs == 1:
        return run_grid(settings)
    checked(settings)
    pick_device(settings.device)
    cut = units(settings)
    found = run_on_ray(cut, settings) if settings.engine == "ray" else run_in_processes(cut, settings)
    return _joined(cut, found)


def _joined(cut: Sequence[Settings], found: Mapping[int, Outcome | str]) -> Outcome:
    """One outcome in the order of the grid; a unit without one fails with its reason, cell by cell."""
    whole = Outcome()
    folder_of = {out: at_hand(out) for out in {unit.out for unit in cut}}
    for at, asked in enumerate(cut):
        unit = dataclasses.replace(asked, out=folder_of[asked.out])
        of_unit = found[at]
        if isinstance(of_unit, str):
            for encoder in unit.encoders:
                for task in filter(partial(unit.wants, encoder), unit.tasks):
                    record_failure(whole, unit, encoder, load_task_config(task), OSError(of_unit))
            continue
        whole.rows += of_unit.rows
        whole.failures += of_unit.failures
        whole.n_new += of_unit.n_new
        whole.n_encoded += of_unit.n_encoded
    return whole
