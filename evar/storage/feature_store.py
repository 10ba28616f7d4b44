"""The feature store: pooled vectors of every layer, one row a clip, memory-mapped, safe to kill and to share.

Layout under the store's folder::

    audio.sqlite                             path, size, mtime -> content hash, length, rate (saves reading files again)
    <encoder>/<digest of the FeatureKey>/
        key.json                             the key, for people and for `evar store ls`
        lock                                 held by the one run that encodes for this key
        <segment>/rows.jsonl                 one line a batch: row ids; written AFTER the vectors: the commit record
        <segment>/<layer>.f32                (rows, width) float32, little-endian, memory-mapped for reading

A run appends to a segment of its own. A kill at any moment leaves vectors without a commit record, which readers do not
see, so at most the batch in flight is lost. Rows are addressed by audio content and window: tasks, folds and limits only
select rows, and two tasks on the same clips share them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.disk import explain_writing
from evar.config.folders import cache_folder
from evar.config.messages import tell
from evar.storage.atomic import write_atomic
from evar.storage.keys import FeatureKey
from evar.storage.mirror import Mirror, is_address
from evar.storage.rows_on_disk import RowsOnDisk
from evar.storage.segments import (
    FLOAT_BYTES,
    SegmentWriter,
    list_segments,
    make_safe_name,
    read_commit,
    read_row_ids,
    read_widths,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FeatureStore:
    """Vectors by key and row id.

    Args:
        folder: where the store lives; None takes EVAR_STORE, then the user's cache folder. An address such as
            "s3://bucket/store" is worked on in a local mirror (see `evar.storage.mirror`).

    Attributes:
        folder: where the vectors lie on this machine.
        mirror: of an address; None for a folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        asked = folder or os.environ.get("EVAR_STORE") or cache_folder() / "store"
        self.mirror = Mirror(str(asked)) if is_address(asked) else None
        self.folder = self.mirror.folder if self.mirror else Path(asked)
        self._fetched: set[str] = set()

    def key_folder(self, key: FeatureKey) -> Path:
        """Return the folder of the vectors of a key."""
        return self.folder / make_safe_name(key.encoder) / key.digest

    def rows(self, key: FeatureKey) -> dict[str, tuple[str, int]]:
        """Committed rows: row id -> (segment, row number). The first segment by name wins where two hold a row."""
        self.fetch(key)
        found: dict[str, tuple[str, int]] = {}
        for folder in list_segments(self.key_folder(key)):
            for number, row in enumerate(read_commit(folder, read_widths(folder))):
                found.setdefault(row, (folder.name, number))
        return found

    def list_stored(self, key: FeatureKey) -> Collection[str]:
        """Row ids that are there."""
        return self.rows(key)

    def fetch(self, key: FeatureKey) -> None:
        """Bring a key's segments here from the address of the store, once; of a folder there is nothing to bring."""
        if self.mirror and key.digest not in self._fetched:
            self.mirror.fetch(f"{make_safe_name(key.encoder)}/{key.digest}", grows=True)
            self._fetched.add(key.digest)

    def load(
        self, key: FeatureKey, rows: Sequence[str], layer: str, where: Mapping[str, tuple[str, int]] | None = None
    ) -> NDArray[np.float32]:
        """Load the vectors of one layer, in the order of `rows`.

        Args:
            key: everything that can change the vectors.
            rows: (clips,) row ids.
            layer: name of a stored layer.
            where: what `self.rows(key)` gave, to spare reading the commit records again for every layer.

        Returns:
            (rows, width) float32, gathered from the memory-mapped segments.

        Raises:
            KeyError: if a row or the layer is not stored.
        """
        where = self.rows(key) if where is None else where
        missing = [row for row in rows if row not in where]
        if missing:
            raise KeyError(f"{len(missing)} of {len(rows)} rows of {key.encoder} are not stored, first {missing[0]}")
        by_segment: dict[str, list[tuple[int, int]]] = {}
        for position, row in enumerate(rows):
            segment, number = where[row]
            by_segment.setdefault(segment, []).append((position, number))
        out: NDArray[np.float32] | None = None
        for name, pairs in by_segment.items():
            folder = self.key_folder(key) / name
            width = read_widths(folder)[layer]
            file = folder / f"{layer}.f32"
            n_whole = file.stat().st_size // (FLOAT_BYTES * width)
            mapped = np.memmap(file, dtype="<f4", mode="r", shape=(n_whole, width))
            if out is None:
                out = np.empty((len(rows), width), np.float32)
            positions, numbers = np.array(pairs).T
            order = np.argsort(numbers)  # in file order: sequential reads
            out[positions[order]] = mapped[numbers[order]]
        if out is None:
            raise KeyError(f"row ids of {key.encoder} must name at least one row, got none")
        return out

    def on_disk(
        self,
        key: FeatureKey,
        rows: Sequence[str | None],
        layers: Sequence[str],
        where: Mapping[str, tuple[str, int]] | None = None,
    ) -> RowsOnDisk:
        """Open the vectors of some layers side by side; rows are read when they are needed.

        Args:
            key, where: as for `load`.
            rows: (clips,) row ids; None for a clip whose vectors are not needed.
            layers: names.

        Raises:
            KeyError: if a row is not stored.
        """
        where = self.rows(key) if where is None else where
        places = [("", 0) if row is None else where[row] for row in rows]
        names = sorted({name for name, _ in places if name})
        number = {name: at for at, name in enumerate(names)}
        folders = [self.key_folder(key) / name for name in names]
        return RowsOnDisk(
            {layer: [folder / f"{layer}.f32" for folder in folders] for layer in layers},
            read_widths(folders[0]) if folders else {},
            np.array([number.get(name, -1) for name, _ in places], np.int64),
            np.array([at for _, at in places], np.int64),
        )

    @contextmanager
    def writing(self, key: FeatureKey) -> Iterator[SegmentWriter]:
        """Hold the key's lock and append to a new segment; a second run waits, then finds the rows there."""
        import filelock

        folder = self.key_folder(key)
        lock = filelock.FileLock(folder / "lock")
        with explain_writing(folder, "--store"):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                tell(f"{key.encoder}: another run is encoding the same clips; waiting for it")
                lock.acquire()
        try:
            record = folder / "key.json"
            if not record.is_file():
                text = json.dumps(key.to_plain(), indent=2, sort_keys=True, default=str)
                write_atomic(record, text.encode())
            self._fetched.discard(key.digest)  # others may have stored some in the meantime
            writer = self.writer(folder)
            try:
                yield writer
            finally:
                writer.close()
                if self.mirror and writer.folder.is_dir():
                    self.mirror.send(record)
                    self.mirror.send_folder(writer.folder)
        finally:
            lock.release()

    def writer(self, key_folder: Path) -> SegmentWriter:
        """Make the writer that appends to a key."""
        return SegmentWriter(key_folder)

    def contents(self) -> list[dict[str, Any]]:
        """List one entry for each key for `evar store ls`: encoder, digest, clips, layers, bytes, clip policy, folder."""
        entries = []
        for record in sorted(self.folder.glob("*/*/key.json")):
            key = json.loads(record.read_text(encoding="utf-8"))
            clips: set[str] = set()
            for segment in record.parent.glob("segment-*"):
                clips.update(read_row_ids(segment))
            is_frames = next(record.parent.glob("segment-*/frames.json"), None) is not None
            n_bytes = sum(file.stat().st_size for file in record.parent.rglob("*") if file.is_file())
            entries.append(
                {
                    "encoder": key["encoder"],
                    "digest": record.parent.name,
                    "clips": len(clips),
                    "layers": len(key["layers"]),
                    "bytes": n_bytes,
                    "clip": "texts"
                    if key["crop"] == "text"
                    else f"{name_clip_length(key['clip_seconds'])}, {key['pad']}, {key['crop']}"
                    + (", frames" if is_frames else "")
                    + name_alteration(key.get("alteration")),
                    "weights": key["weights_sha256"][:12],
                    "folder": record.parent,
                }
            )
        return entries

    def prune(self, encoder: str | None = None, digest: str | None = None) -> list[Path]:
        """Delete the vectors of an encoder, of one key (a prefix of its digest), or, with neither, uncommitted rests.

        Returns:
            The folders that were removed. A key that a run is writing to is left alone.
        """
        import filelock

        removed = []
        for record in sorted(self.folder.glob("*/*/key.json")):
            folder = record.parent
            if encoder and folder.parent.name != make_safe_name(encoder):
                continue
            if digest and not folder.name.startswith(digest):
                continue
            try:
                with filelock.FileLock(folder / "lock", timeout=0):
                    whole = bool(encoder or digest)
                    targets = (
                        [folder] if whole else [s for s in sorted(folder.glob("segment-*")) if not read_row_ids(s)]
                    )
                    for target in targets:
                        shutil.rmtree(target, ignore_errors=True)
                        removed.append(target)
            except filelock.Timeout:
                tell(f"{folder}: in use by a run; left alone")
        return removed


def name_clip_length(seconds: float | None) -> str:
    """Say how much of each clip was encoded.

    Args:
        seconds: of each clip; None for whole clips.

    Example:
        >>> name_clip_length(5.0), name_clip_length(None)
        ('5 s', 'whole clips')
    """
    return "whole clips" if not seconds else f"{seconds:g} s"


def name_alteration(alteration: Mapping[str, Any] | None) -> str:
    """Say what was done to the recordings first, as the end of a list; "" for nothing.

    Args:
        alteration: as in a key.

    Example:
        >>> name_alteration({"name": "white_noise", "params": {"snr_db": 10.0}}), name_alteration(None)
        (', white_noise snr_db=10.0', '')
    """
    if not alteration:
        return ""
    params = "".join(f" {name}={value}" for name, value in alteration.get("params", {}).items())
    return f", {alteration.get('name', 'altered')}{params}"
