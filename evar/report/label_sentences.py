"""What label-efficiency curves say, in plain sentences: where encoders cross, and from where on ranks are stable."""

from __future__ import annotations

from collections.abc import Sequence

from evar.report.label_curves import CurveTask, Lead, Pair


def describe_number(n: int | None) -> str:
    """Write a number of labels as sentences do.

    Example:
        >>> describe_number(1), describe_number(5), describe_number(None)
        ('1 label per class', '5 labels per class', 'all labels')
    """
    return "all labels" if n is None else f"{n} label{'s' if n > 1 else ''} per class"


def describe_task(task: CurveTask) -> list[str]:
    """Say what the curves of a task show: stability of the ranking first, then each pair that changes places.

    Args:
        task: with its pairs tested.

    Returns:
        Sentences; one that says why nothing is compared where that is so.
    """
    if len(task.main) < 2:
        return ["There is one encoder, so there is no ranking."]
    if task.problem:
        return [f"{task.problem[0].upper()}{task.problem[1:]}."]
    crossings = [text for pair in task.pairs if (text := describe_crossing(pair))]
    if not crossings:
        crossings = ["No two encoders change places: who leads with one label leads with all."]
    return [describe_stability(task), *crossings, *_describe_short_classes(task)]


def describe_stability(task: CurveTask) -> str:
    """Say from which number of labels on the order of the encoders is that of all labels.

    Example:
        >>> describe_stability(CurveTask("a", "accuracy", None, ()))
        'There are fewer than three encoders, so a ranking says no more than the sentences on pairs.'
    """
    if len(task.main) < 3 or not task.agreements:
        return "There are fewer than three encoders, so a ranking says no more than the sentences on pairs."
    same = _find_start([one.is_same for one in task.agreements])
    settled = _find_start([one.n_opposite == 0 for one in task.agreements])
    count, numbers = len(task.main), [one.n for one in task.agreements]
    if same == len(numbers) - 1:
        text = f"The order of the {count} encoders still changes between {describe_number(numbers[-2])} and all labels"
    else:
        text = f"From {describe_number(numbers[same])} on, the order of the {count} encoders is that of all labels"
    if settled == 0:
        return f"{text}; at no number of labels is a pair significantly the other way round."
    return f"{text}; from {describe_number(numbers[settled])} on, no pair is significantly the other way round."


def _find_start(is_true: Sequence[bool]) -> int:
    """Find the position from which on all are True; the last one at most.

    Example:
        >>> _find_start([True, False, True, True]), _find_start([False, False])
        (2, 1)
    """
    start = len(is_true) - 1
    while start > 0 and is_true[start - 1]:
        start -= 1
    return start


def describe_crossing(pair: Pair) -> str:
    """Say where two encoders change places, and whether the leads on both sides are significant; "" if they do not.

    Args:
        pair: with its leads from few labels to all.

    Example:
        >>> leads = (Lead(1, 0.1, 0.01, 0.0, 0.0), Lead(5, 0.05, 0.01, 0.0, 0.0), Lead(10, -0.1, 0.01, 0.0, 0.0))
        >>> describe_crossing(Pair("A", "B", leads)).split(";")[0]
        'Below 10 labels per class A leads, from 10 labels per class on B'
    """
    untied = [lead for lead in pair.leads if lead.sign]
    changes = [at for at in range(1, len(untied)) if untied[at].sign != untied[at - 1].sign]
    if not changes:
        return ""
    proven = [lead for lead in pair.leads if lead.significant_sign]
    proven_changes = [at for at in range(1, len(proven)) if proven[at].sign != proven[at - 1].sign]
    if len(changes) > 1 and len(proven_changes) == 1:
        before, after = proven[proven_changes[0] - 1], proven[proven_changes[0]]
        return (
            f"Up to {describe_number(before.n)} {_name(pair, before)} leads significantly, from {describe_number(after.n)} "
            f"on {_name(pair, after)}; between them they change places {len(changes)} times."
        )
    if len(changes) > 1:
        return (
            f"{pair.first} and {pair.second} change places {len(changes)} times (not significant: "
            f"{_list_proven(pair, proven) or 'neither ever leads significantly'})."
        )
    before, after = untied[0], untied[changes[0]]
    start = f"Below {describe_number(after.n)} {_name(pair, before)} leads, "
    start += (
        f"from {describe_number(after.n)} on {_name(pair, after)}"
        if after.n
        else f"with all labels {_name(pair, after)}"
    )
    listed = _list_proven(pair, proven)
    if len(proven_changes) == 1:
        return f"{start}; both leads are significant ({listed})."
    if proven:
        return f"{start}; this change is not significant, since only one of the leads is ({listed})."
    return f"{start}; this change is not significant, and neither lead is."


def _name(pair: Pair, lead: Lead) -> str:
    return pair.first if lead.sign > 0 else pair.second


def _list_proven(pair: Pair, proven: Sequence[Lead]) -> str:
    """Name the numbers of labels at which each of the two leads significantly, the one of fewer labels first."""
    parts = []
    for sign, name in ((1, pair.first), (-1, pair.second)):
        own = [lead for lead in proven if lead.sign == sign]
        if own:
            parts.append((proven.index(own[0]), f"{name} {_list_numbers([lead.n for lead in own])}"))
    return ", ".join(text for _, text in sorted(parts))


def _list_numbers(numbers: Sequence[int | None]) -> str:
    """Write numbers of labels in a row.

    Example:
        >>> _list_numbers([1, 5, 10]), _list_numbers([5, None]), _list_numbers([None])
        ('at n = 1, 5 and 10', 'at n = 5 and with all labels', 'with all labels')
    """
    known = [str(n) for n in numbers if n is not None]
    text = "at n = " + (" and ".join([", ".join(known[:-1]), known[-1]]) if len(known) > 1 else "".join(known))
    if None not in numbers:
        return text
    return f"{text} and with all labels" if known else "with all labels"


def _describe_short_classes(task: CurveTask) -> list[str]:
    """Say at which numbers some classes have fewer clips, and where draws hold more clips since groups are whole."""
    points = max((curve.points for curve in task.main), key=len)
    short = [point for point in points if point.n is not None and point.n_short]
    larger = [point for point in points if point.n is not None and point.n_per_class > 1.1 * point.n]
    said = []
    if short:
        listed = ", ".join(f"{point.n_short} at n = {point.n}" for point in short)
        said.append(f"Classes that have fewer clips give what they have: {listed}.")
    if larger:
        listed = ", ".join(f"{point.n_per_class:.1f} at n = {point.n}" for point in larger)
        said.append(f"Groups are drawn whole, so draws hold more clips per class than n: {listed}.")
    return said
