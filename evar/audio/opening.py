"""From a file to samples: which decoder reads it, in how many pieces, and whether all that it promises is there."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.containers import Layout, find_layout
from evar.audio.contents import Content, load_content
from evar.audio.errors import AudioError
from evar.audio.not_audio import name_content
from evar.audio.quiet import without_decoder_notes

if TYPE_CHECKING:
    import soundfile
    from numpy.typing import NDArray

#: whole clips (clip_seconds: null) longer than this are refused: one of them would fill memory
MAX_SECONDS = 1800.0
#: of files that need ffmpeg
FFMPEG_SUFFIXES = (
    ".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".mkv", ".amr", ".ac3", ".3gp", ".3g2", ".3gpp", ".m4b", ".mov",
    ".wv", ".ape", ".tta", ".mpc", ".spx", ".mp2", ".dts", ".eac3", ".weba", ".avi", ".ogv", ".m4v", ".mpg", ".mpeg",
    ".flv", ".asf", ".wmv", ".ra", ".rm", ".dsf", ".dff", ".adts", ".caff",
)  # fmt: skip
#: sound may be missing at the end of a file up to this before the file counts as cut off: encoders round
SPARE_SECONDS = 0.1
#: the end of the sentence on an Ogg file without its last page
_NO_END = "and the end of the sound is missing: the file is cut off or damaged; fetch or copy it again"
#: samples of all channels that are decoded in one call
_VALUES_AT_ONCE = 1 << 24
#: frames that are decoded at a time
_BLOCK = 1 << 18


@dataclass
class Opened:
    """A sound that is open.

    Attributes:
        content: of the file.
        pieces: decoders that are read one after another; one for most files.
        layout: how the file differs from what its header says.
        decoder: "libsndfile" or "ffmpeg".
    """

    content: Content
    pieces: list[soundfile.SoundFile]
    layout: Layout
    decoder: str

    @property
    def sample_rate(self) -> int:
        """Hz, of the first piece."""
        return int(self.pieces[0].samplerate)

    @property
    def channels(self) -> int:
        """Of the first piece."""
        return int(self.pieces[0].channels)

    @property
    def subtype(self) -> str:
        """libsndfile's word for the coding."""
        return str(self.pieces[0].subtype)

    @property
    def n_samples(self) -> int:
        """Per channel, at the rate of the first piece."""
        return sum(-(-int(one.frames) * self.sample_rate // int(one.samplerate)) for one in self.pieces)

    def read(self, start: int, n_samples: int) -> NDArray[np.float32]:
        """Decode part of the sound.

        Args:
            start: first sample.
            n_samples: how many.

        Returns:
            (samples, channels) float32, as many as there are; pieces with other channels are mixed to one channel.

        Raises:
            AudioError: if it cannot be decoded.
        """
        with _explain_errors(self.content), self._silence_decoder():
            if len(self.pieces) == 1:
                return _read_frames(self.pieces[0], start, n_samples)
            parts = []
            for piece in self.pieces:
                n_own = -(-int(piece.frames) * self.sample_rate // int(piece.samplerate))
                if start < n_own and n_samples > 0:
                    parts.append(self._read_piece(piece, start, min(n_samples, n_own - start)))
                    n_samples -= min(n_samples, n_own - start)
                start = max(0, start - n_own)
            if not parts:
                return np.zeros((0, self.channels), np.float32)
            if len({part.shape[1] for part in parts}) > 1:
                parts = [part.mean(axis=1, keepdims=True, dtype=np.float32) for part in parts]
            return np.concatenate(parts)

    def _read_piece(self, piece: soundfile.SoundFile, start: int, n_samples: int) -> NDArray[np.float32]:
        if int(piece.samplerate) == self.sample_rate:
            return _read_frames(piece, start, n_samples)
        import soxr

        whole = _read_frames(piece, 0, int(piece.frames))
        same_rate = np.asarray(soxr.resample(whole, piece.samplerate, self.sample_rate, quality="HQ"), np.float32)
        return same_rate[start : start + n_samples]

    def blocks(self, first: int = 0, n_samples: int | None = None) -> Iterator[NDArray[np.float32]]:
        """Decode the whole sound, or a part, block by block: (samples, channels) float32; ends where the decoder ends.

        Raises:
            AudioError: if it cannot be decoded.
        """
        behind = self.n_samples if n_samples is None else first + n_samples
        for start in range(first, behind, _BLOCK):
            block = self.read(start, min(_BLOCK, behind - start))
            if not len(block):
                return
            yield block

    def require_whole(self) -> None:
        """Refuse a file that ends before its header says, or whose end is missing.

        Raises:
            AudioError: how much of it is there.
        """
        if self.layout.is_cut:
            raise AudioError(f"decoded {self.n_samples / self.sample_rate:.1f} s, {_NO_END}")
        if self.decoder != "libsndfile" or self.layout.n_present >= self.layout.n_declared:
            return
        seconds = self.n_samples / self.sample_rate
        declared = seconds * self.layout.n_declared / max(1, self.layout.n_present)
        if declared - seconds > SPARE_SECONDS:
            raise AudioError(tell_cut_off(seconds, declared, self.n_samples))

    def _silence_decoder(self) -> contextlib.AbstractContextManager[None]:
        return without_decoder_notes() if "MPEG" in self.subtype else contextlib.nullcontext()

    def close(self) -> None:
        """Close the decoders."""
        for piece in self.pieces:
            piece.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tell_cut_off(seconds: float, declared: float, n_samples: int | None = None) -> str:
    """Write the sentence on a file that ends early; the samples are named where there are too few for anything."""
    found = f"decoded {seconds:.1f} of {declared:.1f} s"
    if n_samples is not None and seconds < 0.01:
        found += f", {n_samples} samples, which are too short"
    return f"{found}: the file is cut off or damaged; fetch or copy it again"


def tell_too_long(seconds: float) -> str:
    """Write the sentence on a clip that is too long to be encoded as a whole."""
    return (
        f"{seconds:.0f} s are too long for a whole clip (at most {MAX_SECONDS:g} s); encode it in windows "
        "(evar embed or evar predict with --window), or name its parts by columns start and end in the table, or give the "
        "task a clip_seconds"
    )


def open_sound(path: str | Path, content: Content | None = None) -> Opened:
    """Open a file by libsndfile or, where it does not read it, by ffmpeg.

    Args:
        path: audio file.
        content: of it, where it was read already.

    Raises:
        AudioError: if it is missing, empty, unreadable, cut off, or no audio; the message says what it is then.
    """
    content = content or load_content(path)
    layout = find_layout(content.data)  # type: ignore[arg-type]
    is_mpeg = content.data[:3] == b"ID3" or content.data[:1] == b"\xff"
    try:
        with without_decoder_notes() if is_mpeg else contextlib.nullcontext():
            opened = Opened(content, _open_pieces(content, layout), layout, "libsndfile")
            if opened.n_samples == 0 and content.data[:4] == b"OggS":
                raise RuntimeError("no sound before its end")
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        if layout.n_present < layout.n_declared:
            share = layout.n_present / layout.n_declared
            raise AudioError(
                f"the file is cut off, {share:.0%} of its sound is there; fetch or copy it again"
            ) from error
        if layout.is_cut:
            raise AudioError(f"no sound was decoded, {_NO_END}") from error
        opened = _open_by_ffmpeg(content, error)
    opened.require_whole()
    return opened


def open_plain(content: Content, number: int) -> Opened:
    """Open a file that is known to hold what its header says, by the number of an open file.

    Args:
        content: of the file; its beginning is enough.
        number: as `os.open` gives it; it stays open.
    """
    import soundfile

    return Opened(content, [soundfile.SoundFile(os.dup(number), closefd=True)], Layout(), "libsndfile")


def _open_pieces(content: Content, layout: Layout) -> list[soundfile.SoundFile]:
    import soundfile

    if layout.pieces:
        return [_open_bytes(piece) for piece in layout.pieces]
    if isinstance(content.data, bytes):
        return [_open_bytes(content.data)]
    if os.name == "posix":  # by number, libsndfile reads without calling back into Python
        return [soundfile.SoundFile(os.open(content.path, os.O_RDONLY), closefd=True)]
    return [soundfile.SoundFile(open(content.path, "rb"), closefd=True)]


def _open_bytes(data: bytes) -> soundfile.SoundFile:
    """Open the content of a file; on Linux by a file in memory, which libsndfile reads without calling back into Python.

    Calls back into Python wait for each other where several threads decode, and cost more than a short clip does.
    """
    import soundfile

    if not hasattr(os, "memfd_create"):
        return soundfile.SoundFile(io.BytesIO(data))
    number = os.memfd_create("sound")
    try:
        n_written = os.write(number, data)
        while n_written < len(data):  # the system takes at most 2 GiB at once
            n_written += os.write(number, memoryview(data)[n_written:])
        os.lseek(number, 0, os.SEEK_SET)
    except BaseException:
        os.close(number)
        raise
    return soundfile.SoundFile(number, closefd=True)


def _read_frames(file: soundfile.SoundFile, start: int, n_samples: int) -> NDArray[np.float32]:
    """Decode until there is enough or the decoder ends; a decoder may give fewer than it promised."""
    n_left = min(n_samples, int(file.frames) - start)
    if n_left <= 0:
        return np.zeros((0, int(file.channels)), np.float32)
    if file.tell() != start:
        file.seek(start)
    most = max(1, _VALUES_AT_ONCE // max(1, int(file.channels)))  # a damaged header may promise more than memory holds
    blocks: list[NDArray[np.float32]] = []
    while n_left > 0 and len(block := file.read(min(n_left, most), dtype="float32", always_2d=True)):
        blocks.append(block)
        n_left -= len(block)
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.zeros((0, int(file.channels)), np.float32)


@contextlib.contextmanager
def _explain_errors(content: Content) -> Iterator[None]:
    """Errors of libsndfile as ours; soundfile's LibsndfileError is a RuntimeError."""
    try:
        yield
    except AudioError:
        raise
    except (RuntimeError, OSError, ValueError, MemoryError) as error:
        raise AudioError(f"not decodable as audio ({_extract_reason(error)})") from error


def decode_by_ffmpeg(content: Content) -> Opened | None:
    """Open a file that libsndfile does not decode by ffmpeg; None if there is no ffmpeg, or it fails too."""
    try:
        return _open_by_ffmpeg(content, RuntimeError("damaged"))
    except AudioError:
        return None


def _open_by_ffmpeg(content: Content, error: Exception) -> Opened:
    """Open the first sound of a file that libsndfile does not read (m4a, wma, webm, video), decoded whole by ffmpeg.

    Raises:
        AudioError: if the file is no audio, ffmpeg is not installed, or does not read it either.
    """
    import soundfile

    what = name_content(content.data[:4096] if content.is_large else bytes(content.data))
    if what:
        raise AudioError(f"not decodable as audio (it is {what})") from error
    program = shutil.which("ffmpeg")
    suffix = content.path.suffix.lower()
    if program is None:
        hint = f"; install ffmpeg for {suffix}" if suffix in FFMPEG_SUFFIXES else ""
        raise AudioError(f"not decodable as audio ({_extract_reason(error)}{hint})") from error
    # Local files only: a playlist must not make us fetch anything. A little more than the longest clip, which is refused.
    command: list[Any] = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
    command += ["-t", f"{MAX_SECONDS + 1:g}", "-i", _quote_for_ffmpeg(content.path)]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace").strip().splitlines()[-1])
        return Opened(content, [soundfile.SoundFile(io.BytesIO(done.stdout))], Layout(), "ffmpeg")
    except (RuntimeError, OSError, IndexError) as other:
        raise AudioError(
            f"not decodable as audio ({_extract_reason(error)}; ffmpeg: {_extract_reason(other)})"
        ) from error


def _quote_for_ffmpeg(path: Path) -> str:
    return f"file:{path.resolve()}"


def _extract_reason(error: Exception) -> str:
    """libsndfile's own words, without the file name or object that it puts in front."""
    text = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    if not text or text.startswith("<"):
        return "the decoder found no whole frame"
    return text
