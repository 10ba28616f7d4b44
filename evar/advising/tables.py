"""Tables of advice: for a terminal, for Markdown, and plain data for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evar.advising.sentences import describe_need, format_difference, format_score
from evar.advising.verdicts import OPEN, Verdict
from evar.config.plain_text import make_printable
from evar.report.tables.costs import describe_place, format_count

if TYPE_CHECKING:
    from evar.advising.candidates import Facts
    from evar.advising.many_tasks import RankedAdvice, RankedCandidate
    from evar.advising.one_task import Candidate, TaskAdvice

TASK_HEADER = ("encoder", "read", "validation", "test score", "against the choice", "verdict")
RANK_HEADER = ("encoder", "read", "rank by validation", "rank by test", "against the choice", "verdict")
COST_HEADER = ("s per s of audio", "width", "parameters", "licence", "commercial")
LEFT_HEADER = ("encoder", "why it is left out", "licence")


def list_task_lines(advice: TaskAdvice) -> tuple[list[str], list[list[str]]]:
    """Return the header and the lines of the table of candidates that fit the wishes, the choice first."""
    header = [*TASK_HEADER, *COST_HEADER]
    with_labels = advice.wishes.labels is not None
    if with_labels:
        header.insert(4, f"with {advice.wishes.labels} labels")
    lines = []
    for one in advice.fitting:
        feature = one.feature
        assert feature is not None
        read = feature.label
        if feature.n_agree < feature.n_rounds:
            read += f" ({feature.n_agree} of {feature.n_rounds} folds)"
        line = [
            one.facts.encoder,
            read,
            "-" if feature.valid_score is None else f"{100 * feature.valid_score:.1f}",
            format_score(feature.score, feature.interval).replace(" %", ""),
            *_describe_verdict(one.verdict, "clips"),
            *_list_costs(one.facts, feature.width, one.is_on_front),
        ]
        if with_labels:
            line.insert(4, _format_labels(one))
        lines.append(line)
    return header, lines


def list_rank_lines(advice: RankedAdvice) -> tuple[list[str], list[list[str]]]:
    """Return header and lines of the table over several tasks: the choice first, a column of scores for each task."""
    header = [*RANK_HEADER, *advice.tasks, *COST_HEADER]
    lines = []
    for one in advice.fitting:
        interval = "" if one.rank_low is None else f" ({one.rank_low:.1f} to {one.rank_high:.1f})"
        lines.append([
            one.facts.encoder,
            one.label,
            "-" if one.valid_rank is None else f"{one.valid_rank:.2f}",
            f"{one.rank:.2f}{interval}",
            *_describe_verdict(one.verdict, "tasks"),
            *(f"{100 * one.scores[task]:.1f}" for task in advice.tasks),
            *_list_costs(one.facts, one.width, False),
        ])  # fmt: skip
    return header, lines


def list_left_out(left_out: Sequence[Candidate | RankedCandidate]) -> list[list[str]]:
    """List a line for each candidate that does not fit the wishes: encoder, reasons and licence."""
    return [[one.facts.encoder, "; ".join(one.misfits), one.facts.licence] for one in left_out]


def _describe_verdict(verdict: Verdict | None, unit: str) -> list[str]:
    if verdict is None:
        return ["", "the choice"]
    word = verdict.word
    if word == OPEN:
        word = f"{word}: {describe_need(verdict, unit)}".replace(" would show it", "")
    return [format_difference(verdict) or "-", word]


def _list_costs(facts: Facts, width: int | None, is_on_front: bool) -> list[str]:
    cost = "not measured" if facts.seconds_per_second is None else f"{facts.seconds_per_second:.3g}"
    return [
        cost + (" *" if is_on_front else ""),
        "-" if width is None else str(width),
        format_count(facts.parameters),
        make_printable(facts.licence, one_line=True),
        facts.commercial,
    ]


def _format_labels(one: Candidate) -> str:
    found = one.at_labels
    if found is None or (found.score is None and found.low is None):
        return "not measured"
    if found.score is None:
        return f"{100 * (found.low or 0):.1f} to {'?' if found.high is None else f'{100 * found.high:.1f}'}"
    interval = None if found.low is None or found.high is None else (found.low, found.high)
    return format_score(found.score, interval).replace(" %", "")


def describe_places(facts: Sequence[Facts]) -> str:
    """Say where costs were measured; "" where nothing was."""
    found = dict.fromkeys(describe_place(one.device, one.threads) for one in facts if one.device)
    return " or ".join(found)


def make_plain_task(advice: TaskAdvice) -> dict[str, Any]:
    """Return the advice on a task as plain data for JSON; scores are fractions, 0..1."""
    return {
        "task": advice.task,
        "metric": advice.metric,
        "chance": advice.chance,
        "n_test": advice.n_test,
        "protocol": advice.protocol,
        "protocol_version": advice.protocol_version,
        "limit": advice.limit,
        "chosen_by": advice.chosen_by,
        "without_conditions": None
        if advice.without_conditions is None
        else make_plain_candidate(advice.without_conditions),
        "candidates": [make_plain_candidate(one) for one in (*advice.fitting, *advice.left_out)],
    }


def make_plain_candidate(one: Candidate) -> dict[str, Any]:
    """Return a candidate as plain data for JSON; scores are fractions, 0..1."""
    feature = one.feature
    found: dict[str, Any] = {
        "facts": asdict(one.facts),
        "fits": not one.misfits,
        "misfits": list(one.misfits),
        "is_choice": one.verdict is None and not one.misfits,
        "is_on_front": one.is_on_front,
        "verdict": None if one.verdict is None else asdict(one.verdict),
        "at_labels": None if one.at_labels is None else asdict(one.at_labels),
    }
    if feature is not None:
        found |= {
            "layers": list(feature.key[0]),
            "fusion": feature.key[1],
            "pooling": dict(feature.first.pooling),
            "width": feature.width,
            "chosen_by": feature.chosen_by,
            "n_agree": feature.n_agree,
            "n_rounds": feature.n_rounds,
            "valid_score": feature.valid_score,
            "score": feature.score,
            "interval": None if feature.interval is None else list(feature.interval),
            "rows": [row.id for row in feature.rows],
        }
    return found


def make_plain_ranks(advice: RankedAdvice) -> dict[str, Any]:
    """Return the advice over several tasks as plain data for JSON."""
    return {
        "tasks": list(advice.tasks),
        "chosen_by": advice.chosen_by,
        "candidates": [_plain_ranked(one) for one in (*advice.fitting, *advice.left_out)],
    }


def _plain_ranked(one: RankedCandidate) -> Mapping[str, Any]:
    found = {**asdict(one), "fits": not one.misfits, "is_choice": one.verdict is None and not one.misfits}
    key = found.pop("key")
    return {**found, "layers": list(key[0]) if key else [], "fusion": key[1] if key else "", "scores": dict(one.scores)}
