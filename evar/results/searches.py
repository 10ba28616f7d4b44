"""Records of fusion searches, their candidates and their choice: `searches/ID.json` below a results folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evar.results.checks import check_keys, check_kind, check_time, show
from evar.results.identity import check_id, plain
from evar.results.records import from_plain, read_record, read_records, to_plain, write_json
from evar.results.row import utc_now

SEARCH_SCHEMA = 1
#: keys of each task of a search -> kind of their values
_TASK_KEYS = {"name": "str", "version": "str", "metric": "str", "is_fold": "bool", "rounds": "Sequence[str]"}


@dataclass(frozen=True)
class SearchRecord:
    """One search: an encoder's layers, over some tasks, judged on validation clips alone.

    Attributes:
        id: file stem; made from everything that can change the choice.
        encoder, weights, weights_sha256: as in `Result`.
        layers: names of the layers that were to choose from, shallow to deep.
        default_layers: of the encoder.
        tasks: one dict per task: name, version, metric, is_fold, rounds (their names).
        protocol, protocol_version, seed, limit: as in `Result`.
        objective: "mean_score" or "mean_rank" over the tasks.
        method: settings of the ranker and of the search.
        n_ranked: combinations that the ranker scored.
        n_probed: of them, those that the protocol's probe scored too.
        ranked: one dict per combination: layers, and scores (task -> validation score of each round).
        probed: one dict per finalist: layers, scores and log_losses, likewise.
        choice: the layers that are best over all tasks.
        choices: task -> for each round, the layers chosen without its test clips.
        fusions: names of other fusions of all layers that were run for comparison, such as "weighted".
        row_settings: what tells this search's rows from others of the encoder: encoder_options and norm_stats.
        seconds: wall time of the search.
        created: ISO 8601 time in UTC.
        versions: package -> version.
        schema: version of this list of keys.
    """

    id: str
    encoder: str
    weights: str
    weights_sha256: str
    layers: Sequence[str]
    default_layers: Sequence[str]
    tasks: Sequence[Mapping[str, Any]]
    protocol: str
    protocol_version: str
    seed: int
    limit: int | None
    objective: str
    method: Mapping[str, Any]
    n_ranked: int
    n_probed: int
    ranked: Sequence[Mapping[str, Any]]
    probed: Sequence[Mapping[str, Any]]
    choice: Sequence[str]
    choices: Mapping[str, Sequence[Sequence[str]]]
    seconds: float
    created: str
    fusions: Sequence[str] = ()
    row_settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: int = SEARCH_SCHEMA

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = plain(getattr(self, entry.name), entry.name)
            check_kind(entry.name, value, str(entry.type))
        check_id(self.id)
        check_time("created", self.created, utc_now())
        for task in self.tasks:
            check_keys("tasks", task, _TASK_KEYS, required=True)
            if len(self.choices.get(task["name"], ())) != len(task["rounds"]):
                raise ValueError(f"choices must hold one choice for each round of {task['name']}")
        self._check_layers()
        settings = self.row_settings
        check_keys("row_settings", settings, {"encoder_options": "Mapping[str, Any]"})

    def _check_layers(self) -> None:
        """Check that choices and combinations name layers of the encoder, and that combinations have scores."""
        known = set(self.layers)
        for chosen in (self.choice, *(one for rounds in self.choices.values() for one in rounds)):
            if not chosen or not set(chosen) <= known:
                raise ValueError(
                    f"a choice must name some of the layers {show(sorted(known))}, got {show(list(chosen))}"
                )
        for name in ("ranked", "probed"):
            for entry in getattr(self, name):
                check_keys(name, entry, {"layers": "Sequence[str]", "scores": "Mapping[str, Any]"}, required=True)
                if not entry["layers"] or not set(entry["layers"]) <= known or not entry["scores"]:
                    raise ValueError(f"{name} must hold layers of the encoder and their scores, got {show(entry)}")
                for task, scores in entry["scores"].items():
                    check_kind(f"{name}.scores.{task}", scores, "Sequence[float]")
                    if not scores:
                        raise ValueError(f"{name}.scores.{task} must hold at least one score, got none")


def search_path(out: Path, id: str) -> Path:
    """Return the path of a record.

    Example:
        >>> search_path(Path("results"), "toy").as_posix()
        'results/searches/toy.json'
    """
    return Path(out) / "searches" / f"{check_id(id)}.json"


def save_search(record: SearchRecord, out: Path) -> Path:
    """Write `out/searches/ID.json`, replacing an earlier one."""
    path = search_path(out, record.id)
    write_json(path, to_plain(record))
    return path


def load_search(path: Path) -> SearchRecord:
    """Read one record.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is torn or no record; file and key are named.
    """
    return read_record(path, _make_record)


def load_searches(out: Path) -> list[SearchRecord]:
    """Load every record below `out/searches`, by file name; a warning names a file that cannot be read."""
    return read_records(Path(out) / "searches", _make_record, "search")


def _make_record(data: Any) -> SearchRecord:
    return from_plain(SearchRecord, data, "a record of a search", SEARCH_SCHEMA)
