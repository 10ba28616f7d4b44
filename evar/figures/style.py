"""The shared style of all figures: colours, sizes, and functions that make, caption and save a figure."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evar.config.plain_text import make_printable
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

# Eight colours that stay distinct with colour-blind eyes, the faint yellow last.
# Source: Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p")
COLUMN_INCHES, PAGE_INCHES = 3.5, 7.2  # a column and a page of a two-column paper
FONT_POINTS = 8

_CAPTION_POINTS = FONT_POINTS - 1.5
_LINE_INCHES = 1.3 * _CAPTION_POINTS / 72
_CAPTION_MARGIN = 0.04  # inches


def make_figure(width: float, height: float, caption: str = "", title: str = "", legend_inches: float = 0.0) -> Figure:
    """Make an empty figure for PNG and SVG; no window system and no global state is touched.

    Args:
        width, height: of the drawing with title and legend, in inches.
        caption: small print below, wrapped to the width; its lines are added to the height.
        title: above everything.
        legend_inches: room between the panels and the caption, for `draw_legend_below`; part of the height.

    Returns:
        A figure whose layout leaves room for the caption.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from evar.figures.plain_figure import PlainFigure

    lines = _wrap_caption(caption, width)
    below = _measure_caption(caption, width)
    figure = PlainFigure(figsize=(width, height + below), layout="constrained")
    FigureCanvasAgg(figure)
    share = (below + legend_inches) / (height + below)
    figure.get_layout_engine().set(rect=(0.0, share, 1.0, 1.0 - share))  # type: ignore[union-attr, call-arg]
    if lines:
        figure.text(
            _CAPTION_MARGIN / width,
            _CAPTION_MARGIN / (height + below),
            "\n".join(lines),
            fontsize=_CAPTION_POINTS,
            color="0.3",
            va="bottom",
            linespacing=1.15,
        )
    if title:
        figure.suptitle(title, fontsize=FONT_POINTS + 1)
    return figure


def _wrap_caption(caption: str, width: float) -> list[str]:
    """Lines as wide as the figure allows, measured in its font: letters differ too much to be counted."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=_CAPTION_POINTS)

    def points(text: str) -> float:
        return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])

    room, space = 72 * (width - 3 * _CAPTION_MARGIN), points("x x") - points("xx")
    lines: list[str] = []
    for paragraph in make_printable(caption).splitlines():
        used = room  # every paragraph begins a line
        for word in paragraph.split():
            used += space + points(word)
            if used > room:
                lines.append(word)
                used = points(word)
            else:
                lines[-1] += f" {word}"
    return lines


def _measure_caption(caption: str, width: float) -> float:
    n_lines = len(_wrap_caption(caption, width))
    return _LINE_INCHES * n_lines + 2 * _CAPTION_MARGIN if n_lines else 0.0


def draw_legend_below(
    figure: Figure,
    handles: Sequence[Artist],
    labels: Sequence[str],
    n_columns: int,
    caption: str = "",
    marker_scale: float = 1.6,
) -> None:
    """Draw a legend in the room that `make_figure` left above the caption."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, _measure_caption(caption, width) / height),
        ncols=n_columns,
        fontsize=FONT_POINTS - 1,
        frameon=False,
        borderaxespad=0.2,
        handletextpad=0.2,
        columnspacing=1.0,
        labelspacing=0.3,
        markerscale=marker_scale,
    )


def format_number(value: float, digits: int = 3) -> str:
    """Write a number with a fixed number of digits and, as matplotlib writes it on the axes, a true minus sign.

    Example:
        >>> format_number(-0.12345, 2)
        '−0.12'
    """
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def count_legend_columns(labels: Sequence[str], width: float) -> int:
    """Columns of a legend below a figure of that width in inches, so that its longest label fits.

    Example:
        >>> count_legend_columns(["dog", "rooster"], 3.5), count_legend_columns(["a very long label of a class"] * 9, 3.5)
        (2, 1)
    """
    longest = max(map(len, labels), default=0)
    return max(1, min(len(labels), math.floor(width / (0.055 * longest + 0.45))))


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem.png` (200 dpi) and `stem.svg`; the same figure gives the same bytes each time.

    Args:
        figure: as `make_figure` made it; it keeps the places that it is saved with.
        stem: path without its ending; a dot in the name is kept.

    Returns:
        The two files.
    """
    paths = []
    for suffix, data in zip((".png", ".svg"), _render(figure), strict=True):
        path = stem.with_name(stem.name + suffix)
        write_atomic(path, data)
        paths.append(path)
    return paths


def _render(figure: Figure) -> tuple[bytes, bytes]:
    """Return the contents of the two files of `save_figure`."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.set_dpi(200)
    # Places are found once, for both files; `savefig` would find them twice for each.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    png, svg = io.BytesIO(), io.BytesIO()
    # The salt makes the names inside the file, and so the file, the same each time; it is put back at once.
    with matplotlib.rc_context({"svg.hashsalt": "evar"}):
        FigureCanvasAgg(figure).print_png(png)
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return png.getvalue(), svg.getvalue()
