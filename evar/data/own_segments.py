"""Rows of a user's table that are parts of files: checked against their sounds, named, and joined where they are one."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from evar.audio.reading import AudioError, measure
from evar.audio.segments import SPARE_SECONDS, format_address, name_file
from evar.config.tables import real_path
from evar.data.own_sounds import OwnSounds
from evar.data.segments import TIMES, read_time
from evar.data.task_config import LABEL_SEPARATOR


def name_parts(sounds: OwnSounds, table: Path, folder: Path) -> None:
    """Put start and end into the names of the clips; each must be inside its sound.

    Args:
        sounds: with the columns path, start and end; the last two are taken away.
        table: for messages.
        folder: of the sounds.

    Raises:
        ValueError: if a time is no number, or a part ends before it begins or after its sound.
    """
    names, wrong = [], []
    seconds_of: dict[str, float] = {}
    for path, *cells in sounds.index[["path", *TIMES]].itertuples(index=False):
        start, end = (read_time(cell, f"{table}: {path}") for cell in cells)
        if start is None and end is None:
            names.append(path)
            continue
        start, end = start or 0.0, math.inf if end is None else end
        told = f"{path} from {start:g} to {end:g} s"
        if not start < end:
            wrong.append(f"{told} ends before it begins" if end < start else f"{told} has no length")
            continue
        if path not in seconds_of:
            seconds_of[path] = _measure_seconds(real_path(folder, path))
        if start >= seconds_of[path] or (math.isfinite(end) and end > seconds_of[path] + SPARE_SECONDS):
            wrong.append(f"{told} is not inside the sound, which lasts {seconds_of[path]:.2f} s")
        names.append(format_address(path, start, end))
    if wrong:
        raise ValueError(
            f"{table}: {len(wrong)} of {len(sounds.index)} segments are wrong, first {wrong[0]}; mend "
            "their times, or if they are events of whole files say --kind=events"
        )
    sounds.index = sounds.index.drop(columns=list(TIMES)).assign(path=names)
    n_files = len({name_file(name) for name in names})
    sounds.notes.append(
        f"start and end are read as parts of files: {len(names)} clips of {n_files} files; for "
        "events of whole files say --kind=events"
    )


def _measure_seconds(file: Path) -> float:
    try:
        n_samples, sample_rate = measure(file)
    except AudioError:  # it is left out, or named by `evar verify`
        return math.inf
    return n_samples / sample_rate


def join_same_parts(sounds: OwnSounds, table: Path, kind: str) -> None:
    """Join the rows of one part of a file, which are one clip: equal labels count once, several are joined for multilabel.

    Raises:
        ValueError: if a part has several labels, and the task is not multilabel.
    """
    index = sounds.index
    if not index["path"].duplicated().any():
        return
    labels = {str(path): own.tolist() for path, own in index.groupby("path", sort=False)["label"].unique().items()}
    several = [path for path, own in labels.items() if len(own) > 1]
    if several and kind != "multilabel":
        raise ValueError(
            f"{table}: {len(several)} parts of files have several labels, first {several[0]} "
            f"({', '.join(labels[several[0]])}); for several labels a clip say --kind=multilabel"
        )
    joined = {
        path: LABEL_SEPARATOR.join(dict.fromkeys(one for text in own for one in text.split(LABEL_SEPARATOR) if one))
        if len(own) > 1
        else own[0]
        for path, own in labels.items()
    }
    sounds.notes.append(f"{len(index)} rows name {len(joined)} parts of files; those of one part are one clip")
    first: pd.DataFrame = index.drop_duplicates("path").reset_index(drop=True)
    sounds.index = first.assign(label=first["path"].map(joined))
