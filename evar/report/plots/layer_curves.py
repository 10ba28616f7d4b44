"""Layer curves: score against relative depth, one line an encoder, one panel a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evar.figures.style import (
    COLOURS,
    COLUMN_INCHES,
    FONT_POINTS,
    MARKERS,
    PAGE_INCHES,
    draw_legend_below,
    make_figure,
    save_figure,
)
from evar.report.tables.cells import make_sections
from evar.report.tables.section import Column, Section
from evar.results import Result

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A ninth encoder repeats the first colour, so its line is broken.
LINE_STYLES = ("-", "-.")
# Single-layer encoders are references rather than rivals: no colour is spent on them.
FLOOR_COLOUR, FLOOR_STYLES = "0.25", ("--", (0, (8, 2, 2, 2)), (0, (3, 3)))


@dataclass(frozen=True)
class Point:
    """One layer on a curve: depth 0..1, score in percent, and the (low, high) ends of its interval if it has one."""

    layer: str
    depth: float
    score: float
    interval: tuple[float, float] | None
    is_default: bool


@dataclass(frozen=True)
class Curve:
    """One encoder on one task.

    Attributes:
        label: the encoder's row label.
        points: shallow to deep.
        is_floor: the encoder has a single layer, drawn as a horizontal line.
    """

    label: str
    points: tuple[Point, ...]
    is_floor: bool


@dataclass(frozen=True)
class Panel:
    """One task.

    Attributes:
        title: the column's label; without the limit where all panels have the same.
        metric: name.
        chance: percent, where it is known.
        curves: one an encoder.
        limit: clips of each split or fold at most; None for all clips.
    """

    title: str
    metric: str
    chance: float | None
    curves: tuple[Curve, ...]
    limit: int | None = None

    @property
    def has_curve(self) -> bool:
        """True if some encoder has two layers here: a single dot is no curve."""
        return any(len(curve.points) > 1 for curve in self.curves)


def plot_layers(results: Sequence[Result], out: Path) -> list[Path]:
    """Draw `layers.png` and `layers.svg`.

    The band is the 95 % interval, the larger open marker the encoder's default layer where that is a single one, the
    dotted line chance; an encoder with only one layer, such as logmel, is a dashed line across the panel.

    Args:
        results: in any order; those of several fused layers have no depth and are left out.
        out: results folder; its predictions give the interval of several seeds.

    Returns:
        The files written; none if no encoder has two layers on a task. Tasks with a single dot get no panel.
    """
    out = Path(out)
    found = [panel for panel in make_panels(results, out) if panel.has_curve]
    if not found:
        return []
    return save_figure(draw_layers(found), out / "layers")


def make_panels(results: Sequence[Result], out: Path | None = None) -> list[Panel]:
    """List the curves of a figure, in the order of the tables."""
    tables = make_sections(results, (), out, single_layers=True)
    # A protocol under which no encoder has two layers has no curve, and would only lengthen the titles of the others.
    tables = [section for section in tables if _has_curve(section)] or tables
    protocols = {(section.protocol, section.protocol_version) for section in tables}
    found = [
        panel
        for section in tables
        for index, column in enumerate(section.columns)
        if (panel := _make_panel(section, index, column, name_protocol=len(protocols) > 1)).curves
    ]
    if len({panel.limit for panel in found}) > 1:
        return found
    return [replace(panel, title=_drop_limit(panel.title, panel.limit)) for panel in found]


def _has_curve(section: Section) -> bool:
    """Tell whether some encoder has two layers with a depth in this table."""
    names = [row.encoder for row in section.rows if row.depth is not None]
    return len(set(names)) < len(names)


def _drop_limit(title: str, limit: int | None) -> str:
    """Return a label without the limit, which the caption says once.

    Example:
        >>> _drop_limit("esc10 (limit 50)", 50), _drop_limit("esc10 (version 2, limit 50)", 50)
        ('esc10', 'esc10 (version 2)')
    """
    return title.replace(f" (limit {limit})", "").replace(f", limit {limit})", ")")


def describe_limits(found: Sequence[Panel]) -> str:
    """Say in a caption that only a part of the clips was used, where that holds for all panels; "" else."""
    limits = {panel.limit for panel in found}
    limit = limits.pop() if len(limits) == 1 else None
    return f"At most {limit} clips of each split or fold were used." if limit else ""


def _make_panel(section: Section, index: int, column: Column, *, name_protocol: bool) -> Panel:
    from evar.metrics.named import get_display_name

    points: dict[str, list[Point]] = {}
    floors, metric = set(), ""
    for row in section.rows:
        cell = row.cells[index]
        if cell is None or cell.score is None or row.depth is None or row.first is None:
            continue
        interval = (100 * cell.interval[0], 100 * cell.interval[1]) if cell.interval else None
        # Untrained weights must show in a picture that is passed around without its table.
        label = row.encoder + (" (random weights)" if row.first.is_random and "random" not in row.encoder else "")
        points.setdefault(label, []).append(
            Point(row.first.layers[0], row.depth, 100 * cell.score, interval, row.first.default)
        )
        metric = get_display_name(row.first.metric)
        if row.first.n_layers == 1:
            floors.add(label)
    curves = tuple(
        Curve(label, tuple(sorted(found, key=lambda point: point.depth)), label in floors)
        for label, found in points.items()
    )
    title = f"{column.label}, {section.title.split(' (limit')[0]}" if name_protocol else column.label
    return Panel(title, metric, None if column.chance is None else 100 * column.chance, curves, section.limit)


def draw_layers(found: Sequence[Panel]) -> Figure:
    """Lay out panels in up to three columns with one legend below."""
    n_columns = {1: 1, 2: 2, 4: 2}.get(len(found), 3)
    n_rows = math.ceil(len(found) / n_columns)
    labels = {curve.label for panel in found for curve in panel.curves}
    floors = {curve.label for panel in found for curve in panel.curves if curve.is_floor}
    rivals = sorted(labels - floors)
    ordered = [*rivals, *sorted(floors)]
    style = {label: index for names in (rivals, sorted(floors)) for index, label in enumerate(names)}
    width = COLUMN_INCHES if n_columns == 1 else PAGE_INCHES
    legend_columns = max(1, min(4, int(width / (0.065 * max(map(len, ordered)) + 0.6))))
    legend_inches = 0.2 * math.ceil((len(ordered) + 3) / legend_columns) + 0.1
    height = n_rows * (2.3 if n_columns < 3 else 1.9) + legend_inches
    caption = describe_limits(found)
    figure = make_figure(width, height, caption, legend_inches=legend_inches if caption else 0.0)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for index, ax in enumerate(axes.flat):
        if index >= len(found):
            ax.set_axis_off()
            continue
        _draw_panel(ax, found[index], style)
        is_lowest = index + n_columns >= len(found)
        if is_lowest:
            ax.set_xlabel("relative depth (1 = last layer)", fontsize=FONT_POINTS)
        ax.tick_params(labelbottom=is_lowest, labelleft=index % n_columns == 0)
        if index % n_columns == 0 or found[index].metric != found[index - 1].metric:
            ax.set_ylabel(f"{found[index].metric} (%)", fontsize=FONT_POINTS)
    low, high = axes[0, 0].get_ylim()
    least = (
        -102.0 if any(point.score < 0 for panel in found for curve in panel.curves for point in curve.points) else -2.0
    )
    axes[0, 0].set_ylim(max(low, least), min(high, 104.0))
    _draw_legend(figure, legend_columns, ordered, caption)
    return figure


def _draw_panel(ax: Axes, panel: Panel, style: dict[str, int]) -> None:
    for curve in panel.curves:
        index = style[curve.label]
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        if curve.is_floor:
            floor_style = FLOOR_STYLES[index % len(FLOOR_STYLES)]
            ax.axhline(
                curve.points[0].score, color=FLOOR_COLOUR, linestyle=floor_style, linewidth=1.2, label=curve.label
            )
            continue
        depths = [point.depth for point in curve.points]
        ax.plot(
            depths,
            [point.score for point in curve.points],
            color=colour,
            linestyle=LINE_STYLES[index // len(COLOURS) % len(LINE_STYLES)],
            marker=marker,
            markersize=3.5,
            linewidth=1.2,
            label=curve.label,
        )
        band = [(point.depth, *point.interval) for point in curve.points if point.interval is not None]
        if band:
            depths, lows, highs = map(list, zip(*band, strict=True))
            ax.fill_between(depths, lows, highs, color=colour, alpha=0.13, linewidth=0)
        for point in curve.points:
            if point.is_default:
                ax.plot(
                    [point.depth],
                    [point.score],
                    color=colour,
                    marker=marker,
                    markersize=8,
                    markerfacecolor="none",
                    linestyle="none",
                    label="default layer",
                )
    if panel.chance is not None:
        ax.axhline(panel.chance, color="0.35", linestyle=":", linewidth=1.0, label="chance")
    ax.set_title(panel.title, fontsize=FONT_POINTS + 1)
    ax.set_xlim(0.0, 1.04)
    ax.tick_params(labelsize=FONT_POINTS - 1)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_legend(figure: Figure, n_columns: int, labels: Sequence[str], caption: str) -> None:
    """One entry a name, the encoders first; what all encoders share is grey."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: dict[str, Artist] = {}
    for ax in figure.axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if "default layer" in handles:
        handles["default layer"] = Line2D(
            [], [], color="0.35", marker="o", markersize=8, markerfacecolor="none", linestyle="none"
        )
    if any(ax.collections for ax in figure.axes):
        handles["95 % interval"] = Patch(color="0.35", alpha=0.13, linewidth=0)
    ordered = [name for name in (*labels, "default layer", "95 % interval", "chance") if name in handles]
    if caption:  # matplotlib's own place would be over it
        draw_legend_below(figure, [handles[name] for name in ordered], ordered, n_columns, caption, 1.0)
        return
    figure.legend(
        [handles[name] for name in ordered],
        ordered,
        loc="outside lower center",
        ncols=n_columns,
        fontsize=FONT_POINTS - 1,
        frameon=False,
    )
