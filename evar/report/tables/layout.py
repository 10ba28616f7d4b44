"""Lay out the cells of one table: rows, columns, marks and remarks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from evar.config.plain_text import make_printable
from evar.report.tables.compared import LEVEL, is_equal
from evar.report.tables.costs import HEADINGS, explain_costs, format_cost, has_costs
from evar.report.tables.section import Cell, Row, Section, is_better

MARKS = ("†", "‡", "§", "¶")


FLAG_MEANINGS = {
    "random weights": "random weights: an untrained network, not the published encoder",
    "after_pool": "layers were averaged or weighted after pooling over time, which is not the same as before it unless the "
    "pooling is the mean",
    "trained on this data": "trained on this data: the encoder's card names the task's data set among what its weights saw",
    "task statistics": "the encoder's input was normalised by statistics of all clips, test clips among them (no labels)",
}


def count_text_columns(by_layer: bool) -> int:
    """First columns of a table that name a row.

    Example:
        >>> count_text_columns(by_layer=False), count_text_columns(by_layer=True)
        (2, 3)
    """
    return 3 if by_layer else 2


def _join_lines(text: str) -> str:
    return make_printable(text, one_line=True)


def escape_markdown(text: str) -> str:
    r"""Escape a text, so that a table cell of Markdown shows it unchanged; names with underscores stay readable.

    Example:
        >>> print(escape_markdown("a|b *c* silero_vad _d_"))
        a\|b \*c\* silero_vad \_d\_
    """
    text = re.sub(r"([\\|*`<>\[\]~&])", r"\\\1", make_printable(text, one_line=True))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def format_percent(score: float, interval: tuple[float, float] | None = None) -> str:
    """Format a fraction in percent, and half the width of its interval.

    Example:
        >>> format_percent(0.853, (0.82, 0.882))
        '85.3 ± 3.1'
    """
    half_width = "" if interval is None else f" ± {50 * (interval[1] - interval[0]):.1f}"
    return f"{100 * score:.1f}{half_width}"


@dataclass(frozen=True)
class Dress:
    """The style of a table's texts in one format.

    Attributes:
        bold: of the best.
        underline: marks scores that are not significantly worse than the best.
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
    """Lay out one table as texts, chance last.

    Args:
        section: the table.
        by_layer: one row a layer: a depth column, the best layer of each encoder stands out, no average and rank.
        dress: of the format.

    Returns:
        The header (names, and numbers of clips), and the lines.
    """
    ranked = not by_layer and len(section.columns) > 1 and any(row.rank is not None for row in section.rows)
    header = ["encoder", "layer", "depth"] if by_layer else ["encoder", "layers"]
    counts = [""] * len(header) + [f"n={column.n_test}" if column.n_test else "" for column in section.columns]
    header += [dress.clean(column.label) for column in section.columns]
    if ranked:
        more = ["average", "rank"] if has_average(section) else ["rank"]
        header, counts = [*header, *more], [*counts, *("" for _ in more)]
    with_costs = not by_layer and has_costs(section)
    if with_costs:
        header, counts = [*header, *HEADINGS], [*counts, *("" for _ in HEADINGS)]
    marks = {flag: _pick_mark(index) for index, flag in enumerate(section.flags)}
    lines = []
    for row in section.rows:
        line = [*_name_row(row, by_layer, dress, marks), *_lay_out_row(section, row, by_layer, dress, marks)]
        line += _format_averages(section, row, dress) if ranked else []
        lines.append(line + (format_cost(row.cost) if with_costs else []))
    if any(column.chance is not None for column in section.columns):
        lines.append(_make_chance_line(section, by_layer, ranked) + [""] * (len(HEADINGS) if with_costs else 0))
    return (header, counts), lines


def _name_row(row: Row, by_layer: bool, dress: Dress, marks: Mapping[str, str]) -> list[str]:
    """Write the first cells of a row: encoder with its flags, layers, and depth."""
    flags = dress.mark(",".join(marks[flag] for flag in row.flags)) if row.flags else ""
    names = [dress.clean(row.encoder) + flags, dress.clean(row.layers)]
    if by_layer:
        names[1] += " (default)" if row.first is not None and row.first.default else ""
        names.append("" if row.depth is None else f"{row.depth:.2f}")
    return names


def _lay_out_row(section: Section, row: Row, by_layer: bool, dress: Dress, marks: Mapping[str, str]) -> list[str]:
    """Write the scores of a row: the best in bold, and in the main table those not significantly worse underlined."""
    numbers = {note: str(index + 1) for index, note in enumerate(section.notes)}
    ours = [other for other in section.rows if not other.published]
    rivals = [other for other in ours if not by_layer or other.encoder == row.encoder]
    texts = []
    for column, cell in enumerate(row.cells):
        if cell is None:
            texts.append("-")
            continue
        text = "failed" if cell.score is None else format_percent(cell.score, cell.interval)
        text = text.replace("±", dress.plus_minus)
        if cell.score is not None and not row.published:
            text = _emphasise(text, cell, max(_list_scores(column, rivals), default=0.0), by_layer, dress)
        if cell.ours is not None and cell.score is not None:
            text += f" (ours {100 * (cell.ours - cell.score):+.1f})"
        text += "".join(dress.mark(marks[flag]) for flag in cell.flags)
        texts.append(text + "".join(f" [{numbers[note]}]" for note in cell.notes))
    return texts


def _emphasise(text: str, cell: Cell, best: float, by_layer: bool, dress: Dress) -> str:
    """Set a score in bold that is the best, and underline one that is not significantly worse."""
    if cell.score is not None and not is_better(best, cell.score):
        return dress.bold(text)
    return dress.underline(text) if not by_layer and cell.p_worse is not None and is_equal(cell, best) else text


def _format_averages(section: Section, row: Row, dress: Dress) -> list[str]:
    """Write average and mean rank of a row, the best in bold; "-" where it lacks a task."""
    texts = []
    if has_average(section):
        best = max(other.average for other in section.rows if other.average is not None)
        average = "-" if row.average is None else format_percent(row.average)
        texts.append(average if row.average is None or is_better(best, row.average) else dress.bold(average))
    if row.rank is None:
        return [*texts, "-"]
    best_rank = min(other.rank for other in section.rows if other.rank is not None)
    rank = f"{row.rank:.2f}"
    return [*texts, rank if is_better(row.rank, best_rank) else dress.bold(rank)]


def has_average(section: Section) -> bool:
    """Tell whether the scores of a table can be averaged: where its tasks have different metrics, they cannot."""
    return any(row.average is not None for row in section.rows)


def _make_chance_line(section: Section, by_layer: bool, ranked: bool) -> list[str]:
    chances = [column.chance for column in section.columns]
    line = ["chance", "", ""] if by_layer else ["chance", ""]
    line += ["-" if chance is None else format_percent(chance) for chance in chances]
    known = [chance for chance in chances if chance is not None]
    if ranked and has_average(section):
        line.append(format_percent(sum(known) / len(known)) if len(known) == len(chances) else "-")
    if ranked:
        line.append("")
    return line


def _list_scores(column: int, rivals: Sequence[Row]) -> list[float]:
    return [cell.score for row in rivals if (cell := row.cells[column]) is not None and cell.score is not None]


def _pick_mark(index: int) -> str:
    return MARKS[index % len(MARKS)] * (index // len(MARKS) + 1)


def list_remarks(section: Section, by_layer: bool, dress: Dress) -> list[str]:
    """List the remarks below a table: its numbers, how they were made, flags and numbered notes.

    Args:
        section: the table.
        by_layer: one row a layer?
        dress: of the format.
    """
    texts = [*_explain_scores(section, by_layer, dress), *_explain_origin(section, by_layer, dress)]
    if not by_layer and has_costs(section):
        texts.append(dress.clean(explain_costs(section)))
    texts += [
        f"{dress.mark(_pick_mark(index))} {dress.clean(FLAG_MEANINGS.get(flag, flag))}."
        for index, flag in enumerate(section.flags)
    ]
    return texts + [f"[{index + 1}] {dress.clean(note.rstrip('.'))}." for index, note in enumerate(section.notes)]


def _explain_scores(section: Section, by_layer: bool, dress: Dress) -> list[str]:
    """Explain the numbers and the marks of a table."""
    from evar.metrics.named import get_display_name

    shown = section.results
    if not shown:
        return []
    cells = [cell for row in section.rows for cell in row.cells if cell]
    metrics = sorted({get_display_name(result.metric) for result in shown})
    per = "each encoder and column" if by_layer else "each column"
    texts = [
        f"Scores: {dress.clean(' and '.join(metrics))} in percent, higher is better, the best of {per} {dress.best}; "
        "n: clips tested, over all rounds; -: not run."
    ]
    if not by_layer and any(cell.p_worse is not None for cell in cells):
        texts.append(
            f"Scores {dress.equal} are not significantly worse than the best of their column (paired test on the same "
            f"clips, whole groups together, Holm's correction over all pairs of rows of the table, {100 * LEVEL:.0f} %)."
        )
    for name in dict.fromkeys(row.published for row in section.rows if row.published):
        texts.append(
            dress.clean(
                f"Published, not measured here, and not ranked: {name}; in brackets what ours is above it, where the "
                "encoder is the same; protocols may differ"
            )
            + "."
        )
    return texts


def _explain_origin(section: Section, by_layer: bool, dress: Dress) -> list[str]:
    """Explain how scores, intervals and averages were made."""
    shown = section.results
    if not shown:
        return []
    cells = [cell for row in section.rows for cell in row.cells if cell]
    texts = []
    n_seeds = sorted({len(cell.results) for cell in cells if cell.results})
    if n_seeds[-1] > 1:
        seeds = str(n_seeds[0]) if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]}"
        texts.append(f"Scores are means over {seeds} seeds.")
    if any(cell.interval for cell in cells):
        methods = _make_sentences(result.interval_method for result in shown)
        texts.append(
            "±: half the width of the 95 % interval, which need not lie evenly around the score; its ends are in "
            "the CSV. " + dress.clean(" ".join(methods))
        )
    described = _make_sentences(result.protocol_description for result in shown)
    texts += [dress.clean(f"Protocol {section.protocol}: {text}") for text in described]
    if not by_layer and len(section.columns) > 1 and any(row.rank is not None for row in section.rows):
        rank = (
            "rank: mean over the tasks of the place among the rows that have every task, 1 the best, ties share the mean of "
            "their places; rows without every task have "
        )
        if has_average(section):
            texts.append(f"average: mean over the tasks; {rank}neither.")
        else:
            texts.append(f"{rank}none. There is no average, since the tasks have different metrics.")
    return texts


def _make_sentences(texts: Iterable[str]) -> list[str]:
    """Each text once, as a sentence."""
    cleaned = (" ".join(text.split()).rstrip(".") for text in texts)
    return [f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(cleaned) if text]
