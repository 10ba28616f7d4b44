"""Folders of the configuration files, and the names that these files define."""

from __future__ import annotations

import os
from pathlib import Path

from evar.config.messages import tell
from evar.config.registry import near_miss, stays_below


def search_folders() -> list[Path]:
    """List the folders that are searched for configuration, first hit wins: EVAR_CONFIG, the user's, the packaged one.

    A folder `config` where the command happens to run is not among them: it may be anybody's, and YAML files name code.
    """
    own = [Path(os.environ["EVAR_CONFIG"])] if os.environ.get("EVAR_CONFIG") else []
    return [*own, user_folder(), *_list_packaged_folders()]


def _list_packaged_folders() -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    return [package / "_config", package.parent / "config"]  # installed wheel; source checkout


def user_folder() -> Path:
    """Return the user's own configuration folder (exports and new tasks go there)."""
    import platformdirs

    return Path(platformdirs.user_config_dir("evar"))


def cache_folder() -> Path:
    """Return the default folder of weights, built sounds and features: EVAR_CACHE, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("EVAR_CACHE") or platformdirs.user_cache_dir("evar"))


def names(kind: str) -> list[str]:
    """List all names of a kind ("encoders", "tasks", "protocols", "grids", "published"), sorted."""
    return sorted({path.stem for folder in search_folders() for path in (folder / kind).glob("*.yaml")})


def find(kind: str, name: str) -> Path:
    """Find the YAML of that name.

    Raises:
        ValueError: if there is none; near misses are named.
    """
    for folder in search_folders():
        path = folder / kind / f"{name}.yaml"
        if "/" not in name and "\\" not in name and path.is_file():
            _tell_of_shadow(kind, name, path)
            return path
    singular = kind if kind == "published" else kind[:-1]
    here = Path("config") / kind / f"{name}.yaml"
    unused = f"; {here} is used only with EVAR_CONFIG=config" if stays_below(name) and here.is_file() else ""
    raise ValueError(f"no {singular} {name!r}; {near_miss(name, names(kind))}{unused}")


#: files in place of packaged ones that have been mentioned; once is enough
_mentioned: set[Path] = set()


def _tell_of_shadow(kind: str, name: str, path: Path) -> None:
    """Say once that a file of the user's own stands in for a packaged one of that name."""
    packaged = _list_packaged_folders()
    if path in _mentioned or path.parent.parent in packaged:
        return
    _mentioned.add(path)
    if any((folder / kind / path.name).is_file() for folder in packaged):
        tell(f"note: {path} is used in place of the packaged {kind}/{name}.yaml")
