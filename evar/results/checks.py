"""Checks of single values in record files: each error names the expected and the found value in one sentence.

Record files come from other machines and other people. Every value that tables and plots read is checked here first, so
that a bad file is named and left out, and tables are still made from the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

#: whole numbers beyond this are no counts, and do not fit into the arrays that are made from them
LARGEST = 2**63 - 1
#: characters of a wrong value that a message shows
_SHOWN = 160

Condition = Callable[[Any], bool]


def show(value: Any) -> str:
    """Return a value as a message shows it: as Python writes it, the middle of a long one left out.

    Example:
        >>> show("0.5"), show("x" * 1000)[:8]
        ("'0.5'", "'xxxxxxx")
    """
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 30]} ... ({len(text)} characters)"


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number, and no truth value.

    Example:
        >>> is_number(0.5), is_number(True), is_number(float("nan"))
        (True, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST if isinstance(value, int) else math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number from 0 to `LARGEST`.

    Example:
        >>> is_whole(3), is_whole(-1), is_whole(3.0)
        (True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def is_text(value: Any) -> bool:
    """Tell whether a value is text."""
    return isinstance(value, str)


def is_table(value: Any) -> bool:
    """Tell whether a value is a dict."""
    return isinstance(value, dict)


def is_text_table(value: Any) -> bool:
    """Tell whether a value is a dict whose values are text.

    Example:
        >>> is_text_table({"a": "b"}), is_text_table({"a": 1})
        (True, False)
    """
    return is_table(value) and all(map(is_text, value.values()))


def optional(condition: Condition) -> Condition:
    """Return a condition that None fulfils too.

    Example:
        >>> optional(is_text)(None), optional(is_text)("a"), optional(is_text)(1)
        (True, True, False)
    """
    return lambda value: value is None or condition(value)


def list_of(condition: Condition) -> Condition:
    """Return the condition that a value is a list of values that fulfil another one.

    Example:
        >>> list_of(is_whole)([1, 2]), list_of(is_whole)([1, -2])
        (True, False)
    """
    return lambda value: isinstance(value, list | tuple) and all(map(condition, value))


def table_of(condition: Condition) -> Condition:
    """Return the condition that a value is a dict of values that fulfil another one.

    Example:
        >>> table_of(is_number)({"a": 0.5}), table_of(is_number)({"a": "b"})
        (True, False)
    """
    return lambda value: is_table(value) and all(map(condition, value.values()))


#: annotation of a record's field -> condition and what to call it; one entry a kind of value, so that a new field needs none
KINDS: dict[str, tuple[Condition, str]] = {
    "str": (is_text, "text"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int": (is_whole, "a whole number >= 0"),
    "int | None": (optional(is_whole), "a whole number >= 0 or null"),
    "float": (is_number, "a finite number"),
    "float | None": (optional(is_number), "a finite number or null"),
    "Sequence[str]": (list_of(is_text), "a list of text"),
    "Sequence[int]": (list_of(is_number), "a list of whole numbers"),
    "Sequence[float]": (list_of(is_number), "a list of finite numbers"),
    "Sequence[float] | None": (optional(list_of(is_number)), "a list of finite numbers or null"),
    "Sequence[Sequence[float | None]]": (list_of(list_of(optional(is_number))), "lists of finite numbers or nulls"),
    "Sequence[Mapping[str, str]]": (list_of(is_text_table), "a list of objects with text values"),
    "Sequence[Mapping[str, Any]]": (list_of(is_table), "a list of objects"),
    "Mapping[str, str]": (is_text_table, "an object with text values"),
    "Mapping[str, float]": (table_of(is_number), "an object with finite numbers"),
    "Mapping[str, Any]": (is_table, "an object"),
    "Mapping[str, Sequence[float]]": (table_of(list_of(is_number)), "an object of lists of finite numbers"),
    "Mapping[str, Sequence[Sequence[str]]]": (
        table_of(list_of(list_of(is_text))),
        "an object of lists of lists of text",
    ),
}


def check_kind(name: str, value: Any, kind: str) -> None:
    """Check one value against one of `KINDS`.

    Args:
        name: of the value, for the message.
        value: plain data.
        kind: a key of `KINDS`.

    Raises:
        ValueError: if the value is of another kind; value and kind are named.

    Example:
        >>> check_kind("seed", "0", "int")
        Traceback (most recent call last):
        ValueError: seed must be a whole number >= 0, got '0'
    """
    condition, expected = KINDS[kind]
    if not condition(value):
        raise ValueError(f"{name} must be {expected}, got {show(value)}")


def check_keys(name: str, table: Mapping[str, Any], kinds: Mapping[str, str], *, required: bool = False) -> None:
    """Check the values of some keys of a dict; other keys may hold anything.

    Args:
        name: of the dict, for the message.
        table: plain data.
        kinds: key -> a key of `KINDS`.
        required: must all of the keys be there?

    Raises:
        ValueError: if a value is of another kind, or a required key is missing.

    Example:
        >>> check_keys("rounds", {"n_test": "40"}, {"n_test": "int"})
        Traceback (most recent call last):
        ValueError: rounds.n_test must be a whole number >= 0, got '40'
    """
    for key, kind in kinds.items():
        if key in table:
            check_kind(f"{name}.{key}", table[key], kind)
        elif required:
            raise ValueError(f"{name} lacks the key {key!r}, got {show(dict(table))}")


def check_time(name: str, text: str, example: str) -> None:
    """Check that a text is an ISO 8601 time in UTC.

    Raises:
        ValueError: if it is not; an example is shown.

    Example:
        >>> check_time("created", "2026-01-31T12:00:00+00:00", "")
    """
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, OverflowError):
        found = None
    if found is None or found.utcoffset() != timedelta(0):
        raise ValueError(f"{name} must be an ISO 8601 time in UTC such as {example}, got {show(text)}")
