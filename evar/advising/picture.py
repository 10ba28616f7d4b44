"""The picture of advice: score with its interval against cost, the front of the best, and those that fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar.advising.tables import describe_places
from evar.config.plain_text import make_printable
from evar.figures.style import COLOURS, COLUMN_INCHES, FONT_POINTS, PAGE_INCHES, make_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from evar.advising.one_task import TaskAdvice

_CHOICE, _FITS, _LEFT_OUT, _FRONT = COLOURS[1], COLOURS[0], "0.6", COLOURS[2]
#: most panels of a picture
_MOST = 6


@dataclass(frozen=True)
class _Dot:
    name: str
    cost: float
    score: float
    interval: tuple[float, float] | None
    colour: str
    is_on_front: bool


def plot_advice(tasks: Sequence[TaskAdvice], stem: Path) -> list[Path]:
    """Draw `advice.png` and `advice.svg`: one panel a task.

    Args:
        tasks: advice on each.
        stem: path without its ending.

    Returns:
        The files written; none if no cost was measured.
    """
    panels = [(one, dots) for one in tasks if len(dots := _list_dots(one)) > 1][:_MOST]
    if not panels:
        return []
    n_columns = 1 if len(panels) == 1 else 2 if len(panels) in (2, 4) else 3
    n_rows = -(-len(panels) // n_columns)
    where = describe_places([one.facts for advice, _ in panels for one in (*advice.fitting, *advice.left_out)])
    caption = (
        f"Seconds of encoding for a second of audio on {where}, without decoding. Orange: chosen on validation clips; blue: "
        "fits; grey: does not fit. Bars: 95 % intervals over test clips. Line: no other that fits is as good and as cheap."
    )
    width = COLUMN_INCHES * 1.5 if n_columns == 1 else PAGE_INCHES
    figure = make_figure(width, 2.6 * n_rows + 0.3, caption)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (advice, dots) in zip(axes.flat, panels, strict=False):
        _draw_panel(ax, advice, dots)
    return save_figure(figure, stem)


def _list_dots(advice: TaskAdvice) -> list[_Dot]:
    found = []
    for one in (*advice.fitting, *advice.left_out):
        cost = one.facts.seconds_per_second
        if one.feature is None or cost is None or cost <= 0 or one.facts.hindrance:
            continue
        colour = _LEFT_OUT if one.misfits else _CHOICE if one is advice.choice else _FITS
        found.append(_Dot(one.facts.encoder, cost, one.feature.score, one.feature.interval, colour, one.is_on_front))
    return found


def _draw_panel(ax: Axes, advice: TaskAdvice, dots: Sequence[_Dot]) -> None:
    from evar.metrics.named import get_display_name

    front = sorted((dot.cost, 100 * dot.score) for dot in dots if dot.is_on_front)
    if len(front) > 1:
        ax.plot(*zip(*front, strict=True), color=_FRONT, linewidth=1.0, zorder=1)
    for dot in sorted(dots, key=lambda dot: dot.score):
        score = 100 * dot.score
        below = any(
            dot.score < other.score < dot.score + 0.08 and abs(math.log(other.cost / dot.cost)) < 0.7 for other in dots
        )
        if dot.interval is not None:
            low, high = 100 * dot.interval[0], 100 * dot.interval[1]
            ax.plot([dot.cost, dot.cost], [low, high], color=dot.colour, linewidth=1.0, zorder=2)
        ax.plot([dot.cost], [score], marker="o", color=dot.colour, markersize=5, linestyle="none", zorder=3)
        ax.annotate(
            make_printable(dot.name, one_line=True),
            (dot.cost, score),
            xytext=(4, -9 if below else 3),
            textcoords="offset points",
            fontsize=FONT_POINTS - 1.5,
            color=dot.colour if dot.colour != _LEFT_OUT else "0.4",
        )
    limit = advice.wishes.max_seconds_per_second
    if limit is not None:
        ax.axvline(limit, color="0.35", linestyle="--", linewidth=0.8)
    if advice.chance is not None:
        ax.axhline(100 * advice.chance, color="0.35", linestyle=":", linewidth=0.8)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = ax.get_xlim()
    ax.set_xlim(low / 1.3, high * (high / low) ** 0.25)  # room for the names
    ax.set_title(make_printable(advice.task, one_line=True), fontsize=FONT_POINTS + 1)
    ax.set_xlabel("seconds for a second of audio", fontsize=FONT_POINTS)
    ax.set_ylabel(f"{get_display_name(advice.metric)} (%)", fontsize=FONT_POINTS)
    ax.tick_params(labelsize=FONT_POINTS - 1)
    ax.grid(True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
