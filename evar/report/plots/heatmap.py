"""Heat map of a layer sweep: layers down, tasks across, one panel an encoder, the score in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar.figures.grids import LABEL_POINTS, draw_colour_bar, fill_cells, make_box, place_boxes
from evar.figures.style import COLOURS, save_figure
from evar.report.plots.layer_curves import Panel, Point, describe_limits, make_panels
from evar.report.tables.section import is_better
from evar.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAME_COLOUR = COLOURS[1]  # neither on the colour map nor near it
CELL_WIDTH, CELL_HEIGHT = 0.42, 0.2  # inches
_MARK_INCHES = 0.1  # of the mark of a default layer, between its name and its cells


@dataclass(frozen=True)
class LayerMap:
    """One encoder's layers on all of its tasks.

    Attributes:
        label: the encoder's row label.
        layers: names, shallow to deep.
        tasks: column labels.
        scores: [layer][task] in percent; None if there is none.
        shades: [layer][task] place of the score between chance (0) and 100 % (1); a score below chance is 0.
        best: (layer, task) positions of the best layer of each task; all of them where several are equal.
        defaults: positions of the default layer.
    """

    label: str
    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    shades: tuple[tuple[float | None, ...], ...]
    best: frozenset[tuple[int, int]]
    defaults: frozenset[int]


def plot_heatmap(results: Sequence[Result], out: Path) -> list[Path]:
    """Draw `heatmap.png` and `heatmap.svg`: score in percent, the best layer of a task framed, the default layer marked.

    The colour goes from chance, dark, to 100 %, light, in every task: a layer that only guesses is dark wherever it stands,
    and tasks, encoders and folders can be compared.

    Args:
        results: in any order; encoders with one layer and rows of several fused layers are left out.
        out: results folder.

    Returns:
        The files written; none if no encoder has two single layers.
    """
    found = make_panels(results)
    maps = make_layer_maps(found)
    metrics = " and ".join(sorted({panel.metric for panel in found}))
    if not maps:
        return []
    return save_figure(draw_heatmap(maps, metrics, describe_limits(found)), Path(out) / "heatmap")


def make_layer_maps(found: Sequence[Panel]) -> list[LayerMap]:
    """From one panel a task to one map an encoder, by label; encoders with fewer than two layers are left out."""
    tasks = {panel.title: panel.chance or 0.0 for panel in found}
    points: dict[str, dict[tuple[str, str], Point]] = {}  # encoder -> (layer, task) -> point
    for panel in found:
        for curve in panel.curves:
            points.setdefault(curve.label, {}).update({(one.layer, panel.title): one for one in curve.points})
    maps = [_make_layer_map(label, points[label], tasks) for label in sorted(points)]
    return [one for one in maps if len(one.layers) > 1]


def _make_layer_map(label: str, points: dict[tuple[str, str], Point], chances: dict[str, float]) -> LayerMap:
    """Return the map of one encoder."""
    depths = {layer: point.depth for (layer, _), point in points.items()}
    layers = sorted(depths, key=depths.__getitem__)
    tasks = [task for task in chances if any((layer, task) in points for layer in layers)]
    cells = [[points.get((layer, task)) for task in tasks] for layer in layers]
    grid = tuple(tuple(None if point is None else point.score for point in line) for line in cells)
    shades = tuple(
        tuple(None if score is None else _shade(score, chances[task]) for score, task in zip(line, tasks, strict=True))
        for line in grid
    )
    best = frozenset(cell for column in range(len(tasks)) for cell in _find_best(grid, column))
    defaults = frozenset(row for row, line in enumerate(cells) if any(point and point.is_default for point in line))
    return LayerMap(label, tuple(layers), tuple(tasks), grid, shades, best, defaults)


def _shade(score: float, chance: float) -> float:
    """Return the place of a score between chance and 100 %.

    Example:
        >>> _shade(55.0, 10.0), _shade(5.0, 10.0)
        (0.5, 0.0)
    """
    return min(1.0, max(0.0, (score - chance) / (100.0 - chance))) if chance < 100.0 else 1.0


def _find_best(grid: Sequence[Sequence[float | None]], column: int) -> list[tuple[int, int]]:
    known = [score for line in grid if (score := line[column]) is not None]
    return [
        (row, column)
        for row, line in enumerate(grid)
        if (score := line[column]) is not None and not is_better(max(known), score)
    ]


def draw_heatmap(maps: Sequence[LayerMap], metrics: str = "score", note: str = "") -> Figure:
    """Lay out the maps side by side as far as the page is wide, with one colour bar and one legend.

    Args:
        maps: at least one.
        metrics: what the numbers are, "accuracy".
        note: a sentence for the caption.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    caption = (
        f"{metrics[0].upper()}{metrics[1:]} in percent. Colours: from the chance level of the task, or 0 if none is "
        f"known, to 100 %. {note}"
    )
    boxes = [
        make_box(one.label, one.layers, one.tasks, CELL_WIDTH, CELL_HEIGHT, mark_inches=_MARK_INCHES) for one in maps
    ]
    figure, axes, foot = place_boxes(boxes, caption)
    for ax, one in zip(axes, maps, strict=True):
        _draw_map(ax, one)
    draw_colour_bar(figure, "score of the task", ("chance", "100 %"), foot)
    figure.legend(
        [
            Patch(facecolor="none", edgecolor=FRAME_COLOUR, linewidth=1.5),
            Line2D([], [], color="black", marker=">", markersize=4, linestyle="none"),
        ],
        ["best layer of the task", "default layer"],
        loc="lower left",
        bbox_to_anchor=(0.0, foot / figure.get_figheight()),
        fontsize=LABEL_POINTS,
        frameon=False,
        borderaxespad=0.3,
        labelspacing=0.25,
        handlelength=1.5,
    )
    return figure


def _draw_map(ax: Axes, one: LayerMap) -> None:
    from matplotlib.patches import Rectangle

    texts = [["-" if score is None else f"{score:.1f}" for score in line] for line in one.scores]
    fill_cells(ax, one.shades, texts, one.best)
    for row, column in sorted(one.best):
        ax.add_patch(
            Rectangle((column - 0.46, row - 0.43), 0.92, 0.86, fill=False, edgecolor=FRAME_COLOUR, linewidth=1.5)
        )
    ax.tick_params(axis="y", pad=3 + 72 * _MARK_INCHES)
    for row in sorted(one.defaults):
        ax.get_yticklabels()[row].set_fontweight("bold")
        x = -0.5 - 0.6 * _MARK_INCHES / CELL_WIDTH
        ax.plot([x], [row], color="black", marker=">", markersize=4, clip_on=False, scalex=False, scaley=False)
