"""Pictures of a fusion search: the validation score of every pair of layers, and the weights of a weighted sum of layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.figures.style import COLOURS, COLUMN_INCHES, FONT_POINTS, MARKERS, PAGE_INCHES, make_figure, save_figure
from evar.results import Result, SearchRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
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
        choice_score: the ranker's score of the chosen set, in percent, as in `scores`; None if it was not ranked.
        probe_score: validation score of the chosen set by the protocol's probe, likewise.
    """

    title: str
    layers: tuple[str, ...]
    scores: NDArray[Any]
    choice: tuple[int, ...]
    choice_score: float | None = None
    probe_score: float | None = None

    @property
    def best(self) -> tuple[int, int] | None:
        """(layer, layer) of the best pair, or single layer, of the map; None if nothing was ranked."""
        import numpy as np

        if not np.isfinite(self.scores).any():
            return None
        row, column = np.unravel_index(int(np.nanargmax(self.scores)), self.scores.shape)
        return int(row), int(column)

    @property
    def heading(self) -> str:
        """Encoder, the chosen layers, and their scores."""
        names = "+".join(self.layers[at] for at in self.choice)
        scores = [("ranker", self.choice_score), ("probe", self.probe_score)]
        known = ", ".join(f"{name} {score:.1f} %" for name, score in scores if score is not None)
        return f"{self.title}\nchosen: {names}" + (f"\n{known}" if known else "")


def make_pair_maps(records: Sequence[SearchRecord]) -> list[PairMap]:
    """Make the maps of the newest search of each encoder and set of tasks, by encoder."""

    newest = {}
    for record in sorted(records, key=lambda record: record.created):
        tasks = tuple(str(task["name"]) for task in record.tasks)
        newest[record.encoder, record.weights_sha256, tasks, record.limit or 0] = record
    several = len({key[2:] for key in newest}) > 1
    maps = []
    for key in sorted(newest):
        record = newest[key]
        title = record.encoder + (f"\n{', '.join(key[2])}" if several else "")
        maps.append(_make_pair_map(record, title))
    return maps


def _make_pair_map(record: SearchRecord, title: str) -> PairMap:
    import numpy as np

    at = {name: position for position, name in enumerate(record.layers)}
    scores = np.full((len(at), len(at)), np.nan)
    for entry in record.ranked:
        if len(entry["layers"]) <= 2:
            first, last = at[entry["layers"][0]], at[entry["layers"][-1]]
            scores[first, last] = scores[last, first] = _average_tasks(entry)
    choice = sorted(record.choice, key=at.__getitem__)
    own = [
        next(
            (_average_tasks(entry) for entry in entries if sorted(entry["layers"], key=at.__getitem__) == choice), None
        )
        for entries in (record.ranked, record.probed)
    ]
    return PairMap(title, tuple(record.layers), scores, tuple(at[name] for name in record.choice), *own)


def _average_tasks(entry: Mapping[str, Any]) -> float:
    """Return the validation score of a combination in percent: mean over tasks of the mean over rounds."""
    means = [sum(found) / len(found) for found in entry["scores"].values()]
    return 100 * sum(means) / len(means)


def plot_search(records: Sequence[SearchRecord], out: Path) -> list[Path]:
    """Draw `search.png` and `search.svg`: a map of all pairs for each encoder, and the chosen layers with their scores."""
    maps = make_pair_maps(records)
    return save_figure(draw_search(maps), out / "search") if maps else []


def draw_search(maps: Sequence[PairMap]) -> Figure:
    """Lay out the maps side by side, one an encoder.

    The chosen layers are bold, and framed where a cell of the map is the chosen set. The best cell of the map has a broken
    frame: the probe, which decides among the finalists, may have found another set better.
    """
    n_columns = min(len(maps), 3 if max(len(one.layers) for one in maps) <= 9 else 2)
    n_rows = math.ceil(len(maps) / n_columns)
    width = COLUMN_INCHES if n_columns == 1 else PAGE_INCHES
    caption = (
        "Validation score of the search's ranker for every pair of layers, mean over the tasks, in percent; single layers "
        "on the diagonal. Bold: the chosen layers; their own scores are in the title, and they are framed where they are a "
        "pair or one layer. Broken frame: the best pair or layer by the ranker. The probe decides among the finalists."
    )
    figure = make_figure(width, n_rows * (width / n_columns * 0.86 + 0.5), caption)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for ax in axes[len(maps) :]:
        ax.set_visible(False)
    for ax, one in zip(axes, maps, strict=False):
        _draw_pair_map(ax, one)
    return figure


def _draw_pair_map(ax: Axes, one: PairMap) -> None:
    import numpy as np

    n_layers = len(one.layers)
    image = ax.imshow(one.scores, cmap="cividis")
    small = FONT_POINTS - (1 if n_layers <= 9 else 3)
    ax.set_xticks(range(n_layers), one.layers, rotation=90, fontsize=small)
    ax.set_yticks(range(n_layers), one.layers, fontsize=small)
    for at in one.choice:
        for name in (ax.get_xticklabels()[at], ax.get_yticklabels()[at]):
            name.set_fontweight("bold")
    ax.set_title(one.heading, fontsize=FONT_POINTS)
    if n_layers <= 9:
        middle = np.nanmean([np.nanmin(one.scores), np.nanmax(one.scores)])
        for (row, column), score in np.ndenumerate(one.scores):
            if np.isfinite(score):
                colour = "black" if score > middle else "white"
                ax.text(column, row, f"{score:.0f}", ha="center", va="center", fontsize=small - 1, color=colour)
    if one.best is not None:
        _frame_cell(ax, one.best, linestyle=(0, (2, 1)))
    if len(one.choice) <= 2:
        _frame_cell(ax, (one.choice[0], one.choice[-1]), linestyle="-")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8)
    bar.ax.tick_params(labelsize=small)
    bar.set_label("score (%)", fontsize=small)


def _frame_cell(ax: Axes, cell: tuple[int, int], linestyle: Any) -> None:
    """Frame a pair of layers on both sides of the diagonal."""
    from matplotlib.patches import Rectangle

    for row, column in {cell, cell[::-1]}:
        ax.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=1.6, linestyle=linestyle
            )
        )


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
    """Make one curve for each encoder and task with a weighted sum or attention over layers."""
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
