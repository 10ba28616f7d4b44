"""Keras weights files (HDF5), read without Keras: their arrays in the order of the layers. Nothing in them is run."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MAGIC, _GZIP = b"\x89HDF\r\n\x1a\n", b"\x1f\x8b"
#: bytes that a packed file may have at most when it is unpacked; the largest of these files has 60 million
MOST_BYTES = 2**30


def is_hdf5(path: Path) -> bool:
    """Tell whether a file is HDF5, or HDF5 packed by gzip.

    Args:
        path: of the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "x.h5").write_bytes(_MAGIC + bytes(100))
        ...     is_hdf5(Path(folder, "x.h5"))
        True
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(8)
    if start[:2] != _GZIP:
        return start == _MAGIC
    try:
        with gzip.open(path) as packed:
            return packed.read(8) == _MAGIC
    except (OSError, EOFError):
        return False


def read_keras_layers(path: Path) -> list[list[Tensor]]:
    """Read the arrays of a Keras weights file.

    Args:
        path: of an HDF5 file, plain or packed by gzip.

    Returns:
        Of each layer that has weights, in the file's order, its tensors.

    Raises:
        ImportError: if h5py is not installed.
        ValueError: if it is no weights file of Keras, is cut off, or refers to other files.

    Example:
        >>> import tempfile, h5py
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with h5py.File(f"{folder}/x.h5", "w") as file:
        ...         file.attrs["layer_names"] = [b"dense"]
        ...         file.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0"]
        ...         file["dense/dense/kernel:0"] = np.ones((2, 3))
        ...     [[tuple(value.shape) for value in layer] for layer in read_keras_layers(Path(folder, "x.h5"))]
        [[(2, 3)]]
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path.name} is a Keras file, which needs h5py: pip install 'evar-audio[export]'") from error
    try:
        with h5py.File(_unpack(path), "r") as file:
            root = file.get("model_weights", file)
            names = [_decode_name(name) for name in root.attrs["layer_names"]]
            layers = [
                [_read_array(h5py, root, f"{layer}/{weight}", path) for weight in _list_weights(root[layer])]
                for layer in names
            ]
    except ValueError:
        raise
    except (OSError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise ValueError(
            f"{path.name} must be a Keras weights file with layer_names, got {error}; is it cut off?"
        ) from error
    return [layer for layer in layers if layer]


def _unpack(path: Path) -> Any:
    """The file, or its unpacked bytes in memory."""
    with path.open("rb") as file:
        if file.read(2) != _GZIP:
            return path
    with gzip.open(path) as packed:
        data = packed.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path.name} has more than {MOST_BYTES:,} bytes when it is unpacked; is it a weights file?")
    return io.BytesIO(data)


def _list_weights(group: Any) -> list[str]:
    return [_decode_name(name) for name in group.attrs["weight_names"]]


def _decode_name(name: Any) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)


def _read_array(h5py: Any, root: Any, name: str, path: Path) -> Tensor:
    """One array. A link to another file is refused: a weights file has no business there."""
    place, here = "", root
    for part in name.strip("/").split("/"):
        if not isinstance(here.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{path.name} has no array of its own at {place}{part}; links are not followed")
        place, here = f"{place}{part}/", here[part]
    if not isinstance(here, h5py.Dataset) or here.dtype.kind != "f" or here.external:
        raise ValueError(f"{path.name} must hold numbers at {name}, got {here}")
    return torch.from_numpy(np.asarray(here[()], np.float32))
