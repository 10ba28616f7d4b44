"""The patch transformer that the spectrogram encoders share, and the small functions around it.

An encoder builds `PatchEmbed` and `Blocks` under the names of the published files (`patch_embed.proj.weight`,
`blocks.0.attn.qkv.weight`), so that most checkpoints load without renaming. What differs between families is an option:
where the normalisation stands, its epsilon, the activation, the scale of the residual, biases, layer scale. `Blocks` gives
the output of every block. Tables of positions, the order of the tokens and the frequency bands are pure functions.

A spectrogram is (batch, time, band). An image is (batch, row, column): families differ in whether a row is a band (image =
spectrogram transposed, tokens "frequency-major, time fastest") or a time step (image = spectrogram, "time-major").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evar.config.registry import near_miss

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}
NORMS = ("pre", "post")


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each to a token.

    Args:
        width: of a token.
        patch: (rows, columns) of a patch.
        stride: (rows, columns) between patches; None: the patch itself, without overlap.
        bias: whether the projection adds one.

    Example:
        >>> PatchEmbed(8, (16, 16))(torch.zeros(2, 80, 100)).shape  # 5 x 6 patches; 4 columns are left over
        torch.Size([2, 30, 8])
    """

    def __init__(
        self, width: int, patch: tuple[int, int], stride: tuple[int, int] | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, patch, stride=stride or patch, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, row, column) to (batch, patch rows x patch columns, width), columns fastest."""
        return self.proj(image[:, None]).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values (thirds of its rows, in that order).

    A family whose bias depends on the query, as BEATs' gate does, overrides `make_bias`; one that biases only some of the
    three, as MSM-MAE does, overrides `project`.

    Args:
        width: of a token.
        n_heads: each of width / n_heads numbers.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(self, width: int, n_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Mix the tokens.

        Args:
            tokens: (batch, token, width).
            bias: broadcastable to (batch, head, query, key), added to the scaled products of queries and keys before
                the softmax: a relative position, or -inf where a key is padding; a boolean mask is True where a key
                takes part.

        Returns:
            (batch, token, width).
        """
        query, key, value = self.project(tokens).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        # each (batch, head, token, width / n_heads)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=self.make_bias(query, bias))
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def project(self, tokens: Tensor) -> Tensor:
        """Map (batch, token, width) to (batch, token, 3 x width): queries, keys and values."""
        return self.qkv(tokens)

    def make_bias(self, query: Tensor, bias: Tensor | None) -> Tensor | None:
        """Return the numbers that are added before the softmax: the given bias, for queries (batch, head, query, width)."""
        return bias


class Mlp(nn.Module):
    """Two linear maps with an activation between."""

    def __init__(self, width: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"no activation {activation!r}; {near_miss(activation, ACTIVATIONS)}")
        self.fc1 = nn.Linear(width, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        return self.fc2(self.act(self.fc1(tokens)))


@dataclass(frozen=True)
class BlockOptions:
    """Settings that all blocks of a family share, beside their width and their number of heads.

    Attributes:
        hidden: units of the two-layer network; None: 4 x width.
        norm: "pre" or "post".
        eps: of LayerNorm.
        activation: "gelu" (with the error function), "relu" or "silu".
        qkv_bias: see `Attention`.
        residual_scale: factor of the residual stream; DeepNorm: (2 x blocks) ** 0.25.
        layer_scale: first value of a learned factor for each feature of both branches; None for no such factor.
        attention: class to build in place of `Attention`, with the same arguments.
    """

    hidden: int | None = None
    norm: str = "pre"
    eps: float = 1e-6
    activation: str = "gelu"
    qkv_bias: bool = True
    residual_scale: float = 1.0
    layer_scale: float | None = None
    attention: type[Attention] = Attention


class Block(nn.Module):
    """One block: attention, then a two-layer network, each added to the residual stream.

    norm="pre": x = r x + s1 attn(norm1(x)); x = r x + s2 mlp(norm2(x)). norm="post": x = norm1(r x + s1 attn(x)); x =
    norm2(r x + s2 mlp(x)). r is `residual_scale` (DeepNorm's alpha), s1 and s2 are the layer scales `ls1`, `ls2`.

    Args:
        width: of a token.
        n_heads: of attention.
        **options: the fields of `BlockOptions`.

    Raises:
        ValueError: if the norm or the activation is another.

    Source: Dosovitskiy et al., ICLR 2021 (pre-norm); Vaswani et al., NeurIPS 2017 (post-norm); Wang et al., "DeepNet",
        2022 (residual scale); Touvron et al., ICCV 2021 (layer scale).
    """

    def __init__(self, width: int, n_heads: int, **options: Any) -> None:
        super().__init__()
        own = BlockOptions(**options)
        if own.norm not in NORMS:
            raise ValueError(f"no norm {own.norm!r}; {near_miss(own.norm, NORMS)}")
        self.norm, self.residual_scale = own.norm, own.residual_scale
        self.norm1 = nn.LayerNorm(width, eps=own.eps)
        self.attn = own.attention(width, n_heads, qkv_bias=own.qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=own.eps)
        self.mlp = Mlp(width, own.hidden or 4 * width, own.activation)
        scale = own.layer_scale
        scales = [None if scale is None else nn.Parameter(torch.full((width,), scale)) for _ in range(2)]
        self.ls1, self.ls2 = scales

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map (batch, token, width) to the same; `bias` as in `Attention.forward`."""
        if self.norm == "pre":
            tokens = self._sum(tokens, self.attn(self.norm1(tokens), bias), self.ls1)
            return self._sum(tokens, self.mlp(self.norm2(tokens)), self.ls2)
        tokens = self.norm1(self._sum(tokens, self.attn(tokens, bias), self.ls1))
        return self.norm2(self._sum(tokens, self.mlp(tokens), self.ls2))

    def _sum(self, residual: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
        if scale is not None:
            branch = branch * scale
        return (residual if self.residual_scale == 1.0 else residual * self.residual_scale) + branch


class Blocks(nn.ModuleList):
    """A stack of equal blocks; calling it yields the output of every block, the first one first.

    Args:
        n_blocks: how many.
        width, n_heads: of each `Block`.
        **options: the fields of `BlockOptions`.

    Example:
        >>> [output.shape for output in Blocks(2, 8, 2)(torch.zeros(1, 3, 8))]
        [torch.Size([1, 3, 8]), torch.Size([1, 3, 8])]
    """

    def __init__(self, n_blocks: int, width: int, n_heads: int, **options: Any) -> None:
        super().__init__(Block(width, n_heads, **options) for _ in range(n_blocks))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Iterator[Tensor]:
        """Compute each block's output, (batch, token, width); `bias` as in `Attention.forward`, for every block."""
        for block in self:
            tokens = block(tokens, bias)
            yield tokens


def count_patches(size: int, patch: int, stride: int | None = None) -> int:
    """Count the patches that fit into `size` rows or columns; a rest at the end belongs to no patch.

    Example:
        >>> count_patches(100, 16), count_patches(128, 16, 10)
        (6, 12)
    """
    return (size - patch) // (stride or patch) + 1


def with_first(first: Tensor, tokens: Tensor) -> Tensor:
    """Tokens of the whole clip (cls, dist) before those of the patches.

    Args:
        first: (1, n, width), the same for every clip.
        tokens: (batch, token, width).

    Returns:
        (batch, n + token, width).

    Example:
        >>> with_first(torch.ones(1, 1, 2), torch.zeros(3, 4, 2)).shape
        torch.Size([3, 5, 2])
    """
    return torch.cat([first.expand(tokens.shape[0], -1, -1), tokens], dim=1)


def grid_of(tokens: Tensor, n_bands: int, order: str) -> Tensor:
    """Tokens laid out over time and frequency.

    Args:
        tokens: (batch, time x band, width), without tokens of the whole clip.
        n_bands: patches over frequency.
        order: "time" (time-major: all bands of the first time step come first) or "frequency" (all time steps of the
            lowest band come first).

    Returns:
        (batch, time, band, width).

    Raises:
        ValueError: if the order is another.

    Example:
        >>> tokens = torch.arange(6.0).view(1, 6, 1)  # 3 time steps of 2 bands
        >>> grid_of(tokens, 2, "time")[0, :, :, 0].tolist(), grid_of(tokens, 2, "frequency")[0, :, :, 0].tolist()
        ([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]])
    """
    if order == "time":
        return tokens.unflatten(1, (-1, n_bands))
    if order == "frequency":
        return tokens.unflatten(1, (n_bands, -1)).transpose(1, 2)
    raise ValueError(f"no order {order!r}; {near_miss(order, ('time', 'frequency'))}")


def sincos_table(n_rows: int, n_columns: int, width: int, n_first: int = 1) -> Tensor:
    """Make the fixed two-dimensional table of positions of masked autoencoders.

    Args:
        n_rows, n_columns: of the image's patches; columns are fastest.
        width: of a token, a multiple of 4.
        n_first: rows of zeros in front, for tokens of the whole clip.

    Returns:
        (1, n_first + n_rows x n_columns, width) float32. The first half of a row encodes the column, the second half the
        row of the patch, each as [sin(p w_j), j = 0..width/4 - 1 | cos(p w_j)] with w_j = 10000^(-j / (width/4)).

    Source: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.

    Example:
        >>> sincos_table(5, 38, 768).shape
        torch.Size([1, 191, 768])
    """
    quarter = width // 4
    row, column = np.divmod(np.arange(n_rows * n_columns), n_columns)
    rates = 10000.0 ** (-np.arange(quarter) / quarter)
    halves = [wave(np.outer(position, rates)) for position in (column, row) for wave in (np.sin, np.cos)]
    table = np.concatenate([np.zeros((n_first, width)), np.concatenate(halves, axis=1)])
    return torch.from_numpy(table).float()[None]


def sinusoid_table(n_positions: int, width: int) -> Tensor:
    """Return the fixed one-dimensional table of positions of the first transformer, sines and cosines in turn.

    Returns:
        (1, n_positions, width) float32: feature 2j is sin(n w_j), feature 2j + 1 is cos(n w_j), w_j = 10000^(-2j / width).

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5.

    Example:
        >>> [round(value, 4) for value in sinusoid_table(2, 4)[0, 1].tolist()]
        [0.8415, 0.5403, 0.01, 0.9999]
    """
    rates = np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = np.outer(np.arange(n_positions), rates)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(n_positions, width)
    return torch.from_numpy(table).float()[None]


def first_columns(table: Tensor, n_rows: int, n_columns: int, n_first: int = 1) -> Tensor:
    """Cut a table of positions for a shorter clip: the first columns of every row, not the first entries of the list.

    Args:
        table: (1, n_first + n_rows x stored columns, width), columns fastest.
        n_rows: of the grid.
        n_columns: to keep, at most the number that is stored.
        n_first: entries for tokens of the whole clip, which stay.

    Returns:
        (1, n_first + n_rows x n_columns, width).

    Raises:
        ValueError: if more columns are wanted than are stored.

    Example:
        >>> table = torch.arange(7.0).view(1, 7, 1)  # cls, then 2 rows of 3 columns
        >>> first_columns(table, 2, 2).flatten().tolist()
        [0.0, 1.0, 2.0, 4.0, 5.0]
    """
    grid = table[:, n_first:].unflatten(1, (n_rows, -1))  # (1, row, column, width)
    if n_columns > grid.shape[2]:
        raise ValueError(f"the table of positions has {grid.shape[2]} columns, but {n_columns} are needed; use windows")
    return torch.cat([table[:, :n_first], grid[:, :, :n_columns].flatten(1, 2)], dim=1)


def resize_table(table: Tensor, stored: tuple[int, int], n_rows: int, n_columns: int, n_first: int = 2) -> Tensor:
    """Fit a table of positions to another grid: the centre of its columns, or stretched; its rows stretched.

    Args:
        table: (1, n_first + rows x columns, width), columns fastest.
        stored: (rows, columns) of the table.
        n_rows, n_columns: of the new grid.
        n_first: entries for tokens of the whole clip, which stay.

    Returns:
        (1, n_first + n_rows x n_columns, width): the centre columns where fewer are needed, else bilinear interpolation
        over the columns (corners not aligned); after that bilinear interpolation over the rows.

    Source: Gong et al., "SSAST", AAAI 2022, and its authors' code: columns first, rows after.

    Example:
        >>> table = torch.arange(6.0).view(1, 6, 1)  # 1 row of 6 columns
        >>> resize_table(table, (1, 6), 1, 3, n_first=0).flatten().tolist()
        [2.0, 3.0, 4.0]
        >>> resize_table(table, (1, 6), 2, 6, n_first=0).flatten().tolist() == 2 * table.flatten().tolist()
        True
    """
    grid = table[:, n_first:].transpose(1, 2).unflatten(2, stored)  # (1, width, row, column)
    if n_columns < stored[1]:
        begin = stored[1] // 2 - n_columns // 2
        grid = grid[:, :, :, begin : begin + n_columns]
    elif n_columns > stored[1]:
        grid = nn.functional.interpolate(grid, size=(stored[0], n_columns), mode="bilinear")
    if n_rows != stored[0]:
        grid = nn.functional.interpolate(grid, size=(n_rows, n_columns), mode="bilinear")
    return torch.cat([table[:, :n_first], grid.flatten(2).transpose(1, 2)], dim=1)


def join_qkv(state: Mapping[str, Tensor], attention: str = "self_attn", joined: str = "attn") -> dict[str, Tensor]:
    """Put separate matrices of queries, keys and values, (width, width) each, into one (3 x width, width) for `Attention`.

    Args:
        state: tensor name -> tensor, with "<attention>.q_proj.weight" and the like and "<attention>.out_proj.*".
        attention: its name in the published file.
        joined: what it is called here: "<joined>.qkv.weight", "<joined>.proj.weight".

    Returns:
        The same tensors, under new names where they belong to attention. A q_proj without its k_proj and v_proj stays
        as it is, so that the loader names it.

    Example:
        >>> state = {f"0.self_attn.{part}_proj.bias": torch.ones(2) for part in ("q", "k", "v", "out")}
        >>> {name: tuple(value.shape) for name, value in join_qkv(state).items()}
        {'0.attn.qkv.bias': (6,), '0.attn.proj.bias': (2,)}
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        before, found, after = name.rpartition(f"{attention}.")
        part, _, kind = after.partition(".")
        names = [f"{before}{found}{letter}_proj.{kind}" for letter in "qkv"]
        if found and part in ("q_proj", "k_proj", "v_proj") and all(other in state for other in names):
            if part == "q_proj":
                result[f"{before}{joined}.qkv.{kind}"] = torch.cat([state[other] for other in names])
        elif found and part == "out_proj":
            result[f"{before}{joined}.proj.{kind}"] = tensor
        else:
            result[name] = tensor
    return result
