"""`evar plot map`: all clips of a task as points in the plane, a panel a layer, with two numbers that need no plane."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.config.messages import progress_bar, tell
from evar.extraction import input_statistics as statistics
from evar.extraction.extract import extract_each
from evar.extraction.fusion import fuse
from evar.figures.style import (
    COLUMN_INCHES,
    FONT_POINTS,
    PAGE_INCHES,
    count_legend_columns,
    draw_legend_below,
    make_figure,
    save_figure,
)
from evar.pictures.classes import find_classes, pick_class_style
from evar.pictures.loading import Chosen
from evar.pictures.plane import (
    MAX_COMPONENTS,
    MIN_CLIPS,
    UMAP_NEIGHBOURS,
    choose_perplexity,
    compute_chance_purity,
    compute_purity,
    compute_silhouette,
    draw_balanced_subset,
    place_clips,
    require_method,
    standardise,
)
from evar.pictures.saving import save_table
from evar.report.tables.labels import label_layers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from evar.data.task import Task
    from evar.experiment.selection import Selection
    from evar.storage.feature_store import FeatureStore

TITLES = {"tsne": "t-SNE", "umap": "UMAP"}
#: neighbours for the purity, the share of the same class among them; fewer if the smallest class is smaller
MAX_NEIGHBOURS = 10
#: classes, and lines of text, that a legend may take
MAX_LEGEND, MAX_LEGEND_LINES = 40, 8


@dataclass(frozen=True)
class Panel:
    """One layer of one encoder.

    Attributes:
        encoder, layer: labels; several concatenated layers are one.
        is_default: whether the encoder's paper uses it frozen.
        clips: (points,) positions in `MapData.paths`: all but the bad ones.
        points: (points, 2) place in the plane; without unit.
        silhouette: of the standardised vectors, -1..1; NaN if it is not defined.
        purity: of the standardised vectors, 0..1.
    """

    encoder: str
    layer: str
    is_default: bool
    clips: NDArray[np.int64]
    points: NDArray[np.float64]
    silhouette: float
    purity: float


@dataclass(frozen=True)
class MapData:
    """All that the picture shows.

    Attributes:
        task: name.
        method: "tsne" or "umap".
        classes: labels in order.
        y: (clips,) class numbers.
        paths: (clips,) as in the task's index.
        n_neighbours: k of the purity.
        panels: encoder by encoder, shallow to deep.
        notes: sentences for the caption.
    """

    task: str
    method: str
    classes: tuple[str, ...]
    y: NDArray[np.int64]
    paths: tuple[str, ...]
    n_neighbours: int
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return one row for each point: encoder, layer, clip, class, x, y."""
        import pandas as pd

        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "encoder": panel.encoder,
                        "layer": panel.layer,
                        "clip": [self.paths[clip] for clip in panel.clips],
                        "class": [self.classes[label] for label in self.y[panel.clips]],
                        "x": panel.points[:, 0],
                        "y": panel.points[:, 1],
                    }
                )
                for panel in self.panels
            ],
            ignore_index=True,
        )

    def scores(self) -> pd.DataFrame:
        """Return one row for each panel: encoder, layer, clips, silhouette, purity, k, and the purity of chance."""
        import pandas as pd

        return pd.DataFrame(
            [
                (
                    panel.encoder,
                    panel.layer,
                    len(panel.clips),
                    panel.silhouette,
                    panel.purity,
                    self.n_neighbours,
                    compute_chance_purity(self.y[panel.clips]),
                )
                for panel in self.panels
            ],
            columns=["encoder", "layer", "clips", "silhouette", "purity", "neighbours", "chance_purity"],
        )


def make_map_data(
    task: Task,
    chosen: Sequence[Chosen],
    store: FeatureStore,
    method: str = "tsne",
    seed: int = 0,
    max_clips: int = 2000,
    norm_stats: str | tuple[float, float] | None = None,
    batch_size: int | None = None,
) -> MapData:
    """Encode a task's clips once, or take their vectors from the store, and lay out every selected layer.

    Args:
        task: with its clips.
        chosen: encoders and layers.
        store: where vectors live; the same that `evar lineval` uses.
        method: "tsne" or "umap".
        seed: of the subset and of the layout.
        max_clips: of more clips, a class-balanced subset is drawn.
        norm_stats: "task" normalises by statistics of all of the task's clips, where an encoder has any; else constants.
        batch_size: clips a batch; None lets the encoder say.

    Raises:
        ValueError: if fewer than MIN_CLIPS clips can be used.
        ImportError: if the method's package is not installed.
    """
    require_method(method)
    classes, every_y, notes = find_classes(task)
    drawn = draw_balanced_subset(every_y, max_clips, seed)
    y = every_y[drawn]
    n_neighbours = max(1, min(MAX_NEIGHBOURS, int(np.bincount(y)[np.unique(y)].min()) - 1))
    panels: list[Panel] = []
    if len(drawn) < len(task):
        notes.append(
            f"A class-balanced subset of {len(drawn)} of the task's {len(task)} clips, drawn with seed {seed}."
        )
    for one in chosen:
        stats = one.encoder.norm_stats
        if norm_stats == "task" and stats is not None:
            stats = statistics.of_task(one.encoder, task, "task", [0], store, batch_size)[0][0]
            one = dataclasses.replace(one, stats="task")
        notes.append(one.note(stats))
        usable, layers, n_bad = _load_vectors(one, stats, task, drawn, store, batch_size)
        if n_bad:
            notes.append(f"{one.encoder.name}: {n_bad} clips that could not be used are left out.")
        for selection in progress_bar(one.selections, f"{method} {one.encoder.name}", unit="layer", leave=False):
            vectors = standardise(fuse({layer: layers[layer] for layer in selection.layers}, selection.fusion))
            panels.append(_make_panel(one, selection, usable, vectors, y[usable], (method, seed, n_neighbours)))
    paths = tuple(task.index["path"].iloc[drawn])
    return MapData(task.name, method, classes, y, paths, n_neighbours, tuple(panels), tuple(filter(None, notes)))


def _make_panel(
    one: Chosen,
    selection: Selection,
    usable: NDArray[np.int64],
    vectors: NDArray[np.float64],
    y: NDArray[np.int64],
    settings: tuple[str, int, int],
) -> Panel:
    """Lay out one layer; settings are method, seed and number of neighbours."""
    method, seed, n_neighbours = settings
    return Panel(
        one.label,
        label_layers(selection.layers, selection.fusion),
        one.is_default(selection),
        usable,
        place_clips(vectors, method, seed),
        compute_silhouette(vectors, y),
        compute_purity(vectors, y, min(n_neighbours, len(usable) - 1)),
    )


def _load_vectors(
    one: Chosen,
    stats: statistics.Statistics,
    task: Task,
    drawn: NDArray[np.int64],
    store: FeatureStore,
    batch_size: int | None,
) -> tuple[NDArray[np.int64], Mapping[str, NDArray[np.float32]], int]:
    """Which of the drawn clips can be used, their vectors by layer, and how many cannot."""
    label = f"{one.encoder.name} x {task.name}"
    paths = [task.paths[clip] for clip in drawn]
    (found,) = extract_each(one.encoder, [stats], paths, task.policy(), store, batch_size, label)
    tell(f"{label}: encoded {found.n_encoded} clips; {found.n_stored} were stored already")
    usable = np.array([position for position, row in enumerate(found.rows) if row is not None], np.int64)
    if len(usable) < MIN_CLIPS:
        why = f", first: {next(iter(found.bad.values()))}" if found.bad else ""
        raise ValueError(f"a map needs at least {MIN_CLIPS} clips, {label} has {len(usable)} that can be used{why}")
    rows, where = [str(found.rows[position]) for position in usable], store.rows(found.key)
    names = dict.fromkeys(layer for selection in one.selections for layer in selection.layers)
    vectors = {layer: store.load(found.key, rows, layer, where) for layer in names}
    finite = {layer: np.isfinite(of_layer).all(axis=1) for layer, of_layer in vectors.items()}
    kept = np.logical_and.reduce(list(finite.values()))
    if kept.sum() < MIN_CLIPS:
        worst = min(finite, key=lambda layer: finite[layer].sum())
        raise ValueError(
            f"a map needs at least {MIN_CLIPS} clips, but layer {worst} is finite for {finite[worst].sum()}"
        )
    return usable[kept], {layer: of_layer[kept] for layer, of_layer in vectors.items()}, len(drawn) - int(kept.sum())


def arrange_panels(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Panels in rows: an encoder with several layers begins a row; else they just follow one another."""
    encoders = list(dict.fromkeys(panel.encoder for panel in panels))
    if len(encoders) == len(panels):
        groups = [list(panels)]
    else:
        groups = [[panel for panel in panels if panel.encoder == encoder] for encoder in encoders]
    longest = max(map(len, groups))
    n_columns = longest if longest <= 3 else 4 if longest in (4, 7, 8) or longest > 9 else 3
    return [group[begin : begin + n_columns] for group in groups for begin in range(0, len(group), n_columns)]


def draw_map(data: MapData) -> Figure:
    """Draw one panel for each layer, coloured by class, with a legend if there are not too many classes."""
    rows = arrange_panels(data.panels)
    n_columns = max(map(len, rows))
    width = COLUMN_INCHES if n_columns == 1 else PAGE_INCHES
    shown = [label for label in range(len(data.classes)) if (data.y == label).any()]
    labels = [data.classes[label] for label in shown]
    per_line = count_legend_columns(labels, width)
    n_lines = math.ceil(len(labels) / per_line)
    has_legend = len(labels) <= MAX_LEGEND and n_lines <= MAX_LEGEND_LINES
    side = min(width / n_columns, 2.6 if n_columns > 1 else width)
    legend_inches = 0.15 * n_lines + 0.12 if has_legend else 0.0
    height = len(rows) * (side + 0.3) + 0.35 + legend_inches
    caption = "\n".join(_write_caption(data, has_legend))
    figure = make_figure(width, height, caption, f"{data.task}, {TITLES[data.method]}", legend_inches)
    axes = figure.subplots(len(rows), n_columns, squeeze=False)
    for number, (line, row) in enumerate(zip(axes, rows, strict=True)):
        for column, ax in enumerate(line):
            if column < len(row):
                _draw_panel(ax, data, row[column], shown)
            else:
                ax.set_axis_off()
            if column < len(row) and all(len(later) <= column for later in rows[number + 1 :]):
                ax.set_xlabel(f"{TITLES[data.method]} 1", fontsize=FONT_POINTS)
        line[0].set_ylabel(f"{TITLES[data.method]} 2", fontsize=FONT_POINTS)
    if has_legend:
        draw_legend_below(figure, axes[0, 0].collections, labels, per_line, caption)
    return figure


def _draw_panel(ax: Axes, data: MapData, panel: Panel, shown: Sequence[int]) -> None:
    y = data.y[panel.clips]
    size = float(np.clip(3000 / len(y), 3, 14))
    for number_shown, label in enumerate(shown):
        colour, marker = pick_class_style(number_shown, len(shown))
        places = panel.points[y == label]
        ax.scatter(places[:, 0], places[:, 1], s=size, c=colour, marker=marker, linewidths=0, alpha=0.85)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_title(
        f"{panel.encoder}{'' if panel.layer == panel.encoder else ' ' + panel.layer}"
        f"{' (default)' if panel.is_default else ''}\n"
        f"silhouette {_format_silhouette(panel.silhouette)}, "
        f"purity@{data.n_neighbours} {100 * panel.purity:.0f} %",
        fontsize=FONT_POINTS - 1,
    )


def _format_silhouette(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")


def _write_caption(data: MapData, has_legend: bool) -> list[str]:
    k, n_points = data.n_neighbours, max(len(panel.clips) for panel in data.panels)
    how = {
        "tsne": f"t-SNE with perplexity {choose_perplexity(n_points):.3g}",
        "umap": f"UMAP with {min(UMAP_NEIGHBOURS, n_points - 1)} neighbours",
    }[data.method]
    said = [
        f"{n_points} clips, of training and test alike. Vectors standardised, at most {MAX_COMPONENTS} principal "
        f"components, {how}; distances on the map have no unit. Silhouette and purity are of the standardised vectors, not "
        "of the map. "
        f"purity@{k}: share of a clip's {k} nearest others that are of its class (leave-one-out); chance "
        f"{100 * compute_chance_purity(data.y):.0f} %."
    ]
    if not has_legend:
        said.append(
            f"{len(np.unique(data.y))} classes, too many for a legend: the CSV beside the picture names each point's."
        )
    return [*said, *data.notes]


def plot_map(data: MapData, stem: Path) -> list[Path]:
    """Write `stem.png`, `stem.svg`, the points as `stem.csv` and the numbers as `stem_scores.csv`; returns these."""
    written = save_figure(draw_map(data), stem)
    return [*written, save_table(data.table(), stem), save_table(data.scores(), stem.with_name(f"{stem.name}_scores"))]
