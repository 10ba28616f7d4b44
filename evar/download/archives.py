"""Archives of data sets, unpacked safely: every member is looked at before a byte of it is written."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tqdm import tqdm

from evar.download.checks import is_safe

#: a data set has many files and large ones, but sound does not shrink this much in an archive
LARGEST_RATIO = 200
SPARE_BYTES = 1 << 30
MAX_MEMBERS = 5_000_000
#: what reading a damaged archive raises
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def unpack_archive(archive: str | Path, folder: str | Path) -> int:
    """Unpack a zip, tar or tar.gz of a data set into a folder; nothing of it is there before all of it is.

    What an interrupted run left beside the folder is removed. Top-level entries that are there already are replaced.

    Args:
        archive: the file.
        folder: made if need be.

    Returns:
        How many files were unpacked.

    Raises:
        OSError: if the archive is damaged or cut off, or has a member that leads outside, is a link or a device, or makes it
            larger than sound can be.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".unpacking-*"):
        shutil.rmtree(left, ignore_errors=True)
    staging = folder / f".unpacking-{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    limit = LARGEST_RATIO * archive.stat().st_size + SPARE_BYTES
    n_files, n_bytes = 0, 0
    try:
        with tqdm(desc=f"unpack {archive.name}", unit="file", disable=None, leave=False) as bar:
            for name, size, source in _members(archive):
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
            _moved(entry, folder / entry.name)
    except _DAMAGE as error:
        raise OSError(f"{archive.name} is not a whole archive ({error}); delete {archive} to fetch it again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return n_files


def _moved(entry: Path, target: Path) -> None:
    """Move into place; folders are merged, as several archives may share one."""
    if entry.is_dir() and target.is_dir():
        for inner in sorted(entry.iterdir()):
            _moved(inner, target / inner.name)
    else:
        os.replace(entry, target)


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of every file, checked."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise OSError(f"{archive.name} is refused: its member {info.filename!r} is a link")
                name = _safe_name(archive, info.filename)
                if info.is_dir() or not name:
                    continue
                with opened.open(info) as source:
                    yield name, info.file_size, source
        return
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            name = _safe_name(archive, member.name)
            if member.isdir() or not name:
                continue
            if not member.isreg():
                raise OSError(f"{archive.name} is refused: its member {member.name!r} is a link or a device")
            content = tar.extractfile(member)
            assert content is not None  # a regular file has content
            yield name, member.size, content


def _safe_name(archive: Path, name: str) -> str:
    """The member's name without a leading "./"; "" for the root itself."""
    plain = name.removeprefix("./").rstrip("/")
    if plain in ("", "."):
        return ""
    if not is_safe(plain):
        raise OSError(f"{archive.name} is refused: its member {name!r} leads outside, or is no legal name everywhere")
    return plain
