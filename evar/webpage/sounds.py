"""Sounds and small spectrograms of chosen clips: inside the page, or as links to files of the task."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from evar import audio
from evar.audio.compressing import compress
from evar.audio.errors import AudioError
from evar.audio.segments import Segment, format_address
from evar.webpage.clips import TaskClips, find_task
from evar.webpage.context import Context

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task

#: that the page holds at most: bytes of compressed sound, sounds, and seconds of each
MOST_BYTES, MOST_SOUNDS, MOST_SECONDS = 20_000_000, 200, 10.0
#: Hz of what people listen to here
SAMPLE_RATE = 16000
#: of a spectrogram, in pixels, and the range that it shows, in decibels
WIDTH, HEIGHT, RANGE_DB = 160, 48, 70.0


@dataclass
class Sounds:
    """What the page plays.

    Attributes:
        entries: source and image of each sound, as the scripts read them.
        places: (task, path) -> number of its entry.
        problems: sentences on what is missing.
    """

    entries: list[dict[str, str]] = field(default_factory=list)
    places: dict[tuple[str, str], int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def find(self, task: str, path: str) -> int:
        """Return the number of a clip's entry, or -1."""
        return self.places.get((task, path), -1)


def collect_sounds(context: Context, chosen: Sequence[tuple[TaskClips, Sequence[int]]]) -> Sounds:
    """Read, compress and draw chosen clips, task by task in turn, until the page holds as much as it may.

    A clip is only read if the task's own index names it: paths in result files are never opened.

    Args:
        context: knows whether sounds are embedded or linked, and where data are.
        chosen: tasks, and positions of their clips in order of interest.
    """
    sounds = Sounds()
    if context.settings.audio == "none":
        sounds.problems.append("Sounds were left out on request (--audio=none).")
        return sounds
    known: dict[str, dict[str, Path | Segment]] = {}
    for clips, _ in chosen:
        task = find_task(context, clips.task, clips.limit)
        problem = _explain_missing(clips, task)
        if problem and problem not in sounds.problems:
            sounds.problems.append(problem)
        if task is not None and not problem:
            known[clips.task] = dict(zip(task.index["path"].tolist(), task.paths, strict=True))
    n_bytes = 0
    for clips, at in _take_turns(chosen):
        path = known.get(clips.task, {}).get(clips.clips[at])
        key = (clips.task, clips.clips[at])
        if path is None or key in sounds.places:
            continue
        if len(sounds.entries) >= MOST_SOUNDS or n_bytes >= MOST_BYTES:
            break
        entry, size = _make_entry(path, context)
        if entry is not None and n_bytes + size <= MOST_BYTES:
            n_bytes += size
            sounds.places[key] = len(sounds.entries)
            sounds.entries.append(entry)
    return sounds


def _explain_missing(clips: TaskClips, task: Task | None) -> str:
    """Explain why a task's clips cannot be played; "" if they can."""
    if task is None:
        return (
            f"The data of {clips.task} were not found, so its clips have no sound; name their folder with --data_root."
        )
    if clips.index_sha256 and task.index_sha256 != clips.index_sha256:
        return f"The index of {clips.task} differs from that of the rows, so its clips have no sound."
    if len(task) and not any(path.is_file() for path in task.paths[:20]):
        return (
            f"The sounds of {clips.task} are not under {task.config.folder}/; name the right folder with --data_root."
        )
    return ""


def _take_turns(chosen: Sequence[tuple[TaskClips, Sequence[int]]]) -> Iterator[tuple[TaskClips, int]]:
    """Yield one clip of each task in turn."""
    for number in range(max((len(positions) for _, positions in chosen), default=0)):
        for clips, positions in chosen:
            if number < len(positions):
                yield clips, positions[number]


def _make_entry(path: Path | Segment, context: Context) -> tuple[dict[str, str] | None, int]:
    """Return what the scripts need of one clip, and the bytes of its sound; None if it cannot be read."""
    try:
        rate = audio.inspect(path).sample_rate
        waveform = audio.read(path, SAMPLE_RATE, 0, round(MOST_SECONDS * rate))
        image = f"data:image/png;base64,{_to_base64(draw_spectrogram(waveform))}"
        if context.settings.audio == "link":
            return {"source": link_file(path, context.settings.file), "image": image}, 0
        data, kind = compress(waveform, SAMPLE_RATE)
    except (AudioError, ValueError, OSError, RuntimeError):
        return None, 0
    return {"source": f"data:{kind};base64,{_to_base64(data)}", "image": image}, len(data)


def link_file(path: Path | Segment, page: Path) -> str:
    """Return a relative address of a sound, as the page needs it.

    Args:
        path: of the sound, or a part of it, which browsers play by the times behind the address.
        page: of the HTML file.

    Example:
        >>> link_file(Path("data/a b#.wav"), Path("results/report.html"))
        '../data/a%20b%23.wav'
        >>> link_file(Segment(Path("data/field.wav"), 1.5, 4.0), Path("results/report.html"))
        '../data/field.wav#t=1.5,4'
    """
    relative = os.path.relpath(path, page.parent).replace(os.sep, "/")
    address = quote(os.fsencode(relative)) + (
        format_address("", path.start, path.end) if isinstance(path, Segment) else ""
    )
    return address if address.startswith(".") else f"./{address}"


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def draw_spectrogram(waveform: NDArray[np.float32]) -> bytes:
    r"""Draw a spectrogram as a small PNG: time to the right, mel-like spacing of frequencies upwards, loud is bright.

    Args:
        waveform: (samples,) at `SAMPLE_RATE`.

    Returns:
        The bytes of a PNG file of `WIDTH` x `HEIGHT` grey levels.

    Example:
        >>> draw_spectrogram(np.zeros(16000, np.float32))[:4]
        b'\x89PNG'
    """
    n_fft = 512
    padded = np.pad(waveform, (n_fft // 2, n_fft // 2))
    starts = np.linspace(0, max(0, len(padded) - n_fft), WIDTH).astype(int)
    frames = np.stack([padded[start : start + n_fft] for start in starts]) * np.hanning(n_fft)  # (WIDTH, n_fft)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # (WIDTH, n_fft / 2 + 1)
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), HEIGHT + 1)
    edges = np.round((700 * (10 ** (mels / 2595) - 1)) / (SAMPLE_RATE / n_fft)).astype(int)
    bands = [power[:, low : max(high, low + 1)].mean(axis=1) for low, high in pairwise(edges.tolist())]
    levels = 10 * np.log10(np.stack(bands) + 1e-10)  # (HEIGHT, WIDTH)
    shares = np.clip((levels - levels.max()) / RANGE_DB + 1, 0, 1) if np.ptp(levels) else np.zeros_like(levels)
    return write_png(np.round(15 * shares[::-1]).astype(np.uint8))


def write_png(levels: NDArray[np.uint8]) -> bytes:
    """Write an image of 16 levels, dark blue to bright yellow, as PNG.

    Args:
        levels: (height, width) whole numbers 0..15, the top line first; an even width.

    Source: PNG specification, third edition (W3C 2023): signature, IHDR, PLTE, IDAT and IEND chunks.

    Example:
        >>> len(write_png(np.zeros((2, 4), np.uint8)))
        128
    """
    height, width = levels.shape
    packed = (levels[:, 0::2] << 4) | levels[:, 1::2]  # two pixels a byte
    lines = b"".join(b"\0" + line.tobytes() for line in packed)
    anchors: Any = np.array([[13, 17, 58], [84, 39, 136], [203, 71, 119], [248, 149, 64], [252, 253, 191]], float)
    places = np.linspace(0, len(anchors) - 1, 16)
    palette = np.stack([np.interp(places, range(len(anchors)), anchors[:, one]) for one in range(3)], axis=1)

    def chunk(name: bytes, body: bytes) -> bytes:
        return pack(">I", len(body)) + name + body + pack(">I", zlib.crc32(name + body))

    header = pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)  # 4 bits a pixel, from a palette
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", palette.round().astype(np.uint8).tobytes()),
            chunk(b"IDAT", zlib.compress(lines, 9)),
            chunk(b"IEND", b""),
        ]
    )
