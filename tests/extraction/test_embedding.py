"""`evar.embed`: the numbers of the feature store, for arrays and files, in the order given."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from toy import HOP, RATE, Bands, tone

from evar import embed, load_encoder
from evar.audio.reading import AudioError, resample
from evar.data.task import load_task
from evar.encoders.pooling import pool
from evar.extraction import embed as embedding
from evar.extraction import extract
from evar.storage.feature_store import FeatureStore


@pytest.fixture
def encoder(tones) -> Bands:
    tones(unequal=True)
    return load_encoder("toy")


def clips(*seconds: float) -> list[np.ndarray]:
    return [tone(number % 3, number, length) for number, length in enumerate(seconds)]


def test_files_give_the_numbers_of_the_store(encoder: Bands) -> None:
    task, store = load_task("tones"), FeatureStore()
    found = extract.extract(encoder, task.paths, task.policy(), store)
    vectors = embed(encoder, task.paths, layers="all")
    assert list(vectors) == ["level", "bands"]
    for layer, value in vectors.items():
        stored = store.load(found.key, [str(row) for row in found.rows], layer)
        assert value.dtype == np.float32 and np.array_equal(value, stored)


def test_a_vector_is_the_pooled_layer(encoder: Bands) -> None:
    (clip,) = clips(0.5)
    with torch.no_grad():
        features = encoder.encode(torch.from_numpy(clip)[None])
    expected = pool(features["bands"], features.frames["bands"], "mean").numpy()
    assert np.array_equal(embed(encoder, clip), expected)
    assert np.array_equal(embed(encoder, clip[None]), expected)
    assert np.array_equal(embed(encoder, torch.from_numpy(clip)), expected)
    peak = pool(features["bands"], features.frames["bands"], "mean_plus_max").numpy()
    assert np.array_equal(embed(encoder, clip, pooling="mean_plus_max"), peak)


def test_unequal_clips_come_back_in_the_order_given(encoder: Bands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "_SECONDS_AHEAD", 1.0)  # several portions
    given = clips(0.3, 0.9, 0.5, 0.7, 0.3, 1.1)
    together = embed(encoder, given, batch_size=2)
    assert together.shape == (6, 16)
    for one, clip in zip(together, given, strict=True):
        assert one == pytest.approx(embed(encoder, clip)[0], abs=1e-5)


def test_other_rates_are_resampled_and_integers_scaled(encoder: Bands) -> None:
    (clip,) = clips(0.5)
    double = resample(clip, RATE, 2 * RATE)
    expected = embed(encoder, resample(double, 2 * RATE, RATE))
    assert np.array_equal(embed(encoder, double, sample_rate=2 * RATE), expected)
    pcm = np.round(clip * 32768).astype(np.int16)
    assert np.array_equal(embed(encoder, pcm), embed(encoder, (pcm / 32768).astype(np.float32)))


def test_a_stereo_file_of_another_rate_is_mixed_down(encoder: Bands, tmp_path: Path) -> None:
    left, right = clips(0.5, 0.5)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    assert embed(encoder, str(tmp_path / "stereo.wav"))[0] == pytest.approx(
        embed(encoder, (left + right) / 2)[0], abs=1e-5
    )


def test_layers_and_fusions(encoder: Bands) -> None:
    given = clips(0.5, 0.6)
    every = embed(encoder, given, layers="all")
    joined = embed(encoder, given, layers="level,bands", fusion="concat")
    assert np.array_equal(joined, np.concatenate([every["level"], every["bands"]], axis=1))
    assert list(embed(encoder, given, layers=["bands"])) == ["bands"]
    assert np.array_equal(embed(encoder, given, layers=["bands"], fusion="none"), every["bands"])
    encoder.default_layers = ("level", "bands")
    assert np.array_equal(embed(encoder, given), joined)


def test_a_name_is_loaded(encoder: Bands) -> None:
    (clip,) = clips(0.5)
    assert np.array_equal(embed("toy", clip), embed(encoder, clip))


@pytest.mark.parametrize(
    ("audio", "said"),
    [
        ([], "at least one clip, got an empty list"),
        ([0.1, 0.2], "got a list of numbers"),
        (np.zeros((2, 3, 4), np.float32), "got shape (2, 3, 4)"),
        (np.zeros((RATE, 2), np.float32), "is it (samples, channels)? use audio.mean(axis=1)"),
        (np.zeros(3, np.float32), "clip 0 has 3 samples"),
        (np.full(RATE, np.nan, np.float32), "clip 0 has 8000 samples that are NaN"),
        (np.array(["a", "b"]), "float or integer samples, a path"),
    ],
)
def test_what_is_no_audio_is_told(encoder: Bands, audio: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        embed(encoder, audio)


def test_a_bad_file_is_named(encoder: Bands, tmp_path: Path) -> None:
    (tmp_path / "junk.wav").write_bytes(b"no audio")
    with pytest.raises(AudioError, match="junk.wav"):
        embed(encoder, tmp_path / "junk.wav")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layers": "bandz"}, "did you mean 'bands'?"),
        ({"layers": ["bands", "bands"]}, "named once each"),
        ({"layers": "all", "fusion": "conat"}, "did you mean 'concat'?"),
        ({"pooling": "maen"}, "did you mean 'mean'?"),
    ],
)
def test_misspelt_words_are_told(encoder: Bands, asked: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        embed(encoder, np.zeros(HOP * 4, np.float32), **asked)
