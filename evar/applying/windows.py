"""Recordings of any length as vectors of windows, in memory that does not grow with the recording."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.applying.clips import Embedded, Sound, VectorRecipe, embed_waveforms
from evar.audio.segments import require_window
from evar.extraction.windows import Window, decode_windows

if TYPE_CHECKING:
    from evar.encoders.base import Encoder

#: seconds of audio that are decoded before they are encoded
_SECONDS_AHEAD = 300.0


@dataclass(frozen=True)
class Windows:
    """How recordings are cut, as `evar.audio.segments.cut_windows` does it.

    Attributes:
        seconds: of a window.
        hop: seconds from the beginning of a window to that of the next.

    Raises:
        ValueError: if one of them is not above 0.
    """

    seconds: float
    hop: float

    def __post_init__(self) -> None:
        require_window(self.seconds, self.hop)

    @classmethod
    def of(cls, window: float | None, hop: float | None) -> Windows | None:
        """Make windows from the words of a command; None for whole clips.

        Args:
            window: seconds, or None for whole clips.
            hop: seconds; None: windows touch each other.

        Raises:
            ValueError: if a hop is given without a window, or one of them is not above 0.

        Example:
            >>> Windows.of(3.0, None), Windows.of(None, None)
            (Windows(seconds=3.0, hop=3.0), None)
        """
        if window is None:
            if hop is not None:
                raise ValueError(f"--hop={hop:g} is the step of windows, whose length --window=SECONDS is missing")
            return None
        return cls(float(window), float(window if hop is None else hop))


def embed_windows(
    encoder: Encoder,
    sounds: Iterable[Sound],
    recipe: VectorRecipe,
    windows: Windows,
    *,
    sample_rate: int | None = None,
    batch_size: int | None = None,
) -> Iterator[Embedded]:
    """Yield the vectors of each window, in the order of the sounds and of time.

    Args:
        encoder: as `load_encoder` gives it.
        sounds: taken one at a time.
        recipe: layers, fusion and input statistics; which part of a file is the clip has no say here.
        windows: how each sound is cut.
        sample_rate: Hz of samples that do not say it; None: the encoder's.
        batch_size: windows a batch; None takes as many as `encoder.batch_seconds` of audio.

    Yields:
        One for every window; a sound that cannot be read has one with a problem and no times, after its readable windows.
    """
    portion: list[tuple[Sound, Window | str]] = []
    seconds = 0.0
    for sound in sounds:
        for found in decode_windows([sound.clip], encoder.sample_rate, sample_rate, (windows.seconds, windows.hop)):
            if isinstance(found, Window):
                portion.append((sound, found))
                seconds += len(found.waveform) / encoder.sample_rate
            else:
                file = sound.clip.source if isinstance(sound.clip.source, Path) else "clip 0"
                reason = str(found[1]).removeprefix(f"{file}: ")
                portion.append((sound, " ".join(reason.split())))
            if seconds >= _SECONDS_AHEAD:
                yield from _encode(encoder, portion, recipe, batch_size)
                portion, seconds = [], 0.0
    yield from _encode(encoder, portion, recipe, batch_size)


def _encode(
    encoder: Encoder, portion: Sequence[tuple[Sound, Window | str]], recipe: VectorRecipe, batch_size: int | None
) -> Iterator[Embedded]:
    waveforms = [found.waveform for _, found in portion if isinstance(found, Window)]
    made = {stats: embed_waveforms(encoder, waveforms, recipe, stats, batch_size) for stats in recipe.statistics}
    row = 0
    for sound, found in portion:
        if isinstance(found, str):
            yield Embedded(sound, {}, found)
            continue
        vectors = {stats: rows[row] for stats, rows in made.items()}
        row += 1
        is_finite = all(np.isfinite(vector).all() for vector in vectors.values())
        problem = "" if is_finite else f"layer {'+'.join(recipe.layers)} of {encoder.name} is not finite for it"
        yield Embedded(sound, vectors if is_finite else {}, problem, 0.0, found.start, found.end)
