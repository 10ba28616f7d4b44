"""Specs, as plain data: a command line is resolved into specs once, and all later code works from them.

A `CellSpec` says what was requested of one encoder on one task, with all that can change a number. A `RowSpec` says what
one row was computed from, with the hashes of the checkpoint and the index; its own hash names the result file. `Resources`
hold what cannot change a number: folders, devices and limits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from evar import results
from evar.config.encoder import make_absolute
from evar.config.protocol import ProtocolConfig
from evar.data.task import VALIDATION_PARTS


@dataclass(frozen=True)
class Selection:
    """The layers that make the feature of a row, and how they become one."""

    layers: tuple[str, ...]
    fusion: str


@dataclass(frozen=True)
class CellSpec:
    """One encoder on one task under one protocol, in the words of the request.

    Attributes:
        encoder: as `evar.encoders.load_encoder` takes it.
        weights: None for the encoder's own, "random", a path, a url or "hf:org/name".
        norm_stats: "default", "train", "task" or (mean, std); None leaves it to the protocol.
        task: name of the task.
        task_version, metric: of the task.
        index_sha256: hash of the rows of the task's index that are used.
        limit: at most this many clips of each split or fold; None: all.
        skip_bad: leave unreadable clips out of the test set instead of counting them as wrong.
        protocol: with its effective parameters.
        protocol_name: the protocol as the command line named it.
        learning_rate: as the command line gave it, a number or "search"; None leaves it to the protocol.
        layers: "default", "all" or names of layers.
        fusion: as in `evar.experiment.settings.Settings`.
        seeds: those that are run.
        beside_base: whether the encoder is a variant whose base is in the same grid; with layers "all" the layers are
            then the base's, and the variant shows its own feature only.

    Example:
        >>> from evar.config import load_protocol_config
        >>> spec = CellSpec("logmel", "esc10", protocol=load_protocol_config("linear"), protocol_name="linear")
        >>> CellSpec.from_plain(spec.to_plain()) == spec
        True
    """

    encoder: str
    task: str
    protocol: ProtocolConfig
    protocol_name: str
    task_version: str = ""
    metric: str = ""
    index_sha256: str = ""
    weights: str | None = None
    norm_stats: str | tuple[float, float] | None = None
    limit: int | None = None
    skip_bad: bool = False
    learning_rate: str | None = None
    layers: str | tuple[str, ...] = "default"
    fusion: str = "none"
    seeds: tuple[int, ...] = (0,)
    beside_base: bool = False

    @property
    def wanted_layers(self) -> str | tuple[str, ...]:
        """The layers to probe: "default", "all" or names."""
        return "default" if self.layers == "all" and self.beside_base else self.layers

    @property
    def given_statistics(self) -> tuple[float, float] | None:
        """(mean, std) of the input where the request gives numbers, else None."""
        return self.norm_stats if isinstance(self.norm_stats, tuple) else None

    def describe_request(self) -> dict[str, Any]:
        """Return what to request to get a row of this cell again, as plain data."""
        return {
            "encoder": make_absolute(self.encoder),  # the row may be computed again from another folder
            "task": self.task,
            "layers": self.layers if isinstance(self.layers, str) else list(self.layers),
            "fusion": self.fusion,
            "protocol": self.protocol_name,
            "learning_rate": self.learning_rate,
            "weights": _make_path_absolute(self.weights),
            "norm_stats": list(self.norm_stats) if isinstance(self.norm_stats, tuple) else self.norm_stats,
            "limit": self.limit,
            "skip_bad": self.skip_bad,
        }

    def name_cell(self, layers: str = "") -> dict[str, Any]:
        """Describe the cell for a record of a failure; `layers` replace those of the request."""
        return {
            "encoder": self.encoder,
            "task": self.task,
            "task_version": self.task_version,
            "metric": self.metric,
            "protocol": self.protocol.name,
            "layers": layers or (self.layers if isinstance(self.layers, str) else ",".join(self.layers)),
            "fusion": self.fusion,
            "limit": self.limit,
        }

    def to_plain(self) -> dict[str, Any]:
        """Return the spec as plain JSON data."""
        return results.plain(dataclasses.asdict(self), "spec")

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> CellSpec:
        """Make a spec from what `to_plain` returned."""
        tuples = {
            name: tuple(data[name])
            for name in ("layers", "seeds", "norm_stats")
            if isinstance(data[name], list | tuple)
        }
        return cls(**{**data, **tuples, "protocol": ProtocolConfig(**data["protocol"])})


def _make_path_absolute(weights: str | None) -> str | None:
    """A path of weights that is there, as an absolute one; addresses and words stay."""
    is_path = weights not in (None, "random") and os.path.exists(str(weights))
    return os.path.abspath(str(weights)) if is_path else weights


@dataclass(frozen=True)
class RowSpec:
    """Everything that can change the number of one row; its hash names the result file.

    Attributes:
        encoder: row label.
        weights_sha256, encoder_options: hash of the weights, and options that the encoder was built with.
        extraction: what can change a vector, as in `evar.results.Result`.
        layers, fusion: what makes the feature.
        pooling: layer -> name of its pooling over time.
        task, task_version, index_sha256: which clips and labels.
        limit, skip_bad: as in `CellSpec`.
        protocol, protocol_version, params, refit: how the probe is fitted.
        metric: name of the metric.
        seed: of everything random.
        metric_sha256, probe_sha256: of the source of a metric and a probe that are the user's own, else "".
        frame_seconds: as in the protocol; None for probes that read one vector a clip.
        validation_parts: where no validation is published, one of this many parts of the training clips is.
        text_sha256: of the prompts or captions that clips are compared with, and of the tokenizer; "" for probes that read
            no text.
        pairs_sha256: of the task's published pairs; "" where there are none, and for probes that read none.
    """

    encoder: str
    weights_sha256: str
    encoder_options: Mapping[str, Any]
    extraction: Mapping[str, Any]
    layers: tuple[str, ...]
    fusion: str
    pooling: Mapping[str, str]
    task: str
    task_version: str
    index_sha256: str
    limit: int | None
    skip_bad: bool
    protocol: str
    protocol_version: str
    params: Mapping[str, Any]
    refit: str
    metric: str
    seed: int
    metric_sha256: str = ""
    probe_sha256: str = ""
    frame_seconds: float | None = None
    validation_parts: int = VALIDATION_PARTS
    text_sha256: str = ""
    pairs_sha256: str = ""

    @property
    def selection(self) -> Selection:
        """The layers that make the feature, and how."""
        return Selection(self.layers, self.fusion)

    def to_plain(self) -> dict[str, Any]:
        """Return the spec as plain data.

        Values that could not be chosen once stand there only where they are chosen, so that the names of older results
        stay valid.
        """
        fields = dataclasses.fields(self)
        data = {entry.name: getattr(self, entry.name) for entry in fields}
        for entry in fields:
            if entry.default is not dataclasses.MISSING and data[entry.name] == entry.default:
                del data[entry.name]
        return results.plain(data, "spec")

    @cached_property
    def id(self) -> str:
        """Stem of the result file."""
        return results.run_id(self.to_plain())


@dataclass(frozen=True)
class SearchSpec:
    """A fusion search over the layers of one encoder, for all tasks of its cells at once.

    Attributes:
        objective: score that is maximised on validation clips: "mean_score" or "mean_rank" over the tasks.
        max_layers: how many layers may be put together.
        export: name under which the choice becomes an encoder; None exports nothing.
    """

    objective: str = "mean_score"
    max_layers: int = 4
    export: str | None = None


@dataclass(frozen=True)
class Resources:
    """Folders, devices and engines; nothing here can change a number.

    Attributes:
        data_root: folder that holds the tasks' folders.
        store: folder or address of the feature store; None: the user's own.
        out: results folder or address.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        batch_size: clips a batch; None lets the encoder choose.
        frames_gb: 10^9 bytes of frames that a cell may put on disk.
        engine: "local" (processes of this machine) or "ray".
        jobs: how many cells run at the same time (on each node of a cluster).
        address: of an existing Ray cluster.
        save_head: whether the fitted probes are kept beside their rows.
    """

    data_root: str | None = None
    store: str | None = None
    out: str = "results"
    device: str = "auto"
    batch_size: int | None = None
    frames_gb: float = 50.0
    engine: str = "local"
    jobs: int = 1
    address: str | None = None
    save_head: bool = False


@dataclass(frozen=True)
class Rejection:
    """A cell that cannot be run, known before any work is done.

    Attributes:
        spec: the request; a record of the failure takes protocol and task from it.
        reason: one sentence.
    """

    spec: CellSpec
    reason: str


@dataclass(frozen=True)
class GridSpec:
    """Encoders x tasks, resolved: the specs to compute, and the resources for them.

    Attributes:
        cells: in the order of the grid, encoder by encoder.
        resources: what cannot change a number.
        searches: encoder -> its fusion search; empty if none was requested.
        rejections: cells of the grid that cannot be run.
        tasks: by name, those that this process has loaded already; no part of the plain data.
    """

    cells: tuple[CellSpec, ...]
    resources: Resources = Resources()
    searches: Mapping[str, SearchSpec] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()
    tasks: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders that have cells to run, in the order of the grid."""
        return tuple(dict.fromkeys(spec.encoder for spec in self.cells))

    def list_cells(self, encoder: str) -> list[CellSpec]:
        """Return the cells of one encoder."""
        return [spec for spec in self.cells if spec.encoder == encoder]

    def to_plain(self) -> dict[str, Any]:
        """Return everything but the loaded tasks as plain JSON data."""
        data = {
            "cells": [spec.to_plain() for spec in self.cells],
            "resources": dataclasses.asdict(self.resources),
            "searches": {name: dataclasses.asdict(search) for name, search in self.searches.items()},
            "rejections": [{"spec": one.spec.to_plain(), "reason": one.reason} for one in self.rejections],
        }
        return results.plain(data, "grid")

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> GridSpec:
        """Make a grid from what `to_plain` returned."""
        return cls(
            tuple(CellSpec.from_plain(spec) for spec in data["cells"]),
            Resources(**data["resources"]),
            {name: SearchSpec(**search) for name, search in data["searches"].items()},
            tuple(Rejection(CellSpec.from_plain(one["spec"]), one["reason"]) for one in data["rejections"]),
        )
