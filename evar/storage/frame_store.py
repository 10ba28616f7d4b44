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
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from evar.numeric.frames import Frames
from evar.storage.feature_store import FeatureStore
from evar.storage.keys import FeatureKey
from evar.storage.segments import SegmentWriter, make_safe_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

HALF_BYTES = 2


#: largest value that is stored without a factor; half precision ends at 65,504
_LARGEST = 6e4


#: what one clip costs beside its frames: its line in the commit record, and some for each layer
FRAME_ROW_BYTES, LAYER_BYTES = 40, 8


@dataclass(frozen=True)
class FramePlace:
    """Place of the frames of a clip.

    Attributes:
        segment: folder.
        starts, counts, exponents: of each layer: its first frame in the file, how many, and what they were divided by.
    """

    segment: Path
    starts: tuple[int, ...]
    counts: tuple[int, ...]
    exponents: tuple[int, ...]


class StoredFrames(Frames):
    """Frames in memory-mapped files.

    Args:
        widths: layer -> features of a frame, in the order of the commit record.
        places: (clips,) where each is; None for a clip that cannot be used; reading such a clip is an error.
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
        """Return the same clips with some layers of them."""
        some = copy.copy(self)
        some.widths = {name: self.widths[name] for name in layers}
        return some

    def __getitem__(self, rows: NDArray[np.int64]) -> StoredFrames:
        some = copy.copy(self)
        some._segment, some._told, some._n_clips = self._segment[rows], self._told[rows], len(rows)
        return some

    def join(self, positions: Sequence[int], layer: str) -> tuple[Tensor, Tensor]:
        """Join the frames of some clips: (frames of all, width) and (clips,) counts, as the base class says.

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
            halves[own] = self._open_file(int(segment), layer)[index[own]]
        values = torch.from_numpy(halves).float()
        if exponents.any():
            values *= torch.from_numpy(np.repeat(2.0**exponents, counts).astype(np.float32))[:, None]
        return values, torch.from_numpy(counts.copy())

    def _open_file(self, segment: int, layer: str) -> NDArray[np.float16]:
        if (segment, layer) not in self._mapped:
            file, width = self._segments[segment] / f"{layer}.f16", self.widths[layer]
            n_whole = file.stat().st_size // (HALF_BYTES * width)
            self._mapped[segment, layer] = np.memmap(file, dtype="<f2", mode="r", shape=(n_whole, width))
        return self._mapped[segment, layer]


class FrameStore(FeatureStore):
    """The feature store's folder, for frames: keys of their own beside those of pooled vectors."""

    @classmethod
    def beside(cls, store: FeatureStore) -> FrameStore:
        """Return the frames in the folder, or at the address, of a store of vectors."""
        return cls(store.mirror.address if store.mirror else store.folder)

    def places(self, key: FeatureKey) -> dict[str, FramePlace]:
        """Row id -> where its frames are. The first segment by name wins where two hold a row."""
        self.fetch(key)
        found: dict[str, FramePlace] = {}
        for folder in sorted(path.parent for path in self.key_folder(key).glob("segment-*/frames.json")):
            for row, place in list_committed_frames(folder):
                found.setdefault(row, place)
        return found

    def list_stored(self, key: FeatureKey) -> Collection[str]:
        """Row ids that are there."""
        return self.places(key)

    def wider(self, key: FeatureKey) -> set[str]:
        """Find the layers of a stored key that differs from this one only by having more layers; none if there is none."""
        if self.mirror:  # another machine may have stored them: the records are small
            self.mirror.fetch_named(make_safe_name(key.encoder), "key.json")
        own = json.loads(json.dumps(key.to_plain(), default=str))
        for record in sorted(self.key_folder(key).parent.glob("*/key.json")):
            told = json.loads(record.read_text(encoding="utf-8"))
            if {**told, "layers": own["layers"]} == own and own["layers"].items() <= told["layers"].items():
                return set(told["layers"])
        return set()

    def writer(self, key_folder: Path) -> SegmentWriter:
        """Make the writer that appends to a key."""
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
        record = self.open_files({layer: int(clips[0].shape[1]) for layer, clips in vectors.items()})
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


def list_committed_frames(segment: Path) -> list[tuple[str, FramePlace]]:
    """List the clips of whole batches whose frames are all on disk; a torn last line or a short file ends the list."""
    widths: dict[str, int] = json.loads((segment / "frames.json").read_text(encoding="utf-8"))
    try:
        lines = (segment / "rows.jsonl").read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
        n_whole = [(segment / f"{layer}.f16").stat().st_size // (HALF_BYTES * w) for layer, w in widths.items()]
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
