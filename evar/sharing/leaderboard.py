"""A static site from the bundles of many people: one page in the look of the report, with a mark on every checked row."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evar.config.plain_text import make_printable
from evar.results import load_all, load_failures, load_hints, load_searches
from evar.sharing.auditing import DIFFERENT, IDENTICAL, NOT_RERUNNABLE, VERIFIED, check_bundle
from evar.sharing.bundle import open_bundle
from evar.sharing.merging import merge_results
from evar.storage.atomic import write_atomic
from evar.webpage.command import make_parts
from evar.webpage.context import Context, Settings
from evar.webpage.page import Part, render_page

_VERDICTS = (IDENTICAL, VERIFIED, NOT_RERUNNABLE, DIFFERENT)
#: verdict -> mark of a row in the tables, and what hovering over it says
BADGES = {
    IDENTICAL: ("✓✓", "audited: computed again, with the same score to the last digit and the same predictions"),
    VERIFIED: ("✓", "checked: scores, interval and tests follow from its predictions; it was not computed again"),
    NOT_RERUNNABLE: ("✓", "checked: scores follow from its predictions; it could not be computed again by the auditor"),
}
_ABOUT = (
    "Each bundle was checked when this page was made: hashes, and scores and intervals from the predictions. Rows that "
    "differ are not shown. “identical” rows were also computed again, as the bundle's certificate says. You can check a "
    "bundle yourself: evar audit FILE."
)


@dataclass(frozen=True)
class Leaderboard:
    """What `write_leaderboard` made.

    Attributes:
        page: the page that opens the site.
        n_rows: rows that are shown.
        faults: sentences on bundles, rows that differ, and rows that contradict each other.
    """

    page: Path
    n_rows: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """One bundle or folder: its rows, its verdicts, and its line on the page."""

    folder: Path
    verdicts: Mapping[str, str]
    shown: Mapping[str, Any]
    faults: tuple[str, ...]


def write_leaderboard(sources: Sequence[str | Path], out: str | Path) -> Leaderboard:
    """Build a static site from bundles and results folders.

    Args:
        sources: bundles of `evar export-results`, which may come from strangers, and results folders of your own, whose
            rows get no mark. A certificate `NAME.certificate.json` beside a bundle counts if it is of that very file.
        out: folder of the site: `index.html`, and the bundles below `bundles/`.

    Raises:
        ValueError: if a bundle would do harm, or nothing can be shown.
        OSError: if something cannot be read or written.
    """
    out = Path(out)
    with tempfile.TemporaryDirectory() as work:
        found = [_take_source(Path(source), Path(work), out) for source in sources]
        folders = [one.folder for one in found if load_all(one.folder)]
        if not folders:
            raise ValueError(
                "a leaderboard needs rows that can be shown, found none in " + ", ".join(map(str, sources))
            )
        merged = merge_results(folders, Path(work) / "all")
        faults = [
            *(fault for one in found for fault in one.faults),
            *(f"left out: {text}" for text in merged.conflicts),
        ]
        verdicts: dict[str, str] = {}
        for one in found:  # of several verdicts on one row, the best counts: the numbers are the same
            for id, verdict in one.verdicts.items():
                if id not in verdicts or _VERDICTS.index(verdict) < _VERDICTS.index(verdicts[id]):
                    verdicts[id] = verdict
        page = out / "index.html"
        text = _render(Path(work) / "all", page, found, verdicts, faults)
        write_atomic(page, text.encode("utf-8"))
    return Leaderboard(page, merged.n_rows, tuple(faults))


def _take_source(source: Path, work: Path, out: Path) -> _Source:
    name = re.sub(r"[^\w.+-]", "-", source.resolve().stem, flags=re.ASCII)[:80].lstrip(".-") or "bundle"
    if source.is_dir():
        n_rows = len(load_all(source))
        shown = {
            "name": source.resolve().name,
            "link": "",
            "n_rows": n_rows,
            "counts": ["-"] * len(_VERDICTS),
            "sha256": "-",
        }
        return _Source(source, {}, shown, ())
    folder = work / f"{len(list(work.iterdir()))}" / name
    report = check_bundle(open_bundle(source, folder), source.name)
    known = _read_certificate(source, report.bundle_sha256)
    verdicts = {}
    faults = [f"{source.name}: {fault}" for fault in report.faults]
    for row in report.rows:
        if row.verdict == DIFFERENT or known.get(row.id) == DIFFERENT:
            faults.append(make_printable(f"{source.name}: {row.id} is left out: {'; '.join(row.reasons) or DIFFERENT}"))
            (folder / "runs" / f"{row.id}.json").unlink(missing_ok=True)
            verdicts[row.id] = DIFFERENT
        else:
            verdicts[row.id] = known.get(row.id, row.verdict)
            faults += [make_printable(f"{source.name}: {row.id}: {reason}", one_line=True) for reason in row.reasons]
    for record in report.robustness:
        if record.verdict == DIFFERENT:
            text = f"{source.name}: robustness/{record.id} is left out: {'; '.join(record.reasons)}"
            faults.append(make_printable(text, one_line=True))
            (folder / "robustness" / f"{record.id}.json").unlink(missing_ok=True)
    counts = [sum(verdict == one for verdict in verdicts.values()) for one in _VERDICTS]
    (out / "bundles").mkdir(parents=True, exist_ok=True)
    copied = out / "bundles" / f"{name}-{report.bundle_sha256[:8]}.zip"
    shutil.copyfile(source, copied)
    shown = {
        "name": source.stem, "link": f"bundles/{quote(copied.name)}", "n_rows": len(report.rows), "counts": counts,
        "sha256": report.bundle_sha256[:16],
    }  # fmt: skip
    shown_verdicts = {id: verdict for id, verdict in verdicts.items() if verdict != DIFFERENT}
    return _Source(folder, shown_verdicts, shown, tuple(faults))


def _read_certificate(source: Path, sha256: str) -> dict[str, str]:
    """Verdicts of a certificate beside a bundle, if it is of that very file; else none."""
    path = source.with_name(f"{source.stem}.certificate.json")
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict) or data.get("bundle_sha256") != sha256 or not isinstance(data.get("rows"), list):
        return {}
    rows = [row for row in data["rows"] if isinstance(row, dict) and row.get("verdict") in _VERDICTS]
    return {str(row.get("id")): str(row["verdict"]) for row in rows}


def _render(
    folder: Path, page: Path, found: Sequence[_Source], verdicts: Mapping[str, str], faults: Sequence[str]
) -> str:
    badges = {id: BADGES[verdict] for id, verdict in verdicts.items()}
    settings = Settings(folder, page, audio="none", published="all", maps="none", badges=badges)
    context = Context(settings, load_all(folder), load_failures(folder), load_searches(folder), load_hints(folder))
    shown = {"about": _ABOUT, "verdicts": _VERDICTS, "bundles": [one.shown for one in found], "faults": list(faults)}
    parts = make_parts(context)
    n_rows, n_bundles = len(context.results), len(found)
    footer = [f"Made by evar leaderboard from {n_rows} rows of {n_bundles} bundles and folders."]
    return render_page("Leaderboard", [parts[0], Part("bundles", "Bundles", shown), *parts[1:]], footer)
