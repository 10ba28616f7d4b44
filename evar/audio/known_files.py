"""What is known of audio files, so that they need not be read again: `audio.sqlite` in the store's folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from evar.audio.reading import AudioInfo, inspect


class AudioIndex:
    """Content hash, length and rate of files, remembered by path, size and modification time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(folder / "audio.sqlite", timeout=60)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS audio (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, sha256 TEXT,"
            " n_samples INTEGER, sample_rate INTEGER)"
        )

    def lookup(self, paths: Sequence[Path]) -> list[AudioInfo | None]:
        """What is known of each file; None where it is unknown, gone or has changed since."""
        known: list[AudioInfo | None] = []
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                known.append(None)
                continue
            row = self._database.execute(
                "SELECT sha256, n_samples, sample_rate FROM audio WHERE path = ? AND size = ? AND mtime = ?",
                (str(path.resolve()), stat.st_size, stat.st_mtime_ns),
            ).fetchone()
            known.append(AudioInfo(*row) if row else None)
        return known

    def inspect(self, path: Path) -> tuple[tuple[str, int, int], AudioInfo]:
        """Hash a file and read its header: what `remember` needs, and the result. Safe in threads.

        Raises:
            AudioError: as `evar.audio.reading.inspect`.
        """
        info = inspect(path)
        stat = path.stat()
        return (str(path.resolve()), stat.st_size, stat.st_mtime_ns), info

    def remember(self, found: Sequence[tuple[tuple[str, int, int], AudioInfo]]) -> None:
        """Keep results of `inspect`."""
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO audio VALUES (?, ?, ?, ?, ?, ?)",
                [(*file, info.sha256, info.n_samples, info.sample_rate) for file, info in found],
            )

    def close(self) -> None:
        """Close the database."""
        self._database.close()
