"""Append-only segments of stored vectors, with the commit record written last."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.disk import explain_writing
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLOAT_BYTES = 4


#: what one clip costs beside its vectors: its id in the commit record
_ROW_BYTES = 48


class SegmentWriter:
    """Appends batches of vectors to one segment; each batch is there wholly or not at all.

    Attributes:
        suffix: of the layers' files.
        about: name of the file that tells the layers' widths.
    """

    suffix, about = "f32", "widths.json"

    def __init__(self, key_folder: Path) -> None:
        self.folder = key_folder / f"segment-{uuid.uuid4().hex[:12]}"
        self._files: dict[str, Any] = {}
        self._record: Any = None
        self._widths: dict[str, int] = {}

    def append(self, rows: Sequence[str], vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Store one batch.

        Args:
            rows: (clips,) row ids.
            vectors: layer -> (clips, width) float32, the same layers in every batch.
        """
        record = self.open_files({layer: int(value.shape[1]) for layer, value in vectors.items()})
        for layer, width in self._widths.items():
            value = np.ascontiguousarray(vectors[layer], dtype="<f4")
            if value.shape != (len(rows), width):
                raise ValueError(f"layer {layer}: expected ({len(rows)}, {width}), got {value.shape}")
            self.write(layer, value.tobytes())
        record(list(rows))

    def open_files(self, widths: Mapping[str, int]) -> Callable[[Any], None]:
        """Make the files before the first batch; returns what writes its line in the commit record, last."""
        if self._record is None:
            self._widths = dict(widths)
            with explain_writing(self.folder, "--store"):
                self.folder.mkdir(parents=True)
                write_atomic(self.folder / self.about, json.dumps(self._widths).encode())
                for name in self._widths:
                    self._files[name] = open(self.folder / f"{name}.{self.suffix}", "ab", buffering=0)  # noqa: SIM115
                self._record = open(self.folder / "rows.jsonl", "ab", buffering=0)  # noqa: SIM115
        return lambda told: self._write_all(self._record, (json.dumps(told) + "\n").encode())

    def write(self, layer: str, data: bytes) -> None:
        """Append to a layer's file."""
        self._write_all(self._files[layer], data)

    def _write_all(self, file: Any, data: bytes) -> None:
        """Write every byte to an unbuffered file: a plain write may stop short."""
        view = memoryview(data)
        with explain_writing(self.folder, "--store"):
            while view:
                view = view[file.write(view) :]

    def close(self) -> None:
        """Flush to disk and close; the commit record last."""
        for file in (*self._files.values(), *filter(None, [self._record])):
            os.fsync(file.fileno())
            file.close()
        self._files, self._record = {}, None


def estimate_bytes(key_widths: Mapping[str, int], n_clips: int) -> int:
    """Estimate the disk space, in bytes, of the vectors of some clips.

    Example:
        >>> estimate_bytes({"fc": 100}, 10)
        4480
    """
    return n_clips * (sum(key_widths.values()) * FLOAT_BYTES + _ROW_BYTES)


def list_segments(key_folder: Path) -> list[Path]:
    return sorted(path for path in key_folder.glob("segment-*") if (path / "widths.json").is_file())


def read_widths(segment: Path) -> dict[str, int]:
    return json.loads((segment / "widths.json").read_text(encoding="utf-8"))


def read_commit(segment: Path, widths: Mapping[str, int]) -> list[str]:
    """Row ids of whole batches whose vectors are all on disk; a torn last line or a short file ends the list."""
    try:
        lines = (segment / "rows.jsonl").read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
        n_whole = min((segment / f"{layer}.f32").stat().st_size // (FLOAT_BYTES * w) for layer, w in widths.items())
    except FileNotFoundError:
        return []
    rows: list[str] = []
    for line in lines:
        try:
            batch = json.loads(line)
        except ValueError:
            break
        if len(rows) + len(batch) > n_whole:
            break
        rows.extend(batch)
    return rows


def read_row_ids(segment: Path) -> list[str]:
    """Committed rows of a segment of vectors, or of frames (see `evar.storage.frame_store`)."""
    if (segment / "widths.json").is_file():
        return read_commit(segment, read_widths(segment))
    try:
        lines = (segment / "rows.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [row for line in lines for row, *_ in json.loads(line)]


def make_safe_name(name: str) -> str:
    """Replace characters that not every file system takes.

    Example:
        >>> make_safe_name("block 1/norm")
        'block_1_norm'
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
