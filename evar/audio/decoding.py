"""From an open sound to mono samples at the encoder's rate: decoding (by a second decoder if needed), mixing, resampling."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.errors import AudioError
from evar.audio.opening import SPARE_SECONDS, Opened, decode_by_ffmpeg, tell_cut_off

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: name of the resampler in feature keys and results: soxr's "HQ" quality
RESAMPLER = "soxr_hq"
#: anything shorter holds no audible event and is nearly always a damaged file
MIN_SECONDS = 0.01
#: read beyond the part that is wanted, so that resampling sees the audio around it instead of an edge
MARGIN_SECONDS = 0.05


def require_length(n_samples: int, sample_rate: int) -> None:
    """Refuse sounds that are too short for anything.

    Raises:
        AudioError: if there are fewer samples than `MIN_SECONDS` holds.
    """
    if n_samples < MIN_SECONDS * sample_rate:
        raise AudioError(f"{n_samples} samples at {sample_rate} Hz are too short, under {MIN_SECONDS} s")


def decode_part(sound: Opened, sample_rate: int, start: int, n_samples: int | None) -> NDArray[np.float32]:
    """Decode a part of a sound, mix its channels and resample it, as `evar.audio.reading.read` does.

    Args:
        sound: an open file.
        sample_rate: Hz of the result.
        start, n_samples: of the part, in samples at the file's own rate; n_samples None reads to the end.

    Returns:
        (samples,) float32 at `sample_rate`.

    Raises:
        AudioError: if the part is too short, damaged, or holds NaN or infinity.
    """
    own_rate = sound.sample_rate
    margin = 0 if own_rate == sample_rate else round(MARGIN_SECONDS * own_rate)
    wanted = sound.n_samples - start if n_samples is None else n_samples + margin
    samples = decode_whole(sound, start, wanted)
    require_length(len(samples), own_rate)
    mono = mix_down(samples)
    n_native = len(mono) if n_samples is None else min(n_samples, len(mono))
    mono = resample(mono, own_rate, sample_rate)
    return np.ascontiguousarray(mono[: count_resampled(n_native, own_rate, sample_rate)], dtype=np.float32)


def mix_down(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mix (samples, channels) down to (samples,), the mean of the channels.

    Raises:
        AudioError: if samples are NaN or infinite.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # of damaged floats; refused below
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)  # (samples,)
    if not np.isfinite(mono).all():
        raise AudioError(f"{int((~np.isfinite(mono)).sum())} of {len(mono)} samples are NaN or infinite")
    return mono


def find_surroundings(start: int, n_samples: int, from_rate: int, to_rate: int) -> tuple[int, int]:
    """Find what must be decoded so that a part is resampled as it would be within the whole file.

    Args:
        start, n_samples: of the part, at the file's own rate.
        from_rate, to_rate: Hz, of the file and of the encoder.

    Returns:
        First sample and number of samples to decode. The first is one at which a sample of the whole resampled file lies,
        so that the samples of the part lie where those of the whole file do.

    Example:
        >>> find_surroundings(44100, 44100, 44100, 16000)
        (41895, 48510)
    """
    if from_rate == to_rate:
        return start, n_samples
    margin, step = round(MARGIN_SECONDS * from_rate), from_rate // gcd(from_rate, to_rate)
    first = max(0, start - margin) // step * step
    return first, start + n_samples + margin - first


def resample_part(
    mono: NDArray[np.float32], first: int, start: int, n_samples: int, from_rate: int, to_rate: int
) -> NDArray[np.float32]:
    """Resample a part that was decoded with its surroundings.

    Args:
        mono: (samples,) from sample `first` of the file on, as `find_surroundings` says; fewer at the end of the file.
        first: as `find_surroundings` gives it.
        start, n_samples: of the part, at the file's own rate.
        from_rate, to_rate: Hz.

    Returns:
        (samples,) at `to_rate`: those of the whole resampled file, but for rounding of floats.
    """
    n_native = min(n_samples, len(mono) - (start - first))
    skipped = start * to_rate // from_rate - first * to_rate // from_rate
    samples = resample(mono, from_rate, to_rate)
    kept = samples[skipped : skipped + count_resampled(n_native, from_rate, to_rate)]
    return np.ascontiguousarray(kept, dtype=np.float32)


def decode_whole(sound: Opened, start: int, n_wanted: int) -> NDArray[np.float32]:
    """Decode a part of a sound, by a second decoder where the first ends before the sound does.

    Args:
        sound: an open file.
        start, n_wanted: of the part, in samples at the file's own rate.

    Returns:
        (samples, channels) float32.

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


def count_resampled(n_samples: int, from_rate: int, to_rate: int) -> int:
    """Count the samples after resampling, rounded up as a partial period still sounds.

    Example:
        >>> count_resampled(44100, 44100, 16000), count_resampled(3, 48000, 16000)
        (16000, 1)
    """
    return -(-n_samples * to_rate // from_rate)
