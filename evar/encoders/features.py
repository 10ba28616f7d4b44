"""Plain data that travels between encoders, pooling and the store: the description of a layer, and the layers of a batch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LAYER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")


@dataclass(frozen=True)
class LayerInfo:
    """One layer that an encoder gives, as a row of `evar layers ENCODER`.

    Attributes:
        name: unique within the encoder, letters, digits and underscores; encoders list layers from shallow to deep.
        width: features per aligned frame, before pooling.
        hop: samples between aligned frames at the encoder's own sample_rate; 0 means one frame per clip.
        pooling: name of the function in `evar.encoders.pooling` that turns the layer's frames into one vector per clip.
        note: how the layer differs from the network's own activation, such as "mean over frequency"; may be empty.

    Raises:
        ValueError: if the name, width or hop is not legal.

    Example:
        >>> LayerInfo("conv1", width=2048, hop=800, pooling="mean").width
        2048
    """

    name: str
    width: int
    hop: int
    pooling: str
    note: str = ""

    def __post_init__(self) -> None:
        if not _LAYER_NAME.fullmatch(self.name):
            raise ValueError(f"layer name must be letters, digits and underscores, got {self.name!r}")
        if self.width < 1 or self.hop < 0:
            raise ValueError(
                f"layer {self.name}: width must be >= 1 and hop >= 0, got width={self.width}, hop={self.hop}"
            )


class LayerFeatures(Mapping[str, "Tensor"]):
    """Every layer's frames of one batch of clips, with the number of valid frames of each clip.

    A mapping from layer name, shallow to deep, to a tensor (batch, time, feature).

    Attributes:
        frames: layer name -> (batch,) int64, valid frames per clip; frames beyond that hold padding.

    Example:
        >>> import torch
        >>> feats = LayerFeatures({"fc": torch.zeros(2, 5, 3)}, {"fc": torch.tensor([5, 4])})
        >>> feats["fc"].shape, feats.frames["fc"].tolist()
        (torch.Size([2, 5, 3]), [5, 4])
    """

    def __init__(self, layers: Mapping[str, Tensor], frames: Mapping[str, Tensor]) -> None:
        self._layers = dict(layers)
        self.frames = dict(frames)

    def __getitem__(self, name: str) -> Tensor:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.items())
        return f"LayerFeatures({shapes})"
