"""Read the wire format of Protocol Buffers: numbered fields of a message, without a schema and without running anything.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

Value = int | memoryview

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def read_fields(message: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """Read the number and value of every field of a message, in the order of the file.

    Args:
        message: encoded.

    Yields:
        (number, value): whole numbers of varints and of fixed widths (their bits), and the bytes of everything else.

    Raises:
        ValueError: if the bytes are no such message.

    Example:
        >>> (first, second) = read_fields(b"\\x08\\x96\\x01\\x12\\x02hi")
        >>> first, bytes(second[1])
        ((1, 150), b'hi')
    """
    view, at = memoryview(message), 0
    while at < len(view):
        tag, at = read_varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = read_varint(view, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = read_varint(view, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"a field of kind {kind} at byte {at}; is it another kind of file?")
        if number == 0 or at + size > len(view):
            raise ValueError(f"a field that ends beyond byte {len(view)}; is the file cut off or of another kind?")
        part = view[at : at + size]
        yield number, part if kind == BYTES else struct.unpack("<I" if size == 4 else "<Q", part)[0]
        at += size


def read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, and where the next field begins.

    Raises:
        ValueError: if it does not end within ten bytes, or the bytes end first.

    Example:
        >>> read_varint(memoryview(b"\\x96\\x01"), 0)
        (150, 2)
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number that does not end at byte {at}; is the file cut off or of another kind?")


def write_field(number: int, value: int | bytes) -> bytes:
    """Encode one field.

    Args:
        number: of the field.
        value: a whole number >= 0, or bytes.

    Example:
        >>> write_field(1, 150) + write_field(2, b"hi")
        b'\\x08\\x96\\x01\\x12\\x02hi'
    """
    if isinstance(value, int):
        return _varint(number << 3 | VARINT) + _varint(value)
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
