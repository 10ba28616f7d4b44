"""The probe of a row: the protocol's, or the one that a fusion brings along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evar.experiment.fusion_rules import require_fusion
from evar.probes.making import make_probe
from evar.probes.weighted_sum import WeightedSumProbe

if TYPE_CHECKING:
    from evar.experiment.cell import Cell
    from evar.experiment.selection import Selection


def make_row_probe(cell: Cell, selection: Selection, seed: int, device: str = "auto") -> Any:
    """Return an unfitted probe for a row; for a weighted sum of layers the one that learns the weights.

    Args:
        cell: whose protocol and metric.
        selection: which layers, and how they are joined.
        seed: of the probe.
        device: of probes that are trained by gradient steps; "auto" takes a GPU if the machine has one.

    Raises:
        ValueError: if the protocol has no probe for the kind of task, or none for the fusion.
    """
    protocol, task = cell.protocol, cell.task
    probe = make_probe(protocol, cell.metric, seed, device)
    if isinstance(probe, WeightedSumProbe):
        return probe.set_params(n_layers=len(selection.layers))
    if selection.fusion != "weighted":
        return probe
    require_fusion(protocol, task.config.kind, "weighted", task.name)
    return WeightedSumProbe(
        len(selection.layers), strengths=probe.strengths, refit=probe.refit, metric=task.config.metric
    )
