"""Label-free hints on disk: one JSON per encoder and task below `hints/`, written and read like a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evar.results.checks import check_kind, check_time, is_number, is_whole, show
from evar.results.identity import check_id, plain, run_id
from evar.results.records import from_plain, read_record, read_records, to_plain, write_json
from evar.results.row import Result, utc_now

HINTS_SCHEMA = 1
#: everything besides the draw's seed that can change a hint; the names are those of `Result`, so that rows can be matched
HINTS_IDENTITY_KEYS = (
    *("encoder", "weights_sha256", "encoder_options", "extraction", "pooling"),
    *("task", "task_version", "index_sha256", "limit"),
)
#: fields whose lists must have one entry a layer, which `_check_lists` says in its own words
_KINDS = {"widths": "Sequence[float]", "numbers": "Mapping[str, Any]", "cka": "Sequence[Sequence[float | None]]"}


@dataclass(frozen=True)
class HintsRecord:
    """Measures of `evar.metrics.label_free.measure` for every layer of one encoder on the clips of one task.

    Labels had no say in it, and the clips are those of all splits. Values are checked when the object is made.

    Attributes:
        encoder, weights, weights_sha256, encoder_options: as in `evar.results.Result`.
        extraction: likewise; what can change a vector, with "norm_stats" by name where it is by round.
        pooling: layer -> name of the pooling over time.
        task, task_version, index_sha256, limit: likewise.
        layers: names, shallow to deep; all lists below are in this order.
        widths: features per clip of each layer.
        numbers: name of the hint -> one number per layer; None if the vectors give no answer.
        cka: one list per layer, linear CKA with each layer, 0..1; None beside a constant layer.
        n_clips, n_usable: clips looked at, and clips that could have been.
        seed: of the draw of these clips where there were more.
        norm_stats: (mean, std) of the input normalisation of these vectors, None if the encoder has none.
        created: ISO 8601 time in UTC; the time of making where empty.
        schema: version of this list of keys.
        id: file stem; made from the other values where empty.

    Raises:
        ValueError: if a value has the wrong type or range, or two values contradict each other.

    Example:
        >>> record = HintsRecord(
        ...     encoder="crepe.tiny", weights="tiny.pth", weights_sha256="ab" * 32, pooling={"a": "mean", "b": "mean"},
        ...     task="gm_pitch", task_version="1", layers=["a", "b"], widths=[8, 4], n_clips=50, n_usable=50, seed=0,
        ...     numbers={"effective_rank": [3.5, None]}, cka=[[1.0, None], [None, None]])
        >>> HintsRecord.from_dict(record.to_dict()) == record
        True
    """

    encoder: str
    weights: str
    weights_sha256: str
    pooling: Mapping[str, str]
    task: str
    task_version: str
    layers: Sequence[str]
    widths: Sequence[int]
    numbers: Mapping[str, Sequence[float | None]]
    cka: Sequence[Sequence[float | None]]
    n_clips: int
    n_usable: int
    seed: int
    encoder_options: Mapping[str, Any] = field(default_factory=dict)
    extraction: Mapping[str, Any] = field(default_factory=dict)
    index_sha256: str = ""
    limit: int | None = None
    norm_stats: Sequence[float] | None = None
    created: str = ""
    schema: int = HINTS_SCHEMA
    id: str = ""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = plain(getattr(self, entry.name), entry.name)
            check_kind(entry.name, value, _KINDS.get(entry.name, str(entry.type)))
            # The object is frozen for everybody else; here it is still being made.
            object.__setattr__(self, entry.name, tuple(value) if isinstance(value, list) else value)
        if self.created == "":
            object.__setattr__(self, "created", utc_now())
        _check_together(self)
        if not self.id:
            object.__setattr__(self, "id", hints_id(self.to_dict(), self.seed))
        check_id(self.id)

    def matches(self, result: Result) -> bool:
        """Is that row a probe of one of these layers, on the same vectors and clips?"""
        return (
            len(result.layers) == 1
            and result.layers[0] in self.layers
            and result.pooling[result.layers[0]] == self.pooling[result.layers[0]]
            and all(
                plain(getattr(result, key), key) == plain(getattr(self, key), key)
                for key in HINTS_IDENTITY_KEYS
                if key != "pooling"
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the JSON file."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Any) -> HintsRecord:
        """Check plain data and make the record.

        Raises:
            ValueError: if a key is unknown (the nearest legal one is named) or missing, or a value is not legal.
        """
        return from_plain(cls, data, "a record of hints", HINTS_SCHEMA, every_key=True)


def hints_id(identity: Mapping[str, Any], seed: int = 0) -> str:
    """Return a file stem for the hints of these settings, ENCODER__all__TASK__hints__sSEED__HASH.

    Args:
        identity: at least `HINTS_IDENTITY_KEYS`; other keys are ignored.
        seed: of the draw of clips.

    Raises:
        ValueError: if one of the keys is missing, or a value is not plain data.

    Example:
        >>> keys = {"encoder": "ge2e", "weights_sha256": "ab", "encoder_options": {}, "extraction": {}, "pooling": {}}
        >>> hints_id({**keys, "task": "esc10", "task_version": "1", "index_sha256": "cd", "limit": None})
        'ge2e__all__esc10__hints__s0__cd2920420c'
    """
    missing = [key for key in HINTS_IDENTITY_KEYS if key not in identity]
    if missing:
        raise ValueError(f"the id of hints needs {', '.join(HINTS_IDENTITY_KEYS)}, but lacks {', '.join(missing)}")
    chosen = {key: identity[key] for key in HINTS_IDENTITY_KEYS}
    return run_id({**chosen, "layers": "all", "protocol": "hints", "seed": seed})


def hints_path(out: Path | str, id: str) -> Path:
    """Return the path of the hints; raises ValueError if the id is no plain file stem.

    Example:
        >>> hints_path(Path("results"), "toy").as_posix()
        'results/hints/toy.json'
    """
    return Path(out) / "hints" / f"{check_id(id)}.json"


def save_hints(out: Path | str, record: HintsRecord) -> Path:
    """Write `out/hints/ID.json`, replacing earlier hints of that id.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     load_hints(out)
        []
    """
    path = hints_path(out, record.id)
    write_json(path, record.to_dict())
    return path


def read_hints(path: Path) -> HintsRecord:
    """Read one record.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is torn or holds something else; the file and the key are named.
    """
    return read_record(path, HintsRecord.from_dict)


def load_hints(out: Path | str) -> list[HintsRecord]:
    """Load every record below `out/hints`, by file name; a warning names a file that cannot be read."""
    return read_records(Path(out) / "hints", HintsRecord.from_dict, "hints")


def _check_together(record: HintsRecord) -> None:
    """Check that the values fit together; types were checked before."""
    for name in ("encoder", "weights", "weights_sha256", "task", "task_version", "created"):
        if not getattr(record, name):
            raise ValueError(f"{name} must be text, got ''")
    if not record.layers or len(set(record.layers)) != len(record.layers):
        raise ValueError(f"layers must name at least one layer, and each once, got {show(list(record.layers))}")
    if set(record.pooling) != set(record.layers):
        raise ValueError(f"pooling must name one for each of the layers, got {show(dict(record.pooling))}")
    if record.n_clips > record.n_usable:
        raise ValueError(f"n_clips must be at most n_usable, {record.n_usable}, got {record.n_clips}")
    _check_lists(record)
    check_time("created", record.created, utc_now())


def _check_lists(record: HintsRecord) -> None:
    """Check that every list has one entry a layer, and that similarities are fractions."""
    n = len(record.layers)
    if len(record.widths) != n or not all(map(is_whole, record.widths)):
        raise ValueError(f"widths must be {n} whole numbers, one per layer, got {show(record.widths)}")
    for name, values in record.numbers.items():
        if not _is_list_of_numbers(values, n):
            raise ValueError(f"numbers.{name} must be {n} finite numbers or nulls, one per layer, got {show(values)}")
    if len(record.cka) != n or not all(_is_list_of_numbers(row, n) for row in record.cka):
        raise ValueError(f"cka must be {n} lists of {n} finite numbers or nulls, got {show(record.cka)}")
    if any(value is not None and not 0.0 <= value <= 1.0 for row in record.cka for value in row):
        raise ValueError(f"cka must lie in 0..1, got {show(record.cka)}; is it in percent?")
    if record.norm_stats is not None and len(record.norm_stats) != 2:
        raise ValueError(f"norm_stats must be a mean and a standard deviation or null, got {show(record.norm_stats)}")


def _is_list_of_numbers(values: Any, n: int) -> bool:
    """Tell whether these are n finite numbers or nulls."""
    return isinstance(values, list | tuple) and len(values) == n and all(v is None or is_number(v) for v in values)
