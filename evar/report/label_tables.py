"""Tables of label-efficiency curves: `label_curves.md` for people, `label_curves.csv` for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evar.report.label_curves import CurveTask
from evar.report.label_sentences import describe_task
from evar.report.tables.csv_text import format_csv_table
from evar.report.tables.layout import escape_markdown, format_percent
from evar.report.tables.markdown import format_markdown_table
from evar.storage.atomic import write_atomic

NOTES = (
    "n: labelled clips of each class. Scores are means over draws of the labelled clips, in percent ± half the width of the "
    "95 % interval by the bootstrap over draws and over groups of test clips together; `all` is one draw, so its interval "
    "is over test clips alone. The CSV also has the interval of a single draw: what one choice of n clips may score.",
    "Groups of clips are drawn whole. The strength of regularisation is chosen within each draw; no test clip, and no other "
    "labelled clip, is looked at.",
    "A lead is significant where p < 0.05 by the paired bootstrap over draws and test clips, after Holm's correction over "
    "all pairs of encoders and all n of the task.",
    "The interval of Kendall's tau-b is by the bootstrap over draws and test clips. `-` in its column: the order of all "
    "labels is compared with itself, so that nothing is uncertain; `-` for tau-b: all scores of one order are equal.",
)


def write_label_tables(tasks: Sequence[CurveTask], out: Path) -> list[Path]:
    """Write `label_curves.md` and `label_curves.csv`.

    Args:
        tasks: as `evar.report.label_curves.find_curves` returns them.
        out: results folder.

    Returns:
        The files written; none if there is no curve.
    """
    if not tasks:
        return []
    texts = {"label_curves.md": format_label_markdown(tasks), "label_curves.csv": format_label_csv(tasks)}
    for name, text in texts.items():
        write_atomic(Path(out) / name, text.encode("utf-8"))
    return [Path(out) / name for name in texts]


def format_label_markdown(tasks: Sequence[CurveTask]) -> str:
    """Write a table and sentences for each task.

    Example:
        >>> format_label_markdown([]).splitlines()[0]
        '# Scores against the number of labels'
    """
    from evar.metrics.named import get_display_name

    parts = ["# Scores against the number of labels"]
    for task in tasks:
        header = ["encoder", "layers", *(f"n = {n}" if n else "all" for n in task.numbers)]
        lines = []
        for curve in task.curves:
            points = [curve.find(n) for n in task.numbers]
            scores = ["-" if point is None else format_percent(point.score, point.interval) for point in points]
            lines.append([escape_markdown(curve.name), escape_markdown(curve.layers), *scores])
        parts += [
            f"## {escape_markdown(task.title)}, {get_display_name(task.metric)}",
            format_markdown_table(header, lines, 2),
            "\n".join(f"- {escape_markdown(text)}" for text in describe_task(task)),
        ]
        if task.agreements:
            parts.append(_format_agreements(task))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in NOTES)]) + "\n"


def _format_agreements(task: CurveTask) -> str:
    """Write how far each number of labels orders the encoders as all labels do."""
    header = [
        "n",
        "Kendall's tau-b with the order of all labels",
        "95 % interval",
        "pairs significantly the other way round",
    ]
    lines = []
    for one in task.agreements:
        interval = "-" if one.interval is None else f"{one.interval[0]:+.2f} to {one.interval[1]:+.2f}"
        lines.append(
            [str(one.n or "all"), "-" if one.tau is None else f"{one.tau:+.2f}", interval, str(one.n_opposite)]
        )
    return format_markdown_table(header, lines, 1)


def format_label_csv(tasks: Sequence[CurveTask]) -> str:
    """Write one line for each point of each curve, fractions 0..1, and after them one for each compared pair and number.

    Example:
        >>> format_label_csv([]).split(",")[:4]
        ['kind', 'task', 'metric', 'encoder']
    """
    header = ["kind", "task", "metric", "encoder", "layers", "other", "n", "n_per_class", "n_draws", "n_short", "score"]
    header += ["low", "high", "one_draw_low", "one_draw_high", "lowest_draw", "highest_draw", "p", "p_holm"]
    lines: list[list[Any]] = []
    for task in tasks:
        for curve in task.curves:
            for point in curve.points:
                line: list[Any] = ["score", task.title, task.metric, curve.name, curve.layers, "", point.label]
                line += [point.n_per_class, point.n_draws, point.n_short, point.score, *point.interval, *point.one_draw]
                lines.append([*line, min(point.draw_scores), max(point.draw_scores), "", ""])
        for pair in task.pairs:
            for lead in pair.leads:
                line = [
                    "difference",
                    task.title,
                    task.metric,
                    pair.first,
                    "",
                    pair.second,
                    str(lead.n or "all"),
                    "",
                    "",
                    "",
                ]
                ends = [lead.difference - 1.96 * lead.deviation, lead.difference + 1.96 * lead.deviation]
                lines.append([*line, lead.difference, *ends, "", "", "", "", lead.p_value, lead.p_holm])
    return format_csv_table(header, lines)
