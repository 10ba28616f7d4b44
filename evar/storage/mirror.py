"""Results and feature stores at an address that fsspec knows (s3://, gs://, file:// ...), worked on in a local mirror.

Memory mapping, locks and atomic writes need a local disk, so every machine has a mirror of what it needs below the user's
cache folder. Results: all records are fetched when a command starts, and each file is uploaded as soon as it is written.
Store: the segments of a key are fetched before it is read, and a segment is uploaded when its run is over, its commit
record last. Segments only grow and nobody writes to another's, so machines need no lock that they share: at worst two of
them encode the same clips.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evar.config.folders import cache_folder
from evar.storage import atomic

#: folders of a results folder that hold records; tables and plots are made from them again
_RECORDS = ("runs", "predictions", "failures", "hints", "searches", "costs")
#: records that another machine may have taken back
_WITHDRAWN = "failures"
#: is uploaded after all else of its segment
_COMMIT_RECORD = "rows.jsonl"

#: facts of a file system that change with the content of a file, the most reliable first
_STAMPS = (
    *("ETag", "etag", "md5Hash", "content_md5", "checksum"),
    *("LastModified", "last_modified", "updated", "mtime", "created"),
)
_STAMP_FILE = ".stamps.json"


@dataclass(frozen=True)
class _RemoteFile:
    """Return size in bytes, and a stamp that changes with the content; "" if the remote end gives no stamp."""

    size: int
    stamp: str


def is_address(folder: object) -> bool:
    """Tell whether a folder is named by an address.

    Example:
        >>> is_address("s3://bucket/results"), is_address("results"), is_address(None)
        (True, False, False)
    """
    return isinstance(folder, str) and "://" in folder


class Mirror:
    """A local copy of part of a remote folder.

    Args:
        address: such as "s3://bucket/results".

    Attributes:
        folder: the local copy.

    Raises:
        ValueError: if fsspec does not know that kind of address, or lacks the package for it.
    """

    def __init__(self, address: str) -> None:
        import fsspec

        try:
            self._files, root = fsspec.core.url_to_fs(address)
        except (ValueError, ImportError) as error:
            raise ValueError(f"cannot open {address}: {' '.join(str(error).split())}") from error
        self.address, self._root = address, str(root).rstrip("/")
        self.folder = cache_folder() / "mirrors" / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]
        self._stamps = self._load_stamps()

    def fetch(self, below: str, *, grows: bool) -> None:
        """Make the local and the remote copy of a folder the same.

        Args:
            below: its path within the mirror, with slashes.
            grows: files are only appended to, so that the larger copy is the newer one. Otherwise a remote file replaces
                the local one unless both are known to be the same: of one size, and the remote end's entity tag, hash or
                time is that of the last transfer.

        Raises:
            ValueError: if a remote file's name leads out of the folder.
            OSError: if the remote end cannot be read or written.
        """
        remote = self._list_remote(below)
        start = self.folder / below
        local = {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in start.rglob("*")
            if path.is_file() and _is_kept(path)
        }
        for name, entry in sorted(remote.items()):
            if grows:
                is_newer = entry.size > local.get(name, -1)
            else:
                is_newer = entry.size != local.get(name) or not entry.stamp or self._stamps.get(name) != entry.stamp
            if is_newer:
                self._download(name)
                self._stamps[name] = entry.stamp
        newer = [name for name, size in local.items() if name not in remote or (grows and size > remote[name].size)]
        for name in sorted(newer, key=_commit_last):
            if PurePosixPath(name).parts[0] == _WITHDRAWN and not grows:
                (self.folder / name).unlink(missing_ok=True)
            else:
                self.send(self.folder / name)
        if not grows:
            self._save_stamps()

    def fetch_named(self, below: str, name: str) -> None:
        """Bring the files of one name below a folder here, where they are missing or differ in size.

        Args:
            below: path of the folder within the mirror, with slashes.
            name: of the files, such as "key.json".

        Raises:
            ValueError, OSError: as `fetch`.
        """
        for path, entry in sorted(self._list_remote(below).items()):
            local = self.folder / path
            if PurePosixPath(path).name == name and not (local.is_file() and local.stat().st_size == entry.size):
                self._download(path)

    def send(self, path: Path) -> None:
        """Upload a file of the mirror."""
        name = path.relative_to(self.folder).as_posix()
        self._files.makedirs(f"{self._root}/{PurePosixPath(name).parent}", exist_ok=True)
        self._files.put_file(str(path), f"{self._root}/{name}")
        # Its stamp is not read: another machine may have written since, and the next fetch compares.
        self._stamps.pop(name, None)

    def send_folder(self, folder: Path) -> None:
        """Upload a segment, or another folder without folders; its commit record last."""
        for path in sorted(folder.iterdir(), key=lambda path: _commit_last(path.name)):
            if path.is_file() and _is_kept(path):
                self.send(path)

    def follow_change(self, path: Path) -> None:
        """Send or remove a file below the mirror; `evar.storage.atomic` calls this after each change."""
        if path.is_file():
            self.send(path)
            return
        name = f"{self._root}/{path.relative_to(self.folder).as_posix()}"
        if self._files.exists(name):
            self._files.rm_file(name)

    def _list_remote(self, below: str) -> dict[str, _RemoteFile]:
        self._files.invalidate_cache()
        try:
            found = self._files.find(f"{self._root}/{below}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return {}
        files = {}
        for name, about in found.items():
            inner = str(name)[len(self._root) :].lstrip("/")
            if not str(name).startswith(self._root) or ".." in PurePosixPath(inner).parts:
                raise ValueError(f"{self.address} lists {name!r}, which lies outside of it")
            if about.get("type", "file") == "file" and _is_kept(Path(inner)):
                stamp = next((f"{key} {about[key]}" for key in _STAMPS if about.get(key)), "")
                files[inner] = _RemoteFile(int(about["size"]), stamp)
        return files

    def _load_stamps(self) -> dict[str, str]:
        """Read what the remote end said of each file when it was last fetched; nothing if that cannot be read."""
        try:
            data = json.loads((self.folder / _STAMP_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(name): str(stamp) for name, stamp in data.items()} if isinstance(data, dict) else {}

    def _save_stamps(self) -> None:
        """Write the stamps; of two processes the last wins, and what it does not know is fetched again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{_STAMP_FILE}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            part.write_text(json.dumps(self._stamps, sort_keys=True), encoding="utf-8")
            os.replace(part, self.folder / _STAMP_FILE)
        finally:
            part.unlink(missing_ok=True)

    def _download(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self._files.get_file(f"{self._root}/{name}", str(part))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


_results: dict[str, Mirror] = {}


def at_hand(out: str, *also: str) -> str:
    """Return the local folder of a results folder: itself, or the mirror of an address with all records fetched.

    What is written there through `evar.storage.atomic` is uploaded at once.

    Args:
        out: folder or address.
        also: further folders below it to fetch, such as "finetuned".

    Raises:
        ValueError, OSError: as `Mirror`.
    """
    if not is_address(out):
        return out
    mirror = _results.get(out) or Mirror(out)
    for name in (*_RECORDS, *also):
        mirror.fetch(name, grows=False)
    _results[out] = mirror
    atomic.listeners[mirror.folder] = mirror.follow_change
    return str(mirror.folder)


def _is_kept(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix not in (".lock", ".tmp") and path.name != "lock"


def _commit_last(name: str) -> tuple[bool, str]:
    return name.rsplit("/", 1)[-1] == _COMMIT_RECORD, name
