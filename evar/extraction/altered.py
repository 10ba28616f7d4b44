"""One pass over altered recordings: decode each clip once, alter it in every way, encode each version once.

A clip is altered at the recording's own rate, so that every encoder gets the same altered recording, then resampled to the
encoder's rate and padded as its task says. Vectors of all layers go to the store under keys that name the alteration.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.reading import AudioError, AudioInfo, ClipPolicy, count_resampled, read_clip, resample
from evar.audio.segments import Segment
from evar.config.messages import progress_bar
from evar.extraction.batching import decode_ahead, keep_float32
from evar.extraction.conditions import Condition
from evar.extraction.extract import (
    Extraction,
    Target,
    drop_failed,
    encode_batch,
    mark_bad,
    record_costs,
    require_space,
)
from evar.extraction.plan import inspect_clips, make_plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder
    from evar.extraction.input_statistics import Statistics
    from evar.storage.feature_store import FeatureStore

#: files that a pass may hold open; systems allow 1,024 or more
_MOST_FILES = 600
#: altered clips of a batch -> their decoded sounds
Decoded = dict[int, "NDArray[np.float32]"]


@dataclass(frozen=True)
class AlteredPass:
    """What a pass over altered recordings takes.

    Attributes:
        encoder: in eval mode, on its device.
        paths: (clips,) audio files, or segments of them.
        policy: which part of a file is the clip.
        store: where vectors live.
        batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.
        label: text before the progress bar.
    """

    encoder: Encoder
    paths: Sequence[Path | Segment]
    policy: ClipPolicy
    store: FeatureStore
    batch_size: int | None = None
    label: str = ""


def extract_altered(
    work: AlteredPass, conditions: Sequence[Condition], norm_stats: Statistics = None
) -> dict[Condition, Extraction]:
    """Make sure that the vectors of every clip under every condition are in the store, all layers in one pass.

    What is stored already is neither decoded nor encoded. Memory holds a few batches, however many conditions there are.

    Args:
        work: encoder, clips and store.
        conditions: distinct.
        norm_stats: (mean, std) of the input, or None for an encoder without.

    Returns:
        For each condition an extraction, as `evar.extraction.extract.extract` gives it.

    Raises:
        OSError: if the vectors would not fit on the disk.
    """
    began = time.perf_counter()
    infos, bad = inspect_clips(work.paths, work.store)
    targets: dict[Condition, Target] = {}
    for condition in conditions:
        key = condition.describe()
        with work.encoder.normalising_by(norm_stats):
            planned = make_plan(work.encoder, infos, bad, work.policy, work.store, work.batch_size, alteration=key)
        targets[condition] = Target(norm_stats, planned, Extraction(planned.key, list(planned.rows), dict(planned.bad)))
    wanting = {condition: one for condition, one in targets.items() if one.planned.todo}
    require_space(work.store, sum(one.planned.n_bytes for one in wanting.values()), work.label)
    n_at_once = max(1, _MOST_FILES // (len(work.encoder.layer_infos) + 2))  # nearly always all of them
    names = list(wanting)
    for begin in range(0, len(names), n_at_once):
        _run_group(work, {condition: wanting[condition] for condition in names[begin : begin + n_at_once]})
    for one in targets.values():
        one.result.n_stored = sum(row is not None for row in one.result.rows) - one.result.n_encoded
        one.result.seconds = time.perf_counter() - began
    return {condition: one.result for condition, one in targets.items()}


def _run_group(work: AlteredPass, group: dict[Condition, Target]) -> None:
    """Encode what is missing of some conditions, while their keys are locked."""
    every = sorted(group.values(), key=lambda target: target.result.key.digest)
    with ExitStack() as locks:
        for target in every:  # locks are taken in one order everywhere: two runs never wait for each other
            target.writer = locks.enter_context(work.store.writing(target.result.key))
            stored = work.store.list_stored(target.result.key)  # another run may have stored some in the meantime
            target.todo = {p for p in target.planned.todo if target.planned.rows[p] not in stored}
        _encode_altered(work, group)
        record_costs(work.encoder, every, work.store)
    for target in every:
        drop_failed(target.result, work.store.list_stored(target.result.key))


def _encode_altered(work: AlteredPass, group: dict[Condition, Target]) -> None:
    keep_float32()
    planned = next(iter(group.values())).planned
    every: set[int] = set().union(*(target.todo for target in group.values()))
    batches = [kept for batch in planned.batches if (kept := [p for p in batch if p in every])]
    # A clip is decoded unpadded and at its own rate: noise fills a recording, and not what a task pads it with.
    unpadded = ClipPolicy(work.policy.seconds, "none", work.policy.crop, work.policy.seed)

    def decode(position: int) -> NDArray[np.float32]:
        info = planned.infos[position]
        assert info is not None
        return read_clip(work.paths[position], info, unpadded, info.sample_rate)

    bar = progress_bar(
        total=sum(len(target.todo) for target in group.values()),
        desc=work.label or work.encoder.name,
        unit="clip",
        mininterval=0.5,
    )
    for batch, futures in decode_ahead(batches, decode):
        clips = _take_clips(batch, futures, list(group.values()))
        tasks = [[(condition, p) for p in clips if p in target.todo] for condition, target in group.items()]

        def alter(item: tuple[Condition, int], clips: Decoded = clips) -> NDArray[np.float32]:
            return _alter_clip(work, planned.infos[item[1]], item[0], clips[item[1]], str(planned.rows[item[1]]))

        for items, altered in decode_ahead([items for items in tasks if items], alter):
            target = group[items[0][0]]
            found = _take_clips([p for _, p in items], altered, [target])
            encode_batch(work.encoder, target, found, None)
            bar.update(len(items))
    bar.close()


def _take_clips(
    positions: Sequence[int], futures: Sequence[Future[NDArray[np.float32]]], targets: Sequence[Target]
) -> Decoded:
    """Wait for decoded or altered clips; one that fails is bad for all of the targets."""
    found: Decoded = {}
    for position, future in zip(positions, futures, strict=True):
        try:
            found[position] = future.result()
        except AudioError as error:
            for target in targets:
                if position in target.todo:
                    mark_bad(target.result, position, str(error))
    return found


def _alter_clip(
    work: AlteredPass, info: AudioInfo | None, condition: Condition, clip: NDArray[np.float32], row: str
) -> NDArray[np.float32]:
    """Alter a clip at its own rate, resample it to the encoder's, and give it the length that the policy says."""
    assert info is not None  # only clips that could be decoded are altered
    own_rate = info.sample_rate
    rate, seconds = work.encoder.sample_rate, work.policy.seconds
    altered = condition.apply(clip, own_rate, row)
    sound = resample(altered, own_rate, rate)[: count_resampled(len(altered), own_rate, rate)]
    if seconds is None:
        return np.ascontiguousarray(sound)
    n_wanted = round(seconds * rate)
    if work.policy.pad == "zero_end" and len(sound) < n_wanted:
        return np.pad(sound, (0, n_wanted - len(sound)))
    return np.ascontiguousarray(sound[:n_wanted])
