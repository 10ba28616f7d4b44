"""CNN14 against panns_inference: log-mel, every block, embedding and tags at both rates, on the same random weights."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.encoders.contract import relative_l2

TOLERANCE = 1e-5
# Most of the error is the package's: its Fourier transform is a float32 convolution, ours runs in float64. In dB, where
# values are some tens, it stays below this for bands that are not far under the loudest.
TOLERANCE_DB = 1e-5
#: name -> panns_inference's arguments: rate, window, hop, mel bands, lowest and highest frequency, tags
SETTINGS = {
    "cnn14.32k": (32000, 1024, 320, 64, 50, 14000, 527),
    "cnn14.16k": (16000, 512, 160, 64, 50, 8000, 527),
}


@pytest.fixture(scope="module", autouse=True)
def no_initialisation() -> Iterator[None]:
    """Networks start with whatever memory holds: every parameter is drawn or loaded over, and some 80 M take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_"):
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


@pytest.fixture(scope="module")
def folder() -> str:
    """Where the package lies, without importing it: that would fetch a label file with wget."""
    spec = importlib.util.find_spec("panns_inference")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("panns-inference==0.1.1 is not installed")
    pytest.importorskip("torchlibrosa", reason="torchlibrosa==0.1.0 is not installed", exc_type=ImportError)
    importlib.import_module("matplotlib.pyplot")  # imported by the package; may start programs by itself
    return next(iter(spec.submodule_search_locations))


@pytest.fixture(scope="module")
def package(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`panns_inference.models` alone, imported in an empty home folder and with no way to start a program."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        started = guarded(patch, home)
        bare = types.ModuleType("panns_inference")
        bare.__path__ = [folder]
        patch.setitem(sys.modules, "panns_inference", bare)
        models = importlib.import_module("panns_inference.models")
        assert started == [] and list(home.iterdir()) == []
        yield models
        assert started == [] and list(home.iterdir()) == []
        for name in ("models", "pytorch_utils"):
            sys.modules.pop(f"panns_inference.{name}", None)


def guarded(patch: pytest.MonkeyPatch, home: Path) -> list[Any]:
    """Make `home` the home folder, and programs be listed instead of started."""
    started: list[Any] = []

    def refuse(command: Any, *_: Any, **__: Any) -> Any:
        started.append(command)
        raise AssertionError(f"a test must start no program, got {command!r}")

    patch.setenv("HOME", str(home))
    patch.setattr(os, "system", lambda command: started.append(command) or 1)
    patch.setattr(subprocess, "Popen", refuse)
    return started


@pytest.fixture(scope="module", params=list(SETTINGS))
def pair(
    request: pytest.FixtureRequest, package: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Any]]:
    """The package's network with weights that keep activations of order one, and our encoder of its checkpoint."""
    settings = SETTINGS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "init_layer", lambda _: None)  # drawn below
        original = package.Cnn14(*settings).eval()
    randomise(original)
    path = tmp_path_factory.mktemp("cnn14") / f"{request.param}.pth"
    torch.save({"model": original.state_dict()}, path)
    encoder = load_encoder(request.param, path)
    path.unlink()  # 330 MB
    yield original, encoder


@torch.no_grad()
def randomise(original: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in original.named_parameters():
        if parameter.requires_grad and parameter.dim() > 1:
            parameter.normal_(0.0, math.sqrt(2.0 / math.prod(parameter.shape[1:])), generator=generator)
        elif parameter.requires_grad:
            parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.1, generator=generator)
    for name, buffer in original.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    bn0: Any = original.get_submodule("bn0")
    bn0.running_mean.normal_(-35.0, 5.0, generator=generator)  # it sees decibels
    bn0.running_var.mul_(250.0)


def waveform(sample_rate: int, seconds: float = 1.0, seed: int = 0) -> Tensor:
    """(1, samples): a gliding tone in noise."""
    generator = torch.Generator().manual_seed(seed)
    n_samples = round(seconds * sample_rate)
    time = torch.arange(n_samples) / sample_rate
    glide = 0.3 * torch.sin(2 * torch.pi * (300 + 900 * time) * time)
    return (glide + 0.05 * torch.randn(n_samples, generator=generator))[None]


@torch.no_grad()
def reference_layers(original: Any, clip: Tensor) -> dict[str, Tensor]:
    """(1, samples) -> logmel (1, 1, time, mel), block1..block6 (1, channel, time, frequency), embedding and tags."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _, __, output: seen.update({name: output.clone()})

    blocks = {f"block{number}": original.get_submodule(f"conv_block{number}") for number in range(1, 7)}
    modules = {"logmel": original.logmel_extractor, **blocks}
    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    outputs = original(clip)
    for hook in hooks:
        hook.remove()
    return {**seen, "fc1": outputs["embedding"], "tags": outputs["clipwise_output"]}


def aligned(maps: Tensor, n_frames: int) -> Tensor:
    """(1, channel, time, frequency) -> (1, n_frames, channel x frequency): maxima of equal stretches of time."""
    length = 2 ** int(math.log2(maps.shape[2] / n_frames))
    stretches = [maps[:, :, length * i : length * (i + 1)].amax(dim=2) for i in range(n_frames)]
    return torch.stack(stretches, dim=1).flatten(2)


def test_log_mel_equals_torchlibrosa(pair: tuple[Any, Encoder]) -> None:
    original, encoder = pair
    clip = waveform(encoder.sample_rate)
    theirs = original.logmel_extractor(original.spectrogram_extractor(clip))[:, 0]
    assert theirs.shape == (1, 101, 64)
    assert relative_l2(encoder.frontend(clip), theirs) < TOLERANCE_DB


@torch.no_grad()
def test_silence_and_loudness_equal_torchlibrosa(pair: tuple[Any, Encoder]) -> None:
    """The floor of -100 dB, and samples outside of [-1, 1]: nothing is clipped or normalised."""
    original, encoder = pair
    for clip in (torch.zeros(1, encoder.sample_rate), 8 * waveform(encoder.sample_rate)):
        theirs = original.logmel_extractor(original.spectrogram_extractor(clip))[:, 0]
        assert relative_l2(encoder.frontend(clip), theirs) < TOLERANCE_DB


@torch.no_grad()
def test_every_block_embedding_and_tags_equal_the_package(pair: tuple[Any, Encoder]) -> None:
    original, encoder = pair
    clip = waveform(encoder.sample_rate)
    theirs = reference_layers(original, clip)
    ours = encoder.encode(clip)
    n_frames = 3  # 101 frames of the front-end, 32 in a frame of the blocks
    assert ours["block6"].shape == (1, n_frames, 4096)
    for number in range(1, 7):
        maps = theirs[f"block{number}"]
        assert relative_l2(ours[f"block{number}"], aligned(maps, n_frames)) < TOLERANCE, number
    assert (theirs["fc1"] > 0).float().mean() > 0.2  # the ReLU leaves something to compare
    assert relative_l2(ours["fc1"][:, 0], theirs["fc1"]) < TOLERANCE
    assert theirs["tags"].std() > 0.1
    assert relative_l2(encoder.outputs(clip), theirs["tags"]) < TOLERANCE


@torch.no_grad()
def test_a_batch_of_unequal_clips_equals_the_package(pair: tuple[Any, Any]) -> None:
    """Against each clip alone: the package knows no lengths."""
    original, encoder = pair
    rate = encoder.sample_rate
    clips = [waveform(rate, 0.8, seed=1), waveform(rate, 0.47, seed=2)]
    longest = clips[0].shape[1]
    batch = torch.cat([nn.functional.pad(clip, (0, longest - clip.shape[1]), value=0.2) for clip in clips])
    lengths = torch.tensor([clip.shape[1] for clip in clips])
    ours, tags = encoder.encode(batch, lengths), encoder.outputs(batch, lengths)
    for row, clip in enumerate(clips):
        theirs = reference_layers(original, clip)
        assert relative_l2(ours["fc1"][row], theirs["fc1"]) < TOLERANCE
        assert relative_l2(tags[row], theirs["tags"][0]) < TOLERANCE
        n_frames = int(ours.frames["block3"][row])
        assert relative_l2(ours["block3"][row, :n_frames], aligned(theirs["block3"], n_frames)[0]) < TOLERANCE


@torch.no_grad()
def test_the_comparison_sees_a_mistake(pair: tuple[Any, Any]) -> None:
    original, encoder = pair
    clip = waveform(encoder.sample_rate, 0.5)
    theirs = reference_layers(original, clip)["fc1"]
    mean = encoder.bn0.running_mean
    for value, wrong in ((mean, mean + 0.01), (encoder.conv_block3.bn2.weight, encoder.conv_block3.bn1.weight)):
        right = value.clone()
        value.copy_(wrong)
        assert relative_l2(encoder.encode(clip)["fc1"][:, 0], theirs) > 2 * TOLERANCE
        value.copy_(right)
    mel, encoder.mel.center = encoder.mel.center, "constant"
    assert relative_l2(encoder.encode(clip)["fc1"][:, 0], theirs) > 2 * TOLERANCE
    encoder.mel.center = mel
    assert relative_l2(encoder.encode(clip)["fc1"][:, 0], theirs) < TOLERANCE


def test_the_guard_sees_what_the_package_itself_would_start(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported as its authors mean it, the package asks wget for a label file: the guard above is needed, and works."""
    started = guarded(monkeypatch, tmp_path)
    spec = importlib.util.spec_from_file_location("panns_config_alone", Path(folder) / "config.py")
    assert spec and spec.loader
    with pytest.raises(FileNotFoundError, match="panns_data"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert len(started) == 1 and str(started[0]).startswith("wget ")
    assert (tmp_path / "panns_data").is_dir()
