"""YAML to frozen dataclasses. Unknown or missing keys are errors that name the nearest legal key."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from evar.config.registry import near_miss

T = TypeVar("T")


def read(path: Path, kind: type[T]) -> T:
    """Read one YAML into a frozen dataclass whose `name` is the file's stem.

    Raises:
        ValueError: if the file is not a mapping, or its keys or values do not fit; file and key are named.
        FileNotFoundError: if there is no such file.
    """
    return rename_error(read_mapping(path), kind, path)


def read_mapping(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold 'key: value' lines, got {type(data).__name__}")
    return data


def rename_error(data: dict[str, Any], kind: type[T], path: Path) -> T:
    if data.setdefault("name", path.stem) != path.stem:
        raise ValueError(f"{path}: name must equal the file's stem {path.stem!r}, got {data['name']!r}")
    return build(data, kind, str(path))


def build(data: dict[str, Any], kind: type[T], where: str) -> T:
    """Check a mapping against a dataclass's fields and build it.

    Args:
        data: as YAML gives it.
        kind: a dataclass; fields without default are required.
        where: file (and key) for error messages.

    Raises:
        ValueError: for an unknown, missing or ill-typed key.

    Example:
        >>> build({"nam": "x"}, GridConfig, "x.yaml")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: x.yaml has unknown key 'nam'; it has name, description, ... seeds; did you mean 'name'?
    """
    assert dataclasses.is_dataclass(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in data:
        if key not in fields:
            raise ValueError(f"{where} has unknown key {key!r}; {near_miss(str(key), fields, limit=24)}")
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ValueError(f"{where} lacks the key {name!r}")
    values = {key: _coerce(value, hints[key], f"{where}: {key}") for key, value in data.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """A YAML value as its field's type; lists become tuples, whole numbers become floats where floats are wanted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _coerce(value, next(option for option in arguments if option is not type(None)), where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must hold 'key: value' lines, got {value!r}")
        return build(value, hint, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {value!r}")
        return tuple(_coerce(item, arguments[0], where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must hold 'key: value' lines, got {value!r}")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        hint_name = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
        quotes = "; put it in quotes" if hint is str else ""
        raise ValueError(f"{where} must be {hint_name.get(hint.__name__, hint.__name__)}, got {value!r}{quotes}")
    return value
