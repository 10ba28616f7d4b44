"""Make the probe that a protocol names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evar.config.registry import resolve
from evar.metrics import METRICS

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig


def probe_class(protocol: ProtocolConfig, kind: str) -> Any:
    """The protocol's estimator class for a kind of task.

    Raises:
        ValueError: if it has none.
    """
    found = resolve(protocol.probes.get(kind, protocol.probe))
    known = getattr(found, "only", ("multiclass", *protocol.probes, *getattr(found, "kinds", ())))
    if kind in known:
        return found
    raise ValueError(
        f"protocol {protocol.name} has no probe for {kind} tasks, only for {', '.join(dict.fromkeys(known))}; protocol "
        f"{'events' if kind == 'events' else 'linear'} has one"
    )


def new_probe(protocol: ProtocolConfig, metric: str, seed: int) -> Any:
    """The protocol's estimator for the metric's kind of task, unfitted; refit, metric and seed go in where it has such
    a parameter.

    Raises:
        ValueError: if the protocol has none for it.
    """
    kind = METRICS[metric].kind
    made = probe_class(protocol, kind)
    known = made().get_params()
    # The protocol's own probe must know every parameter; one that takes its place may have no use for some.
    params = {k: v for k, v in protocol.params.items() if k in known or kind not in protocol.probes}
    probe = made(**params)
    told = {"refit": protocol.refit, "metric": metric, "random_state": seed}
    return probe.set_params(**{name: value for name, value in told.items() if name in probe.get_params()})
