"""EfficientNet, under the names of the package `efficientnet_pytorch`, whose files PSLA has.

Source: Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from evar.encoders._mobile import Padding, average_map, make_convolution, make_norm


class Stage(NamedTuple):
    """Blocks of one shape; the first of them has the stride.

    Attributes:
        kernel: rows and columns of the depthwise convolution.
        stride: of the first block.
        expansion: how many times wider a block is within.
        width: channels that it gives.
        n_blocks: how many.
    """

    kernel: int
    stride: int
    expansion: int
    width: int
    n_blocks: int


class EfficientNet(nn.Module):
    """A stem, blocks, and a 1 x 1 convolution at the end; calling it yields every map.

    Args:
        stages: of blocks.
        stem: channels after the first convolution, 3 x 3 with stride 2.
        head: channels after the last convolution.
        find_padding: kernel, stride and position (0 is the stem) of a convolution -> zeros before and after both axes;
            None: (kernel - 1) / 2 on all sides; "same": as the size of the map needs.

    Example:
        >>> import torch
        >>> network = EfficientNet((Stage(3, 1, 1, 8, 1), Stage(3, 2, 6, 12, 2)), stem=4, head=16)
        >>> [tuple(maps.shape) for maps in network(torch.zeros(1, 1, 32, 20))][-2:]
        [(1, 12, 8, 5), (1, 16, 8, 5)]
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        stem: int,
        head: int,
        find_padding: Callable[[int, int, int], Padding | None] = lambda kernel, stride, position: None,
    ) -> None:
        super().__init__()
        self._conv_stem = make_convolution(1, stem, 3, 2, padding=find_padding(3, 2, 0))
        self._bn0 = make_norm(stem)
        self._blocks = nn.ModuleList()
        n_in = stem
        for stage in stages:
            for number in range(stage.n_blocks):
                stride = stage.stride if number == 0 else 1
                padding = find_padding(stage.kernel, stride, len(self._blocks) + 1)
                self._blocks.append(Block(n_in, stage._replace(stride=stride), padding))
                n_in = stage.width
        self._conv_head = make_convolution(n_in, head, 1)
        self._bn1 = make_norm(head)

    def forward(self, image: Tensor) -> Iterator[Tensor]:
        """Give the maps of the stem, of every block and of the head.

        Args:
            image: (batch, 1, frequency, time).

        Yields:
            (batch, channel, frequency, time), after the activation if there is one.
        """
        maps = nn.functional.silu(self._bn0(self._conv_stem(image)))
        yield maps
        for block in self._blocks:
            maps = block(maps)
            yield maps
        yield nn.functional.silu(self._bn1(self._conv_head(maps)))


class Block(nn.Module):
    """An inverted residual with squeeze and excitation, which has a quarter of the channels of the block's input.

    Args:
        n_in: channels of its input.
        stage: its shape.
        padding: zeros before and after both axes, as for `make_convolution`.
    """

    def __init__(self, n_in: int, stage: Stage, padding: Padding | None) -> None:
        super().__init__()
        wide, squeezed = n_in * stage.expansion, max(1, n_in // 4)
        self.expands, self.adds = stage.expansion != 1, stage.stride == 1 and n_in == stage.width
        if self.expands:
            self._expand_conv = make_convolution(n_in, wide, 1)
            self._bn0 = make_norm(wide)
        self._depthwise_conv = make_convolution(wide, wide, stage.kernel, stage.stride, groups=wide, padding=padding)
        self._bn1 = make_norm(wide)
        self._se_reduce = nn.Conv2d(wide, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, wide, 1)
        self._project_conv = make_convolution(wide, stage.width, 1)
        self._bn2 = make_norm(stage.width)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (batch, channel, frequency, time) to the same axes."""
        silu = nn.functional.silu
        wide = silu(self._bn0(self._expand_conv(maps))) if self.expands else maps
        wide = silu(self._bn1(self._depthwise_conv(wide)))
        wide = wide * self._se_expand(silu(self._se_reduce(average_map(wide)))).sigmoid()
        narrow = self._bn2(self._project_conv(wide))
        return narrow + maps if self.adds else narrow
