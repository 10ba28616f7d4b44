"""Heat map of a layer sweep: layers down, tasks across, one panel an encoder, the score in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar.figures.grids import LABEL_POINTS, draw_colour_bar, fill_cells, make_box, place_boxes
from evar.figures.style import COLOURS, save_figure
from evar.report.plots.layer_curves import Panel, make_panels
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
        scores: [layer][task] in percent; None where there is none.
        shades: [layer][task] place of the score between the lowest (0) and the highest (1) of that task in all maps.
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

    The colour is relative to the task: dark the lowest score of any layer of any encoder shown, light the highest, so
    that an easy task does not wash out a hard one and panels can be compared column by column.

    Args:
        results: in any order; encoders with one layer and rows of several fused layers are left out.
        out: results folder.

    Returns:
        The files written; none where no encoder has two single layers.
    """
    found = make_panels(results)
    maps = make_layer_maps(found)
    metrics = " and ".join(sorted({panel.metric for panel in found}))
    return save_figure(draw_heatmap(maps, metrics), Path(out) / "heatmap") if maps else []


def make_layer_maps(found: Sequence[Panel]) -> list[LayerMap]:
    """From one panel a task to one map an encoder, by label; encoders with fewer than two layers are left out."""
    scores: dict[str, dict[tuple[str, str], float]] = {}  # encoder -> (layer, task) -> percent
    depths: dict[str, dict[str, float]] = {}  # encoder -> layer -> depth
    defaults: dict[str, set[str]] = {}
    for panel in found:
        for curve in panel.curves:
            for point in curve.points:
                scores.setdefault(curve.label, {})[point.layer, panel.title] = point.score
                depths.setdefault(curve.label, {})[point.layer] = point.depth
                defaults.setdefault(curve.label, set()).update([point.layer] if point.is_default else [])
    shown = sorted(label for label, layers in depths.items() if len(layers) > 1)
    ends: dict[str, tuple[float, float]] = {}  # task -> lowest, highest
    for panel in found:
        of_task = [score for label in shown for (_, task), score in scores[label].items() if task == panel.title]
        if of_task:
            ends[panel.title] = min(of_task), max(of_task)
    maps = []
    for label in shown:
        layers = sorted(depths[label], key=depths[label].__getitem__)
        tasks = [task for task in ends if any((layer, task) in scores[label] for layer in layers)]
        grid = tuple(tuple(scores[label].get((layer, task)) for task in tasks) for layer in layers)
        shades = tuple(
            tuple(
                None if score is None else _shade(score, *ends[task]) for score, task in zip(line, tasks, strict=True)
            )
            for line in grid
        )
        best = frozenset(place for column in range(len(tasks)) for place in _find_best(grid, column))
        marked = frozenset(index for index, layer in enumerate(layers) if layer in defaults[label])
        maps.append(LayerMap(label, tuple(layers), tuple(tasks), grid, shades, best, marked))
    return maps


def _shade(score: float, lowest: float, highest: float) -> float:
    return (score - lowest) / (highest - lowest) if highest > lowest else 1.0


def _find_best(grid: Sequence[Sequence[float | None]], column: int) -> list[tuple[int, int]]:
    known = [score for line in grid if (score := line[column]) is not None]
    return [
        (row, column)
        for row, line in enumerate(grid)
        if (score := line[column]) is not None and not is_better(max(known), score)
    ]


def draw_heatmap(maps: Sequence[LayerMap], metrics: str = "score") -> Figure:
    """Lay out the maps side by side as far as the page is wide, with one colour bar and one legend.

    Args:
        maps: at least one.
        metrics: what the numbers are, "accuracy".
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    caption = (
        f"{metrics[0].upper()}{metrics[1:]} in percent. Colours, for each task: from its lowest to its highest score over "
        "the layers of all encoders shown."
    )
    boxes = [
        make_box(one.label, one.layers, one.tasks, CELL_WIDTH, CELL_HEIGHT, mark_inches=_MARK_INCHES) for one in maps
    ]
    figure, axes, foot = place_boxes(boxes, caption)
    for ax, one in zip(axes, maps, strict=True):
        _draw_map(ax, one)
    draw_colour_bar(figure, "score of the task", ("lowest", "highest"), foot)
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
