"""Which class colours a clip on a map, and how each class looks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from evar.figures.style import COLOURS, MARKERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task

# The faint yellow cannot be seen as a point: a grey takes its place. The later markers look alike when they are small.
POINT_COLOURS, POINT_MARKERS = (*COLOURS[:7], "#8C8C8C"), MARKERS[:7]
# For more classes: the eight, and twelve between and beside them in hue and lightness.
MANY_COLOURS = (
    *POINT_COLOURS,
    *("#7B3294", "#A6761D", "#E7298A", "#66A61E", "#1B9E9E", "#B2182B", "#6A8FD8", "#4D4D00"),
    *("#F4A582", "#9ACD9A", "#C9A0DC", "#5B3A29"),
)
SEVERAL, NONE = "(several labels)", "(no label)"


def find_classes(task: Task) -> tuple[tuple[str, ...], NDArray[np.int64], list[str]]:
    """Return the classes that colour a map, the class of each clip, and sentences for the caption.

    A clip with several labels has no single class. In a multilabel task its colour is that of its only label, or that of
    two further classes: several labels, and none. A regression task is cut into five groups of about equal size.

    Args:
        task: of kind multiclass, multilabel or regression.

    Returns:
        Names of the classes; (clips,) class numbers; sentences.

    Raises:
        ValueError: if the task is of another kind.
    """
    kind, classes = task.config.kind, tuple(task.config.classes)
    if kind == "multiclass":
        return classes, task.y, []
    if kind == "multilabel":
        n_labels = task.y.sum(axis=1)
        y = np.where(n_labels == 1, task.y.argmax(axis=1), np.where(n_labels == 0, len(classes) + 1, len(classes)))
        share = float((n_labels == 1).mean())
        note = (
            f"{100 * share:.0f} % of the task's clips have one label, which colours them; silhouette and purity count those "
            "with several labels, or with none, as classes too."
        )
        return (*classes, SEVERAL, NONE), y.astype(np.int64), [note]
    if kind == "regression":
        edges = np.unique(np.quantile(task.y, [0.2, 0.4, 0.6, 0.8]))
        y = np.searchsorted(edges, task.y, side="right").astype(np.int64)
        ends = [float(task.y.min()), *edges.tolist(), float(task.y.max())]
        unit = f" {task.config.unit}" if task.config.unit else ""
        names = tuple(f"{low:.3g} to {high:.3g}{unit}" for low, high in itertools.pairwise(ends))
        return names, y, ["Clips are grouped by value into fifths."]
    raise ValueError(f"a map needs a task of classes, labels or numbers, but {task.name} is {kind}")


def pick_class_style(label: int, n_classes: int) -> tuple[str, str]:
    """Return colour and marker of a class.

    Up to 8 classes: dots in colours that stay apart with colour-blind eyes. Up to 20: each class has a colour of its own,
    and a marker too. With more, both change from class to class in cycles without a common divisor (20 and 7), so that 140
    pairs come before the first returns.

    Example:
        >>> pick_class_style(1, 5), pick_class_style(1, 20)
        (('#D55E00', 'o'), ('#D55E00', 's'))
    """
    if n_classes <= len(POINT_COLOURS):
        return POINT_COLOURS[label % len(POINT_COLOURS)], POINT_MARKERS[0]
    return MANY_COLOURS[label % len(MANY_COLOURS)], POINT_MARKERS[label % len(POINT_MARKERS)]
