"""The files of a picture, and the numbers beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from evar.config.plain_text import make_cell_harmless
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    import pandas as pd


def choose_stem(out: str, name: str) -> Path:
    """Path of a picture without its ending.

    Args:
        out: a folder, or the path of the picture itself, ending in .png or .svg.
        name: of the picture in the folder; what no file name should hold becomes "_".

    Example:
        >>> choose_stem("results", "map_esc10").as_posix(), choose_stem("paper/figure2.png", "map_esc10").as_posix()
        ('results/map_esc10', 'paper/figure2')
    """
    path = Path(out)
    if path.suffix.lower() in (".png", ".svg"):
        return path.with_suffix("")
    return path / re.sub(r"[^\w.+-]+", "_", name)


def save_table(table: pd.DataFrame, stem: Path) -> Path:
    """Write a table as `stem.csv`, floats with 7 digits, as float32 has them; a dot in the stem's name is kept.

    Text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    texts = table.select_dtypes(include=["object", "string"]).columns
    table = table.assign(**{name: table[name].map(make_cell_harmless) for name in texts})
    path = stem.with_name(f"{stem.name}.csv")
    write_atomic(path, table.to_csv(index=False, float_format="%.7g", lineterminator="\n").encode())
    return path
