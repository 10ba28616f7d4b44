"""Listen: clips that a row gets wrong, and clips on which two rows disagree, next to the paired test of the two."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from evar.report.tables.compared import load_tested, subtract_scores
from evar.webpage.clips import MOST_CLIPS, MOST_PREDICTIONS, TaskClips, describe_rows, list_task_clips
from evar.webpage.context import Context, round_number
from evar.webpage.page import Part
from evar.webpage.sounds import MOST_BYTES, MOST_SECONDS, MOST_SOUNDS, Sounds, collect_sounds

#: rows of a task that are tested against each other, the best ones
MOST_TESTED = 8


def make_listen(context: Context) -> Part | None:
    """Make the part, and collect the sounds that it and the maps play; None if no row predicts classes.

    Args:
        context: the results folder.
    """
    tasks = list_task_clips(context)
    if not tasks:
        return None
    n_rows = sum(len(task.rows) for task in tasks)
    n_most = max(10, min(MOST_CLIPS, MOST_PREDICTIONS // max(1, n_rows)))
    chosen = [(task, task.choose_clips(n_most)) for task in tasks]
    sounds = collect_sounds(context, chosen)
    context.tasks["sounds"] = sounds
    described = [_describe_task(context, task, positions, sounds) for task, positions in chosen]
    shown = {
        "audio": context.settings.audio,
        "n_sounds": len(sounds.entries),
        "problems": sounds.problems,
        "limits": f"at most {MOST_SOUNDS} clips, {MOST_BYTES // 10**6} MB, and {MOST_SECONDS:g} s of each",
    }
    return Part("listen", "Listen", shown, {"tasks": described})


def list_sounds(context: Context) -> Part | None:
    """Return the sounds that were collected, as a part without a section; None if there are none.

    Args:
        context: the results folder, of which `make_listen` was called.
    """
    sounds: Sounds | None = context.tasks.get("sounds")
    return Part("sounds", "", {}, sounds.entries) if sounds is not None else None


def _describe_task(context: Context, task: TaskClips, positions: Sequence[int], sounds: Sounds) -> dict[str, Any]:
    """Describe the chosen clips of a task: predictions and confidences are lists of rows, each with one entry a clip."""
    at = np.asarray(positions, np.int64)
    confidences = [np.nan_to_num(one.confidence[at], nan=-0.01) for one in task.rows]
    return {
        "name": task.name,
        "classes": list(task.classes),
        "n_test": len(task.clips),
        "n_wrong": int(np.any([~one.is_right for one in task.rows], axis=0).sum()),
        "rows": describe_rows(task),
        "clips": [task.clips[one] for one in positions],
        "labels": [list(task.labels[one]) for one in positions],
        "sounds": [sounds.find(task.task, task.clips[one]) for one in positions],
        "predicted": [one.predicted[at].tolist() for one in task.rows],
        "confidence": [np.round(100 * values).astype(int).tolist() for values in confidences],
        "tests": _compare_rows(context, task),
    }


def _compare_rows(context: Context, task: TaskClips) -> list[list[Any]]:
    """Test the best rows of a task against each other: numbers of both rows, difference, interval, p, name of the test."""
    scores = [one.result.score for one in task.rows]
    best = sorted(sorted(range(len(scores)), key=lambda row: -scores[row])[:MOST_TESTED])
    loaded = {}
    for row in best:
        cell = next((cell for cell in task.rows[row].row.cells if cell and task.rows[row].result in cell.results), None)
        loaded[row] = load_tested(cell, context.out)
    found: list[list[Any]] = []
    for one, other in combinations(best, 2):
        difference = subtract_scores(loaded[one], loaded[other])
        if difference is not None:
            values = [round_number(100 * value) for value in (difference.value, difference.low, difference.high)]
            found.append([one, other, *values, float(f"{difference.p:.3g}"), difference.test])
    return found
