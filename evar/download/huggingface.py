"""Files of Hugging Face repositories, through that hub's own client and cache."""

from __future__ import annotations

from pathlib import Path

from evar.download.checks import offline


def hub(repo: str, file: str, revision: str | None = None) -> Path:
    """A file of a Hugging Face repository, from the hub's own cache where it is there already.

    Args:
        repo: "organisation/name", or a local folder that holds such a repository's files.
        file: path inside it.
        revision: commit, tag or branch; without one the newest version counts, so give a commit to be reproducible.

    Raises:
        ImportError: if huggingface_hub is not installed.
        FileNotFoundError: if there is no such file, or it is not in the cache and cannot be fetched.
        OSError: if the repository cannot be reached.

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
    try:
        import huggingface_hub
        from huggingface_hub.utils import EntryNotFoundError
    except ImportError as error:
        raise ImportError(
            f"{repo} is on the Hugging Face hub, which needs a package: pip install 'evar-audio[hub]'"
        ) from error
    try:
        return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision, local_files_only=bool(offline())))
    except Exception as error:  # its HTTP library, and with it the exceptions, changes between versions
        reason = " ".join(str(error).split())[:300]
        kind = FileNotFoundError if isinstance(error, EntryNotFoundError) else OSError
        raise kind(
            f"cannot fetch {file} of {repo}{f' at {revision}' if revision else ''} from the Hugging Face hub "
            f"({reason}); check the name and the network, or pass the path of a local copy"
        ) from error
