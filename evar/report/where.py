"""Where to read an encoder: for each task the layer that validation clips choose, its test score, and its gain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.report.tables.cells import make_sections
from evar.report.tables.choices import Chosen, Difference, Layers, compose_choice, find_best_layers, subtract_choices
from evar.report.tables.csv_text import format_csv_table
from evar.report.tables.labels import make_variant_key
from evar.report.tables.layout import escape_markdown, format_percent
from evar.report.tables.markdown import format_markdown_table
from evar.results import Result


@dataclass(frozen=True)
class Reading:
    """One encoder on one task.

    Attributes:
        protocol, limit, encoder, task: of the rows.
        best: the layer that validation clips choose.
        default: the default layers.
        gain: best minus default; None if the two were tested on different clips.
        p_value: of the gain, corrected by Holm over all readings of the table.
        is_random: were the weights random?
    """

    protocol: str
    limit: int | None
    encoder: str
    task: str
    best: Chosen
    default: Chosen
    gain: Difference | None
    p_value: float | None
    is_random: bool


def find_readings(results: Sequence[Result], out: Path) -> list[Reading]:
    """Find every encoder and task of which several single layers and the default were evaluated, in reading order."""
    from evar.metrics import holm

    found = []
    for section in make_sections(results):
        own = [
            result
            for result in results
            if (result.protocol, result.limit) == (section.protocol, section.limit)
            and str(result.params.get("protocol_version", "")) == section.protocol_version
        ]
        for (encoder, task, *_), rows in sorted(group_by_encoder_and_task(own).items()):
            chosen = find_best_layers(rows)
            default = next((layers for layers, same in rows.items() if same[0].default), None)
            if chosen is None or default is None:
                continue
            best, usual = compose_choice(rows, chosen, out), compose_choice(rows, [default] * len(chosen), out)
            if best is not None and usual is not None:
                random = rows[default][0].is_random
                gain = subtract_choices(best, usual)
                found.append(Reading(section.protocol, section.limit, encoder, task, best, usual, gain, None, random))
    tested = [at for at, one in enumerate(found) if one.gain is not None]
    corrected = holm([gain.p_value for at in tested if (gain := found[at].gain)]).tolist()
    for at, p_value in zip(tested, corrected, strict=True):
        found[at] = Reading(**{**vars(found[at]), "p_value": p_value})
    return found


def group_by_encoder_and_task(results: Sequence[Result]) -> dict[tuple[str, ...], dict[Layers, list[Result]]]:
    """Group results by encoder and task, then by layers and seed; the newest counts if two share a place."""
    groups: dict[tuple[str, ...], dict[Layers, dict[int, Result]]] = {}
    for result in sorted(results, key=lambda result: (result.created, result.id)):
        if result.fusion not in ("none", "concat"):
            continue
        index = json.dumps([result.task_version, result.metric, result.index_sha256])
        where = groups.setdefault((result.encoder, result.task, make_variant_key(result), index), {})
        where.setdefault(tuple(result.layers), {})[result.seed] = result
    return {key: {layers: list(seeds.values()) for layers, seeds in rows.items()} for key, rows in groups.items()}


def write_where(found: Sequence[Reading], out: Path) -> list[Path]:
    """Write `where.md` and `where.csv`; nothing if there is nothing to say."""
    from evar.storage.atomic import write_atomic

    if not found:
        return []
    paths = [out / "where.md", out / "where.csv"]
    write_atomic(paths[0], format_markdown(found).encode("utf-8"))
    write_atomic(paths[1], format_csv(found).encode("utf-8"))
    return paths


def format_markdown(found: Sequence[Reading]) -> str:
    """Format the table with its notes."""
    header = ["encoder", "task", "layer by validation", "score", "default layer", "score", "gain"]
    lines = []
    for one in found:
        task = one.task if one.limit is None else f"{one.task} (limit {one.limit})"
        texts = [one.encoder + ("†" if one.is_random else ""), task, one.best.label]
        texts += [format_percent(one.best.score, one.best.interval), one.default.label]
        texts += [format_percent(one.default.score, one.default.interval), format_gain(one.gain, one.p_value)]
        lines.append([escape_markdown(text) if index < 5 and index != 3 else text for index, text in enumerate(texts)])
    notes = [
        "layer by validation: the single layer with the best score on the validation clips (of equals, the lower log-loss); "
        "in a task with folds each fold has a choice of its own, made without its test clips. The scores are of the test "
        "clips, in percent ± half the width of the 95 % interval.",
        "gain: layer by validation minus default layer, with its 95 % interval; *: it differs from 0 by a paired "
        "randomisation test over groups of test clips, p < 0.05 after Holm's correction over this table.",
        *(["† random weights."] if any(one.is_random for one in found) else []),
    ]
    table = format_markdown_table(header, lines, 3)
    return (
        "# Where to read it\n\n"
        + summarise(found)
        + "\n\n"
        + table
        + "\n\n"
        + "\n".join(f"- {note}" for note in notes)
        + "\n"
    )


def summarise(found: Sequence[Reading]) -> str:
    """Say in one sentence where another layer than the default is better, or that none is beyond chance.

    Args:
        found: readings, at least one.
    """
    better = [one for one in found if one.gain is not None and one.gain.score > 0 and (one.p_value or 0.0) < 0.05]
    n_tested = sum(one.gain is not None for one in found)
    if not better:
        return (
            f"In none of {n_tested} cases is the layer that validation chooses better than the default layer beyond chance: "
            "the default layer is as good a place to read as any."
        )
    named = ", ".join(f"{escape_markdown(one.encoder)} on {escape_markdown(one.task)}" for one in better)
    return (
        f"In {len(better)} of {n_tested} cases is the layer that validation chooses better than the default layer beyond "
        f"chance: {named}."
    )


def format_gain(gain: Difference | None, p_value: float | None) -> str:
    """Format a difference in percent points, its interval, and a star if it is significant.

    Example:
        >>> format_gain(Difference(0.031, (0.004, 0.052), 0.01), 0.02)
        '+3.1 [+0.4, +5.2]*'
    """
    if gain is None:
        return "-"
    star = "*" if p_value is not None and p_value < 0.05 else ""
    return f"{100 * gain.score:+.1f} [{100 * gain.interval[0]:+.1f}, {100 * gain.interval[1]:+.1f}]{star}"


def format_csv(found: Sequence[Reading]) -> str:
    """Write one line a reading; fractions 0..1."""
    names = ["protocol", "limit", "encoder", "task", "layers", "score", "low", "high"]
    names += ["default_layers", "default_score", "gain", "gain_low", "gain_high", "p", "p_holm"]
    lines = []
    for one in found:
        line: list[Any] = [one.protocol, "" if one.limit is None else one.limit, one.encoder, one.task]
        line += [";".join("+".join(layers) for layers in one.best.layers), one.best.score, *one.best.interval]
        line += ["+".join(one.default.layers[0]), one.default.score]
        gain = one.gain
        line += ["", "", "", ""] if gain is None else [gain.score, *gain.interval, gain.p_value]
        line.append("" if one.p_value is None else one.p_value)
        lines.append(line)
    return format_csv_table(names, lines)
