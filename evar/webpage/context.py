"""The records of a results folder, read once, and its tables, from which all parts of the page are made."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from evar.config.plain_text import make_printable
from evar.report.tables.cells import make_sections
from evar.report.tables.compared import mark_equals
from evar.report.tables.published import add_published_rows, load_published
from evar.report.tables.section import Row, Section
from evar.results import Failure, HintsRecord, Result, SearchRecord
from evar.webpage.page import Part

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Attributes:
        out: results folder.
        file: where the page goes.
        audio: "embed", "link" or "none".
        data_root: folder that holds the tasks' folders; None takes EVAR_DATA, then ./data.
        store: folder of the feature store; None takes EVAR_STORE, then the user's cache.
        published: numbers of others to offer: "all", "" or names.
        maps: which layers get a map: "default", "all" or "none".
        badges: id of a row -> a mark beside its score, and what hovering over it says.
    """

    out: Path
    file: Path
    audio: str = "embed"
    data_root: str | None = None
    store: str | None = None
    published: str = "all"
    maps: str = "default"
    badges: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """Records of a results folder.

    Attributes:
        settings: what the user asked for.
        results, failures, searches, hints: records that could be read.
        tasks: name of a task -> what `evar.webpage.clips` found; filled when a part needs it.
    """

    settings: Settings
    results: Sequence[Result]
    failures: Sequence[Failure] = ()
    searches: Sequence[SearchRecord] = ()
    hints: Sequence[HintsRecord] = ()
    tasks: dict[Any, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """The results folder."""
        return self.settings.out

    @cached_property
    def sections(self) -> list[Section]:
        """The main tables, with ties and with published rows; the largest first."""
        found = make_sections(self.results, self.failures, self.out)
        known = load_published(self.settings.published) if self.settings.published else []
        marked = [add_published_rows(mark_equals(section, self.out), known) for section in found]
        return sorted(marked, key=lambda section: -len(section.results))

    @cached_property
    def layer_sections(self) -> list[Section]:
        """The tables of single layers, the largest first."""
        found = make_sections(self.results, (), self.out, single_layers=True)
        return sorted(found, key=lambda section: -len(section.results))


def name_row(row: Row, *, with_layers: bool = True) -> str:
    """Return the name of a row for a sentence, a menu or a chart.

    Args:
        row: of a table.
        with_layers: name the layers too.

    Returns:
        Its encoder, and in brackets what a reader must know of all its scores: untrained weights show everywhere.
    """
    name = f"{row.encoder} {row.layers}" if with_layers and row.layers != row.encoder else row.encoder
    if "random weights" in row.flags and "random" not in row.encoder:
        name += " (random weights)"
    return make_printable(name, one_line=True)


def try_part(name: str, title: str, make: Callable[[], Part | None]) -> Part | None:
    """Make a part; an error becomes a warning and a sentence in its place, and the other parts are made.

    Args:
        name, title: of the part.
        make: returns it, or None if there is nothing to show.

    Example:
        >>> try_part("layers", "Layers", lambda: None) is None
        True
    """
    try:
        return make()
    except Exception as error:
        reason = make_printable(f"{type(error).__name__}: {error}", one_line=True)
        warnings.warn(f"the part {title} of the report could not be made: {reason}", stacklevel=2)
        return Part(name, title, problem=f"This part could not be made, but the others were: {reason}")


def try_to_describe(name: str, make: Callable[[], T]) -> T | None:
    """Describe one row or one task; what goes wrong is a warning, and the others are described.

    Args:
        name: of what is described, for the message.
        make: describes it.

    Example:
        >>> try_to_describe("row a", lambda: 3)
        3
    """
    try:
        return make()
    except Exception as error:
        reason = make_printable(f"{type(error).__name__}: {error}", one_line=True)
        warnings.warn(f"left out of the report: {make_printable(name, one_line=True)}: {reason}", stacklevel=2)
        return None


def count_noun(n: int, noun: str) -> str:
    """Return a number with its noun.

    Example:
        >>> count_noun(1, "task"), count_noun(3, "task")
        ('1 task', '3 tasks')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def join_words(words: Sequence[str], most: int = 6) -> str:
    """Join words as a sentence does; beyond `most` words, the rest is counted.

    Example:
        >>> join_words(["a", "b", "c"]), join_words(["a", "b", "c", "d"], 2)
        ('a, b and c', 'a, b and 2 others')
    """
    if len(words) > most:
        return f"{', '.join(words[:most])} and {count_noun(len(words) - most, 'other')}"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def round_number(value: float | None, digits: int = 2) -> float | None:
    """Return a number with few digits, for data that need no more; None stays None."""
    return None if value is None else round(float(value), digits)


def to_percent(value: float | None) -> float | None:
    """Return a fraction in percent, with two digits; None stays None."""
    return None if value is None else round(100 * value, 2)


def plain_interval(interval: tuple[float, float] | None) -> list[float | None]:
    """Return the ends of an interval in percent, or two times None."""
    return [None, None] if interval is None else [to_percent(interval[0]), to_percent(interval[1])]
