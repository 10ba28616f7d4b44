"""Notes on rows that compare test clips with each other: the space of their vectors, and the other metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from evar.results import Result


def describe_comparison(result: Result) -> str:
    """Describe the other metrics of a row with their intervals, and the space that was chosen in each round.

    Args:
        result: any row.

    Returns:
        One sentence; "" for rows that compare no clips.
    """
    if not result.extra_intervals:
        return ""
    from evar.metrics.named import get_display_name

    parts = [
        f"{get_display_name(name)} {100 * result.extras[name]:.1f} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
        for name, ends in result.extra_intervals.items()
    ]
    seed = f"seed {result.seed}: " if result.seed else ""
    spaces = _count_spaces(result)
    return f"{seed}{', '.join(parts)}" + (f"; vectors {spaces}" if spaces else "")


def _count_spaces(result: Result) -> str:
    """Name the spaces of the rounds, the most frequent first: "whitened", or "whitened (4 rounds), raw (1)"."""
    chosen = result.params.get("chosen")
    if not isinstance(chosen, Sequence):
        return ""
    names = Counter(str(one["space"]) for one in chosen if isinstance(one, Mapping) and "space" in one)
    if len(names) == 1:
        return next(iter(names))
    shown = [f"{name} ({n}{' rounds' if not at and n > 1 else ''})" for at, (name, n) in enumerate(names.most_common())]
    return ", ".join(shown)
