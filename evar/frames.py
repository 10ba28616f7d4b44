"""Frames of layers in half precision, kept only for probes that pool over time themselves.

Pooled vectors of a clip take kilobytes, its frames megabytes: so they are stored only for a protocol that asks for them, of
the layers that it probes, as means over short stretches of time, and never above a limit. The layout is that of the feature
store, one segment a run, the commit record last::

    <encoder>/<digest>/<segment>/frames.json     layer -> width
    <encoder>/<digest>/<segment>/rows.jsonl      one line a batch: [row id, frames of each layer, exponent of each layer]
    <encoder>/<digest>/<segment>/<layer>.f16     (frames of all clips, width) float16, little-endian

A clip's values are divided by 2 to the power of its exponent, which is 0 unless they leave the range of half precision.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evar.store import FeatureKey, FeatureStore, SegmentWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder

_HALF_BYTES = 2
#: largest value that is stored as it is; half precision ends at 65,504
_LARGEST = 6e4
#: what one clip costs beside its frames: its line in the commit record, and some for each layer
_ROW_BYTES, _LAYER_BYTES = 40, 8


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
        """Frames of that layer which become one, at least 1."""
        hop = encoder.layer(layer).hop
        return max(1, round(self.seconds * encoder.sample_rate / hop)) if hop else 1

    def period(self, encoder: Encoder, layer: str) -> float:
        """Seconds from one stored frame to the next; infinite for layers of one vector a clip."""
        hop = encoder.layer(layer).hop
        return self.stride(encoder, layer) * hop / encoder.sample_rate if hop else math.inf

    def described(self, encoder: Encoder) -> dict[str, str]:
        """What the key of the store says of each layer.

        Of a layer with stride 5: "256 frames, mean of 5, float16".
        """
        return {
            name: f"{encoder.layer(name).width} frames, mean of {self.stride(encoder, name)}, float16"
            for name in self.layers
        }

    def n_bytes(self, encoder: Encoder, lengths: Sequence[int]) -> int:
        """Disk that the frames of clips of so many samples take."""
        if not lengths:
            return 0
        valid = encoder.valid_frames(torch.tensor(lengths, dtype=torch.int64).clamp(min=encoder.min_samples))
        total = len(lengths) * (_ROW_BYTES + _LAYER_BYTES * len(self.layers))
        for name in self.layers:
            of_layer = valid if isinstance(valid, Tensor) else valid[name]
            n_frames = int(torch.ceil(of_layer / self.stride(encoder, name)).sum())
            total += n_frames * encoder.layer(name).width * _HALF_BYTES
        return total

    def taken(self, encoder: Encoder, waveform: Tensor, lengths: Tensor) -> dict[str, list[NDArray[np.float32]]]:
        """Encode one batch: layer -> for each clip (time, width), means over stretches of time."""
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
    """Means of `stride` frames in turn, the last of what is left: (time, feature) -> (time / stride rounded up, feature).

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


@dataclass(frozen=True)
class FramePlace:
    """Where the frames of a clip are.

    Attributes:
        segment: folder.
        starts, counts, exponents: of each layer: its first frame in the file, how many, and what they were divided by.
    """

    segment: Path
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    exponents: tuple[int, ...]


class Frames:
    """Frames of some layers of some clips, read when a batch of them is asked for.

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

    def joined(self, positions: Sequence[int], layer: str) -> tuple[Tensor, Tensor]:
        """Frames of some clips one after another: (frames of all, width) float32, and (clips,) frame counts."""
        raise NotImplementedError

    def batch(self, positions: Iterable[int], layer: str) -> tuple[Tensor, Tensor]:
        """Frames of some clips: (batch, time, width) float32 with zeros at the ends, and (batch,) frame counts."""
        frames, counts = self.joined(list(positions), layer)
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

    def joined(self, positions: Sequence[int], layer: str) -> tuple[Tensor, Tensor]:
        """As the base class says."""
        clips = [self._layers[layer][position] for position in positions]
        return torch.cat(clips), torch.tensor([len(clip) for clip in clips])


class StoredFrames(Frames):
    """Frames in memory-mapped files.

    Args:
        widths: layer -> features of a frame, in the order of the commit record.
        places: (clips,) where each is; None for a clip that cannot be used, which nobody may ask for.
        periods: layer -> seconds of a frame.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        places: Sequence[FramePlace | None],
        periods: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(widths, len(places), periods)
        self._stored = list(widths)
        self._segments = sorted({place.segment for place in places if place})
        number = {segment: at for at, segment in enumerate(self._segments)}
        nothing = (0,) * len(widths)
        self._segment = np.array([number[place.segment] if place else -1 for place in places])  # (clips,)
        told = [(p.starts, p.counts, p.exponents) if p else (nothing,) * 3 for p in places]
        self._told = np.array(told, np.int64).reshape(len(places), 3, len(widths))  # (clips, what of a place, layer)
        self._mapped: dict[tuple[int, str], NDArray[np.float16]] = {}

    def of_layers(self, layers: Sequence[str]) -> StoredFrames:
        """The same clips, some layers of them."""
        some = copy.copy(self)
        some.widths = {name: self.widths[name] for name in layers}
        return some

    def __getitem__(self, rows: NDArray[np.int64]) -> StoredFrames:
        some = copy.copy(self)
        some._segment, some._told, some._n_clips = self._segment[rows], self._told[rows], len(rows)
        return some

    def joined(self, positions: Sequence[int], layer: str) -> tuple[Tensor, Tensor]:
        """As the base class says.

        Raises:
            KeyError: for a clip that has no frames.
        """
        segments = self._segment[positions]
        if (segments < 0).any():
            raise KeyError(f"clip {positions[int(segments.argmin())]} has no frames: it could not be read or encoded")
        starts, counts, exponents = self._told[positions, :, self._stored.index(layer)].T  # (clips,) each
        ends = counts.cumsum()
        index = np.arange(ends[-1]) + np.repeat(starts - ends + counts, counts)  # rows of the files
        owners = np.repeat(segments, counts)
        halves = np.empty((len(index), self.widths[layer]), np.float16)
        for segment in np.unique(segments):
            own = owners == segment
            halves[own] = self._file(int(segment), layer)[index[own]]
        values = torch.from_numpy(halves).float()
        if exponents.any():
            values *= torch.from_numpy(np.repeat(2.0**exponents, counts).astype(np.float32))[:, None]
        return values, torch.from_numpy(counts.copy())

    def _file(self, segment: int, layer: str) -> NDArray[np.float16]:
        if (segment, layer) not in self._mapped:
            file, width = self._segments[segment] / f"{layer}.f16", self.widths[layer]
            n_whole = file.stat().st_size // (_HALF_BYTES * width)
            self._mapped[segment, layer] = np.memmap(file, dtype="<f2", mode="r", shape=(n_whole, width))
        return self._mapped[segment, layer]


class FrameStore(FeatureStore):
    """The feature store's folder, for frames: keys of their own beside those of pooled vectors."""

    @classmethod
    def beside(cls, store: FeatureStore) -> FrameStore:
        """Frames in the folder, or at the address, of a store of vectors."""
        return cls(store.mirror.address if store.mirror else store.folder)

    def places(self, key: FeatureKey) -> dict[str, FramePlace]:
        """Row id -> where its frames are. The first segment by name wins where two hold a row."""
        self.fetch(key)
        found: dict[str, FramePlace] = {}
        for folder in sorted(path.parent for path in self.key_folder(key).glob("segment-*/frames.json")):
            for row, place in committed_frames(folder):
                found.setdefault(row, place)
        return found

    def stored(self, key: FeatureKey) -> Collection[str]:
        """Row ids that are there."""
        return self.places(key)

    def wider(self, key: FeatureKey) -> set[str]:
        """Layers of a key that differs from this one by having more layers, if one is stored; else none."""
        own = json.loads(json.dumps(dataclasses.asdict(key), default=str))
        for record in sorted(self.key_folder(key).parent.glob("*/key.json")):
            told = json.loads(record.read_text(encoding="utf-8"))
            if {**told, "layers": own["layers"]} == own and own["layers"].items() <= told["layers"].items():
                return set(told["layers"])
        return set()

    def writer(self, key_folder: Path) -> SegmentWriter:
        """What appends to a key."""
        return FrameWriter(key_folder)


class FrameWriter(SegmentWriter):
    """Appends batches of frames to one segment; each batch is there wholly or not at all."""

    suffix, about = "f16", "frames.json"

    def append(self, rows: Sequence[str], vectors: Mapping[str, Any]) -> None:
        """Store one batch.

        Args:
            rows: (clips,) row ids.
            vectors: layer -> for each clip (time, width) float32, the same layers in every batch.
        """
        if not rows:
            return
        record = self.opened({layer: int(clips[0].shape[1]) for layer, clips in vectors.items()})
        counts: list[list[int]] = [[] for _ in rows]
        exponents: list[list[int]] = [[] for _ in rows]
        for layer, clips in vectors.items():
            parts = []
            for at, clip in enumerate(clips):
                largest = float(np.abs(clip).max())
                exponent = max(0, math.ceil(math.log2(largest / _LARGEST))) if largest > _LARGEST else 0
                parts.append(np.ldexp(clip, -exponent).astype("<f2").tobytes())
                counts[at].append(len(clip))
                exponents[at].append(exponent)
            self.write(layer, b"".join(parts))
        record([[row, counts[at], exponents[at]] for at, row in enumerate(rows)])


def committed_frames(segment: Path) -> list[tuple[str, FramePlace]]:
    """Clips of whole batches whose frames are all on disk; a torn last line or a short file ends the list."""
    widths: dict[str, int] = json.loads((segment / "frames.json").read_text(encoding="utf-8"))
    try:
        lines = (segment / "rows.jsonl").read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
        n_whole = [(segment / f"{layer}.f16").stat().st_size // (_HALF_BYTES * w) for layer, w in widths.items()]
    except FileNotFoundError:
        return []
    found: list[tuple[str, FramePlace]] = []
    starts = [0] * len(widths)
    for line in lines:
        try:
            batch = json.loads(line)
        except ValueError:
            break
        places = []
        for row, counts, exponents in batch:
            places.append((row, FramePlace(segment, tuple(starts), tuple(counts), tuple(exponents))))
            starts = [start + count for start, count in zip(starts, counts, strict=True)]
        if any(start > n for start, n in zip(starts, n_whole, strict=True)):
            break
        found += places
    return found
