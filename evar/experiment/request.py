"""The words of a command line become `Settings`; nothing is loaded here but names."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evar import config as configs
from evar.experiment.settings import Settings
from evar.extraction.fusion import ATTENTION

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig


def choose_protocol(settings: Settings) -> ProtocolConfig:
    """Return the protocol with the learning rates that the command line requests, and a name that says so.

    Raises:
        ValueError: if there is no such protocol, it has no learning rate, or the rate is not legal.

    Example:
        >>> from evar.experiment.settings import Settings
        >>> choose_protocol(Settings(("logmel",), ("esc10",), protocol="linear")).name
        'linear'
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


def parse_request(encoders: str = "", tasks: str = "", **flags: Any) -> Settings:
    """Make settings from the words of a command line; a flag that is None or empty keeps its default.

    Args:
        encoders: comma list, "all", or a grid (name or path of a YAML); empty: the grid "default".
        tasks: comma list or "all" (not those whose index needs data that are not there); with a grid: in place of
            the grid's tasks, or empty.
        **flags: fields of `Settings`; layers as text.

    Raises:
        ValueError: if a name is unknown or a setting is not legal.

    Example:
        >>> parse_request("logmel", "esc10,fsdd_digit", layers="all").tasks
        ('esc10', 'fsdd_digit')
    """
    given: dict[str, Any] = {key: value for key, value in flags.items() if value not in (None, "")}
    values = _parse_names(encoders, tasks, given)
    if isinstance(values.get("only"), str):
        values["only"] = tuple(cell.strip() for cell in values["only"].split(",") if cell.strip())
    if isinstance(values.get("norm_stats"), list):
        values["norm_stats"] = tuple(values["norm_stats"])
    _apply_protocol(values)
    if values.get("fusion") == "search":
        values.setdefault("layers", "all")
    layers = values.get("layers", "default")
    if layers not in ("default", "all"):
        values["layers"] = tuple(name.strip() for name in layers.strip("()[]").split(",") if name.strip())
    return Settings(**values)


def parse_requests(encoders: str = "", tasks: str = "", **flags: Any) -> tuple[Settings, ...]:
    """Make settings for each protocol of a comma list; all else is as in `parse_request`.

    Args:
        encoders, tasks, **flags: as for `parse_request`; `protocol` may name several.

    Returns:
        One for each protocol, in their order.

    Raises:
        ValueError: as `parse_request`; if a protocol is named twice; or if a fusion search, which chooses by one protocol,
            is requested for several.

    Example:
        >>> [one.protocol for one in parse_requests("logmel", "esc10", protocol="linear,knn")]
        ['linear', 'knn']
    """
    names = [name.strip() for name in str(flags.get("protocol") or "").split(",") if name.strip()]
    if len(names) < 2:
        return (parse_request(encoders, tasks, **flags),)
    if len(set(names)) < len(names):
        raise ValueError(f"protocols must be named once each, got {', '.join(names)}")
    if flags.get("fusion") == "search":
        raise ValueError(f"--fusion=search chooses layers by one protocol, got --protocol={','.join(names)}; name one")
    return tuple(parse_request(encoders, tasks, **{**flags, "protocol": name}) for name in names)


def _parse_names(encoders: str, tasks: str, given: dict[str, Any]) -> dict[str, Any]:
    """Names of encoders and tasks, and other settings of a grid; given settings win over those of the grid."""
    if configs.is_grid(encoders or "default"):
        grid = configs.load_grid_config(encoders or "default")
        of_grid = {"layers": grid.layers, "protocol": grid.protocol, **({"seeds": grid.seeds} if grid.seeds else {})}
        if tasks and not encoders:
            raise ValueError(f"expected ENCODERS before the tasks {tasks!r}; see `evar encoders`")
        named = _split_tasks(tasks, given.get("data_root")) if tasks else grid.tasks
        return {"encoders": grid.encoders, "tasks": named, **of_grid, **given}
    if not encoders or not tasks:
        raise ValueError(
            f"expected ENCODERS and TASKS, or a grid, got {encoders or tasks!r} alone; grids: "
            f"{', '.join(configs.names('grids'))}; see `evar encoders` and `evar tasks`"
        )
    named = _split_tasks(tasks, given.get("data_root"))
    return {**given, "encoders": split_names("encoders", encoders), "tasks": named}


def _apply_protocol(values: dict[str, Any]) -> None:
    """Put in the fusion that a protocol is made for; refuse another."""
    protocol = configs.load_protocol_config(values.get("protocol", "linear"))
    if protocol.fusion != "none":
        if values.setdefault("fusion", protocol.fusion) != protocol.fusion:
            raise ValueError(f"protocol {protocol.name} has fusion {protocol.fusion}, got {values['fusion']}")
        if values.get("layers") in (None, "default"):  # a grid says default where it says nothing
            values["layers"] = "all"
    if values.get("fusion") == ATTENTION != protocol.fusion:
        raise ValueError(
            f"--fusion={ATTENTION} reads frames, which protocol {protocol.name} does not; --protocol=attentive does"
        )


def split_names(kind: str, text: str) -> tuple[str, ...]:
    """Return the names of a comma list; "all" is every name of that kind.

    Example:
        >>> split_names("encoders", "logmel, ge2e")
        ('logmel', 'ge2e')
    """
    listed = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(configs.names(kind)) if listed == ["all"] else tuple(listed)


def _split_tasks(text: str, data_root: str | None) -> tuple[str, ...]:
    from evar.data.task import is_at_hand

    names = split_names("tasks", text)
    return tuple(name for name in names if is_at_hand(name, data_root)) if text.strip() == "all" else names
