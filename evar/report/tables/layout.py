"""Lay out the cells of one table: rows, columns, marks and remarks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from evar.report.tables.cells import Row, Section, is_better
from evar.report.tables.compared import LEVEL, is_equal

MARKS = ("†", "‡", "§", "¶")


FLAG_MEANINGS = {
    "random weights": "random weights: an untrained network, not the published encoder",
    "after_pool": "layers were averaged or weighted after pooling over time, which is not the same as before it unless the "
    "pooling is the mean",
    "trained on this data": "trained on this data: the encoder's card names the task's data set among what its weights saw",
    "task statistics": "the encoder's input was normalised by statistics of all clips, test clips among them (no labels)",
}


def count_text_columns(by_layer: bool) -> int:
    """First columns of a table that name a row."""
    return 3 if by_layer else 2


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def escape_markdown(text: str) -> str:
    r"""A text that Markdown shows as it is, in one table cell; names with underscores stay readable.

    Example:
        >>> print(escape_markdown("a|b *c* silero_vad _d_"))
        a\|b \*c\* silero_vad \_d\_
    """
    text = re.sub(r"([\\|*`<>\[\]~&])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def format_percent(score: float, interval: tuple[float, float] | None = None) -> str:
    """A fraction in percent, and half the width of its interval.

    Example:
        >>> format_percent(0.853, (0.82, 0.882))
        '85.3 ± 3.1'
    """
    half_width = "" if interval is None else f" ± {50 * (interval[1] - interval[0]):.1f}"
    return f"{100 * score:.1f}{half_width}"


@dataclass(frozen=True)
class Dress:
    """How a table's texts look in one format.

    Attributes:
        bold: of the best.
        underline: of what is not significantly worse.
        clean: makes a text from a result harmless where it is shown.
        best, equal: how the notes call the two.
        plus_minus: the sign before half the width of an interval.
        mark: a flag's mark, or a note's number, behind a score.
    """

    bold: Callable[[str], str]
    underline: Callable[[str], str]
    clean: Callable[[str], str]
    best: str
    equal: str
    plus_minus: str = "±"
    mark: Callable[[str], str] = str


MARKDOWN = Dress(
    lambda text: f"**{text}**", lambda text: f"<ins>{text}</ins>", escape_markdown, "in bold", "underlined"
)


TERMINAL = Dress(lambda text: f"{text}*", lambda text: f"{text}~", _join_lines, "marked *", "marked ~")


def lay_out_cells(
    section: Section, by_layer: bool, dress: Dress
) -> tuple[tuple[list[str], list[str]], list[list[str]]]:
    """Header (names, and numbers of clips) and lines of one table as texts, chance last."""
    bold, clean = dress.bold, dress.clean
    marks = {flag: _pick_mark(index) for index, flag in enumerate(section.flags)}
    numbers = {note: str(index + 1) for index, note in enumerate(section.notes)}
    ranked = not by_layer and len(section.columns) > 1 and any(row.rank is not None for row in section.rows)
    header = ["encoder", "layer", "depth"] if by_layer else ["encoder", "layers"]
    counts = [""] * len(header) + [f"n={column.n_test}" if column.n_test else "" for column in section.columns]
    header += [clean(column.label) for column in section.columns]
    if ranked:
        header, counts = [*header, "average", "rank"], [*counts, "", ""]
    best_average = max((row.average for row in section.rows if row.average is not None), default=0.0)
    best_rank = min((row.rank for row in section.rows if row.rank is not None), default=0.0)
    lines = []
    for row in section.rows:
        ours = [other for other in section.rows if not other.published]
        rivals = [other for other in ours if not by_layer or other.encoder == row.encoder]
        flags = dress.mark(",".join(marks[flag] for flag in row.flags)) if row.flags else ""
        line = [clean(row.encoder) + flags, clean(row.layers)]
        if by_layer:
            line.append("" if row.depth is None else f"{row.depth:.2f}")
            line[1] += " (default)" if row.first is not None and row.first.default else ""
        for column, cell in enumerate(row.cells):
            text = (
                "-" if cell is None else "failed" if cell.score is None else format_percent(cell.score, cell.interval)
            )
            text = text.replace("±", dress.plus_minus)
            if cell is not None and cell.score is not None and not row.published:
                best = max((s for s in _list_scores(column, rivals)), default=0.0)
                if not is_better(best, cell.score):
                    text = bold(text)
                elif not by_layer and cell.p_worse is not None and is_equal(cell, best):
                    text = dress.underline(text)
            if cell is not None:
                if cell.ours is not None and cell.score is not None:
                    text += f" (ours {100 * (cell.ours - cell.score):+.1f})"
                text += "".join(dress.mark(marks[flag]) for flag in cell.flags)
                text += "".join(f" [{numbers[note]}]" for note in cell.notes)
            line.append(text)
        if ranked and row.average is not None and row.rank is not None:
            average, rank = format_percent(row.average), f"{row.rank:.2f}"
            line.append(average if is_better(best_average, row.average) else bold(average))
            line.append(rank if is_better(row.rank, best_rank) else bold(rank))
        elif ranked:
            line += ["-", "-"]
        lines.append(line)
    if any(column.chance is not None for column in section.columns):
        lines.append(_make_chance_line(section, by_layer, ranked))
    return (header, counts), lines


def _make_chance_line(section: Section, by_layer: bool, ranked: bool) -> list[str]:
    chances = [column.chance for column in section.columns]
    line = ["chance", "", ""] if by_layer else ["chance", ""]
    line += ["-" if chance is None else format_percent(chance) for chance in chances]
    known = [chance for chance in chances if chance is not None]
    if ranked:
        line += [format_percent(sum(known) / len(known)) if len(known) == len(chances) else "-", ""]
    return line


def _list_scores(column: int, rivals: Sequence[Row]) -> list[float]:
    return [cell.score for row in rivals if (cell := row.cells[column]) is not None and cell.score is not None]


def _pick_mark(index: int) -> str:
    return MARKS[index % len(MARKS)] * (index // len(MARKS) + 1)


def list_remarks(section: Section, by_layer: bool, dress: Dress) -> list[str]:
    """What must be read with a table: what is printed, how it was made, flags and numbered notes.

    Args:
        section: the table.
        by_layer: one row a layer?
        dress: of the format.
    """
    best, clean = dress.best, dress.clean
    shown = section.results
    texts = []
    if shown:
        metrics = sorted({result.metric for result in shown})
        per = "each encoder and column" if by_layer else "each column"
        texts.append(
            f"Scores: {clean(' and '.join(metrics))} in percent, higher is better, the best of {per} {best}; "
            "n: clips tested, over all rounds; -: not run."
        )
        if not by_layer and any(cell.p_worse is not None for row in section.rows for cell in row.cells if cell):
            texts.append(
                f"Scores {dress.equal} are not significantly worse than the best of their column (paired test on the same "
                f"clips, whole groups together, Holm's correction over all pairs of rows of the table, {100 * LEVEL:.0f} %)."
            )
        for name in dict.fromkeys(row.published for row in section.rows if row.published):
            texts.append(
                clean(
                    f"Published, not measured here, and not ranked: {name}; in brackets what ours is above it, where the "
                    "encoder is the same; protocols may differ"
                )
                + "."
            )
        n_seeds = sorted({len(cell.results) for row in section.rows for cell in row.cells if cell and cell.results})
        if n_seeds[-1] > 1:
            seeds = str(n_seeds[0]) if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]}"
            texts.append(f"Scores are means over {seeds} seeds.")
        if any(cell.interval for row in section.rows for cell in row.cells if cell):
            methods = _make_sentences(result.interval_method for result in shown)
            texts.append(
                "±: half the width of the 95 % interval, which need not lie evenly around the score; its ends are in "
                "the CSV. " + clean(" ".join(methods))
            )
        described = _make_sentences(result.protocol_description for result in shown)
        texts += [clean(f"Protocol {section.protocol}: {text}") for text in described]
        if not by_layer and len(section.columns) > 1 and any(row.rank is not None for row in section.rows):
            texts.append(
                "average: mean over the tasks; rank: mean over the tasks of the place among the rows that have every "
                "task, 1 the best, ties share the mean of their places; rows without every task have neither."
            )
    texts += [
        f"{dress.mark(_pick_mark(index))} {clean(FLAG_MEANINGS.get(flag, flag))}."
        for index, flag in enumerate(section.flags)
    ]
    texts += [f"[{index + 1}] {clean(note.rstrip('.'))}." for index, note in enumerate(section.notes)]
    return texts


def _make_sentences(texts: Iterable[str]) -> list[str]:
    """Each text once, as a sentence."""
    cleaned = (" ".join(text.split()).rstrip(".") for text in texts)
    return [f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(cleaned) if text]
