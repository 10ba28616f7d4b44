"""What alterations of the test clips cost, on disk: one JSON for each row and condition below `robustness/`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evar.results.checks import check_kind, check_time, show
from evar.results.identity import check_id, plain, run_id
from evar.results.predictions import load_predictions
from evar.results.records import from_plain, read_records, to_plain, write_json
from evar.results.row import utc_now

ROBUSTNESS_SCHEMA = 1
#: below a results folder
FOLDER = "robustness"


@dataclass(frozen=True)
class RobustnessRecord:
    """A probe that was fitted on clean clips, tested on altered ones: at one severity, or the mean over several.

    Fractions lie in 0..1 (scores of correlations in -1..1). The loss is the clean score minus the altered one, and of
    errors, where lower is better, the altered score minus the clean one: above 0 the alteration did harm.

    Attributes:
        id: file stem; made from everything that can change a number.
        encoder, weights, weights_sha256, encoder_options, layers, fusion, depth, default: as in `evar.results.Result`.
        task, task_version, index_sha256, limit, metric, chance: likewise.
        protocol: name of the protocol.
        seeds: of the runs that scores are means of.
        runs: ids of the clean rows, one for each seed; their settings say how they were made.
        alteration: name; title, parameter and unit are those of its YAML.
        severities: values of the parameter; several where the record is their mean.
        condition: everything that can change the altered sound, one for each severity, as in the keys of the store.
        n_test: clips tested, total over rounds, of one run.
        n_failed: clips that could not be altered or encoded, and count as wrong; of several severities the largest number.
        failed: the first of them, with reasons.
        clean_score, clean_interval: of the unaltered clips, mean over runs; the interval is the first run's.
        score, interval: of the altered clips, mean over runs (and severities).
        loss, loss_interval: with its 95 % interval by paired bootstrap over groups of clips.
        p, test: two-sided, for no loss; not corrected for other tests.
        valid_score: of the clean validation clips, mean over rounds and runs; None where there are none.
        predictions: ids of the predictions for altered clips below `robustness/predictions`, run by run for each severity.
        seconds: wall time of predicting and scoring.
        versions, created, schema: as in `evar.results.Result`.

    Raises:
        ValueError: if a value has the wrong type or range.
    """

    id: str
    encoder: str
    weights: str
    weights_sha256: str
    layers: Sequence[str]
    fusion: str
    task: str
    task_version: str
    metric: str
    protocol: str
    seeds: Sequence[int]
    runs: Sequence[str]
    alteration: str
    title: str
    parameter: str
    unit: str
    severities: Sequence[float]
    condition: Sequence[Mapping[str, Any]]
    n_test: int
    clean_score: float
    score: float
    interval: Sequence[float]
    loss: float
    loss_interval: Sequence[float]
    p: float
    test: str
    predictions: Sequence[str]
    created: str
    clean_interval: Sequence[float] | None = None
    encoder_options: Mapping[str, Any] = field(default_factory=dict)
    index_sha256: str = ""
    limit: int | None = None
    chance: float | None = None
    depth: float | None = None
    default: bool = False
    n_failed: int = 0
    failed: Sequence[Mapping[str, str]] = ()
    valid_score: float | None = None
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: int = ROBUSTNESS_SCHEMA

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = plain(getattr(self, entry.name), entry.name)
            check_kind(entry.name, value, str(entry.type))
            # The object is frozen for everybody else; here it is still being made.
            object.__setattr__(self, entry.name, tuple(value) if isinstance(value, list) else value)
        check_id(self.id)
        check_time("created", self.created, utc_now())
        for name in ("layers", "seeds", "runs", "severities"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one value, got none")
        if len(self.condition) != len(self.severities) or len(self.runs) != len(self.seeds):
            raise ValueError("condition must have one entry for each severity, and runs one for each seed")
        for name in ("interval", "loss_interval", "clean_interval"):
            found = getattr(self, name)
            if found is not None and (len(found) != 2 or not found[0] <= found[1]):
                raise ValueError(f"{name} must be [low, high] with low <= high, got {show(found)}")
        for name in ("score", "clean_score", "p"):
            if not -1.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be a fraction, got {getattr(self, name)}; is it in percent?")

    @property
    def severity(self) -> float | None:
        """The severity; None for a mean over several."""
        return self.severities[0] if len(self.severities) == 1 else None


def name_robustness(
    specs: Sequence[Mapping[str, Any]],
    alteration: str,
    severities: Sequence[float],
    condition: Sequence[Mapping[str, Any]],
) -> str:
    """Make the id of a record: a file stem that is made from everything that can change a number.

    Args:
        specs: specifications of the clean rows, one for each seed.
        alteration, severities, condition: as in `RobustnessRecord`.

    Raises:
        ValueError: if a value is no plain data.
    """
    first, severity = specs[0], f"{severities[0]:g}" if len(severities) == 1 else "mean"
    return run_id(
        {
            **{key: first[key] for key in ("encoder", "layers", "task", "seed")},
            "protocol": f"{alteration}_{severity}",
            "rows": [dict(spec) for spec in specs],
            "conditions": [dict(one) for one in condition],
        }
    )


def robustness_path(out: Path | str, id: str) -> Path:
    """Return the path of a record.

    Args:
        out: results folder.
        id: of the record.

    Raises:
        ValueError: if the id is no plain file stem, so that the path could lead out of the folder.
    """
    return Path(out) / FOLDER / f"{check_id(id)}.json"


def save_robustness(out: Path | str, record: RobustnessRecord) -> Path:
    """Write `out/robustness/ID.json`, replacing an earlier record of that id; save its predictions first.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     load_robustness(out)
        []
    """
    path = robustness_path(out, record.id)
    write_json(path, to_plain(record))
    return path


def load_robustness(out: Path | str) -> list[RobustnessRecord]:
    """Load every record below `out/robustness`, by file name; a warning names a file that cannot be read."""
    return read_records(Path(out) / FOLDER, make_robustness_record, "record of robustness")


def make_robustness_record(data: Any) -> RobustnessRecord:
    """Check plain data and make the record.

    Raises:
        ValueError: if a key is unknown (the nearest legal one is named) or missing, or a value is not legal.
    """
    return from_plain(RobustnessRecord, data, "a record of robustness", ROBUSTNESS_SCHEMA)


def load_altered_predictions(out: Path | str, record: RobustnessRecord) -> list[dict[str, Any]]:
    """Read the predictions for altered clips, run by run for each severity, as `evar.results.load_predictions` gives them.

    Raises:
        FileNotFoundError: if they are not there.
        ValueError: if a file is torn.
    """
    return [load_predictions(Path(out) / FOLDER, id) for id in record.predictions]
