"""The answer in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evar.advising.verdicts import BETTER, OPEN, TIE, UNTESTED, WORSE, Verdict
from evar.config.plain_text import make_printable
from evar.report.tables.labels import label_layers

if TYPE_CHECKING:
    from evar.advising.features import FeatureKey
    from evar.advising.many_tasks import RankedAdvice, RankedCandidate
    from evar.advising.one_task import Candidate, TaskAdvice

_FUSIONS = {
    "concat": "layers {} side by side (concat)",
    "average": "the average of layers {}",
    "pca": "the PCA of layers {}",
    "weighted": "the weighted sum of layers {}",
    "attention": "the frames of {} through an attentive probe",
}


def describe_feature(key: FeatureKey) -> str:
    """Say which layer, or which fusion of layers, to read of an encoder.

    Example:
        >>> describe_feature((("conv5",), "none", "{}")), describe_feature((("a", "b"), "concat", "{}"))
        ('layer conv5', 'layers a and b side by side (concat)')
    """
    layers, fusion, _ = key
    if fusion == "none":
        return f"layer {make_printable(layers[0], one_line=True)}"
    names = join_words(layers) if len(layers) <= 4 else label_layers(layers, "concat")
    return _FUSIONS.get(fusion, fusion + " of {}").format(make_printable(names, one_line=True))


def join_words(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    Example:
        >>> join_words(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def format_score(score: float, interval: tuple[float, float] | None) -> str:
    """Write a score in percent with the ends of its interval.

    Example:
        >>> format_score(0.865, (0.824, 0.907))
        '86.5 % (82.4 to 90.7)'
    """
    ends = "" if interval is None else f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * score:.1f} %{ends}"


def format_difference(verdict: Verdict) -> str:
    """Write a difference in percentage points with its interval; "" where there is none.

    Example:
        >>> format_difference(Verdict("worse", -0.08, -0.123, -0.04))
        '-8.0 (-12.3 to -4.0)'
    """
    if verdict.difference is None or verdict.low is None or verdict.high is None:
        return ""
    return f"{100 * verdict.difference:+.1f} ({100 * verdict.low:+.1f} to {100 * verdict.high:+.1f})"


def describe_need(verdict: Verdict, unit: str) -> str:
    """Say how much more data would show the observed difference.

    Args:
        verdict: of a candidate of which the data do not show whether it is better, worse or a tie.
        unit: "test clips" or "tasks".

    Example:
        >>> describe_need(Verdict("cannot tell", -0.01, -0.05, 0.03, power=0.2, n_more=1155), "test clips")
        'about 1,200 more test clips would show it'
    """
    if verdict.difference is not None and abs(verdict.difference) <= 1e-12:
        return "no difference was observed"
    if verdict.n_more is None:
        return f"no realistic number of {unit} would show it"
    return f"about {_round(verdict.n_more):,} more {unit} would show it"


def _round(n: int) -> int:
    """Round to two digits: an estimate has no more."""
    digits = max(0, len(str(n)) - 2)
    return -(-n // 10**digits) * 10**digits


def describe_task(advice: TaskAdvice) -> list[str]:
    """Write the answer for one task: what to read, what is better, tied or open, and what the conditions cost."""
    from evar.metrics.named import get_display_name

    choice = advice.choice
    if choice is None or choice.feature is None:
        n_rows = len(advice.left_out)
        return [
            f"Nothing fits: {n_rows} encoders have rows of {advice.task}, and each fails a condition (listed below)."
        ]
    feature = choice.feature
    name = get_display_name(advice.metric)
    limit = f", of which rows used at most {advice.limit} of each split" if advice.limit else ""
    how = "" if advice.protocol == "linear" else f" under the protocol {advice.protocol}"
    text = f"Read {describe_feature(feature.key)} of {choice.facts.encoder} for {advice.task}: {name} "
    text += f"{format_score(feature.score, feature.interval)} on {advice.n_test} test clips{limit}{how}."
    found = [text]
    if feature.n_agree < feature.n_rounds:
        found.append(
            f"{feature.n_agree} of {feature.n_rounds} folds choose it on their validation clips; the score is that of "
            "each fold's own choice."
        )
    if advice.chance is not None and feature.interval is not None and feature.interval[0] <= advice.chance:
        found.append(f"This cannot be told from guessing ({100 * advice.chance:.1f} %).")
    found += describe_verdicts(
        [(one.facts.encoder, one.verdict) for one in advice.others], advice.wishes.tie, "test clips"
    )
    found += _describe_cheapest_tie(advice)
    if choice.at_labels is not None:
        found += [describe_labels(choice), *_describe_lead_at_labels(advice)]
    if advice.chosen_by == "test":
        found.append(
            "No row tells validation scores, so the best test score made the choice: expect less on new clips. The tests "
            "are corrected for it."
        )
    return found + _describe_without_conditions(advice)


def describe_verdicts(others: Sequence[tuple[str, Verdict | None]], tie: float, unit: str) -> list[str]:
    """Say what is significantly worse or better than the choice, what is a tie, and what cannot be told.

    Args:
        others: name and verdict of each other candidate.
        tie: margin, a fraction.
        unit: "test clips" or "tasks".
    """
    by_word: dict[str, list[tuple[str, Verdict]]] = {}
    for name, verdict in others:
        if verdict is not None:
            by_word.setdefault(verdict.word, []).append((name, verdict))
    names = {word: join_words([name for name, _ in found]) for word, found in by_word.items()}
    found = []
    if WORSE in by_word:
        found.append(f"It is significantly better than {names[WORSE]}.")
    if BETTER in by_word:
        found.append(
            f"On test {'tasks' if unit == 'tasks' else 'clips'} {names[BETTER]} is significantly better, although "
            "validation clips did not choose it: consider it, and collect more validation clips."
        )
    if TIE in by_word:
        found.append(f"It ties with {names[TIE]}: the difference is surely below {100 * tie:g} points.")
    if OPEN in by_word:
        each = [f"{name} ({_write_difference(one)}; {describe_need(one, unit)})" for name, one in by_word[OPEN][:3]]
        more = len(by_word[OPEN]) - 3
        tail = f", nor from {more} more" if more > 0 else ""
        found.append(f"The data cannot tell it from {join_words(each)}{tail}.")
    if UNTESTED in by_word:
        found.append(f"Not compared with {names[UNTESTED]}: there are no predictions for the same clips.")
    return found


def _write_difference(verdict: Verdict) -> str:
    """Write a difference as it stands inside brackets."""
    value, low, high = (100 * (one or 0.0) for one in (verdict.difference, verdict.low, verdict.high))
    return f"{value:+.1f} points, {low:+.1f} to {high:+.1f}"


def _describe_cheapest_tie(advice: TaskAdvice) -> list[str]:
    """Name a cheaper candidate that is a tie, or that cannot be told from the choice."""
    choice = advice.choice
    cost = choice.facts.seconds_per_second if choice else None
    if cost is None:
        return []
    equal = [
        one
        for one in advice.others
        if one.verdict and one.verdict.word in (TIE, BETTER) and (one.facts.seconds_per_second or cost) < cost / 1.1
    ]
    if not equal:
        return []
    best = min(equal, key=lambda one: one.facts.seconds_per_second or 0.0)
    assert best.feature is not None and best.facts.seconds_per_second is not None
    return [
        f"{best.facts.encoder} ({describe_feature(best.feature.key)}) is as good and "
        f"{cost / best.facts.seconds_per_second:.1f} times as fast."
    ]


def describe_labels(candidate: Candidate) -> str:
    """Say what the score is at the number of labels that was asked for."""
    found = candidate.at_labels
    assert found is not None
    start = f"With {found.n_labels} labelled clips"
    if found.score is not None:
        interval = None if found.low is None or found.high is None else (found.low, found.high)
        return f"{start} it reaches {format_score(found.score, interval)} ({found.note})."
    if found.low is not None and found.high is not None:
        return f"{start} it lies somewhere between {100 * found.low:.1f} and {100 * found.high:.1f} % ({found.note})."
    return f"{start}: {found.note}."


def _describe_lead_at_labels(advice: TaskAdvice) -> list[str]:
    """Name the candidate that is ahead of the choice at the number of labels that was asked for, if one is."""
    choice = advice.choice
    own = choice.at_labels.score if choice and choice.at_labels else None
    known = [(one.at_labels.score, one) for one in advice.others if one.at_labels and one.at_labels.score is not None]
    if own is None or not known:
        return []
    score, best = max(known, key=lambda pair: pair[0])
    if score <= own:
        return []
    return [
        f"With so few, {best.facts.encoder} is ahead with {100 * score:.1f} % on the test clips, which was not tested: "
        "evar report on the rows of the curve compares them."
    ]


def _describe_without_conditions(advice: TaskAdvice) -> list[str]:
    """Say what the conditions cost: what would have been chosen without them."""
    free = advice.without_conditions
    if free is None or free.feature is None:
        return []
    what = f"{describe_feature(free.feature.key)} of {free.facts.encoder}"
    reasons = [one.misfits for one in advice.left_out if one.facts.encoder == free.facts.encoder]
    why = f"; it is left out, since {'; '.join(reasons[0])}" if reasons and reasons[0] else ""
    score = format_score(free.feature.score, free.feature.interval)
    return [f"Without your conditions it would be {what}, {score}{why}."]


def describe_ranks(advice: RankedAdvice, new_task: str = "") -> list[str]:
    """Write the answer over several tasks.

    Args:
        advice: over tasks.
        new_task: the task that the question was about, which none of them is; "" for a question about these tasks.
    """
    found = []
    n_tasks = len(advice.tasks)
    count = f"{n_tasks} {'task' if n_tasks == 1 else 'tasks'}"
    named = f"{count} ({join_words(advice.tasks)})"
    if new_task:
        found.append(f"Nothing was measured on {new_task}. What follows is from {named}, not from {new_task}.")
    choice = advice.choice
    if choice is None or choice.key is None:
        return [*found, f"Nothing fits that was measured on {named}."]
    verb = "Try" if new_task else "Read"
    text = f"{verb} {describe_feature(choice.key)} of {choice.facts.encoder}: mean rank {_format_rank(choice)} "
    found.append(f"{text}of {len(advice.fitting)} encoders over {count if new_task else named}.")
    if n_tasks == 1:
        found.append("One task cannot say how sure that is for another.")
        return found
    found += describe_verdicts([(one.facts.encoder, one.verdict) for one in advice.others], advice.wishes.tie, "tasks")
    if n_tasks < 6 and advice.others:
        found.append(f"{n_tasks} tasks are too few for any significant difference; six are the least.")
    if advice.chosen_by == "test":
        found.append("Not all rows tell validation scores, so that test scores made the choice.")
    return found


def _format_rank(one: RankedCandidate) -> str:
    interval = "" if one.rank_low is None else f" ({one.rank_low:.1f} to {one.rank_high:.1f})"
    return f"{one.rank:.1f}{interval}"
