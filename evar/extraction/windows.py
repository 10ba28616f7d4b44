"""`evar.embed` over windows: recordings of any length, one vector for each window, in memory that one portion bounds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.reading import MIN_SECONDS, AudioError, measure
from evar.audio.segments import Segment, cut_windows
from evar.audio.sound_pool import SoundPool
from evar.extraction.audio_input import Clip, decode_clip

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class WindowVectors:
    """Vectors of windows, and where these are.

    Attributes:
        vectors: (windows, width) float32, or layer -> (windows, width), as `evar.embed` gives them for clips. Windows are in
            the order of the clips and of time.
        clip: (windows,) int64, position of the clip in the list that was given.
        start, end: (windows,) float64, seconds from the beginning of the clip.
    """

    vectors: Any
    clip: NDArray[np.int64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.clip)


@dataclass(frozen=True)
class Window:
    """A window that was decoded.

    Attributes:
        clip: position of its clip.
        start, end: seconds from the beginning of the clip.
        waveform: (samples,) float32 at the encoder's rate.
    """

    clip: int
    start: float
    end: float
    waveform: NDArray[np.float32]


def decode_windows(
    clips: Sequence[Clip], to_rate: int, sample_rate: int | None, lengths: tuple[float, float]
) -> Iterator[Window | tuple[int, AudioError]]:
    """Decode clips window by window; of a file, no more is in memory than a window.

    Args:
        clips: as `list_clips` gives them.
        to_rate: Hz of the encoder.
        sample_rate: Hz of samples that do not say it; None means `to_rate`.
        lengths: seconds of a window, and from the beginning of one to that of the next.

    Yields:
        Each window, in order; or the position of a clip that cannot be read, and why.

    Example:
        >>> clips = [Clip(np.zeros(8000, np.float32))]
        >>> [(window.start, window.end) for window in decode_windows(clips, 8000, None, (0.5, 0.5))]
        [(0.0, 0.5), (0.5, 1.0)]
    """
    for position, clip in enumerate(clips):
        try:
            if isinstance(clip.source, bytes):
                with tempfile.TemporaryDirectory(prefix="evar") as folder:
                    path = Path(folder) / "clip"
                    path.write_bytes(clip.source)
                    yield from _decode_file(position, path, to_rate, lengths)
            elif clip.source is not None:
                yield from _decode_file(position, clip.source, to_rate, lengths)
            else:
                whole = decode_clip(clip, position, to_rate, sample_rate)
                for start, end in cut_windows(len(whole) / to_rate, *lengths):
                    first = round(start * to_rate)
                    samples = whole[first : first + round((end - start) * to_rate)]
                    if len(samples) >= MIN_SECONDS * to_rate:
                        yield Window(position, start, end, samples)
        except AudioError as error:
            name = f"clip {position}" if clip.source is None or isinstance(clip.source, bytes) else str(clip.source)
            yield position, AudioError(f"{name}: {error}")


def _decode_file(position: int, path: Path, to_rate: int, lengths: tuple[float, float]) -> Iterator[Window]:
    n_samples, own_rate = measure(path)
    with SoundPool() as pool:
        for start, end in cut_windows(n_samples / own_rate, *lengths):
            place = Segment(path, start, end).locate(n_samples, own_rate)
            yield Window(position, start, end, pool.read(path, *place, to_rate))
