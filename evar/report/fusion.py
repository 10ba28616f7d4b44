"""The fusion table: the choice of a search, beside the default layer, the best single layers and a weighted sum of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.config.plain_text import make_printable
from evar.report.tables.choices import Chosen, Difference, Layers, compose_choice, find_best_layers, subtract_choices
from evar.report.tables.csv_text import format_csv_table
from evar.report.tables.labels import label_limit
from evar.report.tables.layout import escape_markdown, format_percent
from evar.report.tables.markdown import format_markdown_table
from evar.report.tables.terminal import format_text_table
from evar.results import Result, SearchRecord


@dataclass(frozen=True)
class Line:
    """One feature of one encoder on every task of a search; a feature minus another where `minus` says which.

    Attributes:
        encoder: name.
        feature: what it is, "conv2+conv5 (search)".
        kind: "default", "best", "weighted" or "search".
        cells: task -> feature, or difference, or None if it was not run.
        minus: kind that is subtracted.
        p_values: of differences, by task, corrected by Holm over the line.
    """

    encoder: str
    feature: str
    kind: str
    cells: Mapping[str, Chosen | Difference | None]
    minus: str = ""
    p_values: Mapping[str, float] | None = None

    @property
    def average(self) -> float | None:
        """Mean score over the tasks; None unless all are there."""
        scores = [cell.score for cell in self.cells.values() if cell is not None]
        return sum(scores) / len(scores) if scores and len(scores) == len(self.cells) else None


@dataclass(frozen=True)
class FusionTable:
    """The searches of one protocol and limit over the same tasks."""

    title: str
    tasks: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def make_fusion_tables(records: Sequence[SearchRecord], results: Sequence[Result], out: Path) -> list[FusionTable]:
    """Make one table for all searches over the same tasks under one protocol and limit; the newest of each encoder.

    Args:
        records: of searches.
        results: rows of fixed layers, from which the lines are put together.
        out: results folder with the predictions.
    """
    groups: dict[tuple[Any, ...], dict[tuple[str, str], SearchRecord]] = {}
    for record in sorted(records, key=lambda record: record.created):
        tasks = tuple(str(task["name"]) for task in record.tasks)
        where = groups.setdefault((record.protocol, record.protocol_version, record.limit or 0, tasks), {})
        where[record.encoder, record.weights_sha256] = record
    found = []
    for (protocol, _, limit, tasks), of_encoders in sorted(groups.items(), key=lambda item: item[0]):
        lines, notes = [], []
        for record in of_encoders.values():
            made, said = _make_lines(record, results, out)
            lines += made
            notes += said
        title = label_limit(f"{protocol}: {', '.join(tasks)}", limit or None)
        found.append(FusionTable(title, tasks, tuple(lines), tuple(dict.fromkeys(notes))))
    return found


def _make_lines(record: SearchRecord, results: Sequence[Result], out: Path) -> tuple[list[Line], list[str]]:
    features: dict[str, dict[str, Chosen | None]] = {"default": {}, "best": {}, "weighted": {}, "search": {}}
    notes = [_describe_search(record)]
    for task in record.tasks:
        for kind, chosen in _compose_features(record, task, results, out, notes).items():
            features[kind][str(task["name"])] = chosen
    choice, usual = "+".join(record.choice), "+".join(record.default_layers)
    lines = [
        Line(record.encoder, f"{usual} (default)", "default", features["default"]),
        Line(record.encoder, "best layer of each task", "best", features["best"]),
    ]
    if "weighted" in record.fusions:
        lines.append(Line(record.encoder, "weighted sum of all layers", "weighted", features["weighted"]))
    lines.append(Line(record.encoder, f"{choice} (search)", "search", features["search"]))
    for kind, name in (("default", usual), ("best", "best layer")):
        lines.append(_subtract(record.encoder, f"search minus {name}", features["search"], features[kind], kind))
    return lines, notes


def _compose_features(
    record: SearchRecord, task: Mapping[str, Any], results: Sequence[Result], out: Path, notes: list[str]
) -> dict[str, Chosen | None]:
    """Put together every kind of feature on one task, and add the notes about them."""
    name, n_rounds = str(task["name"]), len(task["rounds"])
    rows = _find_rows(record, task, results)
    plain = {layers: same for (layers, fusion), same in rows.items() if fusion in ("none", "concat")}
    summed = {layers: same for (layers, fusion), same in rows.items() if fusion == "weighted"}
    found = {
        "default": compose_choice(plain, [tuple(record.default_layers)] * n_rounds, out),
        "best": compose_choice(plain, find_best_layers(plain, record.seed) or [], out),
        "search": compose_choice(plain, [tuple(layers) for layers in record.choices[name]], out),
        "weighted": compose_choice(summed, [tuple(record.layers)] * n_rounds, out),
    }
    if any("after_pool" in row.flags for same in summed.values() for row in same):
        notes.append(f"{record.encoder}: the weighted sum is taken after pooling over time (after_pool)")
    labels = [chosen.label for kind in ("best", "search") if (chosen := found[kind]) is not None]
    if labels:
        searched = f", search {labels[1]}" if len(labels) > 1 and task["is_fold"] else ""
        notes.append(f"{record.encoder} on {name}: best single layer {labels[0]}{searched}")
    return found


def _subtract(
    encoder: str, name: str, ours: Mapping[str, Chosen | None], others: Mapping[str, Chosen | None], kind: str
) -> Line:
    """Return the line of differences between two features, with p-values corrected over its tasks."""
    from evar.metrics import holm

    minus = {
        task: subtract_choices(mine, other) if (mine := ours[task]) and (other := others[task]) else None
        for task in others
    }
    tested = {task: cell.p_value for task, cell in minus.items() if cell is not None}
    corrected = holm(list(tested.values())).tolist()
    return Line(encoder, name, "search", minus, kind, dict(zip(tested, corrected, strict=True)))


def _describe_search(record: SearchRecord) -> str:
    return (
        f"{record.encoder}: {record.n_ranked} combinations of {len(record.layers)} layers were ranked and "
        f"{record.n_probed} of them probed, on validation clips, in {record.seconds:.0f} s"
        + ("" if "weighted" in record.fusions else "; no weighted sum, its layers differ in width")
        + ("; random weights" if record.weights == "random" else "")
    )


def _find_rows(
    record: SearchRecord, task: Mapping[str, Any], results: Sequence[Result]
) -> dict[tuple[Layers, str], list[Result]]:
    """(layers, fusion) -> the encoder's rows on the task, one for each seed, the newest."""
    found: dict[tuple[Layers, str], dict[int, Result]] = {}
    wanted = (record.encoder, record.weights_sha256, task["name"], task["version"], task["metric"])
    made_by = (record.protocol, record.protocol_version, record.limit)
    settings = record.row_settings
    for row in sorted(results, key=lambda row: (row.created, row.id)):
        here = (row.encoder, row.weights_sha256, row.task, row.task_version, row.metric)
        by = (row.protocol, str(row.params.get("protocol_version", "")), row.limit)
        stats = row.extraction.get("norm_stats")
        same = dict(row.encoder_options) == dict(settings.get("encoder_options", {}))
        if here == wanted and by == made_by and same and stats == settings.get("norm_stats"):
            found.setdefault((tuple(row.layers), row.fusion), {})[row.seed] = row
    return {key: list(seeds.values()) for key, seeds in found.items()}


def write_fusion(found: Sequence[FusionTable], out: Path) -> list[Path]:
    """Write `fusion.md` and `fusion.csv`; nothing if no search was run."""
    from evar.storage.atomic import write_atomic

    if not found:
        return []
    paths = [out / "fusion.md", out / "fusion.csv"]
    write_atomic(paths[0], format_markdown(found).encode("utf-8"))
    write_atomic(paths[1], format_csv(found).encode("utf-8"))
    return paths


NOTES = (
    "Test scores in percent ± half the width of the 95 % interval; the layers were chosen on validation clips alone. In a "
    "task with folds each fold has a choice of its own, made without its test clips, and the scores are those of these "
    "choices; the layers named are those chosen over everything.",
    "Differences are in percent points, with their sign; *: not 0 by a paired randomisation test over groups of test clips, "
    "p < 0.05 after Holm's correction over the tasks of the line.",
)


def format_markdown(found: Sequence[FusionTable]) -> str:
    """Format tables as Markdown, under headings, each with its notes."""
    parts = ["# Fusion of layers"]
    for table in found:
        header = ["encoder", "feature", *map(escape_markdown, table.tasks), "average"]
        body = [
            _format_cells(line, table.tasks, escape_markdown, lambda text: f"**{text}**", table.lines)
            for line in table.lines
        ]
        notes = "\n".join(f"- {text}" for text in (*NOTES, *(f"{escape_markdown(note)}." for note in table.notes)))
        parts += [f"## {escape_markdown(table.title)}", format_markdown_table(header, body, 2), notes]
    return "\n\n".join(parts) + "\n"


def format_terminal(found: Sequence[FusionTable], width: int = 100) -> str:
    """Format the tables as plain text, without their notes."""
    parts = []
    for table in found:
        body = [_format_cells(line, table.tasks, str, str, table.lines) for line in table.lines]
        parts.append(f"fusion, {table.title}\n\n" + format_text_table(
            [["encoder", "feature", *table.tasks, "average"]], body, 2, width))  # fmt: skip
    return make_printable("\n\n".join(parts))


def _format_cells(line: Line, tasks: Sequence[str], clean: Any, bold: Any, lines: Sequence[Line]) -> list[str]:
    rivals = [other for other in lines if other.encoder == line.encoder and not other.minus]
    texts = [clean(line.encoder), clean(line.feature)]
    for task in tasks:
        cell = line.cells[task]
        if cell is None:
            texts.append("-")
        elif isinstance(cell, Difference):
            texts.append(f"{100 * cell.score:+.1f}" + ("*" if (line.p_values or {}).get(task, 1.0) < 0.05 else ""))
        else:
            best = max(other.cells[task].score for other in rivals if other.cells[task] is not None)  # type: ignore
            text = format_percent(cell.score, cell.interval)
            texts.append(bold(text) if cell.score >= best else text)
    average = line.average
    if average is None:
        return [*texts, "-"]
    if line.minus:
        return [*texts, f"{100 * average:+.1f}"]
    best = max(other.average for other in rivals if other.average is not None)
    return [*texts, bold(format_percent(average)) if average >= best else format_percent(average)]


def format_csv(found: Sequence[FusionTable]) -> str:
    """Write one line a cell; fractions."""
    names = ["table", "encoder", "feature", "kind", "minus", "task", "layers", "score", "low", "high", "p", "p_holm"]
    lines = []
    for table in found:
        for line in table.lines:
            for task in table.tasks:
                cell = line.cells[task]
                if cell is None:
                    continue
                start: list[Any] = [table.title, line.encoder, line.feature, line.kind, line.minus, task]
                if isinstance(cell, Difference):
                    start += ["", cell.score, *cell.interval, cell.p_value, (line.p_values or {}).get(task, "")]
                else:
                    layers = ";".join("+".join(layers) for layers in cell.layers)
                    start += [layers, cell.score, *cell.interval, "", ""]
                lines.append(start)
    return format_csv_table(names, lines)
