"""CvT: a transformer whose tokens are made and compared by convolutions, on maps of frequency and time.

Every stage is a convolution that halves or quarters the map, a LayerNorm over channels, and pre-norm transformer
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

EPSILON = 1e-5


@dataclass(frozen=True)
class Stage:
    """One stage of a CvT.

    Attributes:
        width: channels.
        kernel, stride: of the convolution that makes the tokens.
        n_heads, head_width: of the attention.
    """

    width: int
    kernel: int
    stride: int
    n_heads: int
    head_width: int = 64


class Cvt(nn.Module):
    """CvT without a classifier: (clips, 1, frequency, time) -> every stage's map.

    Args:
        stages: from shallow to deep.

    Source: Wu et al., "CvT: Introducing Convolutions to Vision Transformers", ICCV 2021; there are no positional tables.

    Example:
        >>> [tuple(one.shape) for one in Cvt([Stage(8, 7, 4, 1), Stage(16, 3, 2, 1)])(torch.zeros(1, 1, 64, 50))]
        [(1, 8, 16, 13), (1, 16, 8, 7)]
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages, before = nn.ModuleList(), 1
        for stage in stages:
            embed = nn.Conv2d(before, stage.width, stage.kernel, stride=stage.stride, padding=stage.kernel // 2)
            parts = {"embed": embed, "norm": ChannelNorm(stage.width), "block": Block(stage)}
            self.stages.append(nn.ModuleDict(parts))
            before = stage.width

    def forward(self, maps: Tensor) -> list[Tensor]:
        """Compute every stage: (clips, 1, frequency, time) -> the stages' maps (clips, channel, frequency, time).

        Args:
            maps: (clips, 1, frequency, time).

        Returns:
            Maps (clips, channel, frequency, time) after each stage.

        Example:
            >>> len(Cvt([Stage(8, 7, 4, 1)])(torch.zeros(1, 1, 64, 50)))
            1
        """
        found = []
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleDict)
            maps = stage["block"](stage["norm"](stage["embed"](maps)))
            found.append(maps)
        return found


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map. The small number is added to the deviation, not to the variance.

    Args:
        width: channels.

    Example:
        >>> ChannelNorm(2)(torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)).flatten().round(decimals=3).tolist()
        [-1.0, 1.0]
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise (clips, channel, frequency, time) over its channels, at every place by itself."""
        deviation = maps.var(dim=1, unbiased=False, keepdim=True).sqrt()
        return (maps - maps.mean(dim=1, keepdim=True)) / (deviation + EPSILON) * self.g + self.b


class Block(nn.Module):
    """One pre-norm transformer block on a map.

    Args:
        stage: to which it belongs.

    Example:
        >>> Block(Stage(8, 7, 4, 1))(torch.zeros(1, 8, 4, 6)).shape
        torch.Size([1, 8, 4, 6])
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        width = stage.width
        self.norm1 = ChannelNorm(width)
        self.attention = Attention(width, stage.n_heads, stage.head_width)
        self.norm2 = ChannelNorm(width)
        self.mlp = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (clips, channel, frequency, time) to the same axes."""
        maps = maps + self.attention(self.norm1(maps))
        return maps + self.mlp(self.norm2(maps))


class Attention(nn.Module):
    """Every place of a map looks at every place of the map at half its size.

    Args:
        width: channels.
        n_heads, head_width: heads, and channels of each.

    Example:
        >>> Attention(8, 2, 64)(torch.zeros(1, 8, 4, 6)).shape
        torch.Size([1, 8, 4, 6])
    """

    def __init__(self, width: int, n_heads: int, head_width: int) -> None:
        super().__init__()
        self.n_heads, inner = n_heads, n_heads * head_width
        self.to_q = _make_projection(width, inner, stride=1)
        self.to_kv = _make_projection(width, 2 * inner, stride=2)
        self.to_out = nn.Conv2d(inner, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (clips, channel, frequency, time) to the same axes."""
        query = self.to_q(maps)  # (clips, head x width, frequency, time)
        key, value = self.to_kv(maps).chunk(2, dim=1)  # (clips, head x width, frequency / 2, time / 2)
        heads = [one.flatten(2).unflatten(1, (self.n_heads, -1)).transpose(2, 3) for one in (query, key, value)]
        found = nn.functional.scaled_dot_product_attention(*heads)  # (clips, head, place, width)
        return self.to_out(found.transpose(2, 3).flatten(1, 2).unflatten(2, query.shape[2:]))


def _make_projection(width: int, inner: int, stride: int) -> nn.Sequential:
    """A convolution 3 x 3 of each channel by itself, batch normalisation, and a mix of the channels."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, inner, 1, bias=False),
    )
