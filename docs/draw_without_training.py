"""Draw the picture of docs/without_training.md from a results folder: mAP and equal error rate against depth.

python docs/draw_without_training.py RESULTS docs/images/without_training
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from evar.figures.style import COLOURS, FONT_POINTS, MARKERS, PAGE_INCHES, draw_legend_below, make_figure, save_figure
from evar.results import Result, load_all

#: protocol, metric, and how it is called
PANELS = (("sound_retrieval", "sound_retrieval_map", "mAP (%)"), ("pairs", "pair_eer", "equal error rate (%)"))


def find_value(row: Result, metric: str) -> tuple[float, float, float]:
    """Value of a metric of a row with its interval, in percent."""
    if row.metric == metric:
        assert row.interval is not None
        return 100 * row.score, 100 * row.interval[0], 100 * row.interval[1]
    low, high = row.extra_intervals[metric]
    return 100 * row.extras[metric], 100 * low, 100 * high


def draw_lines(axis: Any, rows: list[Result], metric: str, encoders: list[str]) -> list[Any]:
    """Draw a line for each encoder; one with a single layer is a point at its depth."""
    lines = []
    for number, encoder in enumerate(encoders):
        own = sorted((row for row in rows if row.encoder == encoder and row.depth), key=lambda row: row.depth or 0)
        depth = [row.depth for row in own]
        value, low, high = zip(*(find_value(row, metric) for row in own), strict=True)
        colour, marker = COLOURS[number], MARKERS[number]
        (line,) = axis.plot(depth, value, color=colour, marker=marker, markersize=3.5, linewidth=1, label=encoder)
        axis.vlines(depth, low, high, color=colour, linewidth=0.8, alpha=0.6)
        lines.append(line)
    return lines


def main(out: Path, stem: Path) -> None:
    """Draw and save the picture."""
    rows = load_all(out)
    tasks = sorted({row.task for row in rows})
    encoders = sorted({row.encoder for row in rows})
    caption = (
        "Lines: 95 % intervals, bootstrap over groups of test clips. Depth 1 is the last layer. Nothing is trained."
    )
    figure = make_figure(PAGE_INCHES, 4.2, caption, legend_inches=0.25)
    axes = figure.subplots(2, len(tasks), squeeze=False, sharex=True)
    lines: list[Any] = []
    for line, (protocol, metric, label) in zip(axes, PANELS, strict=True):
        for axis, task in zip(line, tasks, strict=True):
            chance = next(row.chance for row in rows if (row.protocol, row.task) == (protocol, task))
            if metric == "sound_retrieval_map" and chance is not None:
                axis.axhline(100 * chance, color="0.6", linewidth=0.8, linestyle=":")
            lines = draw_lines(
                axis, [row for row in rows if (row.protocol, row.task) == (protocol, task)], metric, encoders
            )
            axis.set_title(f"{task}: {label}", fontsize=FONT_POINTS)
            axis.tick_params(labelsize=FONT_POINTS - 1)
    for axis in axes[-1]:
        axis.set_xlabel("relative depth of the layer", fontsize=FONT_POINTS)
    draw_legend_below(figure, lines, encoders, len(encoders), caption)
    for path in save_figure(figure, stem):
        print(f"written: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
