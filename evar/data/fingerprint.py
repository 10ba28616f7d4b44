"""Near-duplicates: clips that sound the same although their bytes differ (another format, rate, level or cut).

Source: Haitsma & Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002: signs of differences of band energies
between neighbouring bands and frames, 32 bits a frame; candidates share exact words, and are judged by the share of bits
that differ (section 4). Frame, hop, bands and the limit for whole blocks are theirs; the limit here is stricter, since
clips may be shorter than a block.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.config.messages import progress_bar
from evar.data.word_index import WordIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.audio.segments import Segment
    from evar.audio.sound_pool import SoundPool
    from evar.data.task import Task

#: of a file that are compared
MAX_SECONDS = 60.0
#: Hz; sound above 2.5 kHz has no part in a fingerprint
RATE = 5000
#: samples: 0.37 s, and a step of 31/32 overlap
FRAME, HOP = 1856, 58
#: Hz, edges of 33 bands, evenly spaced in log frequency
_EDGES = np.geomspace(300.0, 2000.0, 34)
#: share of bits that may differ, in an overlap of at least a second and in a shorter one; unrelated sound differs in half
MAX_BIT_ERRORS, MAX_BIT_ERRORS_SHORT = 0.2, 0.1
#: bytes of the hash of a file's content that are kept
HASH_BYTES = 16
#: frames; shorter overlaps are ignored
_MIN_FRAMES = 16
#: band energy of a frame, over all bands, below which its bits are noise of rounding
_SILENCE = 1e-7


@dataclass(frozen=True)
class Pair:
    """Two clips that sound the same.

    Attributes:
        first, second: their numbers.
        offset_seconds: how much later the common sound is in the first.
        bit_errors: share of bits that differ, 0 for the same sound.
    """

    first: int
    second: int
    offset_seconds: float
    bit_errors: float


@dataclass(frozen=True)
class SoundPrint:
    """The facts of one sound that are compared.

    Attributes:
        content: the first 16 bytes of the sha256 of the file's content; empty if it could not be read.
        words: (frames,) 32-bit words, one every `HOP` samples at `RATE`.
        is_sound: (frames,) False where a word comes from silence.
    """

    content: bytes
    words: NDArray[np.uint32]
    is_sound: NDArray[np.bool_]


def fingerprint(samples: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Compute the words of a clip.

    Args:
        samples: (samples,) mono at `RATE`.

    Returns:
        words (frames,), 32 bits each, one every `HOP` samples, and (frames,) whether a word comes from sound, not silence.

    Example:
        >>> words, is_sound = fingerprint(np.sin(np.arange(5000, dtype=np.float32)))
        >>> words.shape, bool(is_sound.all())
        ((86,), True)
    """
    samples = np.pad(samples, FRAME // 2)  # short clips have words too
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    bins = np.fft.rfftfreq(FRAME, 1 / RATE)
    starts = np.searchsorted(bins, _EDGES)
    window = np.hanning(FRAME).astype(np.float32)
    energies = np.empty((len(frames), 33))
    for first in range(0, len(frames), 512):  # bounded memory, however long the clip
        power = np.abs(np.fft.rfft(frames[first : first + 512] * window, axis=1)) ** 2 / FRAME
        energies[first : first + 512] = np.add.reduceat(power, starts, axis=1)[:, :33]
    steps = energies[:, :-1] - energies[:, 1:]  # (frames, 32)
    bits = steps[1:] > steps[:-1]
    words = np.packbits(bits, axis=1).view(">u4")[:, 0].astype(np.uint32)
    return words, energies[1:].sum(axis=1) > _SILENCE


def make_print(path: Path | Segment, seconds: float | None = None, pool: SoundPool | None = None) -> SoundPrint:
    """Decode one file, or a part of one, and make its fingerprint.

    Args:
        path: of the file, or a segment of it.
        seconds: how much of its beginning is used; None takes the whole.
        pool: keeps files open of which there are several segments.

    Raises:
        AudioError: if the file cannot be read.
    """
    from evar.audio.reading import ClipPolicy, inspect, read_clip

    info = inspect(path)
    words, is_sound = fingerprint(read_clip(path, info, ClipPolicy(seconds), RATE, pool))
    digest = info.sha256 if info.part is None else hashlib.sha256(info.content_id.encode()).hexdigest()
    return SoundPrint(bytes.fromhex(digest)[:HASH_BYTES], words, is_sound)


def make_prints(
    files: Sequence[Path | Segment], clip_seconds: float | None, title: str
) -> tuple[list[SoundPrint], dict[int, str]]:
    """Make the fingerprints of clips, in several threads.

    Args:
        files: of the clips.
        clip_seconds: of each file that are used; at most, and for None, `MAX_SECONDS`.
        title: of the progress bar.

    Returns:
        A fingerprint for each file, without words if the file could not be read; and number of a file -> why it could not.
    """
    from evar.audio.errors import AudioError
    from evar.audio.sound_pool import SoundPool

    seconds = min(clip_seconds or MAX_SECONDS, MAX_SECONDS)

    def look(path: Path | Segment) -> SoundPrint | str:
        try:
            return make_print(path, seconds, sounds)
        except AudioError as error:
            return str(error)

    with SoundPool() as sounds, ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = list(progress_bar(pool.map(look, files), title, len(files), unit="clip", leave=False))
    nothing = SoundPrint(b"", np.zeros(0, np.uint32), np.zeros(0, bool))
    bad = {number: one for number, one in enumerate(looked) if isinstance(one, str)}
    return [nothing if isinstance(one, str) else one for one in looked], bad


def find_near_duplicates(
    prints: Sequence[tuple[NDArray[np.uint32], NDArray[np.bool_]]], parts: Sequence[object] | None = None
) -> list[Pair]:
    """Find pairs of clips that sound the same, by their fingerprints.

    Args:
        prints: of each clip, as `fingerprint` gives them.
        parts: of each clip, such as its split; only pairs of different parts are looked for. None: all pairs.

    Returns:
        Pairs in order, with the best offset of each; words that more than fifty clips have (hum, tones) find no candidates.

    Example:
        >>> noise = fingerprint(np.random.default_rng(0).normal(size=RATE).astype(np.float32))
        >>> [(pair.first, pair.second, pair.bit_errors) for pair in find_near_duplicates([noise, noise])]
        [(0, 1, 0.0)]
        >>> find_near_duplicates([noise, noise], ["train", "train"])
        []
    """
    index = WordIndex(prints)
    best: dict[tuple[int, int], Pair] = {}
    for other, sound in enumerate(prints):
        for one, offset in index.find_candidates(sound, before=other):
            if parts is not None and parts[one] == parts[other]:
                continue
            errors = count_bit_errors(prints[one], sound, offset)
            known = best.get((one, other))
            if errors is not None and (known is None or errors < known.bit_errors):
                best[one, other] = Pair(one, other, offset * HOP / RATE, errors)
    return [best[key] for key in sorted(best)]


def count_bit_errors(
    one: tuple[NDArray[np.uint32], NDArray[np.bool_]], other: tuple[NDArray[np.uint32], NDArray[np.bool_]], offset: int
) -> float | None:
    """Compute the share of bits that differ between two clips, if they sound the same.

    Args:
        one, other: of each clip, as `fingerprint` gives them.
        offset: in frames, how much later the common sound is in the first clip.

    Returns:
        The share, 0 for the same sound; None if the overlap holds less than half of the shorter clip's sound, or if too
        many bits differ.

    Example:
        >>> print_of_noise = fingerprint(np.random.default_rng(0).normal(size=RATE).astype(np.float32))
        >>> count_bit_errors(print_of_noise, print_of_noise, 0), count_bit_errors(print_of_noise, print_of_noise, 3)
        (0.0, None)
    """
    (a, a_sounds), (b, b_sounds) = one, other
    first, last = max(0, offset), min(len(a), len(b) + offset)
    if last <= first:
        return None
    both = a_sounds[first:last] & b_sounds[first - offset : last - offset]
    n_both, n_least = int(both.sum()), int(min(a_sounds.sum(), b_sounds.sum()))
    if n_both < max(_MIN_FRAMES, n_least / 2):
        return None
    differing = (a[first:last] ^ b[first - offset : last - offset])[both]
    errors = float(np.unpackbits(differing.view(np.uint8)).mean())
    limit = MAX_BIT_ERRORS if n_both * HOP >= RATE else MAX_BIT_ERRORS_SHORT
    return errors if errors <= limit else None


#: a larger task is not compared
MAX_CLIPS = 20_000


def find_alike_clips(task: Task, max_clips: int = MAX_CLIPS) -> list[tuple[str, str]] | None:
    """Find clips of different splits or folds that sound the same; a comparison of hashes finds files of one content.

    Args:
        task: whose clips are there; those that cannot be read are passed over.
        max_clips: a larger task is not compared.

    Returns:
        Pairs of paths, or None if the task is too large.
    """
    paths = task.index["path"].tolist()
    pairs = find_alike(
        task.paths, task.config.clip_seconds, task.index[task.config.part].tolist(), task.name, max_clips
    )
    return None if pairs is None else [(paths[one], paths[other]) for one, other in pairs]


def find_alike(
    files: Sequence[Path | Segment],
    clip_seconds: float | None,
    parts: Sequence[object] | None,
    name: str,
    max_clips: int = MAX_CLIPS,
) -> list[tuple[int, int]] | None:
    """Find files that sound the same, without those of one content.

    Args:
        files: those that cannot be read are passed over.
        clip_seconds: of each file that are compared; None takes `MAX_SECONDS`.
        parts: of each file, such as its split; only pairs of different parts are looked for. None: all pairs.
        name: before the progress bar.
        max_clips: more files than these are not compared.

    Returns:
        Pairs of the files' numbers; None if there are too many files.
    """
    if len(files) > max_clips:
        return None
    prints, _ = make_prints(files, clip_seconds, f"compare {name}")
    pairs = find_near_duplicates([(one.words, one.is_sound) for one in prints], parts)
    return [(one.first, one.second) for one in pairs if prints[one.first].content != prints[one.second].content]
