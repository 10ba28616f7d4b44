"""Residual networks of basic blocks on spectrograms, with every stage: ResNet-18, ResNet-34 and their kind."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ResNet(nn.Module):
    """A residual network without its classifier: (clips, 1, frequency, time) -> the stem's map and each stage's.

    Names of tensors are torchvision's: conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, ...

    Args:
        channels: of the stem and the first stage; each later stage has twice those of the one before.
        n_blocks: blocks of each stage.
        first_stride: of the first convolution: 2, or 1 in networks that keep more of a small input.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, figure 3 and table 1.

    Example:
        >>> import torch
        >>> [tuple(one.shape) for one in ResNet(4, (1, 1), first_stride=2)(torch.zeros(1, 1, 64, 32))]
        [(1, 4, 16, 8), (1, 4, 16, 8), (1, 8, 8, 4)]
    """

    def __init__(self, channels: int, n_blocks: Sequence[int], first_stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 7, stride=first_stride, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.n_stages, before = len(n_blocks), channels
        for stage, n in enumerate(n_blocks):
            width = channels << stage
            blocks = []
            for number in range(n):
                blocks.append(BasicBlock(before, width, stride=2 if stage and not number else 1))
                before = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        for module in self.modules():  # an untrained network must not fade out layer by layer
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Tensor) -> list[Tensor]:
        """Compute every stage: image (batch, 1, row, column) -> the stages' maps (batch, channel, row, column).

        Args:
            maps: (clips, 1, frequency, time).

        Returns:
            Maps (clips, channel, frequency, time) after the stem's max-pool and after each stage.

        Example:
            >>> import torch
            >>> len(ResNet(2, (1, 1, 1, 1), first_stride=1)(torch.zeros(1, 1, 64, 32)))
            5
        """
        maps = nn.functional.max_pool2d(self.bn1(self.conv1(maps)).relu(), 3, stride=2, padding=1)
        found = [maps]
        for stage in range(self.n_stages):
            maps = getattr(self, f"layer{stage + 1}")(maps)
            found.append(maps)
        return found


class BasicBlock(nn.Module):
    """Two convolutions 3 x 3 with batch normalisation, around which the input is added.

    Args:
        n_in, n_out: channels.
        stride: of the first convolution; where it is 2 or the channels change, the input is brought to the same shape by a
            convolution 1 x 1 with batch normalisation.

    Example:
        >>> import torch
        >>> BasicBlock(4, 8, stride=2)(torch.zeros(1, 4, 9, 9)).shape
        torch.Size([1, 8, 5, 5])
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, maps: Tensor) -> Tensor:
        """Add what the two convolutions find to the input.

        Args:
            maps: (clips, channel, frequency, time).

        Returns:
            The same axes; frequency and time are divided by the stride, rounded up.

        Example:
            >>> import torch
            >>> BasicBlock(4, 4, stride=1)(torch.zeros(1, 4, 9, 9)).shape
            torch.Size([1, 4, 9, 9])
        """
        found = self.bn2(self.conv2(self.bn1(self.conv1(maps)).relu()))
        return (found + (maps if self.downsample is None else self.downsample(maps))).relu()
