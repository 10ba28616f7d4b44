"""HEAR's own archives, as they come: `tasks/NAME/` with task_metadata.json, one JSON a split, and sounds at one rate.

Source: the layout as hear-preprocess writes it (https://github.com/hearbenchmark/hear-preprocess); archives at
https://zenodo.org/records/6332517.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from evar.config.registry import stays_below
from evar.data.task_config import LABEL_SEPARATOR

SPLITS = ("train", "valid", "test")
GET_IT = "it is in the task's tar of https://zenodo.org/records/6332517"


def scenes(top: Path) -> pd.DataFrame:
    """Make the index of a task of whole clips: published splits, or HEAR's folds; each clip is its own group."""
    folder = _find_task_folder(top)
    metadata = _read_json(folder / "task_metadata.json")
    rate = _rate(folder)
    rows = []
    for split in metadata.get("splits") or []:
        is_fold = str(split).startswith("fold")
        for name, labels in _read_json(folder / f"{split}.json").items():
            where = folder / f"{split}.json"
            if not isinstance(labels, list) or any(isinstance(label, dict) for label in labels):
                raise ValueError(f"{where} must hold a list of labels for each clip; is it a task of events?")
            path = f"{folder.relative_to(top).as_posix()}/{rate}/{split}/{name}".removeprefix("./")
            if not stays_below(path):
                raise ValueError(f"{where}: path must stay below the task's folder, got {name!r}")
            part = str(split).removeprefix("fold") if is_fold else split
            rows.append((path, LABEL_SEPARATOR.join(map(str, labels)), part))
    if not rows:
        raise ValueError(f"{folder / 'task_metadata.json'} names no split with clips, got {metadata.get('splits')!r}")
    column = "fold" if str(metadata["splits"][0]).startswith("fold") else "split"
    return pd.DataFrame(rows, columns=["path", "label", column])


def events(top: Path) -> pd.DataFrame:
    """Make the index of a task of events: published splits, or HEAR's folds; its JSON files give milliseconds."""
    folder = _find_task_folder(top)
    metadata, rate, rows = _read_json(folder / "task_metadata.json"), _rate(folder), []
    for split in metadata.get("splits") or []:
        where = folder / f"{split}.json"
        for name, told in _read_json(where).items():
            try:
                texts = [f"{float(e['start']) / 1e3:.9g}-{float(e['end']) / 1e3:.9g} {e['label']}" for e in told]
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{where} must hold label, start and end of each event, {name!r} does not") from error
            path = f"{folder.relative_to(top).as_posix()}/{rate}/{split}/{name}".removeprefix("./")
            if not stays_below(path):
                raise ValueError(f"{where}: path must stay below the task's folder, got {name!r}")
            rows.append((path, LABEL_SEPARATOR.join(texts), str(split).removeprefix("fold")))
    if not rows:
        raise ValueError(f"{folder / 'task_metadata.json'} names no split with clips, got {metadata.get('splits')!r}")
    column = "fold" if str(metadata["splits"][0]).startswith("fold") else "split"
    return pd.DataFrame(rows, columns=["path", "label", column])


def nsynth_scenes(top: Path) -> pd.DataFrame:
    """NSynth Pitch: group = instrument, the text of a clip's name before its first "-"."""
    index = scenes(top)
    index["group"] = [path.rpartition("/")[2].partition("-")[0] for path in index["path"]]
    return index


def speech_scenes(top: Path) -> pd.DataFrame:
    """Speech Commands: names are WORD_HASH_nohash_N.wav; group = the speaker's hash, a silence is its own group."""
    index = scenes(top)
    stems = index["path"].str.rpartition("/")[2]
    index["group"] = stems.str.extract(r"_([0-9a-f]+)_nohash_")[0].fillna(stems)
    return index


def _find_task_folder(top: Path) -> Path:
    """Find the folder of task_metadata.json: HEAR's archives have one or two folders above it."""
    for pattern in ("", "tasks/*/", "*/", "*/tasks/*/", "*/*/"):
        found = sorted(top.glob(f"{pattern}task_metadata.json"))
        if len(found) > 1:
            raise ValueError(f"{top} holds {len(found)} HEAR tasks, expected one; give each a folder of its own")
        if found:
            return found[0].parent
    raise FileNotFoundError(f"{top / 'task_metadata.json'} is not there, which tells the published split; {GET_IT}")


def _rate(folder: Path) -> str:
    """The highest rate there is: the folder is named by it."""
    rates = sorted((int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdigit()), reverse=True)
    if not rates:
        raise FileNotFoundError(f"{folder} has no folder of sounds named by its rate, such as 48000")
    return str(rates[0])


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, which tells the published split; {GET_IT}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); is the download whole?") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, got {type(found).__name__}")
    return found
