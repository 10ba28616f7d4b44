"""The formats: parquet, npz and h5 files from a `Table`, block by block, and their metadata read again.

The same table gives the same bytes: no time stamps, no order that depends on anything but the source.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.registry import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.exporting.table import Row, Table

#: names that a carried column cannot have
RESERVED = ("path", "seconds", "start", "end", "clip", "time", "hop", "meta")


def write_parquet(path: Path, table: Table) -> None:
    """Write one row for each clip or frame, and one row group for each block.

    Args:
        path: of the file, replaced where it is there.
        table: what to write.

    Raises:
        ImportError: if pyarrow is not installed.
    """
    import pyarrow
    import pyarrow.parquet

    texts = ("path", *table.columns)
    of_clips = _name_numbers(table)
    numbers = (*of_clips, "time", "hop") if table.hop else of_clips
    schema = pyarrow.schema(
        [
            *(pyarrow.field(name, pyarrow.string()) for name in texts),
            *(pyarrow.field(name, pyarrow.float64()) for name in numbers),
            *(pyarrow.field(name, pyarrow.list_(pyarrow.float32(), width)) for name, width in table.features.items()),
        ],
        metadata={"evar": json.dumps(table.meta)},
    )
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=list(texts)) as writer:
        for rows, vectors in table.blocks(list(table.features)):
            counts = [row.n_rows for row in rows]
            arrays = [
                *(
                    pyarrow.array([text for row in rows for text in [_list_texts(row)[i]] * row.n_rows])
                    for i in range(len(texts))
                ),
                *(pyarrow.array(np.repeat([getattr(row, name) for row in rows], counts)) for name in of_clips),
            ]
            if table.hop:
                time = np.concatenate([_compute_times(row, table.hop) for row in rows])
                arrays += [pyarrow.array(time), pyarrow.array(np.full(len(time), table.hop))]
            for name, width in table.features.items():
                flat = pyarrow.array(vectors[name].reshape(-1))
                arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, width))
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema), row_group_size=sum(counts))


def write_npz(path: Path, table: Table) -> None:
    """Arrays for `numpy.load`, without pickle: `path`, `seconds` and the carried columns (clips,), `meta` (a text) and,
    per feature, (clips, width); with frames, each feature is (frames, width), with `clip` and `time` (frames,) and `hop`.
    Parts of files have `start` and `end` (clips,) too, in seconds.

    Args:
        path: of the file, replaced where it is there.
        table: what to write.

    Example:
        >>> import tempfile
        >>> from evar.exporting.parts import PartWriter
        >>> from evar.exporting.table import Table
        >>> from evar.exporting.sources import Clip
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     part = PartWriter(Path(folder), "d1", [Clip("a.wav", Path("a.wav"))], {"fc": 2})
        ...     part.add(0, 1.5, {"fc": np.ones((1, 2), np.float32)})
        ...     write_npz(Path(folder) / "out.npz", Table(Path(folder), ["d1"], {"fc": 2}, columns=(), hop=0.0))
        ...     with np.load(Path(folder) / "out.npz") as arrays:
        ...         arrays["path"].tolist(), arrays["fc"].tolist()
        (['a.wav'], [[1.0, 1.0]])
    """
    with zipfile.ZipFile(path, "w") as archive:
        for place, name in enumerate(("path", *table.columns)):
            kind = np.dtype(f"<U{table.longest[name]}")
            cells = (np.array([_list_texts(row)[place] for row in part], kind) for part in table.clips())
            _add(archive, name, kind, (table.n_clips,), cells, zipfile.ZIP_DEFLATED)
        for name in _name_numbers(table):
            _add(archive, name, np.dtype("<f8"), (table.n_clips,), _list_numbers(table, name))
        if table.hop:
            clip, time = (np.dtype(kind) for kind in ("<i8", "<f8"))
            _add(
                archive,
                "clip",
                clip,
                (table.n_rows,),
                _repeat_by_frame(table, lambda row: np.full(row.n_rows, row.clip)),
            )
            _add(
                archive,
                "time",
                time,
                (table.n_rows,),
                _repeat_by_frame(table, lambda row: _compute_times(row, table.hop)),
            )
            _add(archive, "hop", time, (), [np.array(table.hop)])
        for name, width in table.features.items():
            values = (vectors[name] for _, vectors in table.blocks([name]))
            _add(archive, name, np.dtype("<f4"), (table.n_rows, width), values)
        meta = np.array(json.dumps(table.meta))
        _add(archive, "meta", meta.dtype, (), [meta], zipfile.ZIP_DEFLATED)


def _add(
    archive: zipfile.ZipFile,
    name: str,
    kind: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Iterable[NDArray[Any]],
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Write one array piece by piece: the .npy header says the whole shape."""
    member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    member.compress_type = compression
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    with archive.open(member, "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, kind).tobytes())


def write_h5(path: Path, table: Table) -> None:
    """Datasets of the same names and shapes as the arrays of `write_npz`; texts are read with `.asstr()[:]`.

    Args:
        path: of the file, replaced where it is there.
        table: what to write.

    Raises:
        ImportError: if h5py is not installed.
    """
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("meta", data=json.dumps(table.meta), dtype=h5py.string_dtype())
        for place, name in enumerate(("path", *table.columns)):
            texts = file.create_dataset(name, (table.n_clips,), h5py.string_dtype())
            _fill(texts, (np.array([_list_texts(row)[place] for row in part], object) for part in table.clips()))
        for name in _name_numbers(table):
            _fill(file.create_dataset(name, (table.n_clips,), "<f8"), _list_numbers(table, name))
        if table.hop:
            clip = file.create_dataset("clip", (table.n_rows,), "<i8")
            _fill(clip, _repeat_by_frame(table, lambda row: np.full(row.n_rows, row.clip)))
            time = file.create_dataset("time", (table.n_rows,), "<f8")
            _fill(time, _repeat_by_frame(table, lambda row: _compute_times(row, table.hop)))
            file.create_dataset("hop", data=table.hop)
        targets = {
            name: file.create_dataset(name, (table.n_rows, width), "<f4") for name, width in table.features.items()
        }
        begin = 0
        for _, vectors in table.blocks(list(targets)):
            end = begin + len(next(iter(vectors.values())))
            for name, value in vectors.items():
                targets[name][begin:end] = value
            begin = end


def _fill(dataset: Any, pieces: Iterable[NDArray[Any]]) -> None:
    begin = 0
    for piece in pieces:
        dataset[begin : begin + len(piece)] = piece
        begin += len(piece)


def _repeat_by_frame(table: Table, value: Callable[[Row], NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """A number of each frame, clip by clip."""
    for part in table.clips():
        yield from (value(row) for row in part)


def _compute_times(row: Row, hop: float) -> NDArray[np.float64]:
    """Seconds from the beginning of the file at which the hop of each frame begins."""
    return row.start + np.arange(row.first, row.first + row.n_rows, dtype=np.float64) * np.float64(hop)


def _name_numbers(table: Table) -> tuple[str, ...]:
    """Numbers that each clip has."""
    return ("seconds", "start", "end") if table.has_times else ("seconds",)


def _list_numbers(table: Table, name: str) -> Iterator[NDArray[np.float64]]:
    """One number of each clip, part by part."""
    return (np.array([getattr(row, name) for row in part], np.float64) for part in table.clips())


def _list_texts(row: Row) -> tuple[str, ...]:
    return (row.path, *row.columns)


#: ending of the output -> (what writes it, the package that it needs)
FORMATS: dict[str, tuple[Callable[[Path, Table], None], str | None]] = {
    ".parquet": (write_parquet, "pyarrow"),
    ".npz": (write_npz, None),
    ".h5": (write_h5, "h5py"),
}


def require_format(output: Path) -> None:
    """See that the output can be written, before anything is computed.

    Args:
        output: its path; only the ending counts.

    Raises:
        ValueError: if `FORMATS` does not have its ending.
        ImportError: if the package that the format needs is not installed.

    Example:
        >>> require_format(Path("features.npz"))
        >>> require_format(Path("features.npy"))
        Traceback (most recent call last):
        ValueError: the output must end in .parquet, .npz, .h5, got 'features.npy'; did you mean features.npz?
    """
    import importlib

    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        hint = nearest(suffix, FORMATS)
        raise ValueError(
            f"the output must end in {', '.join(FORMATS)}, got {str(output)!r}"
            + (f"; did you mean {output.with_suffix(hint)}?" if hint else "")
        )
    package = FORMATS[suffix][1]
    if package is not None:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f"writing {suffix} needs {package} ({error}); pip install {package}, or write .npz, which needs no more"
            ) from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read how the vectors of an output were made: encoder, weights, layers, versions, bad clips, ...

    Args:
        path: of the output, .parquet, .npz or .h5.

    Returns:
        Name -> value, as `evar embed` wrote it.

    Raises:
        ValueError: if the file was not written by `evar embed`.
        ImportError: if the package that the format needs is not installed.

    Example:
        >>> read_metadata("features.parquet")["weights_sha256"]  # doctest: +SKIP
    """
    path = Path(path)
    require_format(path)
    try:
        meta = json.loads(_READERS[path.suffix.lower()](path))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile, TypeError) as error:
        raise ValueError(f"{path} was not written by `evar embed` ({type(error).__name__}: {error})") from error
    return dict(meta)


def _read_parquet_meta(path: Path) -> str:
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(path).metadata or {}  # pyarrow's errors are ValueErrors or OSErrors
    return str(metadata[b"evar"].decode())


def _read_npz_meta(path: Path) -> str:
    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays["meta"].item())


def _read_h5_meta(path: Path) -> str:
    import h5py

    with h5py.File(path, "r") as file:
        return str(file["meta"].asstr()[()])


_READERS: dict[str, Callable[[Path], str]] = {
    ".parquet": _read_parquet_meta,
    ".npz": _read_npz_meta,
    ".h5": _read_h5_meta,
}
