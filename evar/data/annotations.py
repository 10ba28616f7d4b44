"""Annotations of recordings as other programs write them: Raven selection tables, Audacity labels, JSON Lines."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd

from evar.audio.folders import find_audio
from evar.config.registry import near_miss
from evar.config.tables import TableFile, show_path

#: of Raven's columns, those that every table of selections has
_RAVEN = ("Begin Time (s)", "End Time (s)")
#: Raven's own columns that hold no annotation; measurements have their unit in parentheses
_RAVEN_OWN = frozenset(
    ("selection", "view", "channel", "begin file", "begin path", "end file", "end path", "begin date", "begin clock time",
     "end clock time", "occupancy", "score", "notes", "comments")
)  # fmt: skip
#: names that annotators give the column of the class, the likeliest first
_CLASS_NAMES = (
    "annotation", "label", "species", "species code", "class", "code", "call type", "call", "type", "tags", "common name",
)  # fmt: skip
_AUDACITY = re.compile(r"(\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?)\t(\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?)(?:\t(.*))?")
#: what programs put behind the name of a sound to name its table
_TABLE_ENDINGS = re.compile(r"(?:[._-](?:selections?|labels?|annotations?|table[._]?\d*))+$", re.IGNORECASE)


@dataclass
class Annotations:
    """Rows of annotations.

    Attributes:
        rows: path, start, end, label, as text; start and end in seconds from the beginning of the sound.
        notes: sentences on how the tables were read.
        where: (rows,) table and line of each, for messages.
    """

    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)


def find_format(path: Path) -> str:
    """Tell how a table of annotations is written, from its first lines.

    Returns:
        "raven", "audacity", "jsonl" or "table", which stands for CSV.

    Raises:
        ValueError: if it is no text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.txt").write_text("0.5\\t1.25\\tdog\\n")
        ...     find_format(Path(folder) / "a.txt")
        'audacity'
    """
    with path.open("rb") as file:
        text = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    first = next((line for line in text.splitlines() if line.strip()), "")
    if "\t" in first and all(name in first for name in _RAVEN):
        return "raven"
    if _AUDACITY.fullmatch(first.strip("\r\n")):
        return "audacity"
    return "jsonl" if first.lstrip().startswith("{") else "table"


def read_sound_tables(place: Path, folder: Path, column: str = "") -> Annotations:
    """Read Raven selection tables and Audacity label files, one for each sound, or one of them.

    The sound of a table is found by its name: `rec1.Table.1.selections.txt`, `rec1.txt` and `rec1.wav.txt` are of
    `rec1.wav`; a Raven table may also name it in its column Begin File or Begin Path.

    Args:
        place: a table, or a folder that is searched to the bottom for tables.
        folder: of the sounds.
        column: of Raven tables, which holds the class; "" finds it.

    Raises:
        ValueError: if a table has no sound, a line cannot be read, or it is not clear which column is the class.
        FileNotFoundError: if there is no table.
    """
    tables = (
        sorted(path for path in place.rglob("*") if path.suffix.lower() in (".txt", ".tsv"))
        if place.is_dir()
        else [place]
    )
    if not tables:
        raise FileNotFoundError(
            f"no table below {place}; expected Raven selection tables or Audacity labels, .txt files"
        )
    sounds = _Sounds(folder)
    found = Annotations(pd.DataFrame())
    rows: list[dict[str, str]] = []
    others = []
    n_views = n_points = 0
    for table in tables:
        kind = find_format(table) if table.stat().st_size else "audacity"
        if kind == "raven":
            own, where, n_again = _read_raven(table, sounds, column)
            n_views += n_again
        elif kind == "audacity":
            own, where, n_without = _read_audacity(table, sounds.find(table))
            n_points += n_without
        else:
            others.append(table.name)
            continue
        rows += own
        found.where += where
    if others and len(others) == len(tables):
        raise ValueError(f"{place} holds neither Raven selection tables nor Audacity labels, first {others[0]}")
    for n_rows, what in (
        (n_views, "rows repeat a selection in another view, and count once"),
        (n_points, "labels mark a point and no stretch of time, and are left out"),
        (len(others), f"files are no tables of annotations, and are left out: {', '.join(others[:3])}"),
    ):
        if n_rows:
            found.notes.append(f"{n_rows} {what}")
    found.notes.append(
        f"{len(rows)} annotations of {len({row['path'] for row in rows})} sounds, from {len(tables)} tables"
    )
    found.rows = pd.DataFrame(rows, columns=["path", "start", "end", "label"], dtype=str)
    return found


class _Sounds:
    """Sounds below a folder, by the names that tables have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._of_stem: dict[str, list[str]] = {}
        self._of_name: dict[str, list[str]] = {}
        for path in find_audio(folder):
            name = Path(path).relative_to(folder).as_posix()
            self._of_name.setdefault(Path(name).name.casefold(), []).append(name)
            self._of_stem.setdefault(Path(name).stem.casefold(), []).append(name)

    def find(self, table: Path) -> str:
        """Find the path of the sound of a table, below the folder.

        Raises:
            ValueError: if there is none, or several that fit equally.
        """
        name = table.stem
        tried = [name, _TABLE_ENDINGS.sub("", name)]
        for one in tried:
            for known in (self._of_name, self._of_stem):
                if fitting := known.get(one.casefold()):
                    return self._choose(fitting, table)
        raise ValueError(
            f"{table} has no sound below {self.folder}: expected {tried[-1]}.wav or another ending; "
            f"{near_miss(tried[-1].casefold(), list(self._of_stem))}"
        )

    def find_named(self, name: str, table: Path, line: int) -> str:
        """Find the path of a sound that a table names, with or without folders of another machine."""
        base = (PureWindowsPath(name) if "\\" in name else PurePosixPath(name)).name
        fitting = self._of_name.get(base.casefold())
        if not fitting:
            raise ValueError(f"{table} line {line}: no sound {base} below {self.folder}")
        return self._choose(fitting, table)

    def _choose(self, fitting: Sequence[str], table: Path) -> str:
        beside = [name for name in fitting if (self.folder / name).parent == table.parent]
        inner = [name for name in fitting if Path(name).parent.name == table.parent.name]
        chosen = fitting if len(fitting) == 1 else beside or inner
        if len(chosen) != 1:
            raise ValueError(
                f"{table} may be of {len(fitting)} sounds, {', '.join(fitting[:3])}; put it beside its sound, "
                "or give a CSV with paths"
            )
        return show_path(chosen[0])


def _read_raven(table: Path, sounds: _Sounds, column: str) -> tuple[list[dict[str, str]], list[str], int]:
    """Read rows, the place of each, and how many repeated a selection in another view."""
    file = TableFile(table, {name: name for name in _RAVEN})
    labels = file.columns.index(_find_class_column(file.columns, table, column))
    at = {name.casefold(): number for number, name in enumerate(file.columns)}
    begin, end = (at[name.casefold()] for name in _RAVEN)
    named = next((at[name] for name in ("begin file", "begin path") if name in at), None)
    offset, selection = at.get("file offset (s)"), at.get("selection")
    rows, where, seen, n_again = [], [], set(), 0
    of_table = None if named is not None else sounds.find(table)
    for cells in file.rows(tuple(file.columns)):
        start, stop = (_read_decimal(cells[place], table, file.line) for place in (begin, end))
        key = (cells[selection] if selection is not None else "", cells[begin], cells[end], cells[labels])
        if key in seen:
            n_again += 1
            continue
        seen.add(key)
        path = of_table
        if named is not None:
            path = sounds.find_named(cells[named], table, file.line) if cells[named] else sounds.find(table)
        if offset is not None and cells[offset]:  # of a sequence of files, times run on from file to file
            inside = _read_decimal(cells[offset], table, file.line)
            start, stop = inside, round(inside + stop - start, 9)
        rows.append({"path": str(path), "start": repr(start), "end": repr(stop), "label": cells[labels]})
        where.append(f"{table.name} line {file.line}")
    if offset is None and len({row["path"] for row in rows}) > 1:
        raise ValueError(
            f"{table} is of several sounds, and lacks the column File Offset (s), which says where a selection begins "
            "in its file; add it in Raven and save the table again"
        )
    return rows, where, n_again


def _find_class_column(columns: Sequence[str], table: Path, column: str) -> str:
    if column:
        fitting = [name for name in columns if name.casefold() == column.casefold()]
        if not fitting:
            raise ValueError(f"{table} has no column {column!r}; {near_miss(column, list(columns))}")
        return fitting[0]
    own = [name for name in columns if name.casefold() not in _RAVEN_OWN and not re.search(r"\([^)]*\)\s*$", name)]
    named = [name for known in _CLASS_NAMES for name in own if name.casefold() == known]
    if named:
        return named[0]
    if len(own) == 1:
        return own[0]
    told = f"it may be {', '.join(own)}" if own else f"it has {', '.join(columns)}"
    raise ValueError(f"{table}: which column is the class? {told}; say --label=COLUMN")


def _read_audacity(table: Path, path: str) -> tuple[list[dict[str, str]], list[str], int]:
    """Read rows, the place of each, and how many marked a point only."""
    rows, where, n_points = [], [], 0
    for number, line in enumerate(table.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip() or line.startswith("\\"):  # the range of frequencies of the label above
            continue
        found = _AUDACITY.fullmatch(line)
        if found is None:
            raise ValueError(f"{table} line {number}: expected start, TAB, end, TAB, label, got {line[:60]!r}")
        start, end = (_read_decimal(found[place], table, number) for place in (1, 2))
        if start == end:
            n_points += 1
            continue
        rows.append({"path": path, "start": repr(start), "end": repr(end), "label": (found[3] or "").strip()})
        where.append(f"{table.name} line {number}")
    return rows, where, n_points


def _read_decimal(text: str, table: Path, line: int) -> float:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        raise ValueError(f"{table} line {line}: a time must be seconds, got {text!r}") from None


def read_json_lines(table: Path, aliases: dict[str, str]) -> pd.DataFrame:
    """Read JSON Lines, an object for each row, as text; a list of labels becomes the text of a list.

    Args:
        table: the file.
        aliases: other name -> name that a key may have.

    Raises:
        ValueError: if a line is no JSON object.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.jsonl").write_text('{"file": "a.wav", "label": ["x", "y"], "start": 1.5}\\n')
        ...     read_json_lines(Path(folder) / "a.jsonl", {"file": "path"}).values.tolist()
        [['a.wav', '["x", "y"]', '1.5']]
    """
    rows = []
    for number, line in enumerate(table.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{table} line {number} is no JSON ({error}); expected one object on each line") from None
        if not isinstance(entry, dict):
            raise ValueError(f'{table} line {number} must be an object such as {{"path": ...}}, got {line[:60]!r}')
        rows.append({_rename(key, entry, aliases): _to_text(value) for key, value in entry.items()})
    return pd.DataFrame(rows).fillna("") if rows else pd.DataFrame(columns=["path", "label"])


def _rename(key: str, entry: dict[str, object], aliases: dict[str, str]) -> str:
    """Find the name that a key stands for; a key that is right as it stands goes before another that only means the same."""
    name = aliases.get(key.casefold(), key)
    return key if name in entry else name


def _to_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value).strip()
