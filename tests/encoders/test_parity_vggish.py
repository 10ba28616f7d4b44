"""VGGish against torchvggish: its log-mel, its network and its PCA post-processing, on the same random weights."""

from __future__ import annotations

import math
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


def waveform(n_samples: int = 40000, seed: int = 0) -> Tensor:
    """(1, samples): a gliding tone that fades into noise, then silence for the last eighth of a second."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(n_samples) / 16000
    tone = torch.exp(-2 * time) * torch.sin(2 * torch.pi * (200 + 400 * time) * time)
    clip = 0.5 * tone + 0.02 * torch.randn(n_samples, generator=generator)
    clip[-2000:] = 0.0
    return clip[None]


@pytest.fixture(scope="module", autouse=True)
def no_initialisation() -> Iterator[None]:
    """Networks start with whatever memory holds: every parameter is drawn or loaded over, and some 80 M take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_"):
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


@pytest.fixture(scope="module")
def package() -> Any:
    return pytest.importorskip("torchvggish", reason="torchvggish==0.2 is not installed", exc_type=ImportError)


@pytest.fixture(scope="module")
def original(package: Any) -> nn.Module:
    """torchvggish's network with weights under which activations stay of order one and biases matter."""
    network = package.torchvggish._vgg(postprocess=False).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = math.prod(parameter.shape[1:])
            scale = math.sqrt(2.0 / fan_in) if parameter.dim() > 1 else 0.1
            parameter.normal_(0.0, scale, generator=generator)
    return network


@pytest.fixture(scope="module")
def checkpoint(original: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    torch.save(original.state_dict(), path)
    yield path
    path.unlink()  # 290 MB


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> Encoder:
    return load_encoder("vggish", checkpoint)


def reference_examples(package: Any, clip: Tensor) -> Tensor:
    """(samples,) -> (example, 1, 96, 64) float32."""
    return package.waveform_to_examples(clip.numpy().astype("float64"), 16000).detach()


@torch.no_grad()
def reference_layers(original: Any, examples: Tensor) -> dict[str, Tensor]:
    """(example, 1, 96, 64) -> the output of every ReLU: (example, channel, time, mel) or (example, feature)."""
    seen: list[Tensor] = []
    relus = [module for module in original.modules() if isinstance(module, nn.ReLU)]
    hooks = [relu.register_forward_hook(lambda _, __, output: seen.append(output.clone())) for relu in relus]
    original(examples)
    for hook in hooks:
        hook.remove()
    names = ("conv1", "conv2", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "fc1_1", "fc1_2", "fc2")
    return dict(zip(names, seen, strict=True))


def aligned(maps: Tensor) -> Tensor:
    """(example, channel, time, mel) -> (1, example x 6, channel x mel): maxima of 6 stretches of time."""
    n_frames = maps.shape[2] // 6
    stretches = [maps[:, :, n_frames * i : n_frames * (i + 1)].amax(dim=2) for i in range(6)]
    return torch.stack(stretches, dim=1).flatten(2).flatten(0, 1)[None]


@pytest.mark.parametrize("n_samples", [15600, 16000, 30960, 40000])
def test_log_mel_equals_the_package(package: Any, encoder: Encoder, n_samples: int) -> None:
    clip = waveform(n_samples)
    ours = encoder.frontend(clip)
    theirs = reference_examples(package, clip[0])
    assert theirs.shape[0] == 1 + (n_samples - 15600) // 15360
    assert relative_l2(ours, theirs.flatten(0, 2)[None]) < TOLERANCE


@torch.no_grad()
def test_embedding_equals_the_package(package: Any, original: nn.Module, encoder: Encoder) -> None:
    clip = waveform()
    theirs = original(reference_examples(package, clip[0]))
    ours = encoder.encode(clip)["fc2"]
    assert (theirs > 0).float().mean() > 0.2  # the last ReLU leaves something to compare
    assert relative_l2(ours[0], theirs) < TOLERANCE


@torch.no_grad()
def test_every_layer_equals_the_package(package: Any, original: nn.Module, encoder: Encoder) -> None:
    clip = waveform(32000)
    ours = encoder.encode(clip)
    theirs = reference_layers(original, reference_examples(package, clip[0]))
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert relative_l2(ours[name], aligned(value) if value.dim() == 4 else value[None]) < TOLERANCE, name


@torch.no_grad()
def test_a_batch_of_unequal_clips_equals_the_package(package: Any, original: nn.Module, encoder: Encoder) -> None:
    clips = [waveform(31500, seed=1), waveform(16000, seed=2)]
    batch = torch.cat([nn.functional.pad(clip, (0, 31500 - clip.shape[1]), value=0.3) for clip in clips])
    features = encoder.encode(batch, torch.tensor([31500, 16000]))
    assert features.frames["fc2"].tolist() == [2, 1]
    for row, clip in enumerate(clips):
        theirs = original(reference_examples(package, clip[0]))
        assert relative_l2(features["fc2"][row, : len(theirs)], theirs) < TOLERANCE


@torch.no_grad()
def test_the_other_conversion_s_names_give_the_same_numbers(
    original: nn.Module, encoder: Encoder, tmp_path: Path
) -> None:
    """tcvrick's file calls the linear layers `fc.N`, torchvggish's `embeddings.N`."""
    names = list(original.state_dict())
    assert {name.split(".")[0] for name in names} == {"features", "embeddings"}
    torch.save(
        {name.replace("embeddings.", "fc."): value for name, value in original.state_dict().items()}, tmp_path / "x"
    )
    other = load_encoder("vggish", tmp_path / "x")
    (tmp_path / "x").unlink()  # 290 MB
    assert other.weights_sha256 != encoder.weights_sha256
    clip = waveform(16000)
    assert torch.equal(other.encode(clip)["fc2"], encoder.encode(clip)["fc2"])


@torch.no_grad()
def test_pca_and_quantisation_equal_the_package(
    package: Any,
    original: nn.Module,
    encoder: Encoder,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = waveform(5 * 15360 + 240)
    embeddings = original(reference_examples(package, clip[0]))  # (5, 128)
    generator = torch.Generator().manual_seed(2)
    means = embeddings.mean(dim=0)[:, None]
    # Of order one for these embeddings, so that most values lie inside the clipped range and some beyond it.
    vectors = torch.randn(128, 128, generator=generator) / (embeddings - means.T).norm(dim=1).mean()
    pca = {"pca_eigen_vectors": vectors, "pca_means": means}
    torch.save(pca, tmp_path / "pca.pth")
    monkeypatch.setattr(package.torchvggish.hub, "load_state_dict_from_url", lambda *_, **__: pca)
    theirs = package.torchvggish.Postprocessor().postprocess(embeddings)  # (5, 128)
    with_pca = load_encoder("vggish", checkpoint, pca=str(tmp_path / "pca.pth"))
    assert with_pca.default_layers == ("pca",)
    features = with_pca.encode(clip)
    assert relative_l2(features["fc2"], encoder.encode(clip)["fc2"]) < TOLERANCE
    ours = features["pca"][0]
    inside = (theirs > 0) & (theirs < 255)
    assert 0.5 < inside.float().mean() < 1.0 and theirs.unique().numel() > 50
    # A value that lies on the edge of two steps may be rounded either way: an error of 1e-7 decides.
    assert (ours - theirs).abs().max() <= 1.0
    assert (ours != theirs).float().mean() < 0.01


MISTAKES = ("a bias", "flatten order", "window", "log offset")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_comparison_sees_a_mistake(
    package: Any, original: nn.Module, encoder: Any, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = waveform(16000)
    with torch.no_grad(), monkeypatch.context() as patch:
        if mistake == "a bias":
            patch.setitem(encoder.conv3_2._parameters, "bias", nn.Parameter(encoder.conv3_2.bias + 1e-3))
        elif mistake == "flatten order":
            weight = encoder.fc1_1.weight.unflatten(1, (6, 4, 512)).transpose(1, 2).flatten(1)
            patch.setitem(encoder.fc1_1._parameters, "weight", nn.Parameter(weight))
        elif mistake == "window":
            _, filterbank = encoder.mel._double[torch.device("cpu")]
            symmetric = torch.hann_window(400, periodic=False, dtype=torch.float64)
            patch.setitem(encoder.mel._double, torch.device("cpu"), (symmetric, filterbank))
        else:
            patch.setattr("evar.encoders.vggish.LOG_OFFSET", 0.0101)
        ours = encoder.encode(clip)["fc2"][0]
    theirs = original(reference_examples(package, clip[0]))
    assert relative_l2(ours, theirs) > 2 * TOLERANCE
