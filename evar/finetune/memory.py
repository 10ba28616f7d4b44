"""The batch that fits into memory: half as many clips a step, twice as many steps for each change of the weights."""

from __future__ import annotations

import json
from pathlib import Path

from evar.finetune.protocol import TuningProtocol, change_protocol
from evar.storage.atomic import remove, write_atomic

_FILE = "batch.json"


def halve_batch(protocol: TuningProtocol) -> TuningProtocol:
    """Return the protocol with half the batch and twice the accumulation.

    Example:
        >>> from evar.finetune.protocol import load_tuning_protocol
        >>> half = halve_batch(load_tuning_protocol("finetune"))
        >>> half.batch_size, half.accumulate
        (16, 2)
    """
    half = {"batch_size": protocol.batch_size // 2, "accumulate": protocol.accumulate * 2}
    return change_protocol(protocol, half, protocol.name)


def save_batch(folder: Path, protocol: TuningProtocol | None) -> None:
    """Keep the batch of a protocol beside the checkpoint, so that the next run begins with it; None forgets it."""
    path = folder / _FILE
    if protocol is None:
        remove(path)
    else:
        text = json.dumps({"batch_size": protocol.batch_size, "accumulate": protocol.accumulate})
        write_atomic(path, text.encode())


def load_batch(folder: Path, protocol: TuningProtocol) -> TuningProtocol:
    """Return the protocol with the batch that an earlier run was left with; unchanged if there is none."""
    try:
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        batch = {name: int(found[name]) for name in ("batch_size", "accumulate")}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return protocol
    whole = protocol.batch_size * protocol.accumulate
    if not 0 < batch["batch_size"] < protocol.batch_size or batch["batch_size"] * batch["accumulate"] > whole:
        return protocol  # of another protocol
    return change_protocol(protocol, batch, protocol.name)
