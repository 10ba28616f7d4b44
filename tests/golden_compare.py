"""Compare our arrays with a golden set: with the full arrays where they are at hand, and always with their sketches.

python tests/golden_compare.py g1    # write tests/golden/more/g1/sketches.npz from the full set
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
from golden_sketch import WHOLE, sketch, write_sketches
from numpy.typing import NDArray

HERE = Path(__file__).parent / "golden"
WAVES = ("A", "B", "D")
FRONT_SKETCH = 1e-4  # relative L2 of the projections of a front-end whose largest difference is limited

Arrays = dict[str, NDArray[Any]]
#: model, array -> "relative" (L2) or "largest" (absolute difference), and its limit
Limit = Callable[[str, str], tuple[str, float]]


def load_file(path: Path) -> ModuleType:
    """A file of a golden set, which is kept as it came and is no package."""
    spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relative(value: Any, reference: Any) -> float:
    """L2 of the difference over L2 of the reference; inf for other shapes and for what is not finite."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    if value.shape != reference.shape or not np.isfinite(value).all():
        return float("inf")
    size = float(np.linalg.norm(reference))
    return float(np.linalg.norm(value - reference)) / (size or 1.0)


class GoldenSet:
    """One folder of golden arrays, such as "g1".

    Attributes:
        kept: folder in this repository: sketches, manifests, the maker of fake checkpoints.
        full: file of all arrays, which need not be there.
    """

    def __init__(self, name: str) -> None:
        self.name, self.kept = name, HERE / "more" / name
        root = Path(os.environ.get("EVAR_GOLDEN") or Path(__file__).parents[2] / "shared" / "golden")
        self.full = root / "more" / name / f"public_{name}.npz"

    @cached_property
    def sketches(self) -> Arrays:
        """ "model/wave/array" -> its projections, or the array itself where it is small."""
        with np.load(self.kept / "sketches.npz") as file:
            return dict(file)

    @cached_property
    def fake_weights(self) -> ModuleType:
        """The maker of fake checkpoints."""
        return load_file(self.kept / f"fake_weights_{self.name}.py")

    def names(self, model: str, wave: str) -> set[str]:
        """The arrays of one model and wave."""
        prefix = f"{model}/{wave}/"
        return {key.removeprefix(prefix) for key in self.sketches if key.startswith(prefix)}

    def differences(self, model: str, wave: str, ours: Arrays, limit: Limit) -> list[str]:
        """What is beyond its limit, one line an array; arrays that we lack are missing from `ours`."""
        full: Arrays = {}
        if self.full.is_file():
            with np.load(self.full) as file:
                full = {key: file[f"{model}/{wave}/{key}"] for key in self.names(model, wave)}
        problems = []
        for key in sorted(self.names(model, wave) & set(ours)):
            kind, most = limit(model, key)
            name = f"{model}/{wave}/{key}"
            mine = np.asarray(ours[key], np.float64)
            shown = relative(sketch(name, mine), self.sketches[name])
            error = shown / 2  # an error of the projections is that of the array within a factor of 2
            if key in full:
                error = relative(mine, full[key])
                if kind == "largest" and np.isfinite(error):
                    error = float(np.abs(mine - full[key]).max())
            elif kind == "largest":
                error = 0.0
            if not error <= most or not shown <= (FRONT_SKETCH if kind == "largest" else 2 * most):
                problems.append(f"{name}: {error:.1e}, sketch {shown:.1e}, limit {most:.0e}")
        return problems

    def check_kept_files(self) -> None:
        """The sketches are those of the full set, and the maker of checkpoints is the same file."""
        with np.load(self.full) as full:
            assert set(full.files) == set(self.sketches)
            for name in full.files[::5]:
                np.testing.assert_allclose(self.sketches[name], sketch(name, full[name]), rtol=1e-9)
        file = f"fake_weights_{self.name}.py"
        assert (self.kept / file).read_bytes() == (self.full.parent / file).read_bytes()


def make_waves(name: str, rates: Sequence[int] = (16000, 32000)) -> dict[int, NDArray[np.float32]]:
    """One test wave (samples,) at each of these rates: 16 and 32 kHz, or those that an encoder of the set needs."""
    maker = load_file(HERE / "make_waves.py")
    waves = {}
    for rate in rates:  # the maker counts samples for multiples of 16 kHz
        unit = rate / (rate // 16000)
        with patch.dict(maker.SAMPLES_16K, {key: round(n * unit / 16000) for key, n in maker.SAMPLES_16K.items()}):
            waves[rate] = maker.make(name, rate)
    return waves


if __name__ == "__main__":
    one = GoldenSet(sys.argv[1])
    print(f"{write_sketches(one.full, one.kept / 'sketches.npz')} arrays sketched; arrays of up to {WHOLE} kept whole")
