"""Files of Hugging Face repositories, through that hub's own client and cache."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from evar.download.checks import offline
from evar.download.hub_records import HubRecord

SETTINGS = ("config*.json", "preprocessor_config.json", "processor_config.json")
# Of models of sound and text.
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
# What transformers reads, in its order: a file or shards, safetensors before pickles.
WEIGHTS = (
    ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
)


def hub(repo: str, file: str, revision: str | None = None) -> Path:
    """Fetch a file of a Hugging Face repository, from the hub's own cache if it is there already.

    Args:
        repo: "organisation/name", or a local folder that holds such a repository's files.
        file: path inside it.
        revision: commit, tag or branch; without one the newest version is taken at the first use. Its commit and the
            hash of the file hold ever after on this machine (see `evar.download.hub_records`).

    Raises:
        ImportError: if huggingface_hub is not installed.
        FileNotFoundError: if there is no such file, or it is not in the cache and cannot be fetched.
        OSError: if the repository cannot be reached, or the file is another one than at its first use.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "model.safetensors").write_bytes(b"")
        ...     hub(folder, "model.safetensors").name
        'model.safetensors'
    """
    if Path(repo).is_dir():
        if not (Path(repo) / file).is_file():
            raise FileNotFoundError(f"the folder {repo} has no {file}; is it a model's folder?")
        return Path(repo) / file
    huggingface_hub = _import_client(repo)
    from huggingface_hub.utils import EntryNotFoundError

    record = HubRecord(repo, revision)
    wanted = record.choose_revision()
    try:
        path = Path(huggingface_hub.hf_hub_download(repo, file, revision=wanted, local_files_only=bool(offline())))
    except Exception as error:  # its HTTP library, and with it the exceptions, changes between versions
        reason = " ".join(str(error).split())[:300]
        kind = FileNotFoundError if isinstance(error, EntryNotFoundError) else OSError
        raise kind(
            f"cannot fetch {file} of {repo}{f' at {revision}' if revision else ''} from the Hugging Face hub "
            f"({reason}); check the name and the network, or pass the path of a local copy{record.explain()}"
        ) from error
    record.check({file: path})
    return path


def hub_folder(repo: str, revision: str | None = None, with_weights: bool = True) -> Path:
    """Fetch the folder of a `transformers` model: its settings and, unless you choose others, its weights.

    Safetensors are taken where there are any, else pickles; of a CLAP also the tokenizer's files. HF_HOME says where the hub
    keeps its files, and HF_HUB_OFFLINE=1 or EVAR_OFFLINE=1 that only what lies there already may be used.

    Args:
        repo: "organisation/name", or a local folder, which is given back.
        revision: commit, tag or branch, as for `hub`.
        with_weights: False for config.json and preprocessor_config.json only.

    Returns:
        The folder; of a hub repository, its name is the commit.

    Raises:
        ImportError: if huggingface_hub is not installed.
        FileNotFoundError: if the repository lacks config.json or weights, or is not here and the network is forbidden.
        OSError: if the repository cannot be reached.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     hub_folder(folder) == Path(folder)
        True
    """
    local = Path(repo).expanduser()
    if local.is_dir():
        return local
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo) is None or repo.startswith("."):
        raise FileNotFoundError(f"no folder {repo}; expected a model's folder or organisation/name of the hub")
    where = f"{repo}{f' at {revision}' if revision else ''}"
    record = HubRecord(repo, revision)
    wanted = record.choose_revision()
    folder = _fetch_snapshot(repo, wanted, SETTINGS, where, record)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{where} {_explain_absence('config.json', repo)}")
    record.check(_list_files(folder, SETTINGS))
    if not with_weights:
        return folder
    for files in WEIGHTS:
        # The commit that the settings came from: a branch may move in between.
        commit = folder.name if folder.parent.name == "snapshots" else wanted
        chosen = (*files, *(TOKENIZER if _reads_text(folder) else ()))
        folder = _fetch_snapshot(repo, commit, chosen, where, record)
        if any((folder / file).is_file() for file in (files[0], files[2])):
            record.check(_list_files(folder, chosen))
            return folder
    raise FileNotFoundError(f"{where} {_explain_absence('model.safetensors or pytorch_model.bin', repo)}")


def _reads_text(folder: Path) -> bool:
    """Tell whether config.json describes a CLAP, because its texts need a tokenizer."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return False  # building the model raises the error
    return isinstance(settings, dict) and settings.get("model_type") == "clap"


def _list_files(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    return {path.name: path for pattern in patterns for path in sorted(folder.glob(pattern))}


def _fetch_snapshot(repo: str, revision: str | None, files: tuple[str, ...], where: str, record: HubRecord) -> Path:
    client = _import_client(repo)
    from huggingface_hub.utils import LocalEntryNotFoundError

    try:
        return Path(
            client.snapshot_download(
                repo, revision=revision, allow_patterns=list(files), local_files_only=bool(offline())
            )
        )
    except Exception as error:  # its HTTP library, and with it the exceptions, changes between versions
        if offline() and isinstance(error, LocalEntryNotFoundError):
            raise FileNotFoundError(f"{where} {_explain_absence('the model', repo)}") from error
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            f"cannot fetch {where} from the Hugging Face hub ({reason}); check the name and the network, or save the "
            f"model's folder anywhere and name it hf:FOLDER{record.explain()}"
        ) from error


def _explain_absence(what: str, repo: str) -> str:
    """The end of a sentence about a repository that lacks something."""
    if not offline():
        return f"has no {what} on the Hugging Face hub; is it a transformers model?"
    return (
        f"is not in the hub's cache ({what} is missing) and {offline()} forbids the network; fetch it where there is "
        f"one (hf download {repo}) and copy HF_HOME, or save the model's folder anywhere and name it hf:FOLDER"
    )


def _import_client(repo: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"{repo} is on the Hugging Face hub, which needs a package ({error}): pip install 'huggingface-hub>=1'"
        ) from error
    return huggingface_hub
