"""What a command line asks for: encoders x tasks, checked before any work is done."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evar import config as configs
from evar.fusion import FITTED_FUSIONS, FUSIONS
from evar.registry import near_miss, resolve

if TYPE_CHECKING:
    from evar.config import ProtocolConfig
    from evar.encoders.base import Encoder
    from evar.results import Failure, Result
    from evar.tasks import Task, TaskConfig


#: what a fusion search may maximise
OBJECTIVES = ("mean_score", "mean_rank")
#: the fusion of probes that read frames
ATTENTION = "attention"
#: where the cells of a grid may run
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Settings:
    """What a command line says; see `lineval.py --help` for the words.

    Attributes:
        encoders, tasks: names.
        layers: "default", "all" or layer names.
        fusion: "none" probes each layer by itself; "concat", "average", "pca" or "weighted" make one feature of them;
            "search" looks for the layers whose concatenation serves the tasks best; "attention" is that of protocols whose
            probe reads frames.
        objective: what a search maximises on validation clips: "mean_score" or "mean_rank" over the tasks.
        max_layers: how many layers a search may put together.
        export: name under which a search's choice becomes an encoder.
        protocol: name in `config/protocols`.
        seeds: how many, from 0; more than one only where something is random; None leaves it to the protocol.
        learning_rate: a number in place of the protocol's, or "search" to choose from the protocol's grid on validation
            clips; None leaves it to the protocol.
        data_root: folder that holds the tasks' folders.
        weights: None, "random", a path, a url or "hf:org/name"; or "ENCODER=WHAT,ENCODER=WHAT", each for that encoder.
        norm_stats: "default", "train", "task" or (mean, std), for encoders that normalise their input by statistics;
            None leaves it to the protocol.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        batch_size: clips a batch; None lets the encoder say.
        limit: at most this many clips of each split or fold.
        out: results folder.
        store: folder of the feature store.
        skip_bad: leave unreadable clips out of the test set instead of counting them as wrong.
        frames_gb: 10^9 bytes of frames that a cell may put on disk, for protocols whose probe reads frames.
        only: the cells to run, "ENCODER:TASK" each; empty: all of the grid.
        engine: where the cells run: "local", processes of this machine, or "ray".
        jobs: how many run at the same time (on each node of a cluster); they share its cores.
        address: of an existing Ray cluster, such as "auto" or "ray://HOST:10001"; None starts one here.
    """

    encoders: tuple[str, ...]
    tasks: tuple[str, ...]
    layers: str | tuple[str, ...] = "default"
    fusion: str = "none"
    objective: str = "mean_score"
    max_layers: int = 4
    export: str | None = None
    protocol: str = "linear"
    seeds: int | None = None
    learning_rate: str | None = None
    data_root: str | None = None
    weights: str | None = None
    norm_stats: str | tuple[float, float] | None = None
    device: str = "auto"
    batch_size: int | None = None
    limit: int | None = None
    out: str = "results"
    store: str | None = None
    skip_bad: bool = False
    frames_gb: float = 50.0
    only: tuple[str, ...] = ()
    engine: str = "local"
    jobs: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if not self.encoders or not self.tasks:
            raise ValueError("at least one encoder and one task are needed; see `evar encoders` and `evar tasks`")
        for kind, chosen in (("encoders", self.encoders), ("tasks", self.tasks)):
            if len(set(chosen)) != len(chosen):
                raise ValueError(f"{kind} must be named once each, got {', '.join(chosen)}")
        known = ["none", *FUSIONS, *FITTED_FUSIONS, ATTENTION, "search"]
        if self.fusion not in known:
            raise ValueError(f"no fusion {self.fusion!r}; {near_miss(self.fusion, known)}")
        cells = [f"{encoder}:{task}" for encoder in self.encoders for task in self.tasks]
        for cell in self.only:
            if cell not in cells:
                raise ValueError(
                    f"--only names cells of the grid as ENCODER:TASK, got {cell!r}; {near_miss(cell, cells)}"
                )
        if self.engine not in ENGINES:
            raise ValueError(f"no engine {self.engine!r}; {near_miss(self.engine, ENGINES)}")
        if self.address is not None and self.engine != "ray":
            raise ValueError(f"--address={self.address} is a Ray cluster's and needs --engine=ray, got {self.engine}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"no objective {self.objective!r}; {near_miss(self.objective, OBJECTIVES)}")
        if self.export is not None and self.fusion != "search":
            raise ValueError(
                "--export names what --fusion=search chooses; for layers of your own see `evar fuse --help`"
            )
        if self.fusion != "none" and self.layers == "default":
            raise ValueError("--fusion needs --layers=all or --layers=NAME,NAME to say what is fused")
        if isinstance(self.norm_stats, str) and self.norm_stats not in configs.NORM_STATS:
            known = [*configs.NORM_STATS, "MEAN,STD"]
            raise ValueError(f"no norm_stats {self.norm_stats!r}; {near_miss(self.norm_stats, known)}")
        if isinstance(self.norm_stats, tuple) and not (
            len(self.norm_stats) == 2 and all(map(math.isfinite, self.norm_stats)) and self.norm_stats[1] > 0
        ):
            raise ValueError(f"norm_stats must be a mean and a standard deviation above 0, got {self.norm_stats}")
        if not self.frames_gb > 0:
            raise ValueError(f"frames_gb must be above 0, got {self.frames_gb}")
        counts = ("seeds", "batch_size", "max_layers", "jobs")
        for name, value in ((name, getattr(self, name)) for name in counts):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        shared = next((what for encoder, what in weights_by_encoder(self.weights, self.encoders) if not encoder), None)
        if shared not in (None, "random") and len(self.encoders) > 1:
            raise ValueError(
                f"--weights={self.weights} is one checkpoint for one encoder, got {len(self.encoders)} encoders; "
                "say which is whose: --weights=ENCODER=WHAT,ENCODER=WHAT"
            )

    def weights_of(self, encoder: str) -> str | None:
        """The weights asked for one encoder; None: its own."""
        found = weights_by_encoder(self.weights, self.encoders)
        return next((what for name, what in found if name in ("", encoder)), None)

    def wants(self, encoder: str, task: str) -> bool:
        """Is that cell to be run?"""
        return not self.only or f"{encoder}:{task}" in self.only


@dataclass
class Outcome:
    """What a grid gave.

    Attributes:
        rows: results of this grid, old and new.
        n_new: how many of them were computed now.
        n_encoded: clips encoded now, over all encoders.
        failures: the cells that gave no result, with their reasons.
    """

    rows: list[Result] = field(default_factory=list)
    n_new: int = 0
    n_encoded: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """One row of a table: the layers that make the feature, and how."""

    layers: tuple[str, ...]
    fusion: str


def checked(settings: Settings) -> tuple[ProtocolConfig, list[Task], list[tuple[TaskConfig, Exception]]]:
    """Look up every name, so that a wrong one fails before any work is done.

    Returns:
        The protocol, the tasks, and those whose index cannot be made from what is on disk or whose kind the protocol has
        no probe for, with the reason: their cells fail and the others go on.

    Raises:
        ValueError: if an encoder, task, protocol, layer or limit is not legal.
    """
    protocol = protocol_asked(settings)
    from evar.encoders import load_encoder
    from evar.probes import probe_class
    from evar.tasks import load_task, load_task_config

    probe = resolve(protocol.probe)
    try:
        probe(**protocol.params)
    except TypeError as error:
        raise ValueError(f"protocol {protocol.name}: {error}") from error
    for name in settings.encoders:
        configs.load_encoder_config(name)
    if not isinstance(settings.layers, str):
        for name in settings.encoders:
            encoder = load_encoder(name, "random")
            for layer in settings.layers:
                encoder.layer(layer)
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
            probe_class(protocol, task.config.kind)
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


def selections(encoder: Encoder, layers: str | Sequence[str], fusion: str) -> list[Selection]:
    """Rows that a `--layers` and `--fusion` ask for, shallow to deep.

    Raises:
        ValueError: if the encoder has no such layer.
    """
    if layers == "default":
        names = tuple(encoder.default_layers)
        return [Selection(names, "none" if len(names) == 1 else "concat")]
    every = [layer.name for layer in encoder.layers]
    names = tuple(every) if layers == "all" else tuple(encoder.layer(name).name for name in layers)
    if fusion == ATTENTION or (fusion not in ("none", "search") and len(names) > 1):
        return [Selection(names, fusion)]
    rows = [Selection((name,), "none") for name in names]
    default = tuple(encoder.default_layers)
    if (layers == "all" or fusion == "search") and len(default) > 1:
        rows.append(Selection(default, "concat"))
    elif fusion == "search" and default[0] not in names:
        rows.append(Selection(default, "none"))
    if fusion == "search":
        rows += [Selection(names, other) for other in compared_fusions(encoder, names)]
    return rows


def layers_asked(encoder: Encoder, settings: Settings) -> str | tuple[str, ...]:
    """What `--layers` means for one encoder: a variant in a grid with its base has the base's layers, and shows its own
    feature only."""
    if settings.layers == "all" and encoder.store_name != encoder.name and encoder.store_name in settings.encoders:
        return "default"
    return settings.layers


def compared_fusions(encoder: Encoder, names: Sequence[str]) -> list[str]:
    """Fusions of all layers that a search is compared with: the weighted sum, where all are equally wide."""
    from evar.pooling import pooled_width

    widths = {pooled_width(encoder.layer(name).width, encoder.layer(name).pooling) for name in names}
    return ["weighted"] if len(names) > 1 and len(widths) == 1 else []


def seeds_that_matter(task: Task, protocol: ProtocolConfig, n_seeds: int | None) -> range:
    """Seeds to run: all of them where validation is drawn, clips are cropped or the probe is random, else one."""
    random_probe = "random_state" in resolve(protocol.probe)().get_params()
    is_random = task.draws_validation or random_probe or protocol.crop == "by_role"
    return range((n_seeds or protocol.seeds) if is_random else 1)


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
        values["encoders"], values["tasks"] = _names("encoders", encoders), _task_names(tasks, flags.get("data_root"))
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


def weights_by_encoder(text: str | None, encoders: Sequence[str]) -> list[tuple[str, str]]:
    """What --weights says, as (encoder, weights); the encoder is "" where they are for all.

    >>> weights_by_encoder("ast=a,b.pth,vggish=random", ["ast", "vggish"])
    [('ast', 'a,b.pth'), ('vggish', 'random')]
    >>> weights_by_encoder("random", ["ast", "vggish"])
    [('', 'random')]
    """
    if text is None:
        return []
    names = "|".join(re.escape(name) for name in encoders)
    pieces = re.split(rf"(?:^|,)({names})=", text)
    if len(pieces) == 1 or pieces[0]:
        return [("", text)]
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def _names(kind: str, text: str) -> tuple[str, ...]:
    listed = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(configs.names(kind)) if listed == ["all"] else tuple(listed)


def _task_names(text: str, data_root: str | None) -> tuple[str, ...]:
    from evar.tasks import is_at_hand

    names = _names("tasks", text)
    return tuple(name for name in names if is_at_hand(name, data_root)) if text.strip() == "all" else names
