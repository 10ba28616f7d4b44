"""The layers that a caller names: the default ones, all, or names and positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evar.encoders.base import Encoder


def choose_layers(encoder: Encoder, layers: str | Sequence[str | int] | None) -> list[str]:
    """Find the names of the layers that a caller asks for.

    Args:
        encoder: whose layers.
        layers: None or "default" for the encoder's default layers; "all"; "name,name"; or names and positions (0 is the
            first layer, -1 the last).

    Returns:
        Names: all and the default ones in the encoder's order, others in the order given.

    Raises:
        ValueError: if there is no such layer, or one is given twice.

    Example:
        >>> from evar.encoders import load_encoder
        >>> encoder = load_encoder("crepe.tiny", "random")
        >>> choose_layers(encoder, "conv1,-1"), len(choose_layers(encoder, "all"))
        (['conv1', 'pitch'], 7)
    """
    if layers is None or layers == "default":
        return list(encoder.default_layers)
    if layers == "all":
        return [layer.name for layer in encoder.layer_infos]
    return list(encoder.layer_names(layers.split(",") if isinstance(layers, str) else layers))
