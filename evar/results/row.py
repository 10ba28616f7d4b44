"""One row of every table as plain data that checks itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from evar.config.registry import near_miss
from evar.results.checks import check_keys, check_kind, check_time, show
from evar.results.identity import IDENTITY_KEYS, check_id, plain, run_id
from evar.results.records import from_plain, to_plain

SCHEMA = 1
#: metric -> least score, where it is below 0
LEAST_SCORES = {"pearson": -1.0, "r2": -math.inf, "adjusted_rand_index": -1.0}
FUSIONS = ("none", "concat", "average", "pca", "weighted", "attention")


@dataclass(frozen=True)
class Result:
    """The score of one encoder's layers on one task under one protocol and seed, with all that re-running it takes.

    Fractions lie in 0..1; only tables turn them into percent. Values are checked and made plain (numpy scalars become
    Python numbers) when the object is made, so every object can be saved, and every saved object can be trusted.

    Attributes:
        encoder: name as `evar encoders` lists it.
        weights: file name of the checkpoint, "random" or "none".
        weights_sha256: hash of the checkpoint or of the random parameters; "none" for an encoder without any.
        layers: the layers that were probed; several are fused.
        fusion: "none" for one layer, else how several became one vector: "concat", "average", "pca", "weighted" or
            "attention" (of their frames, also for one layer).
        pooling: layer -> name of the pooling over time.
        task, task_version: the task that was tested; different versions are never shown in one column.
        protocol: name of the protocol.
        params: every effective hyper-parameter: protocol_version, refit, the grid and the choice of each round.
        seed: of everything random in the run.
        metric: name of the metric.
        score: mean of round_scores, 0..1.
        round_scores: one per round, 0..1.
        n_train, n_valid: clips per round (rounded mean).
        n_test: clips tested, total over rounds.
        skipped: clips that could not be used: {clip, split, reason, counted: "wrong" or "left_out"}.
        seconds: wall time of this row.
        versions: package -> version.
        created: ISO 8601 time in UTC, as `utc_now` gives it.
        schema: version of this list of keys.
        id: file stem, from `run_id`; made from the other values where empty.
        rounds: one dict per round: name, score, n_train, n_valid, n_test, strength, valid_score.
        interval: (low, high) of the 95 % interval, 0..1; None if there is none.
        interval_method: a sentence for the table's footnote.
        n_classes, chance: number of classes; score of guessing, 0..1.
        depth: relative depth of a single layer, (layer_index + 1) / n_layers; None for several layers.
        layer_index, n_layers: position of a single layer, 0 the shallowest; how many layers the encoder has.
        default: are these the encoder's default layers?
        width: features per clip that the probe saw.
        limit: clips per split where only a subset was used, else None.
        sample_rate: Hz of the encoder's input.
        encoder_options: effective options that the encoder was built with.
        extraction: effective feature key: clip_seconds, pad, crop, sample_rate, resampler, precision, revision,
            norm_stats.
        index_sha256: hash of the task's index.
        trained_on: data that the checkpoint has seen.
        protocol_description: the protocol's sentence for the table's footnote.
        flags: facts that a reader must know beside the score, such as "random weights".
        extras: further metrics of the same predictions, mean over rounds, in their own units.
        settings: the request, such as {"layers": "all"}, so that the row can be run again.
        extra_intervals: of `extras`, where they can be resampled: (low, high) of 95 % intervals.

    Raises:
        ValueError: if a value has the wrong type or range, or two values contradict each other.

    Example:
        >>> row = Result(
        ...     encoder="logmel", weights="none", weights_sha256="none", layers=["logmel"], fusion="none",
        ...     pooling={"logmel": "mean_std"}, task="esc10", task_version="1", protocol="linear", params={}, seed=0,
        ...     metric="accuracy", score=0.5, round_scores=[0.4, 0.6], n_train=256, n_valid=64, n_test=160, skipped=[],
        ...     seconds=1.5, versions={}, created="2026-01-31T12:00:00+00:00")
        >>> Result.from_dict(row.to_dict()) == row
        True
    """

    encoder: str
    weights: str
    weights_sha256: str
    layers: Sequence[str]
    fusion: str
    pooling: Mapping[str, str]
    task: str
    task_version: str
    protocol: str
    params: Mapping[str, Any]
    seed: int
    metric: str
    score: float
    round_scores: Sequence[float]
    n_train: int
    n_valid: int
    n_test: int
    skipped: Sequence[Mapping[str, str]]
    seconds: float
    versions: Mapping[str, str]
    created: str
    schema: int = SCHEMA
    id: str = ""
    rounds: Sequence[Mapping[str, Any]] = ()
    interval: Sequence[float] | None = None
    interval_method: str = ""
    n_classes: int | None = None
    chance: float | None = None
    depth: float | None = None
    layer_index: int | None = None
    n_layers: int | None = None
    default: bool = False
    width: int | None = None
    limit: int | None = None
    sample_rate: int | None = None
    encoder_options: Mapping[str, Any] = field(default_factory=dict)
    extraction: Mapping[str, Any] = field(default_factory=dict)
    index_sha256: str = ""
    trained_on: str = ""
    protocol_description: str = ""
    flags: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, float] = field(default_factory=dict)
    extra_intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = plain(getattr(self, entry.name), entry.name)
            check_kind(entry.name, value, str(entry.type))
            # The object is frozen for everybody else; here it is still being made.
            object.__setattr__(self, entry.name, tuple(value) if isinstance(value, list) else value)
        _check_together(self)
        if not self.id:
            object.__setattr__(self, "id", run_id({key: getattr(self, key) for key in IDENTITY_KEYS}))
        check_id(self.id)

    @property
    def is_random(self) -> bool:
        """Is this the score of an untrained network?"""
        return self.weights == "random" or "random weights" in self.flags

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the JSON file; without intervals of other metrics where there are none."""
        data = to_plain(self)
        return {key: value for key, value in data.items() if key != "extra_intervals" or value}

    @classmethod
    def from_dict(cls, data: Any) -> Result:
        """Check plain data and make the row.

        Raises:
            ValueError: if a key is unknown (the nearest legal one is named) or missing, or a value is not legal.
        """
        return from_plain(cls, data, "a result", SCHEMA)


def utc_now() -> str:
    """Return the time in UTC, in the form of `Result.created`."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


#: keys of a round that tables read -> kind of their values
_ROUND_KEYS = {
    "name": "str",
    **dict.fromkeys(("n_train", "n_valid", "n_test"), "int"),
    **dict.fromkeys(("score", "valid_score", "valid_log_loss"), "float | None"),
}
#: longest name: a path to a file of one's own may be part of it
_LONGEST_NAME = 2000


def _check_together(row: Result) -> None:
    """Check the promises of a value that its type does not express."""
    _check_names(row)
    _check_layers(row)
    _check_scores(row)
    _check_rounds(row)
    for entry in row.skipped:
        if set(entry) != {"clip", "split", "reason", "counted"} or entry["counted"] not in ("wrong", "left_out"):
            raise ValueError(
                "skipped must hold clip, split, reason and counted ('wrong' or 'left_out') of each clip, "
                f"got {show(dict(entry))}"
            )
    check_time("created", row.created, utc_now())


def _check_names(row: Result) -> None:
    for name in ("encoder", "task", "protocol", "metric"):
        if not getattr(row, name):
            raise ValueError(f"{name} must not be empty")
    for name in (row.encoder, row.task, row.protocol, row.metric, *row.layers):
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"names must have at most {_LONGEST_NAME} characters, got {show(name)}")


def _check_layers(row: Result) -> None:
    """Check the layers, how they are fused and pooled, and the weights that a fusion learned."""
    if not row.layers or len(set(row.layers)) != len(row.layers):
        raise ValueError(f"layers must name at least one layer, and each once, got {show(list(row.layers))}")
    if row.fusion not in FUSIONS:
        raise ValueError(f"no fusion {row.fusion!r}; {near_miss(row.fusion, FUSIONS)}")
    if row.fusion != "attention" and (row.fusion == "none") != (len(row.layers) == 1):
        raise ValueError(
            f"fusion must be 'none' for one layer and another for several, got {row.fusion!r} for {len(row.layers)}"
        )
    if set(row.pooling) != set(row.layers):
        raise ValueError(f"pooling must name the layers {sorted(row.layers)}, got {show(sorted(row.pooling))}")
    if row.layer_index is not None and row.n_layers is not None and row.layer_index >= row.n_layers:
        raise ValueError(f"layer_index must be below n_layers, {row.n_layers}, got {row.layer_index}")
    weights = row.params.get("layer_weights")
    if weights is not None:
        check_kind("params.layer_weights", weights, "Sequence[Sequence[float | None]]")
        if any(len(one) != len(row.layers) or None in one for one in weights):
            raise ValueError(f"params.layer_weights must hold {len(row.layers)} numbers a round, got {show(weights)}")


def _check_scores(row: Result) -> None:
    """Check that scores are fractions and the mean of their rounds, and that the interval has two ends."""
    if not row.round_scores:
        raise ValueError("round_scores must hold at least one score, got none")
    for name in ("score", "chance", "depth", "round_scores", "interval"):
        value = getattr(row, name)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        least = LEAST_SCORES.get(row.metric, 0.0)
        if any(not least <= number <= 1.0 for number in values):
            raise ValueError(f"{name} must lie in {least:g}..1, got {show(value)}; is it in percent?")
    mean = math.fsum(row.round_scores) / len(row.round_scores)
    if abs(mean - row.score) > 1e-9:
        raise ValueError(f"score must be the mean of round_scores, {mean!r}, got {row.score!r}")
    if row.interval is not None and (len(row.interval) != 2 or row.interval[0] > row.interval[1]):
        raise ValueError(f"interval must be [low, high] with low <= high, got {show(list(row.interval))}")
    for name, ends in row.extra_intervals.items():
        if name not in row.extras or len(ends) != 2 or ends[0] > ends[1]:
            raise ValueError(
                f"extra_intervals must hold [low, high] of metrics in extras, got {name} {show(list(ends))}"
            )
    if row.seconds < 0:
        raise ValueError(f"seconds must be >= 0, got {row.seconds}")


def _check_rounds(row: Result) -> None:
    """Check that there is one round a score, and that rounds and totals agree."""
    if not row.rounds:
        return
    if len(row.rounds) != len(row.round_scores):
        raise ValueError(
            f"rounds must be one for each of {len(row.round_scores)} round_scores, got {len(row.rounds)} rounds"
        )
    for entry, score in zip(row.rounds, row.round_scores, strict=True):
        check_keys("rounds", entry, _ROUND_KEYS)
        if entry.get("score", score) != score:
            raise ValueError(
                f"round {entry.get('name')!r} must have its round_scores entry {score}, got {entry['score']}"
            )
    tested = [entry["n_test"] for entry in row.rounds if "n_test" in entry]
    if len(tested) == len(row.rounds) and sum(tested) != row.n_test:
        raise ValueError(f"n_test must be the total over rounds, {sum(tested)}, got {row.n_test}")
