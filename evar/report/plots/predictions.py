"""What a row predicts where a clip has no single class: numbers against numbers, and the score of every label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.figures.style import COLOURS, COLUMN_INCHES, FONT_POINTS, make_figure, save_figure
from evar.report.tables.csv_text import format_csv_table
from evar.results import Result, load_predictions
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


def plot_predictions(result: Result, out: Path, names: Sequence[str], stem: Path) -> list[Path]:
    """Write `STEM.png`, `.svg` and `.csv` of a row of a regression or multilabel task.

    A regression row: predicted against true value of each clip. A multilabel row: the average precision of each label.

    Args:
        result: the row.
        out: results folder with its predictions.
        names: of the labels; none for a regression task.
        stem: path without ending.

    Returns:
        The files written.

    Raises:
        ValueError: if the row is of another kind of task, or the predictions do not fit the labels.
        FileNotFoundError: if there are no predictions.
    """
    found = load_predictions(out, result.id)
    true, predicted = found["y_true"], found["y_pred"]
    random = " (random weights)" if result.is_random else ""
    start = (
        f"{result.encoder}{random} {'+'.join(result.layers)} on {result.task}, {result.protocol}, seed {result.seed}; "
        f"{result.metric} {100 * result.score:.1f} %, {len(true)} clips over all rounds."
    )
    if true.ndim == 1 and predicted.dtype.kind == "f":
        figure = draw_values(true, predicted, f"{start} Line: predicted equals true.")
        header: tuple[str, ...] = ("clip", "round", "true", "predicted")
        lines = [
            list(line) for line in zip(*(found[n].tolist() for n in ("clip", "round", "y_true", "y_pred")), strict=True)
        ]
    elif true.ndim == 2 and true.shape[1] == len(names):
        scores = score_labels(true, predicted, names)
        figure = draw_labels(
            scores, f"{start} Average precision of each label; dotted: its share of the clips, as by chance."
        )
        header, lines = ("label", "clips", "average_precision", "chance"), [list(one) for one in scores]
    else:
        raise ValueError(
            f"{result.id}: this picture needs a regression task, or a task with {len(names)} labels; `evar plot confusion` "
            "draws tasks of one class a clip"
        )
    path = stem.with_name(f"{stem.name}.csv")
    write_atomic(path, format_csv_table(header, lines).encode("utf-8"))
    return [*save_figure(figure, stem), path]


def score_labels(true: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> list[tuple[str, int, float, float]]:
    """Return (label, clips, average precision, chance) of each label that some clip has, the best first.

    Args:
        true: (clips, labels) 0 or 1.
        scores: (clips, labels).
        names: of the labels.

    Example:
        >>> import numpy as np
        >>> score_labels(np.array([[1], [0]]), np.array([[0.9], [0.1]]), ["dog"])
        [('dog', 1, 1.0, 0.5)]
    """
    from sklearn.metrics import average_precision_score

    found = []
    for label, name in enumerate(names):
        n = int(true[:, label].sum())
        if n:
            found.append((name, n, float(average_precision_score(true[:, label], scores[:, label])), n / len(true)))
    return sorted(found, key=lambda one: (-one[2], one[0]))


def draw_values(true: np.ndarray, predicted: np.ndarray, caption: str) -> Figure:
    """Draw one dot a clip: predicted against true value.

    Args:
        true, predicted: (clips,).
        caption: small print below.
    """
    figure = make_figure(COLUMN_INCHES, COLUMN_INCHES, caption)
    ax = figure.add_subplot()
    ax.scatter(true, predicted, s=8, c=COLOURS[0], alpha=0.6, linewidths=0)
    ends = [min(float(true.min()), float(predicted.min())), max(float(true.max()), float(predicted.max()))]
    ax.plot(ends, ends, color="0.4", linewidth=0.8)
    ax.set_xlabel("true", fontsize=FONT_POINTS)
    ax.set_ylabel("predicted", fontsize=FONT_POINTS)
    _tidy(ax)
    return figure


def draw_labels(scores: Sequence[tuple[str, int, float, float]], caption: str) -> Figure:
    """Draw one bar a label, the best on top.

    Args:
        scores: as `score_labels` gives them.
        caption: small print below.
    """
    figure = make_figure(COLUMN_INCHES, max(1.6, 0.5 + 0.14 * len(scores)), caption)
    ax = figure.add_subplot()
    places = list(range(len(scores)))
    ax.barh(places, [100 * one[2] for one in scores], color=COLOURS[0], height=0.7)
    for place, one in zip(places, scores, strict=True):
        ax.plot([100 * one[3]] * 2, [place - 0.4, place + 0.4], color="0.2", linestyle=":", linewidth=1.0)
    ax.set_yticks(places, [f"{one[0]} (n={one[1]})" for one in scores])
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("average precision (%)", fontsize=FONT_POINTS)
    _tidy(ax)
    return figure


def _tidy(ax: Any) -> None:
    ax.tick_params(labelsize=FONT_POINTS - 1)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
