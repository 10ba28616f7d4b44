"""Times of encoding: `cost.jsonl` beside the vectors of a key, one line for each pass. It changes no key and no vector."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evar.storage.atomic import write_atomic

NAME = "cost.jsonl"


@dataclass(frozen=True)
class EncodingCost:
    """One pass over clips.

    Attributes:
        seconds: that the encoder and the pooling took; decoding is not counted.
        audio_seconds: of the clips, with what they were padded by.
        n_clips: encoded.
        device: where the encoder ran, such as "cpu (x86_64)" or "cuda (NVIDIA A100)".
        threads: of the processor that it might use.
    """

    seconds: float
    audio_seconds: float
    n_clips: int
    device: str
    threads: int


def append_cost(key_folder: Path, cost: EncodingCost) -> None:
    """Add one pass to the costs of a key; call it while the key's lock is held.

    Args:
        key_folder: of the store.
        cost: of the pass.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     append_cost(Path(folder), EncodingCost(0.5, 10.0, 2, "cpu", 1))
        ...     append_cost(Path(folder), EncodingCost(0.7, 10.0, 2, "cpu", 1))
        ...     [one.seconds for one in load_costs(Path(folder))]
        [0.5, 0.7]
    """
    path = key_folder / NAME
    before = path.read_bytes() if path.is_file() else b""
    write_atomic(path, before + (json.dumps(asdict(cost), sort_keys=True) + "\n").encode("utf-8"))


def load_costs(key_folder: Path) -> list[EncodingCost]:
    """Return all measured passes of a key, the oldest first. Damaged lines are left out."""
    try:
        lines = (key_folder / NAME).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    return [cost for line in lines if (cost := _parse_line(line)) is not None]


def _parse_line(line: str) -> EncodingCost | None:
    try:
        found: Any = json.loads(line)
        cost = EncodingCost(**found)
        values = (float(cost.seconds), float(cost.audio_seconds), float(cost.n_clips), float(cost.threads))
    except (ValueError, TypeError):
        return None
    return cost if all(math.isfinite(value) and value >= 0 for value in values) and cost.audio_seconds > 0 else None
