"""Which tasks of a results folder are similar to a task that nobody has measured."""

from __future__ import annotations

from collections.abc import Sequence

from evar.data.task_config import TaskConfig, load_task_config
from evar.results import Result


def find_similar_tasks(task: str, rows: Sequence[Result], like: Sequence[str] = ()) -> tuple[list[str], str]:
    """Find the tasks whose rows say most about another task.

    Args:
        task: that has no rows; its YAML says kind and domain.
        rows: of the results folder.
        like: tasks that the user names instead.

    Returns:
        The tasks, and a sentence on why these; no tasks where none is similar.

    Raises:
        ValueError: if a task that the user names has no rows, or the task is unknown.
    """
    measured = sorted({row.task for row in rows})
    if like:
        missing = [name for name in like if name not in measured]
        if missing:
            raise ValueError(
                f"--like names {', '.join(missing)}, of which there are no rows; there are rows of "
                f"{', '.join(measured) or 'no task'}"
            )
        return list(dict.fromkeys(like)), "They were named with --like."
    config = load_task_config(task)
    others = {name: found for name in measured if (found := _load(name)) is not None and name != task}
    same_kind = [name for name, other in others.items() if other.kind == config.kind]
    same = [name for name in same_kind if config.domain and others[name].domain == config.domain]
    if same:
        return same, f"Domain ({config.domain}) and kind of labels ({config.kind}) are the same."
    if same_kind:
        reason = (
            f"none of them is of {config.domain}" if config.domain else f"the YAML of {task} names no domain to go by"
        )
        return (
            same_kind,
            f"Only the kind of labels ({config.kind}) is the same; {reason}. --like=TASK,TASK names better ones.",
        )
    return [], f"No measured task has labels of the kind {config.kind}."


def _load(name: str) -> TaskConfig | None:
    """Read the YAML of a task; None for one that this machine does not know."""
    try:
        return load_task_config(name)
    except (ValueError, OSError):
        return None
