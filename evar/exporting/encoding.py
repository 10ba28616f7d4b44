"""Encoding portion by portion: headers one portion ahead, decoding some batches ahead, each part committed when whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import AudioError, length, read
from evar.config.messages import warn
from evar.exporting.parts import PartWriter
from evar.extraction.batching import by_length, decode_ahead, in_batches, keep_float32, pad_clips
from evar.extraction.freed_memory import keep_freed_memory
from evar.extraction.loudness import LoudClips

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder
    from evar.exporting.recipe import Recipe
    from evar.exporting.sources import Clip

#: a clip on its way: its part, and its position there
_Item = tuple[PartWriter, int]


def encode(
    encoder: Encoder,
    recipe: Recipe,
    portions: Iterable[tuple[str, Sequence[Clip], frozenset[int]]],
    folder: Path,
    batch_size: int | None,
    bar: Any,
) -> None:
    """Encode portions of clips and commit a part for each.

    A portion is sorted into batches by itself, so a part does not depend on which others were there already.

    Args:
        encoder: in eval mode, on its device.
        recipe: the features of a clip.
        portions: digest of the part, its clips, and the positions of those whose rows another part has; taken one at a
            time.
        folder: of the parts.
        batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.
        bar: tqdm's; counts clips.
    """
    import torch

    keep_float32()

    def decode(item: _Item) -> NDArray[np.float32]:
        part, position = item
        return read(part.clips[position].file, encoder.sample_rate)

    loud = LoudClips()
    with ThreadPoolExecutor(8) as threads, torch.inference_mode(), keep_freed_memory():
        parts = (PartWriter(folder, digest, clips, recipe.features, others) for digest, clips, others in portions)
        for batch, futures in decode_ahead(_make_batches(encoder, parts, batch_size, threads, bar), decode):
            clips: dict[_Item, NDArray[np.float32]] = {}
            for item, future in zip(batch, futures, strict=True):
                try:
                    clips[item] = future.result()
                    loud.look(item[0].clips[item[1]].path, clips[item])
                except AudioError as error:
                    item[0].fail(item[1], str(error))
            for items in [list(clips)] if encoder.batch_invariant else by_length(clips):
                if items:
                    _encode_batch(encoder, recipe, {item: clips[item] for item in items})
            bar.update(sum(len(part.of_file[position]) for part, position in batch))
    if text := loud.describe():
        warn(text)


def _encode_batch(encoder: Encoder, recipe: Recipe, clips: dict[_Item, NDArray[np.float32]]) -> None:
    features = encoder.encode(*pad_clips(list(clips.values())))
    for ((part, position), samples), rows in zip(clips.items(), recipe.rows(features), strict=True):
        if all(np.isfinite(value).all() for value in rows.values()):
            part.add(position, len(samples) / encoder.sample_rate, rows)
        else:
            part.fail(position, "the encoder's output is not finite")


def _make_batches(
    encoder: Encoder,
    parts: Iterable[PartWriter],
    batch_size: int | None,
    threads: ThreadPoolExecutor,
    bar: Any,
) -> Iterator[list[_Item]]:
    """Batches of one part after the other; while one is planned, threads read the headers of the next."""
    waiting: deque[tuple[PartWriter, dict[int, Future[int]]]] = deque()
    for part in parts:
        bar.update(len(part.clips) - sum(len(positions) for positions in part.of_file.values()))
        headers = {first: threads.submit(length, part.clips[first].file, encoder.sample_rate) for first in part.of_file}
        waiting.append((part, headers))
        if len(waiting) > 1:
            yield from _plan_batches(encoder, *waiting.popleft(), batch_size, bar)
    while waiting:
        yield from _plan_batches(encoder, *waiting.popleft(), batch_size, bar)


def _plan_batches(
    encoder: Encoder, part: PartWriter, headers: Mapping[int, Future[int]], batch_size: int | None, bar: Any
) -> Iterator[list[_Item]]:
    lengths = [0] * len(part.clips)
    usable = []
    for position, header in headers.items():
        try:
            lengths[position] = header.result()
            usable.append(position)
        except AudioError as error:
            part.fail(position, str(error))
            bar.update(len(part.of_file[position]))
    for batch in in_batches(
        sorted(usable, key=lambda position: -lengths[position]),
        lengths,
        max(1, int(encoder.batch_seconds * encoder.sample_rate)),
        batch_size=batch_size,
        equal_lengths=not encoder.batch_invariant,
    ):
        yield [(part, position) for position in batch]
