"""Sounds in a folder: the one walk that every command uses, and what it left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evar.audio.opening import FFMPEG_SUFFIXES

#: what libsndfile reads, and ffmpeg where it is installed, by the endings that people give it (not RAW, which has no
#: header, nor matrices in .mat)
AUDIO_SUFFIXES = frozenset(
    [
        ".aif", ".aifc", ".aiff", ".au", ".avr", ".caf", ".flac", ".htk", ".iff", ".ircam", ".mp1", ".mp3", ".mpa",
        ".nist", ".oga", ".ogg", ".opus", ".paf", ".pvf", ".rf64", ".bwf", ".bw64", ".wave", ".sd2", ".sf", ".snd",
        ".sph", ".svx", ".8svx", ".voc", ".w64", ".wav", ".wve", ".xi", *FFMPEG_SUFFIXES,
    ]
)  # fmt: skip
#: files and folders that systems and programs leave behind; hidden ones (".x", "._x") are left out anyway
SYSTEM_NAMES = frozenset(
    [
        "$recycle.bin", "@eadir", "__macosx", "__pycache__", "desktop.ini", "ehthumbs.db", "icon\r", "lost+found",
        "system volume information", "thumbs.db",
    ]
)  # fmt: skip


@dataclass
class LeftOut:
    """Files that a walk left out.

    Attributes:
        suffixes: ending -> files that do not end like audio; "" for files without an ending.
        n_hidden: hidden and system files and folders.
        n_loops: links to a folder that the walk is in already.
        unreadable: folders that cannot be opened, and links that lead nowhere, with the reason.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    n_hidden: int = 0
    n_loops: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def n_files(self) -> int:
        """Files, without hidden ones."""
        return sum(self.suffixes.values())

    def describe(self) -> str:
        """Describe in one line what was left out; "" if nothing was.

        Example:
            >>> LeftOut(Counter({".txt": 2, "": 1}), n_loops=1).describe()
            'left out: 2 .txt, 1 without an ending, 1 link that leads back'
        """
        texts = [f"{n} {suffix or 'without an ending'}" for suffix, n in self.suffixes.most_common(8)]
        if len(self.suffixes) > 8:
            texts.append(f"{sum(n for _, n in self.suffixes.most_common()[8:])} of other endings")
        if self.n_hidden:
            texts.append(f"{self.n_hidden} hidden or of the system")
        if self.n_loops:
            texts.append(f"{self.n_loops} " + ("link that leads back" if self.n_loops == 1 else "links that lead back"))
        for path, reason in list(self.unreadable.items())[:3]:
            texts.append(f"{path} ({reason})")
        if len(self.unreadable) > 3:
            texts.append(f"{len(self.unreadable) - 3} more that cannot be opened")
        return f"left out: {', '.join(texts)}" if texts else ""


def find_audio(folder: str | Path, left_out: LeftOut | None = None, *, keep: str = "") -> Iterator[str]:
    """Paths of the audio files in a folder and the folders in it, by name.

    Links are followed, but for those that lead back to a folder above them. Hidden and system files are left out.

    Args:
        folder: as typed; the paths begin with it.
        left_out: receives the files that are left out.
        keep: an ending, such as ".json", whose files are no loss: not counted as left out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.wav", "a.OGG", "notes.txt", "._a.ogg"):
        ...         _ = (Path(folder) / name).write_bytes(b"")
        ...     [os.path.basename(path) for path in find_audio(folder)]
        ['a.OGG', 'b.wav']
    """
    yield from _walk(os.fspath(folder), (), left_out if left_out is not None else LeftOut(), keep)


def _walk(folder: str, above: tuple[tuple[int, int], ...], left_out: LeftOut, keep: str) -> Iterator[str]:
    try:
        status = os.stat(folder)
        here = (*above, (status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as error:
        if not above:
            raise
        left_out.unreadable[folder] = error.strerror or str(error)
        return
    for name in names:
        path = os.path.join(folder, name)
        if is_hidden(name):
            left_out.n_hidden += 1
            continue
        try:
            inner = os.stat(path)
        except OSError as error:  # a link to itself or to nothing
            reason = "a link that leads nowhere" if os.path.islink(path) else error.strerror or str(error)
            left_out.unreadable[path] = reason
            continue
        if os.path.isdir(path):
            if (inner.st_dev, inner.st_ino) in here:
                left_out.n_loops += 1
            else:
                yield from _walk(path, here, left_out, keep)
        elif has_audio_suffix(name) and os.path.isfile(path):
            yield path
        elif not keep or not name.lower().endswith(keep):
            left_out.suffixes[os.path.splitext(name)[1].lower()] += 1


def is_hidden(name: str) -> bool:
    """Tell whether the system or a program hides files of this name.

    Example:
        >>> is_hidden("._clip.wav"), is_hidden("Thumbs.db"), is_hidden("clip.wav")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def has_audio_suffix(name: str) -> bool:
    """Tell whether a file has the ending of an audio file.

    Example:
        >>> has_audio_suffix("a.OGA"), has_audio_suffix("a.txt")
        (True, False)
    """
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES
