"""Plain sentences about a table, which follow from its numbers and from the tests between them."""

from __future__ import annotations

from collections.abc import Sequence

from evar.report.plots.ranks import rank_rows
from evar.report.tables.compared import is_equal
from evar.report.tables.section import Cell, Row, Section, is_better
from evar.report.where import Reading
from evar.webpage.context import count_noun, join_words, name_row

N_SENTENCES = 3


def describe_comparison(section: Section) -> str:
    """Say in one sentence what a table compares, and how."""
    ours = [row for row in section.rows if not row.published]
    encoders = list(dict.fromkeys(row.encoder for row in ours))
    tasks = list(dict.fromkeys(column.task for column in section.columns))
    text = f"{count_noun(len(encoders), 'encoder')} ({join_words(encoders)}) on "
    text += f"{count_noun(len(tasks), 'task')} ({join_words(tasks)}) under the protocol {section.protocol or 'none'}"
    if section.protocol_version:
        text += f", version {section.protocol_version}"
    if section.limit:
        text += f", on at most {section.limit} clips of each split or fold"
    described = [" ".join(result.protocol_description.split()).split("; ")[0].rstrip(".") for result in section.results]
    found = next((one for one in described if one), "")
    return f"{text}: {found[0].lower()}{found[1:]}." if found else f"{text}."


def describe_findings(section: Section, readings: Sequence[Reading] = ()) -> list[str]:
    """Say in three sentences, or fewer where there is less to say, what a table shows.

    Args:
        section: its cells know whether they are significantly worse than the best of their column.
        readings: the layers that validation clips choose.

    Returns:
        The overall lead, the leads on single tasks, and where another layer helps or what is not above chance.
    """
    rows = [row for row in section.rows if not row.published]
    found = [
        _describe_overall(section, rows),
        *_describe_tasks(section, rows),
        _describe_layers(section, readings),
        _describe_chance(section, rows),
        _describe_gaps(section, rows),
    ]
    return [text for text in found if text][:N_SENTENCES]


def _describe_overall(section: Section, rows: Sequence[Row]) -> str:
    """Say who is best over all tasks, and whether the next one is worse beyond chance."""
    if len(section.columns) < 2:
        return ""
    ranking = rank_rows(section)
    if not isinstance(ranking, str):
        names, ranks = ranking
        order = sorted(range(len(names)), key=lambda row: ranks.ranks[row])
        first, values = order[0], ranks.ranks
        same = [names[row] for row in order[1:] if values[row] - values[first] < ranks.critical]
        start = f"{names[first]} has the best mean rank over {ranks.n_tasks} tasks, {values[first]:.2f}"
        if same:
            return f"{start}, but its lead over {join_words(same, 4)} is not significant (Nemenyi, 5 %)."
        return f"{start}, and every other row is significantly behind it (Nemenyi, 5 %)."
    scored = sorted((row for row in rows if row.average is not None), key=lambda row: -(row.average or 0.0))
    if len(scored) < 2:
        return ""
    best, second = scored[:2]
    return (
        f"{name_row(best)} has the best average over {count_noun(len(section.columns), 'task')}, "
        f"{100 * (best.average or 0.0):.1f} %, before {name_row(second)} with {100 * (second.average or 0.0):.1f} %; "
        "so few tasks allow no test of averages."
    )


def _describe_tasks(section: Section, rows: Sequence[Row]) -> list[str]:
    """Say on which tasks one row leads beyond chance, and where the lead is too small to tell."""
    clear: dict[str, list[str]] = {}
    open_leads = []
    for index, column in enumerate(section.columns):
        scored = [(row, cell) for row in rows if (cell := row.cells[index]) is not None and cell.score is not None]
        scored.sort(key=lambda entry: -(entry[1].score or 0.0))
        if len(scored) < 2:
            continue
        best, rest = scored[0], scored[1:]
        equals = [entry for entry in rest if _is_open(entry[1], best[1].score or 0.0)]
        if equals:
            open_leads.append((best, equals, column.label))
        else:
            clear.setdefault(name_row(best[0]), []).append(column.label)
    sentences = []
    if open_leads:
        (row, cell), equals, label = max(open_leads, key=lambda lead: lead[0][1].score or 0.0)
        nearest, its_cell = equals[0]
        more = f", nor is that over {count_noun(len(equals) - 1, 'other')}" if len(equals) > 1 else ""
        verdict = f"is not significant{more}"
        if its_cell.p_worse is None and is_better(cell.score or 0.0, its_cell.score or 0.0):
            verdict = "was not tested, since the two have no predictions for the same clips"
        sentences.append(
            f"{name_row(row)} is best on {label} ({100 * (cell.score or 0.0):.1f} %), but its lead over "
            f"{name_row(nearest)} ({100 * (its_cell.score or 0.0):.1f} %) {verdict}."
        )
    if clear:
        leads = [f"{name} on {join_words(tasks, 4)}" for name, tasks in clear.items()]
        sentences.append(f"Significantly better than every other row: {join_words(leads, 4)}.")
    return sentences


def _is_open(cell: Cell, best: float) -> bool:
    """May the cell be as good as the best of its column: a tie, a difference within chance, or one that was not tested?"""
    return cell.score is not None and (not is_better(best, cell.score) or cell.p_worse is None or is_equal(cell, best))


def _describe_layers(section: Section, readings: Sequence[Reading]) -> str:
    own = [one for one in readings if (one.protocol, one.limit) == (section.protocol, section.limit)]
    tested = [one for one in own if one.gain is not None]
    if not tested:
        return ""
    better = [one for one in tested if one.gain is not None and one.gain.score > 0 and (one.p_value or 0.0) < 0.05]
    if not better:
        return (
            f"In none of {count_noun(len(tested), 'case')} does the layer that validation clips choose beat the encoder's "
            "default layer beyond chance."
        )
    most = max(better, key=lambda one: one.gain.score if one.gain else 0.0)
    gain = 100 * most.gain.score if most.gain else 0.0
    return (
        f"Another layer than the default is significantly better in {len(better)} of {count_noun(len(tested), 'case')}; "
        f"most of all {most.best.label} of {most.encoder} on {most.task}, by {gain:.1f} points."
    )


def _describe_chance(section: Section, rows: Sequence[Row]) -> str:
    """Say which rows are not above guessing."""
    found = []
    for index, column in enumerate(section.columns):
        for row in rows:
            cell = row.cells[index]
            if column.chance is not None and cell and cell.interval and cell.interval[0] <= column.chance:
                found.append(f"{name_row(row)} on {column.label}")
    if not found:
        known = [column for column in section.columns if column.chance is not None]
        return "Every score is above chance with its whole 95 % interval." if known and rows else ""
    return f"Not distinguishable from guessing, as the 95 % interval reaches down to chance: {join_words(found, 4)}."


def _describe_gaps(section: Section, rows: Sequence[Row]) -> str:
    n_failed = sum(cell is not None and cell.score is None for row in rows for cell in row.cells)
    n_scored = sum(cell is not None and cell.score is not None for row in rows for cell in row.cells)
    if n_failed:
        return f"{count_noun(n_failed, 'cell')} of the table failed; the reasons stand below it."
    return f"The table has {count_noun(n_scored, 'score')}, and no cell of it failed."
