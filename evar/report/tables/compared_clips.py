"""Notes on rows that compare test clips with each other: the space of their vectors, and the other metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from evar.results import Result


def describe_comparison(results: Sequence[Result]) -> str:
    """Describe the other metrics of a cell with their intervals, and the space that was chosen in each round.

    Args:
        results: of the cell, one for each seed.

    Returns:
        One sentence; "" for rows that compare no clips. Of several seeds it tells the mean, and the range over seeds.
    """
    if not all(result.extra_intervals for result in results):
        return ""
    from evar.metrics import METRICS
    from evar.metrics.named import get_display_name

    parts, order = [], list(METRICS)
    known = {name: ends for name, ends in results[0].extra_intervals.items() if name in METRICS}
    for name, ends in sorted(known.items(), key=lambda entry: order.index(entry[0])):
        values = [result.extras[name] for result in results if name in result.extras]
        low, high = (ends[0], ends[1]) if len(values) == 1 else (min(values), max(values))
        mean = sum(values) / len(values)
        parts.append(f"{get_display_name(name)} {_format(name, mean)} ({_format(name, low)} to {_format(name, high)})")
    over = "; in brackets the range over seeds" if len(results) > 1 else ""
    spaces = _count_spaces(results)
    return f"{', '.join(parts)}{over}" + (f"; vectors {spaces}" if spaces else "")


def _format(name: str, value: float) -> str:
    """Write a share in percent, and a cost as it is usually written."""
    return f"{value:.3f}" if name.startswith("min_dcf") else f"{100 * value:.1f}"


def _count_spaces(results: Sequence[Result]) -> str:
    """Name the spaces of the rounds, the most frequent first: "whitened", or "whitened (4 rounds), raw (1)"."""
    names: Counter[str] = Counter()
    for result in results:
        chosen = result.params.get("chosen")
        if isinstance(chosen, Sequence):
            names.update(str(one["space"]) for one in chosen if isinstance(one, Mapping) and "space" in one)
    if len(names) == 1:
        return next(iter(names))
    shown = [f"{name} ({n}{' rounds' if not at and n > 1 else ''})" for at, (name, n) in enumerate(names.most_common())]
    return ", ".join(shown)
