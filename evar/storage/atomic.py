"""Writing a file so that a reader never sees half of it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

#: folder -> what is told of every file below it that was written or removed (see `evar.storage.mirror`)
listeners: dict[Path, Callable[[Path], None]] = {}


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or, whatever happens, leave the old one; several processes may do so at once.

    Raises:
        OSError: if the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        for wait in (0.01, 0.05, 0.2, 1.0):
            try:
                os.replace(temporary, path)
                return changed(path)
            except PermissionError:  # Windows refuses while another process has the old file open for a moment
                time.sleep(wait)
        os.replace(temporary, path)
        changed(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a file, if it is there."""
    path.unlink(missing_ok=True)
    changed(path)


def changed(path: Path) -> None:
    """Tell whoever listens that a file was written or removed."""
    for folder, told in listeners.items():
        if path.is_relative_to(folder):
            told(path)
