"""Figures of robustness: layers against alterations as a heat map, and scores against the severity as curves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evar.figures.grids import LABEL_POINTS, draw_colour_bar, fill_cells, make_box, place_boxes
from evar.figures.style import COLOURS, FONT_POINTS, PAGE_INCHES, make_figure, save_figure
from evar.report.tables.altered import AlteredRow, RobustnessSection, format_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FRAME_COLOUR = COLOURS[1]
_CELL_WIDTH, _CELL_HEIGHT = 0.4, 0.2  # inches
#: points of percent that are drawn darkest
_DARKEST = 40.0
#: more layers than these share a colour bar in place of a legend
_MOST_NAMED = 14
_MINUS = "\N{MINUS SIGN}"


def plot_robustness(sections: Sequence[RobustnessSection], out: Path) -> list[Path]:
    """Draw `robustness_TASK.png` and `.svg`, and `robustness_TASK_ENCODER.png` and `.svg` where there are severities.

    Args:
        sections: as `evar.report.tables.altered.make_robustness_sections` gives them.
        out: results folder.

    Returns:
        The files written.
    """
    written: list[Path] = []
    used: set[str] = set()
    for section in sections:
        stem = _make_stem("robustness", section.task, used)
        written += save_figure(draw_losses(section), out / stem)
        for encoder, rows in section.encoders.items():
            if any(len(own) > 1 for row in rows for own in row.single.values()):
                written += save_figure(draw_severities(section, encoder), out / _make_stem(stem, encoder, used))
    return written


def _make_stem(start: str, name: str, used: set[str]) -> str:
    """Name a file that no other figure has."""
    stem = f"{start}_{re.sub(r'[^A-Za-z0-9.-]+', '_', name).strip('_')[:60]}"
    number = 2
    while stem in used:
        stem, number = f"{stem.removesuffix(f'_{number - 1}')}_{number}", number + 1
    used.add(stem)
    return stem


def draw_losses(section: RobustnessSection) -> Figure:
    """Draw layers down, alterations across: the change of the score in each cell, one panel an encoder.

    Args:
        section: one task.
    """
    from matplotlib.patches import Patch, Rectangle

    caption = (
        f"{section.title}: change of the score in points of percent when test clips are altered, mean over severities; "
        "first column: score of the clean clips. Probes were fitted on clean clips."
    )
    columns = ["clean", *section.alterations.values()]
    boxes = [
        make_box(encoder, [row.layers for row in rows], columns, _CELL_WIDTH, _CELL_HEIGHT)
        for encoder, rows in section.encoders.items()
    ]
    figure, axes, foot = place_boxes(boxes, caption)
    for ax, rows in zip(axes, section.encoders.values(), strict=True):
        texts = [
            [f"{100 * row.first.clean_score:.1f}", *(_write_change(row, name) for name in section.alterations)]
            for row in rows
        ]
        shades = [[None, *(_shade(row, name) for name in section.alterations)] for row in rows]
        best = _find_best(rows, list(section.alterations)) if len(rows) > 1 else set()
        fill_cells(ax, shades, texts, best)
        for row, column in sorted(best):
            ax.add_patch(
                Rectangle((column - 0.46, row - 0.43), 0.92, 0.86, fill=False, edgecolor=_FRAME_COLOUR, linewidth=1.5)
            )
    draw_colour_bar(figure, "change in points", (f"{_MINUS}{_DARKEST:.0f}", "0"), foot)
    figure.legend(
        [Patch(facecolor="none", edgecolor=_FRAME_COLOUR, linewidth=1.5)],
        ["best score of the column"],
        loc="lower left",
        bbox_to_anchor=(0.0, foot / figure.get_figheight()),
        fontsize=LABEL_POINTS,
        frameon=False,
        borderaxespad=0.3,
        handlelength=1.5,
    )
    return figure


def _write_change(row: AlteredRow, name: str) -> str:
    if name not in row.means:
        return "-"
    return format_points(-row.means[name].loss)


def _shade(row: AlteredRow, name: str) -> float | None:
    if name not in row.means:
        return None
    return min(1.0, max(0.0, 1.0 - 100 * row.means[name].loss / _DARKEST))


def _find_best(rows: Sequence[AlteredRow], names: Sequence[str]) -> set[tuple[int, int]]:
    """Find (row, column) of the best score in each column; all where several are equal, the clean column among them."""
    from evar.metrics import METRICS

    orient = METRICS[rows[0].first.metric].orient
    found = set()
    scores = [[row.first.clean_score, *(row.means[n].score if n in row.means else None for n in names)] for row in rows]
    for column in range(1 + len(names)):
        known = {at: orient(line[column]) for at, line in enumerate(scores) if line[column] is not None}
        found |= {(at, column) for at, value in known.items() if value == max(known.values())}
    return found


def draw_severities(section: RobustnessSection, encoder: str) -> Figure:
    """Draw the score of every layer of an encoder against the severity, one panel an alteration.

    Args:
        section: one task.
        encoder: label.
    """
    rows = section.encoders[encoder]
    names = [name for name in section.alterations if any(len(row.single.get(name, ())) > 1 for row in rows)]
    n_columns = min(4, len(names))
    n_lines = -(-len(names) // n_columns)
    caption = (
        f"{encoder} on {section.title}: score in percent against the severity, a line a layer, from shallow (dark) to deep "
        "(light). Dotted: chance."
    )
    figure = make_figure(PAGE_INCHES, 0.35 + 1.55 * n_lines, caption, encoder)
    grid = figure.subplots(n_lines, n_columns + 1, squeeze=False, sharey=True, width_ratios=[*[1.0] * n_columns, 0.35])
    colours = _pick_colours(len(rows))
    for place in range(n_lines * n_columns):
        ax = grid[place // n_columns, place % n_columns]
        if place >= len(names):
            ax.set_axis_off()
            continue
        _draw_panel(ax, section, names[place], rows, colours)
        if place % n_columns == 0:
            ax.set_ylabel("score (%)", fontsize=FONT_POINTS - 1)
    for line in range(n_lines):
        grid[line, -1].set_axis_off()
    handles, labels = grid[0, 0].get_legend_handles_labels()
    step = max(1, -(-len(labels) // _MOST_NAMED))
    grid[0, -1].legend(
        handles[::-step],
        labels[::-step],
        loc="upper left",
        bbox_to_anchor=(-0.3, 1.05),
        fontsize=FONT_POINTS - 2,
        frameon=False,
        handlelength=1.0,
        labelspacing=0.3,
    )
    return figure


def _pick_colours(n: int) -> list[tuple[float, float, float, float]]:
    """Pick colours, dark to light from shallow to deep; the faint yellow end of viridis is left out."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.88 * at / max(1, n - 1)) for at in range(n)]


def _draw_panel(
    ax: Axes,
    section: RobustnessSection,
    name: str,
    rows: Sequence[AlteredRow],
    colours: Sequence[tuple[float, float, float, float]],
) -> None:
    own = [(row, colour) for row, colour in zip(rows, colours, strict=True) if row.single.get(name)]
    values = _order_severities([one.severities[0] for one in own[0][0].single[name]])
    places = {value: at for at, value in enumerate(values)}  # equal steps: severities are chosen, not sampled
    for row, colour in own:
        scores: dict[float | None, float] = {one.severities[0]: one.score for one in row.single[name]}
        scores[None] = row.first.clean_score
        known = [value for value in values if value in scores]
        x, y = [places[value] for value in known], [100 * scores[value] for value in known]
        ax.plot(x, y, color=colour, linewidth=1.1, marker=".", markersize=3, label=row.layers)
    if rows[0].first.chance is not None:
        ax.axhline(100 * rows[0].first.chance, color="0.4", linewidth=0.8, linestyle=":")
    ax.set_title(section.alterations[name], fontsize=FONT_POINTS)
    ax.set_xlabel(own[0][0].single[name][0].unit, fontsize=FONT_POINTS - 1.5)
    names = ["clean" if value is None else f"{value:g}".replace("-", _MINUS) for value in values]
    ax.set_xticks(range(len(values)), names)
    ax.tick_params(labelsize=FONT_POINTS - 1.5)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _order_severities(values: Sequence[float]) -> list[float | None]:
    """Put None, for clean clips, before the severities, or where 0 lies among them.

    Example:
        >>> _order_severities([30.0, 20.0]), _order_severities([10.0, -10.0])
        ([None, 30.0, 20.0], [-10.0, None, 10.0])
    """
    if min(values) < 0 < max(values):
        below, above = ([one for one in sorted(values) if (one < 0) == side] for side in (True, False))
        return [*below, None, *above]
    return [None, *values]
