"""The audio that `evar.embed` takes: arrays, tensors, files, open files, and the dictionaries of `datasets`, as clips."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import MIN_SECONDS, AudioError, read, resample

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Clip:
    """One clip that has not been decoded.

    Attributes:
        samples: (samples,) float32, or None for an encoded file.
        source: path or bytes of an encoded file, or None for samples.
        sample_rate: Hz of the samples; None if the caller named none.
    """

    samples: NDArray[np.float32] | None = None
    source: Path | bytes | None = None
    sample_rate: int | None = None


def list_clips(audio: Any) -> list[Clip]:
    """List the clips of any value that can hold audio.

    Args:
        audio: as for `evar.embed`.

    Returns:
        The clips in the order given; each row of an array (batch, samples) is one.

    Raises:
        ValueError: if it is no audio, empty, or of an ambiguous shape.

    Example:
        >>> [clip.samples.shape for clip in list_clips(np.zeros((2, 8000)))]
        [(8000,), (8000,)]
        >>> list_clips({"array": np.zeros(8000), "sampling_rate": 8000})[0].sample_rate
        8000
    """
    if isinstance(audio, str | os.PathLike):
        return [Clip(source=_require_file(Path(audio)))]
    if isinstance(audio, bytes | bytearray | memoryview):
        return [Clip(source=bytes(audio))]
    if hasattr(audio, "read") and not hasattr(audio, "shape"):
        return [Clip(source=_read_open_file(audio))]
    if isinstance(audio, Mapping):
        return _list_clips_of_dictionary(audio)
    if isinstance(audio, list | tuple):
        if not audio:
            raise ValueError("audio must hold at least one clip, got an empty list")
        if any(isinstance(item, float | int) for item in audio):
            raise ValueError(
                "audio must be an array or a list of arrays, got a list of numbers; use numpy.array(audio)"
            )
        return [clip for item in audio for clip in list_clips(item)]
    return [Clip(samples) for samples in _split_rows(_to_float(audio))]


def decode_clip(clip: Clip, position: int, to_rate: int, sample_rate: int | None) -> NDArray[np.float32]:
    """Return a clip as (samples,) float32 at `to_rate`.

    Args:
        clip: one of `list_clips`.
        position: in the list, for messages.
        to_rate: Hz.
        sample_rate: Hz of samples that do not say it; None means `to_rate`.

    Returns:
        (samples,) float32 at `to_rate`.

    Raises:
        AudioError: if a file cannot be decoded; it is named.
        ValueError: if samples are too few, or not finite.

    Example:
        >>> decode_clip(Clip(np.ones(8000, np.float32)), 0, to_rate=16000, sample_rate=8000).shape
        (16000,)
    """
    if isinstance(clip.source, Path):
        return _read_named(clip.source, str(clip.source), to_rate)
    if clip.source is not None:
        with tempfile.TemporaryDirectory(prefix="evar") as folder:
            path = Path(folder) / "clip"
            path.write_bytes(clip.source)
            return _read_named(path, f"clip {position} ({len(clip.source)} bytes)", to_rate)
    samples = clip.samples
    assert samples is not None
    from_rate = clip.sample_rate or sample_rate or to_rate
    if len(samples) < max(1.0, MIN_SECONDS * from_rate):
        raise ValueError(f"clip {position} has {len(samples)} samples at {from_rate} Hz, under {MIN_SECONDS} s")
    if not np.isfinite(samples).all():
        raise ValueError(f"clip {position} has {int((~np.isfinite(samples)).sum())} samples that are NaN or infinite")
    return resample(np.ascontiguousarray(samples), from_rate, to_rate)


def require_rate(sample_rate: Any) -> int:
    """Return a sample rate in Hz as a whole number.

    Args:
        sample_rate: Hz, as the caller gave it; any kind of number.

    Returns:
        The same rate as an int, at least 1.

    Raises:
        ValueError: if it is not a whole number of at least 1.

    Example:
        >>> require_rate(16000.0)
        16000
        >>> require_rate(0)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: sample_rate must be a whole number of Hz, at least 1, got 0; ...
    """
    try:
        rate = int(sample_rate)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate < 1 or rate != sample_rate:
        raise ValueError(f"sample_rate must be a whole number of Hz, at least 1, got {sample_rate!r}; leave it out where "
                         "the waveforms are at the encoder's own rate")  # fmt: skip
    return rate


def _list_clips_of_dictionary(audio: Mapping[str, Any]) -> list[Clip]:
    """List the clips of `datasets.Audio`: decoded, {'array', 'sampling_rate'}, or not decoded, {'bytes', 'path'}."""
    array = audio.get("array")
    if array is not None:
        rate = audio.get("sampling_rate", audio.get("sample_rate"))
        if rate is None:
            raise ValueError(f"a dictionary with 'array' must have 'sampling_rate' too, got {sorted(audio)}")
        return [Clip(samples, sample_rate=require_rate(rate)) for samples in _split_rows(_to_float(array))]
    if audio.get("bytes") is not None:
        return [Clip(source=bytes(audio["bytes"]))]
    if audio.get("path") is not None:
        return [Clip(source=_require_file(Path(audio["path"])))]
    raise ValueError(
        f"a dictionary of audio must have 'array' and 'sampling_rate', or 'path' or 'bytes', got {sorted(map(str, audio))}"
    )


def _require_file(path: Path) -> Path:
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder, expected an audio file; give its files, such as "
            f"sorted(Path({str(path)!r}).rglob('*.wav')), or use the command evar embed ENCODER {path} -o FILE"
        )
    return path


def _read_open_file(file: Any) -> bytes:
    data = file.read()
    if not isinstance(data, bytes):
        raise ValueError("an open file must be binary, got text; open it with mode 'rb'")
    return data


def _read_named(path: Path, name: str, to_rate: int) -> NDArray[np.float32]:
    try:
        return read(path, to_rate)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error


def _split_rows(array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The clips of (samples,) or (batch, samples)."""
    if array.ndim == 1:
        return [array]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"audio must be (samples,) or (batch, samples), got shape {array.shape}; mix channels down first, "
            "or give the file's path"
        )
    if array.shape[1] <= 2 < array.shape[0]:
        raise ValueError(
            f"audio must be (batch, samples), got shape {array.shape}; is it (samples, channels)? use audio.mean(axis=1)"
        )
    return list(array)


def _to_float(audio: Any) -> NDArray[np.float32]:
    """An array or tensor as float32; integer PCM is divided by its type's full scale."""
    if hasattr(audio, "detach"):  # half precision of torch's own has no counterpart in numpy
        tensor = audio.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    else:
        array = np.asarray(audio)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(array.dtype, np.signedinteger):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"audio must be float or integer samples, a path, or a list of these, got {array.dtype}")
    return array.astype(np.float32, copy=False)
