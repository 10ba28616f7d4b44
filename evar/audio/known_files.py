"""Known facts about audio files, so that they need not be read again: `audio.sqlite` in the store's folder.

It is a cache: if it is damaged it is made again, and if it is locked, read-only or the disk is full, files are read
again. Nothing of this stops a run or changes a number.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from evar.audio.contents import FileState, load_content, state_of
from evar.audio.errors import AudioError
from evar.audio.reading import AudioInfo, inspect, take_part
from evar.audio.segments import Segment, file_of

#: seconds to wait for another run that writes
_PATIENCE = 10.0
_Answer = TypeVar("_Answer")
#: of the package (see `evar.config.messages`); this package imports nothing of the others
_LOGGER = logging.getLogger("evar")


class AudioIndex:
    """Content hash, length and rate of files, remembered by path, inode, size, modification time and change time.

    Size and modification time alone do not tell a file from another that took its place: copies keep both. The change
    time is set by the system. A file that changed a moment before it was read may change again at the same time: it is
    hashed once more when it is asked for next.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audio.sqlite"
        self._database: sqlite3.Connection | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                self._give_up(error)
            else:
                self._start_anew(error)
        except OSError as error:
            self._give_up(error)

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, timeout=_PATIENCE)
        tables = self._database.execute("SELECT name FROM sqlite_master").fetchall()  # reads: fails where it is damaged
        if ("files",) not in tables:
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, inode TEXT, size INTEGER, mtime INTEGER,"
                " ctime INTEGER, settled INTEGER, sha256 TEXT, n_samples INTEGER, sample_rate INTEGER)"
            )

    def _start_anew(self, error: sqlite3.Error) -> None:
        """Replace a damaged database; what it held is found out again."""
        _LOGGER.warning("%s is damaged (%s) and is made again: files are read once more", self._path, error)
        self._close_quietly()
        try:
            for ending in ("", "-journal", "-wal", "-shm"):
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as again:
            self._give_up(again)

    def _give_up(self, error: Exception) -> None:
        """Go on without a cache."""
        _LOGGER.warning("%s cannot be used (%s): files are read again in each run", self._path, error)
        self._close_quietly()

    def _close_quietly(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._database is not None:
                self._database.close()
        self._database = None

    def _try(self, do: Callable[[sqlite3.Connection], _Answer]) -> _Answer | None:
        """Ask the database; None if it does not answer."""
        if self._database is None:
            return None
        try:
            return do(self._database)
        except sqlite3.OperationalError as error:
            self._give_up(error)
        except sqlite3.DatabaseError as error:
            self._start_anew(error)
        return None

    def lookup(self, paths: Sequence[Path | Segment]) -> list[AudioInfo | None]:
        """Look up each file; None for one that is unknown, gone or has changed, and for a segment outside its file."""
        known: dict[Path, AudioInfo | None] = {}
        found: list[AudioInfo | None] = []
        for path in paths:
            file = file_of(path)
            if file not in known:
                known[file] = self._look(file)
            info = known[file]
            try:
                found.append(None if info is None else take_part(info, path))
            except AudioError:
                found.append(None)
        return found

    def _look(self, path: Path) -> AudioInfo | None:
        if self._database is None:
            return None
        try:
            status = path.stat()
            name = _name(path)
        except (OSError, RuntimeError, ValueError):
            return None
        state = state_of(status)
        ask = (
            "SELECT sha256, n_samples, sample_rate, settled FROM files"
            " WHERE path = ? AND inode = ? AND size = ? AND mtime = ? AND ctime = ?"
        )
        row = self._try(lambda database: database.execute(ask, (name, *_make_row(state))).fetchone())
        if not row or not _is_sound(row):
            return None
        info = AudioInfo(row[0], row[1], row[2], state, bool(row[3]))
        return info if info.is_settled else self._settle(path, name, info)

    def _settle(self, path: Path, name: str, info: AudioInfo) -> AudioInfo | None:
        """Hash a file whose times do not prove that it is the one that is known; None if it is another one."""
        try:
            content = load_content(path)
        except AudioError:
            return None
        if content.sha256() != info.sha256:
            return None
        info = AudioInfo(info.sha256, info.n_samples, info.sample_rate, content.state, content.is_settled)
        if content.is_settled:
            self.remember([(name, info)])
        return info

    def inspect(self, path: Path | Segment) -> tuple[str, AudioInfo]:
        """Hash a file and find its length: what `remember` needs. Safe in threads.

        Raises:
            AudioError: as `evar.audio.reading.inspect`.
        """
        info = inspect(path)
        try:
            return _name(file_of(path)), info
        except (OSError, RuntimeError) as error:
            raise AudioError(f"the file cannot be read ({error})") from error

    def remember(self, found: Sequence[tuple[str, AudioInfo]]) -> None:
        """Keep results of `inspect`."""
        rows = [
            (name, *_make_row(info.state), info.is_settled, info.sha256, info.n_samples, info.sample_rate)
            for name, info in found
            if info.state is not None
        ]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

        if rows:
            self._try(write)

    def close(self) -> None:
        """Close the database."""
        self._close_quietly()


def _name(path: Path) -> str:
    """The real path as text that a database takes: bytes that are no UTF-8 are written out."""
    return os.fsencode(path.resolve()).decode("utf-8", "backslashreplace")


def _make_row(state: FileState) -> tuple[str, int, int, int]:
    """Inodes may exceed what SQLite holds as a number."""
    return str(state[0]), state[1], state[2], state[3]


def _is_sound(row: Sequence[object]) -> bool:
    """A row that a program of ours wrote."""
    sha256, n_samples, sample_rate, _ = row
    return isinstance(sha256, str) and len(sha256) == 64 and isinstance(n_samples, int) and isinstance(sample_rate, int)
