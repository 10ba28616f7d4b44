"""Fusion of layers: {layer: (clips, width)} -> (clips, width'), on stored vectors.

Pure functions. Because alignment depends on the layer alone and pooling acts on each feature alone, concatenating pooled
vectors gives exactly what pooling concatenated frames gives (DESIGN 1), so no fusion ever needs another pass over audio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from evar.registry import near_miss

if TYPE_CHECKING:
    from numpy.typing import NDArray


def concat(layers: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Layers side by side, in the order given.

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
    _checked(layers)
    return np.concatenate(list(layers.values()), axis=1)


def average(layers: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Mean of layers of equal width. Equals averaging frames only under mean pooling.

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
    _checked(layers)
    widths = {name: value.shape[1] for name, value in layers.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"average needs layers of equal width, got {widths}; use --fusion=concat")
    return np.asarray(np.mean(np.stack(list(layers.values())), axis=0, dtype=np.float64), np.float32)


FUSIONS: dict[str, Callable[[Mapping[str, NDArray[np.float32]]], NDArray[np.float32]]] = {
    "concat": concat,
    "average": average,
}


def fuse(layers: Mapping[str, NDArray[np.float32]], fusion: str) -> NDArray[np.float32]:
    """Apply the fusion of that name; "none" takes the only layer.

    Raises:
        ValueError: if no fusion has that name, or it does not fit the layers.
    """
    if fusion == "none" and len(layers) == 1:
        return next(iter(layers.values()))
    if fusion not in FUSIONS:
        raise ValueError(f"no fusion {fusion!r} for {len(layers)} layers; {near_miss(fusion, FUSIONS)}")
    return FUSIONS[fusion](layers)


def _checked(layers: Mapping[str, NDArray[np.float32]]) -> None:
    clips = {name: value.shape[0] for name, value in layers.items()}
    if len(set(clips.values())) != 1:
        raise ValueError(f"fusion needs at least one layer and the same clips in each, got {clips}")
