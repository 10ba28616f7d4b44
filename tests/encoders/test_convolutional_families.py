"""Clips of other lengths, whole pipelines and wrong files for HTS-AT, PaSST, PSLA, EfficientAT, YAMNet and ESResNeXt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evar.encoders import describe_encoder, load_encoder, passt
from evar.encoders._checkpoints import recognise
from evar.encoders.contract import relative_l2

SECOND = 32_000
CASES = [
    ("htsat", {"n_blocks": 2}),
    ("htsat", {"n_blocks": 2, "input": "padded"}),
    ("passt", {"n_blocks": 1}),
    ("passt", {"n_blocks": 1, "input": "padded"}),
]


def noise(*lengths: int) -> tuple[Tensor, Tensor]:
    """Clips of these lengths in one batch, and the lengths."""
    waveform = 0.1 * torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(1))
    ends = torch.tensor(lengths)
    return waveform.masked_fill(torch.arange(max(lengths))[None, :] >= ends[:, None], 0.0), ends


def shorten_windows(patch: pytest.MonkeyPatch) -> int:
    """Make the windows of PaSST's package for HEAR an eighth as long, to save time; returns samples of a window."""
    for name in ("SCENE", "SCENE_STEP", "SCENE_MARGIN"):
        patch.setattr(passt, name, getattr(passt, name) // 8)
    return passt.SCENE


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.inference_mode()
def test_a_long_clip_is_the_same_alone_and_beside_a_short_one(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = shorten_windows(monkeypatch) if name == "passt" and "input" in options else 10 * SECOND
    encoder = load_encoder(name, "random", **options)
    waveform, lengths = noise(int(1.06 * window), window // 5)
    together = encoder.encode(waveform, lengths)
    for clip, length in enumerate(lengths.tolist()):
        alone = encoder.encode(waveform[clip : clip + 1, :length])
        for layer, value in alone.items():
            frames = int(together.frames[layer][clip])
            assert frames == value.shape[1]
            assert relative_l2(together[layer][clip, :frames], value[0]) < 1e-5, (layer, clip)


@torch.inference_mode()
def test_pieces_of_ten_seconds_weigh_the_same_in_htsat_and_crumbs_are_left_out() -> None:
    encoder = load_encoder("htsat", "random", n_blocks=2)
    waveform, _ = noise(12 * SECOND)
    first, rest = (encoder.encode(part)["norm"] for part in waveform.split(10 * SECOND, dim=1))
    assert relative_l2(encoder.encode(waveform)["norm"], (first + rest) / 2) < 1e-6
    crumb = waveform[:, : 10 * SECOND + 512]
    assert torch.equal(encoder.encode(crumb)["norm"], first)
    assert encoder.network_input_frames(torch.tensor([12 * SECOND, 10 * SECOND + 512])).tolist() == [1202, 1001]
    assert encoder.frontend(waveform).shape == (1, 1202, 64)


@torch.inference_mode()
def test_windows_of_passt_follow_each_other_without_a_gap() -> None:
    encoder = load_encoder("passt", "random", n_blocks=1)
    waveform, _ = noise(int(10.6 * SECOND))
    whole = encoder.encode(waveform)
    assert whole["block1"].shape[1] == (1 + (int(10.6 * SECOND) - 1) // 320 - 16) // 10 + 1
    ten_seconds = encoder.encode(waveform[:, : 10 * SECOND])
    assert relative_l2(whole["block1"][:, :99], ten_seconds["block1"]) < 1e-6
    rest = whole["scene"] * 2 - ten_seconds["scene"]  # the mean of two windows
    assert relative_l2(encoder.encode(waveform[:, 990 * 320 :])["scene"], rest) < 0.2  # but for its first frames


@torch.inference_mode()
def test_passt_as_the_package_for_hear_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    size = shorten_windows(monkeypatch)
    encoder = load_encoder("passt", "random", n_blocks=1, input="padded")
    waveform, _ = noise(int(1.06 * size))
    half, step = size // 2, size // 4
    mirrored = torch.cat([waveform[:, 1 : half + 1].flip(1), waveform, waveform[:, -half - 1 : -1].flip(1)], dim=1)
    windows = [mirrored[:, start : start + size] for start in range(0, mirrored.shape[1] - size + 1, step)]
    assert len(windows) == 5
    by_hand = torch.stack([encoder.encode(window)["scene"] for window in windows]).mean(dim=0)
    assert relative_l2(encoder.encode(waveform)["scene"], by_hand) < 1e-5


@torch.inference_mode()
def test_psla_is_filled_before_it_is_normalised() -> None:
    encoder: Any = load_encoder("psla", "random", input="padded")
    waveform, lengths = noise(8_000, 4_000)
    image = encoder._normalise(waveform, lengths)
    assert image.shape == (2, 1056, 128)
    assert torch.allclose(image[:, 100:], torch.tensor(4.6476 / 4.5699))
    assert torch.equal(image[1, 23:], image[0, 48:49].expand(1033, 128))  # 23 frames are the clip's own
    assert encoder.valid_frames(lengths)["head"].tolist() == [33, 33]


@torch.inference_mode()
def test_precisions_of_esresnext_agree_and_silence_is_no_rounding_error() -> None:
    encoders = {
        p: load_encoder("esresnext_fbsp", "random", n_blocks=1, precision=p) for p in ("mixed", "single", "double")
    }
    waveform, _ = noise(22_050)
    mixed, single, double = (encoder.encode(waveform)["emb"] for encoder in encoders.values())
    assert relative_l2(mixed, double) < 1e-5
    assert relative_l2(single, double) < 5e-3
    silence = torch.cat([waveform, torch.zeros(1, 22_050)], dim=1)
    alone, beside = (
        encoders["mixed"].frontend(silence),
        encoders["mixed"].frontend(torch.cat([silence, silence.flip(1)])),
    )
    assert torch.allclose(alone[0], beside[0], atol=1e-3)


def test_yamnet_reads_the_arrays_of_keras_in_the_order_of_the_layers(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    encoder = load_encoder("yamnet", "random")
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.save(state, tmp_path / "yamnet.pth")
    with h5py.File(tmp_path / "yamnet.h5", "w") as file:
        names = []
        for part in [name.removesuffix(".conv.weight") for name in state if name.endswith("conv.weight")]:
            order = (2, 3, 0, 1) if part.endswith("depthwise_conv") else (2, 3, 1, 0)
            arrays = {part: {"kernel:0": state[f"{part}.conv.weight"].permute(*order)}}
            arrays[f"{part}.bn"] = {
                f"{long}:0": state[f"{part}.bn.{short}"]
                for long, short in (
                    ("beta", "bias"),
                    ("moving_mean", "running_mean"),
                    ("moving_variance", "running_var"),
                )
            }
            for layer, tensors in arrays.items():
                write_layer(file, layer, tensors)
                names.append(layer)
        write_layer(file, "logits", {"kernel:0": state["classifier.weight"].T, "bias:0": state["classifier.bias"]})
        file.attrs["layer_names"] = [name.encode() for name in (*names, "logits")]
    both = [load_encoder("yamnet", tmp_path / name).state_dict() for name in ("yamnet.pth", "yamnet.h5")]
    assert all(torch.equal(both[0][name], value) and torch.equal(both[1][name], value) for name, value in state.items())
    with pytest.raises(ValueError, match=r"it is a Keras file \(HDF5\)"):
        load_encoder("efficientat.mn04", tmp_path / "yamnet.h5")
    with pytest.raises(ValueError, match="is a YAMNet, which efficientat.mn04 does not take; use yamnet"):
        load_encoder("efficientat.mn04", tmp_path / "yamnet.pth")


def write_layer(file: Any, layer: str, tensors: dict[str, Tensor]) -> None:
    group = file.create_group(layer)
    group.attrs["weight_names"] = [name.encode() for name in tensors]
    for name, tensor in tensors.items():
        group.create_dataset(name, data=tensor.numpy())


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("htsat", ""),
        ("passt", ""),
        ("passt.s16", ""),
        ("psla", "module."),
        ("esresnext_fbsp", ""),
        ("yamnet", ""),
        *((f"efficientat.mn{width}", "") for width in ("04", "05", "10", "20", "30", "40")),
    ],
)
def test_each_file_is_known_by_its_tensors(name: str, prefix: str) -> None:
    state = {
        f"{prefix}{key.removeprefix('network.')}": value for key, value in describe_encoder(name).state_dict().items()
    }
    found = recognise(state)
    assert found is not None
    assert name in found.encoder.replace(" or ", " ").split()
