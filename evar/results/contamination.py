"""Which clips of a task also occur in a training corpus: one JSON file for each task and corpus of a results folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.results.checks import check_kind, check_time, show
from evar.results.identity import check_id, plain
from evar.results.records import from_plain, read_records, to_plain, write_json
from evar.results.row import Result, utc_now

SCHEMA = 1
_KINDS = {"clips": "Mapping[str, Any]"}


@dataclass(frozen=True)
class Contamination:
    """Result of `evar verify TASK --against=corpus.fp`.

    Attributes:
        id: file stem, task and corpus.
        task, task_version, index_sha256: whose clips were looked for.
        corpus: name of the fingerprint file.
        corpus_sha256: hash of that file.
        n_sounds: in the corpus.
        n_clips: of the task that could be looked for.
        clips: path in the index -> {"identical": bool, "bit_errors": 0..1, "offset_seconds": number}.
        created: ISO 8601 time in UTC.
        schema: version of this list of keys.

    Raises:
        ValueError: if a value has the wrong type or range.
    """

    id: str
    task: str
    task_version: str
    index_sha256: str
    corpus: str
    corpus_sha256: str
    n_sounds: int
    n_clips: int
    clips: Mapping[str, Any]
    created: str
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = plain(getattr(self, entry.name), entry.name)
            check_kind(entry.name, value, _KINDS.get(entry.name, str(entry.type)))
            object.__setattr__(self, entry.name, value)  # frozen for everybody else; here it is still being made
        for path, found in self.clips.items():
            if not isinstance(found, Mapping) or set(found) != {"identical", "bit_errors", "offset_seconds"}:
                raise ValueError(
                    "clips must hold identical, bit_errors and offset_seconds of each clip, "
                    f"got {show(found)} for {show(path)}"
                )
        check_time("created", self.created, utc_now())
        check_id(self.id)

    def concerns(self, result: Result) -> bool:
        """Tell whether a row was tested on the clips that were looked for."""
        return (self.task, self.task_version, self.index_sha256) == (
            result.task,
            result.task_version,
            result.index_sha256,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the JSON file."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Any) -> Contamination:
        """Check plain data and make the record.

        Raises:
            ValueError: if a key is unknown (the nearest legal one is named) or missing, or a value is not legal.
        """
        return from_plain(cls, data, "a record of contamination", SCHEMA)


def save_contamination(out: Path | str, record: Contamination) -> Path:
    """Write `OUT/contamination/ID.json`, and replace an earlier file of that id.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     load_contaminations(out)
        []
    """
    path = Path(out) / "contamination" / f"{record.id}.json"
    write_json(path, record.to_dict())
    return path


def load_contaminations(out: Path | str) -> list[Contamination]:
    """Read every record below `OUT/contamination`; a file that cannot be read is named in a warning and left out."""
    return read_records(Path(out) / "contamination", Contamination.from_dict, "contamination")


def find_contaminated_clips(records: Sequence[Contamination], result: Result) -> frozenset[str] | None:
    """Paths of the row's clips that occur in any of the corpora; None if no record concerns the row."""
    known = [one for one in records if one.concerns(result)]
    return frozenset(path for one in known for path in one.clips) if known else None
