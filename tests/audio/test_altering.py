"""Alterations do what their severities say: exact ratios, known decays, bands, and codecs without delay."""

from __future__ import annotations

import numpy as np
import pytest
from toy import noise_with_bands

from evar.audio.altering.bands import change_rate, keep_band
from evar.audio.altering.codecs import code_mp3, code_opus
from evar.audio.altering.levels import clip_peaks
from evar.audio.altering.noises import add_pink_noise, add_white_noise, make_pink_noise
from evar.audio.altering.rooms import add_reverberation, make_impulse_response


def find_lag(one: np.ndarray, other: np.ndarray) -> int:
    """Samples by which `one` is later than `other`: the peak of their cross-correlation."""
    n = 2 * len(one)
    correlation = np.fft.irfft(np.fft.rfft(one, n) * np.conj(np.fft.rfft(other, n)))
    peak = int(correlation.argmax())
    return peak if peak < len(one) else peak - n


def measure_power(clip: np.ndarray, rate: int, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(clip.astype(np.float64))) ** 2
    frequencies = np.fft.rfftfreq(len(clip), 1 / rate)
    return float(power[(frequencies >= low) & (frequencies < high)].sum())


@pytest.mark.parametrize("add", [add_white_noise, add_pink_noise])
@pytest.mark.parametrize("snr_db", [30.0, 0.0, -10.0])
def test_the_ratio_of_noise_is_exact_and_the_noise_is_the_same_at_each(add, snr_db):
    clip = noise_with_bands(1, seconds=1.0)
    noise = add(clip, 16000, snr_db=snr_db, rng=np.random.default_rng(3)).astype(np.float64) - clip
    assert 10 * np.log10(np.mean(clip.astype(np.float64) ** 2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=1e-4)
    other = add(clip, 16000, snr_db=10.0, rng=np.random.default_rng(3)).astype(np.float64) - clip
    assert np.corrcoef(noise, other)[0, 1] > 0.9999
    silent = np.zeros(100, np.float32)
    assert np.array_equal(add(silent, 16000, snr_db=snr_db, rng=np.random.default_rng(3)), silent)


def test_pink_noise_has_one_power_in_each_octave():
    noise = make_pink_noise(1 << 17, 16000, np.random.default_rng(0))
    powers = [measure_power(noise, 16000, low, 2 * low) for low in (62.5, 250.0, 1000.0, 4000.0)]
    assert max(powers) / min(powers) < 1.2


@pytest.mark.parametrize("rt60", [0.3, 1.2])
def test_reverberation_decays_by_60_db_in_its_time(rt60):
    rate = 16000
    response = make_impulse_response(rate, rt60, np.random.default_rng(0), direct_db=3.0)
    tail = response[1:]
    assert response[0] == 1.0 and 10 * np.log10(1 / np.sum(tail**2)) == pytest.approx(3.0)
    left = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1])  # Schroeder: the energy that is still to come
    fitted = np.polyfit(np.arange(len(tail) // 2) / rate, left[: len(tail) // 2], 1)
    assert -60 / fitted[0] == pytest.approx(rt60, rel=0.05)
    clip = noise_with_bands(2, seconds=1.0)
    wet = add_reverberation(clip, rate, rt60_seconds=rt60, rng=np.random.default_rng(0))
    assert len(wet) == len(clip) and find_lag(wet, clip) == 0
    assert np.mean(wet.astype(np.float64) ** 2) == pytest.approx(np.mean(clip.astype(np.float64) ** 2), rel=1e-5)


def test_bands_and_rates_remove_what_lies_outside_and_keep_the_time():
    rate, clip = 16000, np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    telephone = keep_band(clip, rate, low_hz=300.0, high_hz=3400.0)
    for low, high, most in ((0, 200, -40), (3500, 8000, -40), (400, 3300, 0.1)):
        changed = measure_power(telephone, rate, low, high) / measure_power(clip, rate, low, high)
        assert 10 * np.log10(changed) < most
    assert 10 * np.log10(measure_power(telephone, rate, 400, 3300) / measure_power(clip, rate, 400, 3300)) > -0.1
    slow = change_rate(clip, rate, rate_hz=8000)
    assert measure_power(slow, rate, 4100, 8000) < 1e-3 * measure_power(clip, rate, 4100, 8000)
    assert find_lag(telephone, clip) == find_lag(slow, clip) == 0 and len(slow) == len(telephone) == len(clip)
    assert np.array_equal(keep_band(clip, rate, high_hz=8000.0), clip)  # nothing lies above
    assert np.abs(clip_peaks(clip, rate, over_db=6.0)).max() == pytest.approx(np.abs(clip).max() / 10**0.3, rel=1e-5)


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
@pytest.mark.parametrize(
    ("code", "kbps", "least"),
    [(code_mp3, 128, 0.95), (code_mp3, 32, 0.85), (code_mp3, 16, 0.6), (code_opus, 64, 0.95), (code_opus, 16, 0.6)],
)
def test_codecs_keep_length_and_time(rate, code, kbps, least):
    clip = noise_with_bands(4, seconds=0.4, rate=rate)
    coded = code(clip, rate, kbps=kbps)
    assert len(coded) == len(clip) and coded.dtype == np.float32 and not np.array_equal(coded, clip)
    assert abs(find_lag(coded, clip)) <= (0 if kbps >= 32 else rate / 8000)  # phases of a coarse codec are no delay
    assert np.corrcoef(coded, clip)[0, 1] > least


def test_fewer_bits_lose_more():
    clip = np.random.default_rng(0).standard_normal(22050).astype(np.float32) * 0.1
    for code, rates in ((code_mp3, (128, 64, 32, 16)), (code_opus, (64, 32, 16, 8))):
        found = [np.corrcoef(code(clip, 22050, kbps=kbps), clip)[0, 1] for kbps in rates]
        assert found == sorted(found, reverse=True)
    for code, wrong in ((code_mp3, 33), (code_opus, 500)):
        with pytest.raises(ValueError, match="kbps must be a bit rate of"):
            code(clip, 22050, kbps=wrong)
