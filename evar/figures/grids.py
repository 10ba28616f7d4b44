"""Grids of coloured cells with a number in each, placed by inches: a cell has one size in every panel of a figure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evar.config.plain_text import make_printable
from evar.figures.style import COLUMN_INCHES, FONT_POINTS, PAGE_INCHES, make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR_MAP = "cividis"  # reads the same with colour-blind eyes, and dark to light in grey
TITLE_POINTS, LABEL_POINTS, SMALL_POINTS = FONT_POINTS + 1, FONT_POINTS - 1, FONT_POINTS - 1.5
FOOT_INCHES = 0.4  # below the grids: the colour bar, and a legend beside it
_MARGIN = 0.08
_SLANT, _UPRIGHT = 40.0, 90.0  # degrees, of the names below; upright where cells are too narrow for slanted ones
_NARROW = 0.2


@dataclass(frozen=True)
class Box:
    """One panel: its drawing, and the room that it takes, in inches.

    Attributes:
        title, subtitle: above the cells; the subtitle may be empty.
        rows, columns: names left of the cells, from the top, and below them.
        cell_width, cell_height: of one cell.
        rotation: of the names of the columns, in degrees.
        left, right, above, below: what stands around the cells.
    """

    title: str
    subtitle: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cell_width: float
    cell_height: float
    rotation: float
    left: float
    right: float
    above: float
    below: float

    @property
    def width(self) -> float:
        """Of everything."""
        return self.left + self.cell_width * len(self.columns) + self.right

    @property
    def height(self) -> float:
        """Of everything."""
        return self.above + self.cell_height * len(self.rows) + self.below


def measure_text(text: str, points: float, *, bold: bool = False) -> float:
    """Measure the width of a line of text in the figures' font, without drawing it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    from evar.figures.plain_figure import read_texts_plainly

    if not text.strip():
        return 0.0
    font = FontProperties(weight="bold" if bold else "normal", size=points)
    with read_texts_plainly():
        path = TextPath((0, 0), make_printable(text), prop=font, usetex=False)
    return float(path.get_extents().width) / 72


def make_box(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cell_width: float,
    cell_height: float,
    *,
    subtitle: str = "",
    mark_inches: float = 0.0,
) -> Box:
    """Measure what stands around a grid of cells.

    Args:
        title, subtitle: above the cells.
        rows, columns: names left of the cells, from the top, and below them.
        cell_width, cell_height: in inches.
        mark_inches: room between the names of the rows and the cells.
    """
    rows = [make_printable(name, one_line=True) for name in rows]
    columns = [make_printable(name, one_line=True) for name in columns]
    rotation = _UPRIGHT if cell_width < _NARROW else _SLANT
    slant = math.radians(rotation)
    below = [measure_text(name, LABEL_POINTS) for name in columns]
    leaning = max(length * math.cos(slant) - (i + 0.5) * cell_width for i, length in enumerate(below))
    left = max(max(measure_text(name, LABEL_POINTS, bold=True) for name in rows) + mark_inches + 0.06, leaning)
    heading = max(measure_text(title, TITLE_POINTS), measure_text(subtitle, SMALL_POINTS))
    return Box(
        title,
        subtitle,
        tuple(rows),
        tuple(columns),
        cell_width,
        cell_height,
        rotation,
        left,
        max(0.0, heading - cell_width * len(columns)),
        0.24 + (0.13 if subtitle else 0.0),
        max(below) * math.sin(slant) + 0.2,
    )


def place_boxes(boxes: Sequence[Box], caption: str = "") -> tuple[Figure, list[Axes], float]:
    """Make a figure with an empty grid for each box, side by side as far as the page is wide, with room for a foot.

    Args:
        boxes: in reading order.
        caption: small print below all.

    Returns:
        The figure, the axes of each box, and the height of the caption, above which the foot begins, in inches.
    """
    rows: list[list[Box]] = []
    for one in boxes:
        used = sum(other.width + 2 * _MARGIN for other in rows[-1]) if rows else math.inf
        if used + one.width + 2 * _MARGIN > PAGE_INCHES:
            rows.append([])
        rows[-1].append(one)
    width = max(COLUMN_INCHES, *(sum(one.width + 2 * _MARGIN for one in row) for row in rows))
    grids = sum(max(one.height for one in row) for row in rows) + _MARGIN
    figure = make_figure(width, grids + FOOT_INCHES, caption)
    figure.set_layout_engine("none")  # everything has its place already
    height = figure.get_figheight()
    axes, top = [], height - _MARGIN
    for row in rows:
        x = _MARGIN
        for one in row:
            size = one.cell_width * len(one.columns), one.cell_height * len(one.rows)
            corner = x + one.left, top - one.above - size[1]
            ax = figure.add_axes((corner[0] / width, corner[1] / height, size[0] / width, size[1] / height))
            _name_rows_and_columns(ax, one)
            axes.append(ax)
            x += one.width + 2 * _MARGIN
        top -= max(one.height for one in row)
    return figure, axes, height - grids - FOOT_INCHES


def _name_rows_and_columns(ax: Axes, one: Box) -> None:
    ax.set_yticks(range(len(one.rows)), one.rows)
    ax.set_xticks(range(len(one.columns)), one.columns, rotation=one.rotation, ha="right", rotation_mode="anchor")
    if one.rotation == _UPRIGHT:
        for name in ax.get_xticklabels():
            name.set_verticalalignment("center")
    ax.tick_params(length=0, labelsize=LABEL_POINTS, pad=3)
    ax.spines[:].set_visible(False)
    ax.set_title(one.title, fontsize=TITLE_POINTS, loc="left", pad=16 if one.subtitle else 5)
    if one.subtitle:
        ax.annotate(
            one.subtitle,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=SMALL_POINTS,
            color="0.3",
        )


def fill_cells(
    ax: Axes,
    shades: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    bold: Collection[tuple[int, int]] = (),
    points: float = SMALL_POINTS,
) -> None:
    """Colour the cells and write into them.

    Args:
        ax: as `place_boxes` gave it.
        shades: [row][column] 0 (dark) to 1 (light), None for a cell without colour.
        texts: [row][column], may be empty.
        bold: (row, column) of cells whose text is bold.
        points: size of the texts.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    colours = colormaps[COLOUR_MAP]
    values = np.array([[np.nan if shade is None else shade for shade in line] for line in shades])  # (rows, columns)
    ax.imshow(values, cmap=colours, norm=Normalize(0, 1), aspect="auto", interpolation="nearest")
    ax.set_facecolor("0.93")  # seen if there is no colour
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            shade = shades[row][column]
            red, green, blue, _ = colours(1.0 if shade is None else shade)
            is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5  # brightness, ITU-R BT.601
            weight = "bold" if (row, column) in bold else "normal"
            colour = "white" if is_dark else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize=points, fontweight=weight, color=colour)


def draw_colour_bar(figure: Figure, label: str, ends: tuple[str, str], foot: float) -> Axes:
    """Draw a bar from dark to light at the right of the foot, with what its ends mean.

    Args:
        figure, foot: as `place_boxes` gave them.
        label: above the bar.
        ends: left and right of it.
    """
    import numpy as np

    width, height = figure.get_size_inches()
    length, right = 0.9, measure_text(ends[1], LABEL_POINTS) + 0.16
    ax = figure.add_axes(((width - right - length) / width, (foot + 0.1) / height, length / width, 0.09 / height))
    ax.imshow(np.linspace(0, 1, 256)[None], cmap=COLOUR_MAP, aspect="auto", interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_linewidth(0.4)
    for text, x, side in ((ends[0], -0.05, "right"), (ends[1], 1.05, "left")):
        ax.text(x, 0.45, text, transform=ax.transAxes, ha=side, va="center", fontsize=LABEL_POINTS)
    ax.set_title(label, fontsize=LABEL_POINTS, pad=3)
    return ax
