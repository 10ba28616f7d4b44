"""Robustness: what alterations of the test clips cost each layer, where `evar robust` was run."""

from __future__ import annotations

from typing import Any

from evar.report.robustness import format_gain, format_loss, list_notes
from evar.report.tables.altered import (
    AlteredRow,
    RobustnessSection,
    Survivor,
    find_survivors,
    format_points,
    make_robustness_sections,
)
from evar.report.tables.layout import format_percent
from evar.results.robustness import RobustnessRecord, load_robustness
from evar.webpage.context import Context
from evar.webpage.page import Part

#: points of percent whose cell gets the full colour
_FULL = 40.0


def make_robustness(context: Context) -> Part | None:
    """Make the part; None if nothing was tested on altered clips.

    Args:
        context: the results folder.
    """
    sections = make_robustness_sections(load_robustness(context.out))
    if not sections:
        return None
    return Part("robustness", "Robustness", {"sections": [_describe_section(context, one) for one in sections]})


def _describe_section(context: Context, section: RobustnessSection) -> dict[str, Any]:
    survivors = find_survivors(section, context.out)
    lines = [
        _describe_survivor(section.alterations[name], encoder, name, of[name])
        for name in section.alterations
        for encoder, of in survivors.items()
        if name in of
    ]
    rows = [
        {
            "encoder": row.encoder,
            "layers": row.layers,
            "clean": format_percent(row.first.clean_score),
            "cells": [_describe_cell(row, name) for name in section.alterations],
        }
        for own in section.encoders.values()
        for row in own
    ]
    titles = list(section.alterations.values())
    return {"title": section.title, "titles": titles, "survivors": lines, "rows": rows, "notes": list_notes(section)}


def _describe_survivor(title: str, encoder: str, name: str, one: Survivor) -> dict[str, str]:
    record = one.best.means[name]
    return {
        "title": title,
        "encoder": encoder,
        "best": one.best.layers,
        "score": format_percent(record.score),
        "change": format_loss(record, one.best.p_holm[name]),
        "tip": _describe_loss(record, one.best.p_holm[name]),
        "chosen": "-" if one.chosen is None else one.chosen.layers,
        "chosen_score": "-" if one.chosen is None else format_percent(one.chosen.means[name].score),
        "gain": "" if one.gain is None else format_gain(one.gain, one.p_holm),
    }


def _describe_cell(row: AlteredRow, name: str) -> dict[str, Any]:
    record = row.means.get(name)
    if record is None:
        return {"text": "-", "tip": "not tested", "share": 0}
    share = min(100, max(0, round(100 * 100 * record.loss / _FULL)))
    return {
        "text": format_loss(record, row.p_holm[name]),
        "tip": _describe_loss(record, row.p_holm[name]),
        "share": share,
    }


def _describe_loss(record: RobustnessRecord, p_holm: float) -> str:
    low, high = (format_points(-end) for end in reversed(record.loss_interval))
    severities = ", ".join(f"{one:g}" for one in record.severities)
    return (
        f"{format_percent(record.score)} % in place of {format_percent(record.clean_score)} %; change [{low}, {high}]; "
        f"p {p_holm:.2g} ({record.test}, Holm); {record.unit}: {severities}; {record.n_test} clips"
    )
