"""The command line: from words to one function call."""

from evar.cli.command_line import COMMANDS, main, run
from evar.cli.terminal import DONE, SOME_FAILED, WRONG

__all__ = ["COMMANDS", "DONE", "SOME_FAILED", "WRONG", "main", "run"]
