"""A task's clips as waveforms at the encoder's rate, decoded once into one memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import RESAMPLER, AudioError, AudioInfo, ClipPolicy, read_clip
from evar.audio.segments import Segment
from evar.audio.sound_pool import SoundPool
from evar.config.messages import progress_bar
from evar.extraction.plan import inspect_clips
from evar.storage.atomic import remove_dead_parts, write_atomic
from evar.storage.feature_store import FeatureStore

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from evar.data.task import Task

#: whole files are kept, so that training clips can start anywhere; of longer ones, this many times the clip's length
LONGEST = 4.0


@dataclass(frozen=True)
class Waveforms:
    """Decoded clips.

    Attributes:
        samples: (all samples,) float32, memory-mapped; clip after clip.
        starts: (clips + 1,) where each clip begins.
        bad: position of a clip -> why it cannot be used.
        clip_samples: of a clip's window at the encoder's rate, or None for whole files.
        pads: whether shorter clips are padded to that.
    """

    samples: NDArray[np.float32]
    starts: NDArray[np.int64]
    bad: dict[int, str]
    clip_samples: int | None
    pads: bool

    def batch(
        self, clips: Sequence[int] | NDArray[np.int64], starts: NDArray[np.float64] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Put clips into one batch.

        Args:
            clips: positions.
            starts: (clips,) where in each file its window begins, as a share 0..1 of where it could; None: at the head.

        Returns:
            Waveform (batch, samples) float32 and lengths (batch,).
        """
        import torch

        parts = []
        for at, clip in enumerate(clips):
            first, last = int(self.starts[clip]), int(self.starts[clip + 1])
            if self.clip_samples is not None and last - first > self.clip_samples:
                spare = last - first - self.clip_samples
                first += 0 if starts is None else int(starts[at] * (spare + 1))
                last = first + self.clip_samples
            parts.append(self.samples[first:last])
        lengths = [self.clip_samples if self.pads and self.clip_samples else len(part) for part in parts]
        waveform = torch.zeros(len(parts), max(lengths))
        for row, part in zip(waveform, parts, strict=True):
            row[: len(part)] = torch.from_numpy(np.array(part))
        return waveform, torch.tensor(lengths)


def decode_task(task: Task, sample_rate: int, folder: Path) -> Waveforms:
    """Decode every clip, or find the waveforms that an earlier run decoded.

    Args:
        task: whose clips.
        sample_rate: Hz of the encoder.
        folder: where the file is kept; it is named by all that it depends on.

    Raises:
        OSError: if it does not fit on the disk.
    """
    clip_seconds = task.config.clip_seconds
    seconds = None if clip_seconds is None else LONGEST * clip_seconds
    policy = ClipPolicy(seconds)
    # By content: a file that was replaced by one of its size and time must not give the old waveform.
    infos, unreadable = inspect_clips(task.paths, FeatureStore(folder.parent))
    contents = [info.content_id if info else None for info in infos]
    identity = [task.name, task.index_sha256, sample_rate, RESAMPLER, seconds, contents]
    stem = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    data, index = folder / f"{task.name}-{stem}.f32", folder / f"{task.name}-{stem}.json"
    remove_dead_parts(folder)
    found = _read_index(index, data)
    if found is None:
        _decode_clips(task, infos, unreadable, policy, sample_rate, data, index)
        found = json.loads(index.read_text(encoding="utf-8"))
    samples = np.memmap(data, np.float32, "r") if data.stat().st_size else np.zeros(0, np.float32)
    clip_samples = None if clip_seconds is None else round(clip_seconds * sample_rate)
    bad_clips = {int(position): reason for position, reason in found["bad"].items()}
    return Waveforms(samples, np.array(found["starts"]), bad_clips, clip_samples, task.config.pad == "zero_end")


def _read_index(index: Path, data: Path) -> dict[str, Any] | None:
    """Read the index that an earlier run wrote beside the waveforms; None if it is missing, damaged, or a file is short."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
        is_whole = data.stat().st_size == 4 * int(found["starts"][-1]) and isinstance(found["bad"], dict)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return found if is_whole else None


def _decode_clips(
    task: Task,
    infos: Sequence[AudioInfo | None],
    unreadable: Mapping[int, str],
    policy: ClipPolicy,
    sample_rate: int,
    data: Path,
    index: Path,
) -> None:
    """Decode every clip into one file, and say where each begins in another; the second is written last."""

    sounds = SoundPool()
    turns = {
        position: sounds.book(path.file)
        for position, path in enumerate(task.paths)
        if isinstance(path, Segment) and infos[position] is not None
    }

    def read(position: int) -> NDArray[np.float32] | str:
        info = infos[position]
        if info is None:
            return unreadable[position]
        try:
            extra = (sounds, turns[position]) if position in turns else ()
            return read_clip(task.paths[position], info, policy, sample_rate, *extra)
        except (AudioError, OSError) as error:
            return str(error)

    data.parent.mkdir(parents=True, exist_ok=True)
    starts: list[int] = [0]
    bad: dict[str, str] = {}
    part = data.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file, sounds, ThreadPoolExecutor(os.cpu_count()) as pool:
            clips = pool.map(read, range(len(task)))
            bar = progress_bar(clips, f"decode {task.name}", len(task), unit="clip", leave=False)
            for position, clip in enumerate(bar):
                if isinstance(clip, str):
                    bad[str(position)] = clip
                else:
                    file.write(np.ascontiguousarray(clip, np.float32).tobytes())
                starts.append(file.tell() // 4)
        os.replace(part, data)
    except OSError as error:
        raise OSError(
            f"the waveforms of {task.name} cannot be written to {data.parent} ({error}); free some space, or name another "
            "disk with --store"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    write_atomic(index, json.dumps({"starts": starts, "bad": bad}).encode())
