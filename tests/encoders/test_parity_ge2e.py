"""GE2E, layer by layer, against the Resemblyzer package's own model, mel spectrogram and windows."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evar.config.encoder import load_encoder_config
from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.encoders.contract import relative_l2

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please import `binary_dilation`:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:n_fft=400 is too large:UserWarning"),
]

TOLERANCE = 2e-5
#: samples: one, under a window, a window, both sides of the 3/4 that earn a second one, a long clip, a dropped tail
LENGTHS = (1, 9000, 25600, 31519, 31520, 80000, 98000)


@pytest.fixture(scope="module")
def package() -> Iterator[Any]:
    """`resemblyzer.voice_encoder`, without the package's own `__init__`.

    The package imports a voice detector, and a scipy module that newer versions lack, for `preprocess_wav` alone,
    which is not compared here; where they are missing, empty modules take their place.
    """
    spec = importlib.util.find_spec("resemblyzer")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package Resemblyzer is not installed")
    if importlib.util.find_spec("librosa") is None:
        pytest.skip("Resemblyzer's mel spectrogram needs librosa")
    with pytest.MonkeyPatch.context() as patch:
        bare = types.ModuleType("resemblyzer")
        bare.__path__ = list(spec.submodule_search_locations)
        patch.setitem(sys.modules, "resemblyzer", bare)
        for name in ("webrtcvad", "scipy.ndimage.morphology"):
            try:
                importlib.import_module(name)
            except ImportError:
                empty = types.ModuleType(name)
                empty.binary_dilation = None  # type: ignore[attr-defined]
                patch.setitem(sys.modules, name, empty)
        yield importlib.import_module("resemblyzer.voice_encoder")
        for name in ("voice_encoder", "audio", "hparams"):
            sys.modules.pop(f"resemblyzer.{name}", None)


@pytest.fixture(scope="module")
def checkpoint(package: Any) -> Path:
    return Path(package.__file__).with_name("pretrained.pt")


@pytest.fixture(scope="module")
def original(package: Any) -> Any:
    return package.VoiceEncoder("cpu", verbose=False).eval()


@torch.no_grad()
def layers_of(original: Any, package: Any, clip: Tensor, rate: float) -> dict[str, Tensor]:
    """One clip (samples,) through the package, `rate` windows a second: layer name -> (window, feature)."""
    wav = clip.numpy()
    wav_slices, mel_slices = original.compute_partial_slices(len(wav), rate, min_coverage=0.75)
    mel = package.audio.wav_to_mel_spectrogram(np.pad(wav, (0, max(0, wav_slices[-1].stop - len(wav)))))
    mels = torch.from_numpy(np.array([mel[window] for window in mel_slices]))
    _, (states, _) = original.lstm(mels)
    layers = {f"lstm{depth + 1}": state for depth, state in enumerate(states)}
    return {**layers, "linear": original.relu(original.linear(states[-1])), "embedding": original(mels)}


def voices() -> list[Tensor]:
    """Buzzes of other pitch and level, with some noise (samples,)."""
    generator = torch.Generator().manual_seed(0)
    clips = []
    for index, n_samples in enumerate(LENGTHS):
        time = torch.arange(n_samples) / 16000
        phase = 2 * torch.pi * (90 + 25 * index) * time + 4 * torch.sin(2 * torch.pi * 3 * time)
        buzz = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 20))
        clips.append((0.02 + 0.02 * index) * buzz + 0.01 * torch.randn(n_samples, generator=generator))
    return clips


CLIPS = voices()
BATCH = torch.nn.utils.rnn.pad_sequence(CLIPS, batch_first=True), torch.tensor(LENGTHS)


def largest_error(encoder: Encoder, original: Any, package: Any, rate: float = 1.3) -> float:
    """Over all clips, batched by zero-padding, and all layers; every layer and window must be there."""
    with torch.no_grad():
        features = encoder.encode(*BATCH)
    errors = []
    for index, clip in enumerate(CLIPS):
        reference = layers_of(original, package, clip, rate)
        assert list(reference) == list(features)
        for name, value in features.items():
            errors.append(relative_l2(value[index, : features.frames[name][index]], reference[name]))
    return max(errors)


def test_every_layer_matches_the_package(original: Any, package: Any, checkpoint: Path) -> None:
    assert largest_error(load_encoder("ge2e", weights=checkpoint), original, package) < TOLERANCE


def test_mel_matches_the_package(package: Any) -> None:
    encoder = load_encoder("ge2e", weights="random")
    for clip in CLIPS:
        mel = encoder.mel(clip[None])[0]  # type: ignore[operator]
        assert relative_l2(mel, torch.from_numpy(package.audio.wav_to_mel_spectrogram(clip.numpy()))) < TOLERANCE


def test_utterance_embedding_matches_the_package(original: Any, checkpoint: Path) -> None:
    encoder = load_encoder("ge2e", weights=checkpoint)
    with torch.no_grad():
        vectors = encoder.utterance_embedding(*BATCH)  # type: ignore[operator]
    for vector, clip in zip(vectors, CLIPS, strict=True):
        assert relative_l2(vector, torch.from_numpy(original.embed_utterance(clip.numpy()))) < TOLERANCE


def test_windows_are_the_package_s_for_every_length(original: Any) -> None:
    lengths = torch.arange(1, 120000, 37)
    expected = [len(original.compute_partial_slices(n, rate=1.3, min_coverage=0.75)[0]) for n in lengths.tolist()]
    assert load_encoder("ge2e", weights="random").valid_frames(lengths).tolist() == expected


def test_a_mistake_is_seen(original: Any, package: Any, checkpoint: Path) -> None:
    encoder = load_encoder("ge2e", weights=checkpoint)
    assert largest_error(encoder, original, package, rate=1.32) > TOLERANCE  # windows begin 10 ms earlier each
    encoder.lstm.bias_hh_l2.data += 1e-3  # type: ignore[union-attr, operator]
    assert largest_error(encoder, original, package) > TOLERANCE


def test_yaml_names_the_file_of_the_wheel(checkpoint: Path) -> None:
    weights = load_encoder_config("ge2e").weights
    assert weights is not None
    assert weights.sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (weights.size, weights.member) == (checkpoint.stat().st_size, f"resemblyzer/{checkpoint.name}")
