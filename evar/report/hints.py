"""Label-free hints beside the scores: a table for each encoder, how they go together, and which layers are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evar.report.plots.hints import make_similarity_maps, plot_similarity
from evar.report.tables.cells import make_sections
from evar.report.tables.csv_text import format_csv_table
from evar.report.tables.labels import label_limit
from evar.report.tables.layout import escape_markdown, format_percent
from evar.report.tables.section import Section
from evar.results import Result
from evar.results.hints import HintsRecord
from evar.storage.atomic import write_atomic

#: hint -> heading, digits, and an explanation for the reader
HINTS = {
    "effective_rank": (
        "effective rank",
        1,
        "exp of the entropy of the normalised singular values of the centred vectors (Roy and Vetterli 2007): how many "
        "directions the clips spread over, at most clips - 1 and the width, so that wide layers have more",
    ),
    "mean_cosine": (
        "mean cosine",
        2,
        "mean cosine similarity of pairs of clips (Ethayarajh 2019): near 0 isotropic, near 1 all in a narrow cone",
    ),
    "intrinsic_dimension": (
        "intrinsic dimension",
        1,
        "TwoNN (Facco et al. 2017), without the 10 % of clips with the largest ratio of distances and without "
        "duplicates; too low where it is above some 15",
    ),
}
#: fewer layers than these have no rank correlation worth a number
MIN_LAYERS = 4


@dataclass(frozen=True)
class LayerLine:
    """One layer: depth 0..1, score 0..1 (None if no row exists), and hint -> number (None if it has none)."""

    layer: str
    width: int
    depth: float
    is_default: bool
    score: float | None
    numbers: dict[str, float | None]


@dataclass(frozen=True)
class HintTable:
    """The layers of one encoder on one task under one protocol.

    Attributes:
        label: the encoder's row label in the other tables.
        task: the column label in the other tables.
        protocol, metric: of the scores; empty if there is none.
        record: the measures.
        lines: shallow to deep.
    """

    label: str
    task: str
    protocol: str
    metric: str
    record: HintsRecord
    lines: tuple[LayerLine, ...]

    def correlation(self, hint: str) -> tuple[float | None, int]:
        """Spearman's rank correlation of a hint with the score over the layers that have both, and their number.

        None if there are fewer than `MIN_LAYERS`, or either is the same throughout.
        """
        pairs = [(line.numbers[hint], line.score) for line in self.lines]
        known = [(number, score) for number, score in pairs if number is not None and score is not None]
        if len(known) < MIN_LAYERS or any(len(set(values)) < 2 for values in zip(*known, strict=True)):
            return None, len(known)
        from scipy.stats import spearmanr

        numbers, scores = zip(*known, strict=True)
        return float(spearmanr(numbers, scores).statistic), len(known)


def write_hints(records: Sequence[HintsRecord], results: Sequence[Result], out: Path) -> list[Path]:
    """Write `hints.md`, `hints.csv`, and the similarity of layers as `hints.png` and `hints.svg`.

    Args:
        records: as `evar.results.hints.load_hints` gives them.
        results: of the same folder; a score stands beside a hint only where both are of the same vectors and clips.
        out: results folder.

    Returns:
        The files written; none without records.
    """
    if not records:
        return []
    found, n_older = make_hint_tables(records, results)
    paths = []
    for name, text in (("hints.md", format_markdown(found, n_older)), ("hints.csv", format_csv(found))):
        write_atomic(Path(out) / name, text.encode("utf-8"))
        paths.append(Path(out) / name)
    return paths + plot_similarity(make_similarity_maps([(one.label, one.record) for one in found]), Path(out))


def make_hint_tables(records: Sequence[HintsRecord], results: Sequence[Result]) -> tuple[list[HintTable], int]:
    """Put scores beside hints.

    Returns:
        Tables by encoder and task, and how many records were left out because a newer one of other settings has the
        same names.
    """
    tables = make_sections(results, single_layers=True)
    several = len({(table.protocol, table.protocol_version) for table in tables}) > 1
    newest: dict[tuple[str, str, str], HintTable] = {}
    for record in sorted(records, key=lambda record: (record.created, record.id)):
        for one in _make_tables(record, tables, records, several):
            newest[one.label, one.task, one.protocol] = one
    with_scores = {(label, task) for label, task, protocol in newest if protocol}
    found = [one for key, one in sorted(newest.items()) if key[2] or key[:2] not in with_scores]
    return found, len({record.id for record in records} - {one.record.id for one in found})


def _make_tables(
    record: HintsRecord, tables: Sequence[Section], records: Sequence[HintsRecord], several: bool
) -> list[HintTable]:
    """One table for each protocol that has scores of these vectors; one without scores where none has."""
    found = []
    for section in tables:
        protocol = section.title.split(" (limit")[0] if several else section.protocol
        for index, column in enumerate(section.columns):
            here = [
                (row.encoder, cell.results[0], cell.score)
                for row in section.rows
                if (cell := row.cells[index]) and cell.score is not None and record.matches(cell.results[0])
            ]
            if here:
                scores = {result.layers[0]: score for _, result, score in here}
                defaults = {result.layers[0] for _, result, _ in here if result.default}
                label, first, _ = here[0]
                lines = _make_lines(record, scores, defaults)
                found.append(HintTable(label, column.label, protocol, first.metric, record, lines))
    if not found:
        rivals = {other.weights_sha256 for other in records if other.encoder == record.encoder}
        label = record.encoder if len(rivals) == 1 else f"{record.encoder} (weights {record.weights})"
        task = label_limit(record.task, record.limit)
        found.append(HintTable(label, task, "", "", record, _make_lines(record, {}, set())))
    # The tables of two protocols may tell an encoder's variants apart in other words: here they share a table.
    label = _mark_random(max((one.label for one in found), key=len), record)
    return [replace(one, label=label) for one in found]


def _mark_random(label: str, record: HintsRecord) -> str:
    """Untrained weights must show wherever the label does."""
    return f"{label} (random weights)" if record.weights == "random" and "random" not in label else label


def _make_lines(record: HintsRecord, scores: dict[str, float], defaults: set[str]) -> tuple[LayerLine, ...]:
    n = len(record.layers)
    return tuple(
        LayerLine(
            layer,
            record.widths[index],
            (index + 1) / n,
            layer in defaults,
            scores.get(layer),
            {hint: record.numbers[hint][index] if hint in record.numbers else None for hint in HINTS},
        )
        for index, layer in enumerate(record.layers)
    )


def format_markdown(found: Sequence[HintTable], n_older: int = 0) -> str:
    """Write the rank correlations of all tables, then a table for each encoder, then an explanation of the numbers."""
    from evar.metrics.named import get_display_name

    several = len({one.protocol for one in found if one.protocol}) > 1
    parts = ["# Hints without labels", "## Do they go along with the score?"]
    headings = [heading for heading, _, _ in HINTS.values()]
    lines = [["encoder", "task", "layers", *headings]]
    lines += [
        [escape_markdown(one.label), escape_markdown(_name_task(one, several)), *_format_correlations(one)]
        for one in found
    ]
    parts.append(_align_table(lines, 2))
    parts.append(
        f"Spearman's rank correlation over the layers of one encoder on one task, between the hint and the test score; "
        f"from {MIN_LAYERS} layers on. Layers of one encoder are few and not independent of one another: a hint that helps "
        "has the same sign in many lines of this table, not a large value in one."
    )
    for label in dict.fromkeys(one.label for one in found):
        own = [one for one in found if one.label == label]
        metrics = " / ".join(dict.fromkeys(get_display_name(one.metric) for one in own if one.metric)) or "score"
        lines = [["task", "layer", "depth", "width", f"{metrics} (%)", *headings]]
        lines += [_format_line(one, line, several) for one in own for line in one.lines]
        parts += [f"## {escape_markdown(label)}", _align_table(lines, 2)]
    notes = [f"{heading}: {meaning}." for heading, _, meaning in HINTS.values()]
    notes.append("Scores: mean over seeds, test clips; -: no row of these vectors, or no number.")
    notes.append(f"{_count_clips(found)}, of all splits, test clips among them. Labels have no say in any hint.")
    if n_older:
        notes.append(f"{n_older} older records of other settings are not shown.")
    parts += ["## How they were made", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _name_task(one: HintTable, several: bool) -> str:
    return f"{one.task}, {one.protocol}" if several and one.protocol else one.task


def _count_clips(found: Sequence[HintTable]) -> str:
    counts: dict[str, set[str]] = {}
    for one in found:
        n, of = one.record.n_clips, one.record.n_usable
        counts.setdefault(one.task, set()).add(f"{n} of {of}" if n < of else str(n))
    said = [f"{task} {' or '.join(sorted(numbers))}" for task, numbers in sorted(counts.items())]
    return f"Clips looked at: {escape_markdown(', '.join(said))}"


def _format_correlations(one: HintTable) -> list[str]:
    found = {hint: one.correlation(hint) for hint in HINTS}
    n_scored = sum(line.score is not None for line in one.lines)
    texts = []
    for value, n in found.values():
        text = "too few layers" if n < MIN_LAYERS else "constant" if value is None else f"{value:+.2f}"
        texts.append(text if n == n_scored or n < MIN_LAYERS else f"{text} (n={n})")
    return [str(n_scored), *texts]


def _format_line(one: HintTable, line: LayerLine, several: bool) -> list[str]:
    numbers = [
        "-" if (number := line.numbers[hint]) is None else f"{number:.{digits}f}"
        for hint, (_, digits, _) in HINTS.items()
    ]
    layer = escape_markdown(line.layer) + (" (default)" if line.is_default else "")
    score = "-" if line.score is None else format_percent(line.score)
    return [escape_markdown(_name_task(one, several)), layer, f"{line.depth:.2f}", str(line.width), score, *numbers]


def _align_table(lines: Sequence[Sequence[str]], n_text_columns: int) -> str:
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width if i < n_text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    aligned = [
        [text.ljust(width) if i < n_text_columns else text.rjust(width)
         for i, (text, width) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in [aligned[0], rule, *aligned[1:]])


def format_csv(found: Sequence[HintTable]) -> str:
    """Format one line for each layer; correlations, which belong to all layers of a table, are repeated in each line."""
    columns = [
        *("encoder", "label", "weights", "weights_sha256", "task", "task_version", "limit", "protocol", "metric"),
        *("layer", "depth", "width", "default", "score", *HINTS, "n_clips", "n_usable"),
        *(name for hint in HINTS for name in (f"spearman_{hint}", f"n_layers_{hint}")),
    ]
    lines = []
    for one in found:
        record = one.record
        correlations: dict[str, object] = {}
        for hint in HINTS:
            value, n = one.correlation(hint)
            correlations |= {f"spearman_{hint}": _format_number(value), f"n_layers_{hint}": n}
        for line in one.lines:
            values: dict[str, object] = {
                "encoder": record.encoder,
                "label": one.label,
                "weights": record.weights,
                "weights_sha256": record.weights_sha256,
                "task": record.task,
                "task_version": record.task_version,
                "limit": "" if record.limit is None else record.limit,
                "protocol": one.protocol,
                "metric": one.metric,
                "layer": line.layer,
                "depth": _format_number(line.depth),
                "width": line.width,
                "default": str(line.is_default).lower(),
                "score": _format_number(line.score),
                **{hint: _format_number(line.numbers[hint]) for hint in HINTS},
                "n_clips": record.n_clips,
                "n_usable": record.n_usable,
                **correlations,
            }
            lines.append([values[name] for name in columns])
    return format_csv_table(columns, lines)


def _format_number(value: float | None) -> str:
    return "" if value is None else repr(round(value, 10))
