"""Records of the cost of encoders: one JSON for each encoder and clip policy below `costs/`, stored like a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evar.results.checks import check_kind, check_time
from evar.results.identity import check_id, plain
from evar.results.records import from_plain, read_records, to_plain, write_json
from evar.results.row import Result, utc_now

COSTS_SCHEMA = 1


@dataclass(frozen=True)
class CostRecord:
    """Memory, time and disk space that an encoder and its vectors take.

    Attributes:
        id: file stem.
        encoder, weights_sha256, encoder_options: as in `evar.results.Result`.
        parameters: numbers that the network holds.
        bytes_per_clip: of the vectors of all layers, as the store keeps them.
        seconds, audio_seconds, n_clips: time of encoding and pooling on this machine, audio encoded in it, and clips;
            None if a store of an older version was used, which measured nothing.
        device, threads: where it ran.
        created: ISO 8601 time in UTC.
        schema: version of this list of keys.

    Example:
        >>> record = CostRecord("a__cost__1", "a", "ab", {}, 1000, 512, 2.0, 100.0, 20, "cpu", 1)
        >>> record.seconds_per_second
        0.02
    """

    id: str
    encoder: str
    weights_sha256: str
    encoder_options: Mapping[str, Any]
    parameters: int
    bytes_per_clip: int
    seconds: float | None = None
    audio_seconds: float | None = None
    n_clips: int = 0
    device: str = ""
    threads: int = 0
    created: str = field(default_factory=utc_now)
    schema: int = COSTS_SCHEMA

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            check_kind(entry.name, plain(getattr(self, entry.name), entry.name), str(entry.type))
        check_id(self.id)
        check_time("created", self.created, utc_now())

    @property
    def seconds_per_second(self) -> float | None:
        """Seconds of encoding for a second of audio; None if it was not measured."""
        return self.seconds / self.audio_seconds if self.seconds is not None and self.audio_seconds else None

    def matches(self, result: Result) -> bool:
        """Tell whether a row read vectors of this encoder, on any clips."""
        own = self.encoder, self.weights_sha256, plain(self.encoder_options, "encoder_options")
        return own == (result.encoder, result.weights_sha256, plain(result.encoder_options, "encoder_options"))


def save_cost(out: Path | str, record: CostRecord) -> Path:
    """Write `out/costs/ID.json`, replacing an earlier one of that id.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     _ = save_cost(out, CostRecord("a__cost__1", "a", "ab", {}, 1000, 512))
        ...     [one.parameters for one in load_costs(out)]
        [1000]
    """
    path = Path(out) / "costs" / f"{check_id(record.id)}.json"
    write_json(path, to_plain(record))
    return path


def load_costs(out: Path | str) -> list[CostRecord]:
    """Load every record below `out/costs`, by file name; a warning names a file that cannot be read."""
    return read_records(Path(out) / "costs", _make_record, "cost")


def _make_record(data: Any) -> CostRecord:
    return from_plain(CostRecord, data, "a record of costs", COSTS_SCHEMA)
