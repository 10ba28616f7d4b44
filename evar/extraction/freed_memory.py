"""Keep memory that was freed, while one batch after the other needs the same amount again."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: options of glibc's `mallopt`, from malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
#: glibc's own values; the thresholds are where it arrives by itself once large blocks were freed
_USUAL = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10, _MMAP_THRESHOLD: 32 << 20}

_lock = threading.Lock()
_holders = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Let the process keep what it frees until the block ends, where the C library is glibc; elsewhere do nothing.

    By itself, glibc asks the system for every large tensor and gives it back. The system clears each page anew, which took
    up to 40 % of the processor time of a pass with large maps. The peak is the same; after the block, memory goes back.
    Whoever tunes the allocator by `MALLOC_..._` variables, or preloads another one, keeps that.

    Example:
        >>> with keep_freed_memory():
        ...     blocks = [bytearray(1 << 20) for _ in range(3)]
    """
    global _holders
    library = _find_glibc()
    if library is None:
        yield
        return
    with _lock:
        _holders += 1
        if _holders == 1:
            _set_options(library, _KEPT)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _set_options(library, _USUAL)
                library.malloc_trim(0)


def _find_glibc() -> ctypes.CDLL | None:
    """Find the C library of this process, if it is glibc with its own allocator, untuned."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    if "LD_PRELOAD" in os.environ or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _set_options(library: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)
