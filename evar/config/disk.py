"""Errors of disks that take nothing: which file it was, why, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: errors of a disk that takes nothing -> why, and what to do
_CAUSES = {
    errno.ENOSPC: "the disk is full; free some space, or choose a folder on another disk",
    errno.EDQUOT: "your share of the disk is used up; free some space, or choose a folder on another disk",
    errno.EFBIG: "the file is larger than is allowed here; raise the limit (ulimit -f), or choose another disk",
    errno.EROFS: "the disk is read-only; choose a folder that can be written",
    errno.EACCES: "permission denied; choose a folder that you may write, or change its permissions",
    errno.EPERM: "permission denied; choose a folder that you may write, or change its permissions",
    errno.EIO: "the disk reports an error; choose a folder on another disk, and save what is on this one",
}


@contextmanager
def explain_writing(path: Path, flag: str = "") -> Iterator[None]:
    """Let errors of a full or read-only disk name the path and what to do, which the system's own errors do not.

    Args:
        path: file that the `with` block writes.
        flag: of the command line that chooses another folder, such as "--store".

    Raises:
        OSError: with the same `errno`.

    Example:
        >>> with explain_writing(Path("store/rows.jsonl"), "--store"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        OSError: store/rows.jsonl cannot be written: the disk is full; free some space, or choose a folder on another ...
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _CAUSES or len(error.args) < 2:  # of another kind, or explained already
            raise
        explained = OSError(f"{path} cannot be written: {_CAUSES[error.errno]}{f' with {flag}' if flag else ''}")
        explained.errno = error.errno
        raise explained from error


def tell_disk_error(error: Exception) -> str:
    """Say an error in one line; where a disk is full or read-only, with what to do.

    Example:
        >>> tell_disk_error(OSError(errno.EROFS, "Read-only file system", "out/table.md"))
        "[Errno 30] Read-only file system: 'out/table.md': the disk is read-only; choose a folder that can be written"
    """
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in _CAUSES and len(error.args) > 1:
        return f"{text}: {_CAUSES[error.errno]}"
    return text
