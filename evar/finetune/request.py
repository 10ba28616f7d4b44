"""Fine-tuning from the words of a command line, and from Python with the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evar.config.flag_tables import FINETUNE_FLAGS
from evar.config.flags import read_flags
from evar.config.messages import silence
from evar.experiment.outcome import Outcome
from evar.experiment.request import split_names
from evar.finetune.run import run_tuning
from evar.finetune.spec import TuningSettings, resolve_tuning
from evar.storage.mirror import at_hand


def parse_tuning(encoders: str, tasks: str, flags: Mapping[str, Any]) -> TuningSettings:
    """Make the settings of a fine-tuning run.

    Args:
        encoders: comma list or "all".
        tasks: comma list or "all".
        flags: a value for every flag but quiet, report and cost, as `evar.config.flags.read_flags` gives them.

    Raises:
        ValueError: if an encoder or a task is missing.

    Example:
        >>> from evar.config.flags import read_flags
        >>> flags = read_flags(FINETUNE_FLAGS, {"epochs": 3, "limit": "40"}, "evar finetune")
        >>> _ = flags.pop("quiet"), flags.pop("report"), flags.pop("cost")
        >>> settings = parse_tuning("crepe.tiny", "fsdd_digit", flags)
        >>> settings.given, settings.limit
        ({'epochs': 3}, 40)
    """
    if not encoders or not tasks:
        raise ValueError("expected ENCODERS and TASKS; see `evar encoders` and `evar tasks`")
    hyper_parameters = [flag.name for flag in FINETUNE_FLAGS if flag.is_hyper_parameter]
    given = {name: flags[name] for name in hyper_parameters if flags[name] not in (None, False)}
    others = {name: value for name, value in flags.items() if name not in hyper_parameters}
    others["out"] = at_hand(others["out"], "finetuned")
    return TuningSettings(split_names("encoders", encoders), split_names("tasks", tasks), given=given, **others)


def fine_tune(encoders: str | Sequence[str], tasks: str | Sequence[str], **flags: Any) -> Outcome:
    """Train encoders and a head end to end; the command `evar finetune` from Python.

    Args:
        encoders: names (a list or a comma list), or "all".
        tasks: names (a list or a comma list), or "all".
        **flags: as `evar finetune --help` lists them, such as epochs=10, learning_rate=1e-5, out="results".

    Returns:
        All rows of the grid, and the cells that failed with their reasons.

    Raises:
        ValueError: if a name or flag is unknown, or a value is not legal, before any work is done.

    Example:
        >>> outcome = fine_tune("crepe.tiny", "fsdd_digit", protocol="finetune_quick")  # doctest: +SKIP
        >>> fine_tune("crepe.tiny", "fsdd_digit", bogus=3)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: evar.fine_tune has no flag 'bogus'; it has protocol, ...
    """
    of_python = [flag for flag in FINETUNE_FLAGS if flag.name not in ("report", "cost")]
    names, on = (value if isinstance(value, str) else ",".join(value) for value in (encoders, tasks))
    values = read_flags(of_python, flags, "evar.fine_tune")
    with silence(values.pop("quiet")):
        return run_tuning(resolve_tuning(parse_tuning(names, on, values)))
