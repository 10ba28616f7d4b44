"""Audio-MAE, M2D, SSAST, MAE-AST and MaskSpec on clips of any length, and their checkpoints, right and wrong ones."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evar import embed
from evar.encoders import load_encoder
from evar.encoders._band_statistics import read_band_statistics
from evar.encoders._checkpoints import recognise
from evar.encoders._patches import PatchGrid, PatchOut
from evar.encoders.base import Encoder
from evar.encoders.contract import relative_l2

FEW = {"n_blocks": 2}  # of the transformer's equal blocks: the rest of an encoder does not depend on their number


def noise(n_samples: int, seed: int = 0) -> Tensor:
    """(1, samples), louder towards the end."""
    wave = 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(seed))
    return wave * torch.linspace(0.2, 1.0, n_samples)


def random(name: str, **options: Any) -> Encoder:
    return load_encoder(name, "random", **FEW, **options)


def vector(encoder: Encoder, waveform: Tensor, layer: str = "") -> Tensor:
    with torch.inference_mode():
        return torch.from_numpy(embed(encoder, waveform, layers="all")[layer or encoder.default_layers[0]])


def layers(encoder: Encoder, waveform: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return dict(encoder.encode(waveform))


# Clips of any length


@pytest.mark.parametrize("name", ["audio_mae", "audio_mae.as2m"])
def test_audio_mae_gives_the_official_vector_for_clips_of_the_official_length(name):
    official = noise(400 + 1023 * 160)  # 1024 frames
    windows, padded = random(name), random(name, input="padded")
    for layer, value in layers(windows, official).items():
        assert relative_l2(value, layers(padded, official)[layer]) == 0.0, layer


def test_audio_mae_cuts_nothing_by_default_and_pads_before_normalising():
    encoder, padded = random("audio_mae"), random("audio_mae", input="padded")
    long = noise(400 + 1500 * 160)
    first, rest = long[:, : 400 + 1023 * 160], long[:, 1024 * 160 :]
    whole = layers(encoder, long)
    parts = [layers(encoder, part) for part in (first, rest)]
    for layer in ("block1", "contextual"):
        assert relative_l2(whole[layer], torch.cat([part[layer] for part in parts], dim=1)) < 1e-6
    assert relative_l2(whole["cls"], (parts[0]["cls"] + parts[1]["cls"]) / 2) < 1e-6
    assert relative_l2(layers(padded, long)["norm"], layers(padded, first)["norm"]) == 0.0  # the official cut
    short = noise(16000)
    inside = layers(encoder, short)["block1"]
    assert inside.shape[1] == 7  # ceil(98 / 16) time steps of its own
    assert relative_l2(inside, layers(padded, short)["block1"][:, :7]) == 0.0
    mean, std = encoder.norm_stats
    at_zero = (0.0 - mean) / (2 * std)
    assert at_zero == pytest.approx(0.46703, abs=1e-4)  # what padding becomes


def test_mask_spec_gives_one_vector_for_ten_seconds_whatever_the_input():
    official = noise(320000)
    for name in ("mask_spec", "mask_spec.as2m"):
        reference = vector(random(name, input="padded"), official)
        assert relative_l2(vector(random(name), official), reference) < 1e-6
        assert relative_l2(vector(random(name, input="stretched"), official), reference) < 1e-6


def test_mask_spec_hears_every_window_of_a_long_clip():
    encoder = random("mask_spec")
    long = noise(320000 + 100000)
    whole = layers(encoder, long)
    parts = [layers(encoder, part) for part in (long[:, :320000], long[:, 320000:])]
    for layer in ("block2", "norm"):
        assert relative_l2(whole[layer], torch.cat([part[layer] for part in parts], dim=1)) < 1e-6
    assert whole["norm"].shape[1] == 62 + 313 // 16
    short = noise(40000)
    n_own = (1 + 39999 // 320) // 16
    assert layers(encoder, short)["norm"].shape[1] == n_own
    assert layers(random("mask_spec", input="stretched"), short)["norm"].shape == (1, 1, 768)


@pytest.mark.parametrize(("frames", "steps"), [(607, 38), (608, 38), (609, 39), (1231, 38 + 38 + 1)])
def test_m2d_units_end_with_the_next_whole_patch(frames, steps):
    encoder = random("m2d")
    waveform = noise((frames - 1) * 160)
    assert layers(encoder, waveform)["norm"].shape == (1, steps, 3840)


@pytest.mark.parametrize(("frames", "steps"), [(999, 62), (1001, 62), (1002, 63), (1231, 77)])
def test_m2d_units_of_1001_frames_lose_nine(frames, steps):
    encoder = random("m2d.as_ft")
    assert encoder.valid_frames(torch.tensor([(frames - 1) * 160]))["norm"].tolist() == [steps]
    if frames == 1002:
        assert layers(encoder, noise((frames - 1) * 160))["norm"].shape[1] == steps


def test_m2d_averages_bands_if_asked():
    side, mean = random("m2d"), random("m2d", bands="mean")
    waveform = noise(20000)
    assert relative_l2(vector(mean, waveform), vector(side, waveform).unflatten(1, (5, 768)).mean(1)) < 1e-6
    tokens = side.tokens(waveform)  # (batch, time, band, width)
    assert tokens.shape == (1, 8, 5, 768)
    assert torch.equal(tokens, mean.tokens(waveform))
    assert torch.equal(tokens.flatten(2), side.encode(waveform)["norm"])


@pytest.mark.parametrize(
    ("name", "tokens", "hop"),
    [("ssast.patch_tiny", (9, 12), 1600), ("ssast.frame_tiny", (97, 1), 160), ("mae_ast.patch", (6, 8), 2560),
     ("mae_ast.frame", (49, 1), 320)],
)  # fmt: skip
def test_tokens_are_laid_over_time_and_frequency(name, tokens, hop):
    encoder = random(name)
    assert encoder.tokens(noise(16000)).shape[1:3] == tokens
    assert {info.hop for info in encoder.layer_infos} <= {hop, 0}


@pytest.mark.parametrize(("name", "frames"), [("ssast.patch_tiny", 200), ("mae_ast.frame", 100)])
def test_long_clips_may_go_in_windows(name, frames):
    whole, windowed = random(name), random(name, window_frames=frames)
    waveform = noise(3 * 16000)
    own = windowed.mel(waveform)
    with torch.inference_mode():
        parts = [dict(windowed.every_layer(own[:, at : at + frames])) for at in (0, frames)]
    layer = windowed.default_layers[0]
    expected = torch.cat([part[layer].mean(2) for part in parts], dim=1)
    assert relative_l2(layers(windowed, waveform)[layer][:, : expected.shape[1]], expected) < 1e-6
    assert relative_l2(vector(whole, waveform), vector(windowed, waveform)) > 1e-4
    short = waveform[:, :12000]
    assert relative_l2(vector(whole, short), vector(windowed, short)) == 0.0


def test_hidden_patches_are_the_same_in_both_orders():
    def draw() -> PatchOut:
        return PatchOut(0.5, 0.4, torch.Generator().manual_seed(1))

    patches = torch.randn(2, 6, 5, 3)  # (window, time, band, width)
    bands, times = draw().draw(2, 5, 6)
    by_time = PatchGrid(patches.flatten(1, 2), 5, "time", draw())
    by_band = PatchGrid(patches.transpose(1, 2).flatten(1, 2), 5, "frequency", draw())
    laid = by_time.lay_out(by_time.tokens)
    assert torch.equal(laid, by_band.lay_out(by_band.tokens)) and laid.shape == patches.shape
    for window in range(2):
        for time in times[window].tolist():
            for band in bands[window].tolist():
                assert torch.equal(laid[window, time, band], patches[window, time, band])
    assert by_time.tokens.shape[1] == times.shape[1] * bands.shape[1] < 30
    nothing = PatchGrid(patches.flatten(1, 2), 5, "time", None)
    assert torch.equal(nothing.lay_out(nothing.tokens), patches)


@pytest.mark.parametrize("name", ["m2d", "audio_mae", "ssast.patch_tiny", "mae_ast.patch", "mask_spec"])
def test_patches_can_be_hidden_in_training(name):
    encoder = random(name)
    assert encoder.has_patches
    waveform = noise(encoder.sample_rate * 2)
    plain = layers(encoder, waveform)
    for share, same in ((0.0, True), (0.5, False)):
        encoder.patch_out = PatchOut(share, share, torch.Generator().manual_seed(0))
        hidden = layers(encoder, waveform)
        assert {key: value.shape for key, value in hidden.items()} == {key: value.shape for key, value in plain.items()}
        error = max(relative_l2(hidden[key], plain[key]) for key in plain)
        assert (error < 1e-6) == same


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("audio_mae", {"input": "pad"}, "no input 'pad' for audio_mae"),
        ("mask_spec", {"input": "crop"}, "no input 'crop' for mask_spec"),
        ("m2d", {"bands": "flat"}, "no bands 'flat' for m2d"),
        ("m2d", {"sample_rate": 44100}, "sample_rate 16000 or 32000"),
        ("ssast.patch", {"size": "large"}, "no size 'large' for ssast"),
        ("ssast.patch", {"window_frames": 4}, "window_frames 0 or at least 16"),
        ("mae_ast.patch", {"kind": "patches"}, "no kind 'patches' for mae_ast"),
        ("mae_ast.frame", {"window_frames": 1}, "window_frames must be 0 or at least 2"),
    ],
)
def test_options_are_refused_by_name(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(name, "random", **options)


def test_an_encoder_without_a_classifier_says_who_has_one():
    for name, other in (("audio_mae", "audio_mae.as2m"), ("mask_spec", "mask_spec.as2m")):
        with pytest.raises(ValueError, match=f"has no classifier head; use {other}"):
            random(name).outputs(noise(32000))
        assert random(other).outputs(noise(32000)).shape == (1, 527)


# Checkpoints


def bands_file(folder: Path, mean: float = -0.9, std: float = 0.5) -> Path:
    """The statistics of MaskSpec's bands in the published form: a pickled dictionary in a .npy file."""
    arrays = {"all_mean": mean, "frame_mean": np.full(128, mean, "f4"), "frame_std": np.full(128, std, "f4")}
    np.save(folder / "mean_std_128.npy", arrays)  # type: ignore[arg-type]
    return folder / "mean_std_128.npy"


def published(name: str, folder: Path, change: Callable[[dict[str, Tensor]], Any] | None = None) -> Path:
    """A checkpoint of two blocks in the published form of a family."""
    encoder = random(name)
    state = {key: value + 0.01 for key, value in encoder.state_dict().items()}
    state = {key.replace("classifier.", "head."): value for key, value in state.items() if "band_" not in key}
    if name.startswith("ssast"):
        state = {f"module.v.{key}": value for key, value in state.items()}
        state |= {"module.p_input_fdim": torch.tensor(128), "module.cpredlayer.0.weight": torch.ones(2, 2)}
    box: Any = {"model": state, "epoch": 3, "args": argparse.Namespace(model=name)}
    if name.startswith("mae_ast"):
        box = {"args": None, "cfg": {"model": mae_ast_settings(name)}, "model": fairseq_names(state)}
    if change:
        box = change(state)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(box, folder / "checkpoint.pth")
    if name.startswith("mask_spec"):
        bands_file(folder)
    return folder / "checkpoint.pth"


def mae_ast_settings(name: str) -> dict[str, int]:
    time, chan = (16, 16) if name.endswith("patch") else (2, 128)
    return {"ast_kernel_size_time": time, "ast_kernel_size_chan": chan}


def fairseq_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {
        "batch_norm.running_mean": torch.tensor([-6.0]),
        "batch_norm.running_var": torch.tensor([20.0]),
        "layer_norm.weight": torch.ones(128),
        "decoder.layers.0.self_attn.q_proj.weight": torch.ones(2, 2),
        "decoder.layers.0.self_attn.k_proj.weight": torch.ones(2, 2),
        "decoder.layers.0.self_attn.v_proj.weight": torch.ones(2, 2),
        "enc_sine_pos_embed.pe": torch.zeros(1, 9, 768),
    }
    pairs = (("blocks.", "encoder.layers."), (".norm1.", ".self_attn_layer_norm."), (".norm2.", ".final_layer_norm."))
    for name, value in state.items():
        for own, theirs in (*pairs, (".mlp.", "."), ("patch_embed.proj", "post_extract_proj")):
            name = name.replace(own, theirs)
        name = f"encoder.layer_{name}" if name.startswith("norm.") else name
        if ".attn.qkv." in name:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"self_attn.{part}_proj")] = third
        else:
            renamed[name.replace("attn.proj", "self_attn.out_proj")] = value.flatten(1) if value.dim() == 4 else value
    return renamed


NAMES = ["audio_mae", "audio_mae.as2m", "m2d", "ssast.patch_tiny", "ssast.frame_tiny", "mae_ast.patch", "mae_ast.frame"]
NAMES += ["mask_spec", "mask_spec.as2m"]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_in_the_published_form_loads_whole(name, tmp_path):
    path = published(name, tmp_path)
    loaded, fresh = load_encoder(name, path, **FEW), random(name)
    before, after = fresh.state_dict(), loaded.state_dict()
    assert set(before) == set(after)
    for key, value in after.items():
        if "band_" not in key:
            torch.testing.assert_close(value, before[key] + 0.01)
    if name.startswith("mae_ast"):
        assert loaded.norm_stats == pytest.approx((-6.0, (20.0 + 1e-5) ** 0.5))


def test_m2d_takes_the_statistics_of_the_file_and_the_names_of_wrappers(tmp_path):
    def fine_tuned(state):
        wrapped = {f"module.ar.runtime.backbone.{key}": value for key, value in state.items()}
        stats = {"module.ar.runtime.backbone.norm_stats": torch.tensor([-6.5, 4.5])}
        return {**wrapped, **stats, "module.head.mlp.weight": torch.ones(3, 3)}

    path = published("m2d", tmp_path / "ft", fine_tuned)
    assert load_encoder("m2d", path, **FEW).norm_stats == (-6.5, 4.5)
    assert load_encoder("m2d", path, norm_stats=(-7.0, 4.0), **FEW).norm_stats == (-7.0, 4.0)
    plain = published("m2d", tmp_path / "plain", lambda state: state)
    assert load_encoder("m2d", plain, **FEW).norm_stats == (-7.1, 4.2)


def test_m2d_refuses_a_folder_of_another_geometry(tmp_path):
    path = published("m2d", tmp_path / "m2d_vit_base-80x200p16x4-230529")
    with pytest.raises(ValueError, match=r"tells 80 mels x 200 frames in patches of 16 x 4 .* use m2d.p16x4"):
        load_encoder("m2d", path, **FEW)
    path = published("m2d", tmp_path / "m2d_as_vit_base-80x608p16x16p32k-240413_enconly")
    with pytest.raises(ValueError, match=r"at 32000 Hz, but m2d has .* use m2d.32k"):
        load_encoder("m2d", path, **FEW)
    path = published("m2d", tmp_path / "m2d_vit_base-96x608p16x16-230529")
    with pytest.raises(ValueError, match=r"write a YAML with base: m2d"):
        load_encoder("m2d", path, **FEW)
    for name in ("m2d_vit_base-80x608p16x16-221006-mr7", "m2d_vit_base-80x608p16x16-221006-mr7_enconly", "mine"):
        load_encoder("m2d", published("m2d", tmp_path / name), **FEW)


def test_mae_ast_refuses_patches_of_the_other_size(tmp_path):
    path = published("mae_ast.frame", tmp_path)
    with pytest.raises(ValueError, match=r"2 frames x 128 mels, but mae_ast.patch takes 16 x 16; use mae_ast.frame"):
        load_encoder("mae_ast.patch", path, **FEW)


@pytest.mark.parametrize(
    ("file", "encoder", "message"),
    [
        ("audio_mae.as2m", "audio_mae", "an Audio-MAE fine-tuned on AudioSet, .* use audio_mae.as2m"),
        ("audio_mae", "audio_mae.as2m", "a pre-trained Audio-MAE, which audio_mae.as2m does not take; use audio_mae"),
        ("audio_mae", "mask_spec", "a pre-trained Audio-MAE, which mask_spec does not take; use audio_mae"),
        ("mask_spec.as2m", "mask_spec", "a MaskSpec fine-tuned on AudioSet, .* use mask_spec.as2m"),
        ("mask_spec", "m2d", "a pre-trained MaskSpec, which m2d does not take; use mask_spec"),
        ("m2d", "audio_mae", "an M2D with 38 time patches, which audio_mae does not take; use m2d, m2d.as or m2d.32k"),
        ("m2d.p16x4", "mask_spec", "an M2D with 50 time patches, .* use m2d.p16x4"),
        ("ssast.frame_tiny", "ssast.patch_tiny", "a tiny SSAST on patches of 128 mels x 2 frames, .* use ssast.frame_tiny"),
        ("ssast.patch_tiny", "ssast.patch", "a tiny SSAST on patches of 16 mels x 16 frames, .* use ssast.patch_tiny"),
        ("ssast.patch_tiny", "audio_mae", "a tiny SSAST .* use ssast.patch_tiny"),
        ("mae_ast.patch", "ssast.patch", "an MAE-AST, which ssast.patch does not take; use mae_ast.patch or mae_ast.frame"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_named(file, encoder, message, tmp_path):
    path = published(file, tmp_path)
    bands_file(tmp_path)
    with pytest.raises(ValueError, match=f"checkpoint.pth is {message}"):
        load_encoder(encoder, path, **FEW)


def test_m2d_of_other_units_is_told_by_its_table(tmp_path):
    path = published("m2d.as_ft", tmp_path)
    with pytest.raises(ValueError, match=r"M2D with 62 time patches, which m2d does not take; use m2d.as_ft"):
        load_encoder("m2d", path, **FEW)


def test_nothing_is_recognised_in_foreign_tensors():
    assert recognise({"conv1.weight": torch.ones(2)}) is None
    assert recognise({"pos_embed": torch.zeros(1, 577, 768), "cls_token": torch.zeros(1, 1, 768)}) is None


# MaskSpec's statistics


class Planted:
    """Pickles as a call of the system's shell."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_band_statistics_are_read_and_change_the_encoder(tmp_path):
    path = published("mask_spec", tmp_path)
    first = load_encoder("mask_spec", path, **FEW)
    assert first.band_mean.tolist() == pytest.approx([-0.9] * 128) and first.band_std.tolist() == [0.5] * 128
    bands_file(tmp_path, mean=-0.8)
    second = load_encoder("mask_spec", path, **FEW)
    assert first.weights_sha256 != second.weights_sha256
    (tmp_path / "other").mkdir()
    elsewhere = bands_file(tmp_path / "other", mean=-0.7)
    third = load_encoder("mask_spec", path, statistics=str(elsewhere), **FEW)
    assert third.band_mean[0] == pytest.approx(-0.7)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_band_statistics_of_every_pickle_protocol(protocol, tmp_path):
    import pickle

    values = {name: np.linspace(0.1, 1.0, 128, dtype="f4") for name in ("frame_mean", "frame_std")}
    box = np.array(None, dtype=object)
    box[()] = values
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(box, file, protocol=protocol)
    if protocol == 2:  # bytes are written as text there, which no published file is
        with pytest.raises(ValueError, match="it has no frame_mean"):
            read_band_statistics(tmp_path / "x.npy", 128)
        return
    mean, std = read_band_statistics(tmp_path / "x.npy", 128)
    np.testing.assert_array_equal(mean.numpy(), values["frame_mean"])
    np.testing.assert_array_equal(std.numpy(), values["frame_std"])


def test_band_statistics_run_nothing(tmp_path):
    trace = tmp_path / "trace"
    values = {"frame_mean": np.zeros(128, "f4"), "x": Planted(f"echo > {trace}"), "frame_std": np.ones(128, "f4")}
    np.save(tmp_path / "x.npy", values)  # type: ignore[arg-type]
    mean, _ = read_band_statistics(tmp_path / "x.npy", 128)
    assert mean.shape == (128,) and not trace.exists()
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert trace.exists()  # the plant works where nothing guards


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"frame_mean": np.zeros(128, "f4")}, "it has no frame_std"),
        ({"frame_mean": np.zeros(64, "f4"), "frame_std": np.ones(64, "f4")}, "it has no frame_mean"),
        (np.zeros(128, "f4"), "it holds a plain array"),
        ({"frame_mean": np.zeros(128, "f4"), "frame_std": np.zeros(128, "f4")}, "deviations above 0"),
        (b"<html>", "was another file put there"),
    ],
)
def test_other_files_of_statistics_are_refused(content, message, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / "x.npy").write_bytes(content)
    else:
        np.save(tmp_path / "x.npy", content)
    with pytest.raises(ValueError, match=message):
        read_band_statistics(tmp_path / "x.npy", 128)


def test_missing_statistics_say_where_they_are(tmp_path):
    path = published("mask_spec", tmp_path)
    (tmp_path / "mean_std_128.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"get audioset/mean_std_128.npy from the authors' repository"):
        load_encoder("mask_spec", path, **FEW)
