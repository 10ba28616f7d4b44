"""Is a number what the predictions give?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: scores and intervals are recomputed by the same operations, in the same order; only the last digits may differ
TOLERANCE = 1e-9


def is_same(one: float, other: float) -> bool:
    """Compare two numbers up to their last digits."""
    return abs(one - other) <= TOLERANCE


def are_same(some: Sequence[float], others: Sequence[float]) -> bool:
    """Compare two lists of numbers up to their last digits."""
    return len(some) == len(others) and all(map(is_same, some, others))


def find_difference(said: Any, found: Any, where: str) -> str:
    """Find where two pieces of plain data differ first; "" if nowhere. Numbers may differ in their last digits."""
    if isinstance(said, dict) and isinstance(found, dict):
        pairs: list[tuple[Any, Any, Any]] = [(key, said.get(key), found.get(key)) for key in sorted({*said, *found})]
    elif isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        pairs = [(number, *pair) for number, pair in enumerate(zip(said, found, strict=True))]
    elif isinstance(said, float | int) and isinstance(found, float | int) and is_same(said, found):
        return ""
    else:
        return "" if said == found else f"{where} is {shorten(said)}, but the predictions give {shorten(found)}"
    return next((text for key, one, other in pairs if (text := find_difference(one, other, f"{where}.{key}"))), "")


def shorten(value: Any) -> str:
    """Write a value in 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
