"""The networks of Audio-MAE, M2D, SSAST and MaskSpec against timm's vision transformers, with the same numbers in both."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.encoders.contract import relative_l2

TOLERANCE = 2e-6
FEW = {"n_blocks": 2}


class Anything(type):
    """A class whose every attribute is such a class: what a package that is only imported may look like."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


class Pretended(types.ModuleType):
    """A module of torchvision, which timm imports for its image transforms and never calls here."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


class Pretender:
    """Finds every module of torchvision."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name.split(".")[0] == "torchvision" else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> types.ModuleType:
        return Pretended(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


@pytest.fixture(scope="module")
def vit() -> Iterator[Any]:
    """timm.models.vision_transformer, without torchvision; what it imported is forgotten afterwards."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm==1.0.31 is not installed")
    before, finder = set(sys.modules), Pretender()
    pretend = importlib.util.find_spec("torchvision") is None
    if pretend:
        sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        yield importlib.import_module("timm.models.vision_transformer")
    finally:
        if pretend:
            sys.meta_path.remove(finder)  # type: ignore[arg-type]
            for name in set(sys.modules) - before:
                if name.split(".")[0] in ("timm", "torchvision"):
                    del sys.modules[name]


def noise(n_samples: int) -> Tensor:
    return 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(3))


def ours(name: str, **options: Any) -> Encoder:
    """An encoder of two blocks whose every number is drawn, so that no bias or norm is without effect."""
    encoder = load_encoder(name, "random", **FEW, **options)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in encoder.parameters():
            if value.dim() == 1:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return encoder


def theirs(vit: Any, encoder: Encoder, image: tuple[int, int], patch: Any = 16, **options: Any) -> nn.Module:
    """timm's network of that geometry with our numbers; every tensor of it must be among ours."""
    network = vit.VisionTransformer(
        img_size=image, patch_size=patch, in_chans=1, depth=2, qkv_bias=True, **{"num_classes": 0, **options}
    ).eval()
    state = {name.replace("classifier.", "head."): value for name, value in encoder.state_dict().items()}
    wanted = network.state_dict()
    network.load_state_dict({name: state[name] for name in wanted})
    return network


def grids(network: nn.Module, image: Tensor) -> list[Tensor]:
    """(1, row, column, width) after each block."""
    maps = network.forward_intermediates(image, indices=2, intermediates_only=True)
    return [value.permute(0, 2, 3, 1) for value in maps]


def test_audio_mae_equals_timm(vit):
    waveform = noise(400 + 1023 * 160)
    encoder = ours("audio_mae.as2m")
    network = theirs(vit, encoder, (1024, 128), num_classes=527, global_pool="avg")
    mean, std = encoder.norm_stats
    with torch.inference_mode():
        image = ((encoder.frontend(waveform) - mean) / (2 * std))[:, None]  # (1, 1, time, mel)
        features = encoder.encode(waveform)
        for number, grid in enumerate(grids(network, image), start=1):
            assert relative_l2(features[f"block{number}"], grid.mean(dim=2)) < TOLERANCE, number
        pooled = network.forward_head(network.forward_features(image), pre_logits=True)
        assert relative_l2(features["fc_norm"][:, 0], pooled) < TOLERANCE
        assert relative_l2(encoder.outputs(waveform), network(image)) < TOLERANCE


def test_pre_trained_audio_mae_equals_timm(vit):
    waveform, encoder = noise(400 + 1023 * 160), ours("audio_mae")
    network = theirs(vit, encoder, (1024, 128))
    mean, std = encoder.norm_stats
    with torch.inference_mode():
        image = ((encoder.frontend(waveform) - mean) / (2 * std))[:, None]
        tokens = network.forward_features(image)  # (1, 1 + 512, 768)
        features = encoder.encode(waveform)
        assert relative_l2(features["norm"].mean(dim=1), tokens[:, 1:].mean(dim=1)) < TOLERANCE
        assert relative_l2(features["cls"][:, 0], tokens[:, 0]) < TOLERANCE


@pytest.mark.parametrize(("name", "patch"), [("m2d", 16), ("m2d.p16x4", (16, 4))])
def test_m2d_equals_timm(vit, name, patch):
    encoder = ours(name)
    waveform = noise((encoder.unit - 1) * 160)
    network = theirs(vit, encoder, (80, encoder.unit), patch)
    mean, std = encoder.norm_stats
    with torch.inference_mode():
        image = ((encoder.frontend(waveform) - mean) / std).transpose(1, 2)[:, None]  # (1, 1, mel, time)
        features = encoder.encode(waveform)
        for number, grid in enumerate(grids(network, image), start=1):
            assert relative_l2(features[f"block{number}"], grid.transpose(1, 2).flatten(2)) < TOLERANCE, number
        normed = network.forward_features(image)[:, 1:].unflatten(1, (5, -1)).transpose(1, 2).flatten(2)
        assert relative_l2(features["norm"], normed) < TOLERANCE


def test_mask_spec_equals_timm(vit):
    encoder, waveform = ours("mask_spec"), noise(320000)
    network = theirs(vit, encoder, (128, 992))
    with torch.inference_mode():
        image = encoder.compute_normalised_input(waveform)[:, :992].transpose(1, 2)[:, None]
        tokens = network.forward_features(image)
        features = encoder.encode(waveform)
        assert relative_l2(features["norm"].mean(dim=1), tokens[:, 1:].mean(dim=1)) < TOLERANCE
        assert relative_l2(features["cls"][:, 0], tokens[:, 0]) < TOLERANCE


def test_ssast_equals_timm(vit):
    """Two tokens of the whole clip are register tokens and a class token to timm; the stored table fits 1024 frames."""
    encoder = ours("ssast.patch_tiny", stride=16)
    waveform = noise(400 + 1023 * 160)
    network = vit.VisionTransformer(
        img_size=(128, 1024), in_chans=1, depth=2, embed_dim=192, num_heads=3, num_classes=0, reg_tokens=1
    ).eval()
    state = encoder.state_dict()
    state["reg_token"] = state.pop("dist_token")
    network.load_state_dict(state)
    mean, std = encoder.norm_stats
    with torch.inference_mode():
        image = ((encoder.frontend(waveform) - mean) / (2 * std)).transpose(1, 2)[:, None]
        tokens = network.forward_features(image)  # (1, 2 + 512, 192)
        features = encoder.encode(waveform)
        assert relative_l2(features["norm"].mean(dim=1), tokens[:, 2:].mean(dim=1)) < TOLERANCE
        assert relative_l2(features["cls_dist"][:, 0], tokens[:, :2].mean(dim=1)) < TOLERANCE


def test_the_comparison_sees_a_mistake(vit):
    encoder, waveform = ours("m2d"), noise(607 * 160)
    network = theirs(vit, encoder, (80, 608))
    mean, std = encoder.norm_stats
    with torch.inference_mode():
        image = ((encoder.frontend(waveform) - mean) / std).transpose(1, 2)[:, None]
        encoder.blocks[1].norm1.eps = 1e-3
        normed = network.forward_features(image)[:, 1:].unflatten(1, (5, -1)).transpose(1, 2).flatten(2)
        assert relative_l2(encoder.encode(waveform)["norm"], normed) > 2 * TOLERANCE
