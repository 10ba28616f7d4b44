"""Outcome of a grid: rows, and failures with their reasons. Both runners record them here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from evar import results
from evar.config.disk import tell_disk_error
from evar.config.messages import tell, warn
from evar.results import Failure, Result

if TYPE_CHECKING:
    from evar.experiment.spec import CellSpec


@dataclass
class Outcome:
    """Rows and failures of a grid.

    Attributes:
        rows: results of this grid, old and new.
        n_new: how many of them were computed now.
        n_encoded: clips encoded now, over all encoders.
        failures: the cells that gave no result, with their reasons.
    """

    rows: list[Result] = field(default_factory=list)
    n_new: int = 0
    n_encoded: int = 0
    failures: list[Failure] = field(default_factory=list)


#: errors that end a cell, while the others go on
EXPECTED_ERRORS = (ValueError, KeyError, OSError, ImportError, RuntimeError, MemoryError)


def record_failure(
    outcome: Outcome, out: str | Path, spec: CellSpec, error: Exception | str, *, layers: str = ""
) -> None:
    """Record a failed cell in the outcome and in the results folder, and print it.

    Args:
        outcome: to add it to.
        out: results folder.
        spec: the cell.
        error: the reason why there is no result; a text is used unchanged.
        layers: in place of those that the cell requests; "search" for a fusion search.
    """
    reason = error if isinstance(error, str) else explain_error(error)
    cell = spec.name_cell(layers)
    outcome.failures.append(Failure(cell, reason, results.utc_now()))
    try:
        results.save_failure(Path(out), cell, reason)
    except OSError as lost:  # the other cells go on, and the reason is told below
        warn(f"the failure of {spec.encoder} x {spec.task} is not recorded: {lost}")
    what = " fusion search" if layers == "search" else f" {layers}" if layers else ""
    warn(f"{spec.encoder} x {spec.task}{what} FAILED: {reason}")


def explain_error(error: Exception) -> str:
    """Return the reason of a failed cell in one line, with a next step where the error alone does not name one.

    Example:
        >>> explain_error(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
        'out of memory; try a smaller --batch_size (CUDA out of memory. Tried to allocate 2 GiB)'
        >>> explain_error(KeyError("conv9"))
        'KeyError: conv9'
    """
    reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    reason = " ".join(reason.split()) or type(error).__name__
    if "out of memory" in reason.lower() or isinstance(error, MemoryError):
        return f"out of memory; try a smaller --batch_size ({reason[:160]})"
    if isinstance(error, ValueError | OSError | ImportError):
        return tell_disk_error(error) or reason
    return f"{type(error).__name__}: {reason[:300]}"


def clear_failure(out: str | Path, spec: CellSpec, *, layers: str = "") -> None:
    """Forget earlier failures of a cell that has its result now."""
    try:
        results.clear_failure(Path(out), spec.name_cell(layers))
    except OSError as error:
        warn(f"an earlier failure of {spec.encoder} x {spec.task} stays recorded: {error}")


def load_row(out: str | Path, id: str) -> Result | None:
    """Return the result of an earlier run if it is whole; a damaged file is named, and its row is computed again.

    Args:
        out: results folder.
        id: of the row.

    Example:
        >>> load_row("no such folder", "logmel__esc10") is None
        True
    """
    try:
        return results.load(results.run_path(Path(out), id))
    except FileNotFoundError:
        return None
    except ValueError as error:
        tell(f"computing {id} again: {error}")
        return None
