"""Near-duplicates: clips that sound the same although their bytes differ (another format, rate, level or cut).

Source: Haitsma & Kalker, "A Highly Robust Audio Fingerprinting System", ISMIR 2002: signs of differences of band energies
between neighbouring bands and frames, 32 bits a frame; candidates share exact words, and are judged by the share of bits
that differ (section 4). Frame, hop, bands and the limit for whole blocks are theirs; the limit here is stricter, since
clips may be shorter than a block.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.config.messages import progress_bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
#: words that clips must have in common at one offset before they are compared bit by bit, and the most clips with one word
VOTES, COMMON = 2, 50
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


def fingerprint(samples: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Words of a clip.

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


def near_duplicates(
    prints: Sequence[tuple[NDArray[np.uint32], NDArray[np.bool_]]], parts: Sequence[object] | None = None
) -> list[Pair]:
    """Pairs of clips that sound the same, by their fingerprints.

    Args:
        prints: of each clip, as `fingerprint` gives them.
        parts: of each clip, such as its split; only pairs of different parts are looked for. None: all pairs.

    Returns:
        Pairs in order, at most one offset for each; words that more than fifty clips have (hum, tones) find no candidates.
    """
    words = np.concatenate([one[0] for one in prints]) if prints else np.zeros(0, np.uint32)
    sounds = np.concatenate([one[1] for one in prints]) if prints else np.zeros(0, bool)
    clips = np.repeat(np.arange(len(prints)), [len(one[0]) for one in prints])
    places = np.concatenate([np.arange(len(one[0])) for one in prints]) if prints else np.zeros(0, int)
    kept = np.flatnonzero(sounds)
    kept = kept[np.argsort(words[kept], kind="stable")]
    words, clips, places = words[kept], clips[kept], places[kept]
    bounds = np.flatnonzero(np.diff(words, prepend=words[:1] ^ 1, append=words[-1:] ^ 1))
    votes: dict[tuple[int, int, int], int] = {}
    for first, last in itertools.pairwise(bounds):
        if not 2 <= last - first <= 4 * COMMON:
            continue
        with_it, where = clips[first:last], places[first:last]
        if not 2 <= len(np.unique(with_it)) <= COMMON:
            continue
        for a in range(len(with_it)):
            for b in range(a + 1, len(with_it)):
                one, other = int(with_it[a]), int(with_it[b])
                if one != other and (parts is None or parts[one] != parts[other]):
                    key = (one, other, int(where[a] - where[b]))
                    votes[key] = votes.get(key, 0) + 1
    best: dict[tuple[int, int], Pair] = {}
    for (one, other, offset), n in votes.items():
        if n >= VOTES and (pair := _compare_at(prints, one, other, offset)):
            known = best.get((one, other))
            if known is None or pair.bit_errors < known.bit_errors:
                best[one, other] = pair
    return [best[key] for key in sorted(best)]


def _compare_at(
    prints: Sequence[tuple[NDArray[np.uint32], NDArray[np.bool_]]], one: int, other: int, offset: int
) -> Pair | None:
    """The pair, if half of the shorter clip's sound is the other's at that offset."""
    errors = count_bit_errors(prints[one], prints[other], offset)
    return None if errors is None else Pair(one, other, offset * HOP / RATE, errors)


def count_bit_errors(
    one: tuple[NDArray[np.uint32], NDArray[np.bool_]], other: tuple[NDArray[np.uint32], NDArray[np.bool_]], offset: int
) -> float | None:
    """Share of bits that differ between two clips, if they sound the same.

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


#: of a larger task nothing is compared
MAX_CLIPS = 20_000


def sounding_alike(task: Task, max_clips: int = MAX_CLIPS) -> list[tuple[str, str]] | None:
    """Clips of different splits or folds that sound the same; files of one content are left to a comparison of hashes.

    Args:
        task: whose clips are there; ones that cannot be read are passed over.
        max_clips: of a larger task nothing is compared.

    Returns:
        Pairs of paths, or None if the task is too large.
    """
    paths = task.index["path"].tolist()
    pairs = find_alike(
        task.paths, task.config.clip_seconds, task.index[task.config.part].tolist(), task.name, max_clips
    )
    return None if pairs is None else [(paths[one], paths[other]) for one, other in pairs]


def find_alike(
    files: Sequence[Path],
    clip_seconds: float | None,
    parts: Sequence[object] | None,
    name: str,
    max_clips: int = MAX_CLIPS,
) -> list[tuple[int, int]] | None:
    """Compare files by ear: pairs of their numbers, without those of one content.

    Args:
        files: ones that cannot be read are passed over.
        clip_seconds: of each file that are compared; None takes `MAX_SECONDS`.
        parts: of each file, such as its split; only pairs of different parts are looked for. None: all pairs.
        name: before the progress bar.
        max_clips: of more files nothing is compared, and None returned.
    """
    from evar.audio.reading import AudioError, ClipPolicy, inspect, read_clip

    if len(files) > max_clips:
        return None
    seconds = min(clip_seconds or MAX_SECONDS, MAX_SECONDS)

    def look(path: Path) -> tuple[str, NDArray[np.uint32], NDArray[np.bool_]]:
        try:
            info = inspect(path)
            return info.sha256, *fingerprint(read_clip(path, info, ClipPolicy(seconds), RATE))
        except AudioError:
            return "", np.zeros(0, np.uint32), np.zeros(0, bool)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = pool.map(look, files)
        found = list(progress_bar(looked, f"compare {name}", len(files), unit="clip", leave=False))
    pairs = near_duplicates([one[1:] for one in found], parts)
    return [(one.first, one.second) for one in pairs if found[one.first][0] != found[one.second][0]]
