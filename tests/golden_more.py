"""Every array of the newer golden sets (tests/golden/README.md), computed by our encoders; reads no golden array.

`compute` takes a golden model's name, one waveform at every rate that is stored, and a function that writes the fake
checkpoint of a layout. Each set has its own module.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden_more_g1
import golden_more_g2
import golden_more_g3
import golden_more_g4
import golden_more_g4_clap
import numpy as np
from numpy.typing import NDArray

GROUPS = (golden_more_g1, golden_more_g2, golden_more_g3, golden_more_g4, golden_more_g4_clap)

#: "model/array" or "model/*" -> why ours has no such array
UNMAPPED: dict[str, str] = {name: why for group in GROUPS for name, why in group.UNMAPPED.items()}


def compute(
    model: str, wave: dict[int, NDArray[np.float32]], checkpoint: Callable[[str], Path]
) -> dict[str, NDArray[Any]]:
    """All arrays of one golden model for one waveform, by their golden names.

    Args:
        model: name in the golden set ("audiomae", "m2d_enconly").
        wave: sample rate in Hz -> (samples,) float32, the same signal at every rate that is stored.
        checkpoint: layout -> path of its fake checkpoint, which it writes.

    Raises:
        ValueError: if no set has a model of that name.
    """
    for group in GROUPS:
        if model in group.MODELS:
            return group.compute(model, wave, checkpoint)
    known = sorted(name for group in GROUPS for name in group.MODELS)
    raise ValueError(f"no golden model {model!r}; known are {', '.join(known)}")
