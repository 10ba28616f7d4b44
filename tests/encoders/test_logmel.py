"""The mel front-end against librosa and Kaldi's formulas, and the logmel encoder."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from evar.encoders import load_encoder
from evar.encoders._logmel import MelSpectrogram, mel_filterbank

RATE = 16000


def sweep(n_samples: int, seed: int = 0) -> torch.Tensor:
    """(1, samples) a rising tone in noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(n_samples, dtype=torch.float64) / RATE
    tone = 0.3 * torch.sin(2 * torch.pi * (200 + 300 * time) * time)
    return (tone + 0.02 * torch.randn(n_samples, generator=generator, dtype=torch.float64)).float()[None]


def relative(value: torch.Tensor | np.ndarray, reference: torch.Tensor | np.ndarray) -> float:
    """Relative L2 distance."""
    value, reference = (np.asarray(array, dtype=np.float64) for array in (value, reference))
    assert value.shape == reference.shape
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", ["none", "slaney", "sum"])
@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "f_min", "f_max"),
    [(16000, 512, 64, 50, 8000), (16000, 1024, 64, 60, 7800), (44100, 2048, 96, 0, None)],
)
def test_filterbank_equals_librosa(sample_rate, n_fft, n_mels, f_min, f_max, scale, norm):
    own = mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max, scale, norm)
    reference = librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=scale == "htk",
        norm={"none": None, "slaney": "slaney", "sum": 1}[norm], dtype=np.float64,
    )  # fmt: skip
    np.testing.assert_allclose(own, reference, rtol=1e-12, atol=1e-15)


def test_filterbank_linear_over_mel():
    own = mel_filterbank(16000, 512, 64, 125, 7500, "htk", "none", "mel")

    def mel(hertz: float) -> float:
        return 1127.0 * np.log1p(hertz / 700.0)

    edges = np.linspace(mel(125), mel(7500), 66)
    for band, bin_ in [(0, 5), (3, 9), (31, 70), (63, 230)]:
        low, peak, high = edges[band : band + 3]
        place = mel(bin_ * 16000 / 512)
        expected = max(0.0, min((place - low) / (peak - low), (high - place) / (high - peak)))
        assert own[band, bin_] == pytest.approx(expected, abs=1e-12)
    assert abs(own - mel_filterbank(16000, 512, 64, 125, 7500, "htk", "none", "hz")).max() > 1e-3


def test_cached_filters_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        mel_filterbank(16000, 512, 64)[0, 0] = 1.0


@pytest.mark.parametrize("center", ["constant", "reflect"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("n_fft", "win_length"), [(512, None), (1024, 400), (512, 401)])
def test_centred_spectrogram_equals_librosa(center, power, n_fft, win_length):
    waveform = sweep(8123)
    own = MelSpectrogram(
        sample_rate=RATE, n_fft=n_fft, win_length=win_length, hop=160, n_mels=40, center=center, power=power
    )(waveform)
    reference = librosa.feature.melspectrogram(
        y=waveform[0].numpy().astype(np.float64), sr=RATE, n_fft=n_fft, win_length=win_length, hop_length=160,
        n_mels=40, power=power, pad_mode=center,
    )  # fmt: skip
    assert relative(own[0], reference.T) < 1e-6


def test_frames_inside_the_clip_follow_kaldi():
    """Its steps in float64: frames from sample 0, mean removed, pre-emphasis, symmetric Hann, power, mel, log."""
    waveform = sweep(4000)
    mel = MelSpectrogram(
        sample_rate=RATE, n_fft=512, win_length=400, hop=160, n_mels=128, f_min=20, scale="htk", norm="none",
        slope="mel", window="symmetric", center="none", remove_dc=True, preemphasis=0.97,
    )  # fmt: skip
    frames = np.stack([waveform[0, start : start + 400].double().numpy() for start in range(0, 3601, 160)])
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames * np.hanning(400), n=512)) ** 2
    reference = power @ mel_filterbank(RATE, 512, 128, 20, None, "htk", "none", "mel").T
    assert mel.frames(4000) == 23
    assert relative(mel(waveform)[0], reference) < 1e-6


def test_kaldi_settings_equal_torchaudio():
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi", exc_type=ImportError)
    waveform = sweep(16000)
    mel = MelSpectrogram(
        sample_rate=RATE, n_fft=512, win_length=400, hop=160, n_mels=128, f_min=20, scale="htk", norm="none",
        slope="mel", window="symmetric", center="none", remove_dc=True, preemphasis=0.97,
    )  # fmt: skip
    reference = kaldi.fbank(
        waveform, htk_compat=True, sample_frequency=RATE, use_energy=False, window_type="hanning",
        num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip
    assert relative(mel(waveform)[0].clamp(min=1.1920929e-07).log(), reference) < 1e-5


@pytest.mark.parametrize("center", ["none", "constant", "reflect"])
def test_clips_of_unequal_length_do_not_see_each_other(center):
    mel = MelSpectrogram(sample_rate=RATE, n_fft=512, hop=160, n_mels=40, center=center)
    lengths = torch.tensor([16000, 5000, mel.min_samples, 15999])
    batch = torch.cat([sweep(16000, seed) for seed in range(4)])
    batch[torch.arange(16000)[None, :] >= lengths[:, None]] = 0.0
    together = mel(batch, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = mel(batch[row : row + 1, :length])[0]
        assert len(alone) == mel.frames(length)
        assert relative(together[row, : len(alone)], alone) < 1e-6
    if center == "reflect":  # without lengths a clip is mirrored at its batch's end, which must not go unseen
        alone = mel(batch[1:2, :5000])[0]
        assert relative(mel(batch)[1, : len(alone)], alone) > 1e-4


def test_long_clips_are_transformed_in_parts():
    mel = MelSpectrogram(sample_rate=RATE, n_fft=1024, hop=160, n_mels=40)
    waveform = sweep(RATE * 10)
    whole = mel._bands(mel._pad_ends(waveform, None).unfold(1, 1024, 160))
    assert relative(mel(waveform), whole) < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "mell"}, "no scale 'mell'; it has htk, slaney"),
        ({"norm": "slany"}, "did you mean 'slaney'"),
        ({"slope": "bark"}, "no slope 'bark'"),
        ({"center": "zeros"}, "no center 'zeros'"),
        ({"window": "hamming"}, "no window 'hamming'"),
        ({"power": 3}, "power=3"),
        ({"win_length": 1024}, "win_length=1024, n_fft=512"),
        ({"f_max": 9000.0}, "f_max=9000"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MelSpectrogram(**{"sample_rate": RATE, "n_fft": 512, "hop": 160, "n_mels": 64, **options})


def test_too_short_a_waveform_is_an_error():
    mel = MelSpectrogram(sample_rate=RATE, n_fft=512, hop=160, n_mels=64, center="none")
    with pytest.raises(ValueError, match="at least 512 samples here, got 511"):
        mel(torch.zeros(1, 511))


def test_logmel_encoder_equals_librosa_and_has_no_empty_band():
    encoder = load_encoder("logmel")
    waveform = sweep(12345)
    features = encoder.encode(waveform)
    reference = librosa.feature.melspectrogram(
        y=waveform[0].numpy(), sr=RATE, n_fft=1024, win_length=400, hop_length=160, n_mels=64, fmin=50, fmax=8000,
        norm=None, pad_mode="constant",
    )  # fmt: skip
    assert relative(features["logmel"][0], np.log(reference.T + 1e-6)) < 1e-5
    assert bool((encoder.mel.filterbank.sum(dim=0) > 0.5).all())
    assert encoder.encode(torch.zeros(1, 1)).frames["logmel"].tolist() == [1]
