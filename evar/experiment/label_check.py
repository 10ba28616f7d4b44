"""Labels of a round that no probe can learn: the user reads of them before a run, and the row records them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.messages import tell

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Round, Task


def check_labels(task: Task, seeds: Iterable[int], label: str) -> None:
    """Raise if some round cannot be fitted or tested, and tell how many test clips cannot be right.

    Args:
        task: whose labels.
        seeds: of the validation draws.
        label: before the printed line.

    Raises:
        ValueError: as `require_labels`.
    """
    draws = [task.rounds(seed) for seed in sorted(seeds)]
    for rounds in draws:
        require_labels(task, rounds)
    if warning := describe_unknown_classes(task, draws[0]):
        tell(f"{label}: {warning}: they count as wrong, whatever the encoder")


def require_labels(task: Task, rounds: Sequence[Round]) -> None:
    """Raise unless every round has training and test clips, and training clips of at least 2 classes.

    Args:
        task: whose labels.
        rounds: as `task.rounds` gives them.

    Raises:
        ValueError: naming the round, and what its index holds.
    """
    for a_round in rounds:
        for name, clips in (("training", a_round.train), ("test", a_round.test)):
            if not len(clips):
                raise ValueError(f"{task.name} {a_round.name}: the index has no {name} clips; see `evar verify`")
        if task.config.kind != "multiclass":
            continue
        classes = np.unique(task.y[a_round.train])
        if len(classes) < 2:
            raise ValueError(
                f"{task.name} {a_round.name}: all {len(a_round.train)} training clips are of class "
                f"{task.config.classes[int(classes[0])]!r}, but a probe needs at least 2 classes; see `evar verify`"
            )


def describe_unknown_classes(task: Task, rounds: Sequence[Round]) -> str | None:
    """Return a sentence on test clips whose class no training clip has; None where there are none.

    Args:
        task: whose labels; tasks of numbers and of events have no such clips.
        rounds: as `task.rounds` gives them.

    Example:
        >>> from evar.data.task import load_task
        >>> task = load_task("esc10")
        >>> print(describe_unknown_classes(task, task.rounds()))
        None
    """
    if task.config.kind not in ("multiclass", "multilabel"):
        return None
    n_lost, n_test = 0, 0
    names: set[str] = set()
    for a_round in rounds:
        train, test = task.y[a_round.train], task.y[a_round.test]
        n_test += len(test)
        is_lost: NDArray[Any]
        if task.config.kind == "multiclass":
            is_lost = ~np.isin(test, train)
            lost = np.unique(test[is_lost])
        else:
            unknown = ~train.any(axis=0)
            is_lost = np.asarray(test[:, unknown].any(axis=1))
            lost = np.flatnonzero(unknown & test.any(axis=0))
        n_lost += int(is_lost.sum())
        names |= {str(task.config.classes[int(at)]) for at in lost}
    if not n_lost:
        return None
    shown = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{n_lost} of {n_test} test clips are of classes without training clips ({shown})"
