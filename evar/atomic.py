"""Writing a file so that a reader never sees half of it."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path


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
                return os.replace(temporary, path)
            except PermissionError:  # Windows refuses while another process has the old file open for a moment
                time.sleep(wait)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
