"""Environmental sounds: ESC-50 and UrbanSound8K, whose folds are in their own tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evar.catalogue import published_file, read_table


def esc50(top: Path) -> pd.DataFrame:
    """ESC-50: `meta/esc50.csv` and `audio/*.wav`; five published folds, group = Freesound clip that it was cut from."""
    path = published_file(top, "meta/esc50.csv", "it is in the archive of https://github.com/karoldvl/ESC-50")
    table = read_table(path, ("filename", "fold", "category", "src_file"))
    return pd.DataFrame(
        {
            "path": "audio/" + table["filename"],
            "label": table["category"],
            "fold": table["fold"],
            "group": table["src_file"],
        }
    )


def urbansound8k(top: Path) -> pd.DataFrame:
    """UrbanSound8K: `metadata/UrbanSound8K.csv` and `audio/fold*/*.wav`; ten folds, group = Freesound recording."""
    path = published_file(top, "metadata/UrbanSound8K.csv", "it is in UrbanSound8K.tar.gz of zenodo.org/record/1203745")
    table = read_table(path, ("slice_file_name", "fsID", "fold", "class"))
    return pd.DataFrame(
        {
            "path": "audio/fold" + table["fold"] + "/" + table["slice_file_name"],
            "label": table["class"],
            "fold": table["fold"],
            "group": table["fsID"],
        }
    )
