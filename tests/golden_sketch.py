"""Sketches of the golden arrays: random projections small enough to keep, that show an error as large as it is.

For y of n numbers and a fixed matrix R (n, 32) of standard normal numbers, |R'(x - y)| / |R'y| estimates |x - y| / |y|
(Johnson and Lindenstrauss, 1984): with 32 projections within a factor of 1.5 nearly always.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

N_PROJECTIONS = 32
#: arrays of up to so many numbers are kept whole
WHOLE = 64


def sketch(name: str, array: NDArray[np.floating]) -> NDArray[np.float64]:
    """32 projections of an array (any shape), by directions that depend on its name and size only."""
    flat = np.asarray(array, np.float64).ravel()
    if flat.size <= WHOLE:
        return flat
    seed = np.frombuffer(hashlib.sha256(f"{name} {flat.size}".encode()).digest(), "<u4")
    directions = np.random.RandomState(seed).standard_normal((N_PROJECTIONS, flat.size))  # a frozen stream
    return directions @ flat


def write_sketches(source: Path, target: Path) -> int:
    """Sketch every array of an npz file; returns how many."""
    with np.load(source) as full:
        np.savez_compressed(target, **{name: sketch(name, full[name]) for name in full.files})
        return len(full.files)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    written = Path(__file__).parent / "golden" / "sketches.npz"
    print(f"{write_sketches(folder / 'public.npz', written)} arrays sketched into {written}")
