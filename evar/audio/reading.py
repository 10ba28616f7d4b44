"""Reading audio: the only package that decodes. Any rate and channel count in, mono float32 at the encoder's rate out."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.containers import find_plain_length
from evar.audio.contents import PART_BYTES, Content, FileState, load_content, state_of
from evar.audio.decoding import MIN_SECONDS, RESAMPLER, count_resampled, decode_part, require_length, resample
from evar.audio.errors import AudioError
from evar.audio.ffmpeg_stream import count_samples
from evar.audio.opening import FFMPEG_SUFFIXES, MAX_SECONDS, open_plain, open_sound, tell_too_long
from evar.audio.segments import Segment, file_of
from evar.audio.sound_pool import SoundPool

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FFMPEG_SUFFIXES", "MAX_SECONDS", "AudioError", "AudioInfo", "ClipPolicy", "inspect", "length", "read"]
__all__ += ["MIN_SECONDS", "RESAMPLER", "clip_length", "count_resampled", "measure", "read_clip", "resample"]

#: of a WAV, in which its samples usually begin
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class AudioInfo:
    """Facts about a file that are known without decoding it.

    Attributes:
        sha256: of the file's bytes.
        n_samples: per channel, at the file's own rate: counted in the file, because headers can be wrong.
        sample_rate: Hz.
        state: of the file when it was hashed; None if it is not known.
        is_settled: the state alone tells whether it is the same file still; else its hash does.
        part: first sample, and number of samples, of the segment that is the clip; None for the whole file.
    """

    sha256: str
    n_samples: int
    sample_rate: int
    state: FileState | None = field(default=None, compare=False)
    is_settled: bool = field(default=False, compare=False)
    part: tuple[int, int] | None = None

    @property
    def content_id(self) -> str:
        """The file's hash and, of a segment, where it is in the file: clips of one id hold the same sound."""
        return self.sha256 if self.part is None else f"{self.sha256}@{self.part[0]}+{self.part[1]}"


@dataclass(frozen=True)
class ClipPolicy:
    """Which part of a file is the clip. Part of every feature key.

    Attributes:
        seconds: length of the clip; None takes the whole file.
        pad: "none" keeps shorter files as they are, "zero_end" appends zeros up to `seconds`.
        crop: "head" takes the first `seconds`, "seeded_random" a start drawn from the content hash and `seed`.
        seed: of the random start; 0 under "head".

    Raises:
        ValueError: for another pad or crop, or seconds that are not positive.
    """

    seconds: float | None
    pad: str = "none"
    crop: str = "head"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pad not in ("none", "zero_end") or self.crop not in ("head", "seeded_random"):
            raise ValueError(
                f"pad must be none or zero_end and crop head or seeded_random, got {self.pad!r} and {self.crop!r}"
            )
        if self.seconds is not None and not 0 < self.seconds <= MAX_SECONDS:
            raise ValueError(f"clip_seconds must lie in 0..{MAX_SECONDS:g} or be null, got {self.seconds}")
        if self.seconds is None and self.pad != "none":
            raise ValueError("pad: zero_end needs clip_seconds, the length to pad to")

    def window(self, info: AudioInfo) -> tuple[int, int]:
        """First sample and number of samples to take, at the file's own rate.

        Example:
            >>> ClipPolicy(seconds=1.0).window(AudioInfo("00", n_samples=48000, sample_rate=16000))
            (0, 16000)
        """
        first, n_samples = info.part or (0, info.n_samples)
        if self.seconds is None:
            return first, n_samples
        n_wanted = min(n_samples, round(self.seconds * info.sample_rate))
        if self.crop == "head" or n_wanted == n_samples:
            return first, n_wanted
        draw = int.from_bytes(hashlib.sha256(f"{self.seed}:{info.content_id}".encode()).digest()[:8], "big")
        return first + draw % (n_samples - n_wanted + 1), n_wanted


def inspect(path: str | Path | Segment) -> AudioInfo:
    """Hash a file and find out how much sound it holds, or of a segment where it is in its file.

    Raises:
        AudioError: if it is missing, unreadable, empty, cut off or no audio, or a segment is not inside its file.
    """
    if isinstance(path, Segment):
        return take_part(_inspect_once(path.file), path)
    content = load_content(path)
    found = find_plain_length(content.data, len(content.data)) if isinstance(content.data, bytes) else None
    n_samples, sample_rate = found or _count_samples(path, content)
    require_length(n_samples, sample_rate)
    return AudioInfo(content.sha256(), n_samples, sample_rate, content.state, content.is_settled)


def take_part(info: AudioInfo, path: str | Path | Segment) -> AudioInfo:
    """Facts about a segment from those about its file; those of a whole file stay as they are.

    Args:
        info: of the file.
        path: of the file, or the segment.

    Raises:
        AudioError: if the segment is not inside the file, or too short.

    Example:
        >>> take_part(AudioInfo("00", 16000 * 60, 16000), Segment(Path("field.wav"), 1.5, 4.0)).part
        (24000, 40000)
    """
    if not isinstance(path, Segment):
        return info
    part = path.locate(info.n_samples, info.sample_rate)
    require_length(part[1], info.sample_rate)
    return replace(info, part=part)


def measure(path: str | Path) -> tuple[int, int]:
    """Measure samples per channel and rate in Hz of a whole file; an unchanged file is opened once in a process.

    Args:
        path: audio file of any length.

    Raises:
        AudioError: if it is missing, unreadable, empty, cut off or no audio.
    """
    path = Path(path)
    with _measuring:
        try:
            state = state_of(path.stat())
        except OSError:
            state = None
        known = _measured.get(str(path))
        if known is not None and known[0] == state:
            return known[1]
        content = load_content(path, PART_BYTES)
        head = bytes(content.data[:_HEAD_BYTES])
        found = find_plain_length(head, len(content.data)) or _count_samples(path, content)
        require_length(*found)
        content.forget()
        if content.is_settled:
            _measured[str(path)] = (content.state, found)
        return found


def _count_samples(path: str | Path, content: Content) -> tuple[int, int]:
    with open_sound(path, content) as sound:
        n_samples, sample_rate = sound.n_samples, sound.sample_rate
        if sound.decoder == "ffmpeg" and n_samples > MAX_SECONDS * sample_rate:  # no more of it was decoded
            n_samples = count_samples(Path(path))
        return n_samples, sample_rate


#: what `measure` found: path -> state of the file, samples and rate
_measured: dict[str, tuple[FileState | None, tuple[int, int]]] = {}
_measuring = threading.Lock()


def _inspect_once(file: Path) -> AudioInfo:
    """`inspect`, for the many segments of one file: a file that is known to be unchanged is not hashed again."""
    try:
        state = state_of(file.stat())
    except OSError:
        return inspect(file)
    info = _inspected.get(str(file))
    if info is None or not info.is_settled or info.state != state:
        info = inspect(file)
        if len(_inspected) >= _MOST_INSPECTED:
            _inspected.clear()
        _inspected[str(file)] = info
    return info


#: what `_inspect_once` keeps
_inspected: dict[str, AudioInfo] = {}
_MOST_INSPECTED = 1024


def length(path: str | Path, sample_rate: int) -> int:
    """Count the samples that `read` gives for a whole file, without decoding it.

    Args:
        path: audio file.
        sample_rate: Hz to resample to.

    Raises:
        AudioError: if it is missing, unreadable, empty, cut off or no audio.
    """
    with open_sound(path) as sound:
        return count_resampled(sound.n_samples, sound.sample_rate, sample_rate)


def read(
    path: str | Path | Segment, sample_rate: int, start: int = 0, n_samples: int | None = None
) -> NDArray[np.float32]:
    """Decode part of a file, mix it down to mono and resample it.

    Only the part is read. Of a segment, the part is counted from its own beginning. The mix is the mean of the channels; the
    resampler is soxr at quality "HQ".

    Args:
        path: wav, flac, ogg, mp3, aiff, au, another format of libsndfile, or one of ffmpeg if it is installed;
            any rate, channel count and bit depth.
        sample_rate: Hz to resample to.
        start: first sample, at the file's own rate.
        n_samples: how many to take, at the file's own rate; None reads to the end.

    Returns:
        (samples,) float32, nominally in [-1, 1].

    Raises:
        AudioError: if it cannot be decoded, is empty, cut off, too short, too long for a whole clip or not finite.
    """
    if isinstance(path, Segment):
        info = inspect(path)
        assert info.part is not None
        n_left = info.part[1] - start
        info = replace(info, part=(info.part[0] + start, n_left if n_samples is None else min(n_samples, n_left)))
        return read_clip(path, info, ClipPolicy(None), sample_rate)
    return _read(load_content(path), sample_rate, start, n_samples)


def _read(content: Content, sample_rate: int, start: int, n_samples: int | None) -> NDArray[np.float32]:
    with open_sound(content.path, content) as sound:
        if n_samples is None and sound.n_samples > MAX_SECONDS * sound.sample_rate:
            raise AudioError(tell_too_long(sound.n_samples / sound.sample_rate))
        return decode_part(sound, sample_rate, start, n_samples)


def _read_plain(
    path: Path, info: AudioInfo, sample_rate: int, start: int, n_samples: int | None
) -> NDArray[np.float32] | None:
    """Decode part of a usual WAV that is known to be unchanged, without reading the rest of it; None for any other file.

    Its state is compared once more at the end, so nothing is decoded that was written meanwhile.
    """
    if not info.is_settled or (n_samples is None and info.n_samples > MAX_SECONDS * info.sample_rate):
        return None
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if state_of(status) != info.state:
                return None
            head = file.read(_HEAD_BYTES)
            if find_plain_length(head, status.st_size) != (info.n_samples, info.sample_rate):
                return None
            file.seek(0)
            with open_plain(Content(path, head, info.state, True), file.fileno()) as sound:
                samples = decode_part(sound, sample_rate, start, n_samples)
            return samples if state_of(os.fstat(file.fileno())) == info.state else None
    except (OSError, RuntimeError, AudioError):  # the usual way says what is wrong
        return None


def read_clip(
    path: str | Path | Segment,
    info: AudioInfo,
    policy: ClipPolicy,
    sample_rate: int,
    pool: SoundPool | None = None,
    turn: int | None = None,
) -> NDArray[np.float32]:
    """Decode the part of a file that the policy names, padded as it says.

    Args:
        path: of the file, or a segment of it.
        info: as `inspect` gives it.
        policy: which part of the file, or of the segment, is the clip.
        sample_rate: Hz to resample to.
        pool: holds files open in which there are several segments; None opens the file for this clip.
        turn: of a segment in the pool, see `SoundPool.book`.

    Returns:
        (samples,) float32; exactly `round(policy.seconds * sample_rate)` samples where the policy pads.

    Raises:
        AudioError: as `read`, or if the file is not the one that `info` tells of any more.
    """
    start, n_samples = policy.window(info)
    if info.part is not None:
        samples = _read_segment(file_of(path), info, (start, n_samples), sample_rate, pool, turn)
    else:
        whole = n_samples == info.n_samples and policy.seconds is None
        plain = _read_plain(Path(path), info, sample_rate, start, None if whole else n_samples)
        samples = _read_known(path, info, sample_rate, start, None if whole else n_samples) if plain is None else plain
    if policy.seconds is None:  # never more than was told: batches are laid out by it
        return samples[: clip_length(info, policy, sample_rate)]
    n_wanted = round(policy.seconds * sample_rate)
    if policy.pad == "zero_end" and len(samples) < n_wanted:
        return np.pad(samples, (0, n_wanted - len(samples)))
    return samples[:n_wanted]


def _read_segment(
    file: Path, info: AudioInfo, window: tuple[int, int], sample_rate: int, pool: SoundPool | None, turn: int | None
) -> NDArray[np.float32]:
    def require_same(content: Content) -> None:
        _require_same(content, info)

    if pool is None:
        with SoundPool() as own:
            return own.read(file, *window, sample_rate, check=require_same)
    return pool.read(file, *window, sample_rate, turn, require_same)


def _read_known(
    path: str | Path | Segment, info: AudioInfo, sample_rate: int, start: int, n_samples: int | None
) -> NDArray[np.float32]:
    """`read`, for the very file that `info` tells of."""
    content = load_content(file_of(path))
    _require_same(content, info)
    return _read(content, sample_rate, start, n_samples)


def _require_same(content: Content, info: AudioInfo) -> None:
    is_same = info.is_settled and content.state == info.state
    if not is_same and content.sha256() != info.sha256:
        raise AudioError("the file changed after it was looked at, and has other content now; run the command again")


def clip_length(info: AudioInfo, policy: ClipPolicy, sample_rate: int) -> int:
    """Count the samples that `read_clip` will return, without decoding (some damaged files hold fewer)."""
    n_samples = count_resampled(policy.window(info)[1], info.sample_rate, sample_rate)
    if policy.seconds is None:
        return n_samples
    n_wanted = round(policy.seconds * sample_rate)
    return n_wanted if policy.pad == "zero_end" else min(n_samples, n_wanted)
