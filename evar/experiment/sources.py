"""The source of an encoder that is a file of the user's own: kept beside the rows, to be compared and run later."""

from __future__ import annotations

import hashlib
from pathlib import Path

from evar.config.encoder import UNTRAINED, make_absolute
from evar.config.own_code import list_neighbours
from evar.storage.atomic import write_atomic

#: folder of the results that holds them
FOLDER = "sources"


def hash_sources(encoder: str) -> dict[str, str]:
    """Return file name -> SHA-256 of the Python files of an encoder, and "" for one that is not there any longer.

    Args:
        encoder: as `evar.encoders.load_encoder` takes it; it has been loaded, so that the modules beside it are known.

    Returns:
        Empty for an encoder that is not "path/to/file.py:Class".
    """
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in _list_files(encoder)
    }


def keep_sources(out: Path, encoder: str) -> Path | None:
    """Copy the Python files of an encoder into a results folder, once for each content.

    Returns:
        The folder that holds them under their own names, or None if there are none.
    """
    found = hash_sources(encoder)
    if not found or not all(found.values()):
        return None
    folder = name_folder(out, found)
    for path in _list_files(encoder):
        if not (folder / path.name).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / path.name, path.read_bytes())
    return folder


def name_folder(out: Path, hashes: dict[str, str]) -> Path:
    """Return the folder that files of these contents are kept in.

    Example:
        >>> name_folder(Path("results"), {"mine.py": "ab"}).parent.as_posix()
        'results/sources'
    """
    return out / FOLDER / hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()[:16]


def describe_difference(encoder: str, then: dict[str, str], out: Path) -> str:
    """Name the Python files that have changed since a row was made, and the place of the old ones; "" if none has changed.

    Args:
        encoder: as the row names it.
        then: what `hash_sources` returned when the row was made.
        out: results folder of the row.
    """
    now = hash_sources(encoder)
    changed = [name for name, digest in then.items() if now.get(name) != digest]
    if not changed:
        return ""
    kept = name_folder(out, then)
    where = f"; the files that made the row are kept in {kept}" if kept.is_dir() else ""
    gone = "is not there" if not any(now.values()) else "differs from that of the row"
    return f"the code of {encoder} {gone} ({', '.join(changed)}){where}"


def _list_files(encoder: str) -> list[Path]:
    file, colon, _ = make_absolute(encoder).removeprefix(UNTRAINED).rpartition(":")
    return [Path(file), *list_neighbours(Path(file))] if colon and file.endswith(".py") else []
