"""How much sound a file holds, from its structure: a length in a header is a claim, not a fact.

Headers are estimated, never closed by a recorder that lost its power, or describe the first of several joined streams;
decoders then read a part and say nothing. Here the structure of a file is compared with its header, without decoding.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from evar.audio import mpeg
from evar.audio.ogg_flac import split_flac, split_ogg

#: sizes that programs write when they do not know the size yet
_UNKNOWN = 0x7F000000
#: bytes behind the sound that are worth a look
_MIN_REST = 512
#: coding and bits of WAVs that every decoder reads: whole numbers and floats
_PLAIN_CODINGS = frozenset(((1, 8), (1, 16), (1, 24), (1, 32), (3, 32)))
#: that may stand before the samples and say nothing of them
_SIDE_CHUNKS = (b"LIST", b"fact", b"PEAK", b"bext", b"JUNK", b"junk", b"PAD ", b"cue ")
_TAGS = (b"ID3", b"TAG", b"APE", b"\0\0\0\0")


@dataclass(frozen=True)
class Layout:
    """Bytes that must be decoded instead of the whole file.

    Attributes:
        pieces: files in memory, decoded one after another; empty: the file itself is right.
        n_declared, n_present: frames, bytes or samples that the header promises, and of them what is there; equal where
            nothing is promised.
        is_cut: the end is missing, and nothing tells how much was there.
    """

    pieces: tuple[bytes, ...] = ()
    n_declared: int = 1
    n_present: int = 1
    is_cut: bool = False


def find_layout(data: bytes) -> Layout:
    """Compare the structure of an audio file with what its header says.

    Args:
        data: the whole file.

    Returns:
        An empty `Layout` where a decoder that believes the header reads the whole sound.
    """
    try:
        return _follow(data)
    except (IndexError, ValueError, struct.error):  # damaged beyond what can be followed: the decoder decides
        return Layout()


def _follow(data: bytes) -> Layout:
    at = mpeg.skip_tags(data, 0)
    if at and data[at : at + 4] in _OF_START:  # libsndfile takes the length of the tag from the end of the sound
        inner = bytes(data[at:])
        found = _OF_START[inner[:4]](inner)
        return replace(found, pieces=found.pieces or (inner,))
    start = bytes(data[:4])
    if start in _OF_START:
        return _OF_START[start](data)
    if start[:3] == b"ID3" or mpeg.read_header(start) is not None:
        return _lay_out_mpeg(data)
    return Layout()


def _lay_out_ogg(data: bytes) -> Layout:
    streams = split_ogg(data)
    return Layout(streams.contents, is_cut=streams.is_cut)


def _lay_out_flac(data: bytes) -> Layout:
    streams = split_flac(data)
    if streams is None:
        return Layout()
    n_declared = sum(max(one.n_declared, one.n_samples) for one in streams)
    return Layout(tuple(one.content for one in streams), n_declared, sum(one.n_samples for one in streams))


def _lay_out_mpeg(data: bytes, start: int = 0) -> Layout:
    found = mpeg.walk(data, start)
    if found is None or (found.is_plain and not start):
        return Layout()
    n_frames = sum(run.n_frames for run in found.runs)
    return Layout(
        tuple(mpeg.with_count(run) for run in found.runs), max(found.n_declared or n_frames, n_frames), n_frames
    )


def find_plain_length(data: bytes, n_bytes: int) -> tuple[int, int] | None:
    """Read the length of a usual WAV from its header, where the file bears it out: no decoder needs to be asked.

    Args:
        data: the file, or its beginning.
        n_bytes: of the whole file.

    Returns:
        Samples per channel and rate in Hz; None for anything that is not plain PCM, or whose sizes do not fit the file.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    form = None
    for name, body, size in _list_chunks(data, "<", 12):
        if name == b"fmt " and size in (16, 18) and form is None:
            form = struct.unpack("<HHIIHH", data[body : body + 16])
        elif name == b"data":
            break
        elif name not in _SIDE_CHUNKS:
            return None
    else:
        return None
    if form is None or not 0 < size <= n_bytes - body or n_bytes - body - size > 1:
        return None
    coding, channels, rate, per_second, per_sample, bits = form
    is_usual = (coding, bits) in _PLAIN_CODINGS and 0 < channels <= 8 and 1000 <= rate <= 384000
    if not is_usual or per_sample != channels * bits // 8 or per_second != rate * per_sample or size % per_sample:
        return None
    return size // per_sample, rate


def _list_chunks(data: bytes, order: str, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start of the body, and size of each chunk of RIFF and FORM files."""
    while at + 8 <= len(data):
        name, (size,) = data[at : at + 4], struct.unpack(f"{order}I", data[at + 4 : at + 8])
        yield name, at + 8, size
        at += 8 + size + size % 2


def _lay_out_chunks(data: bytes) -> Layout:
    """WAV, RF64, AIFF and AIFC: the size of the chunk of samples."""
    order = "<" if data[:4] in (b"RIFF", b"RF64") else ">"
    wanted = b"SSND" if data[:4] == b"FORM" else b"data"
    coding, long_size = 0, 0
    for name, body, size in _list_chunks(data, order, 12):  # noqa: B007
        if name == b"fmt " and body + 2 <= len(data):
            (coding,) = struct.unpack(f"{order}H", data[body : body + 2])
        elif name == b"ds64" and body + 16 <= len(data):
            (long_size,) = struct.unpack("<Q", data[body + 8 : body + 16])
        elif name == wanted:
            break
    else:
        return Layout()
    n_present = len(data) - body
    if data[:4] == b"RF64" and size == 0xFFFFFFFF:
        if n_present > 0 and (long_size == 0 or long_size >= 1 << 62):  # nobody wrote the length down
            return Layout((b"RIFF" + _set_sizes(data, body, n_present, order)[4:],))
        size = long_size
    if coding == 0x55:  # MPEG layer III in a WAV: the frames count
        end = body + (size if 0 < size <= n_present else n_present)
        return _lay_out_mpeg(data[: max(end, body)], body)
    if size > n_present and not _is_placeholder(size):
        return Layout((), size, n_present)
    behind = body + size + size % 2
    if 0 < size <= n_present and data[behind : behind + 4] in (b"RIFF", b"RF64", b"FORM") and _is_file(data[behind:]):
        rest = _lay_out_chunks(data[behind:])
        return Layout((data[:behind], *(rest.pieces or (data[behind:],))), rest.n_declared, rest.n_present)
    if n_present > 0 and (size == 0 or (size < n_present and _has_more(data, behind, order, size))):
        return Layout((_set_sizes(data, body, n_present, order),))
    return Layout()


def _is_placeholder(size: int) -> bool:
    return size >= _UNKNOWN and (size >= 0xFFFFF000 or 0x7F000000 <= size <= 0x80000100)


def _is_file(data: bytes) -> bool:
    return data[8:12] in (b"WAVE", b"AIFF", b"AIFC")


def _has_more(data: bytes, at: int, order: str, size: int) -> bool:
    """Sound behind the end that the header tells: bytes that are neither chunks nor tags nor padding."""
    rest = len(data) - at
    if rest < max(_MIN_REST, size // 100) or data[at : at + 3] in _TAGS or not any(data[at:]):
        return False
    for name, body, length in _list_chunks(data, order, at):
        if not all(32 <= byte < 127 for byte in name):
            return body - 8 == at  # the first is no chunk: sound; a later one: rubbish behind chunks
        if body + length >= len(data):
            return body - 8 == at and body + length > len(data) + 1
    return False


def _set_sizes(data: bytes, body: int, n_bytes: int, order: str) -> bytes:
    """The file with the size of its samples, and its own, put right."""
    size = struct.pack(f"{order}I", min(n_bytes, 0xFFFFFFFF))
    whole = struct.pack(f"{order}I", min(len(data) - 8, 0xFFFFFFFF))
    return data[:4] + whole + data[8 : body - 4] + size + data[body:]


def _lay_out_au(data: bytes) -> Layout:
    if len(data) < 24:
        return Layout()
    start, size = struct.unpack(">II", data[4:12])
    n_present = len(data) - start
    if size == 0 and n_present > 0:
        return Layout((data[:8] + struct.pack(">I", n_present) + data[12:],))
    if size > n_present > 0 and not _is_placeholder(size):
        return Layout((), size, n_present)
    behind = start + size
    if 0 < size < n_present and data[behind : behind + 4] == b".snd":
        rest = _lay_out_au(data[behind:])
        return Layout((data[:behind], *(rest.pieces or (data[behind:],))), rest.n_declared, rest.n_present)
    return Layout()


def _lay_out_caf(data: bytes) -> Layout:
    """Core Audio: the last chunk may have the size -1, which libsndfile does not know."""
    at = 8
    while at + 12 <= len(data):
        name, (size,) = data[at : at + 4], struct.unpack(">q", data[at + 4 : at + 12])
        if name == b"data":
            n_present = len(data) - at - 12
            if size <= 4 and n_present > 4:
                return Layout((data[: at + 4] + struct.pack(">q", n_present) + data[at + 12 :],))
            behind = at + 12 + size
            if data[behind : behind + 4] == b"caff":
                rest = _lay_out_caf(data[behind:])
                return Layout((data[:behind], *(rest.pieces or (data[behind:],))), rest.n_declared, rest.n_present)
            return Layout((), size, n_present) if size > n_present else Layout()
        if size < 0:
            break
        at += 12 + size
    return Layout()


def _of_w64(data: bytes) -> Layout:
    """Sony Wave64: chunks named by 16 bytes, with sizes of 8 bytes that count the name, at multiples of 8."""
    at = 40
    while at + 24 <= len(data):
        (size,) = struct.unpack("<Q", data[at + 16 : at + 24])
        if data[at : at + 4] == b"data":
            n_declared, n_present = size - 24, len(data) - at - 24
            if size <= 24 or size >= 1 << 62:
                fixed = struct.pack("<Q", n_present + 24)
                return Layout(
                    (data[:16] + struct.pack("<Q", len(data)) + data[24 : at + 16] + fixed + data[at + 24 :],)
                )
            behind = at + size + -size % 8
            if data[behind : behind + 4] == b"riff":
                rest = _of_w64(data[behind:])
                return Layout((data[:behind], *(rest.pieces or (data[behind:],))), rest.n_declared, rest.n_present)
            return Layout((), n_declared, n_present) if n_declared > n_present else Layout()
        if size < 24:
            break
        at += size + -size % 8
    return Layout()


_OF_START: dict[bytes, Callable[[bytes], Layout]] = {
    **dict.fromkeys((b"RIFF", b"RIFX", b"RF64", b"FORM"), _lay_out_chunks),
    b".snd": _lay_out_au,
    b"caff": _lay_out_caf,
    b"riff": _of_w64,
    b"OggS": _lay_out_ogg,
    b"fLaC": _lay_out_flac,
}
