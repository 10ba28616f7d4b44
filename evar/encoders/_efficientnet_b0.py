"""EfficientNet-B0 on a log-mel, with every block: the network of COLA, DECAR and DeLoRes.

Implementations differ in where a strided convolution takes its zeros: TensorFlow's rule depends on the size of the map,
and Keras's network has fixed ones. Everything else is the same. (`_efficientnet` has the networks whose padding was fixed
when they were built.)
"""

from __future__ import annotations

from torch import Tensor, nn

from evar.config.registry import near_miss

EPSILON = 1e-3
#: kernel, stride of the first block, expansion, channels, blocks
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, TOP = 32, 1280
PADDINGS = ("tensorflow", "keras")
#: halvings of the map after the stem, and after each stage
HALVINGS = (1, 1, 2, 3, 4, 4, 5, 5)


def list_block_names() -> list[str]:
    """Name the blocks as Keras does, from shallow to deep.

    Example:
        >>> list_block_names()[:4], len(list_block_names())
        (['1a', '2a', '2b', '3a'], 16)
    """
    return [f"{number}{chr(97 + place)}" for number, stage in enumerate(STAGES, start=1) for place in range(stage[-1])]


class EfficientNet(nn.Module):
    """EfficientNet-B0 without a classifier: (clips, 1, height, width) -> the maps after the stem, each stage and the top.

    Args:
        padding: "tensorflow" (as much as the size of the map needs, the odd one at the end) or "keras" (in strided
            convolutions one less before than after, whatever the size).
        share: of the channels of the published network, for tests; 1 is all of them.

    Raises:
        ValueError: if there is no such padding.

    Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, table 1;
        squeeze and excitation by a quarter of a block's input channels.

    Example:
        >>> import torch
        >>> [one.shape[1:] for one in EfficientNet("keras", share=0.25)(torch.zeros(1, 1, 98, 64))][-1]
        torch.Size([320, 3, 2])
    """

    def __init__(self, padding: str = "tensorflow", share: float = 1.0) -> None:
        super().__init__()
        if padding not in PADDINGS:
            raise ValueError(f"no padding {padding!r}; {near_miss(padding, PADDINGS)}")
        self.widths = [int(width * share) for width in (STEM, *(stage[3] for stage in STAGES), TOP)]
        self.stem = PaddedConv(1, self.widths[0], 3, 2, padding)
        self.stem_norm = nn.BatchNorm2d(self.widths[0], eps=EPSILON)
        self.blocks, before = nn.ModuleList(), self.widths[0]
        for (kernel, stride, expansion, _, n), width in zip(STAGES, self.widths[1:], strict=False):
            for place in range(n):
                self.blocks.append(Block(before, width, kernel, 1 if place else stride, expansion, padding))
                before = width
        self.top = nn.Conv2d(before, self.widths[-1], 1, bias=False)
        self.top_norm = nn.BatchNorm2d(self.widths[-1], eps=EPSILON)
        for module in self.modules():  # an untrained network must not fade out layer by layer
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Tensor) -> list[Tensor]:
        """The stem, every stage and the top.

        Args:
            maps: (clips, 1, height, width).

        Returns:
            9 maps (clips, channel, height, width), each half of the one before where the stage halves: rounded up by
            "tensorflow", down by "keras".

        Example:
            >>> import torch
            >>> len(EfficientNet(share=0.25)(torch.zeros(1, 1, 32, 64)))
            9
        """
        maps = nn.functional.silu(self.stem_norm(self.stem(maps)))
        found, number = [maps], 0
        for *_, n in STAGES:
            for _ in range(n):
                maps = self.blocks[number](maps)
                number += 1
            found.append(maps)
        found.append(nn.functional.silu(self.top_norm(self.top(maps))))
        return found


class Block(nn.Module):
    """An inverted bottleneck: wider, a convolution of each channel by itself, a gate for each channel, narrower.

    Args:
        n_in, n_out: channels.
        kernel, stride: of the convolution.
        expansion: how much wider; 1: not.
        padding: see `EfficientNet`.

    Example:
        >>> import torch
        >>> Block(4, 6, 3, 2, 6, "keras")(torch.zeros(1, 4, 9, 8)).shape
        torch.Size([1, 6, 4, 4])
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expansion: int, padding: str) -> None:
        super().__init__()
        wide, narrow = n_in * expansion, max(1, n_in // 4)
        self.is_shortcut = stride == 1 and n_in == n_out
        self.expand: nn.Module | None = None
        self.expand_norm: nn.Module | None = None
        if expansion != 1:
            self.expand = nn.Conv2d(n_in, wide, 1, bias=False)
            self.expand_norm = nn.BatchNorm2d(wide, eps=EPSILON)
        self.depthwise = PaddedConv(wide, wide, kernel, stride, padding)
        self.depthwise_norm = nn.BatchNorm2d(wide, eps=EPSILON)
        self.reduce = nn.Conv2d(wide, narrow, 1)
        self.excite = nn.Conv2d(narrow, wide, 1)
        self.project = nn.Conv2d(wide, n_out, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(n_out, eps=EPSILON)

    def forward(self, maps: Tensor) -> Tensor:
        """(clips, channel, height, width), halved by a stride of 2."""
        hidden = maps
        if self.expand is not None and self.expand_norm is not None:
            hidden = nn.functional.silu(self.expand_norm(self.expand(hidden)))
        hidden = nn.functional.silu(self.depthwise_norm(self.depthwise(hidden)))
        squeezed = hidden.mean(dim=(2, 3), keepdim=True)
        gate = self.excite(nn.functional.silu(self.reduce(squeezed))).sigmoid()
        hidden = self.project_norm(self.project(hidden * gate))
        return hidden + maps if self.is_shortcut else hidden


class PaddedConv(nn.Conv2d):
    """A convolution whose map has the size of its input, or half of it.

    Args:
        n_in, n_out: channels; of each channel by itself where there are several and as many come out.
        kernel, stride: of the convolution.
        padding: see `EfficientNet`.

    Example:
        >>> import torch
        >>> PaddedConv(2, 2, 5, 2, "keras")(torch.zeros(1, 2, 9, 8)).shape
        torch.Size([1, 2, 4, 4])
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, padding: str) -> None:
        super().__init__(n_in, n_out, kernel, stride, groups=n_in if n_in > 1 else 1, bias=False)
        self.rule = padding

    def forward(self, maps: Tensor) -> Tensor:
        """(clips, channel, height, width)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        before_after = [count_zeros(size, kernel, stride, self.rule) for size in maps.shape[:1:-1]]
        return super().forward(nn.functional.pad(maps, [n for pair in before_after for n in pair]))


def count_zeros(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Zeros before and after one axis of a map.

    Args:
        size: of the axis.
        kernel, stride: of the convolution.
        padding: see `EfficientNet`.

    Source: TensorFlow's "SAME" rule; `correct_pad` of Keras for an input of unknown height.

    Example:
        >>> [count_zeros(size, 3, 2, way) for size in (8, 9) for way in ("tensorflow", "keras")]
        [(0, 1), (0, 1), (1, 1), (0, 1)]
    """
    if padding == "keras" and stride > 1:
        return kernel // 2 - 1, kernel // 2
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2
