"""Which frames of a layer a probe needs, and how frames are averaged over stretches of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evar.storage.frame_store import FRAME_ROW_BYTES, HALF_BYTES, LAYER_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder


@dataclass(frozen=True)
class FrameRequest:
    """Which frames a probe wants.

    Attributes:
        layers: names, shallow to deep.
        seconds: a stored frame is the mean of the encoder's frames within so long; 0 keeps each. A layer whose hop is
            longer keeps its own.
        limit_bytes: more are not stored.
    """

    layers: tuple[str, ...]
    seconds: float
    limit_bytes: float = math.inf

    def stride(self, encoder: Encoder, layer: str) -> int:
        """Return how many frames of a layer become one.

        Args:
            encoder: that has the layer.
            layer: its name.

        Returns:
            Frames, at least 1.

        Example:
            >>> from evar.encoders import load_encoder
            >>> FrameRequest(("logmel",), seconds=0.05).stride(load_encoder("logmel"), "logmel")  # frames every 10 ms
            5
        """
        hop = encoder.layer(layer).hop
        return max(1, round(self.seconds * encoder.sample_rate / hop)) if hop else 1

    def period(self, encoder: Encoder, layer: str) -> float:
        """Return the seconds from one stored frame to the next.

        Args:
            encoder: that has the layer.
            layer: its name.

        Returns:
            Seconds; infinite for layers of one vector a clip.

        Example:
            >>> from evar.encoders import load_encoder
            >>> FrameRequest(("logmel",), seconds=0.05).period(load_encoder("logmel"), "logmel")
            0.05
        """
        hop = encoder.layer(layer).hop
        return self.stride(encoder, layer) * hop / encoder.sample_rate if hop else math.inf

    def describe(self, encoder: Encoder) -> dict[str, str]:
        """Describe each layer as the key of the store does.

        Args:
            encoder: that has the layers.

        Returns:
            Layer -> width, stride and number format in words.

        Example:
            >>> from evar.encoders import load_encoder
            >>> FrameRequest(("logmel",), seconds=0.05).describe(load_encoder("logmel"))
            {'logmel': '64 frames, mean of 5, float16'}
        """
        return {
            name: f"{encoder.layer(name).width} frames, mean of {self.stride(encoder, name)}, float16"
            for name in self.layers
        }

    def n_bytes(self, encoder: Encoder, lengths: Sequence[int]) -> int:
        """Return the disk space that the frames of some clips take.

        Args:
            encoder: that has the layers.
            lengths: (clips,) samples of each clip at the encoder's rate.

        Returns:
            Bytes of the frames of all layers in half precision, with what each row adds.

        Example:
            >>> from evar.encoders import load_encoder
            >>> FrameRequest(("logmel",), seconds=0.05).n_bytes(load_encoder("logmel"), [16000])  # 21 frames of 64
            2736
        """
        if not lengths:
            return 0
        valid = encoder.valid_frames(torch.tensor(lengths, dtype=torch.int64).clamp(min=encoder.min_samples))
        total = len(lengths) * (FRAME_ROW_BYTES + LAYER_BYTES * len(self.layers))
        for name in self.layers:
            of_layer = valid if isinstance(valid, Tensor) else valid[name]
            n_frames = int(torch.ceil(of_layer / self.stride(encoder, name)).sum())
            total += n_frames * encoder.layer(name).width * HALF_BYTES
        return total

    def take(self, encoder: Encoder, waveform: Tensor, lengths: Tensor) -> dict[str, list[NDArray[np.float32]]]:
        """Encode one batch, and average its frames over stretches of time.

        Args:
            encoder: in eval mode, on its device.
            waveform: (batch, samples) at the encoder's rate.
            lengths: (batch,) samples of each clip.

        Returns:
            Layer -> one array (time, width) for each clip.

        Example:
            >>> from evar.encoders import load_encoder
            >>> request = FrameRequest(("logmel",), seconds=0.05)
            >>> frames = request.take(load_encoder("logmel"), torch.zeros(2, 16000), torch.tensor([16000, 8000]))
            >>> [clip.shape for clip in frames["logmel"]]
            [(21, 64), (11, 64)]
        """
        with torch.inference_mode():
            features = encoder.encode(waveform, lengths)
            found: dict[str, list[NDArray[np.float32]]] = {}
            for name in self.layers:
                stride = self.stride(encoder, name)
                found[name] = [
                    mean_of_stretches(clip[: int(n)], stride).float().cpu().numpy()
                    for clip, n in zip(features[name], features.frames[name], strict=True)
                ]
        return found


def mean_of_stretches(frames: Tensor, stride: int) -> Tensor:
    """Average each `stride` frames in turn, and the rest: (time, feature) -> (time / stride rounded up, feature).

    Args:
        frames: (time, feature).
        stride: frames that become one, at least 1.

    Returns:
        (time / stride rounded up, feature).

    Example:
        >>> mean_of_stretches(torch.tensor([[1.0], [3.0], [9.0]]), 2).tolist()
        [[2.0], [9.0]]
    """
    if stride == 1:
        return frames
    n_whole = len(frames) // stride
    means = [frames[: n_whole * stride].unflatten(0, (n_whole, stride)).mean(dim=1)] if n_whole else []
    if n_whole * stride < len(frames):
        means.append(frames[n_whole * stride :].mean(dim=0, keepdim=True))
    return torch.cat(means)
