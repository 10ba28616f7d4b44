"""The network of HTS-AT: a Swin transformer on a log-mel that is folded into a square image. CLAP's audio towers share it.

A clip's log-mel of up to 1024 frames is stretched to 1024, cut into 4 segments of 256, and stacked into an image of 256 x
256 pixels: a row is a band of a segment, a column is a frame within its segment. `AudioSwin.to_image` does this, and
`AudioSwin.forward` gives every layer of the image. An image of tokens is (batch, row, column, width).

Source: Chen et al., "HTS-AT: A hierarchical token-semantic audio transformer for sound classification and detection",
ICASSP 2022; Liu et al., "Swin transformer: Hierarchical vision transformer using shifted windows", ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from evar.encoders._vit import Mlp

N_FRAMES, N_SEGMENTS, N_MELS = 1024, 4, 64
PATCH, WINDOW, SHIFT = 4, 8, 4
EPSILON, MASKED = 1e-5, -100.0
N_CLASSES = 527


class AudioSwin(nn.Module):
    """A log-mel as an image, and a Swin transformer on it.

    Its tensors have the names of the published files ("layers.0.blocks.1.attn.qkv.weight").

    Args:
        width: of a token of the first stage; it doubles with each stage.
        depths: blocks of each stage.
        n_heads: of attention, for each stage.
        n_classes: of the head that tags every time step.

    Example:
        >>> network = AudioSwin(width=8, depths=(1, 1), n_heads=(1, 2))
        >>> image = network.to_image(torch.zeros(1, 101, 64), repeat=True)
        >>> {name: tuple(tokens.shape) for name, tokens in network(image)}["norm"]
        (1, 32, 32, 16)
    """

    def __init__(
        self,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        n_heads: Sequence[int] = (4, 8, 16, 32),
        n_classes: int = N_CLASSES,
    ) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(N_MELS)
        self.patch_embed = _PatchNorm(width)
        side = N_SEGMENTS * N_MELS // PATCH
        self._stages = [
            _Stage(width << number, depth, heads, side >> number, merges=number < len(depths) - 1)
            for number, (depth, heads) in enumerate(zip(depths, n_heads, strict=True))
        ]
        self.layers = nn.ModuleList(self._stages)
        self.width = width << (len(depths) - 1)
        self.norm = nn.LayerNorm(self.width, eps=EPSILON)
        n_bands = (side >> (len(depths) - 1)) // N_SEGMENTS  # 2 after four stages
        self.tscam_conv = nn.Conv2d(self.width, n_classes, (n_bands, 3), padding=(0, 1))
        self.tscam_conv.requires_grad_(False)  # no layer depends on the tags

    def layer_widths(self) -> dict[str, int]:
        """Name the layers that `forward` gives, in order, with their widths.

        Example:
            >>> AudioSwin(width=8, depths=(1, 1), n_heads=(1, 2)).layer_widths()
            {'patch': 8, 'block1': 8, 'merge1': 16, 'block2': 16, 'norm': 16}
        """
        widths, n_blocks = {"patch": self._stages[0].width}, 0
        for number, stage in enumerate(self._stages, start=1):
            for _ in stage.blocks:
                n_blocks += 1
                widths[f"block{n_blocks}"] = stage.width
            if stage.downsample is not None:
                widths[f"merge{number}"] = 2 * stage.width
        return {**widths, "norm": self.width}

    def to_image(self, decibels: Tensor, *, repeat: bool) -> Tensor:
        """Normalise the bands of log-mels, stretch these to 1024 frames, and fold them into images.

        Args:
            decibels: (batch, 1..1024 frames, 64), of clips of the same length.
            repeat: whether a short clip is first repeated end to end, as often as it fits whole into 1024 frames.

        Returns:
            (batch, 256, 256): row = segment x 64 + band, column = frame in the segment.

        Raises:
            ValueError: if there are more than 1024 frames.

        Example:
            >>> AudioSwin(width=8, depths=(1,), n_heads=(1,)).to_image(torch.zeros(2, 1001, 64), repeat=False).shape
            torch.Size([2, 256, 256])
        """
        if decibels.shape[1] > N_FRAMES:
            raise ValueError(f"expected at most {N_FRAMES} frames, got {decibels.shape[1]}; cut the clip into pieces")
        frames = self.bn0(decibels.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)  # (batch, time, band)
        if repeat:
            frames = frames.repeat(1, N_FRAMES // frames.shape[1], 1)
        return fold(stretch(frames))

    def forward(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Give every layer, from shallow to deep.

        Args:
            image: (batch, 256, 256) as `to_image` makes it.

        Yields:
            "patch", "block1" and so on, "merge1" after the blocks of stage 1 and so on, and "norm", each with its tokens
            (batch, row, column, width). A block's tokens are those before the merging.
        """
        tokens = self.patch_embed(image)
        yield "patch", tokens
        n_blocks = 0
        for number, stage in enumerate(self._stages, start=1):
            for block in stage.blocks:
                tokens = block(tokens)
                n_blocks += 1
                yield f"block{n_blocks}", tokens
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
                yield f"merge{number}", tokens
        yield "norm", self.norm(tokens)

    def tag_steps(self, normed: Tensor) -> Tensor:
        """Compute the logits of the tags at each time step.

        Args:
            normed: (batch, row, column, width), the layer "norm".

        Returns:
            (batch, time step, class) logits.
        """
        maps = unfold(normed).permute(0, 3, 2, 1)  # (batch, width, band, time step)
        return self.tscam_conv(maps)[:, :, 0].transpose(1, 2)


def stretch(frames: Tensor) -> Tensor:
    """Stretch log-mels along time to 1024 frames, by bicubic interpolation with aligned corners.

    Args:
        frames: (batch, time, band), time at most 1024.

    Returns:
        (batch, 1024, band).

    Example:
        >>> stretch(torch.arange(3.0).view(1, 3, 1))[0, [0, -1], 0].tolist()
        [0.0, 2.0]
    """
    if frames.shape[1] == N_FRAMES:
        return frames
    size = (N_FRAMES, frames.shape[2])
    return nn.functional.interpolate(frames[:, None], size=size, mode="bicubic", align_corners=True)[:, 0]


def fold(frames: Tensor) -> Tensor:
    """Cut log-mels into 4 segments and stack these along frequency: (batch, 1024, band) -> (batch, 4 x band, 256).

    Example:
        >>> fold(torch.arange(1024.0).view(1, 1024, 1))[0, :, 0].tolist()
        [0.0, 256.0, 512.0, 768.0]
    """
    return frames.unflatten(1, (N_SEGMENTS, -1)).transpose(2, 3).flatten(1, 2)


def unfold(tokens: Tensor) -> Tensor:
    """Put the tokens of the segments in a row again.

    Args:
        tokens: (batch, row, column, width): row = segment x bands + band, column = time step in the segment.

    Returns:
        (batch, time step, band, width).

    Example:
        >>> unfold(torch.zeros(1, 8, 8, 768)).shape
        torch.Size([1, 32, 2, 768])
    """
    return tokens.unflatten(1, (N_SEGMENTS, -1)).transpose(2, 3).flatten(1, 2)


def index_positions(side: int = WINDOW) -> Tensor:
    """Find the row of the table of biases for each pair of tokens of a window.

    The row is (dy + side - 1) (2 side - 1) + dx + side - 1, where dy and dx lead from the second token to the first.

    Args:
        side: rows, and columns, of a window.

    Returns:
        (token, token) int64, from 0 to (2 side - 1)^2 - 1.

    Example:
        >>> index_positions(2).tolist()
        [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    """
    place = torch.arange(side * side)
    row, column = place // side, place % side
    return (row[:, None] - row + side - 1) * (2 * side - 1) + column[:, None] - column + side - 1


def build_shift_mask(side: int) -> Tensor:
    """Build what is added before the softmax in shifted windows: -100 between tokens that are not neighbours.

    Args:
        side: rows, and columns, of the image of tokens.

    Returns:
        (window, token, token).

    Example:
        >>> build_shift_mask(16).unique().tolist()
        [-100.0, -0.0]
    """
    line = torch.arange(side)
    zone = (line >= side - WINDOW).int() + (line >= side - SHIFT).int()
    zones = _to_windows((3 * zone[:, None] + zone)[None, :, :, None])[0, :, :, 0]  # (window, token)
    return MASKED * (zones[:, :, None] != zones[:, None, :]).float()


class _PatchNorm(nn.Module):
    """Patches of 4 x 4 pixels as tokens, and a LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, pixel row, pixel column) -> (batch, row, column, width)."""
        return self.norm(self.proj(image[:, None]).permute(0, 2, 3, 1))


class _Stage(nn.Module):
    """Blocks on images of one size, and the merging after them. The last stage has none."""

    def __init__(self, width: int, depth: int, n_heads: int, side: int, *, merges: bool) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(
            SwinBlock(width, n_heads, side if number % 2 and side > WINDOW else 0) for number in range(depth)
        )
        self.downsample = _Merging(width) if merges else None


class SwinBlock(nn.Module):
    """Attention within windows of 8 x 8 tokens, then a two-layer network, each behind a LayerNorm.

    Args:
        width: of a token.
        n_heads: of attention.
        shifted_side: rows of the image where the windows are shifted by 4 rows and columns; 0 if they are not.
    """

    def __init__(self, width: int, n_heads: int, shifted_side: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = WindowAttention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = Mlp(width, 4 * width)
        self.shift = SHIFT if shifted_side else 0
        self.mask: Tensor | None
        self.register_buffer("mask", build_shift_mask(shifted_side) if shifted_side else None, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, row, column, width) to the same."""
        side = tokens.shape[1]
        shifted = self.norm1(tokens)
        if self.shift:
            shifted = shifted.roll((-self.shift, -self.shift), dims=(1, 2))
        mixed = _from_windows(self.attn(_to_windows(shifted), self.mask), side)
        if self.shift:
            mixed = mixed.roll((self.shift, self.shift), dims=(1, 2))
        tokens = tokens + mixed
        return tokens + self.mlp(self.norm2(tokens))


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for each distance between two tokens."""

    index: Tensor

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.relative_position_bias_table = nn.Parameter(0.02 * torch.randn((2 * WINDOW - 1) ** 2, n_heads))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("index", index_positions(), persistent=False)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Map (batch, window, token, width) to the same; `mask` (window, token, token) is added before the softmax."""
        query, key, value = self.qkv(windows).unflatten(3, (3, self.n_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        # each (batch, window, head, token, width / n_heads)
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None]  # (1, head, token, token)
        if mask is not None:
            bias = bias + mask[:, None]  # (window, head, token, token)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(mixed.transpose(2, 3).flatten(3))


class _Merging(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=EPSILON)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, row, column, width) -> (batch, row / 2, column / 2, 2 x width)."""
        corners = [tokens[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]  # rows are fastest
        return self.reduction(self.norm(torch.cat(corners, dim=3)))


def _to_windows(tokens: Tensor) -> Tensor:
    """(batch, row, column, width) -> (batch, window, token, width)."""
    cut = tokens.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW))  # (batch, row, 8, column, 8, width)
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _from_windows(windows: Tensor, side: int) -> Tensor:
    """Inverse of `_to_windows`, for images of `side` rows."""
    cut = windows.unflatten(1, (side // WINDOW, -1)).unflatten(3, (WINDOW, WINDOW))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)
