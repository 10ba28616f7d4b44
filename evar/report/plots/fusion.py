"""Pictures of a fusion search: how every pair of layers does on validation, and what a weighted sum makes of the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.figures.style import COLOURS, COLUMN_INCHES, FONT_POINTS, MARKERS, PAGE_INCHES, make_figure, save_figure
from evar.results import Result, SearchRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PairMap:
    """One encoder's pairs.

    Attributes:
        title: encoder.
        layers: names, shallow to deep.
        scores: (layer, layer) symmetric, mean over tasks of the ranker's validation score in percent; single layers on
            the diagonal; NaN where a pair was not ranked.
        choice: positions of the chosen layers.
    """

    title: str
    layers: tuple[str, ...]
    scores: NDArray[Any]
    choice: tuple[int, ...]


def make_pair_maps(records: Sequence[SearchRecord]) -> list[PairMap]:
    """The newest search of each encoder and set of tasks, by encoder."""
    import numpy as np

    newest = {}
    for record in sorted(records, key=lambda record: record.created):
        tasks = tuple(str(task["name"]) for task in record.tasks)
        newest[record.encoder, record.weights_sha256, tasks, record.limit or 0] = record
    several = len({key[2:] for key in newest}) > 1
    maps = []
    for key in sorted(newest):
        record = newest[key]
        at = {name: position for position, name in enumerate(record.layers)}
        scores = np.full((len(at), len(at)), np.nan)
        for entry in record.ranked:
            if len(entry["layers"]) <= 2:
                first, last = at[entry["layers"][0]], at[entry["layers"][-1]]
                means = [sum(found) / len(found) for found in entry["scores"].values()]
                scores[first, last] = scores[last, first] = 100 * sum(means) / len(means)
        title = record.encoder + (f"\n{', '.join(key[2])}" if several else "")
        maps.append(PairMap(title, tuple(record.layers), scores, tuple(at[name] for name in record.choice)))
    return maps


def plot_search(records: Sequence[SearchRecord], out: Path) -> list[Path]:
    """Draw `search.png` and `search.svg`: a map of all pairs for each encoder, the chosen layers marked."""
    import numpy as np

    maps = make_pair_maps(records)
    if not maps:
        return []
    n_columns = min(len(maps), 3 if max(len(one.layers) for one in maps) <= 9 else 2)
    n_rows = math.ceil(len(maps) / n_columns)
    width = COLUMN_INCHES if n_columns == 1 else PAGE_INCHES
    caption = (
        "Validation score of the search's ranker for every pair of layers, mean over the tasks, in percent; single layers "
        "on the diagonal. Frames: pairs (or single layers) of the chosen set."
    )
    figure = make_figure(width, n_rows * (width / n_columns * 0.86 + 0.25), caption)
    axes = np.atleast_1d(figure.subplots(n_rows, n_columns, squeeze=False)).ravel()
    for ax in axes[len(maps) :]:
        ax.set_visible(False)
    for ax, one in zip(axes, maps, strict=False):
        n_layers = len(one.layers)
        image = ax.imshow(one.scores, cmap="cividis")
        small = FONT_POINTS - (1 if n_layers <= 9 else 3)
        ax.set_xticks(range(n_layers), one.layers, rotation=90, fontsize=small)
        ax.set_yticks(range(n_layers), one.layers, fontsize=small)
        ax.set_title(one.title, fontsize=FONT_POINTS)
        middle = np.nanmean([np.nanmin(one.scores), np.nanmax(one.scores)])
        if n_layers <= 9:
            for (row, column), score in np.ndenumerate(one.scores):
                if np.isfinite(score):
                    colour = "black" if score > middle else "white"
                    ax.text(column, row, f"{score:.0f}", ha="center", va="center", fontsize=small - 1, color=colour)
        for row in one.choice:
            for column in one.choice:
                if row != column or len(one.choice) == 1:
                    place = {"xy": (column - 0.5, row - 0.5), "width": 1, "height": 1}
                    ax.add_patch(_frame(**place))
        bar = figure.colorbar(image, ax=ax, shrink=0.8)
        bar.ax.tick_params(labelsize=small)
        bar.set_label("score (%)", fontsize=small)
    return save_figure(figure, out / "search")


def _frame(**place: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(**place, fill=False, edgecolor=COLOURS[1], linewidth=1.6)


@dataclass(frozen=True)
class WeightCurve:
    """What a weighted sum, or attention, made of an encoder's layers on one task: weights sum to 1, mean over rounds and
    seeds."""

    encoder: str
    task: str
    layers: tuple[str, ...]
    weights: tuple[float, ...]
    fusion: str = "weighted"


def make_weight_curves(results: Sequence[Result]) -> list[WeightCurve]:
    """One curve for each encoder x task with a weighted sum or attention over layers; the newest row of each seed."""
    import numpy as np

    found: dict[tuple[str, str, tuple[str, ...], str], dict[int, Any]] = {}
    for row in sorted(results, key=lambda row: (row.created, row.id)):
        if row.fusion in ("weighted", "attention") and len(row.layers) > 1 and row.params.get("layer_weights"):
            key = (row.encoder, row.task, tuple(row.layers), row.fusion)
            found.setdefault(key, {})[row.seed] = np.mean(row.params["layer_weights"], axis=0)
    return [
        WeightCurve(encoder, task, layers, tuple(np.mean(list(seeds.values()), axis=0).tolist()), fusion)
        for (encoder, task, layers, fusion), seeds in sorted(found.items())
    ]


def plot_weights(results: Sequence[Result], out: Path) -> list[Path]:
    """Draw `weights.png` and `weights.svg`: layer weights of every weighted sum and attention, one panel an encoder."""
    curves = make_weight_curves(results)
    if not curves:
        return []
    panels = sorted({(curve.encoder, curve.layers, curve.fusion) for curve in curves})
    n_columns = min(len(panels), 2)
    n_rows = math.ceil(len(panels) / n_columns)
    width = COLUMN_INCHES if n_columns == 1 else PAGE_INCHES
    caption = "Weights of the layers, learned with the classifier; mean over folds. Dotted: equal weights."
    figure = make_figure(width, 2.3 * n_rows, caption)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    tasks = sorted({curve.task for curve in curves})
    for ax, (encoder, layers, fusion) in zip(axes, panels, strict=False):
        for curve in curves:
            if (curve.encoder, curve.layers, curve.fusion) == (encoder, layers, fusion):
                at = tasks.index(curve.task)
                style = {"color": COLOURS[at % len(COLOURS)], "marker": MARKERS[at % len(MARKERS)]}
                ax.plot(range(len(layers)), curve.weights, label=curve.task, linewidth=1.0, markersize=3, **style)
        ax.axhline(1 / len(layers), color="0.4", linestyle=":", linewidth=0.8)
        ax.set_xticks(range(len(layers)), layers, rotation=90, fontsize=FONT_POINTS - 2)
        ax.tick_params(axis="y", labelsize=FONT_POINTS - 2)
        ax.set_title(encoder + (", attention" if fusion == "attention" else ""), fontsize=FONT_POINTS)
        ax.set_ylabel("weight", fontsize=FONT_POINTS - 1)
        ax.set_ylim(bottom=0)
        ax.legend(fontsize=FONT_POINTS - 2, frameon=False)
    return save_figure(figure, out / "weights")
