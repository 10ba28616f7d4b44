"""YAML to frozen dataclasses. Unknown or missing keys are errors that name the nearest legal key."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from evar.config.folders import find, names
from evar.config.registry import near_miss

T = TypeVar("T")


def read(path: Path, kind: type[T]) -> T:
    """Read one YAML into a frozen dataclass whose `name` is the file's stem.

    Raises:
        ValueError: if the file is not a mapping, or its keys or values do not fit; file and key are named.
        FileNotFoundError: if there is no such file.
    """
    return rename_error(read_mapping(path), kind, path)


#: largest size of a configuration file; our largest one, with a class on each line, is much smaller
MAX_BYTES, MAX_DEPTH, MAX_VALUES = 2**22, 32, 200_000


def load_every(kind: str, load: Callable[[str], T]) -> tuple[dict[str, T], list[str]]:
    """Load every configuration of a kind, and put aside those that are broken, so that one does not hide the others.

    Args:
        kind: folder of the YAML files: "encoders", "tasks", "protocols", "grids" or "published".
        load: name -> configuration.

    Returns:
        Name -> configuration, sorted; and one line for each broken file, which names it.

    Example:
        >>> def load_one(name):
        ...     if name == "knn":
        ...         raise ValueError("knn.yaml lacks a key")
        ...     return name
        >>> found, broken = load_every("protocols", load_one)
        >>> "linear" in found, broken[0].endswith("knn.yaml lacks a key")
        (True, True)
    """
    found, broken = {}, []
    for name in names(kind):
        try:
            found[name] = load(name)
        except (ValueError, OSError) as error:
            path, said = str(find(kind, name)), " ".join(str(error).split())
            broken.append(said if path in said else f"{path}: {said}")
    return found, broken


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds `key: value` lines.

    Raises:
        ValueError: if it is no YAML, no mapping, or too large, too deep or too often repeated to be a configuration; the
            file is named.
        FileNotFoundError: if there is no such file.
    """
    import yaml

    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} must be at most {MAX_BYTES:,} bytes to be a configuration, got {size:,}")
    try:
        text = path.read_text(encoding="utf-8")
        _check_size(text)
        data = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8: {error}; save it again in that encoding") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error or type(error).__name__}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold 'key: value' lines, got {type(data).__name__}")
    return data


def _check_size(text: str) -> None:
    """Refuse YAML that grows when it is read: aliases (`*name`) that repeat each other, and deep nesting.

    The events of the parser are counted before any value is made. An alias counts as all values that it repeats.
    """
    import yaml

    sizes: dict[str, int] = {}  # anchor -> values below it
    open_nodes: list[tuple[str | None, int]] = []  # anchor and values so far of each open list or mapping
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 0))
            if len(open_nodes) > MAX_DEPTH:
                raise ValueError(f"it nests more than {MAX_DEPTH} lists and mappings; is it a configuration?")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            size += 1
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{event.anchor} repeats what it stands in, or nothing")
            anchor, size = None, sizes[event.anchor]
        else:
            continue
        if anchor:
            sizes[anchor] = size
        if open_nodes:
            outer, values = open_nodes[-1]
            open_nodes[-1] = outer, values + size
        if size > MAX_VALUES or (open_nodes and open_nodes[-1][1] > MAX_VALUES):
            raise ValueError(f"it holds more than {MAX_VALUES:,} values once its aliases are written out")


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
        >>> from evar.config.grid import GridConfig
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
        return build(_require_mapping(value, where), hint, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {value!r}")
        return tuple(_coerce(item, arguments[0], where) for item in value)
    if origin is dict:
        return dict(_require_mapping(value, where))
    return _coerce_plain(value, hint, where)


def _require_mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must hold 'key: value' lines, got {value!r}")
    return value


def _coerce_plain(value: Any, hint: type, where: str) -> Any:
    """Text, a number or a truth value as its field's type."""
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        hint_name = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
        quotes = "; put it in quotes" if hint is str else ""
        raise ValueError(f"{where} must be {hint_name.get(hint.__name__, hint.__name__)}, got {value!r}{quotes}")
    return value
