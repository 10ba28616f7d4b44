"""Checks of every file that comes from elsewhere: the offline switch, its hash, and safe unpacking."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

MAX_UNPACKED_BYTES = 4 << 30
MAX_MEMBERS = 20_000


OFFLINE_SWITCHES = ("EVAR_OFFLINE", "HF_HUB_OFFLINE")


def offline() -> str:
    """Return the environment variable that forbids the network, or an empty text if none does.

    Example:
        >>> offline() in ("", *OFFLINE_SWITCHES)
        True
    """
    switches = (name for name in OFFLINE_SWITCHES if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"))
    return next(switches, "")


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        OSError: if the file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "x").write_bytes(b"abc")
        ...     sha256_of(Path(folder) / "x")[:8]
        'ba7816bf'
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_safe(member: str) -> bool:
    """Tell whether an archive member's name stays inside its folder, and is legal on every system.

    Example:
        >>> is_safe("package/data/model.pth"), is_safe("../model.pth"), is_safe("C:/model.pth")
        (True, False, False)
    """
    parts = PurePosixPath(member).parts
    return bool(parts) and not member.startswith("/") and ".." not in parts and not set(member) & set('\\:\0*?"<>|')


def unpack(archive: str | Path, folder: str | Path, only: tuple[str, Path] | None = None) -> None:
    """Unpack a zip or a wheel into a folder, after a look at every member's name, kind and size.

    Args:
        archive: the file.
        folder: made if it does not exist; an older file with a member's name is overwritten.
        only: (member, target): unpack that one member, to that very path, and nothing else.

    Raises:
        OSError: if the archive is damaged, lacks the member, or has any member that is a link, leads outside, or
            makes it more than MAX_MEMBERS or MAX_UNPACKED_BYTES.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with zipfile.ZipFile(f"{folder}/x.zip", "w") as opened:
        ...         opened.writestr("../escaped", "")
        ...     unpack(f"{folder}/x.zip", folder)
        Traceback (most recent call last):
        OSError: x.zip is refused: its member '../escaped' is a link or leads outside
    """
    archive = Path(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            for info in members:
                if not is_safe(info.filename) or stat.S_ISLNK(info.external_attr >> 16):
                    raise OSError(f"{archive.name} is refused: its member {info.filename!r} is a link or leads outside")
            total = sum(info.file_size for info in members)
            if total > MAX_UNPACKED_BYTES or len(members) > MAX_MEMBERS:
                raise OSError(
                    f"{archive.name} is refused: {len(members)} members of {total} bytes in all, at most "
                    f"{MAX_MEMBERS} of {MAX_UNPACKED_BYTES} are unpacked; is it a zip bomb?"
                )
            if only:
                chosen = [(info, only[1]) for info in members if info.filename == only[0]][-1:]
                if not chosen:
                    raise OSError(f"{archive.name} has no member {only[0]!r}; is it another version?")
            else:
                chosen = [(info, Path(folder) / info.filename) for info in members if not info.is_dir()]
            for info, path in chosen:
                path.parent.mkdir(parents=True, exist_ok=True)
                # zipfile never gives more than the size that a member declares, and checks its CRC.
                with opened.open(info) as source, path.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 18)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise OSError(f"{archive} is not a whole zip archive: {error}; delete it to fetch it again") from error
