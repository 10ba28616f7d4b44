"""Loading a checkpoint into an encoder: safely, and completely or not at all. `locating` finds the file.

A checkpoint is a file from a stranger: pickles are read with `weights_only=True`, which builds tensors and plain
containers and refuses everything else, and safetensors files hold nothing but numbers.
"""

from __future__ import annotations

import fnmatch
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evar.encoders.locating import HUB_FILES, explain_missing, list_weights_files

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "0")

#: before the names of an encoder's own tensors in the files that fine-tuning writes
OWN_PREFIX = "evar_encoder."


def own_state(path: Path) -> dict[str, Tensor] | None:
    """Read the tensors of an encoder that was fine-tuned here.

    Args:
        path: of a file or folder.

    Returns:
        The encoder's own tensor name -> tensor; None for any other file.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"evar_encoder.w": torch.ones(2)}, f"{folder}/x.safetensors")
        ...     own_state(Path(folder, "x.safetensors"))
        {'w': tensor([1., 1.])}
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file() or not _is_safetensors(path):
        return None
    try:
        with safe_open(path, "pt") as file:
            if not all(key.startswith(OWN_PREFIX) for key in file.keys()):  # noqa: SIM118 - it is no dict
                return None
    except SafetensorError:
        return None  # reading it raises the error
    return {key.removeprefix(OWN_PREFIX): value for key, value in read_checkpoint(path).items()}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, running no code that it may hold.

    Args:
        path: a safetensors file, a file written by `torch.save`, or a Hugging Face style folder, of which
            `model.safetensors`, its shards, or `pytorch_model.bin` is read.

    Returns:
        What the file holds, wrappers included (`state_dict_of` takes them off). A list or tuple becomes
        {"0": first, "1": second, ...}; numpy scalars become Python numbers, namespaces (argparse) dictionaries and
        paths texts.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint, is cut off, or holds types that are not plain data.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"model": {"w": torch.ones(2)}}, f"{folder}/x.pth")
        ...     read_checkpoint(f"{folder}/x.pth")
        {'model': {'w': tensor([1., 1.])}}
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(explain_missing(path, str(path)))
    try:
        checkpoint = _read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    except PermissionError:
        raise
    except Exception as error:  # a damaged file can break its reader anywhere, with any exception
        raise ValueError(_unreadable(path, error)) from error
    if isinstance(checkpoint, list | tuple):
        checkpoint = {str(index): value for index, value in enumerate(checkpoint)}
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path} must hold a dictionary of tensors, got {type(checkpoint).__name__}")
    return dict(checkpoint)


def _read_folder(folder: Path) -> dict[str, Any]:
    files = list_weights_files(folder)
    if not files:
        raise FileNotFoundError(f"the folder {folder} has neither {' nor '.join(HUB_FILES)}; give the file itself")
    return {key: value for file in files for key, value in read_checkpoint(file).items()}


def _is_safetensors(path: Path) -> bool:
    """By suffix or content: a header's length in 8 bytes, then JSON. Addresses do not always keep the suffix."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    import safetensors.torch

    return safetensors.torch.load_file(path)


def _read_pickle(path: Path) -> Any:
    # Beside tensors, checkpoints hold numpy scalars (an epoch, a loss) and the settings of their training. The stand-ins
    # below take the place of what would rebuild these. They can make a Python number, a dictionary or a text and nothing
    # else, whereas numpy.dtype itself accepts a crafted state that lets raw bytes pass for object pointers.
    functions: list[Any] = [
        (_number, "numpy.core.multiarray.scalar"),
        (_number, "numpy._core.multiarray.scalar"),  # as numpy 2 writes it
        (_NumberType, "numpy.dtype"),
        *((_Settings, name) for name in _SETTINGS),
        *((_path, name) for name in _PATHS),
    ]
    with torch.serialization.safe_globals(functions):
        # Files from before torch 1.6 are no zip archives and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


#: settings of a training run, as argparse and PyTorch Lightning write them
_SETTINGS = (
    "argparse.Namespace",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
)
_PATHS = ("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib._local.PosixPath")


class _Settings(dict[str, Any]):
    """Stand-in for a namespace or a dictionary with attributes while a checkpoint is read: a plain dictionary."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.update(state)


def _path(*parts: Any) -> str:
    """Stand-in for a path while a checkpoint is read: its text."""
    return str(PurePosixPath(*map(str, parts)))


class _NumberType:
    """Stand-in for numpy.dtype while a checkpoint is read: real numbers and booleans of a byte order only."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({code!r}) was not a number type")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.code = {"<": "<", ">": ">"}.get(state[1], "=") + self.code


def _number(kind: _NumberType, data: bytes) -> float | int | bool:
    """Stand-in for numpy's scalar while a checkpoint is read."""
    return np.frombuffer(data, dtype=np.dtype(kind.code), count=1)[0].item()


def _unreadable(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if refused := re.search(r"GLOBAL (\S+) (?:was not|whose module)", text):
        return (
            f"{path} is refused because it holds {refused[1]}, and a checkpoint may hold only tensors, numbers, texts "
            "and containers; have its author export the state dict, best as safetensors"
        )
    cause = "is it cut off, or another kind of file?"
    with path.open("rb") as file:
        start = file.read(256).lstrip()
    if not start:
        cause = "it is empty"
    elif start.startswith(b"<"):
        cause = "it is a web page; was a login or download page saved instead?"
    elif start.startswith(b"version https://git-lfs"):
        cause = "it is a git-lfs pointer; fetch the file itself with git lfs pull"
    elif start.startswith(b"\x89HDF"):
        cause = "it is a Keras file (HDF5), which only the encoders of such files take"
    elif "TorchScript" in text:
        cause = "it is a TorchScript program, which holds code; export its state dict instead"
    return f"{path} cannot be read as a checkpoint ({type(error).__name__}: {text[:160]}); {cause}"


def state_dict_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Take the wrappers off a checkpoint: the tensors under "state_dict", "model", "0" or the like.

    Entries beside the tensors are left out, and so is the "module." that data-parallel training puts before every name.

    Raises:
        ValueError: if there are no tensors.

    Example:
        >>> state_dict_of({"epoch": 3, "model": {"module.w": torch.ones(2)}})
        {'w': tensor([1., 1.])}
    """
    if not any(isinstance(value, Tensor) for value in checkpoint.values()):
        for name in WRAPPERS:
            if isinstance(checkpoint.get(name), Mapping):
                return state_dict_of(checkpoint[name])
    state = {str(name): value for name, value in checkpoint.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"expected tensors, got {', '.join(map(str, list(checkpoint)[:8])) or 'nothing'}")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def load_strict(module: nn.Module, state: Mapping[str, Tensor], path: str | Path, ignore: tuple[str, ...] = ()) -> None:
    """Copy a state dict into a module if, and only if, all of it fits.

    Args:
        module: is not changed if an error is raised.
        state: tensor name, as in `module.state_dict()`, -> tensor; other number widths (float16) are converted.
        path: of the checkpoint, for the error message.
        ignore: names of extra tensors of the checkpoint that are no loss: prefixes ("head.") or patterns ("*.loss_*").

    Raises:
        ValueError: if tensors are missing, unexpected or of another shape or kind; the first few of each are named.

    Example:
        >>> linear = nn.Linear(2, 1)
        >>> load_strict(linear, {"weight": torch.ones(1, 2), "bias": torch.ones(1), "head.w": torch.ones(9)}, "x.pth")
        Traceback (most recent call last):
        ValueError: x.pth does not fit Linear: 1 unexpected (head.w (9,)); is this the checkpoint of another encoder?
    """
    own = module.state_dict()
    # BatchNorm's counters came with torch 0.4.1 and play no part in evaluation.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own and not _is_ignored(name, ignore)]
    unlike = [
        f"{name} {_kind(state[name])} instead of {_kind(tensor)}"
        for name, tensor in own.items()
        if name in state and not _fits(state[name], tensor)
    ]
    problems = [
        _list_items(
            f"{len(missing)} of {len(own)} tensors missing", [f"{name} {_kind(own[name])}" for name in missing]
        ),
        _list_items(f"{len(unexpected)} unexpected", [f"{name} {_kind(state[name])}" for name in unexpected]),
        _list_items(f"{len(unlike)} of {len(own)} tensors of another shape or kind", unlike),
    ]
    if any(problems):
        raise ValueError(
            f"{Path(path).name} does not fit {type(module).__name__}: {', '.join(filter(None, problems))}; "
            "is this the checkpoint of another encoder?"
        )
    module.load_state_dict({name: state[name] for name in own if name in state}, strict=False)


def _is_ignored(name: str, ignore: tuple[str, ...]) -> bool:
    return any(name.startswith(pattern) or fnmatch.fnmatchcase(name, pattern) for pattern in ignore)


def _fits(given: Any, own: Tensor) -> bool:
    return (
        isinstance(given, Tensor)
        and given.shape == own.shape
        and given.is_floating_point() == own.is_floating_point()
        and given.is_complex() == own.is_complex()
    )


def _kind(value: Any) -> str:
    """Describe a tensor by its shape, and by its type if that is no float; describe anything else by its type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)}" + (
        "" if value.is_floating_point() else f" {str(value.dtype).removeprefix('torch.')}"
    )


def _list_items(head: str, items: list[str]) -> str:
    """ "2 unexpected (a (1,), b (2,))", at most three of them; empty if there are none."""
    if not items:
        return ""
    return f"{head} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})"
