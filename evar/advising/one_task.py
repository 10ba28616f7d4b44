"""Advice on one task from the rows of that task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evar.advising.candidates import Facts, collect_facts
from evar.advising.features import Feature, Rows, choose_feature, choose_task_rows, group_features
from evar.advising.labels import LabelScore, estimate_at_labels
from evar.advising.verdicts import Verdict, judge, observe_clips
from evar.advising.wishes import Wishes
from evar.report.tables.labels import label_encoder, make_variant_key
from evar.results import Result
from evar.results.costs import CostRecord

#: first words of protocols whose rows are taken only where there are no others: they train the encoder, have few labels or
#: none, or ask another question
_OTHER_PROTOCOLS = (
    *("finetune", "fewshot", "curve", "mteb"),
    *("zero_shot", "retrieval", "sound_retrieval", "clustering", "pairs"),
)


@dataclass(frozen=True)
class Source:
    """Where the rows lie, and which of them count.

    Attributes:
        out: results folder.
        rows: of the folder.
        costs: records of the folder.
        store: folder of the feature store, or None.
        protocol: name, or "" for the one that most encoders have.
    """

    out: Path
    rows: Sequence[Result]
    costs: Sequence[CostRecord] = ()
    store: Path | None = None
    protocol: str = ""


@dataclass(frozen=True)
class Candidate:
    """One encoder, what to read of it, and how it compares.

    Attributes:
        facts: licence, cost, size.
        feature: what to read, and its scores; None where nothing of it fits.
        misfits: reasons why it is left out; empty for one that fits.
        verdict: against the choice; None for the choice itself and for what is left out.
        at_labels: its score at the number of labels that was asked for.
        is_on_front: no other that fits is at least as good and at least as cheap, as far as costs were measured.
    """

    facts: Facts
    feature: Feature | None
    misfits: tuple[str, ...] = ()
    verdict: Verdict | None = None
    at_labels: LabelScore | None = None
    is_on_front: bool = False


@dataclass(frozen=True)
class TaskAdvice:
    """What to read for one task.

    Attributes:
        task, metric, chance, n_test: of the rows.
        protocol, protocol_version, limit: of the rows.
        choice: the candidate that fits and has the best validation score; None if none fits.
        others: that fit too, the best first.
        left_out: do not fit, the best first.
        chosen_by: "validation", or "test" where no row tells validation scores.
        wishes: conditions.
        without_conditions: what the choice would be without conditions, where it is another; else None.
    """

    task: str
    metric: str
    chance: float | None
    n_test: int
    protocol: str
    protocol_version: str
    limit: int | None
    choice: Candidate | None
    others: tuple[Candidate, ...]
    left_out: tuple[Candidate, ...]
    chosen_by: str
    wishes: Wishes
    without_conditions: Candidate | None = None

    @property
    def fitting(self) -> tuple[Candidate, ...]:
        """The choice and the others."""
        return (self.choice, *self.others) if self.choice else self.others


def choose_rows(source: Source, task: str) -> list[Result]:
    """Return the rows of a task that answer the question: of one protocol, version and limit.

    Of several, the one that most encoders have; of equals, without a limit before with one, `linear` before others, and
    the newer version.

    Args:
        source: where the rows lie.
        task: name.

    Raises:
        ValueError: if the task has rows, but none of the protocol that was asked for.
    """
    own = [row for row in source.rows if row.task == task]
    if source.protocol:
        chosen = [row for row in own if row.protocol == source.protocol]
        if own and not chosen:
            known = sorted({row.protocol for row in own})
            raise ValueError(f"no rows of {task} under the protocol {source.protocol!r}; there are {', '.join(known)}")
        own = chosen
    elif any(not row.protocol.startswith(_OTHER_PROTOCOLS) for row in own):
        own = [row for row in own if not row.protocol.startswith(_OTHER_PROTOCOLS)]
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for row in own:
        version = str(row.params.get("protocol_version", ""))
        groups.setdefault((row.protocol, version, row.limit or 0), []).append(row)

    def rate(key: tuple[str, str, int]) -> tuple[Any, ...]:
        return len({row.encoder for row in groups[key]}), key[2] == 0, key[0] == "linear", key[2], key[1]

    return choose_task_rows(groups[max(groups, key=rate)], task) if groups else []


def group_encoders(rows: Sequence[Result]) -> dict[str, list[Result]]:
    """Sort rows by encoder, by the label that tells variants of one encoder apart."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in rows:
        groups.setdefault((row.encoder, make_variant_key(row)), []).append(row)
    firsts = [found[0] for found in groups.values()]
    return {label_encoder(found[0], firsts): found for _, found in sorted(groups.items())}


def advise_on_task(source: Source, task: str, wishes: Wishes) -> TaskAdvice:
    """Choose encoder and feature for a task on validation clips, and compare the others with it on test clips.

    Args:
        source: rows of the results folder; it must have some of the task.
        task: name.
        wishes: conditions.

    Raises:
        ValueError: if there is no row of the task under the protocol.
    """
    rows = choose_rows(source, task)
    if not rows:
        raise ValueError(f"no rows of the task {task!r} in {source.out}")
    advice = _advise_on_rows(source, rows, wishes)
    free = Wishes(tie=wishes.tie, labels=wishes.labels)
    if wishes == free:
        return advice
    other = _advise_on_rows(source, rows, free, compare=False).choice
    is_same = other is None or (advice.choice is not None and _name_reading(other) == _name_reading(advice.choice))
    return replace(advice, without_conditions=None if is_same else other)


def _name_reading(one: Candidate) -> tuple[Any, ...]:
    return one.facts.encoder, one.feature.key if one.feature else None


def _advise_on_rows(source: Source, rows: Sequence[Result], wishes: Wishes, *, compare: bool = True) -> TaskAdvice:
    """Choose and compare; `rows` are of one task and protocol."""
    made = [_make_candidate(label, found, source, wishes) for label, found in group_encoders(rows).items()]
    fitting = [one for one in made if not one.misfits]
    has_valid = any(one.feature and one.feature.valid_score is not None for one in fitting)
    fitting.sort(key=lambda one: _rate(one, has_valid), reverse=True)
    left_out = sorted((one for one in made if one.misfits), key=lambda one: -(one.feature.score if one.feature else -1))
    fitting = mark_front(fitting)
    judged = _judge_others(fitting, wishes, by_test=not has_valid) if compare else fitting
    judged[1:] = sorted(judged[1:], key=lambda one: -(one.feature.score if one.feature else 0.0))
    first = rows[0]
    chances = [row.chance for row in rows if row.chance is not None]
    return TaskAdvice(
        first.task,
        first.metric,
        chances[0] if chances else None,
        Counter(row.n_test for row in rows).most_common(1)[0][0],
        first.protocol,
        str(first.params.get("protocol_version", "")),
        first.limit,
        judged[0] if judged else None,
        tuple(judged[1:]),
        tuple(left_out),
        "validation" if has_valid else "test",
        wishes,
    )


def _rate(one: Candidate, has_valid: bool) -> tuple[float, float, float]:
    """Return what the choice among encoders goes by: validation score (test score where none is known), then low cost."""
    assert one.feature is not None
    score = one.feature.score if not has_valid else one.feature.valid_score
    cost = one.facts.seconds_per_second
    return -1.0 if score is None else score, -(cost if cost is not None else 1e9), -float(one.feature.width or 0)


def _make_candidate(label: str, rows: Sequence[Result], source: Source, wishes: Wishes) -> Candidate:
    facts = collect_facts(label, rows, source.costs, source.store)
    features = group_features(rows)
    misfits = find_misfits(facts, features, wishes)
    if misfits:
        return Candidate(facts, choose_feature(features, source.out), tuple(misfits))
    feature = choose_feature(features, source.out, make_filter(facts, wishes))
    at_labels = None
    if wishes.labels is not None and feature is not None:
        at_labels = estimate_at_labels(source.rows, feature, wishes.labels, source.out)
    return Candidate(facts, feature, (), None, at_labels)


def make_filter(facts: Facts, wishes: Wishes) -> Callable[[Result], bool]:
    """Make a function that tells whether a row of an encoder fits the wishes."""

    def fits(row: Result) -> bool:
        return not wishes.find_misfit(
            facts.commercial,
            width=row.width,
            parameters=facts.parameters,
            seconds_per_second=facts.seconds_per_second,
        )

    return fits


def find_misfits(facts: Facts, features: Rows | Mapping[Any, Mapping[int, Result]], wishes: Wishes) -> list[str]:
    """List why no feature of an encoder may be recommended; empty if one may."""
    found = [facts.hindrance] if facts.hindrance else []
    rows = [next(iter(seeds.values())) for seeds in features.values()]
    fits = make_filter(facts, wishes)
    if any(map(fits, rows)):
        return found
    narrowest = min((row.width for row in rows if row.width is not None), default=None)
    return found + wishes.find_misfit(
        facts.commercial,
        width=narrowest,
        parameters=facts.parameters,
        seconds_per_second=facts.seconds_per_second,
    )


def mark_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Mark the candidates that no other beats on score and cost; those without a measured cost are not on the front."""
    points = [(one.facts.seconds_per_second, one.feature.score if one.feature else -1.0) for one in candidates]

    def is_beaten(cost: float, score: float) -> bool:
        return any(
            other is not None and other <= cost and its >= score and (other < cost or its > score)
            for other, its in points
        )

    return [
        replace(one, is_on_front=cost is not None and not is_beaten(cost, score))
        for one, (cost, score) in zip(candidates, points, strict=True)
    ]


def _judge_others(fitting: Sequence[Candidate], wishes: Wishes, *, by_test: bool) -> list[Candidate]:
    """Return the candidates, each but the first with its verdict against the first."""
    if len(fitting) < 2:
        return list(fitting)
    choice = fitting[0].feature
    observed = [
        observe_clips(one.feature.tested if one.feature else None, choice.tested if choice else None)
        for one in fitting[1:]
    ]
    n_pairs = len(fitting) * (len(fitting) - 1) // 2 if by_test else None
    verdicts = judge(observed, wishes.tie, n_pairs=n_pairs)
    return [fitting[0], *(replace(one, verdict=verdict) for one, verdict in zip(fitting[1:], verdicts, strict=True))]
