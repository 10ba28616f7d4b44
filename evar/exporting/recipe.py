"""Recipes of exported features: layers that are pooled or kept as frames, one by one or fused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import RESAMPLER
from evar.encoders.pooling import count_pooled_features, describe_pooling, pool
from evar.extraction.embed import selection
from evar.extraction.fusion import fuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder
    from evar.encoders.features import LayerFeatures


@dataclass(frozen=True)
class Recipe:
    """From the layers of an encoder to the features of the output.

    Attributes:
        layers: that are taken.
        fusion: makes one feature of them; None: each layer is a feature.
        pooling: layer -> how it is pooled over time; empty where frames are kept.
        hop: samples between frames at the encoder's rate; 0 where clips are pooled.
        features: name -> width of each feature. A feature has the name of its layer, or of the fusion.
    """

    layers: tuple[str, ...]
    fusion: str | None
    pooling: Mapping[str, str]
    hop: int
    features: Mapping[str, int]

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        layers: str | Sequence[str | int] | None = None,
        fusion: str | None = None,
        pooling: str | None = None,
        frames: bool = False,
    ) -> Recipe:
        """Make a recipe, and check that the encoder can fulfil it.

        Args:
            encoder: as `load_encoder` gives it.
            layers, fusion, pooling: as for `evar.embed`.
            frames: keep the frames instead of pooling them.

        Raises:
            ValueError: if a name is unknown, the layers cannot be fused, or frames are asked for that do not exist or
                do not fit side by side.

        Returns:
            The recipe, with the names and widths of its features.

        Example:
            >>> from evar.encoders import load_encoder
            >>> recipe = Recipe.of(load_encoder("logmel"), frames=True)
            >>> recipe.hop, recipe.features
            (160, {'logmel': 64})
        """
        names, fusion = selection(encoder, layers, fusion, pooling)
        hop = _find_hop(encoder, names, pooling) if frames else 0
        poolings = {} if frames else {name: pooling or encoder.layer(name).pooling for name in names}
        widths = {
            name: encoder.layer(name).width
            if frames
            else count_pooled_features(encoder.layer(name).width, poolings[name])
            for name in names
        }
        empty = {name: np.zeros((1, width), np.float32) for name, width in widths.items()}
        features = {name: value.shape[1] for name, value in _fuse_layers(empty, fusion).items()}
        return cls(tuple(names), fusion, poolings, hop, features)

    def rows(self, features: LayerFeatures) -> Iterator[dict[str, NDArray[np.float32]]]:
        """For each clip of a batch, feature -> (rows, width): one row, or one a frame.

        Where layers of one hop differ in frames (at the clip's end), the rows end with the shortest.

        Args:
            features: of one batch, each layer (batch, time, feature), as `Encoder.encode` gives them.

        Yields:
            Feature -> (rows, width) float32 of each clip, in the order of the batch.

        Example:
            >>> import torch
            >>> from evar.encoders import load_encoder
            >>> logmel = load_encoder("logmel")
            >>> features = logmel.encode(torch.zeros(2, 16000))
            >>> [rows["logmel"].shape for rows in Recipe.of(logmel).rows(features)]
            [(1, 128), (1, 128)]
        """
        if self.hop:
            frames = np.min([features.frames[name].cpu().numpy() for name in self.layers], axis=0)  # (batch,)
            for clip, n_frames in enumerate(frames):
                own = {name: features[name][clip, :n_frames].float().cpu().numpy() for name in self.layers}
                yield _fuse_layers(own, self.fusion)  # (frames, width)
            return
        pooled = {
            name: pool(features[name], features.frames[name], how).float().cpu().numpy()  # (batch, width)
            for name, how in self.pooling.items()
        }
        values = _fuse_layers(pooled, self.fusion)
        for clip in range(len(next(iter(values.values())))):
            yield {name: value[clip : clip + 1] for name, value in values.items()}


def _fuse_layers(layers: Mapping[str, NDArray[np.float32]], fusion: str | None) -> dict[str, NDArray[np.float32]]:
    if fusion in (None, "none"):
        return dict(layers)
    return {str(fusion): fuse(layers, str(fusion))}


def _find_hop(encoder: Encoder, names: Sequence[str], pooling: str | None) -> int:
    """Samples between the frames that all layers share."""
    if pooling is not None:
        raise ValueError(f"frames are not pooled: leave out either --frames or --pooling={pooling}")
    hops = {name: encoder.layer(name).hop for name in names}
    for name, hop in hops.items():
        if hop == 0:
            raise ValueError(f"layer {name} gives one vector a clip and has no frames; leave --frames out")
    if len(set(hops.values())) > 1:
        told = ", ".join(f"{name} {1000 * hop / encoder.sample_rate:.4g} ms" for name, hop in hops.items())
        raise ValueError(f"frames need layers of one hop, got {told}; choose one with --layers=NAME")
    return next(iter(hops.values()))


def settings_of(encoder: Encoder, recipe: Recipe, columns: Sequence[str]) -> dict[str, Any]:
    """Everything besides the audio that can change the output: it is kept in it, and decides which parts it is made of.

    Args:
        encoder: as `load_encoder` gives it.
        recipe: the features of a clip.
        columns: names of the CSV's columns that are carried along.

    Returns:
        Name of the setting -> its value.

    Example:
        >>> from evar.encoders import load_encoder
        >>> logmel = load_encoder("logmel")
        >>> settings = settings_of(logmel, Recipe.of(logmel, frames=True), columns=[])
        >>> settings["encoder"], settings["rows"], settings["hop_seconds"]
        ('logmel', 'frames', 0.01)
    """
    import torch

    from evar import __version__

    return {
        "encoder": encoder.name,
        "weights": encoder.weights_label,
        "weights_sha256": encoder.weights_sha256,
        "options": dict(encoder.options),
        "revision": encoder.revision,
        "norm_stats": encoder.norm_stats,
        "sample_rate": encoder.sample_rate,
        "resampler": RESAMPLER,
        "layers": list(recipe.layers),
        "pooling": {name: describe_pooling(pooling) for name, pooling in recipe.pooling.items()},
        "fusion": recipe.fusion or "none",
        "rows": "frames" if recipe.hop else "clips",
        "hop_seconds": recipe.hop / encoder.sample_rate,
        "features": dict(recipe.features),
        "columns": list(columns),
        "device": encoder.device.type,
        "evar": __version__,
        "torch": str(torch.__version__),
    }
