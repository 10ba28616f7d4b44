"""`evar.evaluate`: a grid of encoders and tasks from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evar.config.flag_tables import LINEVAL_FLAGS
from evar.config.flags import read_flags
from evar.config.messages import silence
from evar.experiment.outcome import Outcome

#: the flags of the command that decide the rows; other flags decide if and how files are written beside them
_FLAGS = tuple(flag for flag in LINEVAL_FLAGS if flag.name not in ("dry_run", "report", "cost"))


def evaluate(encoders: str | Sequence[str] = "", tasks: str | Sequence[str] = "", **flags: Any) -> Outcome:
    """Run the command line from Python: the same words, the same results folder, the same rows.

    Nothing is printed: progress bars go to standard error where that is a terminal or a notebook, and messages to the logger
    "evar" of Python's `logging`. With quiet=True there is neither.

    Args:
        encoders, tasks: names (a list or a comma list), "all", or a grid; nothing: the embedded default grid.
        **flags: as `evar lineval --help` lists them, such as layers="all", data_root="/data", out="results".

    Returns:
        All rows of the grid, and the cells that failed with their reasons.

    Raises:
        ValueError: if a name or setting is unknown or contradicts another, before any work is done; near misses are named.

    Example:
        >>> outcome = evaluate("logmel", "esc10", data_root="/data", limit=20)  # doctest: +SKIP
        >>> outcome.rows[0].score  # doctest: +SKIP
    """
    words = read_flags(_FLAGS, flags, "evar.evaluate")
    from evar.experiment.request import parse_requests  # with torch, and so only when something is computed
    from evar.experiment.resolving import resolve_requests
    from evar.lineval.engine import run

    names = (value if isinstance(value, str) else ",".join(value) for value in (encoders, tasks))
    with silence(words.pop("quiet")):
        return run(resolve_requests(parse_requests(*names, **words)))
