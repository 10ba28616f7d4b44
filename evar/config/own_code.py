"""Code of a user's own: imported where its name was typed or stands in the user's own configuration, and nowhere else."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

_lists_only: ContextVar[bool] = ContextVar("lists_only", default=False)


@contextmanager
def call_nothing() -> Iterator[None]:
    """Forbid, inside a `with` block, all code that a configuration names; lists and dry runs promise this."""
    token = _lists_only.set(True)
    try:
        yield
    finally:
        _lists_only.reset(token)


def may_call(path: str) -> bool:
    """Tell whether "module:name", which a configuration names, may be imported now; what belongs to this package always may.

    Example:
        >>> with call_nothing():
        ...     may_call("shutil:rmtree"), may_call("evar.data.catalogue.hear:make_index")
        (False, True)
        >>> may_call("shutil:rmtree")
        True
    """
    return path.startswith("evar.") or not _lists_only.get()


def import_typed(name: str) -> ModuleType:
    """Import a module by the name that a user typed; the current folder counts while that is done, as the last of all.

    Raises:
        ImportError: if there is no such module, or it cannot be imported.
    """
    with _search_path(os.getcwd(), last=True):
        return importlib.import_module(name)


def find_source(module_name: str) -> Path | None:
    """Return the file of a module by the name that a user typed, or None; its parent packages are imported."""
    with _search_path(os.getcwd(), last=True):
        spec = importlib.util.find_spec(module_name)
    return Path(spec.origin) if spec is not None and spec.origin else None


def import_file(path: Path) -> ModuleType:
    """Import a Python file; the same content is imported once, and an edited file again.

    Modules beside the file are found before those of the current folder. Two files in two folders may each
    have such a module of the same name.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if it cannot be imported.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected path/to/file.py:Class")
    digest = hashlib.sha256(f"{path} ".encode() + path.read_bytes()).hexdigest()[:16]
    name = f"evar_own_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _search_path(str(path.parent), last=False), _hide_others(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def list_neighbours(path: Path) -> tuple[Path, ...]:
    """Return the files beside a Python file that it imported, so that a change of them counts as a change of it."""
    return _neighbours.get(path.expanduser().resolve(), ())


#: Python file -> the modules beside it that it imported
_neighbours: dict[Path, tuple[Path, ...]] = {}


@contextmanager
def _hide_others(path: Path) -> Iterator[None]:
    """Hide modules of other folders that have the name of one beside this file, and note which of these are imported."""
    folder = path.parent
    beside = {one.stem for one in folder.glob("*.py")} | {one.parent.name for one in folder.glob("*/__init__.py")}
    beside -= {*sys.stdlib_module_names, "evar"}
    hidden = {}
    for name in list(sys.modules):
        source = getattr(sys.modules[name], "__file__", None)
        if name.partition(".")[0] in beside and not (source and folder in Path(source).resolve().parents):
            hidden[name] = sys.modules.pop(name)
    before = set(sys.modules)
    try:
        yield
    finally:
        found = {}
        for name in [name for name in sys.modules if name.partition(".")[0] in beside]:
            source = getattr(sys.modules[name], "__file__", None)
            if source and folder in Path(source).resolve().parents:
                found[name] = Path(source).resolve()
        # Modules that an earlier import of this file brought in are its neighbours as well.
        _neighbours[path] = tuple(sorted(set(found.values()) - {path}))
        for name in found:
            if name not in before and name.partition(".")[0] in {one.partition(".")[0] for one in hidden}:
                del sys.modules[name]
        sys.modules.update(hidden)


@contextmanager
def _search_path(folder: str, *, last: bool) -> Iterator[None]:
    if folder in sys.path and last:
        yield
        return
    sys.path.insert(len(sys.path) if last else 0, folder)
    try:
        importlib.invalidate_caches()
        yield
    finally:
        if folder in sys.path:
            if last:
                del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]
            else:
                sys.path.remove(folder)
