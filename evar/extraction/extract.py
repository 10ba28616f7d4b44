"""One pass: decode each clip once, encode it once, pool every layer, keep the vectors.

Decoding and resampling run in threads ahead of the encoder (libsndfile and soxr release the interpreter lock). Clips are
sorted by length and batched by seconds of audio, so that padding is small; an encoder whose vectors depend on padding or
batch-mates (`batch_invariant = False`) gets batches of equal length only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import AudioError, ClipPolicy, read_clip
from evar.audio.segments import Segment
from evar.audio.sound_pool import SoundPool
from evar.config.messages import progress_bar, tell
from evar.encoders.pooling import pool
from evar.extraction.batching import by_length, decode_ahead, keep_float32, pad_clips
from evar.extraction.frame_request import FrameRequest
from evar.extraction.freed_memory import keep_freed_memory
from evar.extraction.loudness import LoudClips
from evar.extraction.plan import Plan, inspect_clips, make_plan, sort_by_place
from evar.numeric.device import describe_device
from evar.storage.costs import EncodingCost, append_cost
from evar.storage.feature_store import FeatureStore
from evar.storage.frame_store import FrameStore
from evar.storage.keys import FeatureKey
from evar.storage.segments import SegmentWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder


@dataclass
class Extraction:
    """Result of a pass over the clips.

    Attributes:
        key: everything that can change the vectors.
        rows: (clips,) row id of each clip, or None for a clip that could not be used.
        bad: position of a clip -> why it could not be used.
        n_encoded, n_stored: clips encoded now, and found in the store.
        audio_seconds, seconds: audio encoded now, and wall time that it took.
        encode_seconds: the part of this time that the encoder and the pooling took.
    """

    key: FeatureKey
    rows: list[str | None]
    bad: dict[int, str] = field(default_factory=dict)
    n_encoded: int = 0
    n_stored: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0
    encode_seconds: float = 0.0


def extract(
    encoder: Encoder,
    paths: Sequence[Path | Segment],
    policy: ClipPolicy,
    store: FeatureStore,
    batch_size: int | None = None,
    label: str = "",
) -> Extraction:
    """Make sure that every clip's vectors of every layer are in the store.

    What is stored already is neither decoded nor encoded. A clip that cannot be read, or of which no layer is finite,
    is named in `bad`; the others go on. If only one layer of a clip is not finite, its vector is stored unchanged.

    Args:
        encoder: in eval mode, on its device.
        paths: (clips,) audio files, or segments of them.
        policy: which part of a file is the clip.
        store: where vectors live.
        batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.
        label: text before the progress bar.

    Returns:
        The row ids to load vectors by, the bad clips, and what it took.

    Raises:
        OSError: if the vectors would not fit on the disk.

    Example:
        >>> import tempfile
        >>> import soundfile
        >>> from evar.encoders import load_encoder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, store = Path(folder) / "clip.wav", FeatureStore(Path(folder) / "store")
        ...     soundfile.write(path, np.zeros(8000), 16000)
        ...     result = extract(load_encoder("logmel"), [path], ClipPolicy(seconds=None), store)
        ...     result.n_encoded, result.bad, store.load(result.key, result.rows, "logmel").shape
        (1, {}, (1, 128))
    """
    return extract_each(encoder, [encoder.norm_stats], paths, policy, store, batch_size, label)[0]


def extract_each(
    encoder: Encoder,
    norm_stats: Sequence[tuple[float, float] | None],
    paths: Sequence[Path | Segment],
    policy: ClipPolicy,
    store: FeatureStore,
    batch_size: int | None = None,
    label: str = "",
    frames: FrameRequest | None = None,
) -> list[Extraction]:
    """`extract` under several input statistics: every clip is decoded once, and encoded once for each.

    Args:
        encoder, paths, policy, store, batch_size, label: as for `extract`.
        norm_stats: distinct (mean, std), or None alone for an encoder without.
        frames: which frames to keep, in place of pooled vectors of all layers.

    Returns:
        One for each of `norm_stats`, in their order; `seconds` is that of all together.

    Raises:
        OSError: if the vectors would not fit on the disk, or the frames exceed their limit.
    """
    began = time.perf_counter()
    store = FrameStore.beside(store) if frames else store
    infos, bad = inspect_clips(paths, store)
    targets = []
    for stats in norm_stats:
        with encoder.normalising_by(stats):
            planned = make_plan(encoder, infos, bad, policy, store, batch_size, frames)
        targets.append(Target(stats, planned, Extraction(planned.key, list(planned.rows), dict(planned.bad))))
    wanting = sorted((target for target in targets if target.planned.todo), key=lambda target: target.result.key.digest)
    if wanting:
        n_bytes = sum(target.planned.n_bytes for target in wanting)
        if frames:
            _announce_frames(frames, n_bytes, sum(len(target.planned.todo) for target in wanting), store, label)
        require_space(store, n_bytes, label)
        with ExitStack() as locks:
            for target in wanting:  # locks are taken in one order everywhere: two runs never wait for each other
                target.writer = locks.enter_context(store.writing(target.result.key))
                stored = store.list_stored(target.result.key)  # another run may have stored some in the meantime
                target.todo = {p for p in target.planned.todo if target.planned.rows[p] not in stored}
            locks.enter_context(keep_freed_memory())
            _encode(encoder, paths, policy, wanting, label, frames)
            if not frames:
                record_costs(encoder, wanting, store)
        for target in wanting:
            drop_failed(target.result, store.list_stored(target.result.key))
    for target in targets:
        target.result.n_stored = sum(row is not None for row in target.result.rows) - target.result.n_encoded
        target.result.seconds = time.perf_counter() - began
    return [target.result for target in targets]


@dataclass
class Target:
    """Vectors under one pair of input statistics: the clips to encode, and the place where their vectors go.

    Attributes:
        norm_stats: (mean, std) of the encoder's input, or None.
        planned: what is stored and what is not.
        result: filled while clips are encoded.
        writer: to the store, while its key is locked.
        todo: positions of the clips to encode.
    """

    norm_stats: tuple[float, float] | None
    planned: Plan
    result: Extraction
    writer: SegmentWriter | None = None
    todo: set[int] = field(default_factory=set)


def record_costs(encoder: Encoder, targets: Sequence[Target], store: FeatureStore) -> None:
    """Write beside the vectors what encoding them took; a disk that takes no such file stops nothing.

    Args:
        encoder: that encoded them.
        targets: whose vectors were encoded now.
        store: that holds them; the keys are locked.
    """
    device, threads = describe_device(next((one.device for one in encoder.parameters()), "cpu"))
    for target in targets:
        found = target.result
        if found.n_encoded and found.audio_seconds > 0:
            cost = EncodingCost(found.encode_seconds, found.audio_seconds, found.n_encoded, device, threads)
            with suppress(OSError):
                append_cost(store.key_folder(found.key), cost)


def drop_failed(result: Extraction, stored: Collection[str]) -> None:
    """Take out the rows of files that failed at another place of the index.

    Args:
        result: of a pass.
        stored: row ids that are in the store after it.

    Example:
        >>> from types import SimpleNamespace
        >>> result = SimpleNamespace(rows=["a@0", "b@0"], bad={})
        >>> drop_failed(result, {"a@0"})
        >>> result.rows, result.bad
        (['a@0', None], {1: 'the same audio failed at another place of the index'})
    """
    for position, row in enumerate(result.rows):
        if row is not None and row not in stored:
            result.rows[position] = None
            result.bad.setdefault(position, "the same audio failed at another place of the index")


def require_space(store: FeatureStore, n_bytes: int, label: str) -> None:
    """Refuse to begin what cannot end.

    Args:
        store: that the vectors go to; its folder need not be there yet.
        n_bytes: that they take.
        label: begins the message; "" stands for "extraction".

    Raises:
        OSError: if `n_bytes` exceed the free space of the store's disk.

    Example:
        >>> require_space(FeatureStore("store"), 10**24, "logmel x esc50")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        OSError: logmel x esc50 needs about 1e+15 GB under store, but ... GB are free; choose another ...
    """
    folder = store.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise OSError(
            f"{label or 'extraction'} needs about {n_bytes / 1e9:.3g} GB under {store.folder}, but {free / 1e9:.3g} GB "
            "are free; choose another disk with --store or free some with `evar store prune`"
        )


def _announce_frames(frames: FrameRequest, n_bytes: int, n_clips: int, store: FeatureStore, label: str) -> None:
    """Say what frames will take before the first is made.

    Raises:
        OSError: if it is more than the limit.
    """
    text = (
        f"{label or 'extraction'}: frames of {len(frames.layers)} layers of {n_clips} clips take {n_bytes / 1e9:.2f} GB"
    )
    if n_bytes > frames.limit_bytes:
        raise OSError(
            f"{text}, more than --frames_gb={frames.limit_bytes / 1e9:g}; probe fewer layers (--layers=NAME,NAME), or allow "
            "more"
        )
    tell(f"{text} (half precision) under {store.folder}")


def _encode(
    encoder: Encoder,
    paths: Sequence[Path | Segment],
    policy: ClipPolicy,
    targets: Sequence[Target],
    label: str,
    frames: FrameRequest | None,
) -> None:
    keep_float32()
    infos = targets[0].planned.infos
    wanted = set().union(*(target.todo for target in targets))
    portions = _choose_wanted(targets[0].planned, wanted)
    pool, turns = SoundPool(), {}

    def list_readings() -> Iterator[list[int]]:
        for portion in portions:
            clips = [position for batch in portion for position in batch]
            clips = sort_by_place(clips, infos) if any(isinstance(paths[p], Segment) for p in clips) else clips
            turns.update({p: pool.book(path.file) for p in clips if isinstance(path := paths[p], Segment)})
            yield clips

    def decode(position: int) -> NDArray[np.float32]:
        info = infos[position]
        assert info is not None
        extra = (pool, turns.pop(position)) if info.part else ()
        return read_clip(paths[position], info, policy, encoder.sample_rate, *extra)

    loud = LoudClips()
    bar = progress_bar(total=len(wanted), desc=label or encoder.name, unit="clip", smoothing=0.1, mininterval=0.5)
    with pool:
        for portion, (read, futures) in zip(portions, decode_ahead(list_readings(), decode), strict=True):
            clips: dict[int, NDArray[np.float32]] = {}
            for position, future in zip(read, futures, strict=True):
                try:
                    clips[position] = future.result()
                    loud.look(paths[position], clips[position])
                except AudioError as error:
                    for target in targets:
                        mark_bad(target.result, position, str(error))
            for batch in portion:
                for target in targets:
                    own = {p: clips[p] for p in batch if p in clips and p in target.todo}
                    encode_batch(encoder, target, own, frames)
                bar.update(len(batch))
    bar.close()
    if text := loud.describe():
        tell(f"{label or encoder.name}: {text}")


def _choose_wanted(planned: Plan, wanted: Collection[int]) -> list[list[list[int]]]:
    """The portions of a plan without the clips that are stored."""
    portions = [[[p for p in batch if p in wanted] for batch in portion] for portion in planned.portions]
    portions = [[batch for batch in portion if batch] for portion in portions]
    return [portion for portion in portions if portion]


def encode_batch(
    encoder: Encoder, target: Target, clips: dict[int, NDArray[np.float32]], frames: FrameRequest | None
) -> None:
    """Encode decoded clips under the target's input statistics, and store the finite vectors.

    Args:
        encoder: in eval mode, on its device.
        target: a plan with its input statistics, whose writer is open.
        clips: position of a clip -> (samples,) float32 at the encoder's rate.
        frames: also store frames; None for vectors only.
    """
    assert target.writer is not None
    for positions in [list(clips)] if encoder.batch_invariant else by_length(clips):
        if not positions:
            continue
        with encoder.normalising_by(target.norm_stats):
            batch = [clips[position] for position in positions]
            began = time.perf_counter()
            vectors: Mapping[str, Any] = (
                frames.take(encoder, *pad_clips(batch)) if frames else _encode_vectors(encoder, batch)
            )
            target.result.encode_seconds += time.perf_counter() - began
        by_layer = [np.array([bool(np.isfinite(clip).all()) for clip in value]) for value in vectors.values()]
        # A layer that is not finite costs the rows that read it, and no other; frames are read of few layers only.
        finite = np.logical_and.reduce(by_layer) if frames else np.logical_or.reduce(by_layer)
        for position in np.array(positions)[~finite]:
            mark_bad(target.result, int(position), "the encoder's output is not finite")
        kept = [position for position, ok in zip(positions, finite, strict=True) if ok]
        target.writer.append(
            [str(target.planned.rows[position]) for position in kept],
            {layer: _select_clips(value, finite) for layer, value in vectors.items()},
        )
        target.result.n_encoded += len(kept)
        target.result.audio_seconds += sum(len(clips[p]) for p in kept) / encoder.sample_rate


def _select_clips(value: Any, kept: NDArray[np.bool_]) -> Any:
    """Vectors (clips, width), or a list of frames, of some clips."""
    return [clip for clip, ok in zip(value, kept, strict=True) if ok] if isinstance(value, list) else value[kept]


def mark_bad(result: Extraction, position: int, reason: str) -> None:
    """Note that a clip cannot be used.

    Args:
        result: of a pass; it is changed.
        position: of the clip.
        reason: one sentence.

    Example:
        >>> from types import SimpleNamespace
        >>> result = SimpleNamespace(rows=["a@0", "b@0"], bad={})
        >>> mark_bad(result, 1, "the file is empty")
        >>> result.rows, result.bad
        (['a@0', None], {1: 'the file is empty'})
    """
    result.bad[position] = reason
    result.rows[position] = None


def _encode_vectors(encoder: Encoder, clips: list[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Encode one batch and pool every layer: layer -> (clips, width) float32."""
    import torch

    with torch.inference_mode():
        features = encoder.encode(*pad_clips(clips))
        return {
            layer.name: pool(features[layer.name], features.frames[layer.name], layer.pooling).float().cpu().numpy()
            for layer in encoder.layer_infos
        }
