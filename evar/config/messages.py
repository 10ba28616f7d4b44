"""Messages and progress bars of the package: one logger, one kind of bar, and a way to switch both off.

All messages go to the logger "evar" of Python's `logging`, so that a service decides where they go; nothing is printed.
The command line shows it on the terminal with `show_messages`. Whatever is said is made harmless here (see `plain_text`).
"""

from __future__ import annotations

import codecs
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TextIO

from evar.config.plain_text import make_printable

LOGGER = logging.getLogger("evar")

#: environment variables that tell worker processes what their parent does with messages
_SHOWN, _QUIET = "EVAR_SHOW_MESSAGES", "EVAR_QUIET"

_is_quiet: ContextVar[bool] = ContextVar("is_quiet", default=bool(os.environ.get(_QUIET)))

#: what stands for a character that the terminal does not have
_SUBSTITUTES = {
    "\u2026": "...",  # ellipsis
    "\u2013": "-",  # dashes
    "\u2014": "-",
    "\u00d7": "x",  # times
    "\u00b1": "+-",
    "\u2265": ">=",
    "\u2264": "<=",
    "\u2192": "->",
    "\u00b5": "u",  # micro
    "\u00b2": "2",  # square
}
PLAIN_ERRORS = "evar_plain"


def tell(message: object) -> None:
    """Say what has been done or found (level INFO).

    Example:
        >>> with show_messages():
        ...     tell("3 clips encoded")
        3 clips encoded
    """
    _log(logging.INFO, message)


def warn(message: object) -> None:
    """Report something that the user must know, such as a cell that failed (level WARNING)."""
    _log(logging.WARNING, message)


def _log(level: int, message: object) -> None:
    if not _is_quiet.get():
        if os.environ.get(_SHOWN) and not LOGGER.handlers:  # a worker process of a command
            _add_handler()
        LOGGER.log(level, "%s", make_printable(message))


@contextmanager
def silence(is_wanted: bool = True) -> Iterator[None]:
    """Switch off messages and progress bars inside a `with` block, in this thread and in the processes that it starts.

    Args:
        is_wanted: False changes nothing.
    """
    if not is_wanted:
        yield
        return
    token, before = _is_quiet.set(True), os.environ.get(_QUIET)
    os.environ[_QUIET] = "1"
    try:
        yield
    finally:
        _is_quiet.reset(token)
        _restore(_QUIET, before)


@contextmanager
def show_messages() -> Iterator[None]:
    """Show messages on standard output inside a `with` block, those of worker processes too, as the command line does."""
    before, level = os.environ.get(_SHOWN), LOGGER.level
    propagates, handler = LOGGER.propagate, _add_handler()
    os.environ[_SHOWN] = "1"
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagates
        _restore(_SHOWN, before)


def write_text(text: object, file: TextIO | None = None) -> None:
    """Write one message and a line break; where that cannot be done, it is left out.

    The text loses what a terminal would obey. Characters that the file's encoding lacks are replaced. A closed pipe or a
    full disk behind standard output never ends the work that is being reported.

    Args:
        text: of any origin.
        file: None for standard output.
    """
    stream = sys.stdout if file is None else file
    shown = make_printable(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        shown.encode(encoding)
    except (UnicodeError, LookupError):
        shown = _plain(shown, encoding)
    try:
        print(shown, file=stream, flush=True)
    except (OSError, ValueError):  # the reader has closed the pipe
        discard_output(stream)


def progress_bar(*args: Any, **kwargs: Any) -> Any:
    """Make a `tqdm` bar on standard error or in a notebook; it is hidden without a terminal and inside `silence`.

    Args:
        *args, **kwargs: as for `tqdm.tqdm`.
    """
    from tqdm.auto import tqdm

    is_notebook = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    # None hides a bar where standard error is no terminal, which a notebook never is.
    shown = False if is_notebook else None
    kwargs["disable"] = True if _is_quiet.get() or kwargs.get("disable") else shown
    values, *others = args or (None,)
    desc, *others = others or [kwargs.pop("desc", None)]
    return tqdm(values, None if desc is None else make_printable(desc, one_line=True), *others, **kwargs)


class _Terminal(logging.Handler):
    """Writes messages above the progress bars, on the standard output of that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "tqdm" not in sys.modules:
            write_text(text)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stdout):
            write_text(text)


def _add_handler() -> logging.Handler:
    handler = _Terminal()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    return handler


def _plain(text: str, encoding: str) -> str:
    try:
        return text.encode(encoding, PLAIN_ERRORS).decode(encoding)
    except (UnicodeError, LookupError):
        return text.encode("ascii", "backslashreplace").decode("ascii")


def substitute(error: UnicodeError) -> tuple[str, int]:
    """Return the error handler "evar_plain" of `codecs`: "…" becomes "...", and other characters their escapes.

    Example:
        >>> "a … ×2 犬".encode("ascii", PLAIN_ERRORS)
        b'a ... x2 \\\\u72ac'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    plain = (_SUBSTITUTES.get(one) or one.encode("ascii", "backslashreplace").decode("ascii") for one in found)
    return "".join(plain), error.end


codecs.register_error(PLAIN_ERRORS, substitute)


def discard_output(stream: Any) -> None:
    """Let everything that is still written to a broken stream go nowhere."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _restore(name: str, before: str | None) -> None:
    if before is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = before
