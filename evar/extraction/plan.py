"""Decide which vectors are missing from the store before anything is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.audio.known_files import AudioIndex
from evar.audio.reading import RESAMPLER, AudioError, AudioInfo, ClipPolicy, clip_length, take_part
from evar.audio.segments import Segment, file_of
from evar.config.messages import progress_bar
from evar.encoders.pooling import count_pooled_features, describe_pooling
from evar.extraction.batching import in_batches
from evar.extraction.frame_request import FrameRequest
from evar.storage.feature_store import FeatureStore
from evar.storage.frame_store import FrameStore
from evar.storage.keys import FeatureKey, row_id
from evar.storage.segments import estimate_bytes

if TYPE_CHECKING:
    from evar.encoders.base import Encoder


#: batches of segments that are decoded together: clips of several lengths can then be batched with little padding
_BATCHES_A_PORTION = 2


@dataclass(frozen=True)
class Plan:
    """The work of a pass before it starts; `evar lineval --dry_run` prints it.

    Attributes:
        key: everything that can change the vectors.
        infos: (clips,) what each file holds, None for a bad clip.
        rows: (clips,) row ids, None for a bad clip.
        bad: position of a clip -> why it cannot be used.
        portions: batches that are decoded together, each of them the positions of its clips, over all clips, stored or not.
            A portion is one batch, but for segments: those of a few batches are read in the order of the file.
        todo: positions of one clip for each row that is not stored yet.
        audio_seconds: of the clips in `todo`.
        n_bytes: that their vectors will take on disk.
    """

    key: FeatureKey
    infos: list[AudioInfo | None]
    rows: list[str | None]
    bad: dict[int, str]
    portions: list[list[list[int]]]
    todo: set[int]
    audio_seconds: float
    n_bytes: int

    @property
    def batches(self) -> list[list[int]]:
        """Positions of the clips of each batch."""
        return [batch for portion in self.portions for batch in portion]


def feature_key(
    encoder: Encoder,
    policy: ClipPolicy,
    frames: FrameRequest | None = None,
    alteration: Mapping[str, Any] | None = None,
) -> FeatureKey:
    """Everything that can change a vector (or the frames) of this encoder under this clip policy.

    How a window was found is no part of it: rows are addressed by the audio and where the window starts, so that a random
    window which is the clip's head is encoded once.

    Args:
        encoder: as `load_encoder` gives it.
        policy: which part of a file is the clip.
        frames: which frames are kept; None stands for pooled vectors of all layers.
        alteration: what is done to the recordings first, as `evar.extraction.conditions.Condition.describe` says; None:
            nothing.

    Returns:
        The key that the store keeps the vectors under.

    Example:
        >>> from evar.encoders import load_encoder
        >>> key = feature_key(load_encoder("logmel"), ClipPolicy(seconds=5.0))
        >>> key.encoder, key.sample_rate, key.clip_seconds, list(key.layers)
        ('logmel', 16000, 5.0, ['logmel'])
    """
    return FeatureKey(
        encoder=encoder.store_name or encoder.name,
        weights_sha256=encoder.weights_sha256,
        options=dict(encoder.options),
        revision=encoder.revision,
        norm_stats=encoder.norm_stats,
        sample_rate=encoder.sample_rate,
        resampler=RESAMPLER,
        clip_seconds=policy.seconds,
        pad=policy.pad,
        crop="head",
        crop_seed=0,
        layers=frames.describe(encoder)
        if frames
        else {layer.name: f"{layer.width} {describe_pooling(layer.pooling)}" for layer in encoder.layer_infos},
        alteration=alteration,
    )


def plan(
    encoder: Encoder,
    paths: Sequence[Path | Segment],
    policy: ClipPolicy,
    store: FeatureStore,
    batch_size: int | None = None,
    frames: FrameRequest | None = None,
) -> Plan:
    """Look at every file's header and at the store; decode and encode nothing.

    Args:
        encoder: as `load_encoder` gives it.
        paths: (clips,) audio files, or segments of them.
        policy: which part of a file is the clip.
        store: where vectors live.
        batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.
        frames: which frames are to be kept, in place of pooled vectors of all layers.

    Returns:
        What is missing, in which batches it would be encoded, and what it would take.

    Example:
        >>> import tempfile
        >>> import soundfile
        >>> from evar.encoders import load_encoder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, store = Path(folder) / "clip.wav", FeatureStore(Path(folder) / "store")
        ...     soundfile.write(path, [0.0] * 8000, 16000)
        ...     missing = Path(folder) / "missing.wav"
        ...     found = plan(load_encoder("logmel"), [path, missing], ClipPolicy(seconds=None), store)
        ...     found.todo, list(found.bad), found.audio_seconds
        ({0}, [1], 0.5)
    """
    source = FrameStore.beside(store) if frames else store
    return make_plan(encoder, *inspect_clips(paths, store), policy, source, batch_size, frames)


def make_plan(
    encoder: Encoder,
    infos: list[AudioInfo | None],
    bad: dict[int, str],
    policy: ClipPolicy,
    store: FeatureStore,
    batch_size: int | None,
    frames: FrameRequest | None = None,
    alteration: Mapping[str, Any] | None = None,
) -> Plan:
    """Make a plan as `plan` does, for clips that were inspected already.

    Args:
        encoder, policy, batch_size, frames: as for `plan`.
        infos, bad: as `inspect_clips` gives them.
        store: of the vectors, or of the frames if `frames` are given.
        alteration: as for `feature_key`.

    Returns:
        As `plan`.
    """
    key = feature_key(encoder, policy, frames, alteration)
    rows: list[str | None] = [None if info is None else row_id(info, policy.window(info)[0]) for info in infos]
    stored = store.list_stored(key)
    lengths = [0 if info is None else clip_length(info, policy, encoder.sample_rate) for info in infos]
    first_of_row: dict[str, int] = {}
    for position, row in enumerate(rows):
        if row is not None:
            first_of_row.setdefault(row, position)
    portions = _plan_portions(encoder, list(first_of_row.values()), infos, rows, lengths, batch_size)
    todo = {position for row, position in first_of_row.items() if row not in stored}
    seconds = sum(lengths[position] for position in todo) / encoder.sample_rate
    n_bytes = (
        frames.n_bytes(encoder, [lengths[position] for position in sorted(todo)])
        if frames
        else vector_bytes(encoder, len(todo))
    )
    return Plan(key, infos, rows, bad, portions, todo, seconds, n_bytes)


def _plan_portions(
    encoder: Encoder,
    positions: list[int],
    infos: Sequence[AudioInfo | None],
    rows: Sequence[str | None],
    lengths: Sequence[int],
    batch_size: int | None,
) -> list[list[list[int]]]:
    """Batches, longest clips first; where there are segments, a few batches at a time, in the order of the files."""
    max_samples = max(1, int(encoder.batch_seconds * encoder.sample_rate))

    def make_batches(own: list[int]) -> list[list[int]]:
        order = sorted(own, key=lambda position: (-lengths[position], str(rows[position])))
        return in_batches(order, lengths, max_samples, batch_size=batch_size, equal_lengths=not encoder.batch_invariant)

    if not any(infos[position].part for position in positions):  # type: ignore[union-attr]
        return [[batch] for batch in make_batches(positions)]
    portions: list[list[int]] = []
    n_samples = 0
    for position in sort_by_place(positions, infos):
        if not portions or n_samples + lengths[position] > _BATCHES_A_PORTION * max_samples:
            portions.append([])
            n_samples = 0
        portions[-1].append(position)
        n_samples += lengths[position]
    return [make_batches(portion) for portion in portions]


def sort_by_place(positions: Iterable[int], infos: Sequence[AudioInfo | None]) -> list[int]:
    """Sort clips by their file, and within a file by where they begin.

    Args:
        positions: of the clips.
        infos: (clips,) what each file holds; None for a bad clip.

    Returns:
        The positions, sorted.

    Example:
        >>> infos = [AudioInfo("b", 9, 1), AudioInfo("a", 9, 1, part=(5, 2)), AudioInfo("a", 9, 1, part=(0, 5))]
        >>> sort_by_place([0, 1, 2], infos)
        [2, 1, 0]
    """

    def place(position: int) -> tuple[str, tuple[int, int], int]:
        info = infos[position]
        return ("", (0, 0), position) if info is None else (info.sha256, info.part or (0, 0), position)

    return sorted(positions, key=place)


def vector_bytes(encoder: Encoder, n_clips: int) -> int:
    """Estimate the disk space of the vectors of all layers of a number of clips, in bytes.

    Args:
        encoder: as `load_encoder` gives it.
        n_clips: that are to be stored.

    Returns:
        Bytes.

    Example:
        >>> from evar.encoders import load_encoder
        >>> vector_bytes(load_encoder("logmel"), 10)  # 128 numbers a clip
        5600
    """
    widths = {layer.name: count_pooled_features(layer.width, layer.pooling) for layer in encoder.layer_infos}
    return estimate_bytes(widths, n_clips)


def inspect_clips(
    paths: Sequence[Path | Segment], store: FeatureStore
) -> tuple[list[AudioInfo | None], dict[int, str]]:
    """Hash and header of every file, read only where the store's audio index does not know it.

    Args:
        paths: (clips,) audio files, or segments of them.
        store: its audio index is read first, and new files are added to it.

    Returns:
        (clips,) what each file holds, None for a bad clip; and position of a bad clip -> why it cannot be used.

    Example:
        >>> import tempfile
        >>> import soundfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "clip.wav"
        ...     soundfile.write(path, [0.0] * 8000, 16000)
        ...     infos, bad = inspect_clips([path, Path(folder) / "missing.wav"], FeatureStore(Path(folder) / "store"))
        ...     infos[0].n_samples, infos[1], list(bad)
        (8000, None, [1])
    """
    index = AudioIndex(store.folder)
    infos = index.lookup(paths)
    unknown: dict[Path, list[int]] = {}
    for position, info in enumerate(infos):
        if info is None:
            unknown.setdefault(file_of(paths[position]), []).append(position)
    files = list(unknown)
    bad: dict[int, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool_of_threads:
        bar = progress_bar(total=len(files), desc="reading headers", unit="file", delay=3, leave=False)
        for begin in range(0, len(files), 500):
            found = []
            futures = {file: pool_of_threads.submit(index.inspect, file) for file in files[begin : begin + 500]}
            for file, future in futures.items():
                try:
                    name, info = future.result()
                except AudioError as error:
                    bad |= dict.fromkeys(unknown[file], str(error))
                    continue
                found.append((name, info))
                for position in unknown[file]:
                    try:
                        infos[position] = take_part(info, paths[position])
                    except AudioError as error:
                        bad[position] = str(error)
            index.remember(found)
            bar.update(len(futures))
        bar.close()
    index.close()
    return infos, bad
