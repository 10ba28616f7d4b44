"""What a grid gave: rows, and the failures with their reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar import results
from evar.data.task_config import TaskConfig
from evar.experiment.request import protocol_asked
from evar.experiment.settings import Settings
from evar.results import Failure, Result

if TYPE_CHECKING:
    from evar.data.task_config import TaskConfig
    from evar.results import Failure, Result


@dataclass
class Outcome:
    """What a grid gave.

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


#: what a cell may fail with, while the others go on
EXPECTED_ERRORS = (ValueError, KeyError, OSError, ImportError, RuntimeError, MemoryError)


def record_failure(
    outcome: Outcome,
    settings: Settings,
    encoder: str,
    task: TaskConfig,
    error: Exception,
    layers: str = "",
    protocol: str = "",
) -> None:
    """Record a failed cell, with a next step where the error alone does not say one."""
    reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    reason = " ".join(reason.split()) or type(error).__name__
    if "out of memory" in reason.lower() or isinstance(error, MemoryError):
        reason = f"out of memory; try a smaller --batch_size ({reason[:160]})"
    elif not isinstance(error, ValueError | OSError | ImportError):
        reason = f"{type(error).__name__}: {reason[:300]}"
    cell = name_cell(settings, encoder, task, layers, protocol)
    outcome.failures.append(Failure(cell, reason, results.utc_now()))
    results.save_failure(Path(settings.out), cell, reason)
    print(f"{encoder} x {task.name}{' fusion search' if layers else ''} FAILED: {reason}", flush=True)


def name_cell(
    settings: Settings, encoder: str, task: TaskConfig, layers: str = "", protocol: str = ""
) -> dict[str, Any]:
    layers = layers or (settings.layers if isinstance(settings.layers, str) else ",".join(settings.layers))
    return {
        "encoder": encoder,
        "task": task.name,
        "task_version": task.version,
        "metric": task.metric,
        "protocol": protocol or protocol_asked(settings).name,
        "layers": layers,
        "fusion": settings.fusion,
        "limit": settings.limit,
    }
