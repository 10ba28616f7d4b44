"""The bytes of a file and which file they come from, so that vectors are never kept under another file's hash."""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path

from evar.audio.errors import AudioError

#: files above this are not held in memory
_IN_MEMORY_BYTES = 64 << 20
#: the same for files that stay open while parts of them are read
PART_BYTES = 1 << 20
#: bytes of a large file that are hashed at a time
_HASHED_AT_ONCE = 8 << 20
#: a file that changed within this time of being read may change again without another time stamp (FAT counts 2 s)
_RACY_NS = 2_000_000_000

#: what changes whenever a file is written or replaced: inode, size, modification and change time in nanoseconds
FileState = tuple[int, int, int, int]


@dataclass(frozen=True)
class Content:
    """The content of a file at the time of reading.

    Attributes:
        path: of the file.
        data: its bytes; of a large file, a view of them.
        state: to know the file again; None if it changed while it was read.
        is_settled: the state proves it. False where the file changed a moment ago: it may change again at the same time.
    """

    path: Path
    data: bytes | mmap.mmap
    state: FileState | None
    is_settled: bool

    @property
    def is_large(self) -> bool:
        """Too large to be held in memory."""
        return not isinstance(self.data, bytes)

    def sha256(self) -> str:
        """Hash the bytes: 64 hexadecimal digits."""
        if isinstance(self.data, bytes):
            return hashlib.sha256(self.data).hexdigest()
        digest = hashlib.sha256()
        for start in range(0, len(self.data), _HASHED_AT_ONCE):
            digest.update(self.data[start : start + _HASHED_AT_ONCE])
            self.forget(start, _HASHED_AT_ONCE)
        return digest.hexdigest()

    def forget(self, start: int = 0, n_bytes: int | None = None) -> None:
        """Let the system take back memory of a large file that was looked at; the bytes are read again where needed."""
        if isinstance(self.data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self.data.madvise(mmap.MADV_DONTNEED, start, len(self.data) - start if n_bytes is None else n_bytes)


def state_of(status: os.stat_result) -> FileState:
    """Return the facts that change if another file takes the place of this one."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_settled(status: os.stat_result, now_ns: int) -> bool:
    """Any later change will show in the state. Windows has no time of change, only one of creation."""
    return os.name != "nt" and now_ns - max(status.st_mtime_ns, status.st_ctime_ns) >= _RACY_NS


def load_content(path: str | Path, most_bytes: int = _IN_MEMORY_BYTES) -> Content:
    """Read a file.

    Args:
        path: of the file.
        most_bytes: a larger file is not held in memory.

    Raises:
        AudioError: if it is missing, empty, no file, or cannot be read.
    """
    path = Path(path)
    now_ns = time.time_ns()
    try:
        with open(path, "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            if before.st_size > most_bytes:
                data: bytes | mmap.mmap = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            else:
                data = file.read()
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        broken = "; it is a link that leads nowhere" if path.is_symlink() else ""
        raise AudioError(f"the file is missing{broken}") from None
    except IsADirectoryError:
        raise AudioError("the path is a folder") from None
    except PermissionError as error:
        if path.is_dir():  # Windows opens no folder
            raise AudioError("the path is a folder") from None
        raise AudioError("the file cannot be read (permission denied); change its permissions") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"the file cannot be read ({reason})") from error
    if not len(data):
        raise AudioError("the file is empty (0 bytes)")
    state = state_of(before) if state_of(before) == state_of(after) else None
    return Content(path, data, state, state is not None and _is_settled(before, now_ns))
