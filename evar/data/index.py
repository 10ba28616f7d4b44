"""Checks of an index that need no audio, a part of its rows at a time, and labels as arrays.

An index may be read whole, as an evaluation needs it, or in parts, in memory that does not grow with the clips: what must be
seen over all rows (a path twice, a group in two splits) is then kept in a temporary file.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from evar.config.registry import near_miss, stays_below
from evar.data.task_config import CAPTION_SEPARATOR, LABEL_SEPARATOR, SPLITS, WITHOUT_CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task_config import TaskConfig

#: an event of a clip, in seconds: "1.25-3.5 dog bark"
_EVENT = re.compile(r"\s*(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?) +(\S.*?)\s*")


#: rows of a CSV that are read at a time, where not all are needed
ROWS_AT_ONCE = 20_000


#: parts of a path that leads out of its folder; most paths have none of them, and need no closer look
_SUSPICIOUS = re.compile(r"\.\.|^[/~]|[\\:\0]|^\.?$")


def in_parts(path: Path) -> Iterator[pd.DataFrame]:
    """Rows of an index, some at a time; every value is text."""
    yield from pd.read_csv(path, dtype=str, keep_default_na=False, chunksize=ROWS_AT_ONCE)


class IndexCheck:
    """Everything that must be true of an index; `add` all rows in their order, then `finish`.

    Args:
        config: of the task, with its classes.
        on_disk: keep what must be seen over all rows in a temporary file, and not in memory.
    """

    def __init__(self, config: TaskConfig, on_disk: bool = False) -> None:
        self.config = config
        self.part = config.part
        self.where = f"{config.name} ({config.index or 'index made from your copy'})"
        # A header is above the rows of a CSV.
        self._line, self._first = ("line", 2) if config.index else ("clip", 1)
        self._n_clips = 0
        self._n_of_part: Counter[str] = Counter()
        self._has_class = np.zeros(max(1, len(config.classes)), bool)
        self._seen: _Seen = _SeenOnDisk() if on_disk else _SeenInMemory()

    def add(self, rows: pd.DataFrame) -> NDArray[Any]:
        """Check some rows.

        Args:
            rows: of the index, with the columns path, label, and split or fold.

        Returns:
            Their labels as in `evar.data.task.Task.y`: (rows,) class numbers or numbers, or (rows, classes) of 0 and 1.

        Raises:
            ValueError: with the fault and its line.
        """
        for column in ("path", "label", self.part):
            if column not in rows.columns:
                raise ValueError(f"{self.where} lacks the column {column!r}; {near_miss(column, list(rows.columns))}")
        for row, text in enumerate(rows["path"].tolist()):
            if _SUSPICIOUS.search(text) and not stays_below(text):
                raise ValueError(f"{self._name_row(row)}: path must stay below the task's folder, got {text!r}")
        parts = rows[self.part]
        groups = rows["group"] if "group" in rows else pd.Series("", index=rows.index)
        self._seen.add(rows["path"], groups, parts, parts.where(~parts.isin(self.config.may_share_groups), "shared"))
        y = labels(self.config, rows["label"], self._name_row)
        if self.part == "split" and not parts.isin(SPLITS).all():
            row = int(np.flatnonzero(~parts.isin(SPLITS))[0])
            raise ValueError(f"{self._name_row(row)}: split must be train, valid or test, got {parts.iloc[row]!r}")
        if self.config.kind == "multiclass":
            self._has_class[np.unique(y)] = True
        elif self.config.kind == "multilabel":
            self._has_class |= y.any(axis=0)
        elif self.config.kind == "events":
            for events in y:
                self._has_class[events[:, 0].astype(int)] = True
        self._n_of_part.update(parts)
        self._n_clips += len(rows)
        return y

    def finish(self) -> None:
        """Check what only all rows together tell.

        Raises:
            ValueError: with the fault.
        """
        n_twice, first = self._seen.find_repeats()
        if n_twice:
            raise ValueError(f"{self.where} lists {n_twice} clips twice, first {first}")
        n_leaked, group, parts = self._seen.find_leaks()
        if n_leaked:
            raise ValueError(
                f"{self.where}: {n_leaked} groups are in more than one {self.part}, first {group!r} in "
                f"{', '.join(parts)}; clips of one source must stay together"
            )
        n_classes = 0 if self.config.kind in WITHOUT_CLASSES else int(self._has_class.sum())
        counts = {"clips": self._n_clips, "classes": n_classes}
        expected = self.config.expected
        for what, number in (("clips", expected.clips), ("classes", expected.classes)):
            if number is not None and counts[what] != number:
                raise ValueError(f"{self.where}: expected {number} {what}, got {counts[what]}; is it another version?")
        for name, number in expected.parts.items():
            if (got := self._n_of_part[name]) != number:
                raise ValueError(
                    f"{self.where}: expected {number} clips in {self.part} {name}, got {got}; is it another version?"
                )

    def _name_row(self, row: int) -> str:
        return f"{self.where} {self._line} {self._n_clips + row + self._first}"


class _Seen:
    """Facts that need all rows of an index: repeated paths, and groups in several parts.

    `parts` are splits or folds; `told_apart` the same, but one name for those that may share groups.
    """

    def add(self, paths: pd.Series, groups: pd.Series, parts: pd.Series, told_apart: pd.Series) -> None:
        raise NotImplementedError

    def find_repeats(self) -> tuple[int, str]:
        """Count the paths that are repeated, and return the first of them."""
        raise NotImplementedError

    def find_leaks(self) -> tuple[int, str, list[str]]:
        """Count the groups that are in several parts; return the first of them and its parts."""
        raise NotImplementedError


class _SeenInMemory(_Seen):
    def __init__(self) -> None:
        self._rows: list[tuple[pd.Series, pd.Series, pd.Series, pd.Series]] = []

    def add(self, paths: pd.Series, groups: pd.Series, parts: pd.Series, told_apart: pd.Series) -> None:
        self._rows.append((paths, groups, parts, told_apart))

    def _join_column(self, column: int) -> pd.Series:
        columns = [rows[column] for rows in self._rows]
        return columns[0] if len(columns) == 1 else pd.concat(columns, ignore_index=True)

    def find_repeats(self) -> tuple[int, str]:
        paths = self._join_column(0)
        again = paths[paths.duplicated()]
        return len(again), str(again.iloc[0]) if len(again) else ""

    def find_leaks(self) -> tuple[int, str, list[str]]:
        groups, parts, told_apart = (self._join_column(column) for column in (1, 2, 3))
        if (groups == "").all():
            return 0, "", []
        numbers, names = pd.factorize(groups)
        n_parts = pd.DataFrame({"group": numbers, "part": pd.factorize(told_apart)[0]}).drop_duplicates()["group"]
        leaked = sorted(str(names[number]) for number in n_parts[n_parts.duplicated()].unique())
        return len(leaked), *((leaked[0], sorted(parts[groups == leaked[0]].unique())) if leaked else ("", []))


class _SeenOnDisk(_Seen):
    """The same in a temporary database, with a cache of a few megabytes."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="evar-index-")
        self._database = sqlite3.connect(Path(self._folder.name) / "seen.sqlite")
        for told in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16000", "temp_store = FILE"):
            self._database.execute(f"PRAGMA {told}")
        self._database.execute("CREATE TABLE paths (path TEXT PRIMARY KEY, turn INTEGER) WITHOUT ROWID")
        self._database.execute(
            "CREATE TABLE parts (name TEXT, part TEXT, apart TEXT, PRIMARY KEY (name, part)) WITHOUT ROWID"
        )
        self._turn, self._n_twice, self._first = 0, 0, ""

    def add(self, paths: pd.Series, groups: pd.Series, parts: pd.Series, told_apart: pd.Series) -> None:
        self._turn += 1
        before = self._database.total_changes
        rows = ((path, self._turn) for path in paths.tolist())
        self._database.executemany("INSERT OR IGNORE INTO paths VALUES (?, ?)", rows)
        n_again = len(paths) - (self._database.total_changes - before)
        if n_again and not self._n_twice:
            self._first = self._find_repeat(paths)
        self._n_twice += n_again
        columns = {"name": groups.to_numpy(), "part": parts.to_numpy(), "apart": told_apart.to_numpy()}
        told = pd.DataFrame(columns).drop_duplicates()
        self._database.executemany(
            "INSERT OR IGNORE INTO parts VALUES (?, ?, ?)", told.itertuples(index=False, name=None)
        )

    def _find_repeat(self, paths: pd.Series) -> str:
        """The first of the rows just added whose path was there before, in these rows or in earlier ones."""
        ask = "SELECT turn FROM paths WHERE path = ?"
        for path, is_again in zip(paths, paths.duplicated(), strict=True):
            if is_again or self._database.execute(ask, (path,)).fetchone()[0] != self._turn:
                return str(path)
        raise AssertionError("some row was there before")

    def find_repeats(self) -> tuple[int, str]:
        return self._n_twice, self._first

    def find_leaks(self) -> tuple[int, str, list[str]]:
        ask = self._database.execute
        if ask("SELECT 1 FROM parts WHERE name != '' LIMIT 1").fetchone() is None:
            return 0, "", []
        many = "SELECT name FROM parts GROUP BY name HAVING COUNT(DISTINCT apart) > 1"
        (n_leaked,) = ask(f"SELECT COUNT(*) FROM ({many})").fetchone()
        first = ask(f"{many} ORDER BY name LIMIT 1").fetchone()
        parts = ask("SELECT part FROM parts WHERE name = ? ORDER BY part", first or ("",)).fetchall()
        return n_leaked, first[0] if first else "", [part for (part,) in parts]


def with_classes(config: TaskConfig, parts: Iterable[pd.DataFrame]) -> TaskConfig:
    """Return the task with the classes that occur in its index, where it takes them from there.

    Args:
        config: of the task.
        parts: of the index; read only where they are needed.
    """
    if not config.classes_from_index or config.classes:
        return config
    found: set[str] = set()
    for rows in parts:
        if "label" not in rows:
            return config
        for text in rows["label"].unique():
            found |= list_class_names(str(text), config.kind)
    are_numbers = all(label.isdecimal() for label in found)
    return replace(config, classes=tuple(sorted(found, key=lambda label: (int(label) if are_numbers else 0, label))))


def list_class_names(text: str, kind: str) -> set[str]:
    """Classes that the label of a clip names.

    Example:
        >>> sorted(list_class_names("0.5-1.25 dog;3-3.5 cat", "events")), list_class_names("dog;cat", "multiclass")
        (['cat', 'dog'], {'dog;cat'})
    """
    if kind in ("multiclass", "regression"):
        return {text} - {""}
    told = [part.strip() for part in text.split(LABEL_SEPARATOR)]
    if kind == "events":
        told = [match[3] for part in told if (match := _EVENT.fullmatch(part))]
    return set(told) - {""}


def labels(config: TaskConfig, texts: pd.Series, where: Callable[[int], str]) -> NDArray[Any]:
    """Read labels as arrays, see `evar.data.task.Task.y`.

    Args:
        config: of the task.
        texts: the column label.
        where: row number -> place in the index, for error messages.

    Returns:
        (rows,) class numbers or numbers; (rows, classes) of 0 and 1; or (rows,) objects for events and captions.

    Raises:
        ValueError: if a label is none of the classes, or no number, or a clip has no caption.
    """
    if config.kind == "captions":
        return _captions(texts, where)
    if config.kind == "regression":
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise ValueError(f"{where(int(bad[0]))}: label must be a number, got {texts.iloc[bad[0]]!r}")
        return numbers
    number = {label: i for i, label in enumerate(config.classes)}

    def require_class(label: str, row: int) -> int:
        if label not in number:
            raise ValueError(
                f"{where(row)}: label {label!r} is none of the {len(number)} classes; {near_miss(label, config.classes)}"
            )
        return number[label]

    if config.kind == "multiclass":
        codes = texts.map(number)
        if codes.isna().any():
            require_class(texts[codes.isna()].iloc[0], int(np.flatnonzero(codes.isna())[0]))
        return np.asarray(codes, np.int64)
    if config.kind == "events":
        found = np.empty(len(texts), object)
        for row, text in enumerate(texts):
            parts = [part for part in text.split(LABEL_SEPARATOR) if part.strip()]
            found[row] = np.array(
                [_parse_event(part, row, where, require_class) for part in parts], np.float64
            ).reshape(-1, 3)
        return found
    y = np.zeros((len(texts), len(number)), np.uint8)
    for row, text in enumerate(texts):
        for label in text.split(LABEL_SEPARATOR) if text else ():
            y[row, require_class(label.strip(), row)] = 1
    return y


def _captions(texts: pd.Series, where: Callable[[int], str]) -> NDArray[Any]:
    """(rows,) of tuples of captions."""
    found = np.empty(len(texts), object)
    for row, text in enumerate(texts):
        found[row] = tuple(caption.strip() for caption in text.split(CAPTION_SEPARATOR) if caption.strip())
        if not found[row]:
            raise ValueError(
                f"{where(row)}: label must be one or more captions with {CAPTION_SEPARATOR!r} between them, got {text!r}"
            )
    return found


def _parse_event(
    text: str, row: int, where: Callable[[int], str], known: Callable[[str, int], int]
) -> tuple[int, float, float]:
    """Class number, onset and offset in seconds."""
    match = _EVENT.fullmatch(text)
    if match is None or float(match[1]) > float(match[2]):
        raise ValueError(f"{where(row)}: an event must be like '1.25-3.5 dog', in seconds, got {text.strip()!r}")
    return known(match[3], row), float(match[1]), float(match[2])


def strata(config: TaskConfig, y: NDArray[Any]) -> NDArray[np.int64]:
    """Compute (rows,) what draws are balanced by: the class; of several labels the rarest; of numbers the fifth."""
    if config.kind == "regression":
        ranks = np.argsort(np.argsort(y, kind="stable"), kind="stable")
        return (ranks * 5 // len(y)).astype(np.int64)
    if config.kind == "multiclass":
        return y
    if config.kind == "captions":
        return np.zeros(len(y), np.int64)
    if config.kind == "events":
        y = np.array([np.bincount(own[:, 0].astype(int), minlength=len(config.classes)) > 0 for own in y])
    rarity = np.argsort(np.argsort(y.sum(axis=0), kind="stable"), kind="stable")  # 0 is the rarest
    n_labels = y.shape[1]
    return np.where(y.any(axis=1), np.where(y == 1, rarity, n_labels).argmin(axis=1), n_labels)
