"""A cell: one encoder on one task under one protocol, loaded, with the values that follow from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evar.config.registry import hash_source
from evar.encoders.pooling import describe_pooling
from evar.experiment.fusion_rules import can_learn_weights
from evar.experiment.selection import Selection, list_selections
from evar.experiment.spec import CellSpec, RowSpec
from evar.experiment.texts import hash_texts
from evar.extraction import input_statistics
from evar.extraction.fusion import ATTENTION
from evar.extraction.plan import feature_key
from evar.metrics import METRICS
from evar.probes.making import needs_text, reads_pairs

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.encoders.base import Encoder


@dataclass(frozen=True)
class Cell:
    """One encoder on one task under one protocol.

    It stands in the place of these three and of the request, which nearly every step of an evaluation needs.

    Attributes:
        encoder: as `load_encoder` gives it.
        task: with clips, labels and rounds.
        spec: the request, with the protocol.

    Raises:
        ValueError: if the task is not the one that the spec was made from.

    Example:
        >>> from evar.config import load_protocol_config
        >>> from evar.data.task import load_task
        >>> from evar.encoders import load_encoder
        >>> spec = CellSpec("logmel", "esc10", load_protocol_config("linear"), "linear")
        >>> cell = Cell(load_encoder("logmel"), load_task("esc10"), spec)
        >>> cell.label, [row.id for row in cell.list_rows()]
        ('logmel x esc10', ['logmel__logmel__esc10__linear__s0__2e2daac4a4'])
    """

    encoder: Encoder
    task: Task
    spec: CellSpec

    def __post_init__(self) -> None:
        if self.spec.index_sha256 and self.spec.index_sha256 != self.task.index_sha256:
            raise ValueError(
                f"{self.task.name}: the index here is {self.task.index_sha256[:10]}, but the run was resolved with "
                f"{self.spec.index_sha256[:10]}; give every machine the same files"
            )

    @property
    def protocol(self) -> ProtocolConfig:
        """With its effective parameters."""
        return self.spec.protocol

    @property
    def metric(self) -> str:
        """Name of the metric of the rows: the protocol's own, else the task's."""
        return self.protocol.metric or self.task.config.metric

    @property
    def label(self) -> str:
        """For messages and progress bars."""
        return f"{self.encoder.name} x {self.task.name}"

    @cached_property
    def statistics(self) -> str | tuple[float, float] | None:
        """Whose input statistics the encoder uses, as `evar.extraction.input_statistics.mode` says."""
        found = input_statistics.mode(self.encoder, self.spec.norm_stats, self.protocol.norm_stats)
        if found == "train" and not all(len(a_round.train) for a_round in self.task.rounds()):
            return self.encoder.norm_stats  # a task of test clips alone, whose clips are only compared
        return found

    @property
    def is_cropped(self) -> bool:
        """True if training and validation clips are cropped at random, and test clips at the head."""
        return self.protocol.crop == "by_role" and self.task.config.clip_seconds is not None

    @cached_property
    def extraction(self) -> dict[str, Any]:
        """Everything that can change a vector; statistics that depend on the clips stand by name, with numbers by round."""
        policy = self.task.policy()
        key = feature_key(self.encoder, policy)
        names = ("clip_seconds", "pad", "sample_rate", "resampler", "precision", "revision")
        found = {name: getattr(key, name) for name in names}
        if self.protocol.frame_seconds is not None:
            found["frame_seconds"] = self.protocol.frame_seconds
        by_role = "by_role: training and validation clips at random by seed, test clips at the head"
        crop = by_role if self.is_cropped else policy.crop
        return {**found, "crop": crop, "crop_seed": policy.seed, "norm_stats": self.statistics}

    @cached_property
    def text_sha256(self) -> str:
        """Hash of the texts that clips are compared with, and of what reads them; "" for protocols that read none."""
        return hash_texts(self.encoder, self.task) if needs_text(self.protocol) else ""

    def name_poolings(self, selection: Selection) -> dict[str, str]:
        """Return how each layer becomes one vector a clip: by its own pooling, or by the probe's attention."""
        if self.protocol.frame_seconds is not None:
            return dict.fromkeys(selection.layers, ATTENTION if selection.fusion == ATTENTION else "frames")
        return {name: describe_pooling(self.encoder.layer(name).pooling) for name in selection.layers}

    def list_selections(self) -> list[Selection]:
        """Return the layers of each row that was requested, and how they are joined.

        A search is compared with the weighted sum of all layers only where the protocol's probe can learn it.
        """
        if needs_text(self.protocol):
            return [Selection((self.encoder.text_layer,), "none")]
        rows = list_selections(self.encoder, self.spec.wanted_layers, self.spec.fusion)
        if self.spec.fusion != "search" or can_learn_weights(self.protocol, self.task.config.kind):
            return rows
        return [row for row in rows if row.fusion != "weighted"]

    def specify_row(self, selection: Selection, seed: int) -> RowSpec:
        """Return everything that can change the number of one row."""
        encoder, task, protocol = self.encoder, self.task, self.protocol
        return RowSpec(
            encoder=encoder.name,
            weights_sha256=encoder.weights_sha256,
            encoder_options=dict(encoder.options),
            extraction=self.extraction,
            layers=selection.layers,
            fusion=selection.fusion,
            pooling=self.name_poolings(selection),
            task=task.name,
            task_version=task.config.version,
            index_sha256=task.index_sha256,
            limit=self.spec.limit,
            skip_bad=self.spec.skip_bad,
            protocol=protocol.name,
            protocol_version=protocol.version,
            params=protocol.params,
            refit=protocol.refit,
            metric=self.metric,
            seed=seed,
            metric_sha256=METRICS[self.metric].source_sha256,
            probe_sha256=hash_source(protocol.probes.get(task.config.kind, protocol.probe)),
            frame_seconds=protocol.frame_seconds,
            validation_parts=protocol.validation_parts,
            text_sha256=self.text_sha256,
            pairs_sha256=self.task.pairs_sha256 if reads_pairs(protocol) else "",
        )

    def list_rows(self, chosen: Sequence[Selection] | None = None) -> list[RowSpec]:
        """Return the rows of the cell, layer by layer and seed by seed.

        Args:
            chosen: layers in place of those that were requested.
        """
        selections = self.list_selections() if chosen is None else chosen
        return [self.specify_row(selection, seed) for selection in selections for seed in self.spec.seeds]
