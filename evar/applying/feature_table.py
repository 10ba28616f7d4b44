"""Files of `evar embed` read again, block by block: the vectors of a feature, and what the file says of each row."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.registry import near_miss
from evar.exporting import read_metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: bytes of vectors that are held at a time
_BLOCK_BYTES = 32 * 2**20
#: what a file says of each row, besides the columns that were carried along
_FACTS = ("path", "start", "end", "seconds")
#: name of a row of a table of windows: the file and the seconds at which the window begins
_ADDRESS = re.compile(r"(.+)#t=(\d+(?:\.\d+)?)(?:,.*)?", re.DOTALL)


class FeatureTable:
    """A file that `evar embed` wrote, with one row a clip or window.

    Args:
        path: ends in .parquet, .npz or .h5.
        feature: name of the column of vectors; "" takes the only one.

    Attributes:
        meta: how the vectors were made.
        feature: name of the column of vectors.
        width: numbers of a vector.
        facts: names of the other columns that are there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of `evar embed`, holds frames, or has several features and none is named.
    """

    def __init__(self, path: str | Path, feature: str = "") -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no file {path} here; `evar embed ENCODER SOUNDS -o {self.path.name}` writes one")
        self.meta: dict[str, Any] = read_metadata(self.path)
        widths = dict(self.meta["features"])
        if self.meta.get("rows") == "frames":
            raise ValueError(
                f"{path} holds frames, one row for each; search needs a vector for each clip or window: embed again without "
                "--frames"
            )
        if not feature and len(widths) > 1:
            raise ValueError(f"{path} holds several features, {', '.join(widths)}; say which with --layer=NAME")
        self.feature = feature or next(iter(widths))
        if self.feature not in widths:
            raise ValueError(f"{path} holds no feature {feature!r}; {near_miss(feature, widths)}")
        self.width = int(widths[self.feature])
        there = self._list_columns()
        self.facts = [name for name in dict.fromkeys((*_FACTS, *self.meta.get("columns", ()))) if name in there]

    @property
    def has_times(self) -> bool:
        """Whether rows are windows, with a start and an end."""
        return "start" in self.facts

    def read_blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the number of the first row of each block, and its vectors, (rows, width)."""
        n_rows, first = max(1, _BLOCK_BYTES // (4 * self.width)), 0
        for block in _BLOCKS[self.path.suffix.lower()](self.path, self.feature, self.width, n_rows):
            yield first, block
            first += len(block)

    def read_vectors(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """Return the vectors of some rows, (rows, width), in the order given."""
        found = np.zeros((len(rows), self.width), np.float32)
        wanted = np.asarray(rows, np.int64)
        for first, block in self.read_blocks():
            is_here = (wanted >= first) & (wanted < first + len(block))
            found[is_here] = block[wanted[is_here] - first]
            if wanted.size and first + len(block) > wanted.max():
                break
        return found

    def read_facts(self, names: Sequence[str]) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """Yield, block by block, the number of the first row and column -> (rows,) values.

        Args:
            names: columns to read.
        """
        first = 0
        for block in _FACT_BLOCKS[self.path.suffix.lower()](self.path, list(names)):
            yield first, block
            first += len(next(iter(block.values())))

    def describe_rows(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return what the file says of some rows, in the order given: column -> value."""
        found: dict[int, dict[str, Any]] = {}
        wanted = sorted(set(rows))
        for first, block in self.read_facts(self.facts):
            n_rows = len(next(iter(block.values())))
            for row in wanted:
                if first <= row < first + n_rows:
                    found[row] = {name: _to_plain(values[row - first]) for name, values in block.items()}
            if len(found) == len(wanted):
                break
        return [found[row] for row in rows]

    def find_row(self, name: str) -> int | None:
        """Return the number of the row of a name, or None.

        Args:
            name: the path of a row, or its end ("a.wav" of "birds/a.wav") where only one row has it; of windows followed by
                "#t=" and the seconds at which the window begins.

        Raises:
            ValueError: if several rows have that name.
        """
        address = _ADDRESS.fullmatch(name) if self.has_times else None
        path, start = (address[1], float(address[2])) if address else (name, math.nan)
        whole: list[int] = []
        ending: list[int] = []
        for first, block in self.read_facts(["path", "start"] if self.has_times else ["path"]):
            for at, value in enumerate(block["path"]):
                text = str(value)
                if text != path and not text.endswith(f"/{path}"):
                    continue
                if address and abs(float(block["start"][at]) - start) > 1e-3:
                    continue
                (whole if text == path else ending).append(first + at)
        found = whole or ending
        if len(found) > 1:
            how = "PATH#t=SECONDS names the window that begins there" if self.has_times else "give its whole path"
            raise ValueError(f"{self.path} has {len(found)} rows of the name {name!r}; {how}")
        return found[0] if found else None

    def _list_columns(self) -> list[str]:
        suffix = self.path.suffix.lower()
        if suffix == ".parquet":
            import pyarrow.parquet

            return list(pyarrow.parquet.read_schema(self.path).names)
        if suffix == ".npz":
            with np.load(self.path, allow_pickle=False) as arrays:
                return list(arrays.files)
        import h5py

        with h5py.File(self.path, "r") as file:
            return list(file)


def _to_plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _read_parquet_blocks(path: Path, feature: str, width: int, n_rows: int) -> Iterator[NDArray[np.float32]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=n_rows, columns=[feature]):
            yield np.asarray(batch.column(0).flatten(), np.float32).reshape(-1, width)


def _read_npz_blocks(path: Path, feature: str, width: int, n_rows: int) -> Iterator[NDArray[np.float32]]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{feature}.npy") as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, is_fortran, kind = read_header(member)
        if is_fortran or kind != np.dtype("<f4"):
            raise ValueError(f"{path}: {feature} must be float32 rows, got {kind}")
        while data := member.read(4 * width * n_rows):
            yield np.frombuffer(data, np.float32).reshape(-1, width)


def _read_h5_blocks(path: Path, feature: str, width: int, n_rows: int) -> Iterator[NDArray[np.float32]]:
    import h5py

    with h5py.File(path, "r") as file:
        vectors = file[feature]
        for first in range(0, len(vectors), n_rows):
            yield np.asarray(vectors[first : first + n_rows], np.float32)


def _read_parquet_facts(path: Path, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1 << 16, columns=names):
            yield {name: np.array(batch.column(name).to_pylist()) for name in names}


def _read_npz_facts(path: Path, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
    with np.load(path, allow_pickle=False) as arrays:
        yield {name: arrays[name] for name in names}


def _read_h5_facts(path: Path, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
    import h5py

    with h5py.File(path, "r") as file:
        for first in range(0, len(file["path"]), 1 << 16):
            part = slice(first, first + (1 << 16))
            yield {
                name: file[name].asstr()[part] if h5py.check_string_dtype(file[name].dtype) else file[name][part]
                for name in names
            }


_BLOCKS = {".parquet": _read_parquet_blocks, ".npz": _read_npz_blocks, ".h5": _read_h5_blocks}
_FACT_BLOCKS = {".parquet": _read_parquet_facts, ".npz": _read_npz_facts, ".h5": _read_h5_facts}
