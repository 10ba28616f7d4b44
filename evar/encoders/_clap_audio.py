"""Shared parts of the audio halves of CLAP: pieces of a fixed length, which short clips fill by repetition, and projections.

A piece is what the networks were trained on: 10 s (LAION-CLAP), 7 s and 5 s (MS-CLAP 2023 and 2022). The authors cut longer
clips at random; here nothing is cut off: a long clip becomes several pieces, whose vectors are averaged by their duration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evar.encoders._windows import cut_waveform

FILLS = ("whole", "cyclic")


class SumProjection(nn.Module):
    """MS-CLAP's projection: a linear layer, and what a second one adds to it, behind a LayerNorm.

    Args:
        n_in: width of what is projected.
        n_out: width of the shared space.

    Example:
        >>> SumProjection(4, 2)(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(n_in, n_out, bias=False)
        self.linear2 = nn.Linear(n_out, n_out, bias=False)
        self.layer_norm = nn.LayerNorm(n_out)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (batch, n_in) to (batch, n_out)."""
        first = self.linear1(vectors)
        return self.layer_norm(first + self.linear2(nn.functional.gelu(first)))


def two_layers(n_in: int, n_out: int) -> nn.Sequential:
    """LAION-CLAP's projection: two linear layers with a ReLU between them.

    Example:
        >>> list(two_layers(4, 2).state_dict())
        ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    return nn.Sequential(nn.Linear(n_in, n_out), nn.ReLU(), nn.Linear(n_out, n_out))


def fill_piece(samples: Tensor, n_samples: int, fill: str) -> Tensor:
    """Make a piece as long as the network takes it.

    Args:
        samples: (samples,) of a piece, at least one and at most n_samples.
        n_samples: of a whole piece.
        fill: "whole": as many whole copies as fit, then zeros (LAION-CLAP); "cyclic": copies, the last one cut (MS-CLAP).

    Returns:
        (n_samples,).

    Example:
        >>> fill_piece(torch.tensor([1.0, 2.0]), 5, "whole").tolist()
        [1.0, 2.0, 1.0, 2.0, 0.0]
        >>> fill_piece(torch.tensor([1.0, 2.0]), 5, "cyclic").tolist()
        [1.0, 2.0, 1.0, 2.0, 1.0]
    """
    if fill == "cyclic":
        return samples.repeat(-(-n_samples // len(samples)))[:n_samples]
    copies = samples.repeat(n_samples // len(samples))
    return nn.functional.pad(copies, (0, n_samples - len(copies)))


def run_pieces(
    network: Callable[[Tensor], dict[str, Tensor]],
    waveform: Tensor,
    lengths: Tensor,
    *,
    piece: int,
    fill: str,
    at_once: int,
    least: int = 1,
) -> dict[str, Tensor]:
    """Run a network on the pieces of every clip, and average its outputs by the pieces' durations.

    Args:
        network: (pieces, samples) of one length -> name -> (pieces, width).
        waveform: (batch, samples), zero beyond each clip's length.
        lengths: (batch,) valid samples.
        piece: samples of a whole piece.
        fill: as for `fill_piece`; "" leaves short pieces as they are.
        at_once: pieces that share a forward.
        least: samples that the last of several pieces must have; a shorter rest makes the piece before it begin later,
            so that the last piece is a whole one that ends where the clip ends.

    Returns:
        name -> (batch, 1, width).

    Example:
        >>> sums = lambda pieces: {"sum": pieces.sum(dim=1, keepdim=True)}
        >>> clips, lengths = torch.ones(2, 6), torch.tensor([6, 2])
        >>> run_pieces(sums, clips, lengths, piece=4, fill="cyclic", at_once=8)["sum"].flatten().tolist()
        [4.0, 4.0]
    """
    pieces, sizes, counts = cut_waveform(waveform, lengths, piece)
    rows = [row[:size] for row, size in zip(pieces, sizes.tolist(), strict=True)]
    end = 0
    for clip, count in enumerate(counts.tolist()):
        end += count
        if count > 1 and len(rows[end - 1]) < least:
            length = int(lengths[clip])
            rows[end - 1] = waveform[clip, length - piece : length]
    if fill:
        rows = [fill_piece(row, piece, fill) for row in rows]
    found: dict[str, list[Tensor]] = {}
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    groups: list[list[int]] = []
    for at in order:
        if not groups or len(groups[-1]) == at_once or len(rows[groups[-1][0]]) != len(rows[at]):
            groups.append([])
        groups[-1].append(at)
    for group in groups:
        for name, value in network(torch.stack([rows[at] for at in group])).items():
            found.setdefault(name, []).append(value)
    places = torch.tensor([at for group in groups for at in group]).argsort().to(waveform.device)
    shares = torch.cat([own.float() / own.sum() for own in sizes.split(counts.tolist())]).to(waveform.device)
    clips = torch.repeat_interleave(torch.arange(len(counts)), counts.cpu()).to(waveform.device)
    averaged = {}
    for name, parts in found.items():
        value = torch.cat(parts)[places] * shares[:, None]
        averaged[name] = value.new_zeros(len(counts), value.shape[1]).index_add(0, clips, value)[:, None]
    return averaged
