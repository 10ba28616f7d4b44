"""Names to things: near-miss hints for unknown names, "module:Class" imported when used, paths that stay below."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evar.config.moved import find_new_place
from evar.config.own_code import find_source, import_file, import_typed


def near_miss(name: str, known: Iterable[str], limit: int = 12) -> str:
    """Write the end of an error message: the name that the user probably meant, or the known names.

    Args:
        name: the unknown name.
        known: the legal names.
        limit: list at most this many of them.

    Example:
        >>> near_miss("conv9", ["conv1", "conv2", "fc"])
        "it has conv1, conv2, fc; did you mean 'conv2'?"
    """
    names = list(known)
    shown = ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")
    best = nearest(name, names)
    return f"it has {shown or 'nothing'}" + (f"; did you mean {best!r}?" if best else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar, or "" if none is similar.

    Example:
        >>> nearest("layer", ["layers", "limit"]), nearest("colour", ["layers", "limit"])
        ('layers', '')
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.55)
    if not close:
        close = [other for other in names if name and (name in other or other in name)][:3]
    # Ties go to the later name: of conv1 and conv2, conv9 is nearer to conv2.
    return max(close, key=lambda other: (difflib.SequenceMatcher(None, name, other).ratio(), other)) if close else ""


def stays_below(path: str) -> bool:
    """Tell whether a path of an index stays below its folder on every system: relative and without "..".

    Unusual names are no danger: a recorder may write the time of day with colons, and a backslash is a letter here.

    Example:
        >>> stays_below("audio/a.wav"), stays_below("../a.wav"), stays_below("C:/a.wav"), stays_below("")
        (True, False, False, False)
        >>> stays_below("06:12:05.wav"), stays_below("..\\\\a.wav")
        (True, False)
    """
    is_windows = os.name == "nt"
    is_rooted = path.startswith("/") or (is_windows and path.startswith("\\"))
    has_drive = len(path) > 2 and path[0].isascii() and path[0].isalpha() and path[1] == ":" and path[2] in "/\\"
    has_drive = has_drive or (is_windows and ":" in path)
    parts = path.replace("\\", "/").split("/")
    return bool(path.strip("./")) and not (is_rooted or has_drive or ".." in parts or "\0" in path)


def resolve(path: str) -> Any:
    """Import "module:attribute", or "path/to/file.py:attribute", and return the attribute.

    Raises:
        ValueError: if the text has no colon or the module has no such attribute.
        FileNotFoundError: if there is no such file.
        ImportError: if the module, or a package that it needs, cannot be imported; the message names it.

    Example:
        >>> resolve("evar.config.registry:near_miss").__name__
        'near_miss'
    """
    path = find_new_place(path)
    module_name, colon, attribute = path.rpartition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"expected 'module:Class', got {path!r}")
    try:
        module = import_file(Path(module_name)) if module_name.endswith(".py") else import_typed(module_name)
    except ImportError as error:
        raise ImportError(f"{path} cannot be imported: {error}; is the package that it needs installed?") from error
    if not hasattr(module, attribute):
        raise ValueError(f"module {module_name} has no {attribute!r}; {near_miss(attribute, sorted(vars(module)))}")
    return getattr(module, attribute)


def hash_source(path: str) -> str:
    """Tell the source of "module:name" or "path/to/file.py:name", so that results of another source are not mixed with it.

    Args:
        path: as for `resolve`.

    Returns:
        16 hexadecimal digits of the SHA-256 of the file that the name is in; "" for what belongs to this package, whose
        versions are asked to pass.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if there is no such module.

    Example:
        >>> hash_source("evar.config.registry:resolve"), len(hash_source("json:loads"))
        ('', 16)
    """
    module_name = find_new_place(path).rpartition(":")[0]
    if module_name.split(".")[0] == "evar":
        return ""
    if module_name.endswith(".py"):
        source = Path(module_name).expanduser()
    else:
        found = find_source(module_name)
        if found is None:
            raise ImportError(f"{path} cannot be imported: no module {module_name}")
        source = found
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]
