"""A task of one's own: a folder of sounds, or a CSV, becomes the YAML and the index that every command reads.

A split that nobody published is never invented silently: a proposal is drawn by group and label, written into the index for
everybody to see, and said on the terminal and in the task's notes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from evar.audio.reading import FFMPEG_SUFFIXES
from evar.config.registry import stays_below
from evar.data.fingerprint import sounding_alike
from evar.data.index import classes_named
from evar.data.task import Task
from evar.data.task_config import LABEL_SEPARATOR, SPLITS, Expected, TaskConfig
from evar.metrics.named import KINDS, find_default_metric
from evar.storage.atomic import write_atomic

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".au", ".opus", ".w64", ".caf", *FFMPEG_SUFFIXES)
SEED = 0
#: of five parts: three train, one validates, one tests
PARTS = {"train": 3, "valid": 1, "test": 1}


@dataclass(frozen=True)
class NewTask:
    """What was written.

    Attributes:
        yaml, csv: the files.
        task: as `load_task` would give it.
        proposed: how the split was drawn; "" where the CSV had one.
        duplicates: pairs of clips of one content in different splits or folds.
        alike: pairs of other clips in different splits or folds that sound the same; None where there are too many clips.
    """

    yaml: Path
    csv: Path
    task: Task
    proposed: str
    duplicates: tuple[tuple[str, str], ...]
    alike: list[tuple[str, str]] | None


def new_task(
    name: str,
    folder: str | Path,
    table: str | Path | None = None,
    *,
    kind: str = "multiclass",
    clip_seconds: float | None = None,
    separator: str = LABEL_SEPARATOR,
    n_folds: int = 0,
    title: str = "",
    licence: str = "not stated",
    to: str | Path,
    data_root: str | Path | None = None,
    seed: int = SEED,
    replace: bool = False,
) -> NewTask:
    """Write `to/tasks/NAME.yaml` and `NAME.csv`.

    Args:
        name: letters, digits, - and _; column label and command-line name.
        folder: of the sounds. Without a table each sub-folder is a class, whatever lies below it.
        table: CSV with the columns path (or file_name; below the folder) and label, and where known split (train, valid,
            test) or fold, and group (clips of one source must stay together).
        kind: "multiclass", "multilabel" (labels joined by `separator`), "regression" (numbers) or "events" (labels such as
            "0.5-1.25 dog;3-3.5 cat", in seconds).
        clip_seconds: longer clips are cut to this; None takes whole files.
        separator: between the labels of a clip in the table.
        n_folds: propose so many folds in place of a split, where the table has neither.
        title, licence: for people.
        to: configuration folder.
        data_root: the folder is written relative to it where it lies below; else as an absolute path.
        seed: of the proposed split.
        replace: overwrite a task of that name there.

    Raises:
        ValueError: if the name, the table or the folder does not fit, or a class is too small to be split.
        FileNotFoundError: if there is no such folder or table, or a clip of the table is missing.
        FileExistsError: if there is a task of that name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"a task's name must be letters, digits, - and _, got {name!r}")
    if kind not in KINDS:
        raise ValueError(f"kind must be {', '.join(KINDS)}, got {kind!r}")
    if kind == "events" and table is None:
        raise ValueError("events need a table (--csv) whose labels are such as '0.5-1.25 dog;3-3.5 cat', in seconds")
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; --folder is where the sounds lie")
    target = Path(to) / "tasks" / f"{name}.yaml"
    if target.exists() and not replace:
        raise FileExistsError(f"{target} is there already; choose another name, or say --replace")
    index = _of_folder(folder) if table is None else _of_table(Path(table), folder, separator, kind)
    classes = _classes(index["label"], kind)
    proposed = ""
    if "split" not in index and "fold" not in index:
        column, values = ("fold", [str(n + 1) for n in range(n_folds)]) if n_folds else ("split", _spread())
        index[column] = _drawn(index, values, kind, seed)
        drawn = f"{n_folds} folds" if n_folds else "train, valid and test (3 : 1 : 1)"
        proposed = f"{drawn}, drawn by evar with seed {seed}, by group, balanced by label; not published by anybody"
    root = None if data_root is None else Path(data_root).expanduser().resolve()
    below = str(folder.relative_to(root)) if root is not None and folder.is_relative_to(root) else str(folder)
    metric = find_default_metric(kind)
    counts = {"clips": len(index), "classes": len(classes)}
    entry: dict[str, Any] = {
        "title": title or f"{name}: sounds of {folder.name}",
        "version": hashlib.sha256(index.to_csv(index=False).encode()).hexdigest()[:8],
        "kind": kind,
        "metric": metric,
        "classes": classes,
        "clip_seconds": clip_seconds,
        "pad": "none",
        "crop": "head",
        "index": f"{name}.csv",
        "folder": below,
        "splits": "folds" if "fold" in index else "published",
        "source": f"your own folder {folder}",
        "licence": licence,
        "citation": "none given",
        "access": "yours",
        "expected": counts,
        "notes": f"Split: {proposed}." if proposed else "Split: as in the table given.",
    }
    checked: dict[str, Any] = {**entry, "classes": tuple(classes), "expected": Expected(len(index), len(classes))}
    config = TaskConfig(name=name, **checked)
    task = Task(config, index, folder)  # every check that a run would make
    task.rounds()
    buffer = io.StringIO()
    index.to_csv(buffer, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target.with_suffix(".csv"), buffer.getvalue().encode("utf-8"))
    write_atomic(target, yaml.safe_dump(entry, sort_keys=False, allow_unicode=True).encode("utf-8"))
    return NewTask(target, target.with_suffix(".csv"), task, proposed, duplicates(task), sounding_alike(task))


def duplicates(task: Task) -> tuple[tuple[str, str], ...]:
    """Pairs of clips with the same bytes in different splits or folds: what is tested has been learned by heart."""
    part = task.index["split" if task.config.splits == "published" else "fold"]
    seen: dict[str, int] = {}
    found = []
    for position, path in enumerate(task.paths):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        first = seen.setdefault(digest, position)
        if part.iloc[first] != part.iloc[position]:
            found.append((task.index["path"].iloc[first], task.index["path"].iloc[position]))
    return tuple(found)


def _of_folder(folder: Path) -> pd.DataFrame:
    """One row a sound; its class is the first sub-folder on its path."""
    rows: list[dict[str, str]] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            parts = path.relative_to(folder).parts
            if len(parts) < 2:
                raise ValueError(
                    f"{path} lies in no class folder; put each class into a folder of its own, or give a table with --csv"
                )
            rows.append({"path": "/".join(parts), "label": parts[0]})
    if not rows:
        raise ValueError(f"no sound below {folder}; expected files ending in {', '.join(SUFFIXES)}")
    return pd.DataFrame(rows)


def _of_table(table: Path, folder: Path, separator: str, kind: str) -> pd.DataFrame:
    if not table.is_file():
        raise FileNotFoundError(f"no table {table}")
    found = pd.read_csv(table, dtype=str, keep_default_na=False)
    if "path" not in found:
        found = found.rename(columns={"file_name": "path"})  # as in metadata.csv of Hugging Face's audio folders
    for column in ("path", "label"):
        if column not in found:
            raise ValueError(f"{table} must have the columns path and label, got {', '.join(found.columns)}")
    known = [column for column in ("path", "label", "split", "fold", "group") if column in found]
    if "split" in found and "fold" in found:
        raise ValueError(f"{table} must have split or fold, got both")
    found = found[known].copy()
    found["path"] = [_below(text, folder, table) for text in found["path"]]
    missing = [path for path in found["path"] if not (folder / path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(found)} clips of {table} are not below {folder}, first {missing[0]}"
        )
    if "split" in found and not found["split"].isin(SPLITS).all():
        bad = found["split"][~found["split"].isin(SPLITS)].iloc[0]
        raise ValueError(f"{table}: split must be train, valid or test, got {bad!r}")
    if kind == "multilabel" and separator != LABEL_SEPARATOR:
        if found["label"].str.contains(LABEL_SEPARATOR, regex=False).any():
            raise ValueError(f"{table}: labels must not hold {LABEL_SEPARATOR!r} where {separator!r} separates them")
        split = found["label"].str.split(separator, regex=False)
        found["label"] = [LABEL_SEPARATOR.join(one.strip() for one in labels if one.strip()) for labels in split]
    return found


def _below(text: str, folder: Path, table: Path) -> str:
    path = Path(text)
    if path.is_absolute():
        if not path.resolve().is_relative_to(folder):
            raise ValueError(f"{table}: path {text} is not below {folder}")
        return path.resolve().relative_to(folder).as_posix()
    if not stays_below(text):
        raise ValueError(f"{table}: path must stay below {folder}, got {text!r}")
    return path.as_posix()


def _classes(labels: pd.Series, kind: str) -> list[str]:
    if kind == "regression":
        return []
    return sorted(set().union(*(classes_named(text, kind) for text in labels.unique())))


def _spread() -> list[str]:
    return [split for split, n in PARTS.items() for _ in range(n)]


def _drawn(index: pd.DataFrame, values: Sequence[str], kind: str, seed: int) -> list[str]:
    """A split or fold for each row: parts of equal size, whole groups together, labels balanced as far as groups allow."""
    from sklearn.model_selection import StratifiedGroupKFold

    strata = index["label"]
    if kind == "regression":
        strata = pd.qcut(pd.to_numeric(index["label"]), 5, labels=False, duplicates="drop")
    if kind == "events":  # which classes sound, whenever
        strata = strata.map(lambda text: LABEL_SEPARATOR.join(sorted(classes_named(text, kind))))
    codes = pd.factorize(strata)[0]
    groups = index["group"] if "group" in index else index["path"]
    if groups.nunique() < len(values):
        raise ValueError(
            f"{len(values)} parts need as many groups, got {groups.nunique()}; give split or fold in the table"
        )
    if kind == "multiclass":
        few = {label: n for label, n in Counter(index["label"]).items() if n < len(values)}
        if few:
            label, n = min(few.items(), key=lambda item: item[1])
            raise ValueError(
                f"class {label!r} has {n} clips, too few for {len(values)} parts; leave it out, or give split or fold in "
                "the table"
            )
    parts = np.zeros(len(index), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare labels of other kinds: they go where they go
        splitter = StratifiedGroupKFold(len(values), shuffle=True, random_state=seed)
        for number, (_, held) in enumerate(splitter.split(codes, codes, groups)):
            parts[held] = number
    return [values[part] for part in parts]
