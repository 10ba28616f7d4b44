"""OpenL3, Wav2CLIP, BYOL-S, COALA, COLA, DECAR and DeLoRes give what the official implementations give; mistakes do not."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import golden_more
import golden_more_g2
import numpy as np
import pytest
import torch
from golden_compare import WAVES, GoldenSet, make_waves, relative
from golden_more_g4 import MODELS
from torch import Tensor, nn

from evar import embed
from evar.encoders import _cvt, _mobile, cola, load_encoder, openl3
from evar.encoders._logmel import MelSpectrogram, mel_filterbank
from evar.encoders.openl3 import OpenL3

G4 = GoldenSet("g4")
CPU = torch.device("cpu")
#: the waves of the slower models; EVAR_GOLDEN_WAVES=all compares every wave (two minutes)
FEW_WAVES = {"openl3_mel128": "A", "openl3_mel256": "A", "byols_resnetish34": "A", "byols_cvt": "A", "decar": "AD"}
Checkpoint = Callable[[str], Path]


def limit(model: str, key: str) -> tuple[str, float]:
    """The tolerances that the set recommends (CPU, float32)."""
    if "front_" in key or key in ("norm_first8", "scaled_first8"):
        return "largest", 1e-2
    if key.startswith(("n_", "ex_count", "examples")):
        return "relative", 0.0
    single = "frames2" in key or key.endswith("max") or key == "timestamps2"
    if model.startswith("openl3"):
        return "relative", 1e-4 if single else 5e-5 if "emb" in key else 2e-5
    if model == "wav2clip":
        return "relative", 1e-4
    if model in ("byols_resnetish34", "byols_cvt"):
        return "relative", 5e-5 if single else 2e-5
    return "relative", 5e-5 if key.startswith("delores") else 2e-5


@pytest.fixture(scope="module")
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Checkpoint]]:
    """A golden model, and a function that writes fake checkpoints in official layouts, once each; deleted afterwards."""
    folder = tmp_path_factory.mktemp(request.param)
    written: dict[str, Path] = {}

    def write(layout: str) -> Path:
        if layout not in written:
            written[layout] = G4.fake_weights.write_checkpoint(layout, folder / f"{layout}.pt")
        return written[layout]

    yield request.param, write
    golden_more_g2._loaded.cache_clear()
    shutil.rmtree(folder)


@pytest.mark.parametrize("checkpoint", MODELS, indirect=True)
def test_every_array(checkpoint: tuple[str, Checkpoint]) -> None:
    model, write = checkpoint
    waves = WAVES if os.environ.get("EVAR_GOLDEN_WAVES") == "all" else FEW_WAVES.get(model, WAVES)
    problems: list[str] = []
    for wave in waves:
        ours = golden_more.compute(model, make_waves(wave, (MODELS[model][0],)), write)
        assert set(ours) == G4.names(model, wave), f"{model}: every array of the set must be computed"
        problems += G4.differences(model, wave, ours, limit)
        stats, theirs = ours["front_stats"], G4.sketches[f"{model}/{wave}/front_stats"]
        assert stats[:2].tolist() == theirs[:2].tolist()
        np.testing.assert_allclose(stats[2:4], theirs[2:4], rtol=0, atol=1e-4)
    assert problems == []


Mistake = Callable[[Any, pytest.MonkeyPatch], None]


def other_filters(scale: str) -> Mistake:
    """Mel bands of another scale, with the same edges and normalisation."""

    def apply(encoder: Any, patch: pytest.MonkeyPatch) -> None:
        mel, n_mels = encoder.mel, encoder.mel.filterbank.shape[1]
        low, high = (60.0, 7800.0) if n_mels == 64 else (0.0, None)
        norm = "none" if n_mels == 64 else "slaney"
        filters = mel_filterbank(encoder.sample_rate, mel.n_fft, n_mels, low, high, scale, norm)
        patch.setattr(mel, "_double", {CPU: (mel._double[CPU][0], torch.from_numpy(filters.T.copy()))})

    apply.__name__ = f"{scale}_mel"
    return apply


def symmetric_window(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    if hasattr(encoder, "mel"):
        window = torch.hann_window(encoder.mel.win_length, periodic=False, dtype=torch.float64)
        patch.setattr(encoder.mel, "_double", {CPU: (window, encoder.mel._double[CPU][1])})
    else:
        real = torch.hann_window
        patch.setattr(torch, "hann_window", lambda n, **options: real(n, periodic=False, **options))


def zeros_beyond_the_ends(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    if hasattr(encoder, "mel"):
        patch.setattr(encoder.mel, "center", "constant")
    else:
        real = torch.stft
        patch.setattr(torch, "stft", lambda *given, **options: real(*given, **{**options, "pad_mode": "constant"}))


def other_epsilon(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            patch.setattr(module, "eps", 1e-5)


def padded_by_1024(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "before", 1024)
    patch.setattr(encoder, "after", 1024)


def no_leading_silence(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(openl3, "HALF", 0)


def magnitude_for_power(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    real = encoder._compute_spectrogram
    patch.setattr(
        encoder, "_compute_spectrogram", lambda x: (((real(x).exp() - 1e-7).clamp(min=0)).sqrt() + 1e-7).log()
    )


def heard_with_a_second_clip(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    real = encoder.scale
    patch.setattr(encoder, "scale", lambda x: real(torch.cat([x, x.flip(1) - 2.0], dim=1))[:, : x.shape[1]])


def power_for_magnitude(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel, "power", 2)


def window_of_1024(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"f_min": 60.0, "f_max": 7800.0, "scale": "htk", "norm": "none", "center": "reflect"}
    mel = MelSpectrogram(sample_rate=16000, n_fft=1024, hop=160, n_mels=64, double=True, **options)
    patch.setitem(encoder._modules, "mel", mel)


def fixed_statistics(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "scale", lambda mel: (mel + 5.4919195) / 5.0389895)


def channels_first(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    real = encoder._compute_layers

    def reorder(scaled: Tensor) -> dict[str, Tensor]:
        layers = real(scaled)
        name = list(layers)[-1]
        layers[name] = layers[name].unflatten(2, (4, 512)).transpose(2, 3).flatten(2)
        return layers

    patch.setattr(encoder, "_compute_layers", reorder)


def tanh_gelu(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.GELU):
            patch.setattr(module, "approximate", "tanh")


def halves_swapped(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    """Values before keys."""
    real = torch.nn.functional.scaled_dot_product_attention
    swapped = lambda query, key, value: real(query, value, key)  # noqa: E731
    patch.setattr(_cvt.nn.functional, "scaled_dot_product_attention", swapped)


def scaled_along_the_bands(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    real, scale, offset = encoder.scale_chunks, encoder.scale, encoder.offset

    def apply(waveform: Tensor, lengths: Tensor) -> Tensor:
        return (real(waveform, lengths) - offset[:, None]) / scale[:, None] * scale + offset

    patch.setattr(encoder, "scale_chunks", apply)


def no_noise(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "noise", False)


def symmetric_padding(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_mobile, "count_zeros", lambda size, kernel, stride: (kernel // 2, kernel // 2))


def max_pooling(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "compute_heads", lambda top: {"emb": top.amax(dim=2).transpose(1, 2)})


def axes_swapped(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "mels_first", True)


def not_divided(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cola, "LARGEST", 1.0)


def average_pooling(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    def average(top: Tensor) -> dict[str, Tensor]:
        emb = top.mean(dim=(2, 3))[:, None]
        return {"emb": emb, "proj": encoder.projection(emb)}

    patch.setattr(encoder, "compute_heads", average)


def clip_of_norm_1(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    real = encoder.network_input
    patch.setattr(encoder, "network_input", lambda waveform, lengths: real(waveform / waveform.norm(), lengths))


BYOL = [
    (window_of_1024, 1e-2),
    (other_filters("slaney"), 3e-2),
    (zeros_beyond_the_ends, 1e-3),
    (fixed_statistics, 5e-2),
]
#: golden model -> encoder, its options, and what each mistake changes at least: a third of what the set says of wave B, or
#: less, as measured, on wave A
MISTAKES: dict[str, tuple[str, dict[str, Any], list[tuple[Mistake, float]]]] = {
    "openl3_mel128": (
        "openl3.env_mel128_512",
        {},
        [
            (other_filters("slaney"), 2e-2),
            (symmetric_window, 1.5e-4),
            (padded_by_1024, 7e-3),
            (other_epsilon, 1e-3),
            (no_leading_silence, 2e-2),
        ],
    ),
    "wav2clip": (
        "wav2clip",
        {},
        [
            (symmetric_window, 1e-3),
            (magnitude_for_power, 9e-3),
            (zeros_beyond_the_ends, 3e-3),
            (heard_with_a_second_clip, 8e-3),
        ],
    ),
    "byols_default": ("byol_s.default", {}, BYOL),
    "byols_resnetish34": ("byol_s.resnetish", {}, [*BYOL, (channels_first, 0.2)]),
    "byols_cvt": ("byol_s.cvt", {}, [*BYOL, (channels_first, 0.3), (tanh_gelu, 6e-5), (halves_swapped, 1e-2)]),
    "coala": (
        "coala",
        {"input": "padded"},
        [
            (zeros_beyond_the_ends, 3e-4),
            (other_filters("htk"), 4e-2),
            (power_for_magnitude, 0.1),
            (scaled_along_the_bands, 4e-2),
            (no_noise, 0.1),
        ],
    ),
    "decar": (
        "decar",
        {},
        [(other_epsilon, 1e-2), (symmetric_padding, 0.1), (max_pooling, 0.5), (axes_swapped, 0.2)],
    ),
    "cola": (
        "cola",
        {},
        [(not_divided, 100.0), (other_epsilon, 1.0), (average_pooling, 0.2), (clip_of_norm_1, 2e-2)],
    ),
}


@pytest.mark.parametrize("checkpoint", list(MISTAKES), indirect=True)
def test_known_mistakes_are_seen(checkpoint: tuple[str, Checkpoint]) -> None:
    model, write = checkpoint
    name, options, mistakes = MISTAKES[model]
    encoder: Any = load_encoder(name, write(model), **options)
    samples = torch.from_numpy(make_waves("A", (MODELS[model][0],))[MODELS[model][0]])[None]
    right = embed(encoder, samples)[0]
    assert G4.differences(model, "A", {"emb": right}, limit) == []
    most = limit(model, "emb")[1]
    if model.startswith("openl3"):
        encoder.hop = 24000  # two windows and not six
        right = embed(encoder, samples)[0]
    for mistake, least in mistakes:
        with pytest.MonkeyPatch.context() as patch:
            mistake(encoder, patch)
            wrong = embed(encoder, samples)[0]
        assert relative(wrong, right) > max(least, most), (
            f"{mistake.__name__} of {model} changes emb by {relative(wrong, right):.1e}"
        )
    assert np.array_equal(embed(encoder, samples)[0], right), "a mistake was not undone"


def htk_bands(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    """HTK bands without a norm, as those of COLA."""
    other_filters("htk")(SimpleNamespace(mel=encoder.mel.mel, sample_rate=encoder.sample_rate), patch)


def zeros_beyond_its_ends(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel.mel, "center", "constant")


def clip_as_it_is(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    """A waveform that is not divided by its norm."""
    mel, offset = encoder.mel.mel, encoder.mel.offset + 1.1920929e-07
    patch.setattr(encoder.mel, "forward", lambda waveform, lengths: (mel(waveform, lengths) + offset).log())


def magnitude_not_power(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel.mel, "power", 1)


@pytest.mark.parametrize("checkpoint", ["decar"], indirect=True)
def test_known_mistakes_in_delores_are_seen(checkpoint: tuple[str, Checkpoint]) -> None:
    """Its own front-end before the network that the set shares between DECAR and DeLoRes."""
    _, write = checkpoint
    encoder: Any = load_encoder("delores", write("decar"), layout="time_mel")
    samples = torch.from_numpy(make_waves("A", (16000,))[16000])[None]
    right = embed(encoder, samples)[0]
    assert G4.differences("decar", "A", {"delores_tf_emb": right}, limit) == []
    mistakes = [htk_bands, zeros_beyond_its_ends, clip_as_it_is, magnitude_not_power, other_epsilon, axes_swapped]
    for mistake in mistakes:
        with pytest.MonkeyPatch.context() as patch:
            mistake(encoder, patch)
            wrong = embed(encoder, samples)[0]
        assert relative(wrong, right) > 2e-2, f"{mistake.__name__} changes emb by {relative(wrong, right):.1e}"
    assert np.array_equal(embed(encoder, samples)[0], right), "a mistake was not undone"


def test_every_family_has_three_mistakes() -> None:
    assert all(len(mistakes) >= 3 for *_, mistakes in MISTAKES.values())
    assert set(MODELS) - set(MISTAKES) == {"openl3_mel256", "trill_front"}  # mel128's network; a front-end without one


OTHERS = [
    ("wav2clip", "coala", "coala"),
    ("byol_s.cvt", "byols_resnetish34", "byol_s.resnetish"),
    ("byol_s.resnetish", "byols_cvt", "byol_s.cvt"),
    ("coala", "wav2clip", "wav2clip"),
    ("openl3.env", "openl3_mel128", "openl3.env_mel128"),
    ("delores", "byols_default", "byol_a.d2048 or byol_s.default"),
    ("cola", "decar", "decar or delores"),
    ("decar", "cola", "cola"),
]


@pytest.mark.parametrize(("encoder", "layout", "fits"), OTHERS)
def test_a_file_of_another_family_is_named(encoder: str, layout: str, fits: str, tmp_path: Path) -> None:
    shapes = G4.fake_weights.load_manifest(layout)
    state = {name: torch.zeros(()).expand(shape) for name, (shape, _) in shapes.items() if "num_batches" not in name}
    torch.save(state, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=rf"file\.pt is an? .*, which {encoder} does not take; use {fits}"):
        load_encoder(encoder, tmp_path / "file.pt")


def test_openl3_reads_the_keras_file_as_it_comes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    plain, other = OpenL3(128, channels=2).eval(), OpenL3(128, channels=2)
    state = {}
    for kind, modules in (("batch_normalization", plain.norms), ("conv2d", plain.convs)):
        for number, module in enumerate(modules, start=1):
            name = "audio_embedding_layer" if kind == "conv2d" and number == 8 else f"{kind}_{number}"
            state |= {f"{name}.{leaf}": torch.rand_like(value) for leaf, value in module.state_dict().items()
                      if value.dim()}  # fmt: skip
    G4.fake_weights.write_openl3_h5(state, tmp_path / "x.h5")
    (tmp_path / "x.h5.gz").write_bytes(gzip.compress((tmp_path / "x.h5").read_bytes()))
    torch.save(state, tmp_path / "x.pth.tar")
    plain.load_checkpoint(tmp_path / "x.pth.tar", "openl3")
    for file in ("x.h5", "x.h5.gz"):
        other.load_checkpoint(tmp_path / file, "openl3")
        theirs = other.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in plain.state_dict().items() if value.dim())
    (tmp_path / "cut.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cut\.h5 must be a Keras weights file"):
        other.load_checkpoint(tmp_path / "cut.h5", "openl3")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"kernel:0"]
        file["dense/kernel:0"] = h5py.ExternalLink("x.h5", "/conv2d_1")
    with pytest.raises(ValueError, match="links are not followed"):
        other.load_checkpoint(tmp_path / "link.h5", "openl3")
    (tmp_path / "x.h5").rename(tmp_path / "openl3_audio_mel256_env.h5")
    with pytest.raises(ValueError, match="is of mel256 by its name, but openl3 has 128 mel bands"):
        other.load_checkpoint(tmp_path / "openl3_audio_mel256_env.h5", "openl3")
    with pytest.raises(ValueError, match=r"it is a Keras file \(HDF5\)"):
        load_encoder("wav2clip", tmp_path / "openl3_audio_mel256_env.h5")


def test_openl3_takes_the_filters_that_the_file_holds() -> None:
    encoder = OpenL3(128, channels=1)
    kernels = torch.from_numpy(G4.fake_weights.dft_kernels(2048, "real")).float()
    filters = torch.rand(128, 1025)
    encoder.convert({"speclayer.mel_basis": filters, "speclayer.dft_real_kernels": kernels})
    assert torch.equal(encoder.mel.filterbank, filters.T) and torch.equal(
        encoder.mel._double[CPU][1], filters.T.double()
    )
    with pytest.raises(ValueError, match="the checkpoint is of 256 mel bands, but this encoder has 128 mel bands"):
        encoder.convert({"speclayer.mel_basis": torch.rand(256, 1025), "speclayer.dft_real_kernels": kernels})


def test_a_chunk_of_coala_is_filled_up_and_none_is_cut() -> None:
    encoder = load_encoder("coala", "random", channels=4)
    sound = torch.rand(1, 60000, generator=torch.Generator().manual_seed(0)) - 0.5
    changed = sound.clone()
    changed[0, -400:] *= -0.5
    assert encoder.encode(sound)["emb"].shape[1] == 2
    assert not torch.equal(encoder.encode(sound)["emb"][0, 1], encoder.encode(changed)["emb"][0, 1])
    dropped = load_encoder("coala", "random", channels=4, input="whole")
    assert torch.equal(dropped.encode(sound)["emb"], dropped.encode(changed)["emb"])


def test_a_delores_of_the_second_repository_loads(tmp_path: Path) -> None:
    network = load_encoder("delores.ntt", "random", channels=4)
    state = {}
    for name, value in network.state_dict().items():
        part, _, rest = name.removeprefix("network.").partition(".")
        number, _, leaf = rest.partition(".")
        block = f"features_{int(number) // 4 + 1}.{int(number) % 4}" if part == "features" else f"fc.{number}"
        state[f"encoder.{block}.{leaf}"] = value + 1 if value.is_floating_point() else value
    torch.save({"state_dict": state}, tmp_path / "mine.pth")
    loaded = load_encoder("delores.ntt", tmp_path / "mine.pth", channels=4)
    assert all(
        torch.equal(loaded.state_dict()[name], value + 1) for name, value in network.state_dict().items() if value.dim()
    )
