"""Fitted probes as plain arrays, and back again: what a classifier file keeps, without pickle.

Only what a prediction needs is kept. A probe that is made from its arrays predicts by its own code, and so the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.probes.linear import LinearProbe
from evar.probes.making import find_probe_class
from evar.probes.multilabel import MultilabelProbe
from evar.probes.nearest import PrototypeProbe
from evar.probes.network import NetworkProbe
from evar.probes.ridge import RidgeProbe
from evar.probes.targets import Targets
from evar.probes.weighted_sum import WeightedSumProbe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.config.protocol import ProtocolConfig

#: arrays of a probe by name
Arrays = dict[str, "NDArray[Any]"]


@dataclass(frozen=True)
class SavedProbe:
    """A fitted probe as data.

    Attributes:
        kind: key of `KINDS`.
        settings: numbers and words that a prediction needs beside the arrays, as JSON has them.
        arrays: by name.
    """

    kind: str
    settings: dict[str, Any]
    arrays: Arrays


@dataclass(frozen=True)
class _Kind:
    """How probes of one class are kept: attributes that are arrays, and functions for what is not."""

    made: type
    attributes: tuple[str, ...]
    more: Callable[[Any], tuple[dict[str, Any], Arrays]] = lambda probe: ({}, {})
    restore: Callable[[Any, Mapping[str, Any], Mapping[str, NDArray[Any]]], None] = lambda probe, settings, arrays: None


def _list_network_arrays(probe: NetworkProbe) -> tuple[dict[str, Any], Arrays]:
    arrays = {f"weight_{at}": weight.detach().cpu().numpy() for at, weight in enumerate(probe._weights)}
    for at, (mean, variance) in enumerate(probe._moments):
        arrays[f"moment_mean_{at}"], arrays[f"moment_variance_{at}"] = mean.cpu().numpy(), variance.cpu().numpy()
    targets = probe._targets
    if targets.classes is not None:
        arrays["classes_"] = np.asarray(targets.classes)
    settings = {
        "metric": probe.metric,
        "n_outputs": targets.n_outputs,
        "centre": targets.centre,
        "spread": targets.spread,
        "n_weights": len(probe._weights),
        "n_moments": len(probe._moments),
        "chosen": dict(probe.chosen_),
    }
    return settings, arrays


def _restore_network(probe: NetworkProbe, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    import torch

    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(arrays[name]))

    probe._weights = [read(f"weight_{at}") for at in range(int(settings["n_weights"]))]
    probe._moments = [
        (read(f"moment_mean_{at}"), read(f"moment_variance_{at}")) for at in range(int(settings["n_moments"]))
    ]
    probe.metric, probe.chosen_ = str(settings["metric"]), dict(settings["chosen"])
    classes = np.array(arrays["classes_"]) if "classes_" in arrays else None
    none = np.zeros(0)
    centre, spread = float(settings["centre"]), float(settings["spread"])
    probe._targets = Targets(
        probe.metric, classes, int(settings["n_outputs"]), torch.zeros(0), none, centre=centre, spread=spread
    )
    if classes is not None:
        probe.classes_ = classes


def _restore_intercept(probe: RidgeProbe, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    probe.intercept_ = float(np.ravel(arrays["intercept"])[0])


def _list_layer_weights(probe: WeightedSumProbe) -> tuple[dict[str, Any], Arrays]:
    return {"n_layers": probe.n_layers}, {"logits_of_layers": np.asarray(probe._logits_of_layers)}


def _restore_layer_weights(
    probe: WeightedSumProbe, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    from scipy.special import softmax

    probe.n_layers = int(settings["n_layers"])
    probe._logits_of_layers = np.array(arrays["logits_of_layers"])
    probe.layer_weights_ = softmax(probe._logits_of_layers)


_LINEAR = ("classes_", "coef_", "intercept_", "mean_", "scale_")
#: word of a classifier file -> how such probes are kept
KINDS: dict[str, _Kind] = {
    "linear": _Kind(LinearProbe, _LINEAR),
    "multilabel": _Kind(MultilabelProbe, _LINEAR),
    "ridge": _Kind(
        RidgeProbe,
        ("coef_", "mean_", "scale_"),
        lambda probe: ({}, {"intercept": np.array(probe.intercept_)}),
        _restore_intercept,
    ),
    "network": _Kind(NetworkProbe, ("mean_", "scale_"), _list_network_arrays, _restore_network),
    "weighted": _Kind(WeightedSumProbe, _LINEAR, _list_layer_weights, _restore_layer_weights),
    "prototype": _Kind(PrototypeProbe, ("classes_", "prototypes_", "mean_", "scale_")),
}


def require_savable(protocol: ProtocolConfig, kind: str, fusion: str = "none") -> None:
    """Check that the fitted probe of a protocol can be kept in a file and used on other sounds.

    Args:
        protocol: as its YAML says it.
        kind: of the task, one of `evar.metrics.KINDS`.
        fusion: of the layers.

    Raises:
        ValueError: naming what can be saved; or as `evar.probes.making.find_probe_class`.

    Example:
        >>> from evar.config.protocol import load_protocol_config
        >>> require_savable(load_protocol_config("linear"), "regression")
        >>> require_savable(load_protocol_config("knn"), "multiclass")
        Traceback (most recent call last):
        ValueError: a head of protocol knn cannot be saved for multiclass tasks: KNNProbe is not one of LinearProbe, ...
    """
    found = find_probe_class(protocol, kind)
    known = [one.made for one in KINDS.values()]
    if found not in known:
        names = ", ".join(one.__name__ for one in known)
        raise ValueError(
            f"a head of protocol {protocol.name} cannot be saved for {kind} tasks: {found.__name__} is not one of {names}; "
            "the protocols linear, weighted, evar, hear, mlp and prototype have such probes"
        )
    if fusion == "pca":
        raise ValueError(
            "a head on --fusion=pca cannot be saved, since its components belong to one task; use --fusion=concat, which "
            "loses nothing"
        )


def save_probe(probe: Any) -> SavedProbe:
    """Return a fitted probe as data.

    Args:
        probe: fitted, of a class in `KINDS`.

    Raises:
        ValueError: if probes of its class cannot be saved.

    Example:
        >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
        >>> saved = save_probe(LinearProbe((1.0,)).fit(X, y))
        >>> saved.kind, sorted(saved.arrays)
        ('linear', ['classes_', 'coef_', 'intercept_', 'mean_', 'scale_'])
    """
    for name, kind in KINDS.items():
        if type(probe) is kind.made:  # a subclass may predict by other numbers
            settings, arrays = kind.more(probe)
            arrays |= {attribute: np.asarray(getattr(probe, attribute)) for attribute in kind.attributes}
            return SavedProbe(name, {**settings, "n_features": int(vars(probe)["n_features_in_"])}, arrays)
    raise ValueError(f"a {type(probe).__name__} cannot be saved; {', '.join(KINDS)} can")


def restore_probe(saved: SavedProbe) -> Any:
    """Return the fitted probe that was saved; it predicts the same numbers.

    Args:
        saved: as `save_probe` returns it.

    Raises:
        ValueError: if the kind is not known here, or an array or setting is missing.

    Example:
        >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
        >>> probe = LinearProbe((1.0,)).fit(X, y)
        >>> bool((restore_probe(save_probe(probe)).predict_proba(X) == probe.predict_proba(X)).all())
        True
    """
    if saved.kind not in KINDS:
        raise ValueError(
            f"expected a probe of kind {', '.join(KINDS)}, got {saved.kind!r}; is evar too old for this file?"
        )
    kind = KINDS[saved.kind]
    probe: Any = kind.made()
    try:
        for attribute in kind.attributes:
            setattr(probe, attribute, np.array(saved.arrays[attribute]))
        kind.restore(probe, saved.settings, saved.arrays)
        probe.n_features_in_ = int(saved.settings["n_features"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"a probe of kind {saved.kind} is not whole: {error} is missing") from error
    return probe
