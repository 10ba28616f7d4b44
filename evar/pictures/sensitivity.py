"""`evar plot sensitivity`: how far a clip's vector moves, layer by layer, when pitch, level, noise or start change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.extraction.embed import embed
from evar.extraction.fusion import fuse
from evar.figures.style import FONT_POINTS, PAGE_INCHES, make_figure, save_figure
from evar.pictures.alterations import LEVELS_DB, AlteredClip, alter_clip
from evar.pictures.loading import Chosen, Sound
from evar.pictures.saving import save_table
from evar.report.tables.labels import label_layers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

PANELS = ("pitch", "level", "noise", "time")
CONTROL = "pitch_and_back"
#: if there are more layers than this, a colour bar takes the place of the legend
MAX_LEGEND = 8


@dataclass(frozen=True)
class Layer:
    """One layer of one encoder.

    Attributes:
        name: the layer, or several that are concatenated.
        depth: 0 for the encoder's first layer, 1 for its last.
        is_default: whether the encoder's paper uses it frozen.
        distances: alteration -> (values,) cosine distance to the unaltered clip's vector, in the order of
            `SensitivityData.values`; NaN where one of the two vectors is all zero.
    """

    name: str
    depth: float
    is_default: bool
    distances: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class SensitivityData:
    """All that the picture shows.

    Attributes:
        title: of the clip.
        lowered_db: how much the clip was lowered first, dB.
        values: alteration -> its amount, in `units`.
        titles, units: alteration -> of its panel.
        layers: encoder -> its layers, shallow to deep.
        notes: sentences for the caption.
    """

    title: str
    lowered_db: float
    values: dict[str, tuple[float, ...]]
    titles: dict[str, str]
    units: dict[str, str]
    layers: dict[str, tuple[Layer, ...]]
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return one row for each encoder, layer, alteration and value, with the cosine distance."""
        import pandas as pd

        return pd.DataFrame(
            [
                (encoder, layer.name, layer.depth, name, self.units[name], value, distance)
                for encoder, layers in self.layers.items()
                for layer in layers
                for name in self.values
                for value, distance in zip(self.values[name], layer.distances[name], strict=True)
            ],
            columns=["encoder", "layer", "depth", "alteration", "unit", "value", "cosine_distance"],
        )


def make_sensitivity_data(sound: Sound, chosen: Sequence[Chosen], seed: int = 0) -> SensitivityData:
    """Alter a clip at the file's own rate, encode every version, and measure how far each layer's vector moved.

    Args:
        sound: the clip.
        chosen: encoders and layers.
        seed: of the noise.

    Raises:
        ValueError: if the clip is silent.
    """
    altered = alter_clip(sound.waveform, sound.sample_rate, seed)
    return SensitivityData(
        title=sound.title,
        lowered_db=altered.lowered_db,
        values={one.name: tuple(one.clips) for one in altered.alterations},
        titles={one.name: one.title for one in altered.alterations},
        units={one.name: one.unit for one in altered.alterations},
        layers={one.label: _measure_layers(one, altered, sound.sample_rate) for one in chosen},
        notes=tuple(filter(None, (one.note(one.encoder.norm_stats) for one in chosen))),
    )


def _measure_layers(one: Chosen, altered: AlteredClip, sample_rate: int) -> tuple[Layer, ...]:
    names = list(dict.fromkeys(layer for selection in one.selections for layer in selection.layers))
    clips = [altered.unaltered, *(clip for kind in altered.alterations for clip in kind.clips.values())]
    vectors = embed(one.encoder, clips, names, sample_rate=sample_rate)  # layer -> (clips, width)
    ends = np.cumsum([len(kind.clips) for kind in altered.alterations])[:-1]
    found = []
    for selection in one.selections:
        fused = fuse({layer: vectors[layer] for layer in selection.layers}, selection.fusion)
        parts = np.split(compute_cosine_distances(fused[1:], fused[0]), ends)
        distances = {kind.name: part for kind, part in zip(altered.alterations, parts, strict=True)}
        found.append(
            Layer(
                label_layers(selection.layers, selection.fusion),
                one.depth(selection),
                one.is_default(selection),
                distances,
            )
        )
    return tuple(found)


def compute_cosine_distances(vectors: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute 1 - cosine of the angle to a reference: 0 same direction, 1 at right angles, 2 opposite.

    Args:
        vectors: (clips, width).
        reference: (width,).

    Returns:
        (clips,) 0..2, exactly 0 if a vector equals the reference; NaN where only one of the two is all zero.

    Example:
        >>> compute_cosine_distances(np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), np.array([1.0, 0.0])).tolist()
        [0.0, 1.0, 2.0]
    """
    vectors, reference = vectors.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        # |a - b|^2 / 2 of unit vectors is 1 - cos, without the rounding of a difference of nearly equal numbers
        distances = np.square(unit - reference / np.linalg.norm(reference)).sum(axis=1) / 2
    distances[(vectors == reference).all(axis=1)] = 0.0
    return distances


def pick_layer_colours(layers: Sequence[Layer]) -> list[tuple[float, float, float, float]]:
    """Dark to light from shallow to deep; the faint yellow end of viridis is left out."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.88 * layer.depth) for layer in layers]


def draw_sensitivity(data: SensitivityData) -> Figure:
    """Draw one row of panels for each encoder, one panel for each alteration, one line for each layer."""
    figure_caption = "\n".join([_write_caption(data), *data.notes])
    n_rows, n_panels = len(data.layers), len(PANELS)
    figure = make_figure(PAGE_INCHES, 0.75 + 1.55 * n_rows, figure_caption, data.title)
    axes = figure.subplots(
        n_rows, n_panels + 1, squeeze=False, sharex="col", width_ratios=[*[1.0] * n_panels, 0.12]
    )  # the last column holds the names of the layers
    for row, (encoder, layers) in zip(axes, data.layers.items(), strict=True):
        top = max(float(np.nan_to_num(found).max()) for layer in layers for found in layer.distances.values())
        for ax, name in zip(row[:-1], PANELS, strict=True):
            _draw_panel(ax, data, name, layers)
            ax.set_ylim(0, 1.06 * top if top > 0 else 1.0)
            ax.tick_params(labelleft=ax is row[0])
        name_of_row = encoder.replace(" (", "\n(").replace("/", "/\n")
        row[0].set_ylabel(f"{name_of_row}\ncosine distance", fontsize=FONT_POINTS)
        _name_layers(row[-1], row[0], layers)
    for column, name in enumerate(PANELS):
        axes[0, column].set_title(data.titles[name], fontsize=FONT_POINTS + 1)
        axes[-1, column].set_xlabel(data.units[name], fontsize=FONT_POINTS)
    return figure


def _write_caption(data: SensitivityData) -> str:
    said = [
        "Distance of the altered clip's vector to the unaltered clip's, 1 \N{MINUS SIGN} cosine; the scale is shared within "
        "a row. Thick: default layer. Grey: pitch shifted and shifted back, the largest of the layers drawn; a line within "
        "it shows no more than traces of the shifting."
    ]
    if data.lowered_db >= 0.05:
        said.append(f"The clip was lowered by {data.lowered_db:.1f} dB so that no version of it clips.")
    if max(data.values["level"]) < max(LEVELS_DB):
        said.append("Levels that would clip are left out.")
    return " ".join(said)


def _draw_panel(ax: Axes, data: SensitivityData, name: str, layers: Sequence[Layer]) -> None:
    values = data.values[name][1:] if name == "time" else data.values[name]  # no shift has no place on a log axis
    if name == "pitch":
        control = np.max([np.nan_to_num(layer.distances[CONTROL]) for layer in layers], axis=0)
        ax.fill_between(data.values[CONTROL], control, color="0.82", linewidth=0, zorder=0.5)
    for layer, colour in zip(layers, pick_layer_colours(layers), strict=True):
        width = 2.2 if layer.is_default else 1.0
        ax.plot(values, layer.distances[name][-len(values) :], color=colour, linewidth=width, label=layer.name)
    if name == "pitch":
        ax.set_xticks([-12, -6, 0, 6, 12])
    elif name == "noise":
        ax.set_xticks([40, 30, 20, 10, 0])
        ax.set_xlim(max(values) + 1, min(values) - 1)  # from clean to noisy
    elif name == "time":
        ax.set_xscale("log")
        decades = [10.0**power for power in range(6) if 10.0**power <= 1.05 * values[-1]]
        ax.set_xticks(decades, [f"{decade:g}" for decade in decades])
        ax.set_xlim(0.85 * values[0], 1.18 * values[-1])
        ax.minorticks_off()
    ax.tick_params(labelsize=FONT_POINTS - 1)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _name_layers(ax: Axes, drawn: Axes, layers: Sequence[Layer]) -> None:
    """A legend with the deepest layer on top, or a colour bar where that would be too long."""
    if len(layers) <= MAX_LEGEND:
        ax.set_axis_off()
        handles, labels = drawn.get_legend_handles_labels()
        ax.legend(
            handles[::-1],
            labels[::-1],
            loc="center left",
            bbox_to_anchor=(-0.5, 0.5),
            fontsize=FONT_POINTS - 1.5,
            frameon=False,
            borderaxespad=0,
            handlelength=1.2,
            labelspacing=0.35,
        )
        return
    ax.imshow(
        np.array(pick_layer_colours(layers))[:, None],
        origin="lower",
        aspect="auto",
        extent=(0, 1, -0.5, len(layers) - 0.5),
    )
    named = [number for number, layer in enumerate(layers) if layer.is_default]
    named += [end for end in (0, len(layers) - 1) if all(abs(end - number) > 1 for number in named)]
    ax.set_yticks(named, [layers[number].name for number in named], fontsize=FONT_POINTS - 1.5)
    ax.yaxis.tick_right()
    ax.tick_params(length=2, bottom=False, labelbottom=False)


def plot_sensitivity(sound: Sound, chosen: Sequence[Chosen], stem: Path, seed: int = 0) -> list[Path]:
    """Write `stem.png`, `stem.svg` and the distances as `stem.csv`; returns these three."""
    data = make_sensitivity_data(sound, chosen, seed)
    return [*save_figure(draw_sensitivity(data), stem), save_table(data.table(), stem)]
