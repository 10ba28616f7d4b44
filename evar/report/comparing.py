"""`evar compare`: chosen rows of a results folder as tables, differences to a baseline, ranks, published numbers."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.report.plots.ranks import plot_ranks, ranked
from evar.report.tables.cells import Section, sections
from evar.report.tables.compared import with_equals
from evar.report.tables.differences import HEADER, Line, against, as_data, as_texts
from evar.report.tables.filters import matching, matching_failures, nothing_matches, parse_filter, still_differing
from evar.report.tables.latex import latex, latex_table, tex
from evar.report.tables.layout import escape
from evar.report.tables.machine import long_csv, machine_json
from evar.report.tables.markdown import markdown, markdown_table
from evar.report.tables.published import chosen, why_none, with_published
from evar.report.tables.terminal import terminal_sections, text_table
from evar.results import load_all, load_failures
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
    """What `compare` found; a notebook shows it as its tables.

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

        return pd.read_csv(io.StringIO(long_csv(self.sections)))

    @property
    def differences(self) -> pd.DataFrame:
        """A row a comparison with the baseline; differences are fractions."""
        import pandas as pd

        return pd.DataFrame([{"table": title, **one} for title, lines in self.lines.items() for one in as_data(lines)])

    def _repr_markdown_(self) -> str:
        return _markdown(self)


def compare(
    out: str | Path = "results",
    filter: str = "",
    baseline: str = "",
    published: str | Sequence[str | PublishedConfig] = (),
    write: bool = True,
) -> Comparison:
    """Tables of chosen rows, with tests between them.

    Args:
        out: results folder.
        filter: which rows, such as "encoder=byol*|ast,task=esc10,layers=default"; all where empty. One that names layers or
            a fusion shows rows that the main table leaves to layers.md.
        baseline: encoder to take differences to, or "encoder:layers".
        published: numbers of others to show below ours: "all", or names of config/published.
        write: `compare.md`, `.csv`, `.tex`, `.json`, `baseline.csv` where there is one, and `ranks.png` and `.svg` where
            there are enough tasks.

    Raises:
        ValueError: if the filter is wrong or nothing matches, a table lacks the baseline, or a name is unknown.
    """
    out = Path(out)
    every, patterns, known = load_all(out), parse_filter(filter), chosen(published)
    if not every:
        raise ValueError(f"no results below {out}/runs; run `evar lineval` first or name the folder with --out")
    rows = matching(every, patterns)
    if not rows:
        raise ValueError(nothing_matches(every, patterns))
    failures = matching_failures(load_failures(out), patterns)
    found = sections(rows, failures, out, every="layers" in patterns or "fusion" in patterns)
    shown = tuple(with_published(with_equals(section, out), known) for section in found)
    lines = {}
    if baseline:
        # The first table says what it has, where none has the baseline.
        own = [section for section in shown if baseline in _names(section)] or shown[:1]
        lines = {section.title: against(section, baseline, out) for section in own}
    notes = still_differing(shown)
    if baseline:
        notes += [
            f"{section.title} has no row {baseline}, and so no differences to it."
            for section in shown
            if section.title not in lines
        ]
    notes += [sentence for section in shown if (sentence := why_none(section, known))]
    notes += [_ranks_sentence(section) for section in shown]
    made = Comparison(shown, lines, tuple(notes), "", ())
    files = _write(made, baseline, out) if write else ()
    return Comparison(shown, lines, tuple(notes), _text(made, baseline), files)


def _names(section: Section) -> set[str]:
    """What a row may be called as a baseline."""
    ours = [row for row in section.rows if not row.published]
    return {name for row in ours for name in (row.encoder, f"{row.encoder}:{row.layers}")}


def _ranks_sentence(section: Section) -> str:
    of_ranks = ranked(section)
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


def _title(title: str, baseline: str) -> str:
    return f"{title}: differences to {baseline}"


def _text(found: Comparison, baseline: str) -> str:
    parts = [terminal_sections(found.sections, _WIDTH)]
    for title, lines in found.lines.items():
        parts.append(f"{_title(title, baseline)}\n\n{text_table([HEADER], as_texts(lines), 3, 140)}")
    notes = [_BASELINE_NOTE, *found.notes] if found.lines else found.notes
    parts.append("\n".join(textwrap.fill(note, _WIDTH, subsequent_indent="  ") for note in notes))
    return "\n\n\n".join(parts)


def _markdown(found: Comparison, baseline: str = "the baseline") -> str:
    parts = [markdown(found.sections).rstrip()]
    for title, lines in found.lines.items():
        body = [[escape(text) for text in line] for line in as_texts(lines)]
        parts += [f"## {escape(_title(title, baseline))}", markdown_table(HEADER, body, 3)]
    notes = [_BASELINE_NOTE, *found.notes] if found.lines else found.notes
    if notes:
        parts += ["## Notes", "\n".join(f"- {escape(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _write(found: Comparison, baseline: str, out: Path) -> tuple[Path, ...]:
    more: list[dict[str, Any]] = []
    documents = [latex(found.sections).rstrip()]
    for section in found.sections:
        further: dict[str, Any] = {}
        of_ranks = ranked(section)
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
            further["baseline"] = {"name": baseline, "differences": as_data(lines)}
            body = [[tex(text) for text in line] for line in as_texts(lines)]
            title = _title(section.title, baseline)
            documents.append(latex_table(title, [tex(name) for name in HEADER], body, 3, [tex(_BASELINE_NOTE)]))
        more.append(further)
    texts = {
        "compare.md": _markdown(found, baseline),
        "compare.csv": long_csv(found.sections),
        "compare.tex": "\n\n".join(documents) + "\n",
        "compare.json": machine_json(found.sections, more),
    }
    if found.lines:
        texts["baseline.csv"] = found.differences.drop(columns=["ids", "baseline_ids"], errors="ignore").to_csv(
            index=False
        )
    files = []
    for name, text in texts.items():
        write_atomic(out / name, text.encode("utf-8"))
        files.append(out / name)
    files += plot_ranks(found.sections, out)
    # What an earlier comparison left, and this one has not, would be taken for this one's.
    for name in ("baseline.csv", "ranks.png", "ranks.svg"):
        if out / name not in files:
            remove(out / name)
    return tuple(files)
