"""The parts of a table: columns, rows and cells."""

from __future__ import annotations

from dataclasses import dataclass

from evar.results import Result


@dataclass(frozen=True)
class Column:
    """One task under one metric and version.

    Attributes:
        label: as in the header, "esc10 (limit 50)".
        n_test: clips that most cells of the column were tested on; 0 if all failed.
        chance: score of guessing, 0..1, or None.
    """

    label: str
    task: str
    n_test: int = 0
    chance: float | None = None


@dataclass(frozen=True)
class Cell:
    """One encoder's layers on one task.

    Attributes:
        results: one per seed, by seed; empty if it failed.
        score: mean over seeds, 0..1; None if it failed.
        interval: (low, high), 0..1; None if none can be made.
        flags: facts that a reader must know about this score alone.
        notes: what a footnote must say.
        p_worse: chance of so large a distance to the best of the column if there were none, corrected over the table
            (Holm); None for the best itself, and where it cannot be told.
        ours: published cells only: our score of the same encoder and task, 0..1.
    """

    results: tuple[Result, ...] = ()
    score: float | None = None
    interval: tuple[float, float] | None = None
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    p_worse: float | None = None
    ours: float | None = None


@dataclass(frozen=True)
class RowCost:
    """The cost of a row; None for values that were not recorded.

    Attributes:
        parameters: numbers that the network holds.
        seconds_per_second: seconds of encoding for a second of audio, on `device` with `threads`.
        width: numbers that the probe reads of a clip.
        bytes_per_clip: of the vectors of all layers in the store.
        device, threads: where the time was measured; "" and 0 if it was not.
    """

    parameters: int | None = None
    seconds_per_second: float | None = None
    width: int | None = None
    bytes_per_clip: int | None = None
    device: str = ""
    threads: int = 0


@dataclass(frozen=True)
class Row:
    """One (encoder, layers, fusion) with a cell, or None, for each column.

    Attributes:
        encoder: label, with what tells apart two variants of one encoder.
        layers: label, "conv5" or "conv1+conv5".
        first: any result of the row; None if all failed.
        depth: relative depth of a single layer, 0..1, else None.
        flags: facts that a reader must know about all scores of the row.
        average: mean over all columns, 0..1; None unless every column has a score, and all are of one metric.
        rank: mean rank over all columns, 1 the best; None unless every column has a score.
        published: source of a published row, which was not measured here; "" for ours.
        cost: what it costs, in tables that show it; else None.
    """

    encoder: str
    layers: str
    first: Result | None
    depth: float | None
    cells: tuple[Cell | None, ...]
    flags: tuple[str, ...] = ()
    average: float | None = None
    rank: float | None = None
    published: str = ""
    cost: RowCost | None = None


@dataclass(frozen=True)
class Section:
    """One table: everything in it was made by one protocol, on all clips or on one limit."""

    title: str
    protocol: str
    protocol_version: str
    limit: int | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def results(self) -> list[Result]:
        """All results that are shown."""
        return [result for row in self.rows for cell in row.cells if cell for result in cell.results]

    @property
    def flags(self) -> list[str]:
        """Every flag of a row or cell once, in reading order."""
        flags = (
            flag for row in self.rows for flag in (*row.flags, *(f for cell in row.cells if cell for f in cell.flags))
        )
        return list(dict.fromkeys(flags))

    @property
    def notes(self) -> list[str]:
        """Every footnote once, in reading order."""
        return list(dict.fromkeys(note for row in self.rows for cell in row.cells if cell for note in cell.notes))


def is_better(score: float, other: float) -> bool:
    """Tell whether a score is larger by more than the rounding of a mean; every score of a table is better where larger.

    Example:
        >>> is_better(0.5, 0.4), is_better(0.5, 0.5 - 1e-15)
        (True, False)
    """
    return score > other + 1e-12
