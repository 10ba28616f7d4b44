"""Differences of all rows of a table to a baseline, paired clip by clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.config.registry import near_miss
from evar.report.tables.compared import LEVEL, load_tested, subtract_scores
from evar.report.tables.section import Row, Section

if TYPE_CHECKING:
    from evar.metrics.significance import PairedDifference


@dataclass(frozen=True)
class Line:
    """One encoder's layers against the baseline on one task.

    Attributes:
        encoder, layers, task: as the table names them.
        ids: of the result files of the two sides, the baseline's last.
        difference: to the baseline; None where both were not tested on the same clips.
        p_holm: corrected over all lines of a table.
    """

    encoder: str
    layers: str
    task: str
    ids: tuple[tuple[str, ...], tuple[str, ...]]
    difference: PairedDifference | None
    p_holm: float | None

    @property
    def verdict(self) -> str:
        """In words: "better", "worse", "not significant", or why nothing can be said."""
        if self.difference is None or self.p_holm is None:
            return "not tested on the same clips"
        return "not significant" if self.p_holm > LEVEL else "better" if self.difference.value > 0 else "worse"


def compare_with_baseline(section: Section, baseline: str, out: Path) -> list[Line]:
    """Subtract the baseline of its column from every cell of a table.

    Args:
        section: the table.
        baseline: an encoder's label, or label and layers as "crepe.tiny:conv5".
        out: results folder with the predictions.

    Raises:
        ValueError: if no row, or more than one, is that baseline.
    """
    from evar.metrics import holm

    base = _find_baseline(section, baseline)
    of_base = [load_tested(cell, out) for cell in base.cells]
    found = []
    for row in section.rows:
        if row is base or row.published:
            continue
        for index, (column, cell) in enumerate(zip(section.columns, row.cells, strict=True)):
            base_cell = base.cells[index]
            if cell is None or not cell.results or base_cell is None or not base_cell.results:
                continue
            ids = tuple(one.id for one in cell.results), tuple(one.id for one in base_cell.results)
            by = subtract_scores(load_tested(cell, out), of_base[index])
            found.append(Line(row.encoder, row.layers, column.label, ids, by, None))
    known_p = [line.difference.p for line in found if line.difference is not None]
    corrected = iter(holm(known_p).tolist() if known_p else [])
    return [line if line.difference is None else replace(line, p_holm=next(corrected)) for line in found]


def _find_baseline(section: Section, baseline: str) -> Row:
    """Return the one row that is called so; a ValueError names what there is."""
    names = [f"{row.encoder}:{row.layers}" for row in section.rows]
    chosen = [i for i, row in enumerate(section.rows) if baseline in (row.encoder, names[i])]
    if not chosen:
        known = sorted({row.encoder for row in section.rows} | set(names))
        raise ValueError(f"table {section.title} has no row {baseline!r}; {near_miss(baseline, known)}")
    if len(chosen) > 1:
        which = [names[i] for i in chosen]
        raise ValueError(f"table {section.title} has {len(which)} rows of {baseline}; name one, such as {which[0]}")
    return section.rows[chosen[0]]


HEADER = ("encoder", "layers", "task", "difference", "95 % interval", "p (Holm)", "test", "verdict")


def format_lines(lines: Sequence[Line]) -> list[list[str]]:
    """Format one line of texts for each difference, for `HEADER`; in points of percent."""
    body = []
    for line in lines:
        start, found = [line.encoder, line.layers, line.task], line.difference
        if found is None or line.p_holm is None:
            body.append([*start, "-", "-", "-", "-", line.verdict])
            continue
        interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
        p = "< 0.0001" if line.p_holm < 1e-4 else f"{line.p_holm:.4f}"
        body.append([*start, f"{100 * found.value:+.1f}", interval, p, found.test, line.verdict])
    return body


def list_lines(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """List one dict for each difference, for programs; as fractions."""
    return [
        {
            "encoder": line.encoder,
            "layers": line.layers,
            "task": line.task,
            "difference": found.value if (found := line.difference) else None,
            "low": found.low if found else None,
            "high": found.high if found else None,
            "p": found.p if found else None,
            "p_holm": line.p_holm,
            "test": found.test if found else None,
            "verdict": line.verdict,
            "ids": list(line.ids[0]),
            "baseline_ids": list(line.ids[1]),
        }
        for line in lines
    ]
