"""Read a task: `config/tasks/NAME.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from evar import config as configs
from evar.audio.reading import ClipPolicy
from evar.config.own_code import may_call
from evar.config.registry import hash_source, resolve, stays_below
from evar.data.prompts import Prompts
from evar.metrics.named import KINDS, list_task_metrics
from evar.metrics.own import register_metric

SPLITS = ("train", "valid", "test")
#: what `splits` of a task may be
KINDS_OF_SPLITS = ("published", "folds", "proposed")


#: what a task's sounds may be
DOMAINS = ("sound", "speech", "music")
#: between the labels of a clip in the index of a multilabel task; an empty label means none of the classes
LABEL_SEPARATOR = ";"
#: between the captions of a clip in the index of a task of captions
CAPTION_SEPARATOR = "|"
#: kinds of tasks without classes -> what their labels are
WITHOUT_CLASSES = {"regression": "numbers", "captions": "sentences"}


@dataclass(frozen=True)
class Expected:
    """Published counts that an index must have.

    Attributes:
        clips: of all splits; None if the split is the user's own, so that no count is published.
        classes: that occur; None if that is not published, where the YAML lists all that there may be, or where they
            depend on the user's copy.
        sha256: digest of rendered sound, for embedded tasks.
        parts: split or fold -> clips, where published.
    """

    clips: int | None
    classes: int | None
    sha256: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Archive:
    """One published file of a data set.

    Attributes:
        urls: http(s) addresses of the same file, tried in order.
        file: name to save it under.
        sha256, md5, size: checked if known; otherwise the counts of the index are checked.
        into: sub-folder of the task's folder.
        unpack: True for an archive (zip, tar, tar.gz), False for a file that is kept unchanged.
        part_of: `file` of the split zip that this is a part of; parts stand in order.
    """

    urls: tuple[str, ...]
    file: str
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    into: str = ""
    unpack: bool = True
    part_of: str = ""

    def __post_init__(self) -> None:
        if (
            not self.urls
            or not stays_below(self.file)
            or "/" in self.file
            or (self.into and not stays_below(self.into))
        ):
            raise ValueError(
                f"an archive needs urls and a plain file name, and into must stay below, got {self.file!r}"
            )


@dataclass(frozen=True)
class TaskConfig:
    """One `config/tasks/NAME.yaml`.

    Attributes:
        name: the file's stem; column label and command-line name.
        title: the question of the task, for people who read lists.
        version: raise it when labels, splits or clips change.
        kind: kind of the labels: "multiclass" (one class), "multilabel" (any number of them, none too), "regression"
            (a number), "events" (which begin and end at some time: "0.5-1.25 dog;3-3.5 cat", in seconds) or "captions" (one
            or more sentences, with "|" between them).
        metric: a name in `evar.metrics.METRICS`, of that kind; or "module:name" or "path/to/file.py:name" of an own one,
            see `evar.metrics.own`.
        classes: labels in order; label i of a result is classes[i]. Empty for regression and captions.
        classes_from_index: take as classes the labels that occur in the index, sorted (as numbers where they all are); for
            data sets whose vocabulary comes with them. `expected` holds their number.
        unit: of the numbers of a regression task.
        pitch: are the classes notes, a semitone apart? Then the accuracy of the chroma is shown too.
        clip_seconds, pad, crop: which part of a file is the clip, see `evar.audio.reading.ClipPolicy`.
        folder: where the paths start, below the data root (embedded tasks: below the cache).
        splits: "published" (a split column; without valid rows validation is drawn from train) "folds", or "proposed": a
            split that `evar task new` drew.
        source, licence, citation, access: where it comes from and under which conditions.
        expected: counts that the index must have.
        index: CSV beside the YAML: path, label, split or fold, and if known group and sha256.
        index_maker: in place of index, "module:function" that makes it from the user's copy, see `evar.data.catalogue`.
        landmark: file or folder by which the top folder of an archive is recognised, which may lie in `folder`.
        may_share_groups: splits that have groups in common as published; any other pair must not.
        archives: what `evar prepare` fetches, where anybody may.
        builder: "module:function" that renders the sounds at first use; only embedded tasks.
        notes: quirks and decisions.
        prompts: sentences for the classes, for encoders that read text.
        domain: "sound", "speech" or "music": which tasks `evar advise` takes for similar; "" where none of them fits.
        pairs: name of a published list of pairs in the data set's folder, which the protocol `pairs` tests; see
            `evar.data.pairs`.
    """

    name: str
    title: str
    version: str
    kind: str
    metric: str
    clip_seconds: float | None
    pad: str
    crop: str
    folder: str
    splits: str
    source: str
    licence: str
    citation: str
    access: str
    expected: Expected
    classes: tuple[str, ...] = ()
    classes_from_index: bool = False
    index: str = ""
    index_maker: str = ""
    landmark: str = ""
    may_share_groups: tuple[str, ...] = ()
    builder: str | None = None
    archives: tuple[Archive, ...] = ()
    unit: str = ""
    pitch: bool = False
    notes: str = ""
    prompts: Prompts = field(default_factory=Prompts)
    domain: str = ""
    pairs: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be {', '.join(KINDS)}, got {self.kind!r}")
        _check_metric(self.metric, self.kind)
        if self.domain not in ("", *DOMAINS):
            raise ValueError(f"domain must be {', '.join(DOMAINS)} or left out, got {self.domain!r}")
        if self.splits not in KINDS_OF_SPLITS:
            raise ValueError(f"splits must be {' or '.join(KINDS_OF_SPLITS)}, got {self.splits!r}")
        least = {"multiclass": 2, "multilabel": 1, "events": 1, "regression": 0, "captions": 0}[self.kind]
        if self.classes_from_index and not self.classes:
            if self.kind in WITHOUT_CLASSES or (self.expected.classes is not None and self.expected.classes < least):
                raise ValueError("classes_from_index needs labels that are classes, and their number in expected")
            least = 0
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < least:
            raise ValueError(f"classes must be at least {least} different labels")
        if self.kind in WITHOUT_CLASSES and self.classes:
            raise ValueError(f"classes must be empty for kind {self.kind}; its labels are {WITHOUT_CLASSES[self.kind]}")
        if self.kind in ("multilabel", "events") and any(LABEL_SEPARATOR in label for label in self.classes):
            raise ValueError(
                f"no label of a {self.kind} task may hold {LABEL_SEPARATOR!r}, which stands between labels"
            )
        if bool(self.index) == bool(self.index_maker):
            raise ValueError(f"expected index or index_maker, got {self.index!r} and {self.index_maker!r}")
        if self.pairs and (self.kind != "multiclass" or not stays_below(self.pairs)):
            raise ValueError(
                f"pairs goes with multiclass tasks and must be a file below their folder, got {self.pairs!r}"
            )
        ClipPolicy(self.clip_seconds, self.pad, self.crop)

    @property
    def part(self) -> str:
        """Column of the index that gives the role of a clip: "split" or "fold"."""
        return "fold" if self.splits == "folds" else "split"

    @property
    def is_proposed(self) -> bool:
        """Nobody published the split: it was drawn here."""
        return self.splits == "proposed" or "not published by anybody" in self.notes  # as `evar task new` writes


def _check_metric(metric: str, kind: str) -> None:
    """Raise ValueError unless tasks of that kind can be ranked by the metric; an own one is checked and made known."""
    if ":" in metric:
        if not may_call(metric):
            return
        try:
            found = register_metric(metric, resolve(metric), hash_source(metric))
        except (ImportError, OSError) as error:
            raise ValueError(f"metric {metric} is not there: {error}") from error
        if found.kind != kind:
            raise ValueError(f"metric {metric} is for tasks of kind {found.kind}, but this task is {kind}")
        return
    known = list_task_metrics(kind)
    if metric not in known:
        raise ValueError(f"metric must be {' or '.join(known)} for kind {kind}, got {metric!r}")


def load_task_config(name: str) -> TaskConfig:
    """Read `tasks/NAME.yaml`; needs no data. Errors as for `load_task`."""
    return configs.read(configs.find("tasks", name), TaskConfig)
