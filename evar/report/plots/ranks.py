"""The critical-difference diagram: mean ranks over tasks on a line, and who cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evar.figures.style import PAGE_INCHES, make_figure, save_figure
from evar.report.tables.section import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evar.metrics.significance import Ranking


def rank_rows(section: Section) -> tuple[list[str], Ranking] | str:
    """Rank the rows that have every task, or say in one sentence why there are none."""
    from evar.metrics.significance import LEAST_ROWS, LEAST_TASKS, rank_rows

    rows = [
        row
        for row in section.rows
        if not row.published and all(cell is not None and cell.score is not None for cell in row.cells)
    ]
    tasks = {column.task for column in section.columns}
    if len(rows) < LEAST_ROWS or len(tasks) < LEAST_TASKS or len(tasks) < len(section.columns):
        return (
            f"No critical-difference diagram for {section.title}: it takes at least {LEAST_ROWS} rows with a score on each "
            f"of at least {LEAST_TASKS} different tasks, here are {len(rows)} and {len(tasks)}."
        )
    scores = [[cell.score for cell in row.cells if cell and cell.score is not None] for row in rows]
    is_told = len({row.encoder for row in rows}) == len(rows)  # by the encoder alone
    names = [row.encoder if is_told else f"{row.encoder} {row.layers}" for row in rows]
    # Untrained weights must show in a picture that is passed around without its table.
    names = [
        name + (" (random weights)" if "random weights" in row.flags and "random" not in name else "")
        for name, row in zip(names, rows, strict=True)
    ]
    return names, rank_rows(scores)


def plot_ranks(sections: Sequence[Section], out: Path) -> list[Path]:
    """Write `ranks.png` and `ranks.svg` of the first table that has enough rows and tasks.

    Returns:
        The files written; none if no table has.
    """
    for section in sections:
        found = rank_rows(section)
        if not isinstance(found, str):
            return save_figure(draw_ranks(*found, section.title), Path(out) / "ranks")
    return []


def draw_ranks(names: Sequence[str], found: Ranking, title: str) -> Figure:
    """Draw a figure: the axis of ranks, a line from each name to its mean rank, bars over rows that do not differ.

    Args:
        names: (rows,).
        found: ranks of the rows.
        title: of the table.
    """
    order = sorted(range(len(names)), key=lambda row: found.ranks[row])
    cliques = found.cliques()
    half = (len(order) + 1) // 2
    p = "< 0.0001" if found.p < 1e-4 else f"= {found.p:.4f}"
    caption = (
        f"Mean rank over {found.n_tasks} tasks, 1 the best ({title}). Rows joined by a bar do not differ significantly: "
        f"their ranks are closer than the critical difference {found.critical:.2f} (Nemenyi, 5 %). Friedman's test that "
        f"all are equal: p {p}."
    )
    height = 0.9 + 0.22 * half + 0.1 * len(cliques)
    figure = make_figure(PAGE_INCHES, height, caption)
    ax = figure.add_subplot()
    n = len(names)
    top, below = 0.0, 0.35 + 0.25 * len(cliques)
    ax.plot([1, n], [top, top], color="0", linewidth=1)
    for rank in range(1, n + 1):
        ax.plot([rank, rank], [top, top + 0.15], color="0", linewidth=1)
        ax.text(rank, top + 0.25, str(rank), ha="center", va="bottom", fontsize=7)
    margin = 0.06 * n + 0.15
    for place, row in enumerate(order):
        is_left = place < half
        y = -(below + 0.55 * (place if is_left else n - 1 - place))
        end = 1 - margin if is_left else n + margin
        ax.plot([found.ranks[row], found.ranks[row], end], [top, y, y], color="0.35", linewidth=0.8)
        text = f"{names[row]}  {found.ranks[row]:.2f}" if is_left else f"{found.ranks[row]:.2f}  {names[row]}"
        gap = -0.012 * n if is_left else 0.012 * n
        ax.text(end + gap, y, text, ha="right" if is_left else "left", va="center", fontsize=7)
    for level, clique in enumerate(cliques):
        ranks = [found.ranks[row] for row in clique]
        y = top - 0.2 - 0.25 * level
        ax.plot([min(ranks) - 0.03, max(ranks) + 0.03], [y, y], color="#D55E00", linewidth=3, solid_capstyle="butt")
    ax.plot([1, 1 + found.critical], [top + 1.0, top + 1.0], color="0", linewidth=1.5)
    ax.text(1 + found.critical / 2, top + 1.1, f"critical difference {found.critical:.2f}", ha="center", fontsize=7)
    ax.set_xlim(1 - margin - 0.35 * n, n + margin + 0.35 * n)
    ax.set_ylim(-(below + 0.55 * half), top + 1.6)
    ax.axis("off")
    return figure
