"""BYOL-A against librosa's mel spectrogram and a restatement of the networks and of the pairwise means by plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_golden import FAKE_WEIGHTS
from torch import Tensor, nn

from evar.encoders import load_encoder
from evar.encoders.byol_a import EXAMPLE_STATS, average_pairs
from evar.encoders.contract import relative_l2

TOLERANCE = 1e-5
# Our front-end transforms in float32, the reference in float64; in nat.
TOLERANCE_FRONT = 1e-5
#: our name -> file of the golden set, convolutional blocks
NETWORKS = {"byol_a.d512": ("byola_d512", 3), "byol_a.d1024": ("byola_d1024", 3), "byol_a2": ("byola2", 2)}


@pytest.fixture(scope="module", params=list(NETWORKS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Any]:
    """A checkpoint's tensors, and our encoder of it."""
    name, _ = NETWORKS[request.param]
    path: Path = FAKE_WEIGHTS.write_checkpoint(name, tmp_path_factory.mktemp(name) / f"{name}.pth")
    return torch.load(path, weights_only=True), load_encoder(request.param, path)


def waveform(n_samples: int, seed: int = 0) -> Tensor:
    """(1, samples): a tone that glides, in noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(n_samples) / 16000
    glide = 0.2 * torch.sin(2 * torch.pi * (200 + 700 * time) * time)
    return (glide + 0.05 * torch.randn(n_samples, generator=generator))[None]


def reference_logmel(clip: Tensor, **changes: Any) -> Tensor:
    """(1, samples) -> (time, 64) by librosa in float64."""
    librosa = pytest.importorskip("librosa", exc_type=ImportError)
    settings = {"sr": 16000, "n_fft": 1024, "hop_length": 160, "n_mels": 64, "fmin": 60, "fmax": 7800}
    settings |= {"power": 2.0, "center": True, "pad_mode": "reflect", "dtype": np.float64, **changes}
    mel = librosa.feature.melspectrogram(y=clip[0].double().numpy(), **settings)  # (64, time)
    return torch.from_numpy(np.log(mel + 1.1920929e-07).T.copy())


def reference_layers(state: dict[str, Tensor], logmel: Tensor) -> dict[str, Tensor]:
    """(time, 64) log-mel of one clip -> layer -> (time, feature), in float64, from the facts of both papers."""
    weights = {name: tensor.double() for name, tensor in state.items()}
    n_blocks = sum(name.endswith("running_mean") for name in weights)
    mean, std = EXAMPLE_STATS
    image = ((logmel - mean) / std).T[None, None]  # (1, 1, mel, time)
    layers: dict[str, Tensor] = {}
    maps = []
    for block in range(n_blocks):
        conv, norm = f"features.{4 * block}", f"features.{4 * block + 1}"
        image = nn.functional.conv2d(image, weights[f"{conv}.weight"], weights[f"{conv}.bias"], padding=1)
        scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + 1e-5).sqrt()
        image = (image - weights[f"{norm}.running_mean"][:, None, None]) * scale[:, None, None]
        image = (image + weights[f"{norm}.bias"][:, None, None]).clamp(min=0.0)
        n_mels, n_frames = image.shape[2] // 2, image.shape[3] // 2
        quarters = [image[:, :, i : 2 * n_mels : 2, j : 2 * n_frames : 2] for i in (0, 1) for j in (0, 1)]
        image = torch.stack(quarters).amax(dim=0)  # (1, 64, mel / 2, time / 2)
        maps.append(image[0])
    n_frames = maps[-1].shape[2]
    for number, found in enumerate(maps, start=1):
        frames = [torch.cat([channel[:, time] for channel in found]) for time in range(found.shape[2])]
        while len(frames) > n_frames:
            frames = paired(frames)
        layers[f"conv{number}"] = torch.stack(frames)
    flat = torch.stack(
        [torch.cat([maps[-1][:, mel, time] for mel in range(maps[-1].shape[1])]) for time in range(n_frames)]
    )
    layers["fc1"] = (flat @ weights["fc.0.weight"].T + weights["fc.0.bias"]).clamp(min=0.0)
    layers["fc2"] = (layers["fc1"] @ weights["fc.3.weight"].T + weights["fc.3.bias"]).clamp(min=0.0)
    if n_blocks == 2:
        layers["out"] = torch.cat([flat, layers["fc2"]], dim=1)
    return layers


def paired(frames: list[Tensor]) -> list[Tensor]:
    """Means of adjacent frames; of an odd number, the last two become one first."""
    if len(frames) % 2:
        frames = [*frames[:-2], (frames[-2] + frames[-1]) / 2]
    return [(frames[index] + frames[index + 1]) / 2 for index in range(0, len(frames), 2)]


@pytest.mark.parametrize("n_samples", [1120, 16000, 16159, 24321])
def test_log_mel_equals_librosa(pair: tuple[Any, Any], n_samples: int) -> None:
    clip = waveform(n_samples)
    theirs = reference_logmel(clip)
    assert len(theirs) == 1 + n_samples // 160
    assert relative_l2(pair[1].frontend(clip)[0], theirs) < TOLERANCE_FRONT


@pytest.mark.parametrize(
    "change", [{"htk": True}, {"norm": None}, {"pad_mode": "constant"}, {"fmax": 8000}], ids=lambda c: "-".join(c)
)
@pytest.mark.parametrize("pair", ["byol_a2"], indirect=True)
def test_the_comparison_of_log_mels_sees_a_mistake(pair: tuple[Any, Any], change: dict[str, Any]) -> None:
    clip = waveform(8000)
    assert relative_l2(pair[1].frontend(clip)[0], reference_logmel(clip, **change)) > 2 * TOLERANCE_FRONT


@torch.no_grad()
@pytest.mark.parametrize("n_frames", [8, 9, 12, 13, 15, 31, 64, 101])
def test_every_layer_equals_the_restatement(pair: tuple[dict[str, Tensor], Any], n_frames: int) -> None:
    """Over numbers of frames that leave rests of every kind when halved."""
    state, encoder = pair
    clip = waveform(160 * (n_frames - 1))
    theirs = reference_layers(state, reference_logmel(clip))
    ours = encoder.encode(clip)
    assert list(ours) == list(theirs)
    assert (theirs["fc2"] > 0).double().mean() > 0.2  # the ReLU leaves something to compare
    for name, value in theirs.items():
        assert relative_l2(ours[name][0], value) < TOLERANCE, name


@torch.no_grad()
def test_a_batch_of_unequal_clips_equals_each_alone(pair: tuple[dict[str, Tensor], Any]) -> None:
    state, encoder = pair
    clips = [waveform(160 * (n_frames - 1), seed=n_frames) for n_frames in (53, 31, 22, 9)]
    longest = clips[0].shape[1]
    batch = torch.cat([nn.functional.pad(clip, (0, longest - clip.shape[1]), value=0.2) for clip in clips])
    ours = encoder.encode(batch, torch.tensor([clip.shape[1] for clip in clips]))
    for row, clip in enumerate(clips):
        for name, value in reference_layers(state, reference_logmel(clip)).items():
            n_frames = int(ours.frames[name][row])
            assert relative_l2(ours[name][row, :n_frames], value) < TOLERANCE, (row, name)


@pytest.mark.parametrize("n_frames", [2, 3, 4, 5, 6, 7, 8, 25, 50, 51])
def test_pairwise_means_equal_a_plain_loop(n_frames: int) -> None:
    values = torch.randn(1, n_frames, 3, generator=torch.Generator().manual_seed(n_frames), dtype=torch.float64)
    ours, frames = average_pairs(values, torch.tensor([n_frames]))
    expected = torch.stack(paired(list(values[0])))
    assert frames.tolist() == [n_frames // 2] == [len(expected)]
    torch.testing.assert_close(ours[0], expected, rtol=1e-12, atol=0)


def test_pairwise_means_of_a_batch_follow_each_clip_s_own_frames() -> None:
    lengths = torch.tensor([9, 8, 7, 2, 3, 4])
    values = torch.randn(6, 9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = values * (torch.arange(9)[None, :] < lengths[:, None])[:, :, None]
    ours, frames = average_pairs(values, lengths)
    assert frames.tolist() == [4, 4, 3, 1, 1, 2]
    for row, n_frames in enumerate(lengths.tolist()):
        expected = torch.stack(paired(list(values[row, :n_frames])))
        torch.testing.assert_close(ours[row, : len(expected)], expected, rtol=1e-12, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("mistake", ["channel major", "statistics", "epsilon"])
def test_the_comparison_sees_a_mistake(
    pair: tuple[dict[str, Tensor], Any], mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, encoder = pair
    clip = waveform(8000)
    theirs = reference_layers(state, reference_logmel(clip))["fc2"]
    if mistake == "channel major":
        first = encoder.fc[0]
        swapped = first.weight.unflatten(1, (-1, 64)).transpose(1, 2).flatten(1)
        monkeypatch.setitem(first._parameters, "weight", nn.Parameter(swapped))
    elif mistake == "statistics":
        monkeypatch.setattr(encoder, "norm_stats", (EXAMPLE_STATS[0] + 0.01, EXAMPLE_STATS[1]))
    else:
        monkeypatch.setattr(encoder.features[1], "eps", 1e-3)
    assert relative_l2(encoder.encode(clip)["fc2"][0], theirs) > 2 * TOLERANCE
