"""Layer curves with the names of the layers: score against layer, one line a task, one panel an encoder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.figures.style import (
    COLOURS,
    COLUMN_INCHES,
    FONT_POINTS,
    MARKERS,
    PAGE_INCHES,
    count_legend_columns,
    draw_legend_below,
    make_figure,
    save_figure,
)
from evar.report.plots.layer_curves import LINE_STYLES, Panel, Point, describe_limits, make_panels
from evar.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANCE = "chance"
_TASKS_A_PANEL = 5  # more curves than these cannot be told apart: an encoder gets a second panel


@dataclass(frozen=True)
class EncoderPanel:
    """One encoder.

    Attributes:
        label: the encoder's row label.
        metrics: of its tasks, each once.
        layers: names, shallow to deep.
        curves: task -> its points, shallow to deep.
        references: name ("logmel", "chance") -> task -> score in percent: what needs no layer, set apart on the right.
    """

    label: str
    metrics: tuple[str, ...]
    layers: tuple[str, ...]
    curves: dict[str, tuple[Point, ...]]
    references: dict[str, dict[str, float]]


def plot_layers_by_name(results: Sequence[Result], out: Path) -> list[Path]:
    """Draw `layers_by_name.png` and `layers_by_name.svg`.

    Bands and open markers are those of `plot_layers`: the 95 % interval, and the default layer. To the right of the
    layers stand the encoders that have one layer only, and chance, in the colours of the tasks.

    Args:
        results: in any order; rows of several fused layers are left out.
        out: results folder; its predictions give the interval of several seeds.

    Returns:
        The files written; none if no encoder has two single layers.
    """
    out = Path(out)
    panels = make_panels(results, out)
    found = make_encoder_panels(panels)
    if not found:
        return []
    return save_figure(draw_layers_by_name(found, describe_limits(panels)), out / "layers_by_name")


def make_encoder_panels(found: Sequence[Panel]) -> list[EncoderPanel]:
    """From one panel a task to one panel an encoder, by label; encoders with fewer than two layers are references."""
    curves: dict[str, dict[str, tuple[Point, ...]]] = {}  # encoder -> task -> points
    for panel in found:
        for curve in panel.curves:
            curves.setdefault(curve.label, {})[panel.title] = curve.points
    shown = [_make_encoder_panel(label, found, curves[label]) for label in sorted(curves)]
    return [panel for panel in shown if len(panel.layers) > 1]


def _make_encoder_panel(label: str, found: Sequence[Panel], curves: dict[str, tuple[Point, ...]]) -> EncoderPanel:
    depths = {point.layer: point.depth for points in curves.values() for point in points}
    tasks = [panel for panel in found if panel.title in curves]
    references: dict[str, dict[str, float]] = {}
    for panel in tasks:
        for curve in panel.curves:
            if curve.is_floor:
                references.setdefault(curve.label, {})[panel.title] = curve.points[0].score
    chances = {panel.title: panel.chance for panel in tasks if panel.chance is not None}
    return EncoderPanel(
        label,
        tuple(dict.fromkeys(panel.metric for panel in tasks)),
        tuple(sorted(depths, key=depths.__getitem__)),
        {panel.title: curves[panel.title] for panel in tasks},
        dict(sorted(references.items())) | ({CHANCE: chances} if chances else {}),
    )


def draw_layers_by_name(found: Sequence[EncoderPanel], caption: str = "") -> Figure:
    """Lay out panels in rows of two, or one where there are many layers, with one legend below.

    Args:
        found: at least one encoder.
        caption: small print below.
    """
    found = [part for panel in found for part in _split_panel(panel)]
    tasks = list(dict.fromkeys(task for panel in found for task in panel.curves))
    style = {task: index for index, task in enumerate(tasks)}
    n_names = max(len(panel.layers) + len(panel.references) for panel in found)
    n_columns = 1 if len(found) == 1 or n_names > 16 else 2
    n_rows = math.ceil(len(found) / n_columns)
    width = COLUMN_INCHES if n_columns == 1 and n_names <= 12 else PAGE_INCHES
    entries = [*tasks, "default layer", "95 % interval"]
    longest_name = max(len(name) for panel in found for name in (*panel.layers, *panel.references))
    names_inches = 0.2 + 0.055 * longest_name * math.sin(math.radians(50))
    legend_inches = 0.2 * math.ceil(len(entries) / count_legend_columns(entries, width)) + 0.1
    height = n_rows * (1.9 + names_inches) + legend_inches
    figure = make_figure(width, height, caption, legend_inches=legend_inches if caption else 0.0)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for index, ax in enumerate(axes.flat):
        if index >= len(found):
            ax.set_axis_off()
            continue
        _draw_panel(ax, found[index], style)
        if index % n_columns == 0:
            ax.set_ylabel(f"{' / '.join(found[index].metrics)} (%)", fontsize=FONT_POINTS)
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(max(low, -2.0), min(high, 104.0))
    _draw_legend(figure, style, entries, count_legend_columns(entries, width), caption)
    return figure


def _split_panel(panel: EncoderPanel) -> list[EncoderPanel]:
    """One panel, or several with about as many tasks each."""
    tasks = list(panel.curves)
    n_parts = math.ceil(len(tasks) / _TASKS_A_PANEL)
    if n_parts == 1:
        return [panel]
    ends = [round(len(tasks) * part / n_parts) for part in range(n_parts + 1)]
    return [
        replace(
            panel,
            label=f"{panel.label}, tasks {begin + 1} to {end} of {len(tasks)}",
            curves={task: panel.curves[task] for task in tasks[begin:end]},
        )
        for begin, end in itertools.pairwise(ends)
    ]


def _draw_panel(ax: Axes, panel: EncoderPanel, style: dict[str, int]) -> None:
    defaults: set[int] = set()
    for task, points in panel.curves.items():
        defaults |= _draw_curve(ax, panel, task, points, style[task])
    if panel.references:
        ax.axvline(len(panel.layers) - 0.25, color="0.6", linewidth=0.8)
    n_names = len(panel.layers) + len(panel.references)
    at = [*range(len(panel.layers)), *(len(panel.layers) + 0.5 + index for index in range(len(panel.references)))]
    names = [*panel.layers, *panel.references]
    ax.set_xticks(at, names, rotation=50, ha="right", rotation_mode="anchor")
    ax.tick_params(labelsize=FONT_POINTS - (1 if n_names <= 16 else 2))
    for place in defaults:
        ax.get_xticklabels()[place].set_fontweight("bold")
    ax.tick_params(axis="y", labelleft=True)
    ax.set_xlim(-0.4, at[-1] + 0.4)
    ax.set_title(panel.label, fontsize=FONT_POINTS + 1)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_curve(ax: Axes, panel: EncoderPanel, task: str, points: Sequence[Point], index: int) -> set[int]:
    """Draw one task: curve, intervals, default layers and references; returns the places of the default layers."""
    places = {layer: place for place, layer in enumerate(panel.layers)}
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    look: dict[str, Any] = {"color": colour, "marker": marker, "linewidth": 1.2}
    mark: dict[str, Any] = {**look, "linestyle": "none"}
    x = [places[point.layer] for point in points]
    line = LINE_STYLES[index // len(COLOURS) % len(LINE_STYLES)]
    ax.plot(x, [point.score for point in points], linestyle=line, markersize=3.5, label=task, **look)
    band = [(places[point.layer], *point.interval) for point in points if point.interval is not None]
    if band:
        at, lows, highs = map(list, zip(*band, strict=True))
        ax.fill_between(at, lows, highs, color=colour, alpha=0.13, linewidth=0)
    defaults = [(places[point.layer], point.score) for point in points if point.is_default]
    for place, score in defaults:
        ax.plot([place], [score], markersize=8, markerfacecolor="none", label="default layer", **mark)
    for reference, (name, scores) in enumerate(panel.references.items()):
        if task in scores:
            x_reference = len(panel.layers) + 0.5 + reference
            face = "none" if name == CHANCE else colour
            ax.plot([x_reference], [scores[task]], markersize=4, markerfacecolor=face, label=name, **mark)
    return {place for place, _ in defaults}


def _draw_legend(figure: Figure, style: dict[str, int], entries: Sequence[str], n_columns: int, caption: str) -> None:
    """One entry a task; what all tasks share is grey, and named only where it is drawn."""
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: dict[str, Artist] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            if label in style:
                handles.setdefault(label, handle)
            elif label == "default layer":
                handles[label] = Line2D(
                    [], [], color="0.35", marker="o", markersize=8, markerfacecolor="none", linestyle="none"
                )
    if any(ax.collections for ax in figure.axes):
        handles["95 % interval"] = Patch(color="0.35", alpha=0.13, linewidth=0)
    named = [name for name in entries if name in handles]
    if caption:  # matplotlib's own place would be over it
        draw_legend_below(figure, [handles[name] for name in named], named, n_columns, caption, 1.0)
        return
    figure.legend(
        [handles[name] for name in named],
        named,
        loc="outside lower center",
        ncols=n_columns,
        fontsize=FONT_POINTS - 1,
        frameon=False,
    )
