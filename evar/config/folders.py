"""Where the configuration files are, and the names that they define."""

from __future__ import annotations

import os
from pathlib import Path

from evar.config.registry import near_miss


def search_folders() -> list[Path]:
    """Where configuration is looked up, first hit wins: EVAR_CONFIG, ./config, the user's folder, the packaged one."""
    package = Path(__file__).resolve().parents[1]
    folders = [Path(os.environ["EVAR_CONFIG"])] if os.environ.get("EVAR_CONFIG") else []
    folders += [Path("config"), user_folder()]
    folders += [package / "_config", package.parent / "config"]  # installed wheel; source checkout
    return folders


def user_folder() -> Path:
    """The user's own configuration folder (exports and new tasks go there)."""
    import platformdirs

    return Path(platformdirs.user_config_dir("evar"))


def cache_folder() -> Path:
    """Where weights, built sounds and features live unless told otherwise: EVAR_CACHE or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("EVAR_CACHE") or platformdirs.user_cache_dir("evar"))


def names(kind: str) -> list[str]:
    """All names of a kind ("encoders", "tasks", "protocols", "grids", "published") over the search folders, sorted."""
    return sorted({path.stem for folder in search_folders() for path in (folder / kind).glob("*.yaml")})


def find(kind: str, name: str) -> Path:
    """The YAML of that name.

    Raises:
        ValueError: if there is none; near misses are named.
    """
    for folder in search_folders():
        path = folder / kind / f"{name}.yaml"
        if "/" not in name and "\\" not in name and path.is_file():
            return path
    singular = kind if kind == "published" else kind[:-1]
    raise ValueError(f"no {singular} {name!r}; {near_miss(name, names(kind))}")
