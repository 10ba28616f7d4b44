"""MSM-MAE against torch's own transformer layer and librosa's mel spectrogram, with patches and units cut by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evar.encoders import load_encoder, msm_mae
from evar.encoders.contract import relative_l2

pytestmark = pytest.mark.filterwarnings("ignore:n_fft=400 is too large:UserWarning")

TOLERANCE = 1e-5
# Our front-end transforms in float32, the reference in float64; in nat.
TOLERANCE_FRONT = 1e-5
N_BLOCKS, UNIT_FRAMES = 2, 48
N_TIMES = UNIT_FRAMES // 16


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(msm_mae, "N_BLOCKS", N_BLOCKS)
        yield


@pytest.fixture(scope="module")
def encoder() -> Any:
    """Two blocks, units of 48 frames, and no parameter at zero or one."""
    found = msm_mae.MsmMae(UNIT_FRAMES).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if parameter.dim() > 1 and "token" not in name:
                gain = 1.5 if "qkv" in name else 1.0
                parameter.normal_(0.0, gain / math.sqrt(math.prod(parameter.shape[1:])), generator=generator)
            else:
                parameter.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.2, generator=generator)
    return found


@torch.no_grad()
def torch_layer(block: Any) -> nn.TransformerEncoderLayer:
    """torch's pre-norm layer with the block's weights; keys have a bias of zero."""
    layer = nn.TransformerEncoderLayer(
        768, 12, 3072, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    attention = layer.self_attn
    attention.in_proj_weight.copy_(block.attn.qkv.weight)
    attention.in_proj_bias.copy_(torch.cat([block.attn.q_bias, torch.zeros(768), block.attn.v_bias]))
    pairs = [
        (attention.out_proj, block.attn.proj),
        (layer.norm1, block.norm1),
        (layer.norm2, block.norm2),
        (layer.linear1, block.mlp.fc1),
        (layer.linear2, block.mlp.fc2),
    ]
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    return layer


def waveform(n_samples: int, seed: int = 0) -> Tensor:
    """(1, samples): a tone that glides, in noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(n_samples) / 16000
    glide = 0.2 * torch.sin(2 * torch.pi * (200 + 700 * time) * time)
    return (glide + 0.05 * torch.randn(n_samples, generator=generator))[None]


def reference_logmel(clip: Tensor, **changes: Any) -> Tensor:
    """(1, samples) -> (time, 80) by librosa in float64."""
    librosa = pytest.importorskip("librosa", exc_type=ImportError)
    settings = {"sr": 16000, "n_fft": 400, "hop_length": 160, "n_mels": 80, "fmin": 50, "fmax": 8000}
    settings |= {"power": 2.0, "center": True, "pad_mode": "reflect", "dtype": np.float64, **changes}
    mel = librosa.feature.melspectrogram(y=clip[0].double().numpy(), **settings)  # (80, time)
    return torch.from_numpy(np.log(mel + 1.1920929e-07).T.copy())


def positions_by_hand(n_times: int) -> Tensor:
    """(1 + 5 x n_times, 768), number by number from the paper's formula."""
    table = np.zeros((1 + 5 * n_times, 768))
    for frequency in range(5):
        for time in range(n_times):
            row = table[1 + frequency * n_times + time]
            for k in range(192):
                rate = 10000 ** (-k / 192)
                for half, position in ((0, time), (384, frequency)):
                    row[half + k] = math.sin(position * rate)
                    row[half + 192 + k] = math.cos(position * rate)
    return torch.from_numpy(table).float()


@torch.no_grad()
def reference_layers(encoder: Any, logmel: Tensor) -> list[Tensor]:
    """(time, 80) normalised log-mel of one clip -> each block's (ceil(time / 16), 3840), unit after unit."""
    n_frames = len(logmel)
    n_units = math.ceil(n_frames / UNIT_FRAMES)
    filled = torch.zeros(n_units * UNIT_FRAMES, 80)
    filled[:n_frames] = logmel
    kernel, bias = encoder.patch_embed.proj.weight.flatten(1), encoder.patch_embed.proj.bias
    positions = positions_by_hand(N_TIMES)
    layers = [torch_layer(block) for block in encoder.blocks]
    found: list[list[Tensor]] = [[] for _ in layers]
    for unit in range(n_units):
        image = filled[unit * UNIT_FRAMES : (unit + 1) * UNIT_FRAMES].T  # (80, frames)
        tokens = [encoder.cls_token[0, 0] + positions[0]]
        for frequency in range(5):
            for time in range(N_TIMES):
                patch = image[16 * frequency : 16 * frequency + 16, 16 * time : 16 * time + 16]
                tokens.append(kernel @ patch.flatten() + bias + positions[len(tokens)])
        states = torch.stack(tokens)[None]  # (1, 1 + 5 x time, 768)
        for number, layer in enumerate(layers):
            states = layer(states)
            read = encoder.norm(states) if number == len(layers) - 1 else states
            for time in range(N_TIMES):
                rows = [read[0, 1 + frequency * N_TIMES + time] for frequency in range(5)]
                found[number].append(torch.cat(rows))
    return [torch.stack(rows)[: math.ceil(n_frames / 16)] for rows in found]


@pytest.mark.parametrize("n_samples", [201, 1600, 1601, 16000])
def test_log_mel_equals_librosa(encoder: Any, n_samples: int) -> None:
    clip = waveform(n_samples)
    theirs = reference_logmel(clip)
    assert len(theirs) == 1 + n_samples // 160
    assert relative_l2(encoder.frontend(clip)[0], theirs) < TOLERANCE_FRONT


@pytest.mark.parametrize(
    "change",
    [{"htk": True}, {"norm": None}, {"pad_mode": "constant"}, {"n_fft": 512, "win_length": 400}, {"fmin": 60}],
    ids=lambda change: "-".join(change),
)
def test_the_comparison_of_log_mels_sees_a_mistake(encoder: Any, change: dict[str, Any]) -> None:
    clip = waveform(8000)
    assert relative_l2(encoder.frontend(clip)[0], reference_logmel(clip, **change)) > 2 * TOLERANCE_FRONT


@torch.no_grad()
def test_a_block_equals_torch_s_layer(encoder: Any) -> None:
    tokens = torch.randn(3, 66, 768, generator=torch.Generator().manual_seed(1))
    for block in encoder.blocks:
        layer, ours = torch_layer(block), block(tokens)
        assert relative_l2(ours, layer(tokens)) < TOLERANCE
        layer.self_attn.in_proj_bias[:768] = 0.0  # the query's bias matters
        assert relative_l2(ours, layer(tokens)) > 2 * TOLERANCE
        layer = torch_layer(block)
        layer.norm2.eps = 1e-3
        assert relative_l2(ours, layer(tokens)) > 2 * TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize(
    ("n_samples", "n_units", "n_times"),
    [(2000, 1, 1), (7520, 1, 3), (7679, 1, 3), (7680, 2, 4), (20000, 3, 8)],
)
def test_every_block_of_units_equals_one_by_one(encoder: Any, n_samples: int, n_units: int, n_times: int) -> None:
    """Around a whole unit (48 frames: 7520 to 7679 samples) and beyond it: the rule is ceil(frames / 16)."""
    clip = waveform(n_samples)
    mean, std = msm_mae.M2D_STATS
    logmel = (reference_logmel(clip) - mean) / std
    assert math.ceil(len(logmel) / UNIT_FRAMES) == n_units
    theirs = reference_layers(encoder, logmel.float())
    ours = encoder.encode(clip)
    assert [len(value) for value in theirs] == [n_times] * N_BLOCKS
    for number, value in enumerate(theirs, start=1):
        assert relative_l2(ours[f"block{number}"][0], value) < TOLERANCE, number


@torch.no_grad()
def test_a_batch_of_unequal_clips_equals_each_alone(encoder: Any) -> None:
    clips = [waveform(9000, seed=1), waveform(3000, seed=2), waveform(201, seed=3)]
    batch = torch.cat([nn.functional.pad(clip, (0, 9000 - clip.shape[1]), value=0.2) for clip in clips])
    ours = encoder.encode(batch, torch.tensor([clip.shape[1] for clip in clips]))
    mean, std = msm_mae.M2D_STATS
    assert ours.frames["block2"].tolist() == [4, 2, 1]
    for row, clip in enumerate(clips):
        logmel = (reference_logmel(clip) - mean) / std
        for number, value in enumerate(reference_layers(encoder, logmel.float()), start=1):
            assert relative_l2(ours[f"block{number}"][row, : len(value)], value) < TOLERANCE, (row, number)


@torch.no_grad()
@pytest.mark.parametrize("mistake", ["positions", "statistics", "no final norm", "patch order"])
def test_the_comparison_sees_a_mistake(encoder: Any, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = waveform(9000)
    mean, std = msm_mae.M2D_STATS
    theirs = reference_layers(encoder, ((reference_logmel(clip) - mean) / std).float())[-1]
    if mistake == "positions":
        monkeypatch.setitem(encoder._buffers, "pos_embed", encoder.pos_embed.roll(1, dims=1))
    elif mistake == "statistics":
        monkeypatch.setattr(encoder, "norm_stats", (mean, std + 0.01))
    elif mistake == "no final norm":
        monkeypatch.setattr(msm_mae, "N_BLOCKS", N_BLOCKS + 1)  # the last block is taken for an inner one
    else:
        kernel = nn.Parameter(encoder.patch_embed.proj.weight.transpose(2, 3).contiguous())
        monkeypatch.setitem(encoder.patch_embed.proj._parameters, "weight", kernel)
    assert relative_l2(encoder.encode(clip)["block2"][0], theirs) > 2 * TOLERANCE


def test_published_widths_of_units_have_the_table_of_the_formula() -> None:
    for name, n_times in (("msm_mae.208", 13), ("msm_mae.512", 32)):
        table = load_encoder(name, "random").pos_embed
        assert isinstance(table, Tensor) and table.shape == (1, 1 + 5 * n_times, 768)
        assert relative_l2(table[0], positions_by_hand(n_times)) < 1e-6
