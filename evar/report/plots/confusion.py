"""What a row mixes up: the confusion matrix of its test clips, and the score of every class."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.figures.style import PAGE_INCHES, make_figure, save_figure
from evar.metrics.named import get_display_name
from evar.results import Result, load_predictions
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    import numpy as np

#: with more classes names cannot be read, and are left to the CSV
_MOST_NAMES = 60


def count_confusions(y_true: np.ndarray, y_pred: np.ndarray, n_classes: int) -> np.ndarray:
    """How often each class was taken for each: (true classes, predicted classes + 1) whole numbers.

    Args:
        y_true: (clips,) class numbers.
        y_pred: (clips,) class numbers, -1 for a clip that could not be read, which is counted in the last column.
        n_classes: of the task.

    Example:
        >>> import numpy as np
        >>> count_confusions(np.array([0, 0, 1]), np.array([0, 1, -1]), 2).tolist()
        [[1, 1, 0], [0, 0, 1]]
    """
    import numpy as np

    counts = np.zeros((n_classes, n_classes + 1), np.int64)
    np.add.at(counts, (y_true, np.where(y_pred < 0, n_classes, y_pred)), 1)
    return counts


def score_classes(counts: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """One dict a class: name, clips, recall, precision, F1, and what it is taken for most; fractions 0..1.

    Args:
        counts: of `count_confusions`.
        names: (classes,).
    """
    found = []
    for number, name in enumerate(names):
        n, right = int(counts[number].sum()), int(counts[number, number])
        said = int(counts[:, number].sum())
        others = counts[number].copy()
        others[number] = 0
        most = int(others.argmax())
        taken = "" if not others.any() else names[most] if most < len(names) else "(unreadable)"
        found.append(
            {
                "class": name,
                "clips": n,
                "recall": right / n if n else float("nan"),
                "precision": right / said if said else float("nan"),
                "f1": 2 * right / (n + said) if n + said else float("nan"),
                "taken_for": taken,
                "taken_for_clips": int(others.max()),
            }
        )
    return found


def plot_confusion(
    result: Result, out: Path, names: Sequence[str], stem: Path
) -> tuple[list[Path], list[dict[str, str | int | float]]]:
    """Write `STEM.png`, `.svg` and `.csv`.

    Args:
        result: of a multiclass task.
        out: results folder with its predictions.
        names: of the classes, as numbered in the predictions.
        stem: path without ending.

    Returns:
        The files written, and the scores of the classes.

    Raises:
        ValueError: if the row is of another kind of task, or the predictions do not fit the classes.
        FileNotFoundError: if there are no predictions.
    """
    import numpy as np

    found = load_predictions(out, result.id)
    y_true, y_pred = found["y_true"], found["y_pred"]
    if y_true.ndim != 1 or y_true.dtype.kind not in "iu":
        raise ValueError(
            f"{result.id}: a confusion matrix needs a task of one class a clip, but {result.task} is of another kind"
        )
    if max(int(y_true.max()), int(y_pred.max())) >= len(names):
        raise ValueError(f"{result.id}: the task has {len(names)} classes now, but the predictions are of more")
    counts = count_confusions(y_true, y_pred, len(names))
    scores = score_classes(counts, names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with_unreadable = bool(counts[:, -1].any())
    shown = shares if with_unreadable else shares[:, :-1]
    layers = "+".join(result.layers)
    random = " (random weights)" if result.is_random else ""
    caption = (
        f"{result.encoder}{random} {layers} on {result.task}, {result.protocol}, seed {result.seed}: share of the test "
        f"clips of each class (rows) that were taken for each class (columns); "
        f"{get_display_name(result.metric)} {100 * result.score:.1f} %, {len(y_true)} clips over all rounds."
    )
    size = min(PAGE_INCHES, max(3.5, 1.5 + 0.16 * len(names)))
    figure = make_figure(size, size, caption)
    ax = figure.add_subplot()
    image = ax.imshow(100 * shown, cmap="Blues", vmin=0, vmax=100, aspect="auto" if with_unreadable else "equal")
    if len(names) <= _MOST_NAMES:
        points = 7 if len(names) <= 30 else 5
        ax.set_yticks(range(len(names)), names, fontsize=points)
        columns = [*names, "(unreadable)"] if with_unreadable else names
        ax.set_xticks(range(len(columns)), columns, fontsize=points, rotation=90)
    if len(names) <= 15:
        for row, column in zip(*np.nonzero(counts[:, : shown.shape[1]]), strict=True):
            colour = "white" if shown[row, column] > 0.5 else "black"
            ax.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=6, color=colour)
    ax.set_xlabel("taken for")
    ax.set_ylabel("true class")
    figure.colorbar(image, ax=ax, label="% of the class", shrink=0.8)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(scores[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(scores)
    paths = save_figure(figure, stem)
    write_atomic(stem.with_name(f"{stem.name}.csv"), buffer.getvalue().encode("utf-8"))
    return [*paths, stem.with_name(f"{stem.name}.csv")], scores
