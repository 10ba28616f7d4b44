"""Flags of commands: signature, parsing, help and Python API all follow from one description of a flag.

A flag without a value leaves the choice to the protocol, the grid or the code; `None` means this everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.config.registry import near_miss

#: types of values; "statistics" is a word or (mean, std)
KINDS = ("text", "names", "whole", "decimal", "switch", "statistics")


@dataclass(frozen=True)
class Flag:
    """One flag of a command.

    Attributes:
        name: as it is typed after "--", and the name of the argument in Python.
        kind: one of `KINDS`.
        takes: what stands after "=" in the help, such as "DIR" or "auto|cpu|cuda|mps"; "" for a switch.
        help: what it does, one sentence without a full stop.
        group: heading in the help.
        default: the value where the flag is absent, or None where something else decides; a switch is False or True.
        shown_default: the default as the help shows it; "" if the help does not show it.
        is_hyper_parameter: whether it replaces a value of the protocol, so that its rows make a table of their own.
    """

    name: str
    kind: str
    takes: str
    help: str
    group: str
    default: Any = None
    shown_default: str = ""
    is_hyper_parameter: bool = False

    @property
    def typed_default(self) -> str | bool:
        """The default as a command line holds it: text, or a truth value for a switch."""
        return bool(self.default) if self.kind == "switch" else str(self.default or "")


def read_flags(flags: Sequence[Flag], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Turn typed text, or values given in Python, into the values of all flags.

    Args:
        flags: that are legal.
        given: name -> text of a command line, or a Python value of the right kind; None and "" leave the default.
        where: the command, for messages: "evar lineval".

    Returns:
        Name -> value for every flag; None where something else decides.

    Raises:
        ValueError: if a name is unknown, or a value is not of the flag's kind.

    Example:
        >>> from evar.config.flag_tables import LINEVAL_FLAGS
        >>> read_flags(LINEVAL_FLAGS, {"limit": "20"}, "evar lineval")["limit"]
        20
        >>> read_flags(LINEVAL_FLAGS, {"bogus": 1, "layer": "all"}, "evar.evaluate")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: evar.evaluate has no flag 'bogus'; it has layers, ...
    """
    known = {flag.name: flag for flag in flags}
    for name in given:
        if name not in known:
            raise ValueError(f"{where} has no flag {name!r}; {near_miss(name, known, 3)}")
    return {name: read_value(flag, given.get(name)) for name, flag in known.items()}


def read_value(flag: Flag, value: Any) -> Any:
    """Turn one text or Python value into the value of a flag.

    Raises:
        ValueError: if it is not of the flag's kind.

    Example:
        >>> from evar.config.flag_tables import LINEVAL_FLAGS
        >>> flags = {flag.name: flag for flag in LINEVAL_FLAGS}
        >>> read_value(flags["norm_stats"], "-5.5,5.0"), read_value(flags["layers"], ["conv1", "conv2"])
        ((-5.5, 5.0), 'conv1,conv2')
        >>> read_value(flags["skip_bad"], "yes"), read_value(flags["jobs"], None)
        (True, None)
    """
    if value is None or (isinstance(value, str) and not value):
        return flag.default
    if flag.kind == "whole":
        return whole(value, flag.name)
    if flag.kind == "decimal":
        return decimal(value, flag.name)
    if flag.kind == "switch":
        return truth(value, flag.name)
    if flag.kind == "statistics":
        return statistics(value, flag.name)
    if flag.kind == "names" and not isinstance(value, str) and isinstance(value, Iterable):
        return ",".join(str(one) for one in value)
    if not isinstance(value, str | int | float | Path) or isinstance(value, bool):
        raise ValueError(f"--{flag.name} must be text ({flag.takes}), got {value!r}")
    return str(value)


def whole(value: Any, name: str) -> int | None:
    """Read a whole number; empty text gives None."""
    if value is None or value == "":
        return None
    if not isinstance(value, bool) and (isinstance(value, str) or value == value // 1):
        try:
            return int(value)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"--{name} must be a whole number, got {value!r}")


def decimal(value: Any, name: str) -> float | None:
    """Read a number; empty text gives None."""
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (ValueError, TypeError):
        raise ValueError(f"--{name} must be a number, got {value!r}") from None


def statistics(value: Any, name: str) -> str | tuple[float, float] | None:
    """Read a word such as train, or two numbers separated by a comma; empty text gives None."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.isalpha():
        return value
    try:
        first, second = (float(part) for part in (value.strip("()[]").split(",") if isinstance(value, str) else value))
    except (ValueError, TypeError):
        raise ValueError(
            f"--{name} must be default, train, task, or two numbers MEAN,STD such as -5.5,5.0; got {value!r}"
        ) from None
    return first, second


def truth(value: Any, name: str) -> bool:
    """Read true or false in the words that people type."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in words:
        raise ValueError(f"--{name} must be true or false, got {value!r}")
    return words[str(value).lower()]


def render_flags(flags: Sequence[Flag], width: int = 100) -> str:
    """Render the part of the help that describes the flags, by group.

    Args:
        flags: in order; a group is shown where its first flag stands.
        width: longest line, in characters.

    Example:
        >>> print(render_flags([Flag("limit", "whole", "N", "at most N clips", "How", None, "all")]))
        How:
          --limit=N                      at most N clips (default: all)
    """
    import textwrap

    column = 33
    lines: list[str] = []
    for group in dict.fromkeys(flag.group for flag in flags):
        lines += ["", f"{group}:"]
        for flag in (flag for flag in flags if flag.group == group):
            left = f"  --{flag.name}" + (f"={flag.takes}" if flag.takes else "")
            text = flag.help + (f" (default: {flag.shown_default})" if flag.shown_default else "")
            wrapped = textwrap.wrap(text, width - column, break_on_hyphens=False, break_long_words=False)
            if len(left) > column - 2:
                lines.append(left)
            else:
                wrapped[0] = f"{left.ljust(column)}{wrapped[0]}"
                lines.append(wrapped.pop(0))
            lines += [" " * column + line for line in wrapped]
    return "\n".join(lines[1:])
