"""`evar.embed`: vectors of clips from an encoder, in one call, for use anywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import MIN_SECONDS, AudioError, read, resample
from evar.config.registry import near_miss
from evar.extraction.batching import in_batches, keep_float32, padded
from evar.extraction.fusion import FUSIONS, fuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder


def embed(
    encoder: Encoder | str,
    audio: Any,
    layers: str | Sequence[str | int] | None = None,
    fusion: str | None = None,
    *,
    sample_rate: int | None = None,
    pooling: str | None = None,
    batch_size: int | None = None,
) -> Any:
    """One vector a clip, of one layer, several, or a fusion of layers.

    Files are decoded, mixed down and resampled as `evar lineval` does it, and the vectors are the same numbers.

    Args:
        encoder: as `load_encoder` gives it, or its name (then it is loaded with its published weights).
        audio: a waveform (samples,) or (batch, samples), as array or tensor; a list of (samples,) waveforms of any
            lengths; a path; or a list of paths. Floats in [-1, 1]; integers are taken for PCM of their type's range.
            Files are taken whole.
        layers: None for the encoder's default layers as one feature; "all", a list of names or positions (0 is the
            first layer, -1 the last), or "name,name".
        fusion: makes one feature of the layers: "concat" or "average".
        sample_rate: Hz of the waveforms; None means that they are at the encoder's rate already.
        pooling: over time; None pools each layer as it declares.
        batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.

    Returns:
        (batch, width) float32 where `fusion` is given or `layers` is None (several default layers are concatenated);
        else {layer: (batch, width) float32}. Clips are in the order given.

    Raises:
        ValueError: if a layer, fusion or pooling is unknown, or a clip is empty, not finite, of another shape or cannot
            be decoded; it is named.

    Example:
        >>> from evar.encoders import load_encoder
        >>> embed(load_encoder("logmel"), np.zeros((2, 16000), np.float32)).shape
        (2, 128)
    """
    import torch
    from tqdm import tqdm

    from evar.encoders import load_encoder
    from evar.encoders.pooling import pool

    if isinstance(encoder, str):
        encoder = load_encoder(encoder)
    names, fusion = selection(encoder, layers, fusion, pooling)
    clips = _clips(audio)
    rate = sample_rate or encoder.sample_rate
    vectors: dict[str, NDArray[np.float32]] = {}
    max_samples = max(1, int(encoder.batch_seconds * encoder.sample_rate))
    keep_float32()
    bar = tqdm(total=len(clips), desc=encoder.name, unit="clip", delay=3, leave=False, disable=None)
    with torch.inference_mode():
        for begin, part in _portions(clips, encoder.sample_rate, rate):
            samples = [len(clip) for clip in part]
            order = sorted(range(len(part)), key=lambda i: -samples[i])
            for batch in in_batches(
                order, samples, max_samples, batch_size=batch_size, equal_lengths=not encoder.batch_invariant
            ):
                features = encoder.encode(*padded([part[position] for position in batch]))
                for name in names:
                    how = pooling or encoder.layer(name).pooling
                    pooled = pool(features[name], features.frames[name], how).float().cpu().numpy()
                    target = vectors.setdefault(name, np.empty((len(clips), pooled.shape[1]), np.float32))
                    target[np.array(batch) + begin] = pooled
                bar.update(len(batch))
    bar.close()
    return vectors if fusion is None else fuse(vectors, fusion)


#: seconds of audio that are decoded before they are sorted into batches
_SECONDS_AHEAD = 600.0


def _portions(clips: Sequence[Any], to_rate: int, from_rate: int) -> Iterator[tuple[int, list[NDArray[np.float32]]]]:
    """Portions of clips at the encoder's rate, each with the position of its first: memory is bounded by a portion."""
    portion: list[NDArray[np.float32]] = []
    begin = n_samples = 0
    for position, clip in enumerate(clips):
        portion.append(_waveform(clip, position, to_rate, from_rate))
        n_samples += len(portion[-1])
        if n_samples >= _SECONDS_AHEAD * to_rate:
            yield begin, portion
            begin, portion, n_samples = position + 1, [], 0
    if portion:
        yield begin, portion


def selection(
    encoder: Encoder, layers: str | Sequence[str | int] | None, fusion: str | None, pooling: str | None
) -> tuple[list[str], str | None]:
    """The layers that are asked for, and the fusion that makes one feature of them (None: each is a feature).

    Args:
        encoder, layers, fusion, pooling: as for `embed`.

    Raises:
        ValueError: if a layer, fusion or pooling is unknown.
    """
    from evar.encoders.pooling import find_pooling

    names = _layer_names(encoder, layers)
    if layers is None and fusion is None:
        fusion = "none" if len(names) == 1 else "concat"
    elif fusion is not None and fusion not in FUSIONS and not (fusion == "none" and len(names) == 1):
        raise ValueError(f"no fusion {fusion!r} for {len(names)} layers; {near_miss(fusion, FUSIONS)}")
    if pooling is not None:
        find_pooling(pooling)
    return names, fusion


def _layer_names(encoder: Encoder, layers: str | Sequence[str | int] | None) -> list[str]:
    if layers is None or layers == "default":
        return list(encoder.default_layers)
    if layers == "all":
        return [layer.name for layer in encoder.layer_infos]
    asked = layers.split(",") if isinstance(layers, str) else list(layers)
    return list(encoder.layer_names(asked))


def _clips(audio: Any) -> list[Any]:
    """A list of paths and (samples,) arrays."""
    if isinstance(audio, str | Path):
        return [Path(audio)]
    if isinstance(audio, list | tuple):
        if not audio:
            raise ValueError("audio must hold at least one clip, got an empty list")
        if any(isinstance(item, float | int) for item in audio):
            raise ValueError(
                "audio must be an array or a list of arrays, got a list of numbers; use numpy.array(audio)"
            )
        return [clip for item in audio for clip in _clips(item)]
    array = _as_float(audio)
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


def _as_float(audio: Any) -> NDArray[np.float32]:
    """An array or tensor as float32; integer PCM is divided by its type's full scale."""
    array = audio.detach().cpu().numpy() if hasattr(audio, "detach") else np.asarray(audio)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(array.dtype, np.signedinteger):
        return (array / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"audio must be float or integer samples, a path, or a list of these, got {array.dtype}")
    return array.astype(np.float32, copy=False)


def _waveform(clip: Any, position: int, to_rate: int, from_rate: int) -> NDArray[np.float32]:
    if isinstance(clip, Path):
        try:
            return read(clip, to_rate)
        except AudioError as error:
            raise AudioError(f"{clip}: {error}") from error
    if len(clip) < max(1.0, MIN_SECONDS * from_rate):
        raise ValueError(f"clip {position} has {len(clip)} samples at {from_rate} Hz, under {MIN_SECONDS} s")
    if not np.isfinite(clip).all():
        raise ValueError(f"clip {position} has {int((~np.isfinite(clip)).sum())} samples that are NaN or infinite")
    return resample(np.ascontiguousarray(clip), from_rate, to_rate)
