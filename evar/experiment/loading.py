"""Loading the encoder and the task of a spec. Both runners do it here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evar.data.task import Task, load_task, prepare
from evar.encoders import load_encoder

if TYPE_CHECKING:
    from evar.encoders.base import Encoder
    from evar.experiment.spec import CellSpec, GridSpec


def load_spec_encoder(spec: CellSpec, device: str) -> Encoder:
    """Return the encoder of a cell, with the weights and input statistics that were requested.

    Args:
        spec: the cell.
        device: where to put it.

    Raises:
        ValueError, OSError, ImportError: as `evar.encoders.load_encoder`.
    """
    return load_encoder(spec.encoder, spec.weights, norm_stats=spec.given_statistics, device=device)


def load_spec_task(spec: CellSpec, data_root: str | None) -> Task:
    """Return the task of a cell, with its index.

    Raises:
        ValueError, OSError: as `evar.data.task.load_task`.
    """
    return load_task(spec.task, data_root, spec.limit, spec.protocol.validation_parts)


def name_task(task: str, validation_parts: int) -> str:
    """Return the key of a loaded task in a grid of several protocols, which may draw validation clips differently.

    Example:
        >>> name_task("esc10", 5)
        'esc10, 1/5'
    """
    return f"{task}, 1/{validation_parts}"


def find_task(grid: GridSpec, spec: CellSpec) -> Task:
    """Return the task of a cell: the one that was loaded for the specs, or, in a process of its own, load it now.

    Args:
        grid: that the cell is part of.
        spec: the cell.

    Raises:
        ValueError, OSError: as `evar.data.task.load_task`.
    """
    parts = spec.protocol.validation_parts
    found = grid.tasks.get(name_task(spec.task, parts)) or grid.tasks.get(spec.task)
    if found is not None and found.validation_parts == parts:
        return found
    return load_spec_task(spec, grid.resources.data_root)


def provide_clips(task: Task, spec: CellSpec) -> None:
    """Make sure that the clips of a cell are there: those of embedded tasks are rendered at first use.

    Raises:
        FileNotFoundError: if clips are missing and the request does not leave them out.
        OSError: if the sources of rendered sounds cannot be fetched.
    """
    prepare(task)
    if not spec.skip_bad:
        task.require_files()
