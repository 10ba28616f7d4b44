"""A user's table of sounds and labels, as one row a clip: cells are read as people write them, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from evar.config.registry import stays_below
from evar.config.tables import find_file, show_path
from evar.data.annotations import find_format, read_json_lines, read_sound_tables
from evar.data.own_segments import join_same_parts, name_parts
from evar.data.own_sounds import OwnSounds
from evar.data.segments import read_time
from evar.data.tables import (
    compose,
    is_missing,
    read_event,
    read_fold,
    read_frame,
    read_numbers,
    read_splits,
    split_list,
)
from evar.data.task_config import LABEL_SEPARATOR

#: other names of columns; "file_name" is that of Hugging Face's audio folders
_ALIASES = {
    **dict.fromkeys(("path", "file_name", "filename", "file"), "path"),
    **dict.fromkeys(("label", "labels", "class", "category", "event_label"), "label"),
    **{name: name for name in ("split", "fold", "group")},
    **dict.fromkeys(("start", "onset", "start_time", "start_seconds", "start_s", "begin"), "start"),
    **dict.fromkeys(("end", "offset", "end_time", "end_seconds", "end_s", "stop"), "end"),
    **dict.fromkeys(("duration", "duration_seconds"), "duration"),
    **dict.fromkeys(("audio_filepath", "audio_path", "audio", "sound"), "path"),
}


def read_own_table(table: Path, folder: Path, separator: str, kind: str, column: str = "") -> OwnSounds:
    """Read a table whose paths are below a folder.

    Args:
        table: CSV or JSON Lines with path and label, and if known split or fold, and group; rows with start and end are
            parts of files, or for events one row an event. Or a Raven selection table, an Audacity label file, or a folder
            of these, one for each sound.
        folder: of the sounds.
        separator: between the labels of a clip, for multilabel.
        kind: of the task.
        column: that holds the label; "" takes the one that is named so.

    Raises:
        FileNotFoundError: if there is no table, or none of its sounds.
        ValueError: if a cell can be read in two ways, or no label is left.
    """
    found, notes = _read_any(table, folder, column)
    for wanted in ("path", "label"):
        if wanted not in found:
            raise ValueError(f"{table} must have the columns path and label, got {', '.join(found.columns)}")
    if "split" in found and "fold" in found:
        raise ValueError(f"{table} must have split or fold, got both")
    if not len(found):
        raise ValueError(f"{table} has no rows below its header")
    _settle_times(found, table)
    has_times = "start" in found and "end" in found
    known = [
        c for c in ("path", "label", "split", "fold", "group", *(("start", "end") if has_times else ())) if c in found
    ]
    sounds = OwnSounds(found[known].copy(), notes)
    _read_paths(sounds, table, folder)
    if has_times and kind == "events":
        _join_events(sounds, table)
    elif has_times:
        name_parts(sounds, table, folder)
    _read_parts(sounds, table)
    _read_labels(sounds, table, separator, kind)
    if has_times and kind != "events":
        join_same_parts(sounds, table, kind)
    if not len(sounds.index):
        first = next(iter(sounds.left_out.items()))
        raise ValueError(f"{table}: no clip is left of {len(found)} rows, first {first[0]} ({first[1]})")
    return sounds


def _read_any(table: Path, folder: Path, column: str) -> tuple[pd.DataFrame, list[str]]:
    """Rows of a table of any format, as text, and how they were read."""
    if not table.exists():
        raise FileNotFoundError(f"no table {table}")
    form = "sounds" if table.is_dir() else find_format(table)
    if form in ("sounds", "raven", "audacity"):
        read = read_sound_tables(table, folder, column)
        return read.rows, read.notes
    aliases = _ALIASES if not column else {name: to for name, to in _ALIASES.items() if to != "label"}
    aliases = aliases | ({column.casefold(): "label"} if column else {})
    return (read_json_lines(table, aliases) if form == "jsonl" else read_frame(table, aliases)), []


def _settle_times(found: pd.DataFrame, table: Path) -> None:
    """A start and a duration, or as speech manifests say an offset and a duration, are a start and an end."""
    if "duration" not in found or ("start" in found and "end" in found):
        return
    if "end" in found:  # an offset beside a duration is where the part begins
        found["start"] = found.pop("end")
    if "start" not in found:
        return
    ends = []
    for number, (start, duration) in enumerate(zip(found["start"], found["duration"], strict=True), start=2):
        first, length = (read_time(cell, f"{table} line {number}") for cell in (start, duration))
        ends.append("" if length is None else repr(round((first or 0.0) + length, 9)))
    found["end"] = ends


def _leave_out(sounds: OwnSounds, mask: pd.Series, reason: str, note: str) -> None:
    """Take rows out, by name."""
    if not mask.any():
        return
    gone = sounds.index[mask]
    sounds.left_out |= dict.fromkeys(gone["path"], reason)
    shown = ", ".join(gone["path"].iloc[:3])
    sounds.notes.append(
        f"left out: {len(gone)} of {len(sounds.index)} rows {note}: {shown}" + (", ..." * (len(gone) > 3))
    )
    sounds.index = sounds.index[~mask].reset_index(drop=True)


def _read_paths(sounds: OwnSounds, table: Path, folder: Path) -> None:
    texts = sounds.index["path"].tolist()
    places = {text: _place(text, folder, table) for text in dict.fromkeys(texts)}
    missing = [text for text in texts if places[text] is None]
    if len(set(missing)) == len(places):
        raise FileNotFoundError(
            f"{len(missing)} of {len(texts)} clips of {table} are not below {folder}, first {show_path(missing[0])}"
        )
    sounds.index["path"] = [places[text] or show_path(text) for text in texts]
    mask = pd.Series([places[text] is None for text in texts], index=sounds.index.index)
    _leave_out(sounds, mask, "not below the folder", f"name files that are not below {folder}")


def _place(text: str, folder: Path, table: Path) -> str | None:
    """Path of a cell below the folder, as an index has it; None if there is no such file."""
    if os.path.isabs(text):
        path = Path(os.path.abspath(text))
        for top, inner in (
            (folder, path),
            (folder.resolve(), path),
            (folder.resolve(), path.parent.resolve() / path.name),
        ):
            if inner.is_relative_to(top):
                return show_path(inner.relative_to(top).as_posix()) if path.is_file() else None
        raise ValueError(f"{table}: path {show_path(text)} is not below {folder}")
    if not stays_below(text):
        raise ValueError(f"{table}: path must stay below {folder}, got {show_path(text)!r}")
    found = find_file(text, folder)
    return None if found is None else show_path(found.relative_to(folder).as_posix())


def _join_events(sounds: OwnSounds, table: Path) -> None:
    """One row an event becomes one row a clip: "0.5-1.25 dog;3-3.5 cat"; a row without times and label is a clip without."""
    events: dict[str, list[str]] = {}
    facts: dict[str, dict[str, str]] = {}
    others = [column for column in ("split", "fold", "group") if column in sounds.index]
    for number, row in enumerate(sounds.index.to_dict("records"), start=2):
        own = {column: row[column] for column in others}
        if facts.setdefault(row["path"], own) != own:
            raise ValueError(
                f"{table} line {number}: {row['path']} has another {' or '.join(others)} than in a line above"
            )
        clip = events.setdefault(row["path"], [])
        if is_missing(row["label"]) and not row["start"]:
            continue
        text = read_event(f"{row['start']} - {row['end']} {row['label']}")
        if LABEL_SEPARATOR in row["label"] or text.count(" ") < 1 or not text[:1].isdigit():
            raise ValueError(
                f"{table} line {number}: an event needs start and end in seconds and one label, got "
                f"{row['start']!r}, {row['end']!r}, {row['label']!r}"
            )
        clip.append(text)
    rows = [{"path": path, "label": LABEL_SEPARATOR.join(told), **facts[path]} for path, told in events.items()]
    n_events = sum(map(len, events.values()))
    sounds.notes.append(f"the table has a row for each event: {n_events} events of {len(rows)} clips")
    sounds.index = pd.DataFrame(rows)


def _read_parts(sounds: OwnSounds, table: Path) -> None:
    """Splits and folds by their names; a clip without one cannot be placed."""
    for column in ("split", "fold"):
        if column not in sounds.index:
            continue
        _leave_out(sounds, sounds.index[column] == "", f"no {column}", f"have no {column}")
        if column == "split":
            meaning, odd = read_splits(sounds.index["split"], str(table))
            sounds.index["split"] = sounds.index["split"].map(meaning)
            if odd:
                sounds.notes.append(f"split: {odd}")
        else:
            sounds.index["fold"] = [read_fold(fold) or fold for fold in sounds.index["fold"]]


def _read_labels(sounds: OwnSounds, table: Path, separator: str, kind: str) -> None:
    index = sounds.index
    if kind == "multilabel" and separator != LABEL_SEPARATOR:
        clash = index["label"].str.contains(LABEL_SEPARATOR, regex=False)
        if clash.any():
            raise ValueError(f"{table}: labels must not hold {LABEL_SEPARATOR!r} where {separator!r} separates them")
    may_be_empty = kind in ("multilabel", "events")
    missing = pd.Series(
        [is_missing(text) and not (may_be_empty and text == "") for text in index["label"]], index.index
    )
    missing |= _find_negative(index["label"]) if kind == "multiclass" else False
    _tell_hidden(index, missing, table)
    _leave_out(sounds, missing, "no label", "have no label (empty, hidden or out of range)")
    index = sounds.index
    if kind == "regression":
        index["label"] = read_numbers(index["label"].tolist(), str(table))
    elif kind == "events":
        index["label"] = [_read_events(text) for text in index["label"]]
    elif kind == "multilabel":
        index["label"] = [_read_several(text, separator) for text in index["label"]]
    else:
        index["label"] = [_read_one(text, table) for text in index["label"]]


def _find_negative(labels: pd.Series) -> pd.Series:
    """-1 among whole numbers from 0 on: data sets mark hidden labels so."""
    given = labels[[not is_missing(text) for text in labels]]
    return (labels == "-1") & bool(given.str.fullmatch(r"-1|\d+").all())


def _tell_hidden(index: pd.DataFrame, missing: pd.Series, table: Path) -> None:
    """Refuse a table whose test labels are all hidden."""
    for column in ("split", "fold"):
        if column in index and missing.any():
            for part, own in missing.groupby(index[column]):
                if own.all() and part != "valid":
                    raise ValueError(
                        f"{table}: none of the {len(own)} clips of {column} {part} has a label, so nothing can be scored "
                        "there; give their labels, or a split of the labelled clips"
                    )


def _read_events(text: str) -> str:
    return LABEL_SEPARATOR.join(read_event(part) for part in text.split(LABEL_SEPARATOR) if part.strip())


def _read_several(text: str, separator: str) -> str:
    items = split_list(text)
    if items is None:
        items = text.split(separator)
    return LABEL_SEPARATOR.join(dict.fromkeys(compose(item.strip()) for item in items if not is_missing(item.strip())))


def _read_one(text: str, table: Path) -> str:
    items = split_list(text)
    if items is not None and len(items) > 1:
        raise ValueError(
            f"{table}: label {text} is a list of {len(items)}; for several labels a clip say --kind=multilabel"
        )
    return compose(items[0] if items else text)
