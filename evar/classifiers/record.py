"""What a classifier file says beside its arrays: encoder, layers, task, score and versions, as plain data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from evar.config.reading import build

#: what the file's metadata says of itself; a later format has another number
FORMAT, FORMAT_VERSION = "evar classifier", 1


@dataclass(frozen=True)
class EncoderFacts:
    """Which encoder makes the vectors.

    Attributes:
        name: row label.
        request: as `evar.encoders.load_encoder` takes it.
        weights: as requested: None for the encoder's own, "random", a path, an address or "hf:org/name".
        weights_label, weights_sha256: of what was loaded.
        options: that it was built with.
        revision: of the encoder's code.
        sample_rate: Hz.
        trained_on: data that its authors trained it on.
        licence: of the checkpoint.
    """

    name: str
    request: str
    weights: str | None
    weights_label: str
    weights_sha256: str
    sample_rate: int
    options: dict[str, Any] = field(default_factory=dict)
    revision: str = ""
    trained_on: str = ""
    licence: str = ""

    @property
    def is_random(self) -> bool:
        """Whether the weights were never trained."""
        return self.weights_label == "random"


@dataclass(frozen=True)
class FeatureFacts:
    """How the layers of a clip become one vector: names, fusion, and layer -> pooling over time."""

    layers: tuple[str, ...]
    fusion: str
    pooling: dict[str, Any]


@dataclass(frozen=True)
class ClipFacts:
    """Which part of a file was the clip in training, as `evar.audio.reading.ClipPolicy` has it."""

    seconds: float | None
    pad: str
    crop: str


@dataclass(frozen=True)
class TaskFacts:
    """What it was trained on.

    Attributes:
        name, title, version: of the task.
        kind: "multiclass", "multilabel" or "regression".
        metric: of the scores.
        index_sha256: hash of the rows of the index that were used.
        split: "published", "folds" or "proposed".
        classes: names, in the order of the probabilities; empty for numbers.
        unit: of the numbers.
        licence, source: of the data.
        limit: clips of each split that were used at most; None: all.
    """

    name: str
    title: str
    version: str
    kind: str
    metric: str
    index_sha256: str
    split: str
    classes: tuple[str, ...] = ()
    unit: str = ""
    licence: str = ""
    source: str = ""
    limit: int | None = None


@dataclass(frozen=True)
class ScoreFacts:
    """Score on test clips.

    Attributes:
        score: by the task's metric, mean over rounds.
        interval: 95 % interval.
        interval_method: how it was computed.
        chance: score of guessing.
        n_test: test clips.
        round_scores: of each round.
        of: one sentence: which fit was tested on which clips.
    """

    score: float
    interval: tuple[float, ...]
    interval_method: str
    chance: float | None
    n_test: int
    round_scores: tuple[float, ...]
    of: str


@dataclass(frozen=True)
class HeadFacts:
    """One fitted probe of the file.

    Attributes:
        name: of its round: "test", "fold 1", ...; "all clips" for a probe that was fitted on every clip.
        kind, settings: as in `evar.probes.saved.SavedProbe`.
        n_train, n_valid: clips that it was fitted on, and that its settings were chosen on.
        clips_per_class: class -> training and validation clips.
        strength: that was chosen, of a regularised model.
        chosen: other settings that were chosen.
        valid_score: of the choice.
        converged: whether the fit reached its tolerance.
        norm_stats: (mean, std) that the encoder's input is normalised by; None if it is not.
        thresholds: of each label, chosen on validation clips; empty for tasks of one class a clip and of numbers.
        threshold_scores: F1 of each label on the validation clips at its threshold; None where no such clip has the label,
            so that the threshold is 0.5.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    n_train: int
    n_valid: int
    clips_per_class: dict[str, Any] = field(default_factory=dict)
    strength: float | None = None
    chosen: dict[str, Any] | None = None
    valid_score: float | None = None
    converged: bool = True
    norm_stats: tuple[float, ...] | None = None
    thresholds: tuple[float, ...] = ()
    threshold_scores: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class ClassifierRecord:
    """All that a classifier file says.

    Attributes:
        id: of the row that it belongs to.
        rule: one sentence: which probes the file holds, and how several become one prediction.
        encoder, feature, clip, task, score: see there.
        protocol: name, version, description, parameters and refit of the probe's protocol.
        heads: one for each probe.
        versions: of what can change a number.
        created: time, UTC.
    """

    id: str
    rule: str
    encoder: EncoderFacts
    feature: FeatureFacts
    clip: ClipFacts
    task: TaskFacts
    score: ScoreFacts
    protocol: dict[str, Any]
    heads: tuple[HeadFacts, ...]
    versions: dict[str, Any]
    created: str

    def __post_init__(self) -> None:
        if not self.heads:
            raise ValueError("a classifier must hold at least one head")
        n_labels = len(self.task.classes) if self.task.kind == "multilabel" else 0
        for head in self.heads:
            if len(head.thresholds) != n_labels:
                raise ValueError(f"expected {n_labels} thresholds of head {head.name!r}, got {len(head.thresholds)}")

    def to_text(self) -> str:
        """Return the record as JSON."""
        data = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(data, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_text(cls, text: str, where: str) -> ClassifierRecord:
        """Read a record, and check every value of it.

        Args:
            text: as `to_text` wrote it.
            where: path of the file, for messages.

        Raises:
            ValueError: if it is no such record, or a value is missing or not legal.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is no classifier of evar: its metadata are not JSON ({error})") from error
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError(
                f"{where} is no classifier of evar; `evar train` and `evar lineval --save_head` write such files"
            )
        version = data.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{where} has format {version!r}, but this evar reads format {FORMAT_VERSION}; install a newer evar, or "
                "train it again"
            )
        return build(data, cls, where)
