"""`evar plot clip`: a clip's waveform and spectrogram, and below them the vectors that encoders make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.extraction.embed import embed
from evar.extraction.fusion import fuse
from evar.figures.style import COLOURS, FONT_POINTS, PAGE_INCHES, format_number, make_figure, save_figure
from evar.pictures.loading import Chosen, Sound
from evar.pictures.saving import save_table
from evar.report.tables.labels import label_layers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

N_MELS = 128
#: below the loudest band of the clip; fainter bands are drawn with this value
FLOOR_DB = -80.0
#: columns of the picture: more cannot be seen, and would make the file large
MAX_COLUMNS = 1500


@dataclass(frozen=True)
class Vector:
    """A clip's vector of one encoder.

    Attributes:
        encoder: row label.
        layer: name, or names of concatenated layers.
        values: (width,) float32.
        n_parts: equal parts that hold different things, such as means and standard deviations.
    """

    encoder: str
    layer: str
    values: NDArray[np.float32]
    n_parts: int = 1

    def standardise(self) -> tuple[NDArray[np.float32], bool]:
        """Return the values to colour, and whether they are standardised.

        Where all values lie far from 0, as the levels of a log-mel do, colours around 0 would all be one. Each part is then
        shown as its distance to its own median, in units of half the distance between its 1st and 99th percentile.

        Returns:
            (width,) float32 values, and whether they are standardised.
        """
        parts = np.split(self.values, self.n_parts)
        ranges = [np.percentile(part, (1, 50, 99)) for part in parts]
        if not any(min(abs(low), abs(high)) > 0.5 * (high - low) and low * high > 0 for low, _, high in ranges):
            return self.values, False
        standardised = [
            (part - middle) / ((high - low) / 2 or 1.0) for part, (low, middle, high) in zip(parts, ranges, strict=True)
        ]
        return np.concatenate(standardised).astype(np.float32), True


@dataclass(frozen=True)
class ClipData:
    """All that the picture shows.

    Attributes:
        sound: the clip.
        decibels: (band, time) level of mel bands in dB below the loudest, FLOOR_DB..0.
        frequencies: (band,) centres in Hz.
        vectors: in the order of the request.
        notes: sentences for the caption.
    """

    sound: Sound
    decibels: NDArray[np.float32]
    frequencies: NDArray[np.float64]
    vectors: tuple[Vector, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return one row for each value: encoder, layer, feature (from 0), value."""
        import pandas as pd

        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "encoder": vector.encoder,
                        "layer": vector.layer,
                        "feature": np.arange(len(vector.values)),
                        "value": vector.values,
                    }
                )
                for vector in self.vectors
            ],
            ignore_index=True,
        )


def make_clip_data(sound: Sound, chosen: Sequence[Chosen]) -> ClipData:
    """Spectrogram of a clip, and its vector of every selected layer: the numbers of `evar.embed`.

    Args:
        sound: the clip.
        chosen: encoders and layers.
    """
    decibels, frequencies = compute_spectrogram(sound.waveform, sound.sample_rate)
    vectors = []
    for one in chosen:
        layers = list(dict.fromkeys(layer for selection in one.selections for layer in selection.layers))
        found = embed(one.encoder, sound.waveform, layers, sample_rate=sound.sample_rate)
        for selection in one.selections:
            fused = fuse({layer: found[layer] for layer in selection.layers}, selection.fusion)
            poolings = {layer.name: layer.pooling for layer in one.encoder.layer_infos}
            is_split = len(selection.layers) == 1 and poolings.get(selection.layers[0]) == "mean_std"
            label = label_layers(selection.layers, selection.fusion)
            vectors.append(Vector(one.label, label, fused[0], 2 if is_split else 1))
    notes = tuple(filter(None, (one.note(one.encoder.norm_stats) for one in chosen)))
    return ClipData(sound, decibels, frequencies, tuple(vectors), notes)


def compute_spectrogram(
    waveform: NDArray[np.float32], sample_rate: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Mel spectrogram in dB, for the eye: windows of 46 to 93 ms, at most MAX_COLUMNS frames.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.

    Returns:
        (band, time) dB below the loudest band, FLOOR_DB..0 (all FLOOR_DB for a silent clip), and (band,) centres in Hz.
    """
    import torch

    from evar.encoders._logmel import MelSpectrogram, hz_to_mel, mel_to_hz

    n_fft = 2 ** int(np.ceil(np.log2(0.046 * sample_rate)))
    hop = max(1, sample_rate // 200, -(-len(waveform) // MAX_COLUMNS))
    mel = MelSpectrogram(sample_rate=sample_rate, n_fft=n_fft, hop=hop, n_mels=N_MELS, norm="none")
    power = mel(torch.from_numpy(waveform)[None])[0].T.numpy()  # (band, time)
    loudest = float(power.max())
    faintest = 10 ** (FLOOR_DB / 10)
    share = power / loudest if loudest > 0 else np.zeros_like(power)
    # The logarithm may round below the floor by its last bit.
    decibels = np.maximum(10 * np.log10(np.maximum(share, faintest)), FLOOR_DB).astype(np.float32)
    centres = mel_to_hz(np.linspace(0, float(hz_to_mel(sample_rate / 2, "slaney")), N_MELS + 2)[1:-1], "slaney")
    return decibels, centres


def compute_envelope(waveform: NDArray[np.float32], n_columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest sample of each column of a picture: (columns,) each, at most `n_columns`.

    Example:
        >>> low, high = compute_envelope(np.array([0.0, 1.0, -1.0, 0.5], np.float32), 2)
        >>> low.tolist(), high.tolist()
        ([0.0, -1.0], [1.0, 0.5])
    """
    starts = np.unique(np.linspace(0, len(waveform), n_columns, endpoint=False).astype(np.int64))
    return np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)


def find_colour_range(values: NDArray[np.float32]) -> tuple[float, float, str]:
    """Find the ends of a vector's colour scale and its colour map: from 0 if no value is negative, else centred on 0.

    The 1st and 99th percentile count, so that one outlier does not grey out all others.

    Args:
        values: (width,) in the encoder's own unit.

    Returns:
        Value of the first colour, value of the last colour, and the name of the colour map.

    Example:
        >>> find_colour_range(np.array([-1.0, 2.0, 0.0], np.float32))[2], find_colour_range(np.ones(4, np.float32))
        ('PuOr_r', (0.0, 1.0, 'viridis'))
    """
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    if values.min() >= 0:
        return 0.0, high if high > 0 else max(float(values.max()), 1e-12), "viridis"
    reach = max(abs(low), abs(high)) or float(np.abs(values).max())
    return -reach, reach, "PuOr_r"


def draw_clip(data: ClipData) -> Figure:
    """Waveform and spectrogram over one time axis, then a strip a vector, each with its own colour scale."""
    heights = [0.75, 1.45] + [0.27] * len(data.vectors)
    caption = (
        "Vectors as the encoder gives them, not standardised: one column a feature, each strip with its own colour scale "
        "(1st to 99th percentile; purple below 0, orange above; viridis where nothing is negative)."
    )
    figure = make_figure(
        PAGE_INCHES,
        sum(heights) + 0.9 + 0.36 * len(data.vectors),
        "\n".join([caption, *data.notes]),
        data.sound.title,
    )
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[1, 0.016])
    wave = figure.add_subplot(grid[0, 0])
    _draw_waveform(wave, data.sound)
    bands = figure.add_subplot(grid[1, 0], sharex=wave)
    _draw_spectrogram(bands, figure.add_subplot(grid[1, 1]), data)
    for row, vector in enumerate(data.vectors, start=2):
        _draw_vector(figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1]), vector)
    figure.axes[-2].set_xlabel("feature", fontsize=FONT_POINTS)
    return figure


def _draw_waveform(ax: Axes, sound: Sound) -> None:
    low, high = compute_envelope(sound.waveform, MAX_COLUMNS)
    times = sound.start + np.linspace(0, sound.seconds, len(low), endpoint=False)
    ax.fill_between(times, low, high, color=COLOURS[0], linewidth=0.4)
    reach = max(1.08 * float(np.abs(sound.waveform).max()), 1e-3)
    ax.set(xlim=(sound.start, sound.start + sound.seconds), ylim=(-reach, reach))
    ax.set_ylabel("amplitude", fontsize=FONT_POINTS)
    ax.tick_params(labelsize=FONT_POINTS - 1, labelbottom=False)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_spectrogram(ax: Axes, scale: Axes, data: ClipData) -> None:
    image = ax.imshow(
        data.decibels,
        origin="lower",
        aspect="auto",
        extent=(data.sound.start, data.sound.start + data.sound.seconds, -0.5, len(data.frequencies) - 0.5),
        cmap="magma",
        vmin=FLOOR_DB,
        vmax=0,
        interpolation="nearest",
    )
    ticks = [hz for hz in (250, 500, 1000, 2000, 4000, 8000, 16000) if hz <= data.frequencies[-1]]
    places = np.interp(ticks, data.frequencies, np.arange(len(data.frequencies)))
    kept = [i for i, place in enumerate(places) if i + 1 == len(places) or places[i + 1] - place > N_MELS / 12]
    ax.set_yticks(places[kept], [str(ticks[i]) for i in kept])
    ax.set_ylabel("frequency (Hz)", fontsize=FONT_POINTS)
    ax.set_xlabel("time (s)", fontsize=FONT_POINTS)
    ax.tick_params(labelsize=FONT_POINTS - 1)
    bar = ax.figure.colorbar(image, cax=scale)
    bar.set_label("mel band\n(dB, loudest 0)", fontsize=FONT_POINTS - 1)
    bar.ax.tick_params(labelsize=FONT_POINTS - 2)


def _draw_vector(ax: Axes, scale: Axes, vector: Vector) -> None:
    shown, is_standardised = vector.standardise()
    low, high, colours = find_colour_range(shown)
    width = len(vector.values)
    image = ax.imshow(
        shown[None],
        aspect="auto",
        extent=(-0.5, width - 0.5, 0, 1),
        cmap=colours,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set_title(
        f"{vector.encoder}{'' if vector.layer == vector.encoder else ', ' + vector.layer}: {width} features, "
        f"{format_number(vector.values.min())} to {format_number(vector.values.max())}"
        + (f"; colours standardised within {'each half' if vector.n_parts > 1 else 'it'}" if is_standardised else ""),
        fontsize=FONT_POINTS,
        loc="left",
        pad=4,
    )
    ax.set_yticks([])
    ax.tick_params(labelsize=FONT_POINTS - 2, pad=1, length=2)
    bar = ax.figure.colorbar(image, cax=scale)
    bar.set_ticks([low, high], labels=[format_number(low, 2), format_number(high, 2)])
    bar.ax.tick_params(labelsize=FONT_POINTS - 2)


def plot_clip(sound: Sound, chosen: Sequence[Chosen], stem: Path) -> list[Path]:
    """Write `stem.png`, `stem.svg` and the vectors as `stem.csv`; returns these three."""
    data = make_clip_data(sound, chosen)
    return [*save_figure(draw_clip(data), stem), save_table(data.table(), stem)]
