"""Long sounds that only ffmpeg reads, decoded forward through a pipe: no more of them is in memory than is asked for."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: frames that are read at a time where they are only counted
_BLOCK = 1 << 18


class FfmpegStream:
    """The first sound of a file, from its beginning to its end.

    Args:
        path: of the file, which ffmpeg is known to read.

    Attributes:
        sample_rate: Hz.
        channels: number of channels.

    Raises:
        AudioError: if ffmpeg is not there or gives no sound.
    """

    def __init__(self, path: Path) -> None:
        program = shutil.which("ffmpeg")
        if program is None:
            raise AudioError("not decodable as audio; install ffmpeg")
        # Local files only: a playlist must not make us fetch anything.
        command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
        command += ["-i", f"file:{path.resolve()}", "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "-"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        head = self._read_bytes(24)
        if len(head) < 24 or head[:4] != b".snd":
            self.close()
            raise AudioError("not decodable as audio (ffmpeg gives no sound)")
        begin, _, _, self.sample_rate, self.channels = struct.unpack(">5I", head[4:])
        self._read_bytes(begin - 24)

    def read(self, n_samples: int) -> NDArray[np.float32]:
        """Decode the next samples: (samples, channels) float32, fewer at the end."""
        data = self._read_bytes(n_samples * self.channels * 4)
        n_whole = len(data) // (4 * self.channels)
        return np.frombuffer(data, ">f4", n_whole * self.channels).astype(np.float32).reshape(n_whole, self.channels)

    def _read_bytes(self, n_bytes: int) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(n_bytes)

    def close(self) -> None:
        """End ffmpeg."""
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()


def count_samples(path: Path) -> int:
    """Decode a file once to learn how many samples each of its channels has.

    Args:
        path: of the file, which ffmpeg is known to read.

    Raises:
        AudioError: if it cannot be decoded.
    """
    stream = FfmpegStream(path)
    try:
        n_samples = 0
        while n_more := len(stream.read(_BLOCK)):
            n_samples += n_more
        return n_samples
    finally:
        stream.close()
