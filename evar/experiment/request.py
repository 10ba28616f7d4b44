"""What a command line asks for: encoders x tasks, checked before any work is done."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evar import config as configs
from evar.config.registry import resolve
from evar.experiment.settings import Settings
from evar.extraction.fusion import ATTENTION

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.data.task_config import TaskConfig


def checked(settings: Settings) -> tuple[ProtocolConfig, list[Task], list[tuple[TaskConfig, Exception]]]:
    """Look up every name, so that a wrong one fails before any work is done.

    Returns:
        The protocol, the tasks, and those whose index cannot be made from what is on disk or whose kind the protocol has
        no probe for, with the reason: their cells fail and the others go on.

    Raises:
        ValueError: if an encoder, task, protocol, layer or limit is not legal.
    """
    protocol = protocol_asked(settings)
    from evar.data.task import load_task
    from evar.data.task_config import load_task_config
    from evar.encoders import load_encoder
    from evar.probes.making import find_probe_class

    probe = resolve(protocol.probe)
    try:
        probe(**protocol.params)
    except TypeError as error:
        raise ValueError(f"protocol {protocol.name}: {error}") from error
    for name in settings.encoders:
        configs.load_encoder_config(name)
    if not isinstance(settings.layers, str):
        for name in settings.encoders:
            load_encoder(name, "random").layer_names(settings.layers)
    tasks: list[Task] = []
    absent: list[tuple[TaskConfig, Exception]] = []
    for name in settings.tasks:
        config = load_task_config(name)
        try:
            tasks.append(load_task(name, settings.data_root, settings.limit, protocol.validation_parts))
        except (ValueError, OSError) as error:
            if not config.index_maker:
                raise
            absent.append((config, error))
    for task in list(tasks):
        try:
            find_probe_class(protocol, task.config.kind)
        except ValueError as error:
            tasks.remove(task)
            absent.append((task.config, error))
    return protocol, tasks, absent


def protocol_asked(settings: Settings) -> ProtocolConfig:
    """The protocol with the learning rates that the command line asks for, and a name that says so.

    Raises:
        ValueError: if there is no such protocol, it has no learning rate, or the rate is not legal.
    """
    protocol = configs.load_protocol_config(settings.protocol)
    if settings.learning_rate is None:
        return protocol
    if "learning_rates" not in protocol.params:
        raise ValueError(f"protocol {protocol.name} has no learning rate, but --learning_rate={settings.learning_rate}")
    if settings.learning_rate == "search":
        if not protocol.searched:
            raise ValueError(f"protocol {protocol.name} says no grid (searched) for --learning_rate=search")
        params, name = {**protocol.params, **protocol.searched}, "search"
    else:
        try:
            rate = float(settings.learning_rate)
        except ValueError:
            rate = math.nan
        if not 0 < rate < math.inf:
            raise ValueError(f"--learning_rate must be a number above 0 or search, got {settings.learning_rate!r}")
        params, name = {**protocol.params, "learning_rates": [rate]}, f"{rate:g}"
    return replace(protocol, name=f"{protocol.name} (learning_rate={name})", params=params)


def asked(encoders: str = "", tasks: str = "", **flags: Any) -> Settings:
    """Settings from the words of a command line; a flag that is None or empty keeps its default.

    Args:
        encoders: comma list, "all", or a grid (name or path of a YAML); empty: the grid "default".
        tasks: comma list or "all" (not those whose index needs data that are not there); with a grid: in place of
            the grid's tasks, or empty.
        **flags: fields of `Settings`; layers as text.

    Raises:
        ValueError: if a name is unknown or a setting is not legal.

    Example:
        >>> asked("logmel", "esc10,fsdd_digit", layers="all").tasks
        ('esc10', 'fsdd_digit')
    """
    values: dict[str, Any] = {key: value for key, value in flags.items() if value not in (None, "")}
    if configs.is_grid(encoders or "default"):
        grid = configs.load_grid_config(encoders or "default")
        of_grid = {"layers": grid.layers, "protocol": grid.protocol, **({"seeds": grid.seeds} if grid.seeds else {})}
        if tasks and not encoders:
            raise ValueError(f"expected ENCODERS before the tasks {tasks!r}; see `evar encoders`")
        named = _task_names(tasks, flags.get("data_root")) if tasks else grid.tasks
        values = {"encoders": grid.encoders, "tasks": named, **of_grid, **values}
    elif encoders and tasks:
        values["encoders"], values["tasks"] = (
            split_names("encoders", encoders),
            _task_names(tasks, flags.get("data_root")),
        )
    else:
        raise ValueError(
            f"expected ENCODERS and TASKS, or a grid, got {encoders or tasks!r} alone; grids: "
            f"{', '.join(configs.names('grids'))}; see `evar encoders` and `evar tasks`"
        )
    if isinstance(values.get("only"), str):
        values["only"] = tuple(cell.strip() for cell in values["only"].split(",") if cell.strip())
    if isinstance(values.get("norm_stats"), list):
        values["norm_stats"] = tuple(values["norm_stats"])
    of_protocol = configs.load_protocol_config(values.get("protocol", "linear"))
    if of_protocol.fusion != "none":
        if values.setdefault("fusion", of_protocol.fusion) != of_protocol.fusion:
            raise ValueError(f"protocol {of_protocol.name} has fusion {of_protocol.fusion}, got {values['fusion']}")
        if values.get("layers") in (None, "default"):  # a grid says default where it says nothing
            values["layers"] = "all"
    if values.get("fusion") == ATTENTION != of_protocol.fusion:
        raise ValueError(
            f"--fusion={ATTENTION} reads frames, which protocol {of_protocol.name} does not; --protocol=attentive does"
        )
    if values.get("fusion") == "search":
        values.setdefault("layers", "all")
    layers = values.get("layers", "default")
    if layers not in ("default", "all"):
        values["layers"] = tuple(name.strip() for name in layers.strip("()[]").split(",") if name.strip())
    return Settings(**values)


def split_names(kind: str, text: str) -> tuple[str, ...]:
    listed = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(configs.names(kind)) if listed == ["all"] else tuple(listed)


def _task_names(text: str, data_root: str | None) -> tuple[str, ...]:
    from evar.data.task import is_at_hand

    names = split_names("tasks", text)
    return tuple(name for name in names if is_at_hand(name, data_root)) if text.strip() == "all" else names
