"""Scores against the number of labels, and ranks under several protocols: pictures, tables and sentences."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from evar.report.label_curves import CurveTask, find_curves
from evar.report.label_sentences import describe_task
from evar.report.label_tables import NOTES
from evar.report.plots.label_curves import draw_label_curves
from evar.report.plots.protocol_ranks import draw_protocol_ranks
from evar.report.protocol_ranks import describe_task as describe_ranks
from evar.report.protocol_ranks import find_ranks
from evar.report.tables.layout import format_percent
from evar.webpage.context import Context
from evar.webpage.page import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_labels(context: Context) -> Part | None:
    """Make the part on label-efficiency curves; None if there is none.

    Args:
        context: the results folder.
    """
    tasks = find_curves(context.results, context.out)
    if not tasks:
        return None
    return Part("labels", "Labels", {"tasks": [_describe_curves(task) for task in tasks], "notes": list(NOTES)})


def _describe_curves(task: CurveTask) -> dict[str, Any]:
    lines = []
    for curve in task.curves:
        cells = []
        for n in task.numbers:
            point = curve.find(n)
            if point is None:
                cells.append({"text": "-", "tip": "no such point"})
                continue
            low, high = 100 * point.one_draw[0], 100 * point.one_draw[1]
            draws = f"{point.n_draws} draws" if point.n_draws > 1 else "one draw"
            tip = f"{draws} of {point.n_per_class:.1f} clips per class; a single draw: {low:.1f} to {high:.1f} %"
            cells.append({"text": format_percent(point.score, point.interval), "tip": tip})
        lines.append({"encoder": curve.name, "layers": curve.layers, "cells": cells})
    return {
        "title": task.title,
        "columns": [f"n = {n}" if n else "all" for n in task.numbers],
        "lines": lines,
        "sentences": describe_task(task),
        "image": encode_figure(draw_label_curves(task)),
    }


def make_protocols(context: Context) -> Part | None:
    """Make the part on ranks under several protocols; None if no two can be compared.

    Args:
        context: the results folder.
    """
    tasks = find_ranks(context.results, context.out)
    if not tasks:
        return None
    described = [
        {
            "title": task.title,
            "sentences": describe_ranks(task),
            "pairs": [
                {
                    "first": one.first,
                    "second": one.second,
                    "tau": "-" if one.tau is None else f"{one.tau:+.2f}",
                    "interval": "-" if one.interval is None else f"{one.interval[0]:+.2f} to {one.interval[1]:+.2f}",
                }
                for one in task.correlations
            ],
        }
        for task in tasks
    ]
    return Part("protocols", "Protocols", {"tasks": described, "image": encode_figure(draw_protocol_ranks(tasks))})


def encode_figure(figure: Figure) -> str:
    """Return a figure as the address of a picture that the page itself holds.

    Args:
        figure: of matplotlib, with a canvas.

    Example:
        >>> from evar.figures.style import make_figure
        >>> encode_figure(make_figure(1, 1))[:22]
        'data:image/png;base64,'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    figure.set_dpi(150)
    FigureCanvasAgg(figure).print_png(buffer)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
