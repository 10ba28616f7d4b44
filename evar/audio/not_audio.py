"""Names for files that are not audio, so that a user knows what to do."""

from __future__ import annotations

#: first bytes of a file -> its kind; a longer beginning stands before a shorter one that it contains
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer in place of the sound; run `git lfs pull` in its checkout"),
    (b"/annex/objects", "a git-annex pointer in place of the sound; run `git annex get` in its checkout"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"PK\x05\x06", "a zip archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"(\xb5/\xfd", "a zstandard archive; unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"PAR1", "a parquet file; `evar task new --parquet` takes it"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array; `evar.embed` takes arrays"),
    (b"SQLite format", "a database"),
    (b"\x00\x05\x16\x07", "the side file that macOS writes beside a file (resource fork)"),
    (b"\x00\x05\x16\x00", "the side file that macOS writes beside a file (resource fork)"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x7fELF", "a program"),
    (b"MThd", "a MIDI file: notes, not sound"),
)
_RIFF = {b"WEBP": "a WebP picture", b"AVI ": "an AVI video"}
#: bytes that are looked at
_LOOKED_AT = 4096


def name_content(data: bytes) -> str:
    """Name the kind of a file by its first bytes; "" if it may be audio.

    Args:
        data: of the file, or its beginning.

    Returns:
        What follows "it is", with what to do about it where that is known.

    Example:
        >>> name_content(b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
        'a web page (HTML) in place of the sound: the download was refused or moved; fetch it again'
        >>> name_content(bytes((0x52, 0x49, 0x46, 0x46, 0x24, 0, 0, 0)))
        ''
    """
    start = bytes(data[:_LOOKED_AT])
    for mark, what in _STARTS:
        if start.startswith(mark) and not (mark == b"BM" and len(data) < 54):
            return what
    if start[:4] == b"RIFF" and start[8:12] in _RIFF:
        return _RIFF[start[8:12]]
    if len(data) >= 16 and not any(start):
        return "nothing but zero bytes at its beginning: the copy or download was not finished"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")) or b"<html" in text[:512]:
        return "a web page (HTML) in place of the sound: the download was refused or moved; fetch it again"
    if text.startswith(b"<?xml") or (text.startswith(b"<") and b">" in text[:256] and _is_text(start)):
        return "an XML text, perhaps the error message of a server; fetch it again"
    if text[:1] in (b"{", b"[") and _is_text(start):
        return "a JSON text, perhaps the answer of a server; fetch it again"
    if len(data) >= 16 and _is_text(start):
        first = start.decode("utf-8", "replace").strip().splitlines()
        return f"a text that begins with {first[0][:40]!r}" if first else "an empty text"
    return ""


def _is_text(start: bytes) -> bool:
    """Printable UTF-8 without control characters; a character may be cut off at the end."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:
            return False
        text = start[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)
