"""Writing a file so that a reader never sees half of it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from evar.config.disk import explain_writing

#: folder -> function that is called after a file below it was written or removed (see `evar.storage.mirror`)
listeners: dict[Path, Callable[[Path], None]] = {}

#: age of a half-written file after which no machine still writes it, and after which this machine does not
_PART_SECONDS, _SETTLED_SECONDS = 86400.0, 60.0


def write_atomic(path: Path, data: bytes) -> None:
    """Write a complete file, or leave the old one in case of an error; several processes may do so at once.

    Raises:
        OSError: if the folder cannot be made or written; it names the file and what to do.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomic(Path(folder) / "new" / "a.txt", b"whole")
        ...     (Path(folder) / "new" / "a.txt").read_bytes()
        b'whole'
    """
    with explain_writing(path):
        _write_atomic(path, data)


def _write_atomic(path: Path, data: bytes) -> None:
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
                return report_change(path)
            except PermissionError:  # Windows refuses while another process has the old file open for a moment
                time.sleep(wait)
        os.replace(temporary, path)
        report_change(path)
    finally:
        with suppress(OSError):  # of a read-only disk
            temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a file, if it is there.

    Example:
        >>> remove(Path("no such file"))
    """
    path.unlink(missing_ok=True)
    report_change(path)


def report_change(path: Path) -> None:
    """Tell all listeners that a file was written or removed."""
    for folder, listener in listeners.items():
        if path.is_relative_to(folder):
            listener(path)


def remove_dead_parts(folder: Path) -> None:
    """Remove files `NAME.PID.part` of a folder whose process has ended before it renamed them.

    Args:
        folder: may be absent. Parts of other machines that share the folder are kept for a day.

    Example:
        >>> remove_dead_parts(Path("no such folder"))
    """
    for part in folder.glob("*.part"):
        pid = part.name.split(".")[-2]
        try:
            is_recent = time.time() - part.stat().st_mtime < _PART_SECONDS
            if pid.isdigit() and (not is_recent or _is_gone(part, int(pid))):
                part.unlink(missing_ok=True)
        except OSError:
            continue  # another process was first


def _is_gone(part: Path, pid: int) -> bool:
    """Tell whether the process that wrote a part on this machine has ended."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        # The number may be of another machine that shares the folder: leave it what it may still be writing.
        return time.time() - part.stat().st_mtime > _SETTLED_SECONDS
    except OSError:
        return False
    return False
