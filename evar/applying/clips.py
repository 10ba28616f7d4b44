"""Sounds of any origin as vectors, clip by clip in their order, in bounded memory; a clip that cannot be used says why."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import ClipPolicy, inspect, read_clip
from evar.audio.segments import Segment
from evar.audio.sound_pool import SoundPool
from evar.extraction.audio_input import Clip, decode_clip
from evar.extraction.embed import embed
from evar.extraction.fusion import fuse
from evar.extraction.loudness import LoudClips

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder

#: seconds of audio that are decoded before they are encoded, and clips that are decoded at the same time
_SECONDS_AHEAD, _CLIPS_AHEAD = 300.0, 16
Statistics = tuple[float, float] | None


@dataclass(frozen=True)
class Sound:
    """A clip that has not been decoded.

    Attributes:
        name: of the clip, for tables and messages.
        clip: a file or samples.
        columns: cells of the user's table that are carried along to the predictions.
        times: start and end in seconds, of a part of the file; None for the whole file.
    """

    name: str
    clip: Clip
    columns: tuple[str, ...] = ()
    times: tuple[float, float] | None = None


@dataclass(frozen=True)
class Embedded:
    """The vectors of one clip.

    Attributes:
        sound: the clip.
        vectors: input statistics -> (width,) float32; empty for a clip that cannot be used.
        problem: why it cannot be used; "" where it can.
        cut_seconds: seconds of the file, where only a part of it was used; else 0.
        start, end: seconds of a window; None for clips.
    """

    sound: Sound
    vectors: dict[Statistics, NDArray[np.float32]]
    problem: str = ""
    cut_seconds: float = 0.0
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class VectorRecipe:
    """How a clip becomes one vector.

    Attributes:
        layers, fusion: as in `evar.experiment.selection.Selection`.
        policy: which part of a file is the clip.
        statistics: input statistics that vectors are wanted for; (None,) for an encoder without.
    """

    layers: tuple[str, ...]
    fusion: str
    policy: ClipPolicy
    statistics: tuple[Statistics, ...] = (None,)


def embed_sounds(
    encoder: Encoder,
    sounds: Iterable[Sound],
    recipe: VectorRecipe,
    *,
    sample_rate: int | None = None,
    batch_size: int | None = None,
) -> Iterator[Embedded]:
    """Yield the vectors of each clip, in the order given.

    Args:
        encoder: as `load_encoder` gives it.
        sounds: taken a few at a time, so that there may be any number of them.
        recipe: how a clip becomes a vector.
        sample_rate: Hz of samples that do not say it; None: the encoder's.
        batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.

    Yields:
        One for every sound. A clip that cannot be read, or whose vector is not finite, has a problem in place of vectors.
    """
    waiting, loud = iter(sounds), LoudClips()
    portion: list[_Decoded] = []
    with SoundPool() as pool, ThreadPoolExecutor(4) as threads:
        while block := list(islice(waiting, _CLIPS_AHEAD)):
            positions = range(len(block))
            decode = [
                threads.submit(_decode, sound, position, encoder.sample_rate, recipe.policy, sample_rate, pool)
                for position, sound in zip(positions, block, strict=True)
            ]
            for future in decode:
                portion.append(future.result())
                if portion[-1].samples is not None:
                    loud.look(portion[-1].sound.name, portion[-1].samples)
            n_samples = sum(0 if one.samples is None else len(one.samples) for one in portion)
            if n_samples >= _SECONDS_AHEAD * encoder.sample_rate:
                yield from _encode(encoder, portion, recipe, batch_size)
                portion = []
    if portion:
        yield from _encode(encoder, portion, recipe, batch_size)
    if text := loud.describe():
        warnings.warn(text, RuntimeWarning, stacklevel=2)


@dataclass(frozen=True)
class _Decoded:
    sound: Sound
    samples: NDArray[np.float32] | None
    problem: str = ""
    cut_seconds: float = 0.0


def _decode(
    sound: Sound, position: int, to_rate: int, policy: ClipPolicy, sample_rate: int | None, pool: SoundPool
) -> _Decoded:
    try:
        if isinstance(sound.clip.source, Path):
            place = sound.clip.source if sound.times is None else Segment(sound.clip.source, *sound.times)
            info = inspect(place)
            samples = read_clip(place, info, policy, to_rate, pool)
            seconds = info.n_samples / info.sample_rate
        else:
            samples = decode_clip(sound.clip, position, to_rate, sample_rate)
            seconds = len(samples) / to_rate
            samples = _cut(samples, policy, to_rate)
    except ValueError as error:  # AudioError is one
        return _Decoded(sound, None, " ".join(str(error).split()))
    is_cut = policy.seconds is not None and seconds > policy.seconds + 0.01
    return _Decoded(sound, samples, "", seconds if is_cut else 0.0)


def _cut(samples: NDArray[np.float32], policy: ClipPolicy, rate: int) -> NDArray[np.float32]:
    """Cut the head of a waveform as the policy has it; random parts are those of files, which have a hash."""
    if policy.seconds is None:
        return samples
    n_wanted = round(policy.seconds * rate)
    if policy.pad == "zero_end" and len(samples) < n_wanted:
        return np.pad(samples, (0, n_wanted - len(samples)))
    return samples[:n_wanted]


def _encode(
    encoder: Encoder, portion: Sequence[_Decoded], recipe: VectorRecipe, batch_size: int | None
) -> Iterator[Embedded]:
    usable = [one.samples for one in portion if one.samples is not None]
    found = {stats: embed_waveforms(encoder, usable, recipe, stats, batch_size) for stats in recipe.statistics}
    row = 0
    for one in portion:
        if one.samples is None:
            yield Embedded(one.sound, {}, one.problem)
            continue
        vectors = {stats: rows[row] for stats, rows in found.items()}
        row += 1
        if all(np.isfinite(vector).all() for vector in vectors.values()):
            yield Embedded(one.sound, vectors, "", one.cut_seconds)
        else:
            yield Embedded(one.sound, {}, f"layer {'+'.join(recipe.layers)} of {encoder.name} is not finite for it")


def embed_waveforms(
    encoder: Encoder,
    waveforms: Sequence[NDArray[np.float32]],
    recipe: VectorRecipe,
    stats: Statistics,
    batch_size: int | None = None,
) -> NDArray[np.float32]:
    """Return the vectors of waveforms at the encoder's rate.

    Args:
        encoder: as `load_encoder` gives it.
        waveforms: each (samples,) float32.
        recipe: layers and fusion.
        stats: input statistics to hold meanwhile; None leaves the encoder as it is.
        batch_size: as for `embed_sounds`.

    Returns:
        (waveforms, width) float32.
    """
    if not waveforms:
        return np.zeros((0, 0), np.float32)
    with encoder.normalising_by(stats or encoder.norm_stats), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RuntimeWarning)  # of loud samples: said once, by name
        audio: Any = list(waveforms)
        layers: dict[str, NDArray[np.float32]] = embed(encoder, audio, list(recipe.layers), batch_size=batch_size)
    return fuse(layers, recipe.fusion)
