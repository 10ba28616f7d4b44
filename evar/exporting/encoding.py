"""Encoding portion by portion: headers one portion ahead, decoding some batches ahead, each part committed when whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import AudioError, count_resampled, length, measure, read
from evar.audio.segments import Segment
from evar.audio.sound_pool import SoundPool
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
#: batches of parts of files that are decoded together, in the order of the files
_BATCHES_A_PORTION = 2


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
    loud = LoudClips()
    planned: deque[list[list[_Item]]] = deque()
    with (
        _Decoder(encoder.sample_rate) as decoder,
        ThreadPoolExecutor(8) as threads,
        torch.inference_mode(),
        keep_freed_memory(),
    ):
        parts = (PartWriter(folder, digest, clips, recipe.features, others) for digest, clips, others in portions)

        def list_readings() -> Iterator[list[_Item]]:
            for batches in _make_batches(encoder, parts, batch_size, threads, bar, decoder):
                planned.append(batches)
                yield decoder.book([item for batch in batches for item in batch])

        for items, futures in decode_ahead(list_readings(), decoder.decode):
            clips: dict[_Item, NDArray[np.float32]] = {}
            for item, future in zip(items, futures, strict=True):
                try:
                    clips[item] = future.result()
                    loud.look(item[0].clips[item[1]].name, clips[item])
                except AudioError as error:
                    item[0].fail(item[1], str(error))
            for batch in planned.popleft():
                own = {item: clips[item] for item in batch if item in clips}
                for equal in [list(own)] if encoder.batch_invariant else by_length(own):
                    if equal:
                        _encode_batch(encoder, recipe, {item: own[item] for item in equal})
                bar.update(sum(len(part.of_file[position]) for part, position in batch))
    if text := loud.describe():
        warn(text)


class _Decoder:
    """Decodes clips, in threads; of parts of a file, in their order, with the file open."""

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._pool = SoundPool()
        #: (part, position) -> first sample and number of samples at the file's rate, and the turn in the pool
        self._places: dict[_Item, tuple[int, int]] = {}
        self._turns: dict[_Item, int] = {}

    def measure(self, item: _Item) -> int:
        """Samples of a clip at the encoder's rate, from its file's header.

        Raises:
            AudioError: if the file cannot be read, or the part is not inside it.
        """
        clip = item[0].clips[item[1]]
        if clip.times is None:
            return length(clip.file, self._sample_rate)
        n_samples, sample_rate = measure(clip.file)
        place = Segment(clip.file, *clip.times).locate(n_samples, sample_rate)
        self._places[item] = place
        return count_resampled(place[1], sample_rate, self._sample_rate)

    def book(self, items: list[_Item]) -> list[_Item]:
        """Put clips that will be decoded together in the order in which they are read."""
        if any(item in self._places for item in items):
            clip_of = {item: item[0].clips[item[1]] for item in items}
            items = sorted(items, key=lambda item: (str(clip_of[item].file), self._places.get(item, (0, 0))))
        for item in items:
            if item in self._places:
                self._turns[item] = self._pool.book(item[0].clips[item[1]].file)
        return items

    def decode(self, item: _Item) -> NDArray[np.float32]:
        """(samples,) at the encoder's rate.

        Raises:
            AudioError: if the clip cannot be decoded.
        """
        file = item[0].clips[item[1]].file
        place = self._places.pop(item, None)
        if place is None:
            return read(file, self._sample_rate)
        return self._pool.read(file, *place, self._sample_rate, self._turns.pop(item))

    def __enter__(self) -> _Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()


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
    decoder: _Decoder,
) -> Iterator[list[list[_Item]]]:
    """Batches that are decoded together, part after part; while one is planned, threads read the headers of the next."""
    waiting: deque[tuple[PartWriter, dict[int, Future[int]]]] = deque()
    for part in parts:
        bar.update(len(part.clips) - sum(len(positions) for positions in part.of_file.values()))
        headers = {first: threads.submit(decoder.measure, (part, first)) for first in part.of_file}
        waiting.append((part, headers))
        if len(waiting) > 1:
            yield from _plan_batches(encoder, *waiting.popleft(), batch_size, bar)
    while waiting:
        yield from _plan_batches(encoder, *waiting.popleft(), batch_size, bar)


def _plan_batches(
    encoder: Encoder, part: PartWriter, headers: Mapping[int, Future[int]], batch_size: int | None, bar: Any
) -> Iterator[list[list[_Item]]]:
    lengths = [0] * len(part.clips)
    usable = []
    for position, header in headers.items():
        try:
            lengths[position] = header.result()
            usable.append(position)
        except AudioError as error:
            part.fail(position, str(error))
            bar.update(len(part.of_file[position]))
    max_samples = max(1, int(encoder.batch_seconds * encoder.sample_rate))

    def make_batches(positions: list[int]) -> list[list[_Item]]:
        order = sorted(positions, key=lambda position: -lengths[position])
        batches = in_batches(
            order, lengths, max_samples, batch_size=batch_size, equal_lengths=not encoder.batch_invariant
        )
        return [[(part, position) for position in batch] for batch in batches]

    if all(part.clips[position].times is None for position in usable):
        yield from ([batch] for batch in make_batches(usable))
        return
    portion: list[int] = []
    for position in sorted(usable, key=lambda at: (str(part.clips[at].file), part.clips[at].times or (0.0, 0.0))):
        if portion and sum(lengths[at] for at in [*portion, position]) > _BATCHES_A_PORTION * max_samples:
            yield make_batches(portion)
            portion = []
        portion.append(position)
    if portion:
        yield make_batches(portion)
