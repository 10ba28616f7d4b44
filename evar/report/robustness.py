"""Robustness of a results folder: which layer survives which alteration, as text, Markdown, CSV, JSON and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from evar.config.plain_text import make_printable
from evar.report.plots.robustness import plot_robustness
from evar.report.tables.altered import (
    COLUMNS,
    LEVEL,
    RobustnessSection,
    find_survivors,
    format_points,
    list_lines,
    make_robustness_sections,
)
from evar.report.tables.csv_text import format_csv_table
from evar.report.tables.layout import escape_markdown, format_percent
from evar.report.tables.markdown import format_markdown_table
from evar.report.tables.terminal import format_text_table
from evar.results.robustness import RobustnessRecord, load_robustness
from evar.storage.atomic import write_atomic


def format_loss(record: RobustnessRecord, p_holm: float) -> str:
    """Write a loss in points of percent; a star if it is more than chance.

    Args:
        record: of one or several severities.
        p_holm: corrected p.
    """
    return format_points(-record.loss) + ("*" if p_holm < LEVEL else "")


def _lay_out_survivors(section: RobustnessSection, out: Path) -> tuple[list[str], list[list[str]]]:
    header = ["alteration", "encoder", "best layer", "score", "change", "layer by clean validation", "score", "gain"]
    body = []
    survivors = find_survivors(section, out)
    for name, title in section.alterations.items():
        for encoder, of in survivors.items():
            if name not in of:
                continue
            one = of[name]
            record = one.best.means[name]
            low, high = (format_points(-end) for end in reversed(record.loss_interval))
            change = f"{format_loss(record, one.best.p_holm[name])} [{low}, {high}]"
            chosen = (
                ("-", "-") if one.chosen is None else (one.chosen.layers, format_percent(one.chosen.means[name].score))
            )
            gain = "" if one.gain is None else format_gain(one.gain, one.p_holm)
            body.append([title, encoder, one.best.layers, format_percent(record.score), change, *chosen, gain])
    return header, body


def format_gain(gain: tuple[float, float, float], p_holm: float | None) -> str:
    """Write a gain in points of percent with its interval; a star if it is more than chance.

    Args:
        gain: value, low and high end, as fractions.
        p_holm: corrected p; None if there is none.

    Example:
        >>> format_gain((0.05, 0.01, 0.09), 0.01)
        '+5.0* [+1.0, +9.0]'
    """
    value, low, high = map(format_points, gain)
    star = "*" if p_holm is not None and p_holm < LEVEL else ""
    return f"{value}{star} [{low}, {high}]"


def _lay_out_losses(section: RobustnessSection) -> tuple[list[str], list[list[str]]]:
    header = ["encoder", "layers", "clean", *section.alterations.values()]
    body = [
        [
            *(encoder, row.layers, format_percent(row.first.clean_score)),
            *(
                format_loss(row.means[name], row.p_holm[name]) if name in row.means else "-"
                for name in section.alterations
            ),
        ]
        for encoder, rows in section.encoders.items()
        for row in rows
    ]
    return header, body


def list_notes(section: RobustnessSection) -> list[str]:
    """Return the sentences below the tables of a section."""
    severities: dict[str, tuple[str, list[float]]] = {}
    n_failed = 0
    for rows in section.encoders.values():
        for row in rows:
            n_failed = max(n_failed, *(one.n_failed for one in row.means.values()))
            for name, one in row.means.items():
                severities.setdefault(name, (one.unit, list(one.severities)))
    listed = "; ".join(
        f"{section.alterations[name]}: {unit} {', '.join(f'{value:g}' for value in values)}"
        for name, (unit, values) in severities.items()
    )
    n_test = max(row.first.n_test for rows in section.encoders.values() for row in rows)
    notes = [
        "Probes, and all settings, were fitted on clean clips; only test clips were altered. Scores are percent, changes "
        f"points of percent against the same {n_test} clips unaltered, means over the severities.",
        "*: more than chance (paired test on the same clips, McNemar's where each clip is a group of its own and one "
        "condition is compared; Holm over all changes, or gains, of the table). Brackets: 95 % interval by paired bootstrap "
        "over groups. The intervals of every score and every change, of clean clips too, are in robustness.csv.",
        "Best layer: by its score on the altered test clips, so its gain over the layer that clean validation clips choose "
        "is somewhat optimistic.",
        f"Severities: {make_printable(listed, one_line=True)}.",
    ]
    if n_failed:
        notes.append(f"Up to {n_failed} clips could not be altered or encoded and count as wrong.")
    return notes


def format_robustness(records: Sequence[RobustnessRecord], out: Path, width: int = 100) -> str:
    """Write the tables of some records as plain text, for the end of a run.

    Args:
        records: of the run.
        out: results folder.
        width: of the terminal, in characters.
    """
    import textwrap

    parts = []
    for section in make_robustness_sections(records):
        header, body = _lay_out_survivors(section, out)
        tables = [format_text_table([header], body, 3, max(width, 140))]
        header, body = _lay_out_losses(section)
        tables.append(format_text_table([header], body, 2, width))
        notes = "\n".join(textwrap.fill(note, width, subsequent_indent="  ") for note in list_notes(section))
        parts.append("\n\n".join([section.title, *tables, notes]))
    return "\n\n\n".join(parts) or "Nothing was tested on altered clips."


def format_robustness_markdown(sections: Sequence[RobustnessSection], out: Path) -> str:
    """Write the tables as Markdown.

    Args:
        sections: as `make_robustness_sections` gives them.
        out: results folder.
    """
    parts = ["# Robustness"]
    for section in sections:
        parts.append(f"## {escape_markdown(section.title)}")
        for heading, n_text, (header, body) in (
            ("Which layer survives", 3, _lay_out_survivors(section, out)),
            ("Change of every layer", 2, _lay_out_losses(section)),
        ):
            escaped = [[escape_markdown(cell) for cell in line] for line in body]
            parts += [f"### {heading}", format_markdown_table([escape_markdown(h) for h in header], escaped, n_text)]
        parts.append("\n".join(f"- {escape_markdown(note)}" for note in list_notes(section)))
    return "\n\n".join(parts) + "\n"


def write_robustness(out: Path) -> list[Path]:
    """Write `robustness.md`, `.csv` and `.json`, and the figures of every task.

    Args:
        out: results folder.

    Returns:
        The files written; none if nothing was tested on altered clips.
    """
    records = load_robustness(out)
    if not records:
        return []
    sections = make_robustness_sections(records)
    lines = list_lines(records)
    data = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
    texts = {
        "robustness.md": format_robustness_markdown(sections, out),
        "robustness.csv": format_csv_table(COLUMNS, lines),
        "robustness.json": json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        write_atomic(out / name, text.encode("utf-8"))
    return [*(out / name for name in texts), *plot_robustness(sections, out)]
