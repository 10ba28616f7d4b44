"""Frame-local networks: run them on the valid frames of all clips at once, so that padding costs nothing.

A frame-local encoder cuts each clip into frames that the network never compares. Packing the frames of clips of any
lengths into one batch lets no clip see another's length, and the network is never run on padding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def pack(frames: Tensor, counts: Tensor) -> Tensor:
    """Join the valid frames of all clips, one after the other.

    Args:
        frames: (batch, time, ...), such as a view made by `Tensor.unfold`; only what is kept is copied.
        counts: (batch,) valid frames of each clip, 1..time.

    Returns:
        (n_frames, ...), n_frames = counts.sum().

    Example:
        >>> pack(torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]]), torch.tensor([2, 1])).tolist()
        [[1.0], [2.0], [3.0]]
    """
    if torch.jit.is_tracing():  # for `evar export`: clips are of one length, and nothing may depend on their number
        return frames[:, : counts[0]].flatten(0, 1)
    return frames[_valid(counts, frames.shape[1])]


def unpack(packed: Tensor, counts: Tensor) -> Tensor:
    """Inverse of `pack`: (n_frames, feature) and (batch,) -> (batch, time, feature), zeros beyond a clip's frames.

    Example:
        >>> unpack(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 1])).tolist()
        [[[1.0], [2.0]], [[3.0], [0.0]]]
    """
    if torch.jit.is_tracing():
        return packed.reshape(counts.shape[0], -1, packed.shape[1])
    n_frames = int(counts.max())
    if packed.shape[0] == len(counts) * n_frames:
        return packed.reshape(len(counts), n_frames, -1)
    frames = packed.new_zeros(len(counts), n_frames, packed.shape[1])
    return frames.masked_scatter(_valid(counts, n_frames)[:, :, None], packed)


def in_chunks(network: Callable[[Tensor], dict[str, Tensor]], packed: Tensor, chunk: int) -> dict[str, Tensor]:
    """Run the network on `chunk` frames at a time: its widest activation then stays small for any input.

    Args:
        network: (n, ...) -> layer name -> (n, feature).
        packed: (n_frames, ...).
        chunk: frames per call, >= 1.

    Returns:
        layer name -> (n_frames, feature).

    Example:
        >>> in_chunks(lambda frames: {"doubled": 2 * frames}, torch.arange(3.0)[:, None], chunk=2)["doubled"].tolist()
        [[0.0], [2.0], [4.0]]
    """
    if torch.jit.is_tracing():
        return network(packed)
    parts = [network(part) for part in packed.split(chunk)]
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def as_count(value: Tensor) -> int:
    """Return a count as a number; in a trace it stays a tensor, so that it follows the length of the clip.

    Example:
        >>> as_count(torch.tensor(3))
        3
    """
    return value if torch.jit.is_tracing() else int(value)  # type: ignore[return-value]


def count_missing(size: int, least: int) -> int:
    """Return how many samples or frames are missing; in a trace, where sizes are tensors, it follows the clip's length.

    Example:
        >>> count_missing(3, 5), count_missing(7, 5)
        (2, 0)
    """
    if torch.jit.is_tracing():
        return torch.as_tensor(least - size).clamp(min=0)  # type: ignore[return-value]
    return max(0, least - size)


def _valid(counts: Tensor, n_frames: int) -> Tensor:
    """(batch, time) True at each clip's valid frames."""
    return torch.arange(n_frames, device=counts.device)[None, :] < counts[:, None]
