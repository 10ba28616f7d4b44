"""Reading audio: the only package that decodes. Any rate and channel count in, mono float32 at the encoder's rate out."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.containers import find_plain_length
from evar.audio.contents import Content, FileState, load_content, state_of
from evar.audio.errors import AudioError
from evar.audio.opening import (
    FFMPEG_SUFFIXES,
    MAX_SECONDS,
    SPARE_SECONDS,
    Opened,
    decode_by_ffmpeg,
    open_plain,
    open_sound,
    tell_cut_off,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FFMPEG_SUFFIXES", "MAX_SECONDS", "AudioError", "AudioInfo", "ClipPolicy", "inspect", "length", "read"]
__all__ += ["clip_length", "count_resampled", "read_clip", "resample"]

#: name of the resampler in feature keys and results: soxr's "HQ" quality
RESAMPLER = "soxr_hq"
#: anything shorter holds no audible event and is nearly always a damaged file
MIN_SECONDS = 0.01
#: read beyond the window, so that resampling sees the audio that follows instead of an edge
_MARGIN_SECONDS = 0.05
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
    """

    sha256: str
    n_samples: int
    sample_rate: int
    state: FileState | None = field(default=None, compare=False)
    is_settled: bool = field(default=False, compare=False)


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
        if self.seconds is None:
            return 0, info.n_samples
        n_wanted = min(info.n_samples, round(self.seconds * info.sample_rate))
        if self.crop == "head" or n_wanted == info.n_samples:
            return 0, n_wanted
        draw = int.from_bytes(hashlib.sha256(f"{self.seed}:{info.sha256}".encode()).digest()[:8], "big")
        return draw % (info.n_samples - n_wanted + 1), n_wanted


def inspect(path: str | Path) -> AudioInfo:
    """Hash a file and find out how much sound it holds.

    Raises:
        AudioError: if it is missing, unreadable, empty, cut off or no audio.
    """
    content = load_content(path)
    found = find_plain_length(content.data, len(content.data)) if isinstance(content.data, bytes) else None
    if found is not None:
        n_samples, sample_rate = found
    else:
        with open_sound(path, content) as sound:
            n_samples, sample_rate = sound.n_samples, sound.sample_rate
    _require_length(n_samples, sample_rate)
    return AudioInfo(content.sha256(), n_samples, sample_rate, content.state, content.is_settled)


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


def _require_length(n_samples: int, sample_rate: int) -> None:
    if n_samples < MIN_SECONDS * sample_rate:
        raise AudioError(f"{n_samples} samples at {sample_rate} Hz are too short, under {MIN_SECONDS} s")


def read(path: str | Path, sample_rate: int, start: int = 0, n_samples: int | None = None) -> NDArray[np.float32]:
    """Decode part of a file, mix it down to mono and resample it.

    Only the part is read. The mix is the mean of the channels; the resampler is soxr at quality "HQ".

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
    return _read(load_content(path), sample_rate, start, n_samples)


def _read(content: Content, sample_rate: int, start: int, n_samples: int | None) -> NDArray[np.float32]:
    with open_sound(content.path, content) as sound:
        if n_samples is None and sound.n_samples > MAX_SECONDS * sound.sample_rate:
            raise AudioError(
                f"{sound.n_samples / sound.sample_rate:.0f} s are too long for a whole clip (at most {MAX_SECONDS:g} s); "
                "cut it, or give the task a clip_seconds"
            )
        return _decode_part(sound, sample_rate, start, n_samples)


def _decode_part(sound: Opened, sample_rate: int, start: int, n_samples: int | None) -> NDArray[np.float32]:
    """Decode, mix and resample, as `read` does."""
    own_rate = sound.sample_rate
    margin = 0 if own_rate == sample_rate else round(_MARGIN_SECONDS * own_rate)
    wanted = sound.n_samples - start if n_samples is None else n_samples + margin
    samples = _decode_whole(sound, start, wanted)
    _require_length(len(samples), own_rate)
    with np.errstate(invalid="ignore", over="ignore"):  # of damaged floats; refused below
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)  # (samples,)
    if not np.isfinite(mono).all():
        raise AudioError(f"{int((~np.isfinite(mono)).sum())} of {len(mono)} samples are NaN or infinite")
    n_native = len(mono) if n_samples is None else min(n_samples, len(mono))
    mono = resample(mono, own_rate, sample_rate)
    return np.ascontiguousarray(mono[: count_resampled(n_native, own_rate, sample_rate)], dtype=np.float32)


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
                samples = _decode_part(sound, sample_rate, start, n_samples)
            return samples if state_of(os.fstat(file.fileno())) == info.state else None
    except (OSError, RuntimeError, AudioError):  # the usual way says what is wrong
        return None


def _decode_whole(sound: Opened, start: int, n_wanted: int) -> NDArray[np.float32]:
    """Decode a part of a sound, by a second decoder where the first ends before the sound does.

    Raises:
        AudioError: if no decoder gives the whole part.
    """
    expected = max(0, min(n_wanted, sound.n_samples - start))
    problem: AudioError | None = None
    try:
        samples = sound.read(start, n_wanted)
    except AudioError as error:
        problem, samples = error, np.zeros((0, 1), np.float32)
    spare = SPARE_SECONDS * sound.sample_rate
    if problem is None and len(samples) >= expected - spare:
        return samples
    if sound.decoder == "libsndfile" and (other := decode_by_ffmpeg(sound.content)) is not None:
        with other:
            if other.sample_rate == sound.sample_rate:
                again = other.read(start, n_wanted)
                if len(again) >= expected - spare:
                    return again
    if problem is not None:
        raise problem
    raise AudioError(tell_cut_off((start + len(samples)) / sound.sample_rate, sound.n_samples / sound.sample_rate))


def resample(samples: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample (samples,) from one rate in Hz to another, by soxr at quality "HQ".

    Example:
        >>> len(resample(np.zeros(44100, np.float32), 44100, 16000))
        16000
    """
    if from_rate == to_rate:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, from_rate, to_rate, quality="HQ"), np.float32)


def read_clip(path: str | Path, info: AudioInfo, policy: ClipPolicy, sample_rate: int) -> NDArray[np.float32]:
    """Decode the part of a file that the policy names, padded as it says.

    Returns:
        (samples,) float32; exactly `round(policy.seconds * sample_rate)` samples where the policy pads.

    Raises:
        AudioError: as `read`, or if the file is not the one that `info` tells of any more.
    """
    start, n_samples = policy.window(info)
    whole = n_samples == info.n_samples and policy.seconds is None
    samples = _read_plain(Path(path), info, sample_rate, start, None if whole else n_samples)
    if samples is None:
        samples = _read_known(path, info, sample_rate, start, None if whole else n_samples)
    if policy.seconds is None:  # never more than was told: batches are laid out by it
        return samples[: clip_length(info, policy, sample_rate)]
    n_wanted = round(policy.seconds * sample_rate)
    if policy.pad == "zero_end" and len(samples) < n_wanted:
        return np.pad(samples, (0, n_wanted - len(samples)))
    return samples[:n_wanted]


def _read_known(
    path: str | Path, info: AudioInfo, sample_rate: int, start: int, n_samples: int | None
) -> NDArray[np.float32]:
    """`read`, for the very file that `info` tells of."""
    content = load_content(path)
    is_same = info.is_settled and content.state == info.state
    if not is_same and content.sha256() != info.sha256:
        raise AudioError("the file changed after it was looked at, and has other content now; run the command again")
    return _read(content, sample_rate, start, n_samples)


def clip_length(info: AudioInfo, policy: ClipPolicy, sample_rate: int) -> int:
    """Count the samples that `read_clip` will return, without decoding (some damaged files hold fewer)."""
    n_samples = count_resampled(policy.window(info)[1], info.sample_rate, sample_rate)
    if policy.seconds is None:
        return n_samples
    n_wanted = round(policy.seconds * sample_rate)
    return n_wanted if policy.pad == "zero_end" else min(n_samples, n_wanted)


def count_resampled(n_samples: int, from_rate: int, to_rate: int) -> int:
    """Count the samples after resampling, rounded up as a partial period still sounds.

    Example:
        >>> count_resampled(44100, 44100, 16000), count_resampled(3, 48000, 16000)
        (16000, 1)
    """
    return -(-n_samples * to_rate // from_rate)
