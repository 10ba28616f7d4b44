"""AST against transformers' network and torchaudio's Kaldi filterbank, on a small network of both file layouts."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from golden_arrays import AST_STATS
from test_golden import FAKE_WEIGHTS
from torch import Tensor, nn

from evar.encoders import ast, load_encoder
from evar.encoders.base import Encoder
from evar.encoders.contract import relative_l2

transformers = pytest.importorskip("transformers", exc_type=ImportError)

TOLERANCE = 1e-5
# torchaudio computes in float32, ours in float64: in nat, and for bands that are not far under the loudest.
TOLERANCE_FRONT = 1e-5
WIDTH, N_BLOCKS = 48, 3
CONFIG = {
    "model_type": "audio-spectrogram-transformer",
    "architectures": ["ASTForAudioClassification"],
    "hidden_size": WIDTH,
    "num_hidden_layers": N_BLOCKS,
    "num_attention_heads": 12,
    "intermediate_size": 4 * WIDTH,
    "layer_norm_eps": 1e-12,
    "num_labels": 527,
}


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ast, "WIDTH", WIDTH)
        patch.setattr(ast, "N_BLOCKS", N_BLOCKS)
        yield


def write(folder: Path, n_blocks: int) -> tuple[Path, Path]:
    """The original layout (`module.v.*` in a pickle) and a hub folder, which hold the same numbers."""
    narrow = {768: WIDTH, 2304: 3 * WIDTH, 3072: 4 * WIDTH}
    manifest = {
        name: tuple(narrow.get(size, size) for size in shape)
        for name, shape in FAKE_WEIGHTS.load_manifest("ast").items()
        if not any(f".blocks.{number}." in name for number in range(n_blocks, 12))
    }
    state = FAKE_WEIGHTS.fake_state_dict(manifest, seed=0)
    assert "module.v.blocks.2.attn.qkv.weight" in state
    torch.save(state, folder / "audioset.pth")
    (folder / "hub").mkdir()
    (folder / "hub" / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": n_blocks}))
    safetensors.torch.save_file(
        FAKE_WEIGHTS.ast_to_hub(state), folder / "hub" / "model.safetensors", metadata={"format": "pt"}
    )
    return folder / "audioset.pth", folder / "hub"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write(tmp_path_factory.mktemp("ast"), N_BLOCKS)


@pytest.fixture(scope="module")
def original(files: tuple[Path, Path]) -> Any:
    """transformers' own network, with transformers' own loading."""
    network = transformers.ASTForAudioClassification.from_pretrained(files[1], attn_implementation="eager").eval()
    proj = network.audio_spectrogram_transformer.embeddings.patch_embeddings.projection
    stored = torch.load(files[0], weights_only=True)["module.v.patch_embed.proj.weight"]
    assert torch.equal(proj.weight, stored)
    return network


@pytest.fixture(scope="module")
def kaldi() -> Iterator[Any]:
    """`torchaudio.compliance.kaldi` without torchaudio's own `__init__`, whose binaries must match torch's CUDA."""
    spec = importlib.util.find_spec("torchaudio")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package torchaudio is not installed")
    names = [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.delitem(sys.modules, name)
        for name in ("torchaudio", "torchaudio.compliance"):
            bare = types.ModuleType(name)
            bare.__path__ = [str(Path(spec.submodule_search_locations[0], *name.split(".")[1:]))]
            patch.setitem(sys.modules, name, bare)
        yield importlib.import_module("torchaudio.compliance.kaldi")
        sys.modules.pop("torchaudio.compliance.kaldi", None)


def waveform(seconds: float = 1.0, seed: int = 0) -> Tensor:
    """(1, samples): a buzz that glides, in noise, with an offset."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(round(16000 * seconds)) / 16000
    phase = 2 * torch.pi * (120 + 15 * torch.cos(3 * time)) * time
    buzz = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 30))
    return (0.1 * buzz + 0.02 * torch.randn(len(time), generator=generator) + 0.1)[None]


def filterbank(kaldi: Any, clip: Tensor) -> Tensor:
    """(1, samples) -> (time, 128), as the authors' data loader calls it."""
    return kaldi.fbank(
        clip - clip.mean(),
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )


@torch.no_grad()
def reference_layers(network: Any, values: Tensor) -> dict[str, Tensor]:
    """(batch, 1024, 128) normalised -> block1.. (batch, 1, width) after the final LayerNorm, and logits."""
    body = network.audio_spectrogram_transformer
    outputs = body(values, output_hidden_states=True)
    states = outputs.hidden_states[1:]
    layers = {f"block{n}": body.layernorm(state)[:, :2].mean(1) for n, state in enumerate(states, start=1)}
    # `hidden_states[-1]` may have the final LayerNorm already, depending on the version; the pooled output is certain.
    layers[f"block{len(states)}"] = outputs.pooler_output
    return {name: value[:, None] for name, value in layers.items()}


def padded(logmel: Tensor) -> Tensor:
    """(time, 128) -> (1, 1024, 128): zeros at the end, or a cut, then AudioSet's statistics."""
    logmel = nn.functional.pad(logmel, (0, 0, 0, max(0, 1024 - len(logmel))))[:1024]
    return ((logmel - AST_STATS[0]) / (2 * AST_STATS[1]))[None]


def largest_error(ours: Any, theirs: dict[str, Tensor]) -> float:
    assert list(ours) == list(theirs)
    return max(relative_l2(ours[name], value) for name, value in theirs.items())


@pytest.mark.parametrize("n_samples", [2800, 16000, 16079, 16080, 31234])
def test_filterbank_equals_torchaudio(kaldi: Any, files: tuple[Path, Path], n_samples: int) -> None:
    encoder = load_encoder("ast", files[1])
    clip = waveform(2.0)[:, :n_samples]
    theirs = filterbank(kaldi, clip)
    ours = encoder.frontend(clip)
    assert ours.shape == (1, 1 + (n_samples - 400) // 160, 128)
    assert relative_l2(ours[0], theirs) < TOLERANCE_FRONT
    assert torch.equal(ours[0, :, 3], theirs[:, 3]) and ours[0, 0, 3] == np.log(np.float32(1.1920929e-07))


@pytest.mark.parametrize("mistake", ["window", "preemphasis", "remove_dc", "frames"])
def test_the_comparison_of_filterbanks_sees_a_mistake(kaldi: Any, files: tuple[Path, Path], mistake: str) -> None:
    encoder: Any = load_encoder("ast", files[1])
    clip = waveform()
    theirs = filterbank(kaldi, clip)
    if mistake == "window":
        _, filters = encoder.mel._constants(torch.device("cpu"))
        encoder.mel._double[torch.device("cpu")] = (torch.hann_window(400, dtype=torch.float64), filters)
    elif mistake == "preemphasis":
        encoder.mel.preemphasis = 0.9701
    elif mistake == "remove_dc":
        encoder.mel.remove_dc = False
    else:
        clip = clip.roll(1, dims=1)
    assert relative_l2(encoder.frontend(clip)[0], theirs) > 2 * TOLERANCE_FRONT


@torch.no_grad()
def test_padded_input_equals_transformers(kaldi: Any, original: Any, files: tuple[Path, Path]) -> None:
    """Both a clip that is filled up to 1024 frames and one that is cut to them."""
    encoder = load_encoder("ast", files[1], input="padded")
    for seconds in (1.0, 10.5):
        clip = waveform(seconds)
        values = padded(filterbank(kaldi, clip))
        theirs = reference_layers(original, values)
        assert relative_l2(encoder.compute_normalised_input(clip), values) < TOLERANCE_FRONT  # type: ignore[operator]
        assert largest_error(encoder.encode(clip), theirs) < TOLERANCE


@torch.no_grad()
def test_a_padded_batch_of_unequal_clips_equals_transformers(
    kaldi: Any, original: Any, files: tuple[Path, Path]
) -> None:
    encoder = load_encoder("ast", files[1], input="padded")
    clips = [waveform(0.9, seed=1), waveform(0.4, seed=2)]
    longest = clips[0].shape[1]
    batch = torch.cat([nn.functional.pad(clip, (0, longest - clip.shape[1]), value=0.5) for clip in clips])
    values = torch.cat([padded(filterbank(kaldi, clip)) for clip in clips])
    ours = encoder.encode(batch, torch.tensor([clip.shape[1] for clip in clips]))
    assert largest_error(ours, reference_layers(original, values)) < TOLERANCE


@torch.no_grad()
def test_original_file_and_hub_folder_give_the_same_numbers(original: Any, files: tuple[Path, Path]) -> None:
    file, folder = files
    clip = waveform()
    hub = load_encoder("ast", folder)
    same = load_encoder("ast", file, layer_norm_eps=1e-12)
    for name, tensor in hub.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor), name
    assert torch.equal(same.encode(clip)["block3"], hub.encode(clip)["block3"])
    # By default each has the epsilon of the implementation that its format belongs to.
    epsilons = {
        where: {
            module.eps for module in load_encoder("ast", where).blocks.modules() if isinstance(module, nn.LayerNorm)
        }
        for where in files
    }
    assert epsilons == {file: {1e-6}, folder: {1e-12}}


def table_by_hand(stored: Tensor, n_columns: int) -> Tensor:
    """(1, 2 + 12 x 101, width) -> (1, 2 + 12 x n_columns, width), value by value in float64."""
    grid = stored[0, 2:].double().numpy().reshape(12, 101, -1)
    if n_columns < 101:
        begin = 50 - n_columns // 2
        columns = [grid[:, begin + column] for column in range(n_columns)]
    else:
        columns = []
        for column in range(n_columns):  # centres of equally wide columns; beyond the first and last centre, they hold
            at = min(max((column + 0.5) * 101 / n_columns - 0.5, 0.0), 100.0)
            left = min(int(at), 99)
            columns.append((1 - (at - left)) * grid[:, left] + (at - left) * grid[:, left + 1])
    table = torch.from_numpy(np.stack(columns, axis=1)).flatten(0, 1).float()
    return torch.cat([stored[0, :2], table])[None]


@torch.no_grad()
@pytest.mark.parametrize(("seconds", "n_columns"), [(0.175, 1), (0.41, 3), (1.0, 9), (10.25, 101), (11.0, 109)])
def test_a_clip_of_its_own_length_equals_transformers_with_the_adapted_table(
    kaldi: Any, original: Any, files: tuple[Path, Path], seconds: float, n_columns: int
) -> None:
    encoder: Any = load_encoder("ast", files[1])
    clip = waveform(seconds)
    logmel = filterbank(kaldi, clip)
    assert (len(logmel) - 16) // 10 + 1 == n_columns
    stored = original.audio_spectrogram_transformer.embeddings.position_embeddings
    table = table_by_hand(stored, n_columns)
    # float32 weights of the interpolation: more error than a copy has
    assert relative_l2(encoder.position_table(len(logmel)), table) < TOLERANCE
    values = ((logmel - AST_STATS[0]) / (2 * AST_STATS[1]))[None]
    assert (
        largest_error(encoder.encode(clip), reference_layers(resized(original, table, len(logmel)), values)) < TOLERANCE
    )


def resized(original: Any, table: Tensor, n_frames: int) -> Any:
    """transformers' network for inputs of so many frames, with that table of positions."""
    config = transformers.ASTConfig(**{**original.config.to_dict(), "max_length": n_frames})
    network = transformers.ASTForAudioClassification(config).eval()
    state = {**original.state_dict(), "audio_spectrogram_transformer.embeddings.position_embeddings": table}
    network.load_state_dict(state)
    return network


@torch.no_grad()
def test_logits_of_all_twelve_blocks_equal_transformers(
    kaldi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ast, "N_BLOCKS", 12)
    _, folder = write(tmp_path, 12)
    original = transformers.ASTForAudioClassification.from_pretrained(folder).eval()
    encoder = load_encoder("ast", folder)
    clip = waveform(0.5)
    logmel = filterbank(kaldi, clip)
    table = table_by_hand(original.audio_spectrogram_transformer.embeddings.position_embeddings, 4)
    network = resized(original, table, len(logmel))
    values = ((logmel - AST_STATS[0]) / (2 * AST_STATS[1]))[None]
    assert largest_error(encoder.encode(clip), reference_layers(network, values)) < TOLERANCE
    logits = network(values).logits
    assert logits.shape == (1, 527) and logits.std() > 0.1
    assert relative_l2(encoder.outputs(clip), logits) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("mistake", ["epsilon", "qkv order", "statistics", "positions"])
def test_the_comparison_sees_a_mistake(
    kaldi: Any, original: Any, files: tuple[Path, Path], mistake: str, tmp_path: Path
) -> None:
    clip = waveform()
    theirs = reference_layers(original, padded(filterbank(kaldi, clip)))
    encoder: Encoder
    if mistake == "epsilon":
        encoder = load_encoder("ast", files[1], input="padded", layer_norm_eps=1e-3)
    elif mistake == "statistics":
        encoder = load_encoder("ast", files[1], input="padded", norm_stats=(AST_STATS[0], 4.57))
    else:
        state = torch.load(files[0], weights_only=True)
        if mistake == "qkv order":
            name = "module.v.blocks.1.attn.qkv.bias"
            state[name] = torch.cat(state[name].chunk(3)[::-1])
        else:
            table = state["module.v.pos_embed"]
            table[:, 2:] = table[:, 2:].unflatten(1, (101, 12)).transpose(1, 2).flatten(1, 2)
        torch.save(state, tmp_path / "x.pth")
        encoder = load_encoder("ast", tmp_path / "x.pth", input="padded", layer_norm_eps=1e-12)
    assert largest_error(encoder.encode(clip), theirs) > 2 * TOLERANCE
