"""Wav2Vec2 against transformers: every hidden state and the CTC logits of small networks of both architectures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from evar.encoders import load_encoder, wav2vec2
from evar.encoders.base import Encoder
from evar.encoders.contract import relative_l2

transformers = pytest.importorskip("transformers", exc_type=ImportError)

TOLERANCE = 1e-5
N_CHANNELS, N_TOKENS, N_BLOCKS = 48, 11, 3
#: what tells the two architectures apart, and sizes at which a network is built at once
SMALL: dict[str, dict[str, Any]] = {
    size: {
        "hidden_size": 32,
        "num_hidden_layers": N_BLOCKS,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "feat_extract_norm": "group" if size == "base" else "layer",
        "conv_bias": size == "large",
        "do_stable_layer_norm": size == "large",
    }
    for size in ("base", "large")
}
LENGTHS = (12000, 7700)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, settings in SMALL.items():
        assert set(wav2vec2.SIZES[size]) == set(settings)  # nothing that tells the architectures apart is left out
        assert all(
            wav2vec2.SIZES[size][key] == settings[key]
            for key in ("feat_extract_norm", "conv_bias", "do_stable_layer_norm")
        )
        monkeypatch.setitem(wav2vec2.SIZES, size, settings)
    monkeypatch.setattr(wav2vec2, "N_CHANNELS", N_CHANNELS)


@torch.no_grad()
def original(size: str) -> Any:
    """transformers' own model with weights under which every layer, position and bias matters."""
    config = transformers.Wav2Vec2Config(
        **SMALL[size], conv_dim=(N_CHANNELS,) * 7, vocab_size=N_TOKENS, attn_implementation="eager"
    )
    network = transformers.Wav2Vec2ForCTC(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if name.endswith("original0"):
            parameter.normal_(2.5, 0.2, generator=generator)  # size of the positional convolution's filters
        elif parameter.dim() > 1:
            parameter.normal_(0.0, math.sqrt(2.0 / math.prod(parameter.shape[1:])), generator=generator)
        else:
            parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.1, generator=generator)
    return network


@pytest.fixture(params=["base", "large"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any]:
    """transformers' model, and our encoder of the folder that it saves."""
    network = original(request.param)
    network.save_pretrained(tmp_path / "model")
    return network, load_encoder(f"wav2vec2.{request.param}", tmp_path / "model")


def clips() -> list[Tensor]:
    """(samples,) each: glides in noise, of another level and with an offset."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for index, n_samples in enumerate(LENGTHS):
        time = torch.arange(n_samples) / 16000
        glide = torch.sin(2 * torch.pi * (150 + 300 * (index + 1) * time) * time)
        noise = torch.randn(n_samples, generator=generator)
        found.append(0.1 * (index + 1) * (glide + 0.3 * noise) + 0.05 * index)
    return found


def batch() -> tuple[Tensor, Tensor]:
    """(2, samples) with something else than zeros beyond the shorter clip's end, and (2,)."""
    padded = [nn.functional.pad(clip, (0, max(LENGTHS) - len(clip)), value=0.4) for clip in clips()]
    return torch.stack(padded), torch.tensor(LENGTHS)


def normalised(waveforms: list[Tensor]) -> Any:
    """transformers' own input: `input_values` (batch, samples) and `attention_mask`."""
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    return extractor(
        [clip.numpy().astype(np.float64) for clip in waveforms], sampling_rate=16000, padding=True, return_tensors="pt"
    )


@torch.no_grad()
def reference_layers(network: Any, values: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """(batch, samples) -> conv, hidden0.., logits: (batch, time, feature)."""
    outputs = network.wav2vec2(values.float(), attention_mask=mask, output_hidden_states=True)
    conv = network.wav2vec2.feature_extractor(values.float()).transpose(1, 2)
    # For large, `hidden_states[-1]` is before or after the encoder's final LayerNorm, depending on the version of
    # transformers; `last_hidden_state` is after it in all, and so is ours.
    states = (*outputs.hidden_states[:-1], outputs.last_hidden_state)
    hidden = {f"hidden{number}": value for number, value in enumerate(states)}
    logits = network(values.float(), attention_mask=mask).logits
    return {"conv": conv, **hidden, "logits": logits}


def largest_error(ours: Any, theirs: dict[str, Tensor]) -> float:
    assert list(ours) == list(theirs)
    return max(relative_l2(ours[name], value) for name, value in theirs.items())


def test_input_equals_the_feature_extractor(pair: tuple[Any, Encoder]) -> None:
    expected = normalised(clips())
    assert expected["attention_mask"].sum(dim=1).tolist() == list(LENGTHS)
    assert relative_l2(pair[1].frontend(*batch()), expected["input_values"].float()) < TOLERANCE


@torch.no_grad()
def test_every_layer_of_a_clip_equals_transformers(pair: tuple[Any, Encoder]) -> None:
    network, encoder = pair
    assert [info.name for info in encoder.layer_infos] == ["conv", "hidden0", "hidden1", "hidden2", "hidden3", "logits"]
    for clip in clips():
        theirs = reference_layers(network, normalised([clip])["input_values"])
        assert largest_error(encoder.encode(clip[None]), theirs) < TOLERANCE
        assert relative_l2(encoder.outputs(clip[None]), theirs["logits"]) < TOLERANCE


def test_floor_of_the_variance_equals_the_feature_extractor(
    pair: tuple[Any, Encoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It matters to clips below some -70 dB, and to silence."""
    quiet = [3e-4 * (clip - clip.mean()) for clip in clips()] + [torch.zeros(500)]
    for clip in quiet:
        expected = normalised([clip])["input_values"].float()
        assert relative_l2(pair[1].frontend(clip[None]), expected) < TOLERANCE
    monkeypatch.setattr(wav2vec2, "VARIANCE_FLOOR", 1.1e-7)
    expected = normalised(quiet[:1])["input_values"].float()
    assert relative_l2(pair[1].frontend(quiet[0][None]), expected) > 100 * TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("pair", ["large"], indirect=True)
def test_a_padded_batch_of_large_equals_transformers_with_attention_mask(pair: tuple[Any, Encoder]) -> None:
    network, encoder = pair
    prepared = normalised(clips())
    theirs = reference_layers(network, prepared["input_values"], prepared["attention_mask"])
    unmasked = reference_layers(network, prepared["input_values"])
    ours = encoder.encode(*batch())
    assert ours.frames["logits"].tolist() == [37, 23]
    for name, value in theirs.items():
        for row, n_frames in enumerate(ours.frames[name].tolist()):
            assert relative_l2(ours[name][row, :n_frames], value[row, :n_frames]) < TOLERANCE, (name, row)
    # The mask is what makes them equal.
    assert relative_l2(ours["hidden1"][1, :23], unmasked["hidden1"][1, :23]) > 100 * TOLERANCE


@torch.no_grad()
def test_a_padded_batch_equals_each_clip_alone(pair: tuple[Any, Encoder]) -> None:
    """transformers gives base no mask at all, so that its clips depend on their padding; ours do not."""
    network, encoder = pair
    ours = encoder.encode(*batch())
    for row, clip in enumerate(clips()):
        theirs = reference_layers(network, normalised([clip])["input_values"])
        for name, value in theirs.items():
            assert relative_l2(ours[name][row, : value.shape[1]], value[0]) < TOLERANCE, (name, row)


@torch.no_grad()
def test_older_files_give_the_same_numbers(pair: tuple[Any, Encoder], tmp_path: Path) -> None:
    """Names of weight normalisation before torch 2, a pickle instead of safetensors, and a body without its CTC head."""
    _, encoder = pair
    state = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in state.items()
    }
    assert any(name.endswith("pos_conv_embed.conv.weight_g") for name in older)
    newer = {
        name.replace("conv.weight_g", "conv.parametrizations.weight.original0").replace(
            "conv.weight_v", "conv.parametrizations.weight.original1"
        ): value
        for name, value in older.items()
    }
    body = {name.removeprefix("wav2vec2."): value for name, value in older.items() if not name.startswith("lm_head")}
    clip = clips()[1][None]
    expected = encoder.encode(clip)
    for number, given in enumerate((older, newer, body)):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.save(given, folder / "pytorch_model.bin")
        again = load_encoder(encoder.name, folder)
        found = again.encode(clip)
        names = list(expected)[: -1 if given is body else None]
        assert list(found) == names
        assert all(torch.equal(found[name], expected[name]) for name in names)


def test_the_other_architecture_is_refused(pair: tuple[Any, Encoder], tmp_path: Path) -> None:
    _, encoder = pair
    other = {"wav2vec2.base": "wav2vec2.large", "wav2vec2.large": "wav2vec2.base"}[encoder.name]
    with pytest.raises(ValueError, match=f"has feat_extract_norm .* but {other} needs .*; use {encoder.name}"):
        load_encoder(other, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**settings, "model_type": "hubert"}))
    with pytest.raises(ValueError, match="holds a hubert model, not a wav2vec2; use the encoder hf:"):
        load_encoder(encoder.name, tmp_path / "model")


@torch.no_grad()
@pytest.mark.parametrize("mistake", ["tanh GELU", "epsilon", "positions"])
def test_the_comparison_sees_a_mistake(pair: tuple[Any, Any], mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, encoder = pair
    body = encoder.network.wav2vec2
    if mistake == "tanh GELU":
        body.encoder.layers[1].feed_forward.intermediate_act_fn = nn.GELU(approximate="tanh")
    elif mistake == "epsilon":
        for module in body.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-3
    else:
        weight = body.encoder.pos_conv_embed.conv.parametrizations.weight.original1
        weight.copy_(weight.roll(1, dims=2))
    clip = clips()[0]
    theirs = reference_layers(network, normalised([clip])["input_values"])
    assert largest_error(encoder.encode(clip[None]), theirs) > 2 * TOLERANCE
