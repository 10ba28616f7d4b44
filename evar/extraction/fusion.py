"""Fusion of layers: {layer: (clips, width)} -> (clips, width'), on stored vectors.

Pure functions. Because alignment depends on the layer alone and pooling acts on each feature alone, concatenating pooled
vectors gives exactly what pooling concatenated frames gives (DESIGN 1), so no fusion ever needs another pass over audio.
Averages and weighted sums of pooled vectors equal those of frames only where every layer is pooled by its mean, or its
last frame (`commutes`); elsewhere a row is marked `after_pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from evar.config.registry import near_miss
from evar.numeric.axes import principal_axes, standardisation

if TYPE_CHECKING:
    from numpy.typing import NDArray


def concat(layers: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Put layers side by side, in the order given.

    Args:
        layers: name -> (clips, width); the widths may differ.

    Returns:
        (clips, sum of widths).

    Source: Niizumi et al., "Composing General Audio Representation by Fusing Multilayer Features of a Pre-trained
    Model", EUSIPCO 2022, section II.

    Example:
        >>> concat({"a": np.ones((1, 2), np.float32), "b": np.zeros((1, 1), np.float32)}).tolist()
        [[1.0, 1.0, 0.0]]
    """
    _check_clips(layers)
    return np.concatenate(list(layers.values()), axis=1)


def average(layers: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Average layers of equal width; this equals averaging frames only under mean pooling.

    Args:
        layers: name -> (clips, width).

    Returns:
        (clips, width).

    Raises:
        ValueError: if the widths differ.

    Example:
        >>> average({"a": np.ones((1, 2), np.float32), "b": np.zeros((1, 2), np.float32)}).tolist()
        [[0.5, 0.5]]
    """
    _check_clips(layers)
    require_equal_widths({name: value.shape[1] for name, value in layers.items()}, "average")
    return np.asarray(np.mean(np.stack(list(layers.values())), axis=0, dtype=np.float64), np.float32)


def pca(
    layers: Mapping[str, NDArray[np.float32]], train: NDArray[np.int64], width: int | None = None
) -> NDArray[np.float32]:
    """Put layers side by side, and compress them to their principal components over the training clips.

    Each layer is standardised and divided by the square root of its width first, so that a wide layer does not drown a
    narrow one: each has a total variance of 1.

    Args:
        layers: name -> (clips, width); the widths may differ. Rows that are NaN stay NaN.
        train: positions of the clips that means, deviations and components are taken from, at least 2.
        width: components to keep; None: as many as the widest layer has features. Never more than the training clips
            span.

    Returns:
        (clips, components), the largest variance first.

    Raises:
        ValueError: if there are fewer than 2 training clips, or all are alike.

    Example:
        >>> clips = np.arange(12, dtype=np.float32).reshape(6, 2)
        >>> pca({"a": clips, "b": -clips[:, :1]}, np.arange(4)).shape  # all three columns are one direction
        (6, 1)
    """
    _check_clips(layers)
    if len(train) < 2:
        raise ValueError(f"pca needs at least 2 training clips, got {len(train)}")
    scaled = []
    for value in layers.values():
        mean, scale = standardisation(value[train])
        varies = scale > 0
        scaled.append((value[:, varies] - mean[varies]) / (scale[varies] * np.sqrt(max(1, varies.sum()))))
    joined = np.concatenate(scaled, axis=1)  # (clips, sum of widths) float64, centred over the training clips
    basis = principal_axes(joined[train])  # (sum of widths, components)
    if not basis.shape[1]:
        raise ValueError(f"pca needs training clips that differ, but all {len(train)} have the same features")
    most = width or max(value.shape[1] for value in layers.values())
    return np.asarray(joined @ basis[:, :most], np.float32)


#: fusions that need nothing but the vectors of a clip; name -> function
FUSIONS: dict[str, Callable[[Mapping[str, NDArray[np.float32]]], NDArray[np.float32]]] = {
    "concat": concat,
    "average": average,
}


#: fusions that are fitted on the training clips of a round: components, or (by the probe itself) weights of the layers
FITTED_FUSIONS = ("pca", "weighted")


def fuse(
    layers: Mapping[str, NDArray[np.float32]], fusion: str, train: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Apply the fusion of a name.

    Args:
        layers: name -> (clips, width).
        fusion: "none" takes the only layer; a key of `FUSIONS`; "pca"; "weighted" puts the layers side by side, for a probe
            that learns their weights.
        train: positions of the training clips, for "pca".

    Returns:
        (clips, width').

    Raises:
        ValueError: if no fusion has that name, or it does not fit the layers.

    Example:
        >>> layers = {"a": np.ones((1, 2), np.float32), "b": np.zeros((1, 2), np.float32)}
        >>> fuse(layers, "average").tolist(), fuse(layers, "weighted").shape
        ([[0.5, 0.5]], (1, 4))
    """
    if fusion == "none" and len(layers) == 1:
        return next(iter(layers.values()))
    if fusion == "pca" and train is not None:
        return pca(layers, train)
    if fusion == "weighted":
        require_equal_widths({name: value.shape[1] for name, value in layers.items()}, fusion)
        return concat(layers)
    if fusion not in FUSIONS:
        known = [*FUSIONS, *FITTED_FUSIONS]
        raise ValueError(f"no fusion {fusion!r} for {len(layers)} layers; {near_miss(fusion, known)}")
    return FUSIONS[fusion](layers)


def commutes(fusion: str, poolings: Iterable[str]) -> bool:
    """Tell whether fusing pooled vectors gives what pooling fused frames would.

    Args:
        fusion: name of the fusion.
        poolings: names of the poolings of the layers.

    Example:
        >>> commutes("concat", ["mean_plus_max"]), commutes("average", ["mean", "mean_plus_max"])
        (True, False)
    """
    return fusion in ("none", "concat", "attention") or all(pooling in ("mean", "last") for pooling in poolings)


def require_equal_widths(widths: Mapping[str, int], fusion: str) -> None:
    """Refuse layers of different widths where they are summed.

    Args:
        widths: layer -> features of its vectors.
        fusion: name of the fusion, for the error message.

    Raises:
        ValueError: if the widths differ.

    Example:
        >>> require_equal_widths({"a": 2, "b": 3}, "average")
        Traceback (most recent call last):
        ValueError: average needs layers of equal width, got {'a': 2, 'b': 3}; use --fusion=concat or pca
    """
    if len(set(widths.values())) > 1:
        raise ValueError(f"{fusion} needs layers of equal width, got {dict(widths)}; use --fusion=concat or pca")


def _check_clips(layers: Mapping[str, NDArray[np.float32]]) -> None:
    clips = {name: value.shape[0] for name, value in layers.items()}
    if len(set(clips.values())) != 1:
        raise ValueError(f"fusion needs at least one layer and the same clips in each, got {clips}")


#: the fusion of probes that read frames
ATTENTION = "attention"
