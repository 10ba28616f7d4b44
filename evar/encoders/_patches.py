"""Patches hidden from a transformer in training: it is shown, and computes, only some of a clip's patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evar.encoders._vit import grid_of


@dataclass
class PatchOut:
    """Patches that are hidden from the network; new ones are drawn for every input.

    Attributes:
        time: share 0..1 of the columns of patches (stretches of time) that are hidden whole.
        frequency: share 0..1 of the rows of patches (frequency bands) that are hidden whole.
        generator: of the draws.

    Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout", Interspeech 2022: structured
        patchout; the numbers of rows and columns are the shares, rounded, and one of each is always left.
    """

    time: float
    frequency: float
    generator: torch.Generator

    def draw(self, n: int, n_frequencies: int, n_times: int) -> tuple[Tensor, Tensor]:
        """Rows and columns that the network sees, in ascending order.

        Args:
            n: inputs.
            n_frequencies, n_times: patches over frequency and time.

        Returns:
            rows (n, kept rows), columns (n, kept columns).

        Example:
            >>> hidden = PatchOut(time=0.5, frequency=0.25, generator=torch.Generator().manual_seed(0))
            >>> rows, columns = hidden.draw(2, n_frequencies=4, n_times=6)
            >>> tuple(rows.shape), tuple(columns.shape)
            ((2, 3), (2, 3))
        """
        # Not a decorator: it would bring a second of imports to everyone who only embeds.
        return torch.compiler.disable(self._draw)(n, n_frequencies, n_times)

    def _draw(self, n: int, n_frequencies: int, n_times: int) -> tuple[Tensor, Tensor]:
        kept = []
        for share, size in ((self.frequency, n_frequencies), (self.time, n_times)):
            n_kept = max(1, size - round(share * size))
            order = torch.rand(n, size, generator=self.generator).argsort(dim=1)
            kept.append(order[:, :n_kept].sort(dim=1).values)
        return kept[0], kept[1]


def keep_shown(tokens: Tensor, rows: Tensor, columns: Tensor, n_times: int) -> Tensor:
    """Keep the patches in the rows and columns that were drawn.

    Args:
        tokens: (n, frequency x time, feature), frequency major, time fastest.
        rows: (n, kept rows).
        columns: (n, kept columns).
        n_times: patches over time.

    Returns:
        (n, kept rows x kept columns, feature), in the same order.

    Example:
        >>> tokens = torch.arange(6.0).view(1, 6, 1)  # 2 bands of 3 times
        >>> keep_shown(tokens, torch.tensor([[1]]), torch.tensor([[0, 2]]), 3).flatten().tolist()
        [3.0, 5.0]
    """
    at = (rows[:, :, None] * n_times + columns[:, None, :]).flatten(1).to(tokens.device)  # (n, kept)
    return tokens.gather(1, at[:, :, None].expand(-1, -1, tokens.shape[2]))


def fill_hidden(tokens: Tensor, rows: Tensor, columns: Tensor, n_frequencies: int, n_times: int) -> Tensor:
    """Fill a whole grid again: a hidden patch takes the vector of the nearest row and column that was shown.

    Args:
        tokens: (n, kept rows x kept columns, feature), as `keep_shown` gives them.
        rows, columns: as there.
        n_frequencies, n_times: of the whole grid.

    Returns:
        (n, frequency x time, feature).

    Example:
        >>> fill_hidden(torch.tensor([[[3.0], [5.0]]]), torch.tensor([[1]]), torch.tensor([[0, 2]]), 2, 3).flatten().tolist()
        [3.0, 3.0, 5.0, 3.0, 3.0, 5.0]
    """
    near = [
        (torch.arange(size)[None, :, None] - kept[:, None, :]).abs().argmin(dim=2)  # (n, size)
        for kept, size in ((rows, n_frequencies), (columns, n_times))
    ]
    at = (near[0][:, :, None] * columns.shape[1] + near[1][:, None, :]).flatten(1).to(tokens.device)
    return tokens.gather(1, at[:, :, None].expand(-1, -1, tokens.shape[2]))


class PatchGrid:
    """The patches of windows over time and frequency, some of which may be hidden from the network.

    Args:
        tokens: (window, time x band, width) of all patches, with their positions.
        n_bands: patches over frequency.
        order: "time" or "frequency", as for `grid_of`.
        patch_out: draws the hidden patches; None hides nothing.

    Attributes:
        tokens: (window, token, width) that the network is shown.

    Example:
        >>> grid = PatchGrid(torch.zeros(2, 12, 8), n_bands=4, order="time", patch_out=None)
        >>> grid.lay_out(grid.tokens).shape
        torch.Size([2, 3, 4, 8])
    """

    def __init__(self, tokens: Tensor, n_bands: int, order: str, patch_out: PatchOut | None) -> None:
        self.tokens, self._order, self._kept = tokens, order, None
        self._n_bands, self._n_times = n_bands, tokens.shape[1] // n_bands
        if patch_out is not None:
            bands, times = patch_out.draw(len(tokens), n_bands, self._n_times)
            self._kept = (bands, times) if order == "frequency" else (times, bands)
            self.tokens = keep_shown(tokens, *self._kept, self._n_times if order == "frequency" else n_bands)

    def lay_out(self, tokens: Tensor) -> Tensor:
        """Tokens of a layer over time and frequency; hidden patches take the nearest that was shown.

        Args:
            tokens: (window, token, width), as many as `self.tokens`.

        Returns:
            (window, time, band, width).

        Example:
            >>> grid = PatchGrid(torch.arange(6.0).view(1, 6, 1), n_bands=2, order="time", patch_out=None)
            >>> grid.lay_out(grid.tokens)[0, :, :, 0].tolist()
            [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
        """
        if self._kept is not None:
            sizes = (self._n_bands, self._n_times) if self._order == "frequency" else (self._n_times, self._n_bands)
            tokens = fill_hidden(tokens, *self._kept, *sizes)
        return grid_of(tokens, self._n_bands, self._order)
