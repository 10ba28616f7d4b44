"""The probe of a row: the protocol's, or the one that a fusion brings along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evar.probes.linear import LinearProbe
from evar.probes.making import find_probe_class, make_probe
from evar.probes.weighted_sum import WeightedSumProbe

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig
    from evar.experiment.cell import Cell
    from evar.experiment.selection import Selection


def make_row_probe(cell: Cell, selection: Selection, seed: int, device: str = "auto") -> Any:
    """Return an unfitted probe for a row; for a weighted sum of layers the one that learns the weights.

    Args:
        cell: whose protocol and metric.
        selection: which layers, and how they are joined.
        seed: of the probe.
        device: of probes that are trained by gradient steps; "auto" takes a GPU where there is one.

    Raises:
        ValueError: if the protocol has no probe for the kind of task, or none for the fusion.
    """
    protocol, task = cell.protocol, cell.task
    probe = make_probe(protocol, task.config.metric, seed, device)
    if isinstance(probe, WeightedSumProbe):
        return probe.set_params(n_layers=len(selection.layers))
    if selection.fusion != "weighted":
        return probe
    require_fusion(protocol, task.config.kind, "weighted", task.name)
    return WeightedSumProbe(
        len(selection.layers), strengths=probe.strengths, refit=probe.refit, metric=task.config.metric
    )


def require_fusion(protocol: ProtocolConfig, kind: str, fusion: str, task: str) -> None:
    """Raise unless the protocol's probe for a kind of task can learn that fusion; others than "weighted" suit every probe.

    Raises:
        ValueError: with what goes with what.

    Example:
        >>> from evar.config import load_protocol_config
        >>> require_fusion(load_protocol_config("linear"), "multiclass", "weighted", "esc10")
        >>> require_fusion(load_protocol_config("knn"), "multiclass", "weighted", "esc10")
        Traceback (most recent call last):
        ...
        ValueError: --fusion=weighted goes with the probe of protocol linear and tasks of one class a clip, but knn has ...
    """
    found = find_probe_class(protocol, kind)
    if fusion == "weighted" and not can_learn_weights(protocol, kind):
        raise ValueError(
            f"--fusion=weighted goes with the probe of protocol linear and tasks of one class a clip, but {protocol.name} "
            f"has {found.__name__} for {task}"
        )


def can_learn_weights(protocol: ProtocolConfig, kind: str) -> bool:
    """Return whether the protocol's probe for a kind of task can learn the weights of a sum of layers.

    Example:
        >>> from evar.config import load_protocol_config
        >>> [can_learn_weights(load_protocol_config(name), "multiclass") for name in ("linear", "weighted", "knn")]
        [True, True, False]
    """
    found = find_probe_class(protocol, kind)
    return found is LinearProbe or (isinstance(found, type) and issubclass(found, WeightedSumProbe))
