"""Read a TensorFlow checkpoint of version 2 (`NAME.index` and `NAME.data-00000-of-00001`) without TensorFlow.

The index is a sorted table of names; each entry says type, shape, place and size of a tensor in the data file. Both are
numbers and names only, and no part of them is run.

Source: `tensorflow/core/protobuf/tensor_bundle.proto` and `tensorflow/core/lib/io/table_format.txt`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evar.encoders._protobuf import read_fields, read_varint

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER_BYTES, _TRAILER_BYTES = 48, 5
_LARGEST_INDEX = 1 << 28
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 19: "<f2"}
_SHARD = ".data-00000-of-00001"


def list_checkpoint_files(path: Path) -> tuple[Path, Path]:
    """List the index and the data file of a checkpoint.

    Args:
        path: of the index or of the data file.

    Raises:
        ValueError: if the name is that of neither.
        FileNotFoundError: if one of them is missing.

    Example:
        >>> list_checkpoint_files(Path("model.ckpt"))
        Traceback (most recent call last):
        ValueError: model.ckpt must end with .index or .data-00000-of-00001, as a TensorFlow checkpoint of one part does
    """
    name = path.name
    if not name.endswith((".index", _SHARD)):
        raise ValueError(f"{name} must end with .index or {_SHARD}, as a TensorFlow checkpoint of one part does")
    stem = name.removesuffix(".index").removesuffix(_SHARD)
    files = path.with_name(stem + ".index"), path.with_name(stem + _SHARD)
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file.name!r} is not in {file.parent}; a TensorFlow checkpoint needs both files")
    return files


def read_tf_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a checkpoint.

    Args:
        path: of the index or of the data file; the other one lies beside it.

    Returns:
        Name -> tensor of the type that is stored.

    Raises:
        ValueError: if the files are no checkpoint of version 2, are cut off, or hold compressed blocks or other types.
        FileNotFoundError: if one of them is missing.
    """
    index, data = list_checkpoint_files(path)
    state = {}
    with data.open("rb") as file:
        size = data.stat().st_size
        try:
            entries = list(_list_entries(index))
            for name, value in entries:
                if name:  # the entry without a name describes the checkpoint as a whole
                    state[name] = _read_tensor(name, value, file, size)
        except (ValueError, struct.error, IndexError, OverflowError) as error:
            raise ValueError(f"{index} is no TensorFlow checkpoint that can be read: {error}") from error
    return state


def _list_entries(index: Path) -> Iterator[tuple[str, memoryview]]:
    """Names and values of the table, in order."""
    if index.stat().st_size > _LARGEST_INDEX:
        raise ValueError(f"an index of {index.stat().st_size} bytes")
    table = memoryview(index.read_bytes())
    if len(table) < _FOOTER_BYTES or bytes(table[-8:]) != _MAGIC:
        raise ValueError("it does not end as an index does; is it of version 1, cut off, or another kind of file?")
    footer = table[-_FOOTER_BYTES:]
    _, at = read_varint(footer, 0)
    _, at = read_varint(footer, at)
    for _, handle in _list_block(table, footer[at:]):
        for key, value in _list_block(table, handle):
            yield key.decode("utf-8"), value


def _list_block(table: memoryview, handle: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of one block; a key is written as what it does not share with the key before."""
    offset, at = read_varint(handle, 0)
    size, _ = read_varint(handle, at)
    if offset + size + _TRAILER_BYTES > len(table):
        raise ValueError(f"a block that ends beyond byte {len(table)}")
    if table[offset + size] != 0:
        raise ValueError("its index is compressed, which TensorFlow does not do")
    block = table[offset : offset + size]
    (n_restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = size - 4 - 4 * n_restarts, 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        length, at = read_varint(block, at)
        key = key[:shared] + bytes(block[at : at + own])
        yield key, block[at + own : at + own + length]
        at += own + length


def _read_tensor(name: str, value: memoryview, file: object, size_of_file: int) -> Tensor:
    fields = {1: 0, 3: 0, 4: 0, 5: 0}  # type, part, place, bytes
    shape: list[int] = []
    for number, part in read_fields(value):
        if number in fields and isinstance(part, int):
            fields[number] = part
        elif number == 2 and isinstance(part, memoryview):
            dims = [read_fields(dim) for field, dim in read_fields(part) if field == 2 and isinstance(dim, memoryview)]
            shape = [next((v for f, v in dim if f == 1 and isinstance(v, int)), 0) for dim in dims]
        elif number == 7:
            raise ValueError(f"{name} is cut into slices, which are not read here")
    if fields[1] not in _TYPES or fields[3] != 0:
        raise ValueError(
            f"{name} has the type number {fields[1]} in part {fields[3]}; only numbers in one part are read"
        )
    dtype = np.dtype(_TYPES[fields[1]])
    count = int(np.prod(shape)) if shape else 1
    if count * dtype.itemsize != fields[5] or fields[4] + fields[5] > size_of_file:
        raise ValueError(
            f"{name} {tuple(shape)} has {fields[5]} bytes at {fields[4]}, which does not fit; is it cut off?"
        )
    file.seek(fields[4])  # type: ignore[attr-defined]
    values = np.frombuffer(file.read(fields[5]), dtype=dtype)  # type: ignore[attr-defined]
    return torch.from_numpy(values.reshape(shape).copy())
