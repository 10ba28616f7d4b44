"""Plots of label-efficiency curves: the encoders of a task, and the layers of each encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evar.figures.style import COLOURS, FONT_POINTS, MARKERS, PAGE_INCHES, make_figure, save_figure
from evar.report.label_curves import Curve, CurveTask
from evar.report.label_sentences import describe_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: how the files are called
STEM = "label_curve_"
#: sentences below a plot, at most
_N_SENTENCES = 4


def plot_label_curves(tasks: Sequence[CurveTask], out: Path) -> list[Path]:
    """Write `label_curve_TASK.png` and `.svg` for each task.

    Args:
        tasks: as `evar.report.label_curves.find_curves` returns them.
        out: results folder.

    Returns:
        The files written.
    """
    written: list[Path] = []
    names: set[str] = set()
    for task in tasks:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", task.title).strip("_")[:60] or "task"
        while name in names:
            name += "_"
        names.add(name)
        written += save_figure(draw_label_curves(task), Path(out) / f"{STEM}{name}")
    return written


def draw_label_curves(task: CurveTask) -> Figure:
    """Draw a panel of the encoders of a task, and one of the layers of each encoder that has several.

    Args:
        task: with its curves.

    Returns:
        A figure whose caption says who leads where.
    """
    from evar.metrics.named import get_display_name

    families = [
        own
        for name in dict.fromkeys(curve.name for curve in task.curves)
        if len(own := [curve for curve in task.curves if curve.name == name and curve.depth is not None]) > 1
    ]
    panels = [list(task.main), *families]
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    caption = " ".join(describe_task(task)[:_N_SENTENCES])
    caption += " Bands: 95 % intervals over draws and test clips; the last point is all labels, one draw."
    figure = make_figure(PAGE_INCHES if n_columns > 1 else 0.75 * PAGE_INCHES, 3.2 * n_rows, caption)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for index, ax in enumerate(axes.flat):
        if index >= len(panels):
            ax.set_axis_off()
            continue
        title = task.title if index == 0 else f"layers of {panels[index][0].name}"
        _draw_panel(ax, task, panels[index], title, by_layer=index > 0)
        if index % n_columns == 0:
            ax.set_ylabel(f"{get_display_name(task.metric)} (%)", fontsize=FONT_POINTS)
    return figure


def _draw_panel(ax: Axes, task: CurveTask, curves: Sequence[Curve], title: str, *, by_layer: bool) -> None:
    from matplotlib.ticker import NullLocator

    for index, curve in enumerate(curves):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        places = [point.n_per_class for point in curve.points]
        label = curve.layers if by_layer or curve.layers in curve.name else f"{curve.name} {curve.layers}"
        scores = [100 * point.score for point in curve.points]
        ax.plot(places, scores, color=colour, marker=marker, markersize=3.5, linewidth=1.2, label=label)
        lows, highs = zip(*[(100 * point.interval[0], 100 * point.interval[1]) for point in curve.points], strict=True)
        ax.fill_between(places, lows, highs, color=colour, alpha=0.13, linewidth=0)
    if task.chance is not None:
        ax.axhline(100 * task.chance, color="0.35", linestyle=":", linewidth=1.0)
        ax.annotate(
            "chance", (0.99, 100 * task.chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=6
        )
    ax.set_xscale("log")
    longest = max(curves, key=lambda curve: len(curve.points))
    ax.set_xticks([point.n_per_class for point in longest.points])
    ax.set_xticklabels([point.label for point in longest.points])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("labelled clips per class (n)", fontsize=FONT_POINTS)
    ax.set_title(title, fontsize=FONT_POINTS + 1)
    ax.tick_params(labelsize=FONT_POINTS - 1)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=FONT_POINTS - 1.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
