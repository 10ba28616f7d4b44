"""A task of one's own: a folder of sounds, or a CSV, becomes the YAML and the index that every command reads.

A split is never invented silently: if none is given, a proposal is drawn by group and label, written into the index for
everybody to see, and reported on the terminal and in the task's notes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from evar.audio.segments import name_file
from evar.config.tables import show_path
from evar.data.grouping import AlikePair, find_identical, find_sounding_alike, join_groups, tell_across, write_pairs
from evar.data.index import list_class_names
from evar.data.own_sounds import OwnSounds, leave_out_others, read_folder
from evar.data.own_tables import read_own_table
from evar.data.problems import describe_long_sounds, list_label_problems
from evar.data.segments import locate_clip, split_names
from evar.data.task import Task
from evar.data.task_config import LABEL_SEPARATOR, Expected, TaskConfig
from evar.metrics.named import KINDS, find_default_metric
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.audio.segments import Segment

SEED = 0
#: of five parts: three train, one validates, one tests
PARTS = {"train": 3, "valid": 1, "test": 1}


@dataclass(frozen=True)
class NewTask:
    """The files of a new task, and the notes about them.

    Attributes:
        yaml, csv: the files.
        task: as `load_task` would give it.
        proposed: how the split was drawn; "" where the CSV had one.
        duplicates: pairs of clips of one content in different splits or folds, which only a split of the table can leave.
        alike: pairs of other clips in different splits or folds that sound the same; None if there are too many clips.
        notes: how names and cells were read, and which files were left out.
        pairs_csv: all pairs, within splits too; None if there is none.
        left_out_csv: rows and files that are no clips of the task, with the reason; None if there is none.
        n_joined: clips that share a group because they are identical, or, with `group_alike`, because they sound alike.
        problems: of the labels, see `evar.data.problems.list_label_problems`, and sounds that are too long.
    """

    yaml: Path
    csv: Path
    task: Task
    proposed: str
    duplicates: tuple[tuple[str, str], ...]
    alike: list[tuple[str, str]] | None
    notes: tuple[str, ...] = ()
    pairs_csv: Path | None = None
    left_out_csv: Path | None = None
    n_joined: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskOptions:
    """Settings for reading and splitting the sounds of a new task.

    Attributes:
        kind: "multiclass", "multilabel" (labels joined by `separator`), "regression" (numbers) or "events" (labels such as
            "0.5-1.25 dog;3-3.5 cat", in seconds).
        clip_seconds: longer clips are cut to this; None takes whole files.
        separator: between the labels of a clip in the table.
        n_folds: folds to propose in place of a split, where the table has neither; 0 proposes train, valid and test.
        title, licence: shown to people who read the task.
        seed: of the proposed split.
        group_alike: clips that sound alike share a group, as identical ones always do.
        class_level: which folder on the path is the class, 1 for the first; 0 chooses, and a note names the choice.
        label_column: of the table, which holds the label; "" takes the one that is named so.

    Raises:
        ValueError: if there is no such kind.
    """

    kind: str = "multiclass"
    clip_seconds: float | None = None
    separator: str = LABEL_SEPARATOR
    n_folds: int = 0
    title: str = ""
    licence: str = "not stated"
    seed: int = SEED
    group_alike: bool = False
    class_level: int = 0
    label_column: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be {', '.join(KINDS)}, got {self.kind!r}")


def new_task(
    name: str,
    folder: str | Path,
    table: str | Path | None = None,
    options: TaskOptions = TaskOptions(),
    *,
    to: str | Path,
    data_root: str | Path | None = None,
    replace: bool = False,
) -> NewTask:
    """Write `to/tasks/NAME.yaml` and `NAME.csv`.

    Args:
        name: letters, digits, - and _; column label and command-line name.
        folder: of the sounds. Without a table each sub-folder is a class with everything below it; folders that are named
            like splits or folds are those.
        table: CSV or JSON Lines with the columns path (or file_name; below the folder) and label, and if known split (train,
            valid, test) or fold, and group (clips of one source must stay together). Rows with start and end, in seconds,
            are parts of files, or events of them. Or Raven selection tables or Audacity labels, see
            `evar.data.annotations.read_sound_tables`.
        options: how the sounds are read and split.
        to: configuration folder.
        data_root: the folder is written relative to it where it lies below; else as an absolute path.
        replace: overwrite a task of that name there.

    Raises:
        ValueError: if the name, the table or the folder does not fit, or a class is too small to be split.
        FileNotFoundError: if there is no such folder or table, or a clip of the table is missing.
        FileExistsError: if there is a task of that name.
    """
    folder = Path(os.path.abspath(Path(folder).expanduser()))
    target = Path(to) / "tasks" / f"{name}.yaml"
    _check_request(name, folder, table, options, None if replace else target)
    sounds = (
        read_folder(folder, options.class_level)
        if table is None
        else read_own_table(Path(table), folder, options.separator, options.kind, options.label_column)
    )
    leave_out_others(sounds, folder)
    index = sounds.index
    files = [locate_clip(folder, path) for path in index["path"]]
    pairs = _find_equal_pairs(name, index, files, options)
    is_drawn = "split" not in index and "fold" not in index
    n_joined = _join(index, pairs) if is_drawn else 0
    proposed = _propose_parts(index, options) if is_drawn else ""
    part = "split" if "split" in index else "fold"
    _require_both_ends(index, part, sounds)
    entry = _make_entry(name, index, folder, options)
    entry["folder"] = _place_folder(folder, data_root)
    entry["splits"] = "folds" if part == "fold" else "proposed" if is_drawn else "published"
    entry["notes"] = ". ".join([_tell_split(proposed, table, part), *(f"Read: {note}" for note in sounds.notes)]) + "."
    task = _make_task(name, entry, index, folder)
    _write_task(target, entry, index)
    if pairs and options.group_alike:
        alike: list[tuple[str, str]] | None = [
            (p.first, p.second) for p in tell_across(index, part, pairs) if p.kind == "alike"
        ]
    else:
        heard = find_sounding_alike(index["path"].tolist(), files, options.clip_seconds, index[part].tolist(), name)
        alike = None if heard is None else [(pair.first, pair.second) for pair in heard]
        pairs += heard or []
    identical = tuple((p.first, p.second) for p in tell_across(index, part, pairs) if p.kind == "identical")
    pairs_csv = _write_beside(target, "pairs", write_pairs(index, part, pairs) if pairs else None)
    left_out_csv = _write_beside(target, "left_out", _list_left_out(sounds) if sounds.left_out else None)
    return NewTask(
        target, target.with_suffix(".csv"), task, proposed, identical, alike, tuple(sounds.notes), pairs_csv, left_out_csv,
        n_joined, tuple(filter(None, [*list_label_problems(task), describe_long_sounds(task)])),
    )  # fmt: skip


def _check_request(
    name: str, folder: Path, table: str | Path | None, options: TaskOptions, target: Path | None
) -> None:
    """Check everything that can be wrong before a sound is read; the target must not be there yet, unless it is None."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"a task's name must be letters, digits, - and _, got {name!r}")
    if options.kind == "captions":
        raise ValueError("a task of captions is two files that you write, a YAML and a CSV; docs/text.md shows them")
    if options.kind == "events" and table is None:
        raise ValueError("events need a table (--csv) whose labels are such as '0.5-1.25 dog;3-3.5 cat', in seconds")
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; --folder is where the sounds lie")
    if target is not None and target.exists():
        raise FileExistsError(f"{target} is there already; choose another name, or say --replace")


def _find_equal_pairs(
    name: str, index: pd.DataFrame, files: Sequence[Path | Segment], options: TaskOptions
) -> list[AlikePair]:
    """Find identical clips, and where they share a group also clips that sound alike."""
    pairs = find_identical(index["path"].tolist(), files)
    if not options.group_alike:
        return pairs
    heard = find_sounding_alike(index["path"].tolist(), files, options.clip_seconds, None, name)
    if heard is None:
        raise ValueError(f"{len(index)} clips are too many to be compared by ear; leave out --group=alike")
    return [*pairs, *heard]


def _propose_parts(index: pd.DataFrame, options: TaskOptions) -> str:
    """Add a column of proposed splits or folds to the index; returns a sentence that tells how they were drawn."""
    n_folds = options.n_folds
    column, values = ("fold", [str(n + 1) for n in range(n_folds)]) if n_folds else ("split", _spread())
    index[column] = draw_parts(index, values, options.kind, options.seed)
    drawn = f"{n_folds} folds" if n_folds else "train, valid and test (3 : 1 : 1)"
    return f"{drawn}, drawn by evar with seed {options.seed}, by group, balanced by label; not published by anybody"


def _make_entry(name: str, index: pd.DataFrame, folder: Path, options: TaskOptions) -> dict[str, Any]:
    """Make the content of the task's YAML; the caller fills in folder, splits and notes."""
    classes = _list_classes(index["label"], options.kind)
    return {
        "title": options.title or f"{name}: sounds of {show_path(folder.name)}",
        "version": hashlib.sha256(index.to_csv(index=False).encode()).hexdigest()[:8],
        "kind": options.kind,
        "metric": find_default_metric(options.kind),
        "classes": classes,
        "clip_seconds": options.clip_seconds,
        "pad": "none",
        "crop": "head",
        "index": f"{name}.csv",
        "folder": "",
        "splits": "",
        "source": f"your own folder {show_path(folder)}",
        "licence": options.licence,
        "citation": "none given",
        "access": "yours",
        "expected": {"clips": len(index), "classes": len(classes)},
        "notes": "",
    }


def _make_task(name: str, entry: dict[str, Any], index: pd.DataFrame, folder: Path) -> Task:
    """Make the task, with every check that a run would make."""
    counts, classes = entry["expected"], tuple(entry["classes"])
    values: dict[str, Any] = {**entry, "classes": classes, "expected": Expected(counts["clips"], counts["classes"])}
    task = Task(TaskConfig(name=name, **values), index, folder)
    task.rounds()
    return task


def _write_task(target: Path, entry: dict[str, Any], index: pd.DataFrame) -> None:
    buffer = io.StringIO()
    split_names(index).to_csv(buffer, index=False, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target.with_suffix(".csv"), buffer.getvalue().encode("utf-8"))
    write_atomic(target, yaml.safe_dump(entry, sort_keys=False, allow_unicode=True).encode("utf-8"))


def _join(index: pd.DataFrame, pairs: Sequence[AlikePair]) -> int:
    """Put clips of a pair into one group; how many share one because of it."""
    if not pairs:
        return 0
    index["group"] = join_groups(index, pairs)
    return len({pair.first for pair in pairs} | {pair.second for pair in pairs})


def _require_both_ends(index: pd.DataFrame, part: str, sounds: OwnSounds) -> None:
    """Refuse a split without training or test clips, before anything is written."""
    counts = index[part].value_counts()
    wanted = ("train", "test") if part == "split" else ()
    missing = [split for split in wanted if split not in counts.index]
    if missing or len(counts) < 2:
        there = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise ValueError(
            f"the {part} has no clip for {' and '.join(missing) or 'testing'} ({there}); nothing could be trained and tested"
            + (f"; {len(sounds.left_out)} rows were left out" if sounds.left_out else "")
        )


def _tell_split(proposed: str, table: object, part: str) -> str:
    if proposed:
        return f"Split: {proposed}"
    return "Split: as in the table given" if table is not None else f"Split: by folders named like {part}s"


def _place_folder(folder: Path, data_root: str | Path | None) -> str:
    """The folder as the YAML names it: relative to the data root where it lies below."""
    root = None if data_root is None else Path(data_root).expanduser().resolve()
    for one in (folder, folder.resolve()):
        if root is not None and one.is_relative_to(root):
            return show_path(one.relative_to(root))
    return show_path(folder)


def _write_beside(target: Path, what: str, data: bytes | None) -> Path | None:
    """Write `NAME.WHAT.csv`, or remove an older one if there is nothing to write."""
    path = target.with_name(f"{target.stem}.{what}.csv")
    if data is None:
        path.unlink(missing_ok=True)
        return None
    write_atomic(path, data)
    return path


def _list_left_out(sounds: OwnSounds) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows(sounds.left_out.items())
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def _list_classes(labels: pd.Series, kind: str) -> list[str]:
    if kind == "regression":
        return []
    return sorted(set().union(*(list_class_names(text, kind) for text in labels.unique())))


def _spread() -> list[str]:
    return [split for split, n in PARTS.items() for _ in range(n)]


def draw_parts(index: pd.DataFrame, values: Sequence[str], kind: str, seed: int) -> list[str]:
    """Draw a split or fold for each row: equal parts, whole groups together, labels balanced as far as groups allow.

    Args:
        index: path, label, and if known group.
        values: name of each part; a name may stand for several.
        kind: of the labels.
        seed: of the draw.

    Raises:
        ValueError: if there are too few groups, or too few clips of a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    codes = _number_strata(index["label"], kind, len(values))
    groups = index["group"] if "group" in index else index["path"].map(name_file)
    n_groups = groups.nunique()
    if n_groups < len(values):
        advice = f"say --folds={min(3, n_groups)}, or " if n_groups >= 2 and len(values) > min(3, n_groups) else ""
        raise ValueError(
            f"{len(values)} parts need as many groups, got {n_groups}; {advice}give split or fold in the table"
        )
    if kind == "multiclass":
        few = {label: n for label, n in Counter(index["label"]).items() if n < len(values)}
        if few:
            label, n = min(few.items(), key=lambda item: item[1])
            advice = "say --folds=3, " if n >= 3 and len(values) > 3 else ""
            raise ValueError(
                f"class {label!r} has {n} clips, too few for {len(values)} parts; {advice}leave it out, or give split or "
                "fold in the table"
            )
    parts = np.zeros(len(index), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare labels of other kinds: they go where they go
        splitter = StratifiedGroupKFold(len(values), shuffle=True, random_state=seed)
        for number, (_, held) in enumerate(splitter.split(codes, codes, groups)):
            parts[held] = number
    empty = [values[number] for number in range(len(values)) if not (parts == number).any()]
    if empty:
        raise ValueError(
            f"{len(values)} parts cannot be filled by {n_groups} groups of very different sizes; say --folds=3, or give "
            "split or fold in the table"
        )
    return [values[part] for part in parts]


def _number_strata(labels: pd.Series, kind: str, n_parts: int) -> NDArray[np.int64]:
    """Number the strata that balance the draw, (rows,): the class, the rarest of several, or the fifth of numbers."""
    if kind == "regression":
        labels = pd.qcut(pd.to_numeric(labels, errors="coerce"), 5, labels=False, duplicates="drop")
        return np.asarray(pd.factorize(labels)[0], np.int64)
    if kind == "multiclass":
        return np.asarray(pd.factorize(labels)[0], np.int64)
    named = [list_class_names(text, kind) for text in labels]
    counts = Counter(label for own in named for label in own)
    frequent = {label: n for label, n in counts.items() if n >= n_parts}
    rarest = [
        min((label for label in own if label in frequent), key=lambda one: (counts[one], one), default="")
        for own in named
    ]
    codes = np.asarray(pd.factorize(pd.Series(rarest))[0], np.int64)
    # Where every combination is rarer than the parts, nothing can be balanced: then only groups and sizes count.
    return codes if np.bincount(codes).max() >= n_parts else np.zeros(len(codes), np.int64)
