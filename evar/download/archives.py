"""Archives of data sets, unpacked safely: every member is looked at before a byte of it is written."""

from __future__ import annotations

import bisect
import io
import itertools
import os
import shutil
import stat
import struct
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from evar.config.disk import explain_writing
from evar.config.messages import progress_bar
from evar.download.checks import is_safe

#: a data set has many files and large ones, but sound does not shrink this much in an archive
LARGEST_RATIO = 200
SPARE_BYTES = 1 << 30
MAX_MEMBERS = 5_000_000
#: a zip's last record with the longest comment, and the shortest header of a member
_END_BYTES, _HEADER_BYTES = 22 + 65535, 30
#: what reading a damaged archive raises
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def unpack_archive(archive: str | Path, folder: str | Path, parts: Sequence[Path] = ()) -> int:
    """Unpack a zip, tar or tar.gz of a data set into a folder; nothing of it is there before all of it is.

    What an interrupted run left beside the folder is removed. Top-level entries that are there already are replaced.

    Args:
        archive: the file.
        folder: made if need be.
        parts: of a split zip (.z01, .z02, ...), in order; `archive` is its last one.

    Returns:
        How many files were unpacked.

    Raises:
        OSError: if the archive is damaged or cut off, or has a member that leads outside, is a link or a device, or makes it
            larger than sound can be.
    """
    archive, folder = Path(archive), Path(folder)
    staging = folder / f".unpacking-{uuid.uuid4().hex[:8]}"
    held = FileLock(f"{staging}.lock")  # tells other processes that this one is alive
    with explain_writing(folder, "--data_root"):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_rests(folder)
        held.acquire()
        staging.mkdir()
    limit = LARGEST_RATIO * sum(path.stat().st_size for path in (*parts, archive)) + SPARE_BYTES
    n_files, n_bytes = 0, 0
    try:
        bar_of_files = progress_bar(desc=f"unpack {archive.name}", unit="file", leave=False)
        with explain_writing(folder, "--data_root"), bar_of_files as bar:
            for name, size, source in _list_members(archive, parts):
                n_files, n_bytes = n_files + 1, n_bytes + size
                if n_files > MAX_MEMBERS or n_bytes > limit:
                    raise OSError(
                        f"{archive.name} is refused: more than {n_files - 1} files or {limit} bytes; is it a bomb?"
                    )
                target = staging / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 18)
                bar.update()
        if not n_files:
            raise OSError(f"{archive.name} holds no file")
        for entry in sorted(staging.iterdir()):
            _move(entry, folder / entry.name)
    except _DAMAGE as error:
        raise OSError(f"{archive.name} is not a whole archive ({error}); delete {archive} to fetch it again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        held.release()
        Path(f"{staging}.lock").unlink(missing_ok=True)
    return n_files


def _remove_rests(folder: Path) -> None:
    """Remove what runs left that were killed while they unpacked; one that lives holds its lock."""
    for left in folder.glob(".unpacking-*"):
        if left.suffix == ".lock":
            continue
        lock = Path(f"{left}.lock")
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(left, ignore_errors=True)
            lock.unlink(missing_ok=True)
        except Timeout:
            continue


def _move(entry: Path, target: Path) -> None:
    """Move into place; folders are merged, as several archives may share one."""
    if entry.is_dir() and target.is_dir():
        for inner in sorted(entry.iterdir()):
            _move(inner, target / inner.name)
    else:
        os.replace(entry, target)


def _list_members(archive: Path, parts: Sequence[Path]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of every file, checked."""
    if parts or zipfile.is_zipfile(archive):
        with open_joined_zip((*parts, archive)) if parts else zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise OSError(f"{archive.name} is refused: its member {info.filename!r} is a link")
                name = _clean_name(archive, info.filename)
                if info.is_dir() or not name:
                    continue
                with opened.open(info) as source:
                    yield name, info.file_size, source
        return
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            name = _clean_name(archive, member.name)
            if member.isdir() or not name:
                continue
            if not member.isreg():
                raise OSError(f"{archive.name} is refused: its member {member.name!r} is a link or a device")
            content = tar.extractfile(member)
            assert content is not None  # a regular file has content
            yield name, member.size, content


class _Joined(io.RawIOBase):
    """Files one after another, as one that can be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        self.starts = [0, *itertools.accumulate(path.stat().st_size for path in paths)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.starts[-1]}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self.starts[-1]:
            return 0
        which = bisect.bisect_right(self.starts, self._at) - 1
        file = self._files[which]
        file.seek(self._at - self.starts[which])
        n = file.readinto(memoryview(buffer)[: self.starts[which + 1] - self._at])
        self._at += n
        return n

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def open_joined_zip(paths: Sequence[Path]) -> zipfile.ZipFile:
    """Open a zip that was split into parts, opened as one.

    A split zip is its parts one after another, but for the places of its members, which count from the start of the part
    that each begins in. Python's zipfile takes them as if all began in one part; here they are set right.

    Args:
        paths: .z01, .z02, ... and .zip at last.

    Raises:
        zipfile.BadZipFile: if it is none, or members overlap.

    Source: APPNOTE.TXT of PKWARE, sections 4.3.16, 4.4.11 and 8 (splitting and spanning).
    """
    joined = _Joined(paths)
    opened = zipfile.ZipFile(io.BufferedReader(joined))
    joined.seek(max(0, joined.starts[-1] - _END_BYTES))
    tail = joined.read()
    assert tail is not None
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile("no end of a directory")
    (directory_in,) = struct.unpack("<H", tail[end + 6 : end + 8])
    if directory_in >= len(paths):
        raise zipfile.BadZipFile(f"its directory begins in part {directory_in + 1} of {len(paths)}")
    reached = 0
    for info in opened.infolist():
        if info.volume >= len(paths):
            raise zipfile.BadZipFile(f"{info.filename!r} begins in part {info.volume + 1} of {len(paths)}")
        info.header_offset += joined.starts[info.volume] - joined.starts[directory_in]
        if hasattr(info, "_end_offset"):  # of newer Pythons: from the places before they were set right
            info._end_offset = None
    for info in sorted(opened.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < reached:
            raise zipfile.BadZipFile(f"{info.filename!r} overlaps another member; is it a bomb?")
        reached = info.header_offset + _HEADER_BYTES + info.compress_size
    return opened


def _clean_name(archive: Path, name: str) -> str:
    """The member's name without a leading "./"; "" for the root itself."""
    plain = name.removeprefix("./").rstrip("/")
    if plain in ("", "."):
        return ""
    if not is_safe(plain):
        raise OSError(f"{archive.name} is refused: its member {name!r} leads outside, or is no legal name everywhere")
    return plain
