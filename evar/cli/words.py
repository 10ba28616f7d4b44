"""The words of a command line: checked against a function's signature before anything runs, and turned into values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evar.config.flags import Flag, decimal, read_flags, render_flags, statistics, truth, whole
from evar.config.registry import nearest

__all__ = ["UsageError", "check_words", "decimal", "statistics", "takes_flags", "truth", "whole"]

#: short flag -> what it stands for: the first of these that a command has
SHORT_FLAGS = {"-o": ("output", "out"), "-k": ("k",), "--from": ("source",)}


class UsageError(ValueError):
    """A command line that does not fit its command."""


def check_words(name: str, command: Callable[..., int], words: Sequence[str]) -> list[str]:
    """Check every word against the command's signature, and bring flags into one form.

    Args:
        name: of the command, for messages.
        command: whose parameters are the legal flags; a True or False default makes a flag that needs no value. One as
            `*words` takes any number of words, at least one.
        words: of the command line, after the command's name.

    Returns:
        Positionals, then `--flag=value`.

    Raises:
        UsageError: for an unknown, repeated or valueless flag, or too many or too few positionals.

    Example:
        >>> from evar.cli.lineval import lineval
        >>> check_words("lineval", lineval, ["logmel", "esc10", "--limit", "20", "--dry-run"])
        ['logmel', 'esc10', '--limit=20', '--dry_run=True']
        >>> check_words("lineval", lineval, ["logmel", "esc10", "-o", "here"])
        ['logmel', 'esc10', '--out=here']
        >>> check_words("lineval", lineval, ["logmel", "esc10", "--layer=all"])
        Traceback (most recent call last):
        evar.cli.words.UsageError: evar lineval has no flag --layer; did you mean --layers? (see --help)
    """
    parameters = inspect.signature(command).parameters
    several = [name for name, parameter in parameters.items() if parameter.kind is parameter.VAR_POSITIONAL]
    legal = [name for name in parameters if name not in several]
    positionals, flags = _split_words(name, parameters, legal, words)
    taken = list(parameters)[: len(positionals)]
    if several:
        taken = [p for p in taken if list(parameters).index(p) <= list(parameters).index(several[0])]
    needed = [p for p in parameters if parameters[p].default is inspect.Parameter.empty]
    most = {
        "lineval": 2,
        "finetune": 2,
        "robust": 2,
        "store": 1,
        "encoders": 1,
        "report": 1,
        "export-results": 1,
        "export": 1,
    }.get(name, len(needed))  # the others' optional words are flags only
    if len(positionals) > most and not several:
        raise UsageError(
            f"evar {name} takes at most {most} words ({' '.join(list(parameters)[:most]).upper() or 'none'}) before the "
            f"flags, got {len(positionals)}: {' '.join(positionals)}; are commas missing, or spaces too many?"
        )
    for flag in flags:
        if flag in taken:
            raise UsageError(f"evar {name}: {flag} is given twice, as a word and as --{flag}")
    missing = [p for p in needed if p not in taken and p not in flags]
    if missing:
        raise UsageError(f"evar {name} needs {' '.join(missing).upper()}; see --help")
    return [*positionals, *(f"--{flag}={value}" for flag, value in flags.items())]


def _split_words(
    name: str, parameters: Mapping[str, inspect.Parameter], legal: Sequence[str], words: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Split the words of a command line into positionals and flags, flag -> value."""
    positionals: list[str] = []
    flags: dict[str, str] = {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-") or word == "-":
            positionals.append(word)
            continue
        typed, equals, value = word.partition("=")
        flag = typed.lstrip("-").replace("-", "_")
        meant = next((name for name in SHORT_FLAGS.get(typed, ()) if name in legal), None)
        if meant is not None:
            flag = meant
        elif not word.startswith("--") or flag not in legal:
            hint = nearest(flag, legal)
            raise UsageError(
                f"evar {name} has no flag {typed}"
                + (f"; did you mean --{hint}? (see --help)" if hint else f"; it has --{', --'.join(legal)}")
            )
        if not equals and isinstance(parameters[flag].default, bool):
            value = "True"
        elif not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UsageError(f"evar {name}: --{flag} needs a value: --{flag}=VALUE")
            value = waiting.pop(0)
        if flag in flags:
            raise UsageError(f"evar {name}: --{flag} is given twice")
        flags[flag] = value
    return positionals, flags


def takes_flags(flags: Sequence[Flag]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the flags of a table: its signature, the values that it is called with, and the text of its help.

    Args:
        flags: the table. The command takes them as `**flags`, and gets a value for each of them.

    Returns:
        A decorator. The line `{flags}` of the command's docstring becomes the description of the flags.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        keyword = inspect.Parameter.KEYWORD_ONLY
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        parameters = [
            *own,
            *(inspect.Parameter(flag.name, keyword, default=flag.typed_default) for flag in flags),
        ]

        @functools.wraps(command)
        def read_and_call(*words: str, **typed: Any) -> int:
            by_name = {parameter.name: typed.pop(parameter.name) for parameter in own if parameter.name in typed}
            return command(*words, **by_name, **read_flags(flags, typed, f"evar {command.__name__}"))

        read_and_call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        read_and_call.__doc__ = (inspect.getdoc(command) or "").replace("{flags}", render_flags(flags))
        return read_and_call

    return decorate
