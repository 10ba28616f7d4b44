"""How the maps of a convolutional network become layers: a frame for each column, its bands averaged or side by side."""

from __future__ import annotations

from torch import Tensor

BANDS = ("mean", "side_by_side")


def read_bands(maps: Tensor, bands: str) -> Tensor:
    """Turn a map into frames.

    Args:
        maps: (batch, channel, frequency, time).
        bands: "mean" over frequency, or "side_by_side": channel x frequency, frequency fastest.

    Returns:
        (batch, time, channel) or (batch, time, channel x frequency).

    Example:
        >>> import torch
        >>> maps = torch.arange(4.0).view(1, 2, 2, 1)  # 2 channels, 2 bands
        >>> read_bands(maps, "mean").tolist(), read_bands(maps, "side_by_side").tolist()
        ([[[0.5, 2.5]]], [[[0.0, 1.0, 2.0, 3.0]]])
    """
    frames = maps.mean(dim=2) if bands == "mean" else maps.flatten(1, 2)
    return frames.transpose(1, 2)
