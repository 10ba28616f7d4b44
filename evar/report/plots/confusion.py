"""What a row mixes up: the confusion matrix of its test clips, and the score of every class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.figures.grids import LABEL_POINTS, draw_colour_bar, fill_cells, make_box, measure_text, place_boxes
from evar.figures.style import PAGE_INCHES, save_figure
from evar.report.tables.csv_text import format_csv_table
from evar.results import Result, load_predictions
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

#: with more classes names cannot be read, and are left to the CSV
_MOST_NAMES = 50
#: inches: of a cell where there are few classes, and of the smallest that holds a number
_LARGEST_CELL, _SMALLEST_TEXT = 0.42, 0.19
UNREADABLE = "(unreadable)"


def count_confusions(y_true: np.ndarray, y_pred: np.ndarray, n_classes: int) -> np.ndarray:
    """Count how often each class was taken for each: (true classes, predicted classes + 1) whole numbers.

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
    """Score each class in a dict: name, clips, recall, precision, F1, and what it is taken for most; fractions 0..1.

    Args:
        counts: of `count_confusions`.
        names: (classes,).
    """
    found = []
    for number, name in enumerate(names):
        n, right = int(counts[number].sum()), int(counts[number, number])
        n_taken = int(counts[:, number].sum())
        others = counts[number].copy()
        others[number] = 0
        most = int(others.argmax())
        taken = "" if not others.any() else names[most] if most < len(names) else UNREADABLE
        found.append(
            {
                "class": name,
                "clips": n,
                "recall": right / n if n else float("nan"),
                "precision": right / n_taken if n_taken else float("nan"),
                "f1": 2 * right / (n + n_taken) if n + n_taken else float("nan"),
                "taken_for": taken,
                "taken_for_clips": int(others.max()),
            }
        )
    return found


def plot_confusion(
    result: Result, out: Path, names: Sequence[str], stem: Path
) -> tuple[list[Path], list[dict[str, str | int | float]]]:
    """Write `STEM.png`, `.svg`, `.csv` (the scores of each class) and `STEM_clips.csv` (what each clip was taken for).

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
    found = load_predictions(out, result.id)
    y_true, y_pred = found["y_true"], found["y_pred"]
    if y_true.ndim != 1 or y_true.dtype.kind not in "iu":
        raise ValueError(
            f"{result.id}: a confusion matrix needs a task of one class a clip, but {result.task} is of another kind; "
            "`evar plot predictions` draws what rows of such tasks predict"
        )
    if max(int(y_true.max()), int(y_pred.max())) >= len(names):
        raise ValueError(f"{result.id}: the task has {len(names)} classes now, but the predictions are of more")
    counts = count_confusions(y_true, y_pred, len(names))
    scores = score_classes(counts, names)
    paths = save_figure(draw_confusion(counts, names, _describe_row(result, len(y_true))), stem)
    header = list(scores[0])
    tables = {
        f"{stem.name}.csv": format_csv_table(header, [[one[name] for name in header] for one in scores]),
        f"{stem.name}_clips.csv": format_csv_table(_CLIP_HEADER, list_clips(found, names)),
    }
    for name, text in tables.items():
        write_atomic(stem.with_name(name), text.encode("utf-8"))
    return [*paths, *(stem.with_name(name) for name in tables)], scores


_CLIP_HEADER = ("clip", "round", "class", "taken_for", "is_right")


def list_clips(found: Mapping[str, np.ndarray], names: Sequence[str]) -> list[list[Any]]:
    """List what each test clip was taken for: the wrong ones first, by class and by what they were taken for.

    Args:
        found: predictions, (clips,) each, as `load_predictions` gives them.
        names: (classes,) names.

    Returns:
        One line a clip: path, round, class, class it was taken for, and whether that is right.
    """
    lines = []
    for clip, number, true, predicted in zip(
        found["clip"].tolist(), found["round"].tolist(), found["y_true"].tolist(), found["y_pred"].tolist(), strict=True
    ):
        taken = names[predicted] if predicted >= 0 else UNREADABLE
        lines.append([clip, number, names[true], taken, str(true == predicted).lower()])
    return sorted(lines, key=lambda line: (line[4], line[2], line[3], line[0]))


def _describe_row(result: Result, n_clips: int) -> str:
    from evar.metrics.named import get_display_name

    random = " (random weights)" if result.is_random else ""
    return (
        f"{result.encoder}{random} {'+'.join(result.layers)} on {result.task}, {result.protocol}, seed {result.seed}: share "
        f"of the test clips of each class (rows) that were taken for each class (columns), in percent; "
        f"{get_display_name(result.metric)} {100 * result.score:.1f} %, {n_clips} clips over all rounds."
    )


def draw_confusion(counts: np.ndarray, names: Sequence[str], caption: str) -> Figure:
    """Draw a matrix that fills the figure, for any number of classes.

    Args:
        counts: of `count_confusions`.
        names: of the classes, (classes,).
        caption: small print below.
    """
    import numpy as np

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (true classes, predicted classes + 1)
    columns = [*names, UNREADABLE]
    if not counts[:, -1].any():
        shares, columns = shares[:, :-1], list(names)
    n_rows, n_columns = shares.shape
    is_named = n_rows <= _MOST_NAMES
    rows = [f"{name} (n={n})" for name, n in zip(names, counts.sum(axis=1).tolist(), strict=True)]
    longest = max((measure_text(name, LABEL_POINTS) for name in rows), default=0.0) if is_named else 0.0
    size = min(_LARGEST_CELL, (PAGE_INCHES - 0.3 - min(longest, 3.0)) / n_columns)
    blank = [""] * n_columns
    box = make_box("true class, and what it is taken for", rows if is_named else blank[:n_rows],
                   columns if is_named else blank, size, size)  # fmt: skip
    figure, (ax,), foot = place_boxes([box], caption)
    texts = [[f"{100 * share:.0f}" if share and size >= _SMALLEST_TEXT else "" for share in line] for line in shares]
    fill_cells(ax, shares.tolist(), texts, points=7 if size > 0.25 else 5.5)
    draw_colour_bar(figure, "% of the class", ("0", "100"), foot)
    return figure
