"""Shared code of the records in a results folder: a dataclass, as JSON in a file that is complete or absent, named by id."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from evar.config.plain_text import make_printable
from evar.config.registry import near_miss
from evar.results.identity import plain
from evar.storage.atomic import write_atomic


class Record(Protocol):
    """A frozen dataclass that has an id."""

    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Record)
T = TypeVar("T")
#: largest size of a record file, in bytes: a thousand times the size of a row
LARGEST_FILE = 2**26


def to_plain(record: Any) -> dict[str, Any]:
    """Return a record's values as plain data, as in its JSON file."""
    return {entry.name: plain(getattr(record, entry.name), entry.name) for entry in dataclasses.fields(record)}


def from_plain(kind: type[R], data: Any, what: str, schema: int, *, every_key: bool = False) -> R:
    """Check the keys of plain data and make the record, which checks its values.

    Args:
        kind: a dataclass; fields without default are required.
        data: as JSON gives it.
        what: "a result", for messages.
        schema: newest version of the list of keys that is known here.
        every_key: also those with a default must be there.

    Raises:
        ValueError: if a key is unknown (the nearest legal one is named) or missing, or a value is not legal.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{what} must be a JSON object, got {type(data).__name__}")
    found = data.get("schema", schema)
    if isinstance(found, int) and found > schema:
        raise ValueError(f"{what} of schema {found} needs a newer version of evar, which reads up to {schema}")
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise ValueError(f"{what} has no key {key!r}; {near_miss(str(key), fields, limit=len(fields))}")
    missing = [
        name
        for name, entry in fields.items()
        if every_key or (entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING)
        if name not in data
    ]
    if missing:
        raise ValueError(f"{what} needs all of its keys, but lacks {', '.join(missing)}; is the file {what}?")
    return kind(**data)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data, whole or not at all.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"score": 0.5})
        ...     read_json(Path(folder) / "a.json")
        {'score': 0.5}
    """
    text = json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode("utf-8"))


def read_json(path: Path) -> Any:
    """Read plain data.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is torn or no JSON; the file is named.
    """

    def refuse(constant: str) -> None:
        """Refuse NaN and Infinity, which are no JSON."""
        raise ValueError(f"{constant} is not a legal number")

    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} must be at most {LARGEST_FILE:,} bytes, got {path.stat().st_size:,}; is it a record?")
    try:
        return json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}; was its writing interrupted?") from error


def read_record(path: Path, make: Callable[[Any], T]) -> T:
    """Read one record.

    Args:
        path: of a JSON file.
        make: turns plain data into a record, and checks it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or is no record; the file is named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"score": 0.5})
        ...     read_record(Path(folder) / "a.json", lambda data: data["score"])
        0.5
    """
    data = read_json(Path(path))
    try:
        return make(data)
    except ValueError as error:
        raise ValueError(f"{path}: {_shorten(str(error))}") from error
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        # The checks of each kind of record should have found it; an error that they miss must still name its file.
        raise ValueError(
            f"{path} holds a value of an unexpected kind: {type(error).__name__}: {_shorten(str(error))}"
        ) from error


def _shorten(text: str) -> str:
    """Leave out the middle of a long message: a record may hold values of any length."""
    return text if len(text) <= 800 else f"{text[:600]} ... {text[-100:]}"


def read_records(folder: Path, make: Callable[[Any], R], what: str) -> list[R]:
    """Read every record of a folder, by file name; a warning names what cannot be read, or repeats an id."""
    found: dict[str, R] = {}
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            record = read_record(path, make)
        except (ValueError, OSError) as error:
            warnings.warn(f"left out of the tables: {make_printable(error)}", stacklevel=3)
            continue
        if record.id in found:
            warnings.warn(f"left out of the tables: {path} repeats the {what} {record.id}", stacklevel=3)
            continue
        found[record.id] = record
    return list(found.values())
