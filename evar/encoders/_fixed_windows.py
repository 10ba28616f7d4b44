"""Clips of any length for networks that hear windows of one length, with a frame rate for each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Network = Callable[[Tensor], dict[str, Tensor]]

#: frames that replace the one vector of a window, so that a last window that is partly filled counts by its share
VECTOR_FRAMES = 10


def list_windows(length: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Begin and own samples of every window of a clip; a window owns what lies before the next one begins.

    Args:
        length: samples of the clip, >= 1.
        window: samples that the network hears at once; what lies beyond the clip is zeros.
        hop: samples from one window to the next, at most `window`.

    Returns:
        (begin, own samples) of each; no sample of the clip is left out.

    Example:
        >>> list_windows(25, 10, 10), list_windows(10, 10, 10), list_windows(16, 10, 5)
        ([(0, 10), (10, 10), (20, 5)], [(0, 10)], [(0, 5), (5, 5), (10, 6)])
    """
    n_windows = 1 + max(0, -(-(length - window) // hop))
    last = (n_windows - 1) * hop
    return [(number * hop, hop) for number in range(n_windows - 1)] + [(last, length - last)]


def count_frames(length: int, window: int, hop: int, frames: int) -> int:
    """Count the frames of a whole clip.

    Args:
        length, window, hop: as for `list_windows`.
        frames: of a full window.

    Example:
        >>> count_frames(25, 10, 10, frames=4)
        10
    """
    return sum(-(-frames * own // window) for _, own in list_windows(length, window, hop))


def run_fixed_windows(
    network: Network,
    waveform: Tensor,
    lengths: Tensor,
    *,
    window: int,
    hop: int,
    frames: Mapping[str, int],
    chunk: int,
) -> dict[str, Tensor]:
    """Run a network on every window of every clip, and put each window's own frames in a row.

    Args:
        network: (n, window) samples -> layer name -> (n, time, feature). One time step belongs to the whole window.
        waveform: (batch, samples).
        lengths: (batch,) samples of each clip.
        window, hop: as for `list_windows`.
        frames: layer name -> frames of a full window.
        chunk: windows that share a forward at most.

    Returns:
        layer name -> (batch, time, feature), zeros beyond a clip's own.

    Example:
        >>> means = lambda x: {"mean": x.mean(1)[:, None, None]}
        >>> out = run_fixed_windows(means, torch.ones(1, 3), torch.tensor([3]), window=2, hop=2, frames={"mean": 2}, chunk=8)
        >>> out["mean"].flatten().tolist()
        [1.0, 1.0, 0.5]
    """
    if torch.jit.is_tracing():
        return _run_equal_clips(network, waveform, list_windows(int(lengths[0]), window, hop), window, frames)
    places = [
        (clip, begin, own)
        for clip, length in enumerate(lengths.tolist())
        for begin, own in list_windows(length, window, hop)
    ]
    rows: dict[str, list[list[Tensor]]] = {name: [[] for _ in lengths] for name in frames}
    for first in range(0, len(places), chunk):
        part = places[first : first + chunk]
        packed = waveform.new_zeros(len(part), window)
        for row, (clip, begin, _) in enumerate(part):
            heard = waveform[clip, begin : min(begin + window, int(lengths[clip]))]
            packed[row, : len(heard)] = heard
        outputs = network(packed)
        for name, total in frames.items():
            value = outputs[name]
            if value.shape[1] == 1:
                value = value.expand(-1, total, -1)
            for row, (clip, _, own) in enumerate(part):
                rows[name][clip].append(value[row, : -(-total * own // window)])
    return {
        name: nn.utils.rnn.pad_sequence([torch.cat(parts) for parts in clips], batch_first=True)
        for name, clips in rows.items()
    }


def _run_equal_clips(
    network: Network, waveform: Tensor, windows: list[tuple[int, int]], window: int, frames: Mapping[str, int]
) -> dict[str, Tensor]:
    """Do the same for clips of one length, whose number nothing may depend on: for `evar export`."""
    parts: dict[str, list[Tensor]] = {name: [] for name in frames}
    for begin, own in windows:
        heard = waveform[:, begin : begin + window]
        outputs = network(nn.functional.pad(heard, (0, window - int(heard.shape[1]))))
        for name, total in frames.items():
            value = outputs[name]
            if value.shape[1] == 1:
                value = value.expand(-1, total, -1)
            parts[name].append(value[:, : -(-total * own // window)])
    return {name: torch.cat(values, dim=1) for name, values in parts.items()}
