"""HTS-AT, PaSST, PSLA, EfficientAT, YAMNet and ESResNeXt give the official implementations' numbers; mistakes do not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import golden_more
import golden_more_g2
import golden_more_g3
import numpy as np
import pytest
import torch
from golden_compare import GoldenSet, load_file, make_waves, relative
from golden_mistakes_g3 import MISTAKES

from evar import embed
from evar.encoders import load_encoder
from evar.encoders.weights import load_strict, read_checkpoint

G3 = GoldenSet("g3")
Checkpoint = Callable[[str], Path]

#: golden model -> the waves that are compared: one or two to save time, all of them where EVAR_GOLDEN names the full set
WAVES = {"htsat": "D", "passt": "A", "mn10_as": "BD", "psla": "A", "yamnet": "BD", "esresnext_fbsp": "A"}
if "EVAR_GOLDEN" in os.environ:
    WAVES = dict.fromkeys(WAVES, "ABD")


def limit(model: str, key: str) -> tuple[str, float]:
    """The tolerances that the set recommends (CPU, float32)."""
    if key.startswith("f64"):
        return "relative", 1e-5
    if key.startswith("front"):
        return "largest", 0.3 if model == "esresnext_fbsp" else 1e-2
    if key == "info":  # counts
        return "relative", 0.0
    if key == "logits_mean":  # one number near zero
        return "relative", 1e-3
    if model == "htsat" and key.endswith(("_max", "frames2")):
        return "relative", 5e-5
    if model == "psla" and key in {"stem", *(f"block{number:02d}" for number in range(1, 13))}:
        return "relative", 3e-5
    return "relative", {"psla": 2e-4, "mn10_as": 5e-5, "yamnet": 5e-5, "esresnext_fbsp": 5e-3}.get(model, 2e-5)


def waves_of(model: str, wave: str) -> dict[int, np.ndarray]:
    """The samples of one wave at the rates that the set has; at 44.1 kHz its noise floor fills the whole band."""
    if golden_more_g3.MODELS[model][0] == 44100:
        return {44100: load_file(G3.kept / "make_waves_g3.py").make(wave)}
    return make_waves(wave)


@pytest.fixture(scope="module")
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Checkpoint]]:
    """A golden model, and a function that writes fake checkpoints in official layouts, once each; deleted afterwards."""
    folder = tmp_path_factory.mktemp(request.param)
    written: dict[str, Path] = {}

    def write(layout: str) -> Path:
        if layout not in written:
            place = folder / f"{layout}.{'h5' if layout == 'yamnet' else 'pt'}"
            written[layout] = G3.fake_weights.write_checkpoint(layout, place)
        return written[layout]

    yield request.param, write
    golden_more_g2._loaded.cache_clear()
    shutil.rmtree(folder)


@pytest.mark.parametrize("checkpoint", list(WAVES), indirect=True)
def test_every_array(checkpoint: tuple[str, Checkpoint]) -> None:
    model, write = checkpoint
    problems: list[str] = []
    for wave in WAVES[model]:
        ours = golden_more.compute(model, waves_of(model, wave), write)
        assert set(ours) == G3.names(model, wave), f"{model}: every array of the set must be computed"
        problems += G3.differences(model, wave, ours, limit)
        stats, theirs = ours["front_stats"], G3.sketches[f"{model}/{wave}/front_stats"]
        assert stats[:2].tolist() == theirs[:2].tolist()
        np.testing.assert_allclose(stats[2:4], theirs[2:4], rtol=0, atol=1e-4)
    assert problems == []


@pytest.mark.parametrize("checkpoint", list(MISTAKES), indirect=True)
def test_known_mistakes_are_seen(checkpoint: tuple[str, Checkpoint]) -> None:
    model, write = checkpoint
    name, options, layer, golden, wave, mistakes = MISTAKES[model]
    load: Callable[..., Any] = load_part if "n_blocks" in options else load_encoder
    encoder = load(name, write(model), **options)
    samples = torch.from_numpy(waves_of(model, wave)[encoder.sample_rate])[None]
    right = vector(encoder, samples, layer)
    assert golden is None or G3.differences(model, wave, {golden: right}, limit) == []
    for mistake, least in mistakes:
        with pytest.MonkeyPatch.context() as patch:
            mistake(encoder, patch)
            wrong = vector(encoder, samples, layer)
        said = getattr(mistake, "__name__", mistake)
        if golden is not None:
            assert G3.differences(model, wave, {golden: wrong}, limit) != [], f"{said} of {model} was not seen"
        error = relative(wrong, right)
        assert error > least, f"{said} of {model} changes {layer} by {error:.1e}"
    assert np.array_equal(vector(encoder, samples, layer), right), "a mistake was not undone"


def load_part(name: str, path: Path, **options: Any) -> Any:
    """An encoder with fewer blocks than the checkpoint has, for which the rest of the checkpoint is left out."""
    encoder = load_encoder(name, "random", **options)
    state, own = encoder.convert(read_checkpoint(path)), encoder.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    load_strict(encoder, {**own, **fitting}, path)
    return encoder


@torch.inference_mode()
def vector(encoder: Any, samples: torch.Tensor, layer: str) -> np.ndarray:
    return embed(encoder, samples, layers=[layer])[layer][0]


@pytest.mark.skipif(not G3.full.is_file(), reason="the full golden set is not at hand")
def test_kept_files_are_those_of_the_set() -> None:
    G3.check_kept_files()
    file = "make_waves_g3.py"
    assert (G3.kept / file).read_bytes() == (G3.full.parent / file).read_bytes()
