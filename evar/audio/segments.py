"""Parts of sound files: a file with a start and an end in seconds, its address as text, and the windows of a recording."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evar.audio.errors import AudioError

#: an annotation may end this much after its file, in seconds: tables hold rounded times; such a part ends with the file
SPARE_SECONDS = 0.1
#: the last window of a recording is kept if it is at least this share of a whole one
LEAST_SHARE = 0.5
#: a file name, and the times of a media fragment
_ADDRESS = re.compile(r"(.+)#t=(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)?", re.DOTALL)


@dataclass(frozen=True)
class Segment(os.PathLike[str]):
    """A part of a sound file. Whoever opens it as a path opens the whole file; `evar.audio` reads the part.

    Attributes:
        file: that holds it.
        start: seconds from the beginning of the file, at least 0.
        end: seconds from the beginning of the file, above `start`; infinity stands for the end of the file.

    Raises:
        ValueError: if the times are not in order.

    Example:
        >>> str(Segment(Path("field.wav"), 1.5, 4.0))
        'field.wav#t=1.5,4'
    """

    file: Path
    start: float
    end: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a segment must begin at 0 or later and before its end, got {self.start} to {self.end} s")

    def __fspath__(self) -> str:
        return str(self.file)

    def __str__(self) -> str:
        return format_address(str(self.file), self.start, self.end)

    @property
    def name(self) -> str:
        """Name of the file, with the times."""
        return format_address(self.file.name, self.start, self.end)

    def is_file(self) -> bool:
        """Tell whether the file is there."""
        return self.file.is_file()

    def stat(self) -> os.stat_result:
        """State of the file."""
        return self.file.stat()

    def locate(self, n_samples: int, sample_rate: int) -> tuple[int, int]:
        """Find the part in a file.

        Args:
            n_samples: of the file, per channel.
            sample_rate: Hz, of the file.

        Returns:
            Its first sample, and how many samples it has. Equally long parts have the same number, wherever they begin.

        Raises:
            AudioError: if it is not inside the file.

        Example:
            >>> Segment(Path("field.wav"), 1.5, 4.0).locate(16000 * 60, 16000)
            (24000, 40000)
        """
        seconds, first = n_samples / sample_rate, round(self.start * sample_rate)
        if first >= n_samples or (math.isfinite(self.end) and self.end > seconds + SPARE_SECONDS):
            told = f"{self.start:g} to {self.end:g} s" if math.isfinite(self.end) else f"from {self.start:g} s on"
            raise AudioError(
                f"the segment ({told}) is not inside the file, which lasts {seconds:.2f} s; mend its times"
            )
        if not math.isfinite(self.end):
            return first, n_samples - first
        return first, min(round((self.end - self.start) * sample_rate), n_samples - first)


def format_address(path: str, start: float, end: float = math.inf) -> str:
    """Name a part of a file in one text, as an address with a media fragment.

    Args:
        path: of the file.
        start, end: seconds; they are written to a millionth.

    Source: W3C, Media Fragments URI 1.0, section 4.2.1 (temporal dimension).

    Example:
        >>> format_address("field.wav", 1.5, 4.0), format_address("field.wav", 2.0)
        ('field.wav#t=1.5,4', 'field.wav#t=2,')
    """
    return f"{path}#t={format_seconds(start)},{format_seconds(end) if math.isfinite(end) else ''}"


def format_seconds(seconds: float) -> str:
    """Write a time to a millionth of a second, without zeros at the end.

    Example:
        >>> format_seconds(1.50), format_seconds(1 / 3)
        ('1.5', '0.333333')
    """
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def parse_address(text: str) -> tuple[str, float, float] | None:
    """Read what `format_address` wrote; None for the name of a whole file.

    Example:
        >>> parse_address("field.wav#t=1.5,4"), parse_address("field.wav#t=2,"), parse_address("field.wav")
        (('field.wav', 1.5, 4.0), ('field.wav', 2.0, inf), None)
    """
    found = _ADDRESS.fullmatch(text) if "#t=" in text else None
    return (found[1], float(found[2]), float(found[3]) if found[3] else math.inf) if found else None


def name_file(text: str) -> str:
    """Return the path of the file in an address, which may be the file itself.

    Example:
        >>> name_file("field.wav#t=1.5,4"), name_file("field.wav")
        ('field.wav', 'field.wav')
    """
    found = parse_address(text)
    return found[0] if found else text


def file_of(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path or a segment stands for.

    Example:
        >>> file_of(Segment(Path("field.wav"), 1.5, 4.0)).name
        'field.wav'
    """
    return path.file if isinstance(path, Segment) else Path(path)


def cut_windows(seconds: float, window: float, hop: float) -> Iterator[tuple[float, float]]:
    """Cut a recording into windows.

    Windows begin at 0, hop, 2 hop, ... The last one ends with the recording and may be shorter than the others. It is left
    out if it is shorter than half a window, unless it is the only one. So nothing is left out where hop is at most half a
    window.

    Args:
        seconds: that the recording lasts, above 0.
        window: seconds of a window, above 0.
        hop: seconds from the beginning of a window to that of the next, above 0.

    Yields:
        Start and end of each window, in seconds.

    Raises:
        ValueError: if window or hop is not above 0.

    Example:
        >>> list(cut_windows(8.0, window=3.0, hop=1.5))
        [(0.0, 3.0), (1.5, 4.5), (3.0, 6.0), (4.5, 7.5), (6.0, 8.0)]
        >>> list(cut_windows(7.0, window=3.0, hop=3.0)), list(cut_windows(1.0, window=3.0, hop=3.0))
        ([(0.0, 3.0), (3.0, 6.0)], [(0.0, 1.0)])
    """
    require_window(window, hop)
    tiny = 1e-9 * max(1.0, seconds)
    number = 0
    while True:
        start = round(number * hop, 9)
        if start >= seconds - tiny and number:
            return
        end = round(start + window, 9)
        if end <= seconds + tiny:
            yield start, min(end, seconds)
            if end >= seconds - tiny:
                return
        else:
            if number == 0 or seconds - start >= LEAST_SHARE * window - tiny:
                yield start, seconds
            return
        number += 1


def require_window(window: float, hop: float) -> None:
    """Check the lengths of windows.

    Raises:
        ValueError: if one of them is not above 0.

    Example:
        >>> require_window(3.0, 0.0)
        Traceback (most recent call last):
        ValueError: window and hop must be seconds above 0, got window 3 and hop 0
    """
    if not (0 < window < math.inf and 0 < hop < math.inf):
        raise ValueError(f"window and hop must be seconds above 0, got window {window:g} and hop {hop:g}")
