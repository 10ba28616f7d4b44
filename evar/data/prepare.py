"""From a task's name to clips on disk: fetch, unpack and check, or point at a copy that is there already."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from evar import download
from evar.config.disk import explain_writing
from evar.config.messages import tell
from evar.data.task import load_task, prepare
from evar.data.task_config import TaskConfig, load_task_config
from evar.download.archives import unpack_archive
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from evar.data.task import Task
    from evar.data.task_config import Archive
    from evar.data.verification import Verification

#: in the task's folder: which archives are unpacked there
STAMP = ".evar_prepared.json"


@dataclass(frozen=True)
class Prepared:
    """Result of `prepare_task`.

    Attributes:
        task: ready to be used.
        folder: where its clips are.
        what: one sentence on where they came from.
        verification: result of decoding every clip; None if it was not requested.
    """

    task: Task
    folder: Path
    what: str
    verification: Verification | None


def prepare_task(
    name: str,
    data_root: str | Path | None = None,
    source: str | Path | None = None,
    *,
    verify: bool = True,
    keep_archives: bool = False,
) -> Prepared:
    """Bring the clips of a task to where every command finds them, and check them.

    Nothing is resampled or copied: archives are unpacked as they are and then deleted, a copy that is there is linked.

    Args:
        name: of the task.
        data_root: folder that holds the tasks' folders; None takes EVAR_DATA, then ./data.
        source: a copy that is on disk: the task's own folder, its top folder, or one that holds it.
        verify: decode every clip; else only look whether each is there.
        keep_archives: leave the downloaded files in `data_root/.downloads`.

    Raises:
        ValueError: if the task cannot be fetched without you, or its copy is not as published.
        OSError: if a file cannot be fetched, an archive is not safe or whole, or clips are missing.
    """
    entry = load_task_config(name)
    root = Path(data_root or os.environ.get("EVAR_DATA") or "data")
    if entry.builder:
        what = "rendered from parts that come with pip packages"
        task = load_task(name, data_root)
        prepare(task)
    else:
        if source is not None:
            what = _link_folder(entry, root / entry.folder, Path(source).expanduser().resolve())
        elif _is_there(entry, root):
            what = "was there already"
        else:
            what = _fetch(entry, root, keep_archives)
        try:
            task = load_task(name, root)
        except FileNotFoundError as error:
            if _read_stamp(root / entry.folder) is None:
                raise
            raise FileNotFoundError(
                f"{error}; what could be fetched is there: then run the same command again"
            ) from error
        task.require_files()
    return Prepared(task, task.folder, what, task.verify() if verify else None)


def _is_there(entry: TaskConfig, root: Path) -> bool:
    """Is there a whole copy? One that was unpacked in part is not, nor a folder in which another run has just begun."""
    folder = root / entry.folder
    # Names with a dot are ours: the stamp is written under such a name before anything is unpacked.
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return False
    stamp = _read_stamp(folder)
    return stamp is None or all(archive.file in stamp for archive in entry.archives)


def _link_folder(entry: TaskConfig, target: Path, source: Path) -> str:
    """Make the task's folder a link to the user's copy."""
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}; --from is a copy of {entry.name} that you have")
    inner = source / entry.folder
    found = inner if inner.is_dir() and not (source / (entry.landmark or ".nothing")).exists() else source
    if target.is_symlink() or target.exists():
        if target.resolve() == found.resolve():
            return f"{target} is {found} already"
        raise FileExistsError(f"{target} is there already and is not {found}; remove it, or choose another --data_root")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(found, target_is_directory=True)
    except FileExistsError:  # another run was faster
        if target.resolve() == found.resolve():
            return f"{target} is {found} already"
        raise
    except OSError as error:
        raise OSError(
            f"{target} cannot be made a link to {found} ({error.strerror}); point EVAR_DATA at a folder that holds it as "
            f"{entry.folder}/"
        ) from error
    return f"linked {target} to {found}"


def _fetch(entry: TaskConfig, root: Path, keep_archives: bool) -> str:
    """Download and unpack every archive that is not unpacked yet."""
    if not entry.archives:
        raise ValueError(
            f"{entry.name} cannot be fetched without you ({entry.access}): get it from {entry.source}, then `evar prepare "
            f"{entry.name} --from=FOLDER`"
        )
    with _hold_alone(entry, root):
        if _is_there(entry, root):
            return "was fetched by another run in the meantime"
        return _fetch_archives(entry, root, keep_archives)


@contextlib.contextmanager
def _hold_alone(entry: TaskConfig, root: Path) -> Iterator[None]:
    """Hold the task's folder and its archives: tasks may share both, and several commands may prepare them at once."""
    locks = root / ".downloads" / ".locks"
    with explain_writing(locks, "--data_root"):
        locks.mkdir(parents=True, exist_ok=True)
    # One folder, then archives in one order everywhere: two runs never wait for each other.
    names = [f"folder {entry.folder}", *sorted({f"archive {archive.file}" for archive in entry.archives})]
    with contextlib.ExitStack() as held:
        for name in names:
            lock = filelock.FileLock(locks / f"{re.sub('[^A-Za-z0-9.-]', '_', name)}.lock")
            try:
                held.enter_context(lock.acquire(timeout=0))
            except filelock.Timeout:
                tell(f"another run is preparing the same {name}; waiting for it")
                held.enter_context(lock.acquire())
        yield


def _fetch_archives(entry: TaskConfig, root: Path, keep_archives: bool) -> str:
    folder = root / entry.folder
    with explain_writing(folder, "--data_root"):
        folder.mkdir(parents=True, exist_ok=True)
    done = dict(_read_stamp(folder) or {})
    _write_stamp(folder, done)  # from here on the folder is known to be in the making
    for archive in entry.archives:
        if archive.file in done or archive.part_of:
            continue
        parts = [_download(one, root) for one in entry.archives if one.part_of == archive.file]
        path = _download(archive, root)
        n_files = 1
        if archive.unpack:
            try:
                n_files = unpack_archive(path, folder / archive.into, parts)
            except OSError as error:
                if error.errno is None:  # the archive is the wrong one or damaged; of a full disk it is not
                    for one in (*parts, path):
                        download.forget_hash(one)
                raise
        else:
            target = folder / archive.into / archive.file
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, path.read_bytes())
        done |= {archive.file: n_files, **{part.name: 0 for part in parts}}
        _write_stamp(folder, done)
        if not keep_archives:
            for one in (*parts, path):
                one.unlink(missing_ok=True)
    return f"fetched {', '.join(archive.file for archive in entry.archives)} into {folder}"


def _download(archive: Archive, root: Path) -> Path:
    """The archive in `root/.downloads`, whole and as published."""
    path = root / ".downloads" / archive.file
    download.url(archive.urls, path, archive.sha256, archive.size)
    if archive.md5 and (found := _hash_md5(path)) != archive.md5:
        download.forget_hash(path)
        path.unlink()
        raise OSError(
            f"{archive.file} has md5 {found}, expected {archive.md5}; it is another version or was damaged on its way, and "
            "was deleted: run the command again"
        )
    return path


def _hash_md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_stamp(folder: Path) -> dict[str, int] | None:
    """Archive -> files unpacked; None for a folder that was not prepared here."""
    try:
        found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write_stamp(folder: Path, done: dict[str, int]) -> None:
    write_atomic(folder / STAMP, (json.dumps(done, indent=1) + "\n").encode())
