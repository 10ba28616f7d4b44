"""The plot of ranks under several protocols: one panel a task, a line for each encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evar.figures.style import COLOURS, FONT_POINTS, MARKERS, PAGE_INCHES, make_figure, save_figure
from evar.report.protocol_ranks import RankTask, describe_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: panels at most: the mean over tasks, and the first tasks
_MOST_PANELS = 6


def plot_protocol_ranks(tasks: Sequence[RankTask], out: Path) -> list[Path]:
    """Write `protocol_ranks.png` and `protocol_ranks.svg`.

    Args:
        tasks: as `evar.report.protocol_ranks.find_ranks` returns them.
        out: results folder.

    Returns:
        The files written; none if no two protocols can be compared.
    """
    return save_figure(draw_protocol_ranks(tasks), Path(out) / "protocol_ranks") if tasks else []


def draw_protocol_ranks(tasks: Sequence[RankTask]) -> Figure:
    """Draw a panel for each task, of many tasks the last ones, the mean among them.

    Args:
        tasks: at least one.
    """
    shown = list(tasks[-_MOST_PANELS:])
    n_columns = min(2, len(shown))
    n_rows = -(-len(shown) // n_columns)
    encoders = list(dict.fromkeys(name for task in shown for name in task.encoders))
    caption = " ".join([*describe_task(shown[-1])[:2], "Rank 1 is the best."])
    height = sum(max(1.4, 0.5 + 0.28 * len(encoders)) for _ in range(n_rows)) + 0.4 * n_rows
    figure = make_figure(PAGE_INCHES if n_columns > 1 else 0.75 * PAGE_INCHES, height, caption)
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for index, ax in enumerate(axes.flat):
        if index < len(shown):
            _draw_panel(ax, shown[index], encoders)
        else:
            ax.set_axis_off()
    return figure


def _draw_panel(ax: Axes, task: RankTask, encoders: Sequence[str]) -> None:
    places = list(range(len(task.protocols)))
    for name in task.encoders:
        index = encoders.index(name)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        ranks = list(task.ranks[name])
        ax.plot(places, ranks, color=colour, marker=marker, markersize=4, linewidth=1.3)
        ax.annotate(
            name,
            (places[-1], ranks[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=FONT_POINTS - 1.5,
            color=colour,
        )
    ax.set_xticks(places)
    ax.set_xticklabels(task.protocols)
    ax.set_xlim(-0.2, len(places) - 1 + 0.12 * len(places) + 0.3)
    ax.set_yticks(range(1, len(task.encoders) + 1))
    ax.set_ylim(len(task.encoders) + 0.5, 0.5)
    ax.set_ylabel("rank", fontsize=FONT_POINTS)
    ax.set_title(task.title, fontsize=FONT_POINTS + 1)
    ax.tick_params(labelsize=FONT_POINTS - 1)
    ax.grid(True, axis="x", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
