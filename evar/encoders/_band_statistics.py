"""Means and deviations of frequency bands out of a .npy file that holds a pickled dictionary, without unpickling it."""

from __future__ import annotations

import pickletools
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

_NAMES = ("frame_mean", "frame_std")
_LARGEST = 1 << 20  # bytes; the published file has 1,608


def read_band_statistics(path: Path, n_bands: int) -> tuple[Tensor, Tensor]:
    """Two arrays of a pickled dictionary, read as data.

    The file's pickle is a program that could do anything. It is never run: its instructions are listed, and the numbers
    are the bytes that follow the names "frame_mean" and "frame_std".

    Args:
        path: of MaskSpec's `mean_std_128.npy`, or of one of the same form.
        n_bands: numbers in each array.

    Returns:
        mean (n_bands,), std (n_bands,), float32.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another form, or the numbers are no means and deviations.

    Example:
        >>> import tempfile
        >>> bands = {name: np.ones(4, np.float32) for name in ("frame_mean", "frame_std")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/mean_std_4.npy", bands, allow_pickle=True)
        ...     mean, std = read_band_statistics(Path(folder, "mean_std_4.npy"), 4)
        >>> mean.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"mask_spec needs the statistics of its bands beside the checkpoint, but there is no {path}; get "
            f"audioset/{path.name} from the authors' repository, or give its path as the option statistics"
        )
    try:
        found = _arrays(path, n_bands)
    except (ValueError, IndexError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} must be a .npy file of a pickled dictionary with {' and '.join(_NAMES)}, {n_bands} float32 numbers "
            f"each ({error}); was another file put there?"
        ) from error
    mean, std = found
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ValueError(f"{path} must hold finite means and deviations above 0; was the file damaged?")
    return torch.from_numpy(mean), torch.from_numpy(std)


def _arrays(path: Path, n_bands: int) -> tuple[np.ndarray, np.ndarray]:
    if path.stat().st_size > _LARGEST:
        raise ValueError("it is too large")
    with path.open("rb") as file:
        version = npy.read_magic(file)
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, kind = reader(file)
        if shape != () or not kind.hasobject:
            raise ValueError("it holds a plain array")
        content = file.read()
    name = ""
    arrays: dict[str, NDArray[np.float32]] = {}
    for opcode, value, _ in pickletools.genops(content):
        if isinstance(value, str) and "UNICODE" in opcode.name and value in _NAMES:
            name = value
        elif isinstance(value, bytes | bytearray) and len(value) == 4 * n_bands and name not in ("", *arrays):
            arrays[name] = np.frombuffer(value, "<f4").copy()
    if missing := [name for name in _NAMES if name not in arrays]:
        raise ValueError(f"it has no {missing[0]}")
    return arrays[_NAMES[0]], arrays[_NAMES[1]]
