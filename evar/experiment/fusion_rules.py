"""Which fusions go with which probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evar.probes.linear import LinearProbe
from evar.probes.making import find_probe_class
from evar.probes.weighted_sum import WeightedSumProbe

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig


def require_fusion(protocol: ProtocolConfig, kind: str, fusion: str, task: str) -> None:
    """Raise unless the protocol's probe for a kind of task can learn that fusion; others than "weighted" suit every probe.

    Raises:
        ValueError: with the combinations that are allowed.

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
