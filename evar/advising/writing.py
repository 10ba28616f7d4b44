"""Advice as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evar.advising.sentences import describe_task
from evar.advising.tables import (
    LEFT_HEADER,
    describe_places,
    list_left_out,
    list_rank_lines,
    list_task_lines,
    make_plain_ranks,
    make_plain_task,
)
from evar.config.plain_text import make_printable
from evar.report.tables.layout import escape_markdown
from evar.report.tables.markdown import format_markdown_table
from evar.report.tables.terminal import format_text_table

if TYPE_CHECKING:
    from evar.advising.answer import Advice

_WIDTH = 120
SCHEMA = 1
NOTES = (
    "validation: mean score on validation clips, by which encoder and layer are chosen; it has no interval, because it only "
    "orders the candidates. test score: of clips that chose "
    "nothing, in percent, with the 95 % interval of a bootstrap over whole groups. against the choice: difference in "
    "points with its paired 95 % interval.",
    "better, worse: significant at 5 % by a paired test on the same clips, corrected over the table (Holm). tie: two "
    "one-sided tests, corrected too, say that the difference is below {tie:g} points. cannot tell: neither; the number of "
    "further test clips (of new recordings) gives a chance of 80 % to see a difference as large as the observed one, "
    "which may itself be off.",
    "s per s of audio: seconds of encoding for a second of audio{where}; they have no interval, because they are one total "
    "of all clips and only order the candidates by cost; *: nothing that fits is as good and as cheap. "
    "licence: of the checkpoint; commercial: whether it allows commercial use by the table of evar.config.licences, which "
    "is no legal advice and says nothing about the data of the training.",
)
RANK_NOTE = (
    "rank: mean over tasks, 1 the best, by test scores, with the 95 % interval over draws of the tasks (three or more). "
    "One feature an encoder is read on all tasks, the one with the best mean rank on their validation clips. Ranks by "
    "validation and scores of single tasks have no interval here, because they only order the candidates. Differences "
    "are means over tasks, with an interval by Student's t and p by flipping signs of tasks."
)


def format_text(found: Advice) -> str:
    """Write answer, tables and notes as text for a terminal."""
    answer = [textwrap.fill(make_printable(line, one_line=True), _WIDTH) for line in found.answer.splitlines()]
    parts = ["\n".join(answer)]
    for title, header, lines, left in _list_tables(found):
        table = format_text_table([header], lines, 2, _WIDTH) if lines else ""
        more = format_text_table([LEFT_HEADER], left, 3, _WIDTH) if left else ""
        parts += [text for text in (make_printable(title, one_line=True), table, more) if text]
    notes = [textwrap.fill(make_printable(note), _WIDTH, subsequent_indent="  ") for note in list_notes(found)]
    parts += ["\n".join(notes)] if notes else []
    if found.commands:
        parts.append("What would tell more:\n" + "\n".join(f"  {make_printable(line)}" for line in found.commands))
    return "\n\n".join(parts)


def format_markdown(found: Advice, *, picture: bool = False) -> str:
    """Write answer, tables and notes as Markdown.

    Args:
        found: the advice.
        picture: does `advice.png` lie beside it?
    """
    parts = ["# Advice", *map(escape_markdown, found.answer.splitlines())]
    if picture:
        parts.append("![Score against cost](advice.png)")
    for title, header, lines, left in _list_tables(found):
        parts.append(f"## {escape_markdown(title)}")
        one = next((advice for advice in found.tasks if advice.task == title), None)
        if one is not None and len(found.tasks) > 1:
            parts.append(escape_markdown(" ".join(describe_task(one))))
        for names, body in ((header, lines), (list(LEFT_HEADER), left)):
            if body:
                cells = [[escape_markdown(text) for text in line] for line in body]
                parts.append(format_markdown_table([escape_markdown(name) for name in names], cells, 2))
    notes = list_notes(found)
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape_markdown(note)}" for note in notes)]
    if found.commands:
        parts += ["## What would tell more", "```sh\n" + "\n".join(map(make_printable, found.commands)) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _list_tables(found: Advice) -> list[tuple[str, list[str], list[list[str]], list[list[str]]]]:
    """List the tables: title, header, lines, and lines of what is left out."""
    tables = []
    if found.over_tasks is not None:
        title = "Over similar tasks" if found.new_task else "Over all tasks"
        tables.append((title, *list_rank_lines(found.over_tasks), list_left_out(found.over_tasks.left_out)))
    for one in found.tasks:
        tables.append((one.task, *list_task_lines(one), list_left_out(one.left_out)))
    if found.unmeasured:
        fits = [
            [one.encoder, textwrap.shorten(one.description, 60), textwrap.shorten(one.licence, 30), one.commercial]
            for one in found.unmeasured
            if not one.misfits
        ]
        tables.append(("Encoders without rows", ["encoder", "what it is", "licence", "commercial"], fits, []))
    return tables


def list_notes(found: Advice) -> list[str]:
    """List how to read the tables, and where the numbers are from."""
    if not found.tasks and found.over_tasks is None:
        left = [one.encoder for one in found.unmeasured if one.misfits]
        return [*found.notes, *([f"Left out by licence: {', '.join(left)}."] if left else [])]
    facts = [one.facts for advice in found.tasks for one in (*advice.fitting, *advice.left_out)]
    if found.over_tasks is not None:
        facts += [one.facts for one in (*found.over_tasks.fitting, *found.over_tasks.left_out)]
    place = describe_places(facts)
    texts = [*NOTES, *([RANK_NOTE] if found.over_tasks is not None else [])]
    if not found.tasks:
        texts = [RANK_NOTE, NOTES[2].replace("; *: nothing that fits is as good and as cheap", "")]
    tie = 100 * found.request["tie"]
    return [*found.notes, *(text.format(tie=tie, where=f", on {place}" if place else "") for text in texts)]


def format_json_text(found: Advice) -> str:
    """Write everything as JSON: the request, the answer, and each number with the ids of its rows."""
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "request": dict(found.request),
        "answer": found.answer,
        "new_task": found.new_task,
        "tasks": [make_plain_task(one) for one in found.tasks],
        "over_tasks": None if found.over_tasks is None else make_plain_ranks(found.over_tasks),
        "unmeasured": [_plain(one) for one in found.unmeasured],
        "notes": list_notes(found),
        "commands": list(found.commands),
        "seed": 0,
    }
    return json.dumps(data, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(one: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for key, value in asdict(one).items()}  # fmt: skip
