"""Check a bundle of results: hashes, names, scores, intervals and tests from the predictions, and a sample of rows again."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.config.encoder import UNTRAINED
from evar.config.messages import progress_bar
from evar.config.plain_text import make_printable
from evar.results import Result, keep_predictions, load, load_predictions, run_id
from evar.results.row import utc_now
from evar.sharing.bundle import Bundle, make_table, open_bundle
from evar.sharing.checking_extras import check_curve, check_record, list_record_ids
from evar.sharing.comparing import find_difference, is_same, shorten
from evar.sharing.extras import make_comparisons

if TYPE_CHECKING:
    import numpy as np

#: verdicts on a row, from the worst to the best
DIFFERENT, NOT_RERUNNABLE, VERIFIED, IDENTICAL = "different", "not re-runnable here", "verified", "identical"
_SHARED_KEYS = (
    *("encoder", "weights_sha256", "encoder_options", "extraction", "layers", "fusion", "pooling"),
    *("task", "task_version", "index_sha256", "limit", "protocol", "metric", "seed"),
)


@dataclass(frozen=True)
class RowVerdict:
    """The verdict on one row.

    Attributes:
        id: of the row.
        verdict: "verified" (its numbers follow from its predictions), "identical" (computed again here: the same score to
            the last digit, and the same predictions), "different", or "not re-runnable here" (its numbers follow from its
            predictions, but it could not be computed again).
        reasons: sentences: each difference, or why the row cannot be computed again.
        score, score_again: the score in the bundle, and the score when it was computed again here; None if it was not.
    """

    id: str
    verdict: str
    reasons: tuple[str, ...] = ()
    score: float | None = None
    score_again: float | None = None


@dataclass(frozen=True)
class AuditReport:
    """The certificate of a bundle.

    Attributes:
        bundle: name of the file.
        bundle_sha256: hash of the file.
        created: ISO 8601 time in UTC of the audit.
        versions: packages and the machine that the audit used.
        faults: sentences on the bundle as a whole: files that differ from their hash, labels that differ between rows,
            tests that do not follow from the predictions.
        rows: a verdict for each row.
        n_sampled: rows that were chosen to be computed again.
        robustness: a verdict for each record of robustness; none is computed again.
    """

    bundle: str
    bundle_sha256: str
    created: str
    versions: Mapping[str, str]
    faults: tuple[str, ...]
    rows: tuple[RowVerdict, ...]
    n_sampled: int = 0
    schema: int = field(default=1)
    robustness: tuple[RowVerdict, ...] = ()

    @property
    def is_clean(self) -> bool:
        """True if no fault was found, and no row and no record of robustness differs."""
        return not self.faults and all(one.verdict != DIFFERENT for one in (*self.rows, *self.robustness))

    def count(self, verdict: str) -> int:
        """Count the rows with that verdict."""
        return sum(row.verdict == verdict for row in self.rows)


def audit_bundle(
    path: str | Path,
    *,
    sample: int = 10,
    seed: int = 0,
    data_root: str | None = None,
    store: str | None = None,
    device: str = "auto",
) -> AuditReport:
    """Check a bundle, and compute a sample of its rows again.

    Args:
        path: of a bundle; it may come from a stranger.
        sample: how many rows are computed again; 0 for none. Rows that name code of their author are never run.
        seed: of the draw of the sample.
        data_root: folder that holds the tasks' folders.
        store: folder of a feature store; None takes an empty one, so that every clip is encoded again.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ValueError: if the file is no bundle, or would do harm.
        OSError: if it cannot be opened.
    """
    with tempfile.TemporaryDirectory() as folder, keep_predictions():
        bundle = open_bundle(path, Path(folder) / "results")
        report, rows = _check_rows(bundle, Path(path).name)
        verdicts = {row.id: row for row in report.rows}
        sound = [id for id, verdict in verdicts.items() if verdict.verdict != DIFFERENT]
        chosen = random.Random(seed).sample(sorted(sound), min(sample, len(sound)))
        for id in progress_bar(chosen, "run again", unit="row", leave=False):
            again = store or str(Path(folder) / "store")
            verdict = _run_again(rows[id], bundle.folder, data_root, again, device)
            verdicts[id] = replace(verdict, reasons=(*verdicts[id].reasons, *verdict.reasons))
        return replace(report, rows=tuple(verdicts.values()), n_sampled=len(chosen))


def check_bundle(bundle: Bundle, name: str) -> AuditReport:
    """Check a bundle that is open, as `audit_bundle` does, without computing a row again.

    Args:
        bundle: of `open_bundle`.
        name: of its file.
    """
    with keep_predictions():
        return _check_rows(bundle, name)[0]


def _check_rows(bundle: Bundle, name: str) -> tuple[AuditReport, dict[str, Result]]:
    """The report of what can be checked without computing a row again, and the rows that can be read."""
    rows, faults = _load_rows(bundle)
    verdicts = {row.id: _check_row(row, bundle.folder) for row in rows.values()}
    shown, records = tuple(verdicts[id] for id in sorted(verdicts)), _check_records(bundle.folder, rows)
    faults += _compare_labels(rows, bundle.folder) + _compare_table(bundle, "table", make_table)
    if all(one.verdict != DIFFERENT for one in (*shown, *records)):
        faults += _compare_table(bundle, "comparisons", make_comparisons)
    elif (bundle.folder / "comparisons.json").exists():
        faults.append("comparisons.json was not checked, because rows or records of robustness differ")
    faults = [*bundle.faults, *faults]
    report = AuditReport(name, bundle.sha256, utc_now(), _list_versions(), tuple(faults), shown, robustness=records)
    return report, rows


def _check_records(folder: Path, rows: Mapping[str, Result]) -> tuple[RowVerdict, ...]:
    """Check each record of robustness; returns the verdicts."""
    found = []
    for id in list_record_ids(folder):
        score, reasons = check_record(folder, id, rows)
        found.append(RowVerdict(id, DIFFERENT if reasons else VERIFIED, tuple(reasons), score))
    return tuple(found)


def _load_rows(bundle: Bundle) -> tuple[dict[str, Result], list[str]]:
    """Load the rows that can be read, and write a sentence on each row that cannot be read or is missing."""
    rows: dict[str, Result] = {}
    faults = []
    for path in sorted((bundle.folder / "runs").glob("*.json")):
        try:
            row = load(path)
        except (ValueError, OSError) as error:
            faults.append(make_printable(f"runs/{path.name} cannot be read: {error}", one_line=True))
            continue
        if row.id != path.stem:
            faults.append(f"runs/{path.name} holds the row {row.id}")
            continue
        rows[row.id] = row
    promised = bundle.manifest.get("rows")
    for id in promised if isinstance(promised, list) else []:
        if id not in rows:
            faults.append(make_printable(f"the row {id} is in the manifest, but not in the bundle", one_line=True))
    return rows, faults


def _check_row(row: Result, folder: Path) -> RowVerdict:
    """Recompute what follows from the row's own values and predictions."""
    reasons, unchecked = _check_name(row), list[str]()
    try:
        predictions = load_predictions(folder, row.id)
    except (FileNotFoundError, ValueError) as error:
        reasons.append(make_printable(f"its predictions cannot be read: {error}", one_line=True))
    else:
        numbers = _check_numbers(row, predictions)
        differing, unchecked = ([], []) if numbers else check_curve(row, folder, predictions)
        reasons += numbers + differing
    return RowVerdict(row.id, DIFFERENT if reasons else VERIFIED, (*reasons, *unchecked), row.score)


def _check_name(row: Result) -> list[str]:
    """List differences between the row, its specification and its name, which is the specification's hash."""
    spec = row.settings.get("spec")
    if not isinstance(spec, Mapping):
        return []  # a row of an older version, or of a fine-tuning
    reasons = []
    try:
        named = run_id(spec)
    except (ValueError, TypeError) as error:
        return [make_printable(f"its specification is not legal: {error}", one_line=True)]
    if named != row.id:
        reasons.append(f"its specification belongs to the name {named}")
    plain_row = row.to_dict()
    for key in _SHARED_KEYS:
        if key in spec and spec[key] != plain_row[key]:
            reasons.append(
                make_printable(f"{key} is {shorten(plain_row[key])}, but its specification says {shorten(spec[key])}")
            )
    return reasons


def _check_numbers(row: Result, predictions: Mapping[str, np.ndarray]) -> list[str]:
    """List differences between the row's numbers and those that follow from its predictions."""
    import numpy as np

    from evar.metrics import METRICS
    from evar.metrics.intervals import score_interval, score_rounds

    if row.metric not in METRICS:
        return [make_printable(f"its metric {row.metric} is not one of evar's, so that nothing can be recomputed")]
    metric, rounds = METRICS[row.metric], np.unique(predictions["round"])
    if len(rounds) != len(row.round_scores):
        return [f"its predictions are of {len(rounds)} rounds, but it has {len(row.round_scores)} scores of rounds"]
    reasons = []
    if len(predictions["clip"]) != row.n_test:
        reasons.append(f"n_test is {row.n_test}, but it has predictions of {len(predictions['clip'])} clips")
    true, predicted = predictions["y_true"], predictions["y_pred"]
    try:
        scores = score_rounds(row.metric, true, predicted, predictions["round"])
    except (ValueError, IndexError, TypeError) as error:
        return [*reasons, make_printable(f"its predictions do not fit {row.metric}: {error}", one_line=True)]
    for number, (said, found) in enumerate(zip(row.round_scores, scores, strict=True)):
        if not is_same(said, found):
            reasons.append(f"the score of round {number} is {said!r}, but its predictions give {found!r}")
    if not is_same(row.score, math.fsum(scores) / len(scores)):
        reasons.append(f"the score is {row.score!r}, but its predictions give {math.fsum(scores) / len(scores)!r}")
    if row.interval is not None and metric.resampled is not None:
        interval = score_interval(row.metric, true, [predicted], predictions["group"], predictions["round"])
        if not all(map(is_same, row.interval, interval)):
            reasons.append(f"the interval is {list(row.interval)}, but its predictions give {list(interval)}")
    return reasons


def _compare_labels(rows: Mapping[str, Result], folder: Path) -> list[str]:
    """Write a sentence on each two rows of one task whose true labels differ for the same clip."""
    first: dict[tuple[str, ...], tuple[str, dict[Any, Any]]] = {}
    faults = []
    for id, row in rows.items():
        try:
            found = load_predictions(folder, id)
        except (FileNotFoundError, ValueError):
            continue
        clips = zip(found["clip"].tolist(), found["round"].tolist(), strict=True)
        labels = dict(zip(clips, found["y_true"].tolist(), strict=True))
        key = (row.task, row.task_version, row.index_sha256, str(row.limit), row.metric)
        if key not in first:
            first[key] = (id, labels)
            continue
        other, known = first[key]
        differing = [clip for clip in labels if clip in known and known[clip] != labels[clip]]
        if differing:
            clip = differing[0][0]
            faults.append(
                make_printable(
                    f"{len(differing)} true labels of {row.task} differ between {other} and {id}, the first of {clip}",
                    one_line=True,
                )
            )
    return faults


def _compare_table(bundle: Bundle, name: str, make: Callable[[Path], bytes | None]) -> list[str]:
    """Write a sentence if the tests and scores of a table do not follow from the predictions."""
    path = bundle.folder / f"{name}.json"
    if not path.exists():  # bundles of older versions have no comparisons.json
        return ["table.json is not in the bundle"] if name == "table" else []
    try:
        said = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return [f"{name}.json cannot be read"]
    difference = find_difference(said, json.loads(make(bundle.folder) or b"null"), name)
    return [make_printable(f"{name}.json: {difference}", one_line=True)] if difference else []


def _run_again(row: Result, folder: Path, data_root: str | None, store: str, device: str) -> RowVerdict:
    """Compute a row again, as `evar rerun` does."""
    if reason := _find_foreign_code(row):
        return RowVerdict(row.id, NOT_RERUNNABLE, (reason,), row.score)
    from evar.rerun import rerun

    again: Callable[..., tuple[Result, Result, int | None]] = rerun
    try:
        _, new, n_changed = again(folder / "runs" / f"{row.id}.json", data_root, store, device)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        reason = make_printable(f"{type(error).__name__}: {error}", one_line=True)
        return RowVerdict(row.id, NOT_RERUNNABLE, (reason,), row.score)
    reasons = []
    if new.score != row.score:
        reasons.append(f"the score is {row.score!r}, but computed again it is {new.score!r}")
    if n_changed:
        reasons.append(f"{n_changed} of {new.n_test} predictions differ when they are computed again")
    return RowVerdict(row.id, DIFFERENT if reasons else IDENTICAL, tuple(reasons), row.score, new.score)


def _find_foreign_code(row: Result) -> str:
    """Explain why a row of a stranger is not run: it names code. Return "" for rows that evar's own code makes."""
    request = row.settings
    named: Sequence[Any] = (
        *(row.encoder, request.get("encoder", ""), row.protocol, request.get("protocol", ""), row.metric),
        *row.pooling.values(),
    )
    for name in named:
        inner = str(name).removeprefix(UNTRAINED)
        if ":" in inner and not inner.startswith("hf:"):
            return make_printable(f"it names code of its author, {name}, which an audit never runs", one_line=True)
    return ""


def _list_versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("evar-audio", "torch", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
