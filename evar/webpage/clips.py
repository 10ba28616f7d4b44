"""Choose the test clips that the page shows, evenly over classes, and collect what each row predicted for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.own_code import call_nothing
from evar.report.tables.section import Row, Section
from evar.report.tables.tested import load_row_predictions
from evar.results import Result, load_confidence
from evar.webpage.context import Context, name_row, try_to_describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task

#: clips of one task, and predictions of all tasks together, that the page holds at most
MOST_CLIPS, MOST_PREDICTIONS = 300, 400_000


@dataclass(frozen=True)
class RowPredictions:
    """What one row predicted for the clips of a task.

    Attributes:
        row: of the table.
        result: whose predictions they are: that of the first seed.
        predicted: (clips,) class numbers, the label with the highest score where clips have several, -1 for a bad clip.
        is_right: (clips,) whether the prediction is one of the clip's labels.
        confidence: (clips,) 0..1, NaN where it is not known.
    """

    row: Row
    result: Result
    predicted: NDArray[np.int64]
    is_right: NDArray[np.bool_]
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class TaskClips:
    """The test clips of one column of a table.

    Attributes:
        name: of the column, with the protocol.
        task: name.
        limit: of the table.
        index_sha256: hash of the task's index, as the rows have it.
        classes: names of the classes or labels.
        clips: (clips,) paths as in the index; a clip that is tested in two rounds is listed twice.
        labels: for each clip the numbers of its classes.
        rows: rows that were tested on exactly these clips.
    """

    name: str
    task: str
    limit: int | None
    index_sha256: str
    classes: tuple[str, ...]
    clips: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    rows: tuple[RowPredictions, ...]

    def choose_clips(self, n_most: int) -> list[int]:
        """Choose positions of clips that some row gets wrong, class by class in turn.

        Those on which rows disagree come first within a class, then those that a row is wrong about with most confidence.

        Args:
            n_most: positions to return at most.
        """
        wrong = np.stack([~one.is_right for one in self.rows])  # (rows, clips)
        sure = np.stack([np.where(one.is_right, 0.0, np.nan_to_num(one.confidence)) for one in self.rows]).max(axis=0)
        interesting = np.flatnonzero(np.any(wrong, axis=0))
        disputed: NDArray[np.bool_] = np.asarray(~np.all(wrong, axis=0))
        ordered = sorted(interesting.tolist(), key=lambda at: (not disputed[at], -sure[at], self.clips[at]))
        turns: dict[int, int] = {}
        keyed: list[tuple[int, int, int]] = []
        for at in ordered:
            label = self.labels[at][0] if self.labels[at] else -1
            turns[label] = turns.get(label, 0) + 1
            keyed.append((turns[label], len(keyed), at))
        return [at for _, _, at in sorted(keyed)[:n_most]]


def list_task_clips(context: Context) -> list[TaskClips]:
    """Collect the clips of every column of the main tables whose rows predict classes or labels; read once."""
    if "clips" not in context.tasks:
        found = [
            clips
            for section in context.sections
            for index in range(len(section.columns))
            if (clips := try_to_describe("a task's clips", partial(_collect_column, context, section, index)))
            is not None
        ]
        context.tasks["clips"] = found
    return list(context.tasks["clips"])


def find_task(context: Context, name: str, limit: int | None) -> Task | None:
    """Load a task with its clips' paths; None if its data or its index are missing. No code of strangers is called.

    Args:
        context: knows where data are.
        name: of the task.
        limit: clips of each split or fold.
    """
    key = ("task", name, limit)
    if key not in context.tasks:
        from evar.data.task import load_task

        try:
            with call_nothing():
                context.tasks[key] = load_task(name, context.settings.data_root, limit)
        except (ValueError, OSError, KeyError, ImportError):
            context.tasks[key] = None
    found: Task | None = context.tasks[key]
    return found


def name_classes(context: Context, result: Result) -> tuple[str, ...]:
    """Return the names of a task's classes; numbers take the place of unknown names.

    Args:
        context: the results folder.
        result: any row of the task.
    """
    n_classes = result.n_classes or 0
    task = find_task(context, result.task, result.limit)
    names: Sequence[str] = task.config.classes if task is not None else ()
    if task is None:
        from evar.data.task_config import load_task_config

        try:
            with call_nothing():
                names = load_task_config(result.task).classes
        except (ValueError, OSError, KeyError, ImportError):
            names = ()
    return tuple(names) if len(names) >= n_classes else tuple(f"class {number}" for number in range(n_classes))


def _collect_column(context: Context, section: Section, index: int) -> TaskClips | None:
    """Collect the predictions of one column; None if there are none of classes or labels."""
    first: dict[str, NDArray[Any]] | None = None
    rows, result = [], None
    for row in section.rows:
        cell = row.cells[index]
        if cell is None or not cell.results:
            continue
        if not _has_labels(cell.results[0]):
            return None
        try:
            run = load_row_predictions(context.out, cell.results[0])
        except (OSError, ValueError):
            continue
        run["confidence"] = _load_confidence(context, cell.results[0], len(run["clip"]))
        order = np.lexsort((run["clip"], run["round"]))
        run = {name: values[order] for name, values in run.items()}
        names = ("clip", "round", "y_true")
        if first is None:
            first, result = run, cell.results[0]
        elif not all(np.array_equal(run[name], first[name]) for name in names):
            continue
        rows.append(_read_row(row, cell.results[0], run))
    if first is None or result is None:
        return None
    classes, labels = name_classes(context, result), _list_labels(first["y_true"])
    highest = max(max((max(one, default=-1) for one in labels), default=-1), *(int(r.predicted.max()) for r in rows))
    classes = (*classes, *(f"class {number}" for number in range(len(classes), highest + 1)))
    name = f"{section.columns[index].label}, {section.title.split(' (limit')[0]}"
    where = result.task, result.limit, result.index_sha256
    return TaskClips(name, *where, classes, tuple(first["clip"].tolist()), labels, tuple(rows))


def _load_confidence(context: Context, result: Result, n_clips: int) -> NDArray[np.float32]:
    found = load_confidence(context.out, result.id)
    return found if found is not None and len(found) == n_clips else np.full(n_clips, np.nan, np.float32)


def _has_labels(result: Result) -> bool:
    """Tell whether a row predicts classes or labels; values, events and captions have no list of wrong clips."""
    from evar.metrics import METRICS

    return result.metric in METRICS and METRICS[result.metric].kind in ("multiclass", "multilabel")


def _list_labels(y_true: NDArray[Any]) -> tuple[tuple[int, ...], ...]:
    if y_true.ndim == 1:
        return tuple((int(label),) for label in y_true)
    return tuple(tuple(np.flatnonzero(line).tolist()) for line in y_true)


def _read_row(row: Row, result: Result, run: dict[str, NDArray[Any]]) -> RowPredictions:
    true, predicted = run["y_true"], run["y_pred"]
    if true.ndim == 2:
        is_bad = ~np.isfinite(predicted).any(axis=1)
        top = np.where(is_bad, -1, predicted.argmax(axis=1))
        is_right = ~is_bad & (true[np.arange(len(true)), np.maximum(top, 0)] == 1)
        return RowPredictions(row, result, top, is_right, run["confidence"])
    return RowPredictions(row, result, predicted, true == predicted, run["confidence"])


def describe_rows(clips: TaskClips) -> list[dict[str, Any]]:
    """Describe the rows of a task for menus: name, id, and how many clips each gets wrong.

    Args:
        clips: of the task.
    """
    return [
        {"name": name_row(one.row), "id": one.result.id, "n_wrong": int((~one.is_right).sum())} for one in clips.rows
    ]
