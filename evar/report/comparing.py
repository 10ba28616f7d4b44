"""`evar compare`: chosen rows of a results folder as tables, differences to a baseline, ranks, published numbers."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.config.plain_text import make_cell_harmless, make_printable
from evar.report.guard import try_to_make
from evar.report.plots.ranks import plot_ranks, rank_rows
from evar.report.tables.cells import make_sections
from evar.report.tables.compared import mark_equals
from evar.report.tables.costs import add_costs
from evar.report.tables.differences import HEADER, Line, compare_with_baseline, format_lines, list_lines
from evar.report.tables.filters import explain_differences, explain_no_match, parse_filter, select_failures, select_rows
from evar.report.tables.latex import escape_latex, format_latex, format_latex_table
from evar.report.tables.layout import escape_markdown
from evar.report.tables.machine import format_csv, format_json
from evar.report.tables.markdown import format_markdown, format_markdown_table
from evar.report.tables.published import add_published_rows, explain_missing_rows, load_published
from evar.report.tables.section import Section
from evar.report.tables.terminal import format_terminal_sections, format_text_table
from evar.results import load_all, load_failures
from evar.results.costs import load_costs
from evar.storage.atomic import remove, write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from evar.config.published import PublishedConfig

_WIDTH = 100  # columns of a terminal
_BASELINE_NOTE = (
    "difference: the row minus the baseline, in points of percent, with the 95 % interval of a paired bootstrap over the "
    "same test clips (whole groups within rounds); p: two-sided, corrected over the table (Holm); McNemar: exact, where "
    "every clip is its own group; randomisation: of whole groups; bootstrap: of scores that are no mean over clips; not "
    "significant: p above 0.05."
)


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`; a notebook shows it as its tables.

    Attributes:
        sections: the tables.
        lines: title of a table -> differences to the baseline; empty without one.
        notes: sentences on what could not be shown or put together, and the ranks.
        text: all of it for a terminal.
        files: written to the results folder.
    """

    sections: tuple[Section, ...]
    lines: dict[str, list[Line]]
    notes: tuple[str, ...]
    text: str
    files: tuple[Path, ...]

    @property
    def table(self) -> pd.DataFrame:
        """A row a cell, as in `compare.csv`; scores are fractions."""
        import pandas as pd

        return pd.read_csv(io.StringIO(format_csv(self.sections)))

    @property
    def differences(self) -> pd.DataFrame:
        """A row a comparison with the baseline; differences are fractions."""
        import pandas as pd

        return pd.DataFrame(
            [{"table": title, **one} for title, lines in self.lines.items() for one in list_lines(lines)]
        )

    def _repr_markdown_(self) -> str:
        return _format_markdown(self)


def compare(
    out: str | Path = "results",
    filter: str = "",
    baseline: str = "",
    published: str | Sequence[str | PublishedConfig] = (),
    write: bool = True,
    cost: bool = False,
) -> Comparison:
    """Make tables of chosen rows, with tests between them.

    Args:
        out: results folder.
        filter: which rows, such as "encoder=byol*|ast,task=esc10,layers=default"; all where empty. One that names layers or
            a fusion shows rows that the main table leaves to layers.md.
        baseline: encoder to take differences to, or "encoder:layers".
        published: numbers of others to show below ours: "all", or names of config/published.
        write: `compare.md`, `.csv`, `.tex`, `.json`, `baseline.csv` if there is one, and `ranks.png` and `.svg` where
            there are enough tasks.
        cost: show what each row costs, as far as that was measured.

    Returns:
        The tables, the differences to the baseline, notes, the whole as text, and the files that were written.

    Raises:
        ValueError: if the filter is wrong or nothing matches, a table lacks the baseline, or a name is unknown.

    Example:
        >>> compare("results", filter="task=esc50")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no results below results/runs; run `evar lineval` first or name the folder with --out
    """
    out = Path(out)
    every, patterns, known = load_all(out), parse_filter(filter), load_published(published)
    if not every:
        raise ValueError(f"no results below {out}/runs; run `evar lineval` first or name the folder with --out")
    rows = select_rows(every, patterns)
    if not rows:
        raise ValueError(explain_no_match(every, patterns))
    failures = select_failures(load_failures(out), patterns)
    found = make_sections(rows, failures, out, every="layers" in patterns or "fusion" in patterns)
    shown = tuple(add_published_rows(mark_equals(section, out), known) for section in found)
    if cost:
        records = load_costs(out)
        shown = tuple(add_costs(section, records) for section in shown)
    lines = {}
    if baseline:
        # The first table says what it has, where none has the baseline.
        own = [section for section in shown if baseline in _list_names(section)] or shown[:1]
        lines = {section.title: compare_with_baseline(section, baseline, out) for section in own}
    notes = explain_differences(shown)
    if baseline:
        notes += [
            f"{section.title} has no row {baseline}, and so no differences to it."
            for section in shown
            if section.title not in lines
        ]
    notes += [sentence for section in shown if (sentence := explain_missing_rows(section, known))]
    notes += [_describe_ranks(section) for section in shown]
    made = Comparison(shown, lines, tuple(notes), "", ())
    files = _write_files(made, baseline, out) if write else ()
    return Comparison(shown, lines, tuple(notes), _format_text(made, baseline), files)


def _list_names(section: Section) -> set[str]:
    """List the names that a baseline can have."""
    ours = [row for row in section.rows if not row.published]
    return {name for row in ours for name in (row.encoder, f"{row.encoder}:{row.layers}")}


def _describe_ranks(section: Section) -> str:
    of_ranks = rank_rows(section)
    if isinstance(of_ranks, str):
        return of_ranks
    names, ranks = of_ranks
    order = sorted(range(len(names)), key=lambda row: ranks.ranks[row])
    p = "< 0.0001" if ranks.p < 1e-4 else f"= {ranks.p:.4f}"
    return (
        f"{section.title}: mean ranks over {ranks.n_tasks} tasks (Friedman p {p}; ranks closer than "
        f"{ranks.critical:.2f} do not differ significantly, Nemenyi 5 %): "
        + ", ".join(f"{names[row]} {ranks.ranks[row]:.2f}" for row in order)
        + "."
    )


def _name_differences(title: str, baseline: str) -> str:
    return f"{title}: differences to {baseline}"


def _format_text(found: Comparison, baseline: str) -> str:
    parts = [format_terminal_sections(found.sections, _WIDTH)]
    for title, lines in found.lines.items():
        parts.append(
            f"{_name_differences(title, baseline)}\n\n{format_text_table([HEADER], format_lines(lines), 3, 140)}"
        )
    notes = [_BASELINE_NOTE, *found.notes] if found.lines else found.notes
    parts.append("\n".join(textwrap.fill(note, _WIDTH, subsequent_indent="  ") for note in notes))
    return make_printable("\n\n\n".join(parts))


def _format_markdown(found: Comparison, baseline: str = "the baseline") -> str:
    parts = [format_markdown(found.sections).rstrip()]
    for title, lines in found.lines.items():
        body = [[escape_markdown(text) for text in line] for line in format_lines(lines)]
        parts += [f"## {escape_markdown(_name_differences(title, baseline))}", format_markdown_table(HEADER, body, 3)]
    notes = [_BASELINE_NOTE, *found.notes] if found.lines else found.notes
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape_markdown(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _write_files(found: Comparison, baseline: str, out: Path) -> tuple[Path, ...]:
    more: list[dict[str, Any]] = []
    documents = [format_latex(found.sections).rstrip()]
    for section in found.sections:
        further: dict[str, Any] = {}
        of_ranks = rank_rows(section)
        if not isinstance(of_ranks, str):
            names, ranks = of_ranks
            further["ranks"] = {
                "mean_ranks": dict(zip(names, map(float, ranks.ranks), strict=True)),
                "friedman_p": ranks.p,
                "critical_difference": ranks.critical,
                "n_tasks": ranks.n_tasks,
            }
        if section.title in found.lines:
            lines = found.lines[section.title]
            further["baseline"] = {"name": baseline, "differences": list_lines(lines)}
            body = [[escape_latex(text) for text in line] for line in format_lines(lines)]
            title = _name_differences(section.title, baseline)
            documents.append(
                format_latex_table(
                    title, [escape_latex(name) for name in HEADER], body, 3, [escape_latex(_BASELINE_NOTE)]
                )
            )
        more.append(further)
    texts = {
        "compare.md": _format_markdown(found, baseline),
        "compare.csv": format_csv(found.sections),
        "compare.tex": "\n\n".join(documents) + "\n",
        "compare.json": format_json(found.sections, more),
    }
    if found.lines:
        table = found.differences.drop(columns=["ids", "baseline_ids"], errors="ignore")
        texts["baseline.csv"] = table.map(make_cell_harmless).to_csv(index=False, lineterminator="\n")
    files = []
    for name, text in texts.items():
        write_atomic(out / name, text.encode("utf-8"))
        files.append(out / name)
    files += try_to_make("ranks.png", lambda: plot_ranks(found.sections, out))
    # What an earlier comparison left, and this one has not, would be taken for this one's.
    for name in ("baseline.csv", "ranks.png", "ranks.svg"):
        if out / name not in files:
            remove(out / name)
    return tuple(files)
