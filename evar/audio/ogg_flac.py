"""Where streams of Ogg and FLAC files begin and end: joined files, lengths that nobody wrote down, files that were cut.

Source: RFC 3533, section 6 (the Ogg page); RFC 9639, sections 8.2 (STREAMINFO), 9.1 (frame header).
"""

from __future__ import annotations

import functools
import mmap
from dataclasses import dataclass

_BEGINS, _ENDS = 2, 4  # flags of a page
#: how the first page of a stream of sound begins: Vorbis, Opus, Speex, FLAC
_SOUND_STARTS = (b"\x01vorbis", b"OpusHead", b"Speex   ", b"\x7fFLAC")
_FLAC_STARTS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
#: bytes of a large file that are searched at a time
_SEARCHED_AT_ONCE = 1 << 25
#: bytes from the end of a FLAC file in which its last frame begins
_LAST_FRAME_BYTES = 1 << 20


@dataclass(frozen=True)
class OggStreams:
    """What the pages of an Ogg file tell.

    Attributes:
        contents: the streams one after another, each with an end that decoders recognise; empty if the file is one
            whole stream already.
        is_cut: the last page of a stream of sound is missing, so nobody knows how much sound there was.
    """

    contents: tuple[bytes, ...]
    is_cut: bool


@dataclass(frozen=True)
class _Page:
    start: int
    end: int
    flags: int
    serial: bytes
    begin: bytes  # the first bytes of its content


def split_ogg(data: bytes) -> OggStreams:
    """Split an Ogg file into its streams, and find out whether each stream of sound has its last page.

    A file that is cut between two pages looks whole but for one flag, which only the last page of a stream has.

    Args:
        data: the whole file.
    """
    pages, is_whole = _list_pages(data)
    starts = [
        number
        for number, page in enumerate(pages)
        if page.flags & _BEGINS and (number == 0 or not pages[number - 1].flags & _BEGINS)
    ]
    groups = [pages[first:behind] for first, behind in zip(starts, [*starts[1:], len(pages)], strict=True)]
    is_cut = any(_lacks_end(group) for group in groups)
    if not groups or (len(groups) < 2 and is_whole and not is_cut):
        return OggStreams((), is_cut)
    return OggStreams(tuple(_close_stream(data, group) for group in groups), is_cut)


def _list_pages(data: bytes) -> tuple[list[_Page], bool]:
    """List the whole pages, and whether there are no others."""
    pages: list[_Page] = []
    at, is_whole = 0, True
    while (at := data.find(b"OggS", at)) >= 0:
        n_segments = data[at + 26] if at + 27 <= len(data) else 0
        body = at + 27 + n_segments
        end = body + sum(data[at + 27 : body])
        if at + 27 > len(data) or end > len(data):
            return pages, False
        if end < len(data) and data[end : end + 4] != b"OggS" and (inner := data.find(b"OggS", at + 4, end + 3)) >= 0:
            at, is_whole = inner, False  # cut inside of the page, where a joined file goes on
            continue
        pages.append(_Page(at, end, data[at + 5], bytes(data[at + 14 : at + 18]), bytes(data[body : body + 8])))
        at = end
    return pages, is_whole


def _lacks_end(pages: list[_Page]) -> bool:
    """Tell whether a stream of sound begins in these pages and does not end in them."""
    sounds = {page.serial for page in pages if page.flags & _BEGINS and page.begin.startswith(_SOUND_STARTS)}
    return bool(sounds - {page.serial for page in pages if page.flags & _ENDS})


def _close_stream(data: bytes, pages: list[_Page]) -> bytes:
    """Copy the pages of a stream, and mark the last of them as its end: decoders count the samples up to that mark."""
    content, last = bytearray(data[pages[0].start : pages[-1].end]), pages[-1]
    if not last.flags & _ENDS:
        at = last.start - pages[0].start
        content[at + 5] |= _ENDS
        content[at + 22 : at + 26] = bytes(4)
        content[at + 22 : at + 26] = _compute_checksum(bytes(content[at:])).to_bytes(4, "little")
    return bytes(content)


@functools.cache
def _make_checksum_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
        table.append(value)
    return table


def _compute_checksum(page: bytes) -> int:
    table, value = _make_checksum_table(), 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
    return value


@dataclass(frozen=True)
class FlacStream:
    """One stream of a FLAC file.

    Attributes:
        content: the stream; its STREAMINFO tells `n_samples`.
        n_samples: per channel, up to the end of the last frame.
        n_declared: samples that STREAMINFO promises; 0 if it promises nothing.
    """

    content: bytes
    n_samples: int
    n_declared: int


def split_flac(data: bytes) -> list[FlacStream] | None:
    """Split a FLAC file into its streams, each with its real length; None for a single stream with a length."""
    starts = [0]
    while True:
        places = [place for mark in _FLAC_STARTS if (place := _find_mark(data, mark, starts[-1] + 4)) >= 0]
        if not places:
            break
        starts.append(min(places))
    streams = []
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        content = data[start:end] if len(starts) > 1 else data
        n_declared = int.from_bytes(content[21:26], "big") & (1 << 36) - 1
        n_samples = _find_last_sample(content) or n_declared
        streams.append(FlacStream(content, n_samples, n_declared))
    if len(streams) == 1 and streams[0].n_samples == streams[0].n_declared:
        return None
    return [FlacStream(_set_length(one.content, one.n_samples), one.n_samples, one.n_declared) for one in streams]


def _find_mark(data: bytes | mmap.mmap, mark: bytes, start: int) -> int:
    """Find bytes in a file, -1 if they are not there; of a large file, little stays in memory meanwhile."""
    while start < len(data):
        behind = min(len(data), start + _SEARCHED_AT_ONCE)
        if (place := data.find(mark, start, behind + len(mark) - 1)) >= 0:
            return place
        if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            data.madvise(mmap.MADV_DONTNEED, first, max(1, behind - first))
        start = behind
    return -1


def _set_length(content: bytes, n_samples: int) -> bytes:
    told = int.from_bytes(content[21:26], "big") >> 36 << 36 | n_samples
    # The MD5 of the samples would be that of another length: zeros say that it is not known.
    return content[:21] + told.to_bytes(5, "big") + bytes(16) + content[42:]


def _find_last_sample(content: bytes) -> int:
    """Samples up to the end of the last frame, by the frame's own number; 0 if no frame is found."""
    block = int.from_bytes(content[8:10], "big")  # smallest block, the size of all but the last
    place = len(content)
    floor = max(42, len(content) - _LAST_FRAME_BYTES)
    while (place := max(content.rfind(b"\xff\xf8", floor, place), content.rfind(b"\xff\xf9", floor, place))) >= 0:
        if (end := _find_frame_end(content[place : place + 16], block)) is not None:
            return end
    return 0


def _find_frame_end(header: bytes, block: int) -> int | None:
    """The sample behind a frame, from its header; None if the bytes are no header."""
    n_bytes, header = len(header), header.ljust(16, b"\0")  # a frame of silence at the end of a file may be shorter
    if n_bytes < 8 or header[3] & 1 or header[2] >> 4 == 0 or header[2] & 15 == 15:
        return None
    first = header[4]
    n_more = 0 if first < 0x80 else 8 - (first ^ 0xFF).bit_length() - 1
    if (first >= 0x80 and n_more < 1) or n_more > 6:
        return None
    number = first if not n_more else first & (1 << 6 - n_more) - 1
    for byte in header[5 : 5 + n_more]:
        if byte >> 6 != 2:
            return None
        number = number << 6 | (byte & 0x3F)
    at = 5 + n_more
    code = header[2] >> 4
    if code == 6:
        size, at = header[at] + 1, at + 1
    elif code == 7:
        size, at = int.from_bytes(header[at : at + 2], "big") + 1, at + 2
    else:
        size = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    at += {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if at >= n_bytes or _compute_crc8(header[:at]) != header[at]:
        return None
    return (number if header[1] & 1 else number * block) + size


def _compute_crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 7 if value & 0x80 else value << 1) & 0xFF
    return value
