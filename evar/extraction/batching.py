"""Which clips share a batch (about equal lengths, bounded by seconds of audio), and their decoding ahead of the encoder."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Item = TypeVar("Item")
#: batches that may be decoded ahead of the encoder
BATCHES_AHEAD = 2


def in_batches(
    order: Sequence[int], lengths: Sequence[int], max_samples: int, *, batch_size: int | None, equal_lengths: bool
) -> list[list[int]]:
    """Cut positions, sorted by falling length, into batches; the first clip of a batch is its longest.

    Args:
        order: positions of the clips, longest first.
        lengths: samples of the clip at each position.
        max_samples: of a batch with its padding (a longer clip has a batch of its own).
        batch_size: clips a batch instead, where not None.
        equal_lengths: never mix lengths (encoders whose vectors depend on padding).

    Returns:
        The positions of each batch, in the order given.

    Example:
        >>> in_batches([2, 0, 1], [5, 4, 6], 12, batch_size=None, equal_lengths=False)
        [[2, 0], [1]]
    """
    batches: list[list[int]] = []
    for position in order:
        last = batches[-1] if batches else []
        full = not last or (len(last) >= batch_size if batch_size else (len(last) + 1) * lengths[last[0]] > max_samples)
        if full or (equal_lengths and lengths[position] != lengths[last[0]]):
            batches.append([position])
        else:
            last.append(position)
    return batches


def by_length(clips: Mapping[Item, NDArray[np.float32]]) -> list[list[Item]]:
    """Decoded lengths can differ from the header's (damaged files): groups of equal ones, for those who need it.

    Args:
        clips: item, such as a position -> its decoded clip (samples,).

    Returns:
        The items of each length, in the order in which the lengths come first.

    Example:
        >>> by_length({4: np.zeros(3, np.float32), 7: np.zeros(2, np.float32), 9: np.zeros(3, np.float32)})
        [[4, 9], [7]]
    """
    groups: dict[int, list[Item]] = {}
    for item, clip in clips.items():
        groups.setdefault(len(clip), []).append(item)
    return list(groups.values())


def decode_ahead(
    batches: Iterable[Sequence[Item]], decode: Callable[[Item], NDArray[np.float32]]
) -> Iterator[tuple[Sequence[Item], list[Future[NDArray[np.float32]]]]]:
    """Decode in threads, a few batches ahead of the reader.

    Args:
        batches: clips of each batch; only a few batches are taken in advance, which limits memory.
        decode: called in a thread for every clip.

    Yields:
        Each batch with one future a clip, in its order; a clip that cannot be decoded raises when its result is taken.

    Example:
        >>> ahead = decode_ahead([["a", "b"], ["c"]], lambda name: np.full(2, ord(name), np.float32))
        >>> [(batch, [future.result().tolist() for future in futures]) for batch, futures in ahead]
        [(['a', 'b'], [[97.0, 97.0], [98.0, 98.0]]), (['c'], [[99.0, 99.0]])]
    """
    n_threads = max(1, min(8, os.cpu_count() or 1))
    with ThreadPoolExecutor(n_threads, initializer=_yield_to_the_encoder) as threads:
        ahead: deque[tuple[Sequence[Item], list[Future[NDArray[np.float32]]]]] = deque()
        waiting = iter(batches)
        while True:
            while len(ahead) <= BATCHES_AHEAD and (batch := next(waiting, None)):
                ahead.append((batch, [threads.submit(decode, item) for item in batch]))
            if not ahead:
                break
            yield ahead.popleft()


def _yield_to_the_encoder() -> None:
    """Give a decoding thread the lowest priority, where the system knows threads' priorities (Linux).

    The encoder's threads wait for one another at the end of every operation; a decoder that takes one's core for a
    moment would delay all of them. So decoding only takes idle cores, or the time between batches.
    """
    if hasattr(os, "setpriority") and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def keep_float32() -> None:
    """Whoever encodes calls this first: convolutions in TF32, the default on some GPUs, have half the digits of float32.

    Example:
        >>> import torch
        >>> keep_float32()
        >>> torch.backends.cudnn.allow_tf32
        False
    """
    import torch

    torch.backends.cudnn.allow_tf32 = False


def pad_clips(clips: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Put clips of any lengths into one batch, with zeros at the ends of the shorter ones.

    Args:
        clips: at least one, each (samples,).

    Returns:
        The waveforms (batch, samples) float32, as long as the longest clip, and the lengths (batch,) int64 in samples.

    Example:
        >>> waveform, lengths = pad_clips([np.ones(3, np.float32), np.ones(1, np.float32)])
        >>> waveform.tolist(), lengths.tolist()
        ([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], [3, 1])
    """
    import torch

    lengths = torch.tensor([len(clip) for clip in clips])
    waveform = torch.zeros(len(clips), int(lengths.max()))  # (batch, samples)
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return waveform, lengths
