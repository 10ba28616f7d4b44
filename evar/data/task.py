"""Tasks: a YAML and an index become clips, labels and rounds. Published splits and folds only; never torch.

An index is a CSV beside the YAML or, where it is not ours to ship, made from the user's own copy (`evar.data.catalogue`).
"""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from evar import config as configs
from evar.audio.reading import ClipPolicy
from evar.audio.segments import Segment, name_file
from evar.config.own_code import may_call
from evar.config.registry import resolve
from evar.config.tables import real_path
from evar.data.index import ROWS_AT_ONCE, IndexCheck, strata, with_classes
from evar.data.pairs import Pair, load_pairs
from evar.data.segments import locate_clip, name_segments
from evar.data.task_config import SPLITS, TaskConfig, load_task_config
from evar.data.verification import Verification, verify_files
from evar.metrics.events import count_clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: share of the training clips that becomes validation where none is published: one part in this many
VALIDATION_PARTS = 5


@dataclass(frozen=True)
class Round:
    """One train-valid-test triple: row numbers of the task's index.

    Attributes:
        name: "test" for a published split, else the fold that is tested ("fold 1").
        train, valid, test: (rows,) int64, sorted, disjoint.
        drawn: how validation was drawn, or "" where it is published.
    """

    name: str
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    drawn: str = ""


class Task:
    """A set of labelled clips with published splits or folds.

    Attributes:
        config: the YAML.
        index: one row a clip: path, label, split or fold, group (str), stratum (int), which draws are balanced by. The path
            of a part of a file holds its times, such as "field.wav#t=1.5,4" (see `evar.data.segments`).
        y: (rows,) int64 class numbers; (rows, classes) uint8, 0 or 1, where clips have several labels; (rows,) float64
            where labels are numbers; (rows,) objects, each (events, 3) class number, onset and offset in seconds, or a tuple
            of captions.
        folder: where the paths start.
        limit: clips per split or fold that were kept, None for all.
        validation_parts: if validation clips are drawn: the number of parts of the training clips, of which one is used.
        index_sha256: hash of the rows that are used.
    """

    def __init__(
        self,
        config: TaskConfig,
        index: pd.DataFrame,
        folder: Path,
        limit: int | None = None,
        validation_parts: int = VALIDATION_PARTS,
    ) -> None:
        self.config = config = with_classes(config, [index])
        self.validation_parts = validation_parts
        self.folder = folder
        self.limit = limit
        self._rounds: dict[int, tuple[Round, ...]] = {}
        index, y = _check_index(config, index)
        kept = np.arange(len(index)) if limit is None else _choose_balanced(index, config, limit)
        self.index = index.iloc[kept].reset_index(drop=True)
        self.y: NDArray[Any] = y[kept]
        self.index_sha256 = _hash_used_columns(
            self.index.iloc[start : start + ROWS_AT_ONCE] for start in range(0, len(self.index), ROWS_AT_ONCE)
        )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def name(self) -> str:
        """Column label and command-line name."""
        return self.config.name

    @property
    def draws_validation(self) -> bool:
        """True where validation is drawn from the training clips, so that the seed matters."""
        return self.config.part == "fold" or "valid" not in set(self.index["split"])

    @cached_property
    def paths(self) -> list[Path | Segment]:
        """One file a row, or one part of a file."""
        return [locate_clip(self.folder, path) for path in self.index["path"]]

    @cached_property
    def truth(self) -> NDArray[Any]:
        """Targets in the form that metrics take: `y`, or counts of events, (rows, 3); see `evar.metrics.events.count_clip`.

        Of captions, which of them there are, (rows, 2 x most captions of a clip); see `evar.metrics.retrieval`.
        """
        if self.config.kind == "captions":
            most = max(map(len, self.y))
            there = np.array([[number < len(own) for number in range(most)] for own in self.y], np.uint8)
            return np.concatenate([there, there], axis=1)
        if self.config.kind != "events":
            return self.y
        return np.array([count_clip(events, np.empty((0, 3)))[0] for events in self.y]).reshape(-1, 3)

    @cached_property
    def strata(self) -> NDArray[np.int64]:
        """(rows,) what draws are balanced by: the class; of several labels the rarest; of numbers the fifth."""
        return self.index["stratum"].to_numpy(np.int64)

    @cached_property
    def groups(self) -> NDArray[np.str_]:
        """(rows,) source recording, speaker or instrument that must not be in two splits; the file if unknown."""
        return self.index["group"].to_numpy(str)

    @cached_property
    def pairs(self) -> list[Pair] | None:
        """Published pairs of clips whose clips are all here; None where the task has no list of pairs."""
        if not self.config.pairs:
            return None
        return load_pairs(self.folder, self.config.pairs, self.index["path"].tolist())

    @cached_property
    def pairs_sha256(self) -> str:
        """Hash of the published pairs; "" where there are none."""
        return hashlib.sha256(repr(self.pairs).encode()).hexdigest() if self.pairs else ""

    def policy(self, seed: int = 0, crop: str | None = None) -> ClipPolicy:
        """Say which part of a file is the clip; `crop` in place of the task's own."""
        crop = crop or self.config.crop
        return ClipPolicy(self.config.clip_seconds, self.config.pad, crop, seed if crop == "seeded_random" else 0)

    def rounds(self, seed: int = 0) -> tuple[Round, ...]:
        """Return the published split or folds. If no validation clips are published, they are drawn from training clips.

        Args:
            seed: of the validation draw: one part in `validation_parts`, by group, stratified by label.

        Returns:
            One round for a published split, one a fold otherwise, in the published order.
        """
        if seed not in self._rounds:  # drawing takes longer than a probe of a small task
            self._rounds[seed] = tuple(self._draw_rounds(seed))
        return self._rounds[seed]

    def join_folds(self, seed: int = 0) -> Task:
        """Return the same clips in one round, for a probe that is fitted on all of them.

        One part of all clips is validation, drawn as in every round. No test clips are left: the validation clips stand in
        their place, so that no score of this round means anything.

        Args:
            seed: of the validation draw; the task knows no other.
        """
        joined = copy.copy(self)
        train, valid = self._draw_validation(np.arange(len(self)), seed)
        drawn = _describe_draw(self.validation_parts, seed)
        joined._rounds = {seed: (Round("all clips", train, valid, valid, drawn),)}
        return joined

    def _draw_rounds(self, seed: int) -> Iterator[Round]:
        if self.config.part == "split":
            train, valid, test = (np.flatnonzero(self.index["split"] == split) for split in SPLITS)
            if len(valid) or not len(train):
                yield Round("test", train, valid, test)
            else:
                yield Round(
                    "test", *self._draw_validation(train, seed), test, _describe_draw(self.validation_parts, seed)
                )
            return
        for fold in sorted(self.index["fold"].unique(), key=lambda text: (len(text), text)):
            held_out = (self.index["fold"] == fold).to_numpy()
            train, valid = self._draw_validation(np.flatnonzero(~held_out), seed)
            yield Round(
                f"fold {fold}", train, valid, np.flatnonzero(held_out), _describe_draw(self.validation_parts, seed)
            )

    def _draw_validation(self, training: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        from sklearn.model_selection import StratifiedGroupKFold

        n_parts = min(self.validation_parts, len(set(self.groups[training])))
        if n_parts < 2:
            raise ValueError(f"{self.name}: validation needs two groups in the training clips, got {n_parts}")
        most = np.bincount(self.strata[training]).max()
        if most < n_parts:
            raise ValueError(
                f"{self.name}: drawing validation needs a class with at least {n_parts} training clips, got {most}; is "
                f"--limit={self.limit} too small?"
            )
        splitter = StratifiedGroupKFold(n_parts, shuffle=True, random_state=seed)
        with warnings.catch_warnings():  # a class with fewer clips than parts: said by the counts in the result
            warnings.simplefilter("ignore", UserWarning)
            train, valid = next(splitter.split(training, self.strata[training], self.groups[training]))
        return training[train], training[valid]

    def missing(self) -> list[str]:
        """List clips whose file does not exist; as text, since a million `Path` objects take a quarter of a gigabyte."""
        names = self.index["path"].tolist()
        return [name for name in names if not os.path.isfile(real_path(self.folder, name_file(name)))]

    def require_files(self) -> None:
        """Fail before any work is done if a clip is not there.

        Raises:
            FileNotFoundError: how many are missing, the first, and what to do.
        """
        missing = self.missing()
        if missing:
            raise FileNotFoundError(
                f"{self.name}: {len(missing)} of {len(self)} clips missing under {self.folder}, first {missing[0]}; "
                f"get them from {self.config.source}, point --data_root or EVAR_DATA at the folder that holds "
                f"{self.config.folder}/, check with `evar verify {self.name}`"
            )

    def verify(self) -> Verification:
        """Decode every clip and compare the files with the index.

        Returns:
            Missing, undecodable and altered files by name. Nothing is raised for a bad clip.
        """
        parts = (self.index.iloc[start : start + ROWS_AT_ONCE] for start in range(0, len(self), ROWS_AT_ONCE))
        return verify_files(self.config, self.folder, parts, len(self))


def load_task(
    name: str,
    data_root: str | Path | None = None,
    limit: int | None = None,
    validation_parts: int = VALIDATION_PARTS,
) -> Task:
    """Read a task by name; embedded tasks render their sounds at first use, others may need your copy for their index.

    Args:
        name: as `evar tasks` lists them.
        data_root: folder that holds the task's own folder; None takes EVAR_DATA, then ./data.
        limit: keep a class-balanced subset of at most this many clips of each split or fold.
        validation_parts: if no validation split is published, the training clips are divided into this number of parts,
            and one of them is used for validation.

    Returns:
        The task: its index, the folder of its clips, splits, classes and metric.

    Raises:
        ValueError: if the name is unknown, or the YAML, its CSV or the data set's own tables are wrong.
        FileNotFoundError: if the index is made from a data set that is not there.

    Example:
        >>> task = load_task("esc10")
        >>> len(task), [len(a_round.test) for a_round in task.rounds()]
        (400, [80, 80, 80, 80, 80])
    """
    path = configs.find("tasks", name)
    config = configs.read(path, TaskConfig)
    if config.index_maker:
        if not may_call(config.index_maker):
            raise ValueError(f"{name}: its index is made by {config.index_maker}, which lists and dry runs do not call")
        top = _find_top_folder(config, data_root)
        return Task(config, resolve(config.index_maker)(top), top, limit, validation_parts)
    index_path = index_beside(path, config)
    index = pd.read_csv(index_path, dtype=str, keep_default_na=False)
    if config.builder:
        return Task(config, index, configs.cache_folder() / config.folder, limit, validation_parts)
    return Task(config, index, clips_folder(config, data_root), limit, validation_parts)


def index_beside(path: Path, config: TaskConfig) -> Path:
    """Return the CSV of a task, beside its YAML."""
    index_path = path.parent / config.index
    if not index_path.is_file():
        raise ValueError(f"{path}: its index {config.index} is not beside it")
    return index_path


def is_at_hand(name: str, data_root: str | Path | None = None) -> bool:
    """Tell whether a task has an index: it comes with one, or the folder that it is made from is there."""
    config = load_task_config(name)
    return bool(config.index) or _find_data_folder(config, data_root).is_dir()


def _find_data_folder(config: TaskConfig, data_root: str | Path | None) -> Path:
    return real_path(Path(data_root or os.environ.get("EVAR_DATA") or "data"), config.folder)


def clips_folder(config: TaskConfig, data_root: str | Path | None) -> Path:
    """Return the folder that the paths of a CSV start from: the task's folder, or an archive's top folder inside it."""
    folder = _find_data_folder(config, data_root)
    return _find_top_folder(config, data_root) if config.landmark and folder.is_dir() else folder


def _find_top_folder(config: TaskConfig, data_root: str | Path | None) -> Path:
    """The task's folder, or the archive's top folder inside it, whichever holds the landmark."""
    folder = _find_data_folder(config, data_root)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{config.name}: no folder {folder}; get the data set from {config.source} ({config.access}), point "
            f"--data_root or EVAR_DATA at the folder that holds {config.folder}/, check with `evar verify {config.name}`"
        )
    if (folder / config.landmark).exists():
        return folder
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and (path / config.landmark).exists())
    return inside[0] if inside else folder


def prepare(task: Task) -> None:
    """Render the sounds of an embedded task if they are not there yet; other tasks are left alone.

    Raises:
        OSError: if the parts that they are made of cannot be fetched.
    """
    if task.config.builder:
        resolve(task.config.builder)(task.name, task.folder)


def _describe_draw(n_parts: int, seed: int) -> str:
    return f"1/{n_parts} of the training clips, by group, stratified by label, seed {seed}"


def _check_index(config: TaskConfig, index: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[Any]]:
    """The index with strata and groups, and the labels as in `Task.y`, after every check that needs no audio."""
    index = index.reset_index(drop=True)
    check = IndexCheck(config)
    index = name_segments(index, check.where)
    y = check.add(index)
    check.finish()
    index = index.assign(stratum=strata(config, y))
    if "group" not in index or (index["group"] == "").all():
        index["group"] = [name_file(path) for path in index["path"]]
    return index, y


def _hash_used_columns(parts: Iterable[pd.DataFrame]) -> str:
    """Hash the columns of an index that evar uses; other columns do not count."""
    digest = hashlib.sha256()
    for number, rows in enumerate(parts):
        used = rows[["path", "label", *(c for c in ("split", "fold", "group") if c in rows)]]
        digest.update(used.to_csv(index=False, header=not number, lineterminator="\n").encode())
    return digest.hexdigest()


def _choose_balanced(index: pd.DataFrame, config: TaskConfig, limit: int) -> NDArray[np.int64]:
    """At most `limit` rows of each split or fold, stratum by stratum in turn, chosen by a hash of the path."""
    if limit < 2:
        raise ValueError(f"--limit must be at least 2 clips of each split, got {limit}")
    part = config.part
    order = index["path"].map(lambda path: hashlib.sha256(path.encode()).hexdigest())
    ranked = index.assign(order=order).sort_values("order")
    turn = ranked.groupby([part, "stratum"]).cumcount()
    chosen = ranked.assign(turn=turn).sort_values([part, "turn", "stratum"]).groupby(part).head(limit)
    return np.array(sorted(chosen.index), np.int64)
