"""BEATs, ATST, EAT, CED and Dasheng give what the official implementations give; known mistakes do not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import golden_more
import golden_more_g2
import numpy as np
import pytest
import torch
from golden_compare import WAVES, GoldenSet, make_waves, relative
from torch import nn

from evar import embed
from evar.encoders import beats, load_encoder
from evar.encoders._logmel import mel_filterbank
from evar.encoders.base import Encoder

G2 = GoldenSet("g2")
CPU = torch.device("cpu")
Checkpoint = Callable[[str], Path]


def limit(model: str, key: str) -> tuple[str, float]:
    """The tolerances that the set recommends (CPU, float32)."""
    if key.startswith("front"):
        return "largest", 5e-2 if model == "beats" else 1e-2
    if key == "frames_count":
        return "relative", 0.0
    return "relative", 5e-5 if key.endswith(("frames2", "last_max")) else 2e-5


@pytest.fixture(scope="module")
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Checkpoint]]:
    """A golden model, and a function that writes fake checkpoints in official layouts, once each; deleted afterwards."""
    folder = tmp_path_factory.mktemp(request.param)
    written: dict[str, Path] = {}

    def write(layout: str) -> Path:
        layout = "eat" if layout == "sslam" else layout  # the same layout with the same values
        if layout not in written:
            place = folder / (layout if "_hf" in layout else f"{layout}.pt")
            written[layout] = G2.fake_weights.write_checkpoint(layout, place)
        return written[layout]

    yield request.param, write
    golden_more_g2._loaded.cache_clear()
    shutil.rmtree(folder)


MODELS = [model for model in golden_more_g2.MODELS if model != "sslam"]


@pytest.mark.parametrize("checkpoint", MODELS, indirect=True)
def test_every_array_of_every_wave(checkpoint: tuple[str, Checkpoint]) -> None:
    model, write = checkpoint
    problems: list[str] = []
    for wave in WAVES:
        ours = golden_more.compute(model, make_waves(wave), write)
        assert set(ours) == G2.names(model, wave), f"{model}: every array of the set must be computed"
        problems += G2.differences(model, wave, ours, limit)
        stats, theirs = ours["front_stats"], G2.sketches[f"{model}/{wave}/front_stats"]
        assert stats[:2].tolist() == theirs[:2].tolist()
        np.testing.assert_allclose(stats[2:4], theirs[2:4], rtol=0, atol=1e-4)
    if model == "eat":  # SSLAM is the same network, and its checkpoint has the same layout
        network = golden_more_g2.like(golden_more_g2.load("sslam", write("sslam")), input="padded")
        emb = embedding(network, torch.from_numpy(make_waves("A")[16000])[None])
        problems += G2.differences("eat", "A", {"emb": emb}, limit)
    assert problems == []


Mistake = Callable[[Any, pytest.MonkeyPatch], None]


def other_window(kind: str) -> Mistake:
    """Another window of the same length."""

    def apply(encoder: Any, patch: pytest.MonkeyPatch) -> None:
        mel = encoder.mel.mel
        window = torch.hann_window(mel.win_length, periodic=False, dtype=torch.float64)
        window = window**0.85 if kind == "povey" else window
        patch.setattr(mel, "_double", {CPU: (window, mel._double[CPU][1])})

    apply.__name__ = f"{kind}_window"
    return apply


def slaney_mel(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    mel = encoder.mel.mel
    low, high = (60.0, 7800.0) if mel.n_fft == 1024 else (0.0, 8000.0)
    filters = mel_filterbank(16000, mel.n_fft, 64, low, high, "slaney", "none", "hz")
    patch.setattr(mel, "_double", {CPU: (mel._double[CPU][0], torch.from_numpy(filters.T.copy()))})


def zeros_beyond_the_ends(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel.mel, "center", "constant")


def magnitude(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel.mel, "power", 1)


def no_preemphasis(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel.mel, "preemphasis", 0.0)


def tanh_gelu(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.GELU):
            patch.setattr(module, "approximate", "tanh")


def larger_epsilon(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    """1e-6 in place of 1e-5 and the other way round."""
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            patch.setattr(module, "eps", 1e-5 if module.eps == 1e-6 else 1e-6)


def without(name: str) -> Mistake:
    """A LayerNorm left out."""

    def apply(encoder: Any, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(getattr(encoder, name), "forward", lambda tokens: tokens)

    apply.__name__ = f"without_{name}"
    return apply


def shifted_positions(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    name = "time_pos_embed" if hasattr(encoder, "time_pos_embed") else "pos_embed"
    table = getattr(encoder, name)
    moved = nn.Parameter(table.detach().roll(1, dims=3 if name.startswith("time") else 1))
    patch.setitem(encoder._parameters, name, moved)


def reversed_bands(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(encoder._parameters, "freq_pos_embed", nn.Parameter(encoder.freq_pos_embed.detach().flip(2)))


def swapped_halves(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(encoder._buffers, "positions", encoder.positions.roll(384, dims=2))


def time_major_patches(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    embedding = encoder.patch_embed["patch_embed"]
    patch.setattr(encoder, "_patches", lambda scaled: embedding(scaled.unflatten(1, (-1, 4)).flatten(2)))


def filled_after_normalising(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    mean, std = encoder.norm_stats
    real = encoder.network_input
    patch.setattr(encoder, "network_input", lambda *given: (real(*given) - mean) / (2 * std))
    patch.setattr(encoder, "norm_stats", (0.0, 0.5))


def own_length(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "input", "clip")


def scale_left_out(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel, "scale", 1.0)


def no_deep_norm(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for block in encoder.blocks:
        patch.setattr(block, "residual_scale", 1.0)


def class_default_distance(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "max_distance", 1280)


def bias_not_gated(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(beats.GatedAttention, "make_bias", lambda self, query, bias: bias)


def gate_of_the_scaled_query(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    real = beats.GatedAttention.make_bias
    patch.setattr(beats.GatedAttention, "make_bias", lambda self, query, bias: real(self, query / 8, bias))


#: golden model -> encoder, wave, and what each mistake changes at least: a third of what the set says of wave B, or less,
#: as measured, on wave A
MISTAKES: dict[str, tuple[str, str, list[tuple[Mistake, float]]]] = {
    "beats": (
        "beats.iter3",
        "B",
        [
            (scale_left_out, 0.4),
            (no_deep_norm, 0.3),
            (without("encoder_norm"), 0.08),
            (class_default_distance, 1e-2),
            (other_window("symmetric"), 1e-2),
            (bias_not_gated, 1e-2),
            (gate_of_the_scaled_query, 2e-3),
            (tanh_gelu, 2.4e-5),
            (larger_epsilon, 1.5e-5),
        ],
    ),
    "atst_clip": (
        "atst_clip",
        "A",
        [
            (without("norm"), 0.4),
            (slaney_mel, 0.27),
            (time_major_patches, 0.2),
            (shifted_positions, 0.2),
            (zeros_beyond_the_ends, 5e-3),
            (other_window("symmetric"), 4e-4),
            (tanh_gelu, 9e-5),
        ],
    ),
    "atst_frame": (
        "atst_frame",
        "A",
        [
            (without("norm_frame"), 0.26),
            (slaney_mel, 0.3),
            (time_major_patches, 0.17),
            (shifted_positions, 0.09),
            (zeros_beyond_the_ends, 2e-3),
            (other_window("symmetric"), 2.4e-4),
            (tanh_gelu, 5e-5),
        ],
    ),
    "eat": (
        "eat.base",
        "A",
        [
            (swapped_halves, 0.15),
            (without("pre_norm"), 0.15),
            (own_length, 0.14),
            (filled_after_normalising, 0.1),
            (no_preemphasis, 0.03),
            (other_window("povey"), 5e-3),
            (tanh_gelu, 6e-5),
        ],
    ),
    "ced_tiny": (
        "ced.tiny",
        "A",
        [
            (without("norm"), 0.4),
            (slaney_mel, 0.4),
            (magnitude, 0.4),
            (reversed_bands, 0.1),
            (shifted_positions, 0.1),
            (zeros_beyond_the_ends, 2e-3),
            (other_window("symmetric"), 7e-4),
            (tanh_gelu, 5e-5),
        ],
    ),
    "dasheng": (
        "dasheng.base",
        "A",
        [
            (without("norm"), 0.5),
            (slaney_mel, 0.3),
            (magnitude, 0.28),
            (shifted_positions, 0.07),
            (zeros_beyond_the_ends, 2e-3),
            (other_window("symmetric"), 6e-4),
            (tanh_gelu, 3e-5),
        ],
    ),
}


@pytest.mark.parametrize("checkpoint", list(MISTAKES), indirect=True)
def test_known_mistakes_are_seen(checkpoint: tuple[str, Checkpoint]) -> None:
    model, write = checkpoint
    name, wave, mistakes = MISTAKES[model]
    options = {"input": "padded"} if model == "eat" else {}
    encoder = load_encoder(name, write(model), **options)
    samples = torch.from_numpy(make_waves(wave)[16000])[None]
    right = embedding(encoder, samples)
    assert G2.differences(model, wave, {"emb": right}, limit) == []
    for mistake, least in mistakes:
        with pytest.MonkeyPatch.context() as patch:
            mistake(encoder, patch)
            wrong = embedding(encoder, samples)
        assert G2.differences(model, wave, {"emb": wrong}, limit) != [], f"{mistake.__name__} of {model} was not seen"
        assert relative(wrong, right) > least, (
            f"{mistake.__name__} of {model} changes emb by {relative(wrong, right):.1e}"
        )
    assert np.array_equal(embedding(encoder, samples), right), "a mistake was not undone"


@torch.inference_mode()
def embedding(encoder: Encoder, samples: torch.Tensor) -> np.ndarray:
    return embed(encoder, samples)[0]


def test_every_family_has_three_mistakes() -> None:
    assert all(len(mistakes) >= 3 for _, _, mistakes in MISTAKES.values())
    assert {model.partition("_tiny")[0] for model in MISTAKES} == {
        model.partition("_")[0] if "ced" in model else model for model in MODELS
    }


@pytest.mark.skipif(not G2.full.is_file(), reason="the full golden set is not at hand")
def test_kept_files_are_those_of_the_set() -> None:
    G2.check_kept_files()
