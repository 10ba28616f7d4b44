"""Divide a grid into units of work that share an encoder and its stored features."""

from __future__ import annotations

import dataclasses
import os

from evar import config as configs
from evar.experiment.spec import CellSpec, GridSpec


def cut_units(grid: GridSpec) -> list[GridSpec]:
    """Return the parts of a grid that may run at the same time, in the grid's order.

    An encoder and its variants stay together, since they share stored features; so do all tasks of a fusion search.

    Example:
        >>> from evar.experiment.request import parse_request
        >>> from evar.experiment.resolving import resolve_request
        >>> grid = resolve_request(parse_request("logmel,ge2e", "esc10,gm_pitch"))
        >>> [label_unit(unit) for unit in cut_units(grid)][:2]
        ['logmel x esc10', 'logmel x gm_pitch']
    """
    families: dict[str, list[CellSpec]] = {}
    for spec in grid.cells:
        base = configs.load_encoder_config(spec.encoder).base
        families.setdefault(base if base in grid.encoders else spec.encoder, []).append(spec)
    resources = dataclasses.replace(grid.resources, engine="local", jobs=1, address=None)
    units = []
    for family in families.values():
        parts = [family]
        if not grid.searches:
            tasks = dict.fromkeys(spec.task for spec in family)
            parts = [[spec for spec in family if spec.task == task] for task in tasks]
        for part in parts:
            searches = {spec.encoder: grid.searches[spec.encoder] for spec in part if spec.encoder in grid.searches}
            units.append(GridSpec(tuple(part), resources, searches))
    return units


def label_unit(unit: GridSpec) -> str:
    """Return the names of a unit's encoders and tasks, for messages."""
    tasks = dict.fromkeys(spec.task for spec in unit.cells)
    return f"{', '.join(unit.encoders)} x {', '.join(tasks)}"


def use_absolute_weights(spec: CellSpec) -> CellSpec:
    """Return the spec with a checkpoint file by absolute path, for a process that has another working folder."""
    is_file = spec.weights is not None and os.path.exists(spec.weights)
    return dataclasses.replace(spec, weights=os.path.abspath(str(spec.weights))) if is_file else spec
