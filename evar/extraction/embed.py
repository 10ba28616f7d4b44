"""`evar.embed`: vectors of clips from an encoder, in one call, for use anywhere else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, overload

import numpy as np

from evar.audio.reading import AudioError
from evar.audio.segments import require_window
from evar.config.messages import progress_bar
from evar.config.registry import near_miss
from evar.extraction.audio_input import Clip, decode_clip, list_clips, require_rate
from evar.extraction.batching import in_batches, keep_float32, pad_clips
from evar.extraction.fusion import FUSIONS, fuse
from evar.extraction.loudness import LoudClips
from evar.extraction.windows import Window, WindowVectors, decode_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from evar.encoders.base import Encoder

    #: one clip, or a batch of equally long ones
    OneAudio: TypeAlias = NDArray[Any] | Tensor | str | PathLike[str] | bytes | BinaryIO | Mapping[str, Any]
    #: what `embed` takes
    Audio: TypeAlias = OneAudio | Sequence[OneAudio]
    #: (batch, width) float32
    Vectors: TypeAlias = NDArray[np.float32]
    Layers: TypeAlias = str | Sequence[str | int]

#: what may happen to files that cannot be read
ERRORS = ("warn", "raise", "return")


@overload
def embed(
    encoder: Encoder | str, audio: Audio, layers: None = None, fusion: str | None = None, *,
    sample_rate: int | None = None, pooling: str | None = None, batch_size: int | None = None,
    errors: Literal["warn", "raise"] = "warn",
) -> Vectors: ...  # fmt: skip
@overload
def embed(
    encoder: Encoder | str, audio: Audio, layers: Layers, fusion: str, *,
    sample_rate: int | None = None, pooling: str | None = None, batch_size: int | None = None,
    errors: Literal["warn", "raise"] = "warn",
) -> Vectors: ...  # fmt: skip
@overload
def embed(
    encoder: Encoder | str, audio: Audio, layers: Layers, fusion: None = None, *,
    sample_rate: int | None = None, pooling: str | None = None, batch_size: int | None = None,
    errors: Literal["warn", "raise"] = "warn",
) -> dict[str, Vectors]: ...  # fmt: skip
@overload
def embed(
    encoder: Encoder | str, audio: Audio, layers: None = None, fusion: str | None = None, *,
    sample_rate: int | None = None, pooling: str | None = None, batch_size: int | None = None,
    errors: Literal["return"],
) -> tuple[Vectors, dict[int, AudioError]]: ...  # fmt: skip
@overload
def embed(
    encoder: Encoder | str, audio: Audio, layers: Layers, fusion: str, *,
    sample_rate: int | None = None, pooling: str | None = None, batch_size: int | None = None,
    errors: Literal["return"],
) -> tuple[Vectors, dict[int, AudioError]]: ...  # fmt: skip
@overload
def embed(
    encoder: Encoder | str, audio: Audio, layers: Layers, fusion: None = None, *,
    sample_rate: int | None = None, pooling: str | None = None, batch_size: int | None = None,
    errors: Literal["return"],
) -> tuple[dict[str, Vectors], dict[int, AudioError]]: ...  # fmt: skip
@overload
def embed(
    encoder: Encoder | str, audio: Audio, layers: Layers | None = None, fusion: str | None = None, *,
    sample_rate: int | None = None, pooling: str | None = None, batch_size: int | None = None,
    errors: Literal["warn", "raise"] = "warn", window: float, hop: float | None = None,
) -> WindowVectors: ...  # fmt: skip
def embed(
    encoder: Encoder | str,
    audio: Audio,
    layers: Layers | None = None,
    fusion: str | None = None,
    *,
    sample_rate: int | None = None,
    pooling: str | None = None,
    batch_size: int | None = None,
    errors: Literal["warn", "raise", "return"] = "warn",
    window: float | None = None,
    hop: float | None = None,
) -> Any:
    """Compute one vector a clip, of one layer, several, or a fusion of layers; or one for each window of a clip.

    Files are decoded, mixed down and resampled as `evar lineval` does it, and the vectors are the same numbers. Several
    threads may call this at the same time, with one encoder or with several, and get the numbers that each gets alone.

    Args:
        encoder: as `load_encoder` gives it, or its name (then it is loaded with its published weights).
        audio: a waveform (samples,) or (batch, samples), as array or tensor; the path of a file; the bytes of a file, or a
            binary file that is open, such as `io.BytesIO`; a dictionary {'array', 'sampling_rate'}, {'path'} or {'bytes'} as
            the package `datasets` gives them; or a list of any of these. Floats in [-1, 1]; integers are taken for PCM of
            their type's range. Files are taken whole, up to half an hour, or in windows, of any length.
        layers: None for the encoder's default layers as one feature; "all", a list of names or positions (0 is the
            first layer, -1 the last), or "name,name".
        fusion: makes one feature of the layers: "concat" or "average".
        sample_rate: Hz of the waveforms, at least 1; None means that they are at the encoder's rate already.
        pooling: over time; None pools each layer as it declares.
        batch_size: clips a batch, at least 1; None takes as many as `encoder.batch_seconds` of audio.
        errors: what happens to a file of a list that cannot be read. "warn": its row is NaN, and one warning names all
            of them; "return": its row is NaN, and the errors are returned; "raise": the first of them is raised. The only
            clip of a call, and a list without one readable clip, raise an error under "warn" too.
        window: seconds; each clip is cut into windows, see `evar.audio.segments.cut_windows`. None takes clips whole.
        hop: seconds from the beginning of a window to that of the next; None takes `window`.

    Returns:
        (batch, width) float32 where `fusion` is given or `layers` is None (several default layers are concatenated);
        else {layer: (batch, width) float32}. Clips are in the order given. Under errors="return" a pair: these vectors, and
        {position: AudioError} of the clips that could not be read. With `window`, a `WindowVectors` instead of the vectors:
        windows x width, the clip of each window, and its start and end; clips that cannot be read have no windows.

    Raises:
        ValueError: if a layer, fusion or pooling is unknown, or a waveform is empty, not finite or of another shape.
        AudioError: a ValueError; if a file cannot be read, as `errors` says. It is named.

    Warns:
        RuntimeWarning: if files could not be read, under errors="warn"; and if samples lie far beyond [-1, 1].

    Example:
        >>> from evar.encoders import load_encoder
        >>> logmel = load_encoder("logmel")
        >>> embed(logmel, np.zeros((2, 16000), np.float32)).shape
        (2, 128)
        >>> vectors, errors = embed(logmel, [np.zeros(16000), "missing.wav"], errors="return")
        >>> list(errors), np.isnan(vectors).all(axis=1).tolist()
        ([1], [False, True])
        >>> found = embed(logmel, np.zeros(5 * 16000, np.float32), window=2.0, hop=1.0)
        >>> found.vectors.shape, found.start.tolist(), found.end.tolist()
        ((4, 128), [0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0])
    """
    from evar.encoders import load_encoder

    rate, lengths = _check_options(sample_rate, batch_size, errors, window, hop)
    clips = list_clips(audio)
    if isinstance(encoder, str):
        encoder = load_encoder(encoder)
    names, fusion = selection(encoder, layers, fusion, pooling)
    must_raise = errors == "raise" or (errors == "warn" and len(clips) == 1)
    if lengths is not None:
        return _embed_windows(encoder, clips, (names, fusion, pooling), (rate, batch_size, must_raise), lengths, errors)
    found, failed = _encode_clips(encoder, clips, names, pooling, rate, batch_size, must_raise)
    if failed and errors == "warn":
        _warn_or_raise(failed, len(clips))
    vectors = found if fusion is None else fuse(found, fusion)
    return (vectors, failed) if errors == "return" else vectors


def _check_options(
    sample_rate: int | None, batch_size: int | None, errors: str, window: float | None, hop: float | None
) -> tuple[int | None, tuple[float, float] | None]:
    """Check the options of `embed`; returns the rate in Hz, and (window, hop) in seconds or None for whole clips."""
    if errors not in ERRORS:
        raise ValueError(f"errors must be one of {', '.join(ERRORS)}, got {errors!r}")
    rate = None if sample_rate is None else require_rate(sample_rate)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if window is None:
        if hop is not None:
            raise ValueError(f"hop is the time between windows; give window too, got hop {hop:g} alone")
        return rate, None
    require_window(window, hop or window)
    return rate, (window, hop or window)


def _embed_windows(
    encoder: Encoder,
    clips: Sequence[Clip],
    features: tuple[list[str], str | None, str | None],
    settings: tuple[int | None, int | None, bool],
    lengths: tuple[float, float],
    errors: str,
) -> Any:
    """`embed` over windows: features are names, fusion and pooling; settings are rate, batch size, and whether to raise."""
    names, fusion, pooling = features
    sample_rate, batch_size, must_raise = settings
    failed: dict[int, AudioError] = {}
    found: dict[str, list[Vectors]] = {name: [] for name in names}
    places: list[tuple[int, float, float]] = []

    def take(portion: Sequence[Window]) -> None:
        ready = [Clip(window.waveform) for window in portion]
        vectors, _ = _encode_clips(encoder, ready, names, pooling, None, batch_size, True)
        for name in names:
            found[name].append(vectors[name])
        places.extend((window.clip, window.start, window.end) for window in portion)

    portion: list[Window] = []
    n_samples = 0
    for one in decode_windows(clips, encoder.sample_rate, sample_rate, lengths):
        if not isinstance(one, Window):
            if must_raise:
                raise one[1]
            failed[one[0]] = one[1]
            continue
        portion.append(one)
        n_samples += len(one.waveform)
        if n_samples >= 2 * encoder.batch_seconds * encoder.sample_rate:
            take(portion)
            portion, n_samples = [], 0
    if portion:
        take(portion)
    if failed and errors == "warn":
        _warn_or_raise(failed, len(clips))
    if not places:  # every clip failed, and the reasons are returned
        take([])
    joined = {name: np.concatenate(own) for name, own in found.items()}
    clip, start, end = (np.array([place[at] for place in places]) for at in range(3))
    vectors = joined if fusion is None else fuse(joined, fusion)
    result = WindowVectors(vectors, clip.astype(np.int64), start.astype(np.float64), end.astype(np.float64))
    return (result, failed) if errors == "return" else result


def _encode_clips(
    encoder: Encoder,
    clips: Sequence[Clip],
    names: Sequence[str],
    pooling: str | None,
    sample_rate: int | None,
    batch_size: int | None,
    must_raise: bool,
) -> tuple[dict[str, Vectors], dict[int, AudioError]]:
    """Layer -> (batch, width), NaN in the rows of clips that could not be read, and why these could not."""
    import torch

    from evar.encoders.pooling import count_pooled_features, pool

    how = {name: pooling or encoder.layer(name).pooling for name in names}
    widths = {name: count_pooled_features(encoder.layer(name).width, how[name]) for name in names}
    vectors = {name: np.full((len(clips), width), np.nan, np.float32) for name, width in widths.items()}
    failed: dict[int, AudioError] = {}
    loud = LoudClips()
    max_samples = max(1, int(encoder.batch_seconds * encoder.sample_rate))
    keep_float32()
    with (
        progress_bar(total=len(clips), desc=encoder.name, unit="clip", delay=3, leave=False) as bar,
        torch.inference_mode(),
    ):
        for positions, part in _decode_portions(clips, encoder.sample_rate, sample_rate, failed, must_raise):
            for position, waveform in zip(positions, part, strict=True):
                loud.look(f"clip {position}", waveform)
            samples = [len(clip) for clip in part]
            order = sorted(range(len(part)), key=lambda i: -samples[i])
            for batch in in_batches(
                order, samples, max_samples, batch_size=batch_size, equal_lengths=not encoder.batch_invariant
            ):
                features = encoder.encode(*pad_clips([part[at] for at in batch]))
                rows = np.array([positions[at] for at in batch])
                for name in names:
                    vectors[name][rows] = pool(features[name], features.frames[name], how[name]).float().cpu().numpy()
                bar.update(len(batch))
    if text := loud.describe():
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    return vectors, failed


#: seconds of audio that are decoded before they are sorted into batches
_SECONDS_AHEAD = 600.0


def _decode_portions(
    clips: Sequence[Clip], to_rate: int, sample_rate: int | None, failed: dict[int, AudioError], must_raise: bool
) -> Iterator[tuple[list[int], list[NDArray[np.float32]]]]:
    """Portions of clips at the encoder's rate, with their positions: memory is bounded by a portion."""
    positions: list[int] = []
    portion: list[NDArray[np.float32]] = []
    n_samples = 0
    for position, clip in enumerate(clips):
        try:
            waveform = decode_clip(clip, position, to_rate, sample_rate)
        except AudioError as error:
            if must_raise:
                raise
            failed[position] = error
            continue
        positions.append(position)
        portion.append(waveform)
        n_samples += len(waveform)
        if n_samples >= _SECONDS_AHEAD * to_rate:
            yield positions, portion
            positions, portion, n_samples = [], [], 0
    if portion:
        yield positions, portion


def _warn_or_raise(failed: Mapping[int, AudioError], n_clips: int) -> None:
    reasons = [str(error) for error in failed.values()]
    shown = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
    if len(failed) == n_clips:
        raise AudioError(f"none of {n_clips} clips could be read: {shown}")
    warnings.warn(
        f"{len(failed)} of {n_clips} clips could not be read, and their rows are NaN: {shown}; errors='return' gives the "
        "reasons, errors='raise' stops at the first",
        RuntimeWarning,
        stacklevel=3,
    )


def selection(
    encoder: Encoder, layers: str | Sequence[str | int] | None, fusion: str | None, pooling: str | None
) -> tuple[list[str], str | None]:
    """Resolve the layers that the caller names, and the fusion of them (None: each layer is a feature).

    Args:
        encoder, layers, fusion, pooling: as for `embed`.

    Returns:
        The names of the layers, and the fusion: "none" takes the only layer, None keeps each layer as a feature.

    Raises:
        ValueError: if a layer, fusion or pooling is unknown.

    Example:
        >>> from evar.encoders import load_encoder
        >>> logmel = load_encoder("logmel")
        >>> selection(logmel, None, None, None), selection(logmel, "all", None, None)
        ((['logmel'], 'none'), (['logmel'], None))
    """
    from evar.encoders.layer_choice import choose_layers
    from evar.encoders.pooling import find_pooling

    names = choose_layers(encoder, layers)
    if layers is None and fusion is None:
        fusion = "none" if len(names) == 1 else "concat"
    elif fusion is not None and fusion not in FUSIONS and not (fusion == "none" and len(names) == 1):
        raise ValueError(f"no fusion {fusion!r} for {len(names)} layers; {near_miss(fusion, FUSIONS)}")
    if pooling is not None:
        find_pooling(pooling)
    return names, fusion
