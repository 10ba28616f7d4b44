"""aiSFX against its own package: network, normalisation and windows as they are, front-end against Essentia."""

from __future__ import annotations

import importlib.util
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evar.encoders import load_encoder
from evar.encoders.aisfx import AiSfx
from evar.encoders.weights import read_checkpoint, state_dict_of

TOLERANCE = 2e-5
RATE = 44100


def sound(n_samples: int, seed: int = 0) -> Tensor:
    """(1, samples): a gliding tone in noise with a silent stretch, on the 16-bit grid."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(n_samples, dtype=torch.float64) / RATE
    tone = 0.3 * torch.sin(2 * torch.pi * (300 + 900 * time) * time)
    value = tone + 0.02 * torch.randn(n_samples, generator=generator, dtype=torch.float64)
    value[n_samples // 3 : n_samples // 2] = 0.0
    return ((value * 32768).round() / 32768).float()[None]


def relative(value: Tensor | np.ndarray, reference: Tensor | np.ndarray) -> float:
    """Relative L2 distance."""
    value, reference = (np.asarray(array, dtype=np.float64) for array in (value, reference))
    assert value.shape == reference.shape
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def package_folder() -> Path:
    """Where the package is; importing it whole would need its old command-line dependencies."""
    found = importlib.util.find_spec("aisfx")
    if found is None or not found.submodule_search_locations:
        pytest.skip("aisfx==0.1.2 is not installed")
    return Path(next(iter(found.submodule_search_locations)))


def package_module(path: str):
    """One file of the package, loaded by itself."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, package_folder() / path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def checkpoint() -> Path:
    return package_folder() / "models" / "checkpoint.pth"


@pytest.fixture(scope="module")
def encoder() -> AiSfx:
    loaded = load_encoder("aisfx", weights=checkpoint())
    assert isinstance(loaded, AiSfx)
    return loaded


def essentia_mel(waveform: Tensor) -> np.ndarray:
    """(mel frame, mel) log10(1 + 10000 x) in float64, written from Essentia's documentation and formulas."""
    samples = waveform[0].double().numpy()
    n_frames = 1 + -(-len(samples) // 1024)
    padded = np.concatenate([np.zeros(1024), samples, np.zeros(2048)])
    frames = np.stack([padded[1024 * frame : 1024 * frame + 2048] for frame in range(n_frames)])
    power = np.abs(np.fft.rfft(frames * np.hanning(2048))) ** 2
    mels = 1127.01048 * np.log1p(np.arange(1025) * RATE / 2048 / 700.0)
    edges = np.linspace(0, 1127.01048 * np.log1p(22050 / 700.0), 98)
    filters = np.stack([np.interp(mels, edges[band : band + 3], [0, 1, 0]) for band in range(96)])
    filters /= filters.sum(axis=1, keepdims=True)
    return np.log10(1.0 + 1e4 * power @ filters.T)


def reference_layers(log_mel: np.ndarray, hop_share: float = 0.5) -> dict[str, Tensor]:
    """The package's normalisation, blocking and network on a spectrogram (mel frame, mel), every convolution."""
    preprocessing = package_module("preprocessing.py")
    normalised = preprocessing.spectrogram_normalize(log_mel)
    hop = preprocessing.compute_hopSize(100, hop_share, log_mel)
    windows = torch.tensor(preprocessing.blocking(normalised, 100, hop, True), dtype=torch.float32)
    network = package_module("models/cnn2d.py").EmbeddingNet("max", 3, 1, 64).eval()
    state = state_dict_of(read_checkpoint(checkpoint()))
    prefix = "embedding_net."
    network.load_state_dict({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
    layers: dict[str, Tensor] = {}

    def keep_conv(name: str):
        # The package's ReLU works in place on the normalised map, so it is taken here from a copy.
        return lambda module, inputs, output: layers.update({name: output.clone().relu()})

    def keep_block(name: str):
        return lambda module, inputs, output: layers.update({name: output})

    for block in range(1, 5):
        module = getattr(network, f"conv_block{block}")
        module.bn1.register_forward_hook(keep_conv(f"conv{2 * block - 1}"))
        if block < 4:
            module.register_forward_hook(keep_block(f"conv{2 * block}"))
    with torch.inference_mode():
        embedding = network(windows)
    for name, maps in layers.items():
        pooled = name in ("conv2", "conv4", "conv6")
        layers[name] = maps.amax(2).flatten(1) if pooled else maps.mean(3).amax(2)
    return {**layers, "embedding": embedding}


@pytest.mark.parametrize("seconds", [1.3, 3.0, 4.9])
def test_every_layer_equals_the_package(encoder, seconds):
    waveform = sound(int(seconds * RATE))
    with torch.inference_mode():
        features = encoder.encode(waveform)
    reference = reference_layers(essentia_mel(waveform))
    assert list(features) == list(reference) == [info.name for info in encoder.layer_infos]
    for name, expected in reference.items():
        assert relative(features[name][0], expected) <= TOLERANCE, name


def test_other_hop_equals_the_package():
    waveform = sound(3 * RATE)
    encoder = load_encoder("aisfx", weights=checkpoint(), hop=25 * 1024)
    with torch.inference_mode():
        own = encoder.encode(waveform)["embedding"]
    assert own.shape[1] == 2
    assert relative(own[0], reference_layers(essentia_mel(waveform), 0.25)["embedding"]) <= TOLERANCE


def test_a_batch_of_unequal_clips_equals_the_package(encoder):
    lengths = torch.tensor([170000, 60000, 102401])
    clips = [sound(length, seed) for seed, length in enumerate(lengths.tolist())]
    batch = torch.cat([nn.functional.pad(clip, (0, 170000 - clip.shape[1]), value=0.7) for clip in clips])
    with torch.inference_mode():
        features = encoder.encode(batch, lengths)
    assert features.frames["embedding"].tolist() == [2, 1, 1]
    for row, clip in enumerate(clips):
        for name, expected in reference_layers(essentia_mel(clip)).items():
            assert relative(features[name][row, : len(expected)], expected) <= TOLERANCE, (row, name)


@pytest.mark.parametrize("n_samples", [1, 1024, 1025, 2049, 44100])
def test_front_end_equals_formulas_written_apart(n_samples):
    waveform = sound(n_samples, seed=n_samples)
    mel = AiSfx().mel(nn.functional.pad(waveform, (0, 1023)))
    assert relative(torch.log10(1 + 1e4 * mel[0]), essentia_mel(waveform)) < 2e-6


def test_front_end_equals_recorded_essentia_numbers():
    """Essentia 2.1b6.dev1389, through the package's compute_spectrogram, on a 16-bit WAV of sound(5000)."""
    recorded = {
        (0, 3): 5.825689792633057,
        (1, 0): 4.338444709777832,
        (1, 40): 3.595275402069092,
        (2, 10): 6.825251579284668,
        (3, 95): 3.3150992393493652,
        (4, 20): 3.0760550498962402,
        (5, 60): 3.070564031600952,
    }  # (mel frame, mel)
    reference = essentia_mel(sound(5000))
    assert reference.shape == (6, 96)
    np.testing.assert_allclose([reference[place] for place in recorded], list(recorded.values()), rtol=1e-6)
    assert reference.sum() == pytest.approx(2185.3307497501373, rel=1e-6)


def test_front_end_equals_essentia_itself(tmp_path):
    pytest.importorskip("essentia", reason="essentia is not installed (AGPL; only this test would use it)")
    waveform = sound(60000)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((waveform[0].numpy() * 32768).astype("<i2").tobytes())
    spectrogram = package_module("spectrogram/spectrogram_essentia.py").compute_spectrogram(
        filename=str(tmp_path / "sound.wav"), sr=float(RATE), block_size=2048, hop_size=1024, n_mels=96, f_min=0.0,
        f_max=22050.0,
    )  # fmt: skip
    assert relative(essentia_mel(waveform), spectrogram) < 2e-6


@pytest.mark.parametrize("mistake", ["scale", "window", "triangles", "largest value"])
def test_the_comparison_sees_a_mistake(mistake, monkeypatch):
    encoder = load_encoder("aisfx", weights=checkpoint())
    if mistake == "scale":
        encoder.norms[2].weight.data *= 1.0005
    elif mistake == "window":
        encoder.mel.window.copy_(torch.hann_window(2048))
    elif mistake == "triangles":
        from evar.encoders._logmel import mel_filterbank

        in_hertz = mel_filterbank(RATE, 2048, 96, 0.0, None, "htk", "sum", "hz")
        encoder.mel.filterbank.copy_(torch.from_numpy(in_hertz.T.copy()))
    else:
        monkeypatch.setattr("evar.encoders.aisfx.LARGEST_LOG", 9.46)
    waveform = sound(2 * RATE)
    with torch.inference_mode():
        own = encoder.encode(waveform)["embedding"][0]
    assert relative(own, reference_layers(essentia_mel(waveform))["embedding"]) > 2 * TOLERANCE


def test_silence_is_silence_however_long(encoder):
    with torch.inference_mode():
        short = encoder.encode(torch.zeros(1, 1))
        long = encoder.encode(torch.zeros(1, 200000))
    assert long.frames["embedding"].tolist() == [2]
    for name, value in short.items():
        assert relative(long[name][0, 1], value[0, 0]) < 1e-6


@pytest.mark.parametrize("hop", [0, 1000, 51201])
def test_a_hop_between_mel_frames_is_refused(hop):
    with pytest.raises(ValueError, match=rf"multiple of 1024 samples \(one mel frame\), got {hop}"):
        AiSfx(hop=hop)
