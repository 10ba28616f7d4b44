"""Specs of fine-tuning, as plain data: the words of `finetune.py`, resolved once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evar import config as configs
from evar import results
from evar.data.task_config import load_task_config
from evar.experiment.settings import Settings, weights_by_encoder
from evar.experiment.spec import CellSpec, Resources
from evar.finetune.protocol import TuningProtocol, change_protocol, load_tuning_protocol


@dataclass(frozen=True)
class TuningSettings:
    """The values of a command line of finetune.py.

    Attributes:
        encoders, tasks: names.
        protocol: name in `config/protocols`, of kind finetune.
        given: hyper-parameters in place of the protocol's.
        seeds: how many, from 0; None leaves it to the protocol.
        data_root, weights, norm_stats, device, limit, out, store, skip_bad: as in `evar.experiment.settings.Settings`.
        resume: go on from the checkpoints of an interrupted run; without it they are deleted.
        eval_only: make the rows of rounds that were trained to the end; train none.
        halve: where memory is not enough, try again with half the batch and twice the accumulation.
        only_seed: this one in place of all.
        tensorboard: write losses, scores and rates for TensorBoard too, epoch by epoch, beside the curves.
    """

    encoders: tuple[str, ...]
    tasks: tuple[str, ...]
    protocol: str = "finetune"
    given: dict[str, Any] = field(default_factory=dict)
    seeds: int | None = None
    data_root: str | None = None
    weights: str | None = None
    norm_stats: str | tuple[float, float] | None = None
    device: str = "auto"
    limit: int | None = None
    out: str = "results"
    store: str | None = None
    skip_bad: bool = False
    resume: bool = True
    eval_only: bool = False
    halve: bool = True
    only_seed: int | None = None
    tensorboard: bool = False


@dataclass(frozen=True)
class TuningOptions:
    """Settings that change how a training works, and no number; `TuningSettings` explains each."""

    resume: bool = True
    eval_only: bool = False
    halve: bool = True
    tensorboard: bool = False


@dataclass(frozen=True)
class TuningSpec:
    """One encoder fine-tuned on one task.

    Attributes:
        cell: encoder, task and what else rows of the common table need; its protocol is made from `protocol`.
        protocol: hyper-parameters, those of the encoder, the task and the command line already in it.
        given: hyper-parameters that the command line gave.
    """

    cell: CellSpec
    protocol: TuningProtocol
    given: Mapping[str, Any]

    def to_plain(self) -> dict[str, Any]:
        """Return the spec as plain JSON data."""
        own = {"protocol": dataclasses.asdict(self.protocol), "given": dict(self.given)}
        return {"cell": self.cell.to_plain(), **results.plain(own, "spec")}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> TuningSpec:
        """Make a spec from what `to_plain` returned."""
        return cls(CellSpec.from_plain(data["cell"]), TuningProtocol(**data["protocol"]), data["given"])

    def with_protocol(self, protocol: TuningProtocol) -> TuningSpec:
        """Return the spec with other hyper-parameters."""
        return replace(self, protocol=protocol, cell=replace(self.cell, protocol=protocol.as_probe_protocol()))


@dataclass(frozen=True)
class TuningGrid:
    """Encoders x tasks to fine-tune, and with what.

    Attributes:
        cells: task by task.
        resources: what cannot change a number.
        options: how the training goes about its work.
    """

    cells: tuple[TuningSpec, ...]
    resources: Resources = field(default_factory=Resources)
    options: TuningOptions = field(default_factory=TuningOptions)


def resolve_tuning(settings: TuningSettings) -> TuningGrid:
    """Look up every name of a request and make a spec of each cell; nothing is loaded but YAMLs.

    Raises:
        ValueError: if a name or setting is unknown or not legal.

    Example:
        >>> grid = resolve_tuning(TuningSettings(("crepe.tiny",), ("esc10",), given={"epochs": 3}))
        >>> grid.cells[0].protocol.name, grid.cells[0].protocol.epochs
        ('finetune (epochs=3)', 3)
    """
    _check_settings(settings)
    general = load_tuning_protocol(settings.protocol)
    if settings.given:
        general = change_protocol(general, settings.given, "the command line")
    cells = [
        _make_spec(settings, general.for_cell(encoder, task), encoder, task)
        for task in settings.tasks
        for encoder in settings.encoders
    ]
    names = ("data_root", "store", "out", "device")
    resources = Resources(**{name: getattr(settings, name) for name in names})
    options = {entry.name: getattr(settings, entry.name) for entry in dataclasses.fields(TuningOptions)}
    return TuningGrid(tuple(cells), resources, TuningOptions(**options))


def _check_settings(settings: TuningSettings) -> None:
    """Raise ValueError unless the words that both runners share are legal."""
    shared = ("encoders", "tasks", "seeds", "weights", "norm_stats")
    Settings(**{name: getattr(settings, name) for name in shared})


def _make_spec(settings: TuningSettings, protocol: TuningProtocol, encoder: str, task: str) -> TuningSpec:
    configs.load_encoder_config(encoder)
    config = load_task_config(task)
    protocol = change_protocol(protocol, settings.given, "the command line")
    if settings.given:  # other settings, another table
        given = ", ".join(f"{name}={value}" for name, value in sorted(settings.given.items()))
        protocol = replace(protocol, name=f"{protocol.name} ({given})")
    found = weights_by_encoder(settings.weights, settings.encoders)
    n_seeds = settings.seeds or protocol.seeds
    cell = CellSpec(
        encoder=encoder,
        task=config.name,
        protocol=protocol.as_probe_protocol(),
        protocol_name=settings.protocol,
        task_version=config.version,
        metric=config.metric,
        weights=next((what for name, what in found if name in ("", encoder)), None),
        norm_stats=settings.norm_stats,
        limit=settings.limit,
        skip_bad=settings.skip_bad,
        seeds=tuple(range(n_seeds)) if settings.only_seed is None else (settings.only_seed,),
    )
    return TuningSpec(cell, protocol, dict(settings.given))
