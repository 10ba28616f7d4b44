"""Sounds that stay open while parts of them are read: each file is opened once, and only the parts are decoded.

Formats that seek exactly (PCM, FLAC, Vorbis) are read by seeking. The others (mp3, Opus, joined files, and what only ffmpeg
reads) are decoded forward, once if the parts come in the order of their starts: the samples between two parts are decoded
and dropped block by block. Either way no more is in memory than the part itself, its surroundings and one block.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.contents import PART_BYTES, Content, load_content
from evar.audio.decoding import decode_whole, find_surroundings, mix_down, require_length, resample_part
from evar.audio.errors import AudioError
from evar.audio.ffmpeg_stream import FfmpegStream
from evar.audio.opening import MAX_SECONDS, SPARE_SECONDS, Opened, open_sound, tell_cut_off, tell_too_long

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: sounds that stay open at a time
MOST_OPEN = 4
#: frames that are decoded and dropped at a time on the way to a part
_BLOCK = 1 << 18
#: of a file that a second decoder would look at
_HEAD_BYTES = 4096
#: codings whose decoder does not give the same samples after a jump
_INEXACT = ("MPEG", "OPUS")

#: refuses a file that is not the one that is known
Check = Callable[[Content], None]


class SoundPool:
    """Open sounds, for parts that are read one after the other, in several threads if need be.

    Example:
        >>> import tempfile
        >>> import soundfile
        >>> with tempfile.TemporaryDirectory() as folder, SoundPool() as pool:
        ...     soundfile.write(f"{folder}/a.wav", np.linspace(0, 0.5, 48000), 48000)
        ...     pool.read(Path(folder) / "a.wav", 24000, 4800, 16000).shape
        (1600,)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sounds: OrderedDict[str, _Sound] = OrderedDict()

    def book(self, file: Path) -> int:
        """Take a turn: parts of a file that were booked are read in the order of the bookings, whichever thread comes first.

        Args:
            file: whose part will be read.

        Returns:
            The turn; it must be passed to `read` once, or later turns wait for ever.
        """
        with self._lock:
            sound = self._sounds.setdefault(str(file), _Sound(file))
            sound.n_booked += 1
            return sound.n_booked - 1

    def read(
        self,
        file: Path,
        start: int,
        n_samples: int,
        sample_rate: int,
        turn: int | None = None,
        check: Check | None = None,
    ) -> NDArray[np.float32]:
        """Decode a part of a file, mix it down to mono and resample it.

        The samples are those of the whole file after resampling, but for rounding of floats: what surrounds the part is
        resampled with it.

        Args:
            file: that holds the part.
            start: first sample, at the file's own rate.
            n_samples: how many, at the file's own rate.
            sample_rate: Hz to resample to.
            turn: as `book` gave it; None if the order does not matter.
            check: called with the content of the file when it is opened.

        Returns:
            (samples,) float32; fewer where the file ends.

        Raises:
            AudioError: if the part cannot be decoded, is too short or not finite.
        """
        with self._lock:
            sound = self._sounds.setdefault(str(file), _Sound(file))
            self._sounds.move_to_end(str(file))
        with sound.served:
            if turn is not None:
                sound.served.wait_for(lambda: sound.n_served == turn)
            try:
                own_rate = sound.open(check)
                if n_samples > MAX_SECONDS * own_rate:
                    raise AudioError(tell_too_long(n_samples / own_rate))
                first, n_wanted = find_surroundings(start, n_samples, own_rate, sample_rate)
                mono = sound.read(first, n_wanted)
            except BaseException:
                sound.close()
                raise
            finally:
                if turn is not None:
                    sound.n_served += 1
                    sound.served.notify_all()
        self._close_oldest()
        require_length(max(0, min(n_samples, len(mono) - (start - first))), own_rate)
        return resample_part(mono, first, start, n_samples, own_rate, sample_rate)

    def _close_oldest(self) -> None:
        """Close what is open beyond the limit, the least recently used first."""
        with self._lock:
            is_open = [(name, sound) for name, sound in self._sounds.items() if sound.is_open]
            for name, sound in is_open[: max(0, len(is_open) - MOST_OPEN)]:
                if sound.served.acquire(blocking=False):
                    try:
                        sound.close()
                        if sound.n_booked == sound.n_served:
                            del self._sounds[name]
                    finally:
                        sound.served.release()

    def close(self) -> None:
        """Close all sounds."""
        with self._lock:
            for sound in self._sounds.values():
                with sound.served:  # not while a thread reads it
                    sound.close()
            self._sounds.clear()

    def __enter__(self) -> SoundPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Sound:
    """A file that is read part by part; whoever reads holds `served`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.served = threading.Condition()
        self.n_booked = self.n_served = 0
        self._check: Check | None = None
        self._opened: Opened | None = None
        self._stream: FfmpegStream | None = None
        #: mono samples that were decoded, and the number of the first of them; only where nothing can be sought
        self._kept, self._kept_at = np.zeros(0, np.float32), 0

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    def open(self, check: Check | None) -> int:
        """Open the file if it is closed, and return its sample rate in Hz."""
        if self._opened is None:
            self._check = check
            content = load_content(self.file, PART_BYTES)
            if check is not None:
                check(content)
            self._opened = open_sound(self.file, content)
            # The decoder has the file; what was read of it to open it need not stay in memory.
            self._opened.content = replace(content, data=bytes(content.data[:_HEAD_BYTES]))
            self._opened.layout = replace(self._opened.layout, pieces=())
            content.forget()
        return self._opened.sample_rate

    def read(self, start: int, n_samples: int) -> NDArray[np.float32]:
        """Read a part: (samples,) mono at the file's own rate."""
        opened = self._opened
        assert opened is not None
        if opened.decoder == "libsndfile" and len(opened.pieces) == 1 and not opened.subtype.startswith(_INEXACT):
            return mix_down(decode_whole(opened, start, n_samples))
        if start < self._kept_at:
            self._rewind()
        behind = self._kept_at + len(self._kept)
        while behind < start + n_samples:
            block = self._decode_next(behind, min(_BLOCK, max(1, start + n_samples - behind)))
            self._kept = np.concatenate([self._kept[max(0, start - self._kept_at) :], mix_down(block)])
            behind += len(block)
            self._kept_at = behind - len(self._kept)
            if not len(block):
                self._require_end(behind)
                break
        return self._kept[start - self._kept_at : start - self._kept_at + n_samples].copy()

    def _decode_next(self, at: int, n_samples: int) -> NDArray[np.float32]:
        assert self._opened is not None
        if self._opened.decoder == "ffmpeg" and self._opened.n_samples > MAX_SECONDS * self._opened.sample_rate:
            if self._stream is None:
                self._stream = FfmpegStream(self.file)
            return self._stream.read(n_samples)
        return self._opened.read(at, n_samples)

    def _require_end(self, behind: int) -> None:
        assert self._opened is not None
        rate, n_samples = self._opened.sample_rate, self._opened.n_samples
        if self._stream is None and behind < n_samples - SPARE_SECONDS * rate:
            raise AudioError(tell_cut_off(behind / rate, n_samples / rate))

    def _rewind(self) -> None:
        check = self._check
        self.close()
        self.open(check)

    def close(self) -> None:
        """Close the decoders."""
        with contextlib.suppress(OSError, RuntimeError):
            if self._opened is not None:
                self._opened.close()
        if self._stream is not None:
            self._stream.close()
        self._opened = self._stream = self._check = None
        self._kept, self._kept_at = np.zeros(0, np.float32), 0
