"""Frames of many clips, read in parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Frames:
    """Frames of some layers of some clips; only the batch that is needed is read.

    Slicing by row numbers gives the frames of these clips; nothing is read for it.

    Attributes:
        widths: layer -> features of a frame.
        periods: layer -> seconds from one frame to the next, where they are known; infinite for one vector a clip.
    """

    def __init__(self, widths: Mapping[str, int], n_clips: int, periods: Mapping[str, float] | None = None) -> None:
        self.widths, self.periods = dict(widths), dict(periods or {})
        self._n_clips = n_clips

    def __len__(self) -> int:
        return self._n_clips

    def __getitem__(self, rows: NDArray[np.int64]) -> Frames:
        raise NotImplementedError

    def join(self, positions: Sequence[int], layer: str) -> tuple[Tensor, Tensor]:
        """Return the frames of some clips one after another.

        Args:
            positions: of the clips.
            layer: name.

        Returns:
            (frames of all clips, width) float32, and (clips,) frame counts.
        """
        raise NotImplementedError

    def batch(self, positions: Iterable[int], layer: str) -> tuple[Tensor, Tensor]:
        """Return the frames of some clips as one padded array.

        Args:
            positions: of the clips, at least one.
            layer: name.

        Returns:
            (batch, time, width) float32 with zeros at the ends, and (batch,) frame counts.

        Example:
            >>> frames = FramesInMemory({"fc": [np.ones((3, 2)), np.ones((1, 2))]})
            >>> frames.batch([0, 1], "fc")[1].tolist()
            [3, 1]
        """
        frames, counts = self.join(list(positions), layer)
        longest = int(counts.max())
        if bool((counts == longest).all()):
            return frames.unflatten(0, (len(counts), longest)), counts
        padded = torch.zeros(len(counts), longest, frames.shape[1])
        padded[torch.arange(longest)[None, :] < counts[:, None]] = frames
        return padded, counts


class FramesInMemory(Frames):
    """Frames that are there already.

    Args:
        layers: name -> for each clip (time, width); the same clips in each.
        periods: name -> seconds of a frame.

    Raises:
        ValueError: if the layers have different numbers of clips, or there is none.

    Example:
        >>> frames = FramesInMemory({"fc": [np.ones((3, 2)), np.ones((1, 2))]})
        >>> batch, counts = frames[np.array([1, 0])].batch(range(2), "fc")
        >>> batch.shape, counts.tolist()
        (torch.Size([2, 3, 2]), [1, 3])
    """

    def __init__(self, layers: Mapping[str, Sequence[Any]], periods: Mapping[str, float] | None = None) -> None:
        n_clips = {len(clips) for clips in layers.values()}
        if len(n_clips) != 1 or n_clips == {0}:
            raise ValueError(f"frames need the same clips in each layer, and at least one, got {sorted(n_clips)}")
        self._layers = {
            name: [torch.as_tensor(np.asarray(clip), dtype=torch.float32) for clip in clips]
            for name, clips in layers.items()
        }
        widths = {name: clips[0].shape[1] for name, clips in self._layers.items()}
        super().__init__(widths, n_clips.pop(), periods)

    def __getitem__(self, rows: NDArray[np.int64]) -> Frames:
        return FramesInMemory(
            {name: [clips[row] for row in rows] for name, clips in self._layers.items()}, self.periods
        )

    def join(self, positions: Sequence[int], layer: str) -> tuple[Tensor, Tensor]:
        """Join the frames of some clips: (frames of all, width) and (clips,) counts, as the base class says."""
        clips = [self._layers[layer][position] for position in positions]
        return torch.cat(clips), torch.tensor([len(clip) for clip in clips])
