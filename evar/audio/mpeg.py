"""Frames of MPEG audio (mp3), found by their headers: they tell the real length of a file, even if its first frame is wrong.

Source: ISO/IEC 11172-3, section 2.4.2.3 (frame header), ISO/IEC 13818-3 (half rates); the optional first frame "Xing" or
"Info" as common encoders write it: flags, then the number of frames.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: kbit/s by index, for layer III of MPEG-1, layer III (and II) of MPEG-2; layers I and II of MPEG-1
_BITRATES = {
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
}
_RATES = (44100, 48000, 32000)
#: of tags, in a file whose length decoders estimate
_SPARE_BYTES = 512
#: bytes between frames that are searched for the next one
_MAX_JUNK = 1 << 20


@dataclass(frozen=True)
class Frame:
    """Header of one frame.

    Attributes:
        n_bytes: of the frame, with its header.
        n_samples: per channel that it decodes to.
        sample_rate: Hz.
        channels: 1 or 2.
        info_at: where "Xing" or "Info" would stand in it, in bytes from its start.
    """

    n_bytes: int
    n_samples: int
    sample_rate: int
    channels: int
    info_at: int


_FRAMES: dict[bytes, Frame | None] = {}


def read_header(four: bytes) -> Frame | None:
    """Read a frame header, or None if the four bytes are none.

    Example:
        >>> read_header(bytes((0xFF, 0xFB, 0x90, 0x00)))
        Frame(n_bytes=417, n_samples=1152, sample_rate=44100, channels=2, info_at=36)
    """
    if four in _FRAMES:
        return _FRAMES[four]
    found = None
    if len(four) == 4 and four[0] == 0xFF and four[1] & 0xE0 == 0xE0:
        version = {3: 1.0, 2: 2.0, 0: 2.5}.get(four[1] >> 3 & 3, 0.0)
        layer = 4 - (four[1] >> 1 & 3)
        bits, rate = four[2] >> 4, four[2] >> 2 & 3
        if version and layer < 4 and 0 < bits < 15 and rate < 3 and four[3] & 3 != 2:
            found = _make_frame(version, layer, bits, rate, four)
    if len(_FRAMES) < 10_000:
        _FRAMES[four] = found
    return found


def _make_frame(version: float, layer: int, bits: int, rate: int, four: bytes) -> Frame:
    main = 1 if version == 1 else 2
    hertz = int(_RATES[rate] / {1.0: 1, 2.0: 2, 2.5: 4}[version])
    per_second = _BITRATES[main, layer][bits] * 1000
    padding = four[2] >> 1 & 1
    channels = 1 if four[3] >> 6 == 3 else 2
    n_samples = 384 if layer == 1 else 576 if layer == 3 and main == 2 else 1152
    n_bytes = (12 * per_second // hertz + padding) * 4 if layer == 1 else n_samples // 8 * per_second // hertz + padding
    side = (32 if channels == 2 else 17) if main == 1 else (17 if channels == 2 else 9)
    return Frame(n_bytes, n_samples, hertz, channels, 4 + side + (0 if four[1] & 1 else 2))


@dataclass
class Run:
    """Frames of one rate and channel count, one after another.

    Attributes:
        header: of its first frame.
        content: bytes of its frames, without tags, junk and info frames.
        n_frames: in `content`.
    """

    header: Frame
    first: bytes
    content: bytearray
    n_frames: int = 0

    @property
    def n_samples(self) -> int:
        """Per channel, at the run's own rate."""
        return self.n_frames * self.header.n_samples


@dataclass
class Mpeg:
    """Result of a walk over all frames.

    Attributes:
        runs: of frames; more than one where rate or channels change.
        n_declared: frames that the info frame at the start promises; None if there is none, or where it has no count.
        is_plain: nothing lies between frames, and a decoder knows how many there are: an info frame counts them, or the
            bit rate is constant.
        cut_bytes: bytes of a last frame that is not whole.
    """

    runs: list[Run]
    n_declared: int | None
    is_plain: bool
    cut_bytes: int = 0


def walk(data: bytes, start: int = 0) -> Mpeg | None:
    """Find every frame of an mp3.

    Args:
        data: of the file.
        start: where to begin to look.

    Returns:
        None if no two frames follow each other: it is no mp3.
    """
    at, end = skip_tags(data, start), len(data)
    n_others = at - start  # bytes that are no frames: decoders take them for frames where they estimate a length
    found = Mpeg([], None, True)
    n_infos = 0
    is_all_there = False  # as many bytes as the info frame tells: then it is right that the file ends here
    is_constant = True  # every frame has the bit rate of the first: then decoders estimate the length well
    while at + 4 <= end:
        frame = read_header(data[at : at + 4])
        if frame is None or (not found.runs and not _is_followed(data, at, frame)):
            skipped = _find_next_frame(data, at)
            if skipped < 0:
                found.is_plain &= not _is_sound(data[at:])
                n_others += end - at
                break
            found.is_plain = found.is_plain and not found.runs and not n_infos
            at = skipped
            continue
        if at + frame.n_bytes > end:
            found.cut_bytes = end - at
            break
        info = data[at + frame.info_at : at + frame.info_at + 16] if frame.n_bytes > frame.info_at + 16 else b""
        if info[:4] in (b"Xing", b"Info"):
            if not n_infos and not found.runs:
                flags, count, n_bytes = struct.unpack(">III", info[4:])
                found.n_declared = count if flags & 1 else None
                is_all_there = flags & 3 == 3 and frame.n_bytes < n_bytes <= end - at
            n_infos += 1
            at += frame.n_bytes
            continue
        run = found.runs[-1] if found.runs else None
        if run is None or (run.header.sample_rate, run.header.channels) != (frame.sample_rate, frame.channels):
            run = Run(frame, data[at : at + 4], bytearray())
            found.runs.append(run)
        is_constant = is_constant and data[at + 2] >> 4 == run.first[2] >> 4
        run.content += data[at : at + frame.n_bytes]
        run.n_frames += 1
        at += frame.n_bytes
    if not found.runs:
        return None
    n_frames = sum(run.n_frames for run in found.runs)
    if is_all_there and not found.cut_bytes and found.n_declared is not None and found.n_declared > n_frames + 1:
        found.n_declared = None  # the count is wrong
        found.is_plain = False
    # Some encoders count the info frame itself.
    counts = n_infos == 1 and found.n_declared is not None and abs(found.n_declared - n_frames) <= 1
    found.is_plain &= len(found.runs) == 1 and (counts or (n_infos == 0 and is_constant and n_others <= _SPARE_BYTES))
    return found


def with_count(run: Run) -> bytes:
    """Put an info frame that counts the frames of a run before them, so that a decoder reads all of them."""
    head = run.header
    for bits in range(1, 15):  # the smallest frame that has room for the count
        four = bytes((run.first[0], run.first[1] | 1, bits << 4 | (run.first[2] & 0x0C), run.first[3]))
        frame = read_header(four)
        if frame is not None and frame.sample_rate == head.sample_rate and frame.n_bytes >= frame.info_at + 20:
            info = b"Info" + struct.pack(">III", 3, run.n_frames, frame.n_bytes + len(run.content))
            body = four + bytes(frame.info_at - 4) + info
            return body.ljust(frame.n_bytes, b"\0") + bytes(run.content)
    return bytes(run.content)


def skip_tags(data: bytes, at: int) -> int:
    """Skip ID3v2 tags, whose size says where they end."""
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | (byte & 0x7F)
        at += 10 + size + (10 if data[at + 5] & 0x10 else 0)
    return at


def _find_next_frame(data: bytes, at: int) -> int:
    """Find the begin of the next frame that another one follows, behind tags and junk; -1 for none."""
    if data[at : at + 3] == b"ID3" and (behind := skip_tags(data, at)) < len(data):
        return behind
    if data[at : at + 3] == b"TAG" and at + 128 < len(data):  # the tag at the end of a part that was joined
        return at + 128
    limit = min(len(data), at + _MAX_JUNK)
    place = at
    while (place := data.find(b"\xff", place + 1, limit)) >= 0:
        frame = read_header(data[place : place + 4])
        if frame is not None and _is_followed(data, place, frame):
            return place
    return -1


def _is_followed(data: bytes, at: int, frame: Frame) -> bool:
    """Another frame of the same rate, a tag or the end of the file comes right behind."""
    behind = at + frame.n_bytes
    if behind >= len(data) - 4:
        return behind <= len(data)
    other = read_header(data[behind : behind + 4])
    return data[behind : behind + 3] in (b"ID3", b"TAG") or (
        other is not None and other.sample_rate == frame.sample_rate
    )


def _is_sound(rest: bytes) -> bool:
    """Bytes behind the last frame that are no tag and no padding."""
    return len(rest) > 4 and rest[:3] != b"TAG" and rest[:8] != b"APETAGEX" and rest[:3] != b"LYR" and any(rest)
