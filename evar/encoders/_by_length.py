"""Whole clips through a convolutional network: clips of one length go together, so that no clip sees another's length.

What lies beyond a clip's end would change the frames near the end of a shorter clip: pooling, strides and padding
depend on the length. Frames of different layers may come at different rates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def run_by_length(
    network: Callable[[Tensor], dict[str, Tensor]], frames: Tensor, lengths: Tensor, chunk_frames: int = 2**15
) -> dict[str, Tensor]:
    """Run a network on every clip at its own length.

    Args:
        network: (clips, frames, ...), all of one length -> layer name -> (clips, time step, feature).
        frames: (batch, time, ...) spectrograms, or samples.
        lengths: (batch,) frames of each clip, each >= 1.
        chunk_frames: frames, over all clips, that share a forward at most; bounds memory.

    Returns:
        layer name -> (batch, time step, feature), zeros beyond a clip's own time steps.

    Example:
        >>> halves = lambda x: {"halves": x[:, ::2]}
        >>> run_by_length(halves, torch.arange(8.0).reshape(2, 4, 1), torch.tensor([4, 1]))["halves"].squeeze(2).tolist()
        [[0.0, 2.0], [4.0, 0.0]]
    """
    if torch.jit.is_tracing():  # for `evar export`: clips are of one length, and nothing may depend on their number
        return network(frames[:, : lengths[0]])
    groups: dict[int, list[int]] = {}
    for clip, length in enumerate(lengths.tolist()):
        groups.setdefault(length, []).append(clip)
    parts: list[tuple[Tensor, dict[str, Tensor]]] = []
    for length, clips in groups.items():
        n_together = max(1, chunk_frames // length)
        for begin in range(0, len(clips), n_together):
            rows = torch.tensor(clips[begin : begin + n_together], device=frames.device)
            parts.append((rows, network(frames[rows, :length])))
    if len(parts) == 1:
        return parts[0][1]
    result = {}
    for name, first in parts[0][1].items():
        n_steps = max(outputs[name].shape[1] for _, outputs in parts)
        whole = first.new_zeros(len(lengths), n_steps, first.shape[2])
        for rows, outputs in parts:
            steps = outputs[name].shape[1]
            padded = torch.nn.functional.pad(outputs[name], (0, 0, 0, n_steps - steps))
            whole = whole.index_copy(0, rows, padded)
        result[name] = whole
    return result


def flatten_channels(maps: Tensor) -> Tensor:
    """Channels and frequencies as one axis: (clips, channel, frequency, time) -> (clips, time, feature).

    Frequency is fastest.

    Example:
        >>> flatten_channels(torch.zeros(2, 64, 16, 5)).shape
        torch.Size([2, 5, 1024])
    """
    return maps.flatten(1, 2).transpose(1, 2)


def standardise_clips(spectrogram: Tensor, floor: float = 0.0) -> Tensor:
    """Shift and scale each clip's whole spectrogram to mean 0 and sample deviation 1.

    Computed in float64, so that a constant spectrogram (silence) becomes exactly 0 and not amplified rounding.

    Args:
        spectrogram: (clips, time, band), all of one length.
        floor: added to the deviation.

    Returns:
        (clips, time, band) float32.

    Example:
        >>> standardise_clips(torch.tensor([[[1.0], [3.0]]])).flatten().tolist()
        [-0.7071067690849304, 0.7071067690849304]
    """
    values = spectrogram.double() if spectrogram.device.type != "mps" else spectrogram
    mean, std = values.mean(dim=(1, 2), keepdim=True), values.std(dim=(1, 2), keepdim=True)
    return ((values - mean) / (std + floor).clamp(min=1e-9)).float()
