"""Make the probe that a protocol names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evar.config.registry import hash_source, resolve
from evar.metrics import METRICS
from evar.probes.protocol import check_probe, get_traits

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig

#: own probes that have been checked: "module:Class" and the hash of its source
_CHECKED: set[tuple[str, str]] = set()


def find_probe_class(protocol: ProtocolConfig, kind: str) -> Any:
    """Return the class of the probe that a protocol has for a kind of task.

    Args:
        protocol: as its YAML says it; "module:Class" of an own class is checked when it is met first.
        kind: one of `evar.metrics.KINDS`.

    Raises:
        ValueError: if the protocol has none for that kind, or an own class breaks a promise of `evar.probes.protocol`.

    Example:
        >>> from evar.config.protocol import load_protocol_config
        >>> find_probe_class(load_protocol_config("linear"), "regression").__name__
        'RidgeProbe'
    """
    name = protocol.probes.get(kind, protocol.probe)
    found = resolve(name)
    _require_promises(name, found)
    kinds = dict.fromkeys([*get_traits(resolve(protocol.probe)).kinds, *protocol.probes])
    if kind in kinds:
        return found
    raise ValueError(
        f"protocol {protocol.name} has no probe for {kind} tasks, only for {', '.join(kinds)}; protocol "
        f"{ {'events': 'events', 'captions': 'retrieval'}.get(kind, 'linear') } has one"
    )


def needs_text(protocol: ProtocolConfig) -> bool:
    """Return whether a protocol compares clips with texts, so that it needs encoders that read.

    Example:
        >>> from evar.config.protocol import load_protocol_config
        >>> needs_text(load_protocol_config("zero_shot")), needs_text(load_protocol_config("linear"))
        (True, False)
    """
    return get_traits(resolve(protocol.probe)).reads_text


def compares_clips(protocol: ProtocolConfig) -> bool:
    """Return whether a protocol compares test clips with each other, so that no probe is trained.

    Example:
        >>> from evar.config.protocol import load_protocol_config
        >>> compares_clips(load_protocol_config("clustering")), compares_clips(load_protocol_config("linear"))
        (True, False)
    """
    return get_traits(resolve(protocol.probe)).compares_clips


def reads_pairs(protocol: ProtocolConfig) -> bool:
    """Return whether a protocol tests the published pairs of a task, where it has some.

    Example:
        >>> from evar.config.protocol import load_protocol_config
        >>> reads_pairs(load_protocol_config("pairs")), reads_pairs(load_protocol_config("clustering"))
        (True, False)
    """
    return get_traits(resolve(protocol.probe)).reads_pairs


def needs_training(protocol: ProtocolConfig) -> bool:
    """Return whether a protocol's probe learns from training clips, so that there must be some.

    Example:
        >>> from evar.config.protocol import load_protocol_config
        >>> [needs_training(load_protocol_config(name)) for name in ("linear", "zero_shot", "pairs")]
        [True, False, False]
    """
    return not needs_text(protocol) and not compares_clips(protocol)


def make_probe(protocol: ProtocolConfig, metric: str, seed: int, device: str = "auto") -> Any:
    """Make the protocol's probe for tasks of a metric's kind, unfitted.

    Args:
        protocol: whose probe and parameters.
        metric: name in `evar.metrics.METRICS`; it decides the kind of the labels.
        seed: of the random numbers of the probe.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps", for probes whose traits say that they take a device.

    Returns:
        The probe; `refit`, `metric`, `random_state` and `device` are set where it has such a parameter.

    Raises:
        ValueError: as `find_probe_class`, or if the probe does not know a parameter of the protocol.

    Example:
        >>> from evar.config.protocol import load_protocol_config
        >>> make_probe(load_protocol_config("evar"), "accuracy", 3, "cpu").get_params()["random_state"]
        3
    """
    kind = METRICS[metric].task_kind
    made = find_probe_class(protocol, kind)
    known = made().get_params()
    # The protocol's own probe must know every parameter; one that takes its place may have no use for some.
    params = {k: v for k, v in protocol.params.items() if k in known or kind not in protocol.probes}
    probe = made(**params)
    given = {"refit": protocol.refit, "metric": metric, "random_state": seed}
    if get_traits(made).takes_device:
        given["device"] = device
    return probe.set_params(**{name: value for name, value in given.items() if name in probe.get_params()})


def _require_promises(name: str, found: Any) -> None:
    """Raise ValueError if an own class breaks a promise."""
    key = (name, hash_source(name))
    if not key[1] or key in _CHECKED:
        return
    broken = check_probe(found)
    if broken:
        raise ValueError(f"probe {name} breaks {len(broken)} promise(s): {'; '.join(broken)}")
    _CHECKED.add(key)
