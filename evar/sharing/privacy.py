"""Remove absolute paths, the user's name and the machine's name from records."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Mapping
from typing import Any

#: an absolute path of any system, after a start, a space, a quote, an equals sign or the like; addresses have "//"
_PATH = re.compile(
    r"""(?<![\w.:/\\~-])(?:~[\w.-]*[/\\]|[A-Za-z]:[/\\]|\\\\|/(?!/))(?:[^\s'"<>|,;:()\[\]]*[/\\])?([^\s'"<>|,;:()\[\]/\\]*)"""
)
#: the same where the whole text is one, or between quotes, so that its folders may hold spaces
_WHOLE_PATH = re.compile(r"""(?:~[\w.-]*[/\\]|[A-Za-z]:[/\\]|\\\\|/(?!/))[^'"<>|\n]*[/\\]([^'"<>|\n/\\]*)""")
_QUOTED_PATH = re.compile(rf"""(['"]){_WHOLE_PATH.pattern}(?=\1)""")
#: names that say nothing about a person
_COMMON_NAMES = {"root", "user", "runner", "localhost", "docker", "ubuntu", "admin", ""}


def scrub(value: Any, names: frozenset[str] | None = None) -> Any:
    """Copy plain data without absolute paths and without names of the user and the machine.

    Args:
        value: plain data; in texts and keys, an absolute path becomes its last part.
        names: replaced by "…" if they are whole words; None takes the names of the user and the machine.

    Example:
        >>> scrub({"weights": "/home/anna/models/a.pt", "address": "https://a.org/b/c.pt"}, frozenset())
        {'weights': 'a.pt', 'address': 'https://a.org/b/c.pt'}
        >>> scrub("anna made it in C:\\\\Users\\\\anna\\\\enc.py:Net", frozenset({"anna"}))
        '… made it in enc.py:Net'
    """
    names = find_own_names() if names is None else names
    if isinstance(value, str):
        return _scrub_text(value, names)
    if isinstance(value, Mapping):
        return {_scrub_text(str(key), names): scrub(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item, names) for item in value]
    return value


def _scrub_text(text: str, names: frozenset[str]) -> str:
    if ": " not in text and (whole := _WHOLE_PATH.fullmatch(text)):
        text = whole[1] or "…"
    text = _QUOTED_PATH.sub(lambda match: match[1] + (match[2] or "…"), text)
    found = _PATH.sub(lambda match: match[1] or "…", text)
    for name in sorted(names):
        found = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "…", found)
    return found


def find_own_names() -> frozenset[str]:
    """Find the names of the user and of the machine, without those that say nothing, such as "root"."""
    found = set()
    for ask in (getpass.getuser, socket.gethostname):
        try:
            found.add(ask())
        except (OSError, KeyError, ImportError):  # a container without a password file
            continue
    return frozenset(name for name in found if len(name) > 2 and name.lower() not in _COMMON_NAMES)
