"""Kaldi's filterbanks, decibels and min-max scaling against torchaudio and formulas written apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from evar.encoders._filterbanks import KALDI_FLOOR, KaldiFilterbank, scale_min_max, to_decibels

WINDOWS = {"povey": "povey", "symmetric": "hanning"}


def sound(n_samples: int, seed: int = 0, rate: int = 16000) -> Tensor:
    """(1, samples): a gliding tone in faint noise."""
    time = torch.arange(n_samples, dtype=torch.float64) / rate
    glide = 0.3 * torch.sin(2 * torch.pi * (200 + 900 * time) * time)
    return (glide + 0.01 * torch.randn(n_samples, generator=torch.Generator().manual_seed(seed))).float()[None]


def by_hand(samples: Tensor, window: str, n_mels: int, f_min: float, f_max: float, scale: float = 1.0) -> np.ndarray:
    """(time, band) in float64, from Kaldi's documentation, at 16 kHz."""
    values = samples.double().numpy() * scale
    frames = np.stack([values[at : at + 400] for at in range(0, len(values) - 399, 160)])
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    power = np.abs(np.fft.rfft(frames * (hann**0.85 if window == "povey" else hann), 512)) ** 2
    mels = 1127.0 * np.log1p(np.arange(257) * 16000 / 512 / 700)
    edges = np.linspace(1127.0 * np.log1p(f_min / 700), 1127.0 * np.log1p(f_max / 700), n_mels + 2)
    triangles = [np.interp(mels, edges[band : band + 3], [0, 1, 0]) for band in range(n_mels)]
    return np.log(np.maximum(power @ np.stack(triangles).T, 1.1920929e-07))


@pytest.mark.parametrize("window", list(WINDOWS))
@pytest.mark.parametrize(("n_mels", "f_min", "f_max"), [(128, 20.0, 8000.0), (64, 50.0, 7000.0)])
def test_the_filterbank_equals_its_formulas(window, n_mels, f_min, f_max):
    bank = KaldiFilterbank(n_mels=n_mels, window=window, f_min=f_min, f_max=f_max)
    waveform = sound(5000)
    own = bank(waveform)[0].double().numpy()
    assert own.shape == (int(bank.frames(5000)), n_mels)
    np.testing.assert_allclose(own, by_hand(waveform[0], window, n_mels, f_min, f_max), atol=2e-5)


@pytest.mark.parametrize("window", list(WINDOWS))
@pytest.mark.parametrize("scale", [1.0, 2.0**15])
def test_the_filterbank_equals_torchaudio(window, scale):
    torchaudio = pytest.importorskip("torchaudio", exc_type=ImportError)
    waveform = sound(16000)
    reference = torchaudio.compliance.kaldi.fbank(
        (waveform * scale).double(), sample_frequency=16000, window_type=WINDOWS[window], num_mel_bins=128, dither=0.0
    )
    own = KaldiFilterbank(window=window, scale=scale)(waveform)[0]
    np.testing.assert_allclose(own.numpy(), reference.float().numpy(), atol=2e-4)


def test_silence_is_the_floor_and_band_3_is_empty():
    bank = KaldiFilterbank()
    floor = float(torch.tensor(KALDI_FLOOR).log())
    assert bank.min_samples == 400
    assert bank(torch.zeros(1, 400)).flatten().tolist() == pytest.approx([floor] * 128)
    assert bank(sound(4000))[..., 3].flatten().tolist() == pytest.approx([floor] * int(bank.frames(4000)))


@pytest.mark.parametrize("mistake", ["other window", "other scale", "no pre-emphasis"])
def test_the_comparison_sees_a_mistake(mistake):
    waveform = sound(5000)
    bank = {
        "other window": KaldiFilterbank(window="symmetric"),
        "other scale": KaldiFilterbank(scale=1.001),
        "no pre-emphasis": KaldiFilterbank(preemphasis=0.0),
    }[mistake]
    error = np.abs(bank(waveform)[0].numpy() - by_hand(waveform[0], "povey", 128, 20.0, 8000.0)).max()
    assert error > 1e-3


def test_decibels_have_a_ceiling_of_each_clips_own():
    power = torch.tensor([[[1.0, 1e-4], [1e-7, 1e-12]], [[1e-6, 1e-7], [1.0, 1e-12]]])
    frames = torch.tensor([2, 1])  # the second clip's loud frame is padding
    decibels = to_decibels(power, frames, top_db=50.0)
    assert decibels[0].tolist() == [[0.0, pytest.approx(-40.0)], [-50.0, -50.0]]
    assert decibels[1, 0].tolist() == pytest.approx([-60.0, -70.0])
    alone = to_decibels(power[1:, :1], torch.tensor([1]), top_db=50.0)
    assert torch.equal(alone[0], decibels[1, :1])


def test_decibels_equal_torchaudio():
    torchaudio = pytest.importorskip("torchaudio", exc_type=ImportError)
    power = torch.rand(1, 30, 64).pow(12)
    reference = torchaudio.transforms.AmplitudeToDB("power", top_db=80.0)(power)
    torch.testing.assert_close(to_decibels(power, torch.tensor([30]), 80.0), reference)


def test_limits_become_minus_one_and_one():
    assert scale_min_max(torch.tensor([-79.6482, 50.6842]), -79.6482, 50.6842).tolist() == pytest.approx([-1.0, 1.0])
