"""Notes that decoders write to the terminal by themselves: kept away from it, while all other output stays."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

#: lines of libmpg123, the mp3 decoder inside libsndfile, which no setting of libsndfile silences
_NOTES = re.compile(
    rb"^(?:Note: |Warning: |Error: )?[^\n]*(?:libmpg123|mpg123|Xing stream size|Illegal Audio-MPEG|Skipped \d+ bytes"
    rb"|Trying to resync|big change from first|Frankenstein|decoding ID3|missing bits|Hit end of )[^\n]*\n",
    re.MULTILINE,
)
_lock = threading.Lock()
_holders = 0
#: the process's own error stream while it is held back, and the file that takes its place; -1 for none
_real, _caught = -1, -1
#: bytes of the file that were passed on
_passed = 0


@contextlib.contextmanager
def without_decoder_notes() -> Iterator[None]:
    """Hold back the process's error stream while an mp3 is decoded; what is no decoder's note is passed on at once after."""
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _holders, _real, _caught, _passed
    with _lock:
        _holders += 1
        if _holders > 1:
            return
        with contextlib.suppress(OSError, ValueError):  # no error stream, or no room for a file: then notes are seen
            sys.stderr.flush()
            with tempfile.TemporaryFile(prefix="evar-notes-") as file:
                _caught, _passed = os.dup(file.fileno()), 0
            _real = os.dup(2)
            os.dup2(_caught, 2)


def _end() -> None:
    global _holders, _real, _caught
    with _lock:
        _holders -= 1
        if _real < 0:
            return
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        if not _holders:
            os.dup2(_real, 2)
        _pass_on()
        if not _holders:
            os.close(_real)
            os.close(_caught)
            _real = _caught = -1


def _pass_on() -> None:
    """Write what came since the last time to the real stream, without notes; the file's place is left where it is."""
    global _passed
    with contextlib.suppress(OSError):
        text = os.pread(_caught, os.fstat(_caught).st_size - _passed, _passed)
        _passed += len(text)
        if rest := _NOTES.sub(b"", text):
            os.write(_real, rest)
