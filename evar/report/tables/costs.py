"""The cost of rows, in columns beside their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evar.report.tables.section import Row, RowCost, Section
from evar.results.costs import CostRecord

#: headings of the columns, in the order of `format_cost`
HEADINGS = ("parameters", "s per s of audio", "width", "bytes per clip")


def add_costs(section: Section, records: Sequence[CostRecord]) -> Section:
    """Return the table, each row of which knows what it costs, as far as that was recorded.

    Args:
        section: the table.
        records: of the same results folder.
    """
    rows = [row if row.published else replace(row, cost=find_cost(row, records)) for row in section.rows]
    return replace(section, rows=tuple(rows))


def find_cost(row: Row, records: Sequence[CostRecord]) -> RowCost | None:
    """Find the cost of a row; None for a row without a result.

    Measurements on several sets of clips are put together, those on the device and number of threads of the newest.

    Args:
        row: of a table.
        records: of the same results folder.
    """
    if row.first is None:
        return None
    own = sorted((one for one in records if one.matches(row.first)), key=lambda one: (one.created, one.id))
    if not own:
        return RowCost(width=row.first.width)
    measured = [one for one in own if one.seconds_per_second is not None]
    newest = measured[-1] if measured else own[-1]
    same = [one for one in measured if (one.device, one.threads) == (newest.device, newest.threads)]
    audio = sum(one.audio_seconds or 0.0 for one in same)
    return RowCost(
        newest.parameters,
        sum(one.seconds or 0.0 for one in same) / audio if audio else None,
        row.first.width,
        newest.bytes_per_clip,
        newest.device,
        newest.threads,
    )


def has_costs(section: Section) -> bool:
    """Tell whether a table shows costs."""
    return any(row.cost is not None for row in section.rows)


def format_cost(cost: RowCost | None) -> list[str]:
    """Write the cells of `HEADINGS`.

    Example:
        >>> format_cost(RowCost(parameters=86_400_000, seconds_per_second=0.01234, width=768, bytes_per_clip=39936))
        ['86.4 M', '0.0123', '768', '39936']
        >>> format_cost(None)
        ['-', '-', '-', '-']
    """
    if cost is None:
        return ["-"] * len(HEADINGS)
    return [
        format_count(cost.parameters),
        "-" if cost.seconds_per_second is None else f"{cost.seconds_per_second:.3g}",
        "-" if cost.width is None else str(cost.width),
        "-" if cost.bytes_per_clip is None else str(cost.bytes_per_clip),
    ]


def format_count(n: int | None) -> str:
    """Write a large number briefly.

    Example:
        >>> format_count(950), format_count(481_000), format_count(None)
        ('950', '481 k', '-')
    """
    if n is None:
        return "-"
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f"{n / size:.3g} {letter}"
    return str(n)


def describe_place(device: str, threads: int) -> str:
    """Say where times were measured.

    Example:
        >>> describe_place("cpu (x86_64)", 1)
        'cpu (x86_64) with 1 thread'
    """
    return f"{device} with {threads} thread{'' if threads == 1 else 's'}"


def explain_costs(section: Section) -> str:
    """Say in one sentence what the columns of costs are, and where they were measured; "" for a table without them."""
    if not has_costs(section):
        return ""
    found = dict.fromkeys(
        describe_place(row.cost.device, row.cost.threads) for row in section.rows if row.cost and row.cost.device
    )
    where = f", on {' or '.join(found)}" if found else ""
    return (
        f"Costs: parameters of the network; s per s of audio: seconds of encoding and pooling for a second of audio{where}, "
        "without decoding; width: numbers that the probe reads of a clip; bytes per clip: of the vectors of all layers in "
        "the store; -: not measured."
    )
