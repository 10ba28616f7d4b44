"""One table or plot that cannot be made must not take the others with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from evar.config.disk import tell_disk_error
from evar.config.messages import warn
from evar.config.plain_text import make_printable


def try_to_make(name: str, make: Callable[[], list[Path]]) -> list[Path]:
    """Make one table or plot; an error is only a warning, since the results themselves are on the disk.

    Args:
        name: of the table or plot, for the message.
        make: writes it, and returns the files written.

    Returns:
        The files written; none if it failed.

    Raises:
        OSError: if the folder cannot be written, which concerns everything that is made.

    Example:
        >>> [path.name for path in try_to_make("table", lambda: [Path("table.md")])]
        ['table.md']
    """
    try:
        return make()
    except OSError:
        raise
    except Exception as error:
        reason = make_printable(f"{type(error).__name__}: {error}", one_line=True)
        warnings.warn(f"{name} could not be made, the other tables and plots are there: {reason}", stacklevel=2)
        return []


def try_to_write(out: Path, make: Callable[[], list[Path]]) -> list[Path]:
    """Write tables and plots; a full or read-only folder is a warning, since the rows can be shown all the same.

    Args:
        out: the folder.
        make: writes them, and returns the files written.

    Returns:
        The files written; none if the folder takes nothing.
    """
    try:
        return make()
    except OSError as error:
        warn(f"the tables and plots could not be written to {out}: {tell_disk_error(error)}")
        return []
