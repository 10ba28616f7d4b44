"""Results folders of several people or machines in one."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evar.results import Result, load_all, load_draws, load_predictions
from evar.results.identity import check_id
from evar.results.records import read_json
from evar.results.robustness import RobustnessRecord, load_altered_predictions, load_robustness
from evar.storage.atomic import write_atomic

#: file of a merged folder with the origin of each row
ORIGINS = "origins.json"
#: folders that are copied unchanged beside runs and predictions
_OTHER_FOLDERS = ("searches", "hints", "costs", "contamination", "sources", "failures", "heads")


@dataclass(frozen=True)
class Merged:
    """What `merge_results` did.

    Attributes:
        n_rows: rows in the new folder.
        n_same: rows that several folders hold with the same numbers.
        conflicts: sentences on rows and records of robustness that several folders hold with different numbers; none of
            these is in the new folder.
    """

    n_rows: int
    n_same: int
    conflicts: tuple[str, ...]


def merge_results(folders: Sequence[str | Path], out: str | Path) -> Merged:
    """Copy the rows of several results folders into one.

    A row that several folders hold is copied once if its numbers agree: score, scores of the rounds, predictions, and those
    of the draws of its label curve. So is a record of robustness, if all of its clean rows are copied. `origins.json` holds
    the origin of each row.

    Args:
        folders: results folders, which stay as they are.
        out: results folder to write; the rows that it holds already count as one more folder.

    Raises:
        ValueError: if a folder holds no results.
        OSError: if a folder cannot be read or written.
    """
    out = Path(out)
    sources = [Path(folder) for folder in folders]
    if (out / "runs").is_dir() and out.resolve() not in {source.resolve() for source in sources}:
        sources.insert(0, out)
    rows: dict[str, list[tuple[Path, Result]]] = {}
    for source in sources:
        found = load_all(source)
        if not found and source != out:
            raise ValueError(f"{source} must be a results folder, found no results below {source / 'runs'}")
        for row in found:
            rows.setdefault(row.id, []).append((source, row))
    conflicts, origins, n_same = [], {}, 0
    known = {source: load_origins(source) for source in sources}
    for id, copies in rows.items():
        if difference := _find_difference(copies):
            conflicts.append(f"{id}: {difference}")
            for path in (
                out / "runs" / f"{id}.json",
                *(out / kind / f"{id}.npz" for kind in ("predictions", "curves")),
            ):
                path.unlink(missing_ok=True)
            continue
        n_same += len(copies) > 1
        origins[id] = _list_origins(id, copies, out, known)
        _copy(copies[0][0], out, [f"runs/{id}.json", f"predictions/{id}.npz", f"curves/{id}.npz"])
    conflicts += _merge_robustness(sources, out, frozenset(origins))
    for source in sources:
        names = [str(path.relative_to(source)) for kind in _OTHER_FOLDERS for path in (source / kind).rglob("*")]
        _copy(source, out, [name for name in names if (source / name).is_file()])
    write_atomic(out / ORIGINS, (json.dumps(origins, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return Merged(len(origins), n_same, tuple(conflicts))


def load_origins(out: str | Path) -> dict[str, list[str]]:
    """Load the origins of the rows of a merged folder: id of a row -> names of folders; {} if nothing was merged."""
    try:
        data = read_json(Path(out) / ORIGINS)
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(data, Mapping):
        return {}
    return {str(id): [str(name) for name in names] for id, names in data.items() if isinstance(names, list)}


def _find_difference(copies: Sequence[tuple[Path, Result]]) -> str:
    """Describe how the copies of a row differ; return "" if their numbers agree."""
    import numpy as np

    first_source, first = copies[0]
    for source, row in copies[1:]:
        if (first.score, tuple(first.round_scores)) != (row.score, tuple(row.round_scores)):
            return f"the score is {first.score!r} in {first_source}, but {row.score!r} in {source}"
        try:
            one, other = load_predictions(first_source, row.id), load_predictions(source, row.id)
        except (FileNotFoundError, ValueError):
            continue  # without predictions of both, the scores are all that can be compared
        for name in one:
            if not np.array_equal(one[name], other[name]):
                return f"{name} of the predictions differs between {first_source} and {source}"
        try:
            draws = load_draws(first_source, row.id), load_draws(source, row.id)
        except (FileNotFoundError, ValueError):
            continue  # rows without a label curve
        if not all(itertools.starmap(np.array_equal, itertools.zip_longest(*draws))):
            return f"the predictions of draws differ between {first_source} and {source}"
    return ""


def _merge_robustness(sources: Sequence[Path], out: Path, merged: frozenset[str]) -> list[str]:
    """Copy the records of robustness whose clean rows are all merged; returns sentences on those that disagree."""
    records: dict[str, list[tuple[Path, RobustnessRecord]]] = {}
    for source in sources:
        for record in load_robustness(source):
            records.setdefault(record.id, []).append((source, record))
    conflicts = []
    for id, copies in records.items():
        source, record = copies[0]
        difference = _find_other_record(copies)
        if difference or not merged.issuperset(record.runs):
            conflicts += [f"robustness/{id}: {difference}"] if difference else []
            (out / "robustness" / f"{id}.json").unlink(missing_ok=True)
            continue
        names = [f"robustness/predictions/{check_id(one)}.npz" for one in record.predictions]
        _copy(source, out, [f"robustness/{id}.json", *names])
    return conflicts


def _find_other_record(copies: Sequence[tuple[Path, RobustnessRecord]]) -> str:
    """Describe how the copies of a record differ; return "" if their numbers agree."""
    import numpy as np

    first_source, first = copies[0]
    for source, record in copies[1:]:
        for name in ("score", "clean_score", "loss", "loss_interval", "p", "runs", "predictions"):
            if getattr(first, name) != getattr(record, name):
                return (
                    f"{name} is {getattr(first, name)!r} in {first_source}, but {getattr(record, name)!r} in {source}"
                )
        try:
            pairs = zip(*(load_altered_predictions(one, record) for one in (first_source, source)), strict=True)
        except (FileNotFoundError, ValueError):
            continue  # as for rows
        if not all(np.array_equal(one["y_pred"], other["y_pred"]) for one, other in pairs):
            return f"y_pred of the predictions differs between {first_source} and {source}"
    return ""


def _list_origins(
    id: str, copies: Sequence[tuple[Path, Result]], out: Path, known: Mapping[Path, Mapping[str, list[str]]]
) -> list[str]:
    """Names of the folders that hold a row, and those that a merged folder names."""
    found: list[str] = []
    for source, _ in copies:
        found += known[source].get(id) or ([] if source == out else [source.resolve().name])
    return list(dict.fromkeys(found))


def _copy(source: Path, out: Path, names: Sequence[str]) -> None:
    for name in names:
        if source.resolve() == out.resolve() or not (source / name).is_file():
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, out / name)
