"""Layers: curves and heat maps of single layers, where to read an encoder, hints without labels, and fusion searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evar.report.fusion import FusionTable, Line, make_fusion_tables
from evar.report.hints import HINTS, make_hint_tables
from evar.report.tables.choices import Chosen, Difference
from evar.report.tables.layout import format_percent
from evar.report.tables.section import Column, Section
from evar.report.where import Reading, format_gain
from evar.results import Result
from evar.webpage.context import Context, name_row, plain_interval, round_number, to_percent
from evar.webpage.page import Part


def make_layers(context: Context, readings: Sequence[Reading] = ()) -> Part | None:
    """Make the part; None if no encoder has two single layers, and there is no search and no hint.

    Args:
        context: the results folder.
        readings: the layers that validation clips choose.
    """
    panels = [
        panel
        for section in context.layer_sections
        for index, column in enumerate(section.columns)
        if (panel := _make_panel(section, index, column))
    ]
    hints = _list_hints(context)
    fusions = [_describe_fusion(table) for table in _find_fusions(context)]
    weights = _list_weights(context.results)
    if not (panels or hints or fusions or weights):
        return None
    shown = {
        "n_panels": len(panels),
        "readings": [_describe_reading(one) for one in readings],
        "has_hints": bool(hints),
        "hint_notes": [f"{heading}: {meaning}." for heading, _, meaning in HINTS.values()],
        "fusions": fusions,
        "weights": weights,
    }
    return Part("layers", "Layers", shown, {"panels": panels, "hints": hints})


def _make_panel(section: Section, index: int, column: Column) -> dict[str, Any] | None:
    """Collect the curves of one task; None if no encoder has two layers with a score."""
    curves: dict[str, list[list[Any]]] = {}
    for row in section.rows:
        cell = row.cells[index]
        if cell is None or cell.score is None or row.depth is None:
            continue
        is_default = bool(row.first is not None and row.first.default)
        point = [row.layers, round(row.depth, 4), to_percent(cell.score), *plain_interval(cell.interval)]
        curves.setdefault(name_row(row, with_layers=False), []).append(
            [*point, int(is_default), max((result.n_test for result in cell.results), default=0)]
        )
    if not any(len(points) > 1 for points in curves.values()):
        return None
    return {
        "title": f"{column.label}, {section.title.split(' (limit')[0]}",
        "metric": _name_metric(section, index),
        "chance": to_percent(column.chance),
        "curves": [{"name": name, "points": points} for name, points in sorted(curves.items())],
    }


def _name_metric(section: Section, index: int) -> str:
    from evar.metrics.named import get_display_name

    found = (row.cells[index] for row in section.rows)
    return next((get_display_name(cell.results[0].metric) for cell in found if cell and cell.results), "score")


def _describe_reading(one: Reading) -> dict[str, Any]:
    gain = one.gain
    return {
        "encoder": one.encoder + (" (random weights)" if one.is_random else ""),
        "task": one.task if one.limit is None else f"{one.task} (limit {one.limit})",
        "protocol": one.protocol,
        "best": one.best.label,
        "best_score": format_percent(one.best.score, one.best.interval),
        "best_sort": one.best.score,
        "default": one.default.label,
        "default_score": format_percent(one.default.score, one.default.interval),
        "default_sort": one.default.score,
        "gain": format_gain(gain, one.p_value),
        "gain_sort": -9.0 if gain is None else gain.score,
        "tip": "not tested on the same clips" if one.p_value is None else f"p {one.p_value:.4f}, corrected by Holm",
    }


def _list_hints(context: Context) -> list[dict[str, Any]]:
    """List the label-free hints of each encoder on each task beside the scores of its layers."""
    found, _ = make_hint_tables(context.hints, context.results) if context.hints else ([], 0)
    return [
        {
            "name": f"{one.label} on {one.task}" + (f", {one.protocol}" if one.protocol else ""),
            "columns": [heading for heading, _, _ in HINTS.values()],
            "correlations": [round_number(one.correlation(hint)[0]) for hint in HINTS],
            "lines": [
                [
                    line.layer + (" (default)" if line.is_default else ""),
                    line.width,
                    to_percent(line.score),
                    *(round_number(line.numbers[hint]) for hint in HINTS),
                ]
                for line in one.lines
            ],
        }
        for one in found
    ]


def _find_fusions(context: Context) -> list[FusionTable]:
    return make_fusion_tables(context.searches, context.results, context.out) if context.searches else []


def _describe_fusion(table: FusionTable) -> dict[str, Any]:
    return {
        "title": table.title,
        "tasks": list(table.tasks),
        "lines": [_describe_line(line, table.tasks) for line in table.lines],
        "notes": list(table.notes),
    }


def _describe_line(line: Line, tasks: Sequence[str]) -> dict[str, Any]:
    average = line.average
    shown = "-" if average is None else f"{100 * average:+.1f}" if line.minus else format_percent(average)
    cells = [_format_fused(line.cells[task], (line.p_values or {}).get(task)) for task in tasks]
    return {
        "encoder": line.encoder,
        "feature": line.feature,
        "is_difference": bool(line.minus),
        "cells": cells,
        "average": shown,
    }


def _format_fused(cell: Chosen | Difference | None, p_value: float | None) -> dict[str, str]:
    """Format a score or a difference, and what hovering over it tells."""
    if cell is None:
        return {"text": "-", "tip": "not run"}
    low, high = 100 * cell.interval[0], 100 * cell.interval[1]
    if isinstance(cell, Difference):
        star = "*" if p_value is not None and p_value < 0.05 else ""
        p = "" if p_value is None else f"; p {p_value:.4f}, corrected by Holm over the tasks"
        return {"text": f"{100 * cell.score:+.1f}{star}", "tip": f"95 % interval {low:+.1f} to {high:+.1f} points{p}"}
    tip = f"{cell.label}; 95 % interval {low:.1f} to {high:.1f} %"
    return {"text": format_percent(cell.score, cell.interval), "tip": tip}


def _list_weights(results: Sequence[Result]) -> list[dict[str, Any]]:
    """List the weights that learned sums of layers gave to their layers, mean over rounds, in percent."""
    found = []
    for result in results:
        weights = result.params.get("layer_weights")
        if not weights:
            continue
        means = [sum(column) / len(column) for column in zip(*weights, strict=True)]
        layers = [
            {"layer": layer, "percent": f"{100 * mean:.1f}"} for layer, mean in zip(result.layers, means, strict=True)
        ]
        found.append({"name": f"{result.encoder} on {result.task}, {result.protocol}", "layers": layers})
    return found
