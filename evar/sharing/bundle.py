"""Bundles: the rows of a results folder in one zip file that others can check.

The file holds `manifest.json` (the format, and the sha256 of every other file), `table.json` (the tables with their tests),
`runs/ID.json`, `predictions/ID.npz`, and the YAML files of tasks and protocols; of rows with a label curve `curves/ID.npz`;
records of robustness with their predictions below `robustness/`; and `comparisons.json`, the tests of both. It
holds no sounds, no absolute paths and no names of users or machines. A bundle of a stranger is read as data only: sizes,
names and the number of files are checked before anything is unpacked.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar import config
from evar.config.messages import tell
from evar.report.tables.cells import make_sections
from evar.report.tables.compared import mark_equals
from evar.report.tables.filters import parse_filter, select_rows
from evar.report.tables.machine import format_json
from evar.results import Result, load_all, load_confidence, load_predictions, plain, run_id
from evar.results.identity import IDENTITY_KEYS
from evar.results.row import utc_now
from evar.sharing.extras import make_comparisons, pack_draws, pack_predictions, pack_robustness
from evar.sharing.merging import load_origins
from evar.sharing.privacy import find_own_names, scrub
from evar.storage.atomic import write_atomic

FORMAT = "evar results 1"
#: files of a bundle beside the manifest
_LEGAL_NAME = re.compile(
    r"table\.json|comparisons\.json|(?:(?:runs|robustness)/[A-Za-z0-9_][\w.+-]{0,159}\.json)"
    r"|(?:(?:predictions|curves|robustness/predictions)/[A-Za-z0-9_][\w.+-]{0,159}\.npz)"
    r"|(?:(?:tasks|protocols)/[A-Za-z0-9_][\w.+-]{0,99}\.yaml)",
    re.ASCII,
)
#: of a bundle: files, bytes of one of them, bytes of all, unpacked
MOST_FILES, LARGEST_FILE, LARGEST_BUNDLE = 200_000, 2**28, 2**33
#: arrays of predictions may unpack to this many bytes
LARGEST_ARRAYS = 2**30
_TIME = (1980, 1, 1, 0, 0, 0)  # of every file, so that the same rows give the same bundle


@dataclass(frozen=True)
class Bundle:
    """A bundle that was unpacked.

    Attributes:
        folder: a results folder with its rows and predictions.
        manifest: content of `manifest.json`.
        sha256: of the zip file.
        faults: sentences on files that are missing, strange, or differ from their hash.
    """

    folder: Path
    manifest: Mapping[str, Any]
    sha256: str
    faults: tuple[str, ...]


def write_bundle(out: str | Path, path: str | Path, filter: str = "") -> list[str]:
    """Pack the rows of a results folder.

    Args:
        out: results folder.
        path: the zip file to write.
        filter: which rows, as for `evar.report.compare`; all where empty.

    Returns:
        Sentences on rows, draws of label curves and records of robustness that were left out.

    Raises:
        ValueError: if there is no row with predictions.
        OSError: if the file cannot be written.
    """
    out = Path(out)
    rows = select_rows(load_all(out), parse_filter(filter)) if filter else load_all(out)
    names = find_own_names()
    files: dict[str, bytes] = {}
    notes: list[str] = []
    kept: dict[str, tuple[Result, Result]] = {}
    for row in rows:
        shared = make_shareable(row, names)
        try:
            files |= _pack_row(out, row, shared, names, notes)
        except (FileNotFoundError, ValueError) as error:
            notes.append(f"{row.id} is left out: its predictions cannot be read ({scrub(str(error), names)})")
            continue
        kept[row.id] = row, shared
    if not kept:
        raise ValueError(
            f"{out} must hold rows with their predictions to be shared, found none; run `evar lineval` first"
        )
    robustness, more_notes = pack_robustness(out, kept, names)
    notes += more_notes
    shared_rows = [shared for _, shared in kept.values()]
    files |= robustness | _make_tables(files | robustness) | _collect_yamls(shared_rows, names)
    origins = load_origins(out)
    manifest = {
        "format": FORMAT,
        "created": utc_now(),
        "rows": [row.id for row in shared_rows],
        "origins": {row.id: origins[row.id] for row in shared_rows if row.id in origins},
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [("manifest.json", _to_json(manifest)), *sorted(files.items())]:
            archive.writestr(zipfile.ZipInfo(name, _TIME), data, zipfile.ZIP_DEFLATED)
    write_atomic(Path(path), buffer.getvalue())
    return notes


def _pack_row(out: Path, row: Result, shared: Result, names: frozenset[str], notes: list[str]) -> dict[str, bytes]:
    """The files of a row by their names in the bundle; a note is added if the draws of its label curve cannot be read."""
    predictions = load_predictions(out, row.id)
    if (confidence := load_confidence(out, row.id)) is not None:
        predictions = {**predictions, "confidence": confidence}
    files = {
        f"runs/{shared.id}.json": _to_json(shared.to_dict()),
        f"predictions/{shared.id}.npz": pack_predictions(predictions, names),
    }
    try:
        draws = pack_draws(out, row)
    except (FileNotFoundError, ValueError) as error:
        text = scrub(str(error), names)
        notes.append(f"{row.id}: its label curve cannot be checked, because its draws cannot be read ({text})")
        return files
    return files if draws is None else {**files, f"curves/{shared.id}.npz": draws}


def make_shareable(row: Result, names: frozenset[str]) -> Result:
    """Return a row without absolute paths and names; its id follows what it is made from.

    Args:
        row: of a results folder.
        names: of the user and the machine.
    """
    data = scrub(row.to_dict(), names)
    if data == row.to_dict():
        return row
    spec = data["settings"].get("spec")
    if isinstance(spec, Mapping) and run_id(row.settings["spec"]) == row.id:
        data["id"] = run_id(spec)
    elif run_id({key: getattr(row, key) for key in IDENTITY_KEYS}) == row.id:
        data["id"] = ""
    return Result.from_dict(data)


def open_bundle(path: str | Path, folder: str | Path) -> Bundle:
    """Unpack a bundle, and check its files against the hashes of its manifest.

    Args:
        path: of the zip file; it may come from a stranger.
        folder: an empty folder, which becomes a results folder.

    Raises:
        ValueError: if the file is no bundle, or one that would do harm: too large, or with names that leave the folder.
        OSError: if it cannot be opened.
    """
    path, folder = Path(path), Path(folder)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive.infolist())
            contents = {one.filename: archive.read(one) for one in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise ValueError(
            f"{path} must be a bundle of `evar export-results`, found a file that is no whole zip: {error}"
        ) from error
    manifest = _read_manifest(path, contents.pop("manifest.json", None))
    listed: Mapping[str, str] = manifest["files"]
    faults = [f"{name} is in the bundle, but not in its manifest" for name in contents if name not in listed]
    for name, expected in sorted(listed.items()):
        if name not in contents:
            faults.append(f"{name} is in the manifest, but not in the bundle")
        elif (found := hashlib.sha256(contents[name]).hexdigest()) != expected:
            faults.append(f"{name} has the sha256 {found[:16]}..., but its manifest says {str(expected)[:16]}...")
    for name, data in contents.items():
        problem = _find_bomb(data) if name.endswith(".npz") else ""
        if problem:
            faults.append(f"{name} {problem}; it is not read")
            continue
        write_atomic(folder / name, data)
    return Bundle(folder, manifest, digest, tuple(faults))


def _check_members(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    names = [one.filename for one in members]
    if len(names) > MOST_FILES or sum(one.file_size for one in members) > LARGEST_BUNDLE:
        raise ValueError(f"{path} must hold at most {MOST_FILES:,} files and {LARGEST_BUNDLE:,} bytes, found more")
    if len({name.lower() for name in names}) != len(names):
        raise ValueError(f"{path} must hold each file once, found one twice")
    for one in members:
        if one.filename != "manifest.json" and not _LEGAL_NAME.fullmatch(one.filename):
            raise ValueError(
                f"{path} must hold manifest.json, table.json, comparisons.json, runs, predictions, curves, robustness, "
                f"tasks and protocols, found {one.filename[:80]!a}"
            )
        if one.file_size > LARGEST_FILE:
            raise ValueError(
                f"{path}: {one.filename} must have at most {LARGEST_FILE:,} bytes, found {one.file_size:,}"
            )


def _read_manifest(path: Path, data: bytes | None) -> dict[str, Any]:
    try:
        manifest = plain(json.loads(data or b"null"), "manifest")
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{path} must have a manifest.json of the format {FORMAT!r}, found none; is it a bundle?")
    files, origins = manifest.get("files"), manifest.get("origins", {})
    is_good = isinstance(files, dict) and all(isinstance(value, str) for value in files.values())
    if not is_good or not isinstance(origins, dict):
        raise ValueError(f"{path}: the manifest must list files with their hashes, found {str(files)[:80]!a}")
    return manifest


def _find_bomb(data: bytes) -> str:
    """Explain why arrays must not be loaded; return "" if they may be loaded."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            n_bytes = sum(one.file_size for one in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError):
        return "is no file of arrays"
    return f"would unpack to {n_bytes:,} bytes" if n_bytes > LARGEST_ARRAYS else ""


def _collect_yamls(rows: Sequence[Result], names: frozenset[str]) -> dict[str, bytes]:
    """The YAML files of tasks and protocols that are at hand, by their names in the bundle."""
    import yaml

    found: dict[str, bytes] = {}
    for kind in ("tasks", "protocols"):
        for name in sorted({getattr(row, kind[:-1]) for row in rows}):
            if not _LEGAL_NAME.fullmatch(f"{kind}/{name}.yaml"):
                continue  # an own probe, which has no YAML
            try:
                data = yaml.safe_load(config.find(kind, name).read_text("utf-8"))
            except (ValueError, OSError, yaml.YAMLError) as error:
                tell(f"{kind}/{name}.yaml is not in the bundle: {error}")
                continue
            text = yaml.safe_dump(scrub(data, names), sort_keys=False, allow_unicode=True)
            found[f"{kind}/{name}.yaml"] = text.encode("utf-8")
    return found


def _make_tables(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Make `table.json` of what is packed, and `comparisons.json` if there is something to compare."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            write_atomic(Path(folder) / name, data)
        comparisons = make_comparisons(Path(folder))
        tables = {"table.json": make_table(Path(folder))}
        return tables if comparisons is None else {**tables, "comparisons.json": comparisons}


def make_table(folder: Path) -> bytes:
    """`table.json` of a results folder, with every layer, and with tests.

    Args:
        folder: results folder.
    """
    sections = make_sections(load_all(folder), every=True)
    return format_json([mark_equals(section, folder) for section in sections]).encode("utf-8")


def _to_json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
