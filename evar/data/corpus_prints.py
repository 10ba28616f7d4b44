"""Fingerprints of a training corpus in one file, and the search for a task's clips in it.

The file holds hashes only: of each sound the first 16 bytes of the sha256 of its content, and the 32-bit words of its
fingerprint (`evar.data.fingerprint`), from which no sound can be made. It is written and searched block by block, so that
memory grows with the task and not with the corpus.

Layout: `MAGIC`; one line of JSON (the settings of the fingerprints); blocks; an empty block and the number of sounds. A
block is `n_sounds, n_words` (two little-endian uint32), the number of words of each sound (uint32), their hashes (16 bytes
each), the words (uint32), one bit a word that separates sound from silence, and the crc32 of all this.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from evar.config.messages import progress_bar
from evar.data.fingerprint import FRAME, HASH_BYTES, HOP, RATE, SoundPrint, count_bit_errors, make_print
from evar.data.word_index import WordIndex

MAGIC = b"evar fingerprints 1\n"
#: two files are compared only if these agree
SETTINGS = {"rate": RATE, "frame": FRAME, "hop": HOP, "bands": "33 edges, 300 to 2000 Hz"}
#: sounds and words of a block, whichever is reached first
_BLOCK_SOUNDS, _BLOCK_WORDS = 256, 1_000_000
#: the most of either that a block of a file may claim, so that a damaged file cannot fill the memory
_MOST_SOUNDS, _MOST_WORDS = 65_536, 64_000_000
#: offsets of one pair of sounds that are compared bit by bit, those with the most common words first
_OFFSETS_TRIED = 5


@dataclass
class Written:
    """Result of `write_corpus_prints`.

    Attributes:
        n_sounds: in the file.
        seconds: of sound that the words stand for.
        n_bytes: size of the file.
        bad: path -> why it could not be read; such sounds are not in the file.
        left_out: one line on files that are no audio; "" if there are none.
    """

    n_sounds: int = 0
    seconds: float = 0.0
    n_bytes: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    left_out: str = ""


@dataclass(frozen=True)
class Occurrence:
    """A clip of a task that also occurs in a corpus.

    Attributes:
        clip: number of the clip.
        sound: number of the sound in the corpus, in the order in which its folder was walked.
        is_identical: do the two files have the same content?
        offset_seconds: how much later the common sound is in the clip; 0 for identical files.
        bit_errors: share of fingerprint bits that differ, 0 for the same sound.
    """

    clip: int
    sound: int
    is_identical: bool
    offset_seconds: float
    bit_errors: float


def write_corpus_prints(folder: str | Path, out: str | Path) -> Written:
    """Write the fingerprints of every sound in a folder and the folders in it.

    Args:
        folder: the corpus.
        out: the file to write. It appears only when it is complete.

    Returns:
        Counts, and the sounds that could not be read.

    Raises:
        ValueError: if the folder has no sound that can be read.
        OSError: if the folder cannot be read, or the file cannot be written.

    Example:
        >>> import tempfile, soundfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     noise = np.random.default_rng(0).normal(size=16000) / 10
        ...     soundfile.write(f"{root}/noise.wav", noise, 16000)
        ...     written = write_corpus_prints(root, f"{root}/corpus.fp")
        ...     [one.words.shape for one in read_corpus_prints(f"{root}/corpus.fp")], written.n_sounds
        ([(86,)], 1)
    """
    from evar.audio.errors import AudioError
    from evar.audio.folders import LeftOut, find_audio

    left_out, written, out = LeftOut(), Written(), Path(out)

    def look(path: str) -> SoundPrint | tuple[str, str]:
        try:
            return make_print(Path(path))
        except AudioError as error:
            return path, str(error)

    part = out.with_name(f"{out.name}.part")
    try:
        with open(part, "wb") as file:
            _write_blocks(file, _map_in_order(look, find_audio(folder, left_out)), written)
            file.flush()
            os.fsync(file.fileno())
        written.left_out = left_out.describe()
        if not written.n_sounds:
            first = next((f"; {path}: {reason}" for path, reason in written.bad.items()), "")
            raise ValueError(f"{folder} must hold sounds that can be read, found none{first}; {written.left_out}")
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    written.n_bytes = out.stat().st_size
    return written


def _write_blocks(file: BinaryIO, found: Iterable[SoundPrint | tuple[str, str]], written: Written) -> None:
    """Write the whole content of a file of fingerprints, and count what is written.

    Args:
        file: open and empty.
        found: the fingerprint of each sound, or its path and why it could not be read.
        written: counts of sounds and seconds, and bad sounds; they are added to.
    """
    file.write(MAGIC + json.dumps(SETTINGS).encode() + b"\n")
    block: list[SoundPrint] = []
    for one in progress_bar(found, "fingerprint", unit="sound"):
        if isinstance(one, tuple):
            written.bad[one[0]] = one[1]
            continue
        block.append(one)
        written.n_sounds += 1
        written.seconds += len(one.words) * HOP / RATE
        if len(block) == _BLOCK_SOUNDS or sum(len(kept.words) for kept in block) >= _BLOCK_WORDS:
            file.write(_pack_block(block))
            block = []
    if block:
        file.write(_pack_block(block))
    file.write(struct.pack("<II", 0, 0) + struct.pack("<Q", written.n_sounds))


def read_corpus_prints(path: str | Path) -> Iterator[SoundPrint]:
    """Read a file of fingerprints, sound by sound.

    Args:
        path: of a file that `write_corpus_prints` wrote.

    Raises:
        ValueError: if the file is damaged, is cut, is no such file, or was made with other settings.
        OSError: if the file cannot be opened.
    """
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} must be a file of `evar fingerprint`, found another beginning")
        try:
            settings = json.loads(file.readline(4096))
        except ValueError:
            settings = None
        if settings != SETTINGS:
            raise ValueError(
                f"{path} must hold fingerprints of {SETTINGS}, found {settings!r}; make it again with this version"
            )
        n_read = 0
        while block := _read_block(file, path):
            yield from block
            n_read += len(block)
        (n_sounds,) = struct.unpack("<Q", _read_exactly(file, 8, path))
        if n_sounds != n_read:
            raise ValueError(f"{path} must hold {n_sounds} sounds, found {n_read}; make it again")


def find_in_corpus(clips: Sequence[SoundPrint], corpus: Iterable[SoundPrint]) -> list[Occurrence]:
    """Find the clips that also occur in a corpus: the same file, or the same sound in another format, level or cut.

    Args:
        clips: the task's, all in memory.
        corpus: read once, one sound after the other.

    Returns:
        For each clip that occurs, its best occurrence: an identical file, else the sound with the fewest differing bits;
        ordered by clip. Words that more than fifty clips share (hum, tones) find nothing.

    Example:
        >>> from evar.data.fingerprint import fingerprint
        >>> noise = np.random.default_rng(0).normal(size=(2, RATE)).astype(np.float32)
        >>> one, other = (SoundPrint(bytes([n] * 16), *fingerprint(noise[n])) for n in range(2))
        >>> found = find_in_corpus([one, other], [SoundPrint(bytes(16), other.words, other.is_sound)])
        >>> [(occurrence.clip, occurrence.is_identical) for occurrence in found]
        [(0, True), (1, False)]
    """
    by_content: dict[bytes, list[int]] = {}
    for number, of_clip in enumerate(clips):
        by_content.setdefault(of_clip.content, []).append(number)
    index = WordIndex([(one.words, one.is_sound) for one in clips])
    best: dict[int, Occurrence] = {}
    for sound, one in enumerate(corpus):
        found = [Occurrence(clip, sound, True, 0.0, 0.0) for clip in by_content.get(one.content, ())]
        for clip, offset in index.find_candidates((one.words, one.is_sound), _OFFSETS_TRIED):
            mine = clips[clip]
            errors = count_bit_errors((mine.words, mine.is_sound), (one.words, one.is_sound), offset)
            if errors is not None:
                found.append(Occurrence(clip, sound, False, offset * HOP / RATE, errors))
        for occurrence in found:
            known = best.get(occurrence.clip)
            if known is None or _rate(occurrence) < _rate(known):
                best[occurrence.clip] = occurrence
    return [best[clip] for clip in sorted(best)]


def _rate(occurrence: Occurrence) -> tuple[bool, float]:
    return not occurrence.is_identical, occurrence.bit_errors


def _map_in_order(
    look: Callable[[str], SoundPrint | tuple[str, str]], paths: Iterator[str]
) -> Iterator[SoundPrint | tuple[str, str]]:
    """Look at files in a few threads, in order, with a bounded number of results waiting."""
    n_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = [pool.submit(look, path) for path in islice(paths, 4 * n_threads)]
        while waiting:
            one = waiting.pop(0).result()
            waiting += [pool.submit(look, path) for path in islice(paths, 1)]
            yield one


def _pack_block(block: Sequence[SoundPrint]) -> bytes:
    words = np.concatenate([one.words for one in block])
    packed = (
        struct.pack("<II", len(block), len(words))
        + np.array([len(one.words) for one in block], "<u4").tobytes()
        + b"".join(one.content for one in block)
        + words.astype("<u4").tobytes()
        + np.packbits(np.concatenate([one.is_sound for one in block])).tobytes()
    )
    return packed + struct.pack("<I", zlib.crc32(packed))


def _read_block(file: BinaryIO, path: str | Path) -> list[SoundPrint]:
    """The next block; an empty list at the end."""
    head = _read_exactly(file, 8, path)
    n_sounds, n_words = struct.unpack("<II", head)
    if not n_sounds:
        return []
    if n_sounds > _MOST_SOUNDS or n_words > _MOST_WORDS:
        raise ValueError(f"{path} is damaged: a block claims {n_sounds} sounds and {n_words} words; make it again")
    n_flags = -(-n_words // 8)
    body = _read_exactly(file, 4 * n_sounds + HASH_BYTES * n_sounds + 4 * n_words + n_flags, path)
    (crc,) = struct.unpack("<I", _read_exactly(file, 4, path))
    lengths = np.frombuffer(body, "<u4", n_sounds).astype(np.int64)
    if crc != zlib.crc32(body, zlib.crc32(head)) or lengths.sum() != n_words:
        raise ValueError(f"{path} is damaged: the check sum of a block differs; make it again")
    at = 4 * n_sounds
    contents = [body[at + HASH_BYTES * n : at + HASH_BYTES * (n + 1)] for n in range(n_sounds)]
    at += HASH_BYTES * n_sounds
    words = np.frombuffer(body, "<u4", n_words, at).astype(np.uint32)
    is_sound = np.unpackbits(np.frombuffer(body, np.uint8, n_flags, at + 4 * n_words), count=n_words).astype(bool)
    ends = np.cumsum(lengths)
    return [
        SoundPrint(content, words[end - length : end], is_sound[end - length : end])
        for content, length, end in zip(contents, lengths, ends, strict=True)
    ]


def _read_exactly(file: BinaryIO, n_bytes: int, path: str | Path) -> bytes:
    found = file.read(n_bytes)
    if len(found) != n_bytes:
        raise ValueError(f"{path} is cut: it ends before its last block; make it again with `evar fingerprint`")
    return found
