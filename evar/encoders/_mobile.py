"""Inverted residuals: the block of MobileNet and EfficientNet, as PSLA and EfficientAT build it.

A block widens the map by a 1 x 1 convolution, filters every channel by itself, weighs the channels by what the whole map
holds ("squeeze and excitation"), and narrows it again; where the shape stays the same, the input is added. Every
convolution but those of the weighing is followed by a batch normalisation with epsilon 1e-3. A map is (batch, channel,
frequency, time).

Source: Sandler et al., "MobileNetV2", CVPR 2018; Howard et al., "Searching for MobileNetV3", ICCV 2019; Tan and Le,
"EfficientNet", ICML 2019.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

EPSILON = 1e-3
#: zeros (before, after) each of the two axes; "same": TensorFlow's rule, which depends on the size of the map
Padding = tuple[int, int] | Literal["same"]


def make_norm(channels: int) -> nn.BatchNorm2d:
    """Make the batch normalisation of these networks, with epsilon 1e-3.

    Args:
        channels: of the map.

    Example:
        >>> make_norm(8).eps
        0.001
    """
    return nn.BatchNorm2d(channels, eps=EPSILON)


def make_convolution(
    n_in: int, n_out: int, kernel: int, stride: int = 1, *, groups: int = 1, padding: Padding | None = None
) -> nn.Conv2d:
    """Make a convolution without bias.

    Args:
        n_in, n_out: channels.
        kernel: rows and columns.
        stride: of both axes.
        groups: of channels that see each other only.
        padding: zeros before and after both axes; "same": by the size of the map; None: (kernel - 1) / 2
            on all sides.

    Returns:
        The convolution.

    Example:
        >>> import torch
        >>> make_convolution(1, 4, 3, 2, padding=(0, 1))(torch.zeros(1, 1, 128, 101)).shape
        torch.Size([1, 4, 64, 50])
    """
    before, after = (0, 0) if padding == "same" else padding or ((kernel - 1) // 2, (kernel - 1) // 2)
    kind = nn.Conv2d if before == after else _ConvolutionWithZerosBehind
    if padding == "same":
        kind = _ConvolutionBySize
    convolution = kind(n_in, n_out, kernel, stride, padding=before, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out" if groups == 1 else "fan_in")
    return convolution


class _ConvolutionWithZerosBehind(nn.Conv2d):
    """One row and one column of zeros behind the map, none in front of it."""

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channel, row, column) -> the same axes."""
        return super().forward(nn.functional.pad(input, (0, 1, 0, 1)))


class _ConvolutionBySize(nn.Conv2d):
    """As many zeros as a map of half the size, rounded up, needs; the odd one behind."""

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channel, row, column) -> the same axes."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        zeros = [n for size in input.shape[:1:-1] for n in count_zeros(size, kernel, stride)]
        return super().forward(nn.functional.pad(input, zeros))


def count_zeros(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Count the zeros before and after an axis of a map by TensorFlow's rule "same".

    Args:
        size: of the axis.
        kernel, stride: of the convolution.

    Example:
        >>> count_zeros(8, 3, 2), count_zeros(9, 3, 2), count_zeros(8, 5, 2)
        ((0, 1), (1, 1), (1, 2))
    """
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def average_map(maps: Tensor) -> Tensor:
    """Average over the whole map: (batch, channel, frequency, time) -> (batch, channel, 1, 1).

    Example:
        >>> import torch
        >>> average_map(torch.ones(2, 3, 4, 5)).shape
        torch.Size([2, 3, 1, 1])
    """
    return maps.mean(dim=(2, 3), keepdim=True)
