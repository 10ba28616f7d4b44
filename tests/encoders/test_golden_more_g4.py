"""OpenL3, Wav2CLIP, BYOL-S, COALA, COLA, DECAR and DeLoRes give what the official implementations give; mistakes do not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import golden_more
import golden_more_g2
import numpy as np
import pytest
import torch
from golden_compare import WAVES, GoldenSet, make_waves
from golden_more_g4 import MODELS

G4 = GoldenSet("g4")
CPU = torch.device("cpu")
#: the waves of the slower models; EVAR_GOLDEN_WAVES=all compares every wave (two minutes)
FEW_WAVES = {"openl3_mel128": "A", "openl3_mel256": "A", "byols_resnetish34": "A", "byols_cvt": "A", "decar": "AD"}
Checkpoint = Callable[[str], Path]


def limit(model: str, key: str) -> tuple[str, float]:
    """The tolerances that the set recommends (CPU, float32)."""
    if "front_" in key or key in ("norm_first8", "scaled_first8"):
        return "largest", 1e-2
    if key.startswith(("n_", "ex_count", "examples")):
        return "relative", 0.0
    single = "frames2" in key or key.endswith("max") or key == "timestamps2"
    if model.startswith("openl3"):
        return "relative", 1e-4 if single else 5e-5 if "emb" in key else 2e-5
    if model == "wav2clip":
        return "relative", 1e-4
    if model in ("byols_resnetish34", "byols_cvt"):
        return "relative", 5e-5 if single else 2e-5
    return "relative", 5e-5 if key.startswith("delores") else 2e-5


@pytest.fixture(scope="module")
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Checkpoint]]:
    """A golden model, and a function that writes fake checkpoints in official layouts, once each; deleted afterwards."""
    folder = tmp_path_factory.mktemp(request.param)
    written: dict[str, Path] = {}

    def write(layout: str) -> Path:
        if layout not in written:
            written[layout] = G4.fake_weights.write_checkpoint(layout, folder / f"{layout}.pt")
        return written[layout]

    yield request.param, write
    golden_more_g2._loaded.cache_clear()
    shutil.rmtree(folder)


@pytest.mark.parametrize("checkpoint", MODELS, indirect=True)
def test_every_array(checkpoint: tuple[str, Checkpoint]) -> None:
    model, write = checkpoint
    waves = WAVES if os.environ.get("EVAR_GOLDEN_WAVES") == "all" else FEW_WAVES.get(model, WAVES)
    problems: list[str] = []
    for wave in waves:
        ours = golden_more.compute(model, make_waves(wave, (MODELS[model][0],)), write)
        assert set(ours) == G4.names(model, wave), f"{model}: every array of the set must be computed"
        problems += G4.differences(model, wave, ours, limit)
        stats, theirs = ours["front_stats"], G4.sketches[f"{model}/{wave}/front_stats"]
        assert stats[:2].tolist() == theirs[:2].tolist()
        np.testing.assert_allclose(stats[2:4], theirs[2:4], rtol=0, atol=1e-4)
    assert problems == []
