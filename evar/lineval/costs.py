"""Recording the cost of an encoder in the results folder, beside its rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from evar.results.costs import CostRecord, save_cost
from evar.storage.costs import load_costs
from evar.storage.segments import make_safe_name

if TYPE_CHECKING:
    from evar.experiment.cell import Cell
    from evar.lineval.cell_features import Vectors

_BYTES_A_NUMBER = 4


def record_cost(cell: Cell, vectors: Vectors, out: Path) -> None:
    """Write the cost of a cell's encoder: its size, the size of its vectors, and the times that the store has recorded.

    The time is that of all passes under this clip policy on the device and number of threads of the newest; a store of an
    older version knows none.

    Args:
        cell: encoder and task.
        vectors: of its clips.
        out: local results folder.
    """
    encoder = cell.encoder
    keys = [extraction.key for extraction in vectors.extractions.values()]
    passes = [] if vectors.frames else [one for key in keys for one in load_costs(vectors.store.key_folder(key))]
    same = [one for one in passes if (one.device, one.threads) == (passes[-1].device, passes[-1].threads)]
    digest = hashlib.sha256(",".join(sorted(key.digest for key in keys)).encode()).hexdigest()[:12]
    record = CostRecord(
        id=f"{make_safe_name(encoder.name)}__cost__{digest}",
        encoder=encoder.name,
        weights_sha256=encoder.weights_sha256,
        encoder_options=dict(encoder.options),
        parameters=sum(one.numel() for one in encoder.parameters()),
        bytes_per_clip=_BYTES_A_NUMBER * sum(vectors.widths.values()),
        seconds=round(sum(one.seconds for one in same), 4) if same else None,
        audio_seconds=round(sum(one.audio_seconds for one in same), 3) if same else None,
        n_clips=sum(one.n_clips for one in same),
        device=same[-1].device if same else "",
        threads=same[-1].threads if same else 0,
    )
    save_cost(out, record)
