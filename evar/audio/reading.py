"""Reading audio: the only file that decodes. Any rate and channel count in, mono float32 at the encoder's rate out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import soundfile
    from numpy.typing import NDArray

#: name of the resampler in feature keys and results: soxr's "HQ" quality
RESAMPLER = "soxr_hq"
#: whole clips (clip_seconds: null) longer than this are refused: one of them would fill memory
MAX_SECONDS = 1800.0
#: anything shorter holds no audible event and is nearly always a damaged file
MIN_SECONDS = 0.01
#: of files that need ffmpeg
FFMPEG_SUFFIXES = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mkv", ".amr", ".ac3")
#: read beyond the window, so that resampling sees the audio that follows instead of an edge
_MARGIN_SECONDS = 0.05


class AudioError(ValueError):
    """A clip that cannot be used; the message says what is wrong with it, in one sentence, without its name."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds, without decoding it.

    Attributes:
        sha256: of the file's bytes.
        n_samples: per channel, at the file's own rate.
        sample_rate: Hz.
    """

    sha256: str
    n_samples: int
    sample_rate: int


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
    """Hash a file and read its header.

    Raises:
        AudioError: if it is missing, unreadable, empty or no audio.
    """
    import io

    import soundfile

    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise AudioError("the file is missing") from None
    except OSError as error:
        raise AudioError(f"the file cannot be read ({error.strerror})") from error
    if not data:
        raise AudioError("the file is empty (0 bytes)")
    try:
        header = soundfile.info(io.BytesIO(data))
    except (RuntimeError, OSError) as error:
        with _other(path, error) as header:
            pass
    info = AudioInfo(hashlib.sha256(data).hexdigest(), int(header.frames), int(header.samplerate))
    if info.n_samples < MIN_SECONDS * info.sample_rate:
        raise AudioError(f"{info.n_samples} samples at {info.sample_rate} Hz are too short, under {MIN_SECONDS} s")
    return info


def length(path: str | Path, sample_rate: int) -> int:
    """Samples that `read` gives for a whole file, from its header alone (or one more; a damaged file holds fewer).

    Args:
        path: audio file.
        sample_rate: Hz to resample to.

    Raises:
        AudioError: if it is missing, unreadable, empty or no audio.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise AudioError("the path is a folder" if path.is_dir() else "the file is missing")
    if path.stat().st_size == 0:
        raise AudioError("the file is empty (0 bytes)")
    try:
        header = soundfile.info(str(path))
    except (RuntimeError, OSError) as error:
        with _other(path, error) as header:
            pass
    return resampled_length(int(header.frames), int(header.samplerate), sample_rate)


@dataclass(frozen=True)
class Sound:
    """What a whole file is like.

    Attributes:
        sha256: of the file's bytes.
        seconds, sample_rate, channels, subtype: as the file says; subtype is libsndfile's word for the coding.
        rms_db, peak_db: level over all channels, dB of full scale; -inf for digital silence.
        clipped: share of samples at the file's largest absolute value, where that is near full scale; else 0.
        is_finite: no sample is NaN or infinite.
    """

    sha256: str
    seconds: float
    sample_rate: int
    channels: int
    subtype: str
    rms_db: float
    peak_db: float
    clipped: float
    is_finite: bool


def describe(path: str | Path) -> Sound:
    """Decode a whole file, block by block.

    Raises:
        AudioError: if it is missing, unreadable, empty or no audio.
    """
    info = inspect(path)
    energy, peak, at_peak, n, is_finite = 0.0, 0.0, 0, 0, True
    try:
        with _opened(path) as file:
            channels, subtype = int(file.channels), str(file.subtype)
            for block in file.blocks(1 << 18, dtype="float32", always_2d=True):
                finite = np.isfinite(block)
                is_finite &= bool(finite.all())
                block = np.where(finite, block, 0.0)
                highest = float(np.abs(block).max(initial=0.0))
                if highest > peak:
                    peak, at_peak = highest, 0
                at_peak += int((np.abs(block) >= peak).sum())
                energy += float(np.square(block, dtype=np.float64).sum())
                n += block.size
    except (RuntimeError, OSError) as error:
        raise AudioError(f"not decodable as audio ({_reason(error)})") from error
    level = 10 * np.log10(energy / n) if n and energy else -np.inf
    clipped = at_peak / n if n and peak > 0.98 else 0.0
    return Sound(
        info.sha256, info.n_samples / info.sample_rate, info.sample_rate, channels, subtype, float(level),
        float(20 * np.log10(peak)) if peak else -np.inf, clipped, is_finite,
    )  # fmt: skip


def read(path: str | Path, sample_rate: int, start: int = 0, n_samples: int | None = None) -> NDArray[np.float32]:
    """Decode part of a file, mix it down to mono and resample it.

    Only the part is read. The mix is the mean of the channels; the resampler is soxr at quality "HQ".

    Args:
        path: wav, flac, ogg, mp3, aiff, au or whatever else libsndfile reads, and what ffmpeg reads where it is installed;
            any rate, channel count and bit depth.
        sample_rate: Hz to resample to.
        start: first sample, at the file's own rate.
        n_samples: how many to take, at the file's own rate; None reads to the end.

    Returns:
        (samples,) float32, nominally in [-1, 1].

    Raises:
        AudioError: if it cannot be decoded, is empty, too short, too long for a whole clip or not finite.
    """
    try:
        with _opened(path) as file:
            own_rate = int(file.samplerate)
            if n_samples is None and file.frames > MAX_SECONDS * own_rate:
                raise AudioError(
                    f"{file.frames / own_rate:.0f} s are too long for a whole clip (at most {MAX_SECONDS:g} s); "
                    "cut it, or give the task a clip_seconds"
                )
            file.seek(start)
            margin = 0 if own_rate == sample_rate else round(_MARGIN_SECONDS * own_rate)
            samples = file.read(-1 if n_samples is None else n_samples + margin, dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:  # soundfile's LibsndfileError is a RuntimeError
        raise AudioError(f"not decodable as audio ({_reason(error)})") from error
    if len(samples) < MIN_SECONDS * own_rate:
        raise AudioError(f"{len(samples)} samples at {own_rate} Hz are too short, under {MIN_SECONDS} s")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)  # (samples,)
    if not np.isfinite(mono).all():
        raise AudioError(f"{int((~np.isfinite(mono)).sum())} of {len(mono)} samples are NaN or infinite")
    n_native = len(mono) if n_samples is None else min(n_samples, len(mono))
    mono = resample(mono, own_rate, sample_rate)
    return np.ascontiguousarray(mono[: resampled_length(n_native, own_rate, sample_rate)], dtype=np.float32)


def resample(samples: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """(samples,) at one rate, in Hz, to (samples',) at another, by soxr at quality "HQ".

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
        AudioError: as `read`.
    """
    start, n_samples = policy.window(info)
    whole = n_samples == info.n_samples and policy.seconds is None
    samples = read(path, sample_rate, start, None if whole else n_samples)
    if policy.seconds is None:  # never more than was told: batches are laid out by it
        return samples[: clip_length(info, policy, sample_rate)]
    n_wanted = round(policy.seconds * sample_rate)
    if policy.pad == "zero_end" and len(samples) < n_wanted:
        return np.pad(samples, (0, n_wanted - len(samples)))
    return samples[:n_wanted]


def clip_length(info: AudioInfo, policy: ClipPolicy, sample_rate: int) -> int:
    """Samples that `read_clip` will return, known without decoding (some damaged files hold fewer)."""
    n_samples = resampled_length(policy.window(info)[1], info.sample_rate, sample_rate)
    if policy.seconds is None:
        return n_samples
    n_wanted = round(policy.seconds * sample_rate)
    return n_wanted if policy.pad == "zero_end" else min(n_samples, n_wanted)


def resampled_length(n_samples: int, from_rate: int, to_rate: int) -> int:
    """Samples after resampling, rounded up as a partial period still sounds.

    Example:
        >>> resampled_length(44100, 44100, 16000), resampled_length(3, 48000, 16000)
        (16000, 1)
    """
    return -(-n_samples * to_rate // from_rate)


def _opened(path: str | Path) -> soundfile.SoundFile:
    """A file that libsndfile reads or, where it does not, what ffmpeg makes of it."""
    import soundfile

    try:
        return soundfile.SoundFile(str(path))
    except (RuntimeError, OSError) as error:
        return _other(path, error)


def _other(path: str | Path, error: Exception) -> soundfile.SoundFile:
    """The first sound of a file that libsndfile does not read (m4a, wma, webm, video), decoded whole in memory by ffmpeg.

    Raises:
        AudioError: if ffmpeg is not installed, or does not read it either.
    """
    import io
    import shutil
    import subprocess

    import soundfile

    program = shutil.which("ffmpeg")
    if program is None:
        of_others = Path(path).suffix.lower() in FFMPEG_SUFFIXES
        hint = f"; install ffmpeg for {Path(path).suffix}" if of_others else ""
        raise AudioError(f"not decodable as audio ({_reason(error)}{hint})") from error
    # Local files only: a playlist must not make us fetch anything. A little more than the longest clip, which is refused.
    limits = ["-protocol_whitelist", "file,pipe", "-t", f"{MAX_SECONDS + 1:g}"]
    source = f"file:{Path(path).resolve()}"
    command = [
        program,
        "-nostdin",
        "-v",
        "error",
        *limits,
        "-i",
        source,
        "-map",
        "0:a:0",
        "-c:a",
        "pcm_f32be",
        "-f",
        "au",
        "-",
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace").strip().splitlines()[-1])
        return soundfile.SoundFile(io.BytesIO(done.stdout))
    except (RuntimeError, OSError, IndexError) as other:
        raise AudioError(f"not decodable as audio ({_reason(error)}; ffmpeg: {_reason(other)})") from error


def _reason(error: Exception) -> str:
    """libsndfile's own words, without the file name or object that it puts in front."""
    return str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
