"""Warnings about labels and sounds that can spoil a score: the user reads them before a run, and the row records them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evar.config.messages import tell
from evar.data.problems import describe_unknown_classes, require_labels, sample_sound_problems

if TYPE_CHECKING:
    from evar.data.task import Task
    from evar.experiment.cell import Cell

#: clips of a task that are looked at before a run: about 0.2 s of work for clips of 5 s
N_CLIPS = 12


def check_labels(task: Task, seeds: Iterable[int], label: str, *, needs_classes: bool = True) -> None:
    """Raise if some round cannot be fitted or tested, and tell how many test clips cannot be right.

    Args:
        task: whose labels.
        seeds: of the validation draws.
        label: before the printed line.
        needs_classes: False for protocols that compare test clips, which learn no class from training clips.

    Raises:
        ValueError: as `evar.data.problems.require_labels`, or if a round has no test clips.
    """
    draws = [task.rounds(seed) for seed in sorted(seeds)]
    if not needs_classes:
        if empty := [one.name for rounds in draws for one in rounds if not len(one.test)]:
            raise ValueError(f"{task.name} {empty[0]}: the index has no test clips; see `evar verify`")
        return
    for rounds in draws:
        require_labels(task, rounds)
    if warning := describe_unknown_classes(task, draws[0]):
        tell(f"{label}: {warning}: they count as wrong, whatever the encoder")


def warn_about_sounds(cell: Cell) -> None:
    """Warn in one line about unusual sounds of a cell, if there are any; its clips must be there."""
    if found := list_task_warnings(cell):
        tell(f"{cell.label}: {'; '.join(found)}; see evar verify {cell.task.name} --deep")


def list_task_warnings(cell: Cell) -> list[str]:
    """Describe unusual sounds among a few clips of the task, spread over its index: sentences, none if all is well.

    Args:
        cell: its clips are there, or are named as bad by the run itself. Only what the encoder can hear counts: its rate
            is a limit as well.
    """
    return sample_sound_problems(cell.task, N_CLIPS, cell.encoder.sample_rate)
