"""Tables that people save: the only reader of CSV files, for all common encodings, separators and spaces.

Only what cannot be misread is understood: a byte-order mark or UTF-16 tells its encoding, a header tells its separator.
An old 8-bit encoding looks like any other one, so it is refused, and the file is named.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from evar.config.registry import near_miss

_SEPARATORS = (",", ";", "\t", "|")
#: bytes that are looked at to find the encoding
_LOOKED_AT = 1 << 16
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
#: spaces that are not seen, and that editors leave behind
_SPACES = " \t\r\n\v\f\u00a0\u2007\u202f\u200b\ufeff"
_ESCAPED = re.compile("[\udc80-\udcff]")
csv.field_size_limit(1 << 24)


class TableFile:
    """A CSV whose cells are text without spaces around it; rows are read one after the other.

    Args:
        path: of the file.
        aliases: other name -> name that a column may have; names are compared without case.

    Attributes:
        columns: names from the header.
        encoding, separator: as found.
        line: of the row that was read last.

    Raises:
        ValueError: if it is no text, has no header, or names a column twice.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "t.csv").write_bytes("Path ; Label\\na.wav; cat \\n".encode("utf-16"))
        ...     table = TableFile(Path(folder) / "t.csv", {"Path": "path", "label": "label"})
        ...     table.columns, list(table.rows())
        (('path', 'label'), [['a.wav', 'cat']])
    """

    def __init__(self, path: str | Path, aliases: dict[str, str] | None = None) -> None:
        self.path = Path(path)
        self.line = 0
        self.encoding = _find_encoding(self.path)
        known = {name.casefold(): target for name, target in (aliases or {}).items()}
        self.separator = ","
        header = self._read_header(known)
        self._n_header = len(header)
        while header and not header[-1]:  # a separator at the end of each line
            header.pop()
        renamed = [known.get(name.casefold(), name) for name in header]
        # A name that is right as it stands goes before another that only means the same.
        self.columns = tuple(
            new if new == old or (new not in header and renamed.count(new) == 1) else old
            for new, old in zip(renamed, header, strict=True)
        )
        if not self.columns or len(set(self.columns)) != len(self.columns) or "" in self.columns:
            raise ValueError(f"{self.path} must name each of its columns, and once, got {list(self.columns)}")

    def _read_header(self, known: dict[str, str]) -> list[str]:
        with self._open() as file:
            first = ""
            for line in file:
                if line.strip(_SPACES):
                    first = line
                    break
        if first.lower().startswith("sep=") and len(first.strip(_SPACES)) == 5:
            raise ValueError(f"{self.path} begins with {first.strip()!r}, a line for Excel only; delete that line")
        counts = []
        for separator in _SEPARATORS:
            cells = next(csv.reader([first], delimiter=separator), [])
            names = [_clean(cell) for cell in cells]
            counts.append((sum(name.casefold() in known for name in names), len(names), separator))
        best = max(counts, key=lambda one: one[:2])
        self.separator = best[2] if best[1] > 1 else ","
        return [_clean(cell) for cell in next(csv.reader([first], delimiter=self.separator), [])]

    def require(self, *columns: str) -> None:
        """Check that columns are there.

        Raises:
            ValueError: if one is missing.
        """
        for column in columns:
            if column not in self.columns:
                raise ValueError(f"{self.path} lacks the column {column!r}; {near_miss(column, list(self.columns))}")

    def rows(self, paths: Sequence[str] = ("path",)) -> Iterator[list[str]]:
        """Cells of each row, in the order of `columns`; blank lines are passed over.

        Args:
            paths: columns whose cells may hold bytes that are no UTF-8, as file names may.

        Raises:
            ValueError: if a row has another number of cells, or holds a NUL or bytes of another encoding.
        """
        may_be_bytes = {number for number, name in enumerate(self.columns) if name in paths}
        with self._open() as file:
            reader = csv.reader(file, delimiter=self.separator, skipinitialspace=True)
            is_header = True
            try:
                for row in reader:
                    self.line = reader.line_num
                    cells = [_clean(cell) for cell in row]
                    if not any(cells) and len(cells) != (1 if len(self.columns) == 1 else -1):
                        continue
                    if is_header:
                        is_header = False
                        continue
                    yield self._check(cells, may_be_bytes)
            except UnicodeError as error:
                raise ValueError(f"{self.path} is not in {self.encoding} throughout ({error})") from None
            except csv.Error as error:
                raise ValueError(f"{self.path} line {reader.line_num} is not readable as CSV ({error})") from error

    def _check(self, cells: list[str], may_be_bytes: set[int]) -> list[str]:
        n_wanted = len(self.columns)
        while len(cells) > n_wanted and not cells[-1]:
            cells.pop()
        if len(cells) != n_wanted:
            raise ValueError(f"{self.path} line {self.line} has {len(cells)} values, expected {n_wanted} as in line 1")
        for number, cell in enumerate(cells):
            if "\0" in cell:
                raise ValueError(f"{self.path} line {self.line} holds a NUL character; is the file damaged?")
            if number not in may_be_bytes and _ESCAPED.search(cell):
                raise ValueError(
                    f"{self.path} is not in UTF-8 (line {self.line} holds other bytes); save it again as CSV UTF-8"
                )
        return cells

    def _open(self):  # type: ignore[no-untyped-def]
        errors = "surrogateescape" if self.encoding.startswith("utf-8") else "strict"
        return open(self.path, newline="", encoding=self.encoding, errors=errors)


def _clean(cell: str) -> str:
    return cell.strip(_SPACES)


def _find_encoding(path: Path) -> str:
    """By the byte-order mark, or by the zeros that UTF-16 puts between the letters of a header; else UTF-8.

    Raises:
        ValueError: if the file is no text.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a CSV file")
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    if not start.strip():
        raise ValueError(f"{path} is empty; expected a CSV with a header")
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if start[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise ValueError(f"{path} is a spreadsheet (or an archive), not a CSV; save it as CSV UTF-8")
    first = start[:256]
    if len(first) >= 8 and first[1::2].count(0) > 0.8 * len(first[1::2]) and not any(b == 0 for b in first[0::2]):
        return "utf-16-le"
    if len(first) >= 8 and first[0::2].count(0) > 0.8 * len(first[0::2]) and not any(b == 0 for b in first[1::2]):
        return "utf-16-be"
    return "utf-8"


def find_file(text: str, folder: Path) -> Path | None:
    """Find the file that a cell of a table names, as people write paths.

    Tried in this order: as it stands; with "/" for backslashes; in the other form of composed letters (macOS takes them
    apart); below the folder although the table begins with the folder's own name.

    Args:
        text: of the cell.
        folder: where relative paths begin.

    Returns:
        The path that exists, or None.
    """
    import unicodedata

    forms = [text]
    if "\\" in text:
        forms.append(text.replace("\\", "/"))
    forms += [unicodedata.normalize(form, one) for one in list(forms) for form in ("NFC", "NFD") if not one.isascii()]
    own = f"{folder.name}/"
    forms += [one.removeprefix("./").removeprefix(own) for one in list(forms) if one.removeprefix("./").startswith(own)]
    for form in forms:
        path = Path(form).expanduser() if form.startswith("~/") else folder / name_on_disk(form)
        try:
            if path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def show_path(path: str | Path) -> str:
    """Write a path as text that every file and terminal takes: bytes that are no UTF-8 are written out.

    Example:
        >>> show_path(os.fsdecode(b"mod\\x85 03.wav"))
        'mod\\\\udc85 03.wav'
    """
    raw = os.fsencode(path) if os.name == "posix" else os.fspath(path).encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()


def name_on_disk(text: str) -> str:
    """Spell a name as this system does: names are UTF-8 on disk, even if a shell's language settings say ASCII."""
    if _IS_UTF8 or text.isascii():
        return text
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


_IS_UTF8 = os.name != "posix" or sys.getfilesystemencoding().lower().replace("-", "") == "utf8"
_SHOWN = re.compile(r"\\udc([89a-f][0-9a-f])")


def real_path(folder: Path, text: str) -> Path:
    """Return the file that `show_path` wrote as text, below a folder.

    Example:
        >>> real_path(Path("sounds"), "cat/a.wav").as_posix()
        'sounds/cat/a.wav'
    """
    plain = folder / name_on_disk(text)
    if "\\udc" not in text or os.path.lexists(plain):
        return plain
    return folder / name_on_disk(_SHOWN.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text))
