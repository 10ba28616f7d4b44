"""`evar compare`: chosen rows of a results folder as tables, differences to a baseline, ranks, published numbers."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar.atomic import write_atomic
from evar.report import tables
from evar.report.cells import Section, sections
from evar.report.compared import against, against_lines, with_equals
from evar.report.ranks import plot_ranks, ranked
from evar.results import Failure, Result, load_all, load_failures

if TYPE_CHECKING:
    from evar.config import PublishedConfig

#: column of `--filter` -> what it says of a row
COLUMNS = {
    "encoder": lambda row: row.encoder,
    "task": lambda row: row.task,
    "protocol": lambda row: row.protocol,
    "layers": lambda row: "default" if row.default else "+".join(row.layers),
    "fusion": lambda row: row.fusion,
    "metric": lambda row: row.metric,
    "weights": lambda row: row.weights,
    "seed": lambda row: str(row.seed),
    "limit": lambda row: str(row.limit or "none"),
    "task_version": lambda row: row.task_version,
}

_BASELINE_NOTE = (
    "Difference: the row minus the baseline, with a paired bootstrap interval over the same test clips (whole groups); p: "
    "paired randomisation of whole groups, McNemar's exact test where every clip is its own; corrected over the table "
    "(Holm)."
)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        sections: the tables.
        text: all of it for a terminal.
        files: written to the results folder.
    """

    sections: tuple[Section, ...]
    text: str
    files: tuple[Path, ...]


def parse_filter(text: str) -> dict[str, list[str]]:
    """Column -> patterns, any of which may match.

    Args:
        text: "encoder=byol*|msm_mae*,task=esc10": commas join columns, bars join patterns of one.

    Raises:
        ValueError: if a column is unknown or a part has no pattern.

    Example:
        >>> parse_filter("encoder=byol*|ast, task=esc10")
        {'encoder': ['byol*', 'ast'], 'task': ['esc10']}
    """
    from evar.registry import near_miss

    found: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        column, sign, patterns = (piece.strip() for piece in part.partition("="))
        if column not in COLUMNS:
            raise ValueError(f"--filter has no column {column!r}; {near_miss(column, COLUMNS)}")
        if not sign or not patterns:
            raise ValueError(f"--filter must be COLUMN=PATTERN,..., got {part!r}")
        found.setdefault(column, []).extend(pattern.strip() for pattern in patterns.split("|"))
    return found


def matching(rows: Sequence[Result], patterns: Mapping[str, Sequence[str]]) -> list[Result]:
    """Rows whose every named column matches one of its patterns (`*` and `?` as in file names; case matters)."""
    return [
        row
        for row in rows
        if all(
            any(fnmatch.fnmatchcase(COLUMNS[column](row), pattern) for pattern in wanted)
            for column, wanted in patterns.items()
        )
    ]


def compare(
    out: str | Path = "results",
    filter: str = "",
    baseline: str = "",
    published: Sequence[PublishedConfig] = (),
    write: bool = True,
) -> Comparison:
    """Tables of chosen rows, with tests between them.

    Args:
        out: results folder.
        filter: which rows, see `parse_filter`; all where empty. A filter that names layers or a fusion shows rows that the
            main table leaves to layers.md.
        baseline: encoder to take differences to.
        published: numbers of others to show below ours.
        write: `compare.md`, `.csv`, `.tex`, `.json`, and `ranks.png` and `.svg` where there are enough tasks.

    Raises:
        ValueError: if the filter is wrong or nothing matches, or a table lacks the baseline.
    """
    out = Path(out)
    every, patterns = load_all(out), parse_filter(filter)
    rows = matching(every, patterns)
    if not rows:
        raise ValueError(
            f"none of the {len(every)} rows below {out}/runs matches {filter!r}" if every else
            f"no results below {out}/runs; run `evar lineval` first or name the folder with --out"
        )  # fmt: skip
    failures: list[Failure] = [] if patterns else load_failures(out)
    found = sections(rows, failures, out)
    shown = [_complete(with_equals(section, out), published) for section in found]
    parts = [tables.terminal_sections(shown)]
    documents = [tables.markdown(shown)]
    if baseline:
        own = [section for section in shown if baseline in _names(section)]
        for section in own or shown[:1]:  # the first says what it has, where none has the baseline
            said = f"{section.title}: differences to {baseline}, in points of percent"
            header, body = against_lines(against(section, baseline, out))
            parts.append(f"{said}\n\n{tables.text_table([header], body, 3)}")
            cleaned = [[tables.escape(text) for text in line] for line in body]
            documents.append(f"## {tables.escape(said)}\n\n{tables.markdown_table(header, cleaned, 3)}")
        parts.append(_BASELINE_NOTE)
        documents.append(f"- {_BASELINE_NOTE}")
    for section in shown:
        of_ranks = ranked(section)
        if isinstance(of_ranks, str):
            parts.append(of_ranks)
            continue
        names, ranks = of_ranks
        order = sorted(range(len(names)), key=lambda row: ranks.ranks[row])
        parts.append(
            f"{section.title}: mean ranks over {ranks.n_tasks} tasks (Friedman p = {ranks.p:.4f}; ranks closer than "
            f"{ranks.critical:.2f} do not differ significantly, Nemenyi 5 %): "
            + ", ".join(f"{names[row]} {ranks.ranks[row]:.2f}" for row in order)
        )
    files: list[Path] = []
    if write:
        texts = {
            ".md": "\n\n".join(text.rstrip() for text in documents) + "\n",
            ".csv": tables.long_csv(shown),
            ".tex": tables.latex(shown),
            ".json": tables.machine_json(shown),
        }
        for suffix, text in texts.items():
            write_atomic(out / f"compare{suffix}", text.encode("utf-8"))
            files.append(out / f"compare{suffix}")
        files += plot_ranks(shown, out)
    return Comparison(tuple(shown), "\n\n\n".join(parts), tuple(files))


def _names(section: Section) -> set[str]:
    """What a row may be called as a baseline."""
    return {name for row in section.rows for name in (row.encoder, f"{row.encoder}:{row.layers}")}


def _complete(section: Section, published: Sequence[PublishedConfig]) -> Section:
    from evar.report.published import with_published

    return with_published(section, published) if published else section
