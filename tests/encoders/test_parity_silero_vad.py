"""Silero VAD, layer by layer, against the streaming model of its own package."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evar.config.encoder import load_encoder_config
from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.encoders.contract import relative_l2
from evar.encoders.weights import read_checkpoint

TOLERANCE = 2e-5
CHUNK = 512


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")


@pytest.fixture(scope="module")
def folder() -> Path:
    """The package's data, without importing the package (which changes torch's number of threads)."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package silero-vad is not installed")
    return Path(spec.submodule_search_locations[0]) / "data"


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    return folder / "silero_vad_16k.safetensors"


def streaming(folder: Path) -> Any:
    """The package's TorchScript model, with its own weights."""
    return torch.jit.load(str(folder / "silero_vad.jit"), map_location="cpu").eval()


def published_tensors(model: Any) -> dict[str, Tensor]:
    """The TorchScript model's 16 kHz tensors, by the names of the safetensors file."""
    own = dict(model._model.named_parameters())
    names = {f"conv{i + 1}.{kind}": f"encoder.{i}.reparam_conv.{kind}" for i in range(4) for kind in ("weight", "bias")}
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        names[f"lstm_cell.{kind}"] = f"decoder.rnn.{kind}"
    for kind in ("weight", "bias"):
        names[f"final_conv.{kind}"] = f"decoder.decoder.2.{kind}"
    tensors = {published: own[name] for published, name in names.items()}
    return {**tensors, "stft_conv.weight": dict(model._model.named_buffers())["stft.forward_basis_buffer"]}


@torch.no_grad()
def stream(model: Any, clip: Tensor, keep_context: bool = True) -> dict[str, Tensor]:
    """Feed one clip (samples,) chunk by chunk, as the package does: layer name -> (time, feature).

    Without `keep_context` the convolutions see zeros before each chunk, which is a mistake.
    """
    clip = torch.nn.functional.pad(clip, (0, -len(clip) % CHUNK))
    layers: dict[str, list[Tensor]] = {}
    model.reset_states()
    context = torch.zeros(1, 64)
    for chunk in clip.split(CHUNK):
        value = model._model.stft(torch.cat([context, chunk[None]], dim=1))
        layers.setdefault("stft", []).append(value)
        for depth in range(4):
            value = getattr(model._model.encoder, str(depth))(value)
            layers.setdefault(f"conv{depth + 1}", []).append(value)
        # Context and state of the probability are the package's own: they are kept inside its model.
        layers.setdefault("speech", []).append(model(chunk[None], 16000)[:, :, None])
        layers.setdefault("lstm", []).append(model._state[0][:, :, None])
        context = chunk[None, -64:] * keep_context
    return {name: torch.cat(values, dim=2)[0].T for name, values in layers.items()}


def speech_like(n_samples: int, seed: int) -> Tensor:
    """Buzzing, gliding tones in syllables, some noise and pauses: it makes the detector go up and down."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(n_samples) / 16000
    pitch = 120 + 60 * torch.sin(2 * torch.pi * 0.7 * time + seed)
    phase = 2 * torch.pi * torch.cumsum(pitch / 16000, 0)
    buzz = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 25))
    syllables = torch.sin(2 * torch.pi * 2.3 * time).clamp(min=0)
    return 0.2 * buzz * syllables + 0.003 * torch.randn(n_samples, generator=generator)


CLIPS = [speech_like(n_samples, seed) for seed, n_samples in enumerate((40000, 16384, 700, 1))]


def largest_error(encoder: Encoder, model: Any, keep_context: bool = True) -> float:
    """Over all clips, batched by zero-padding, and all layers; every layer and frame must be there."""
    lengths = torch.tensor([len(clip) for clip in CLIPS])
    with torch.no_grad():
        features = encoder.encode(torch.nn.utils.rnn.pad_sequence(CLIPS, batch_first=True), lengths)
    errors = []
    for index, clip in enumerate(CLIPS):
        reference = stream(model, clip, keep_context)
        assert set(reference) == set(features)
        for name, value in features.items():
            errors.append(relative_l2(value[index, : features.frames[name][index]], reference[name]))
    return max(errors)


def test_published_weights_match_the_package(folder: Path, checkpoint: Path) -> None:
    encoder = load_encoder("silero_vad", weights=checkpoint)
    model = streaming(folder)
    # The wheel's TorchScript file holds another training of the network: give it the published tensors.
    with torch.no_grad():
        for name, tensor in read_checkpoint(checkpoint).items():
            published_tensors(model)[name].copy_(tensor)
    assert largest_error(encoder, model) < TOLERANCE
    speech = stream(model, CLIPS[0])["speech"]
    assert float(speech.max() - speech.min()) > 0.3  # the clips are worth comparing


def test_the_other_training_in_the_wheel_matches_too(folder: Path, tmp_path: Path) -> None:
    import safetensors.torch

    model = streaming(folder)
    tensors = {name: tensor.detach().contiguous() for name, tensor in published_tensors(model).items()}
    safetensors.torch.save_file(tensors, tmp_path / "other.safetensors")
    assert largest_error(load_encoder("silero_vad", weights=tmp_path / "other.safetensors"), model) < TOLERANCE


def test_a_mistake_is_seen(folder: Path, checkpoint: Path) -> None:
    encoder, model = load_encoder("silero_vad", weights=checkpoint), streaming(folder)
    assert largest_error(encoder, model) > TOLERANCE  # the other training's weights
    with torch.no_grad():
        for name, tensor in read_checkpoint(checkpoint).items():
            published_tensors(model)[name].copy_(tensor)
    assert largest_error(encoder, model, keep_context=False) > TOLERANCE
    assert largest_error(encoder, model) < TOLERANCE
    encoder.conv4.bias.data += 1e-3  # type: ignore[union-attr, operator]
    assert largest_error(encoder, model) > TOLERANCE


def test_yaml_names_the_file_of_the_wheel(checkpoint: Path) -> None:
    weights = load_encoder_config("silero_vad").weights
    assert weights is not None
    assert weights.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (weights.size, weights.member) == (checkpoint.stat().st_size, f"silero_vad/data/{checkpoint.name}")


def test_random_weights_analyse_with_the_published_basis(checkpoint: Path) -> None:
    basis = load_encoder("silero_vad", weights="random").state_dict()["basis"]
    assert relative_l2(basis, read_checkpoint(checkpoint)["stft_conv.weight"]) < 1e-6


def test_silence_has_a_gradient() -> None:
    waveform = torch.zeros(1, 2048, requires_grad=True)
    load_encoder("silero_vad", weights="random").encode(waveform)["lstm"].sum().backward()
    assert waveform.grad is not None
    assert bool(torch.isfinite(waveform.grad).all())
