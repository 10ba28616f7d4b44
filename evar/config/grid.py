"""Read a grid of encoders and tasks: `config/grids/NAME.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evar.config.folders import find, names
from evar.config.reading import read, read_mapping


@dataclass(frozen=True)
class GridConfig:
    """One `config/grids/NAME.yaml`: the arguments of a command line, in a file."""

    name: str
    description: str
    encoders: tuple[str, ...]
    tasks: tuple[str, ...]
    layers: str = "default"
    protocol: str = "linear"
    seeds: int | None = None


def is_grid(name: str) -> bool:
    """Tell whether a word names a grid, by its name or by the path of a YAML with encoders and tasks.

    Example:
        >>> is_grid("default"), is_grid("logmel")
        (True, False)
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        return path.is_file() and "encoders" in read_mapping(path)
    return name in names("grids")


def load_grid_config(name: str) -> GridConfig:
    """Read `grids/NAME.yaml`, or the grid file at a path that ends in .yaml; errors as for `load_encoder_config`."""
    return read(Path(name) if name.endswith((".yaml", ".yml")) else find("grids", name), GridConfig)
