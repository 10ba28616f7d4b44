"""Our encoders give what the official implementations give, array by array; see tests/golden/README.md."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from golden_arrays import MODELS, Arrays, arrays
from golden_sketch import WHOLE, sketch
from torch import nn

from evar.encoders._logmel import MelSpectrogram
from evar.encoders.base import Encoder

HERE = Path(__file__).parents[1] / "golden"
FULL = Path(os.environ.get("EVAR_GOLDEN") or Path(__file__).parents[3] / "shared" / "golden") / "public.npz"
WAVES = ("A", "B", "D")

RELATIVE = 2e-5  # layers and embeddings, L2
FRONT = 1e-2  # largest absolute difference in nat or dB; L2 of its projections
FRONT_SKETCH = 1e-4
EXACT_FRONT = {"vggish": 1e-5, "wav2vec2": 1e-5}  # largest absolute difference, where logarithms have a high floor

with np.load(HERE / "sketches.npz") as _file:
    SKETCHES = dict(_file)


def _module(name: str) -> ModuleType:
    """A file of the golden set, which is kept as it came and is no package."""
    spec = importlib.util.spec_from_file_location(f"golden_{name}", HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAKE_WEIGHTS, MAKE_WAVES = _module("fake_weights"), _module("make_waves")


def wave(name: str, suffix: str = "") -> torch.Tensor:
    """(1, samples)."""
    return torch.from_numpy(MAKE_WAVES.make(name, 32000 if suffix else 16000))[None]


def expected(model: str, name: str) -> dict[str, Any]:
    """Array -> the whole reference array where the full set is at hand, else its sketch."""
    prefix = f"{model}/{name}/"
    if FULL.is_file():
        with np.load(FULL) as full:
            return {key.removeprefix(prefix): full[key] for key in full.files if key.startswith(prefix)}
    return {key.removeprefix(prefix): value for key, value in SKETCHES.items() if key.startswith(prefix)}


def relative(value: Any, reference: Any) -> float:
    """L2 of the difference over L2 of the reference; inf for other shapes."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    if value.shape != reference.shape or not np.isfinite(value).all():
        return float("inf")
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def differences(model: str, name: str, ours: Arrays) -> list[str]:
    """What is beyond tolerance, one line an array."""
    problems = []
    for key, reference in expected(model, name).items():
        mine, limit = np.asarray(ours[key]), RELATIVE
        is_front = key.startswith(("front", "input"))
        sketched = sketch(f"{model}/{name}/{key}", mine)
        if mine.shape != reference.shape and mine.size <= WHOLE:
            mine = sketched  # as the small arrays are kept
        if is_front:
            limit = EXACT_FRONT.get(model, FRONT)
            if mine.shape == reference.shape:
                error = float(np.abs(mine - np.asarray(reference, np.float64)).max())
            else:
                error, limit = relative(sketched, reference), FRONT_SKETCH
        elif mine.shape == reference.shape:
            error = relative(mine, reference)
        else:
            error = relative(sketched, reference)
        against_sketch = relative(sketched, SKETCHES[f"{model}/{name}/{key}"])
        if not error <= limit or not against_sketch <= (FRONT_SKETCH if is_front else 2 * RELATIVE):
            problems.append(f"{model}/{name}/{key}: {error:.1e}, sketch {against_sketch:.1e}, limit {limit:.0e}")
    return problems


@pytest.fixture(scope="module")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A fake checkpoint in the official format, deleted when the tests of its model are through (300 MB each)."""
    model = request.param
    file_of = {"vggish_4k": "vggish"}
    folder = tmp_path_factory.mktemp(model)
    yield model, FAKE_WEIGHTS.write_checkpoint(file_of.get(model, model), folder / f"{model}.pth")
    shutil.rmtree(folder)


@pytest.mark.parametrize("checkpoint", list(MODELS), indirect=True)
def test_every_array_of_every_wave(checkpoint: tuple[str, Path]) -> None:
    model, path = checkpoint
    encoder = MODELS[model].load(path)
    problems: list[str] = []
    for name in WAVES:
        ours = arrays(encoder, model, wave(name, MODELS[model].suffix))
        assert set(ours) == set(expected(model, name)), f"{model}: every array of the set must be computed"
        problems += differences(model, name, ours)
    assert problems == []


def _mel(encoder: Encoder) -> MelSpectrogram:
    mel = next(module for module in encoder.modules() if isinstance(module, MelSpectrogram))
    mel._double = {}  # its buffers are used then
    return mel


def periodic_window(encoder: Encoder) -> None:
    mel = _mel(encoder)
    mel.window = torch.hann_window(len(mel.window), periodic=True)


def symmetric_window(encoder: Encoder) -> None:
    mel = _mel(encoder)
    mel.window = torch.hann_window(len(mel.window), periodic=False)


def zeros_beyond_the_ends(encoder: Encoder) -> None:
    _mel(encoder).center = "constant"


def tanh_gelu(encoder: Encoder) -> None:
    class Tanh(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.gelu(x, approximate="tanh")

    changed = 0
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if "gelu" in type(child).__name__.lower():
                setattr(module, name, Tanh())
                changed += 1
    assert changed, "no GELU was found"


def shifted_positions(encoder: Encoder) -> None:
    with torch.no_grad():
        table = next(value for name, value in encoder.named_parameters() if name.endswith("position_embeddings"))
        table[:, 2:] = table[:, 2:].roll(1, dims=1)


MISTAKES: list[tuple[str, Callable[[Encoder], None]]] = [
    ("byola_d512", symmetric_window),
    ("byola_d512", zeros_beyond_the_ends),
    ("ast", periodic_window),
    ("ast", tanh_gelu),
    ("ast", shifted_positions),
]


@pytest.mark.parametrize("checkpoint", ["byola_d512", "ast"], indirect=True)
def test_known_mistakes_are_seen(checkpoint: tuple[str, Path]) -> None:
    model, path = checkpoint
    for of_model, mistake in MISTAKES:
        if of_model == model:
            encoder = MODELS[model].load(path)
            mistake(encoder)
            problems = differences(model, "A", arrays(encoder, model, wave("A")))
            assert any("/emb" in problem for problem in problems), f"{mistake.__name__} was not seen"


def test_sketches_show_an_error_as_large_as_it_is() -> None:
    rng = np.random.default_rng(0)
    for size in (100, 3000, 46080):
        reference = rng.normal(size=size)
        wrong = reference * (1 + 1e-4 * rng.normal(size=size))
        shown = relative(sketch("x", wrong), sketch("x", reference))
        assert 0.5 < shown / relative(wrong, reference) < 2


@pytest.mark.skipif(not FULL.is_file(), reason="the full golden set is not at hand")
def test_kept_files_are_those_of_the_set() -> None:
    with np.load(FULL) as full:
        assert set(full.files) == set(SKETCHES)
        for name in full.files[::7]:
            np.testing.assert_allclose(SKETCHES[name], sketch(name, full[name]), rtol=1e-9)
    for name in ("fake_weights.py", "make_waves.py"):
        assert (HERE / name).read_bytes() == (FULL.parent / name).read_bytes()
    with np.load(FULL.parent / "waves.npz") as waves:
        for name in (*WAVES, "A32"):
            made = wave(name[0], name[1:])[0].numpy()
            np.testing.assert_allclose(made, waves[name], atol=1.5 / 32768)
