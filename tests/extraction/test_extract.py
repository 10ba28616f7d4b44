"""One pass: every clip once, batches as the encoder allows, bad clips named, nothing encoded twice."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from toy import Bands, tone

from evar.audio.reading import ClipPolicy
from evar.data.task import load_task
from evar.encoders import load_encoder
from evar.extraction import extract as extraction
from evar.extraction.extract import extract
from evar.extraction.plan import plan
from evar.storage.feature_store import FeatureStore


def vectors_of(result, store, layer="bands"):
    return store.load(result.key, [row for row in result.rows if row], layer)


def test_each_clip_is_encoded_once_and_then_never_again(tones):
    tones()
    task, encoder, store = load_task("tones"), load_encoder("toy"), FeatureStore()
    first = extract(encoder, task.paths, task.policy(), store)
    assert sum(Bands.calls) == 36 and first.n_encoded == 36 and first.n_stored == 0
    again = extract(encoder, task.paths, task.policy(), store)
    assert sum(Bands.calls) == 36 and again.n_encoded == 0 and again.n_stored == 36
    assert np.array_equal(vectors_of(first, store), vectors_of(again, store))


@pytest.mark.parametrize("name", ["toy", "toy_fragile"])
def test_batching_changes_no_vector(tones, tmp_path, name):
    """Unequal lengths: padding and batch-mates must not be seen, whatever the batch size."""
    tones(unequal=True)
    task, encoder = load_task("tones"), load_encoder(name)
    found = []
    for batch_size in (None, 1, 5):
        store = FeatureStore(tmp_path / f"store{batch_size}")
        found.append(vectors_of(extract(encoder, task.paths, task.policy(), store, batch_size), store))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5, atol=1e-6)
    wave, _ = soundfile.read(task.paths[3], dtype="float32")
    alone = encoder.encode(torch.from_numpy(wave)[None])["bands"].mean(1).detach().numpy()
    np.testing.assert_allclose(found[0][3], alone[0], rtol=1e-5, atol=1e-6)


def test_new_clips_only(tones):
    root = tones()
    task, encoder, store = load_task("tones"), load_encoder("toy"), FeatureStore()
    part = extract(encoder, task.paths[:20], task.policy(), store)
    whole = extract(encoder, task.paths, task.policy(), store)
    assert (part.n_encoded, whole.n_encoded, whole.n_stored) == (20, 16, 20)
    soundfile.write(root / "data" / "tones" / "low_0.wav", tone(1, 999), 8000)  # another content at the same path
    assert extract(encoder, task.paths, task.policy(), store).n_encoded == 1


def test_the_same_audio_at_two_places_is_encoded_once(tones):
    root = tones()
    task, store = load_task("tones"), FeatureStore()
    folder = root / "data" / "tones"
    (folder / "low_1.wav").write_bytes((folder / "low_0.wav").read_bytes())
    result = extract(load_encoder("toy"), task.paths, task.policy(), store)
    assert result.n_encoded == 35 and result.rows[0] == result.rows[1] and not result.bad


def test_a_byte_of_the_weights_changed_encodes_again(tones, tmp_path):
    from safetensors.torch import save_file

    tones()
    task, store = load_task("tones"), FeatureStore()
    scale = torch.ones(16)
    for value, expected in ((1.0, 36), (1.0, 0), (1.0000001, 36)):
        scale[3] = value
        save_file({"scale": scale}, tmp_path / "toy.safetensors")
        encoder = load_encoder("toy", tmp_path / "toy.safetensors")
        assert extract(encoder, task.paths, task.policy(), store).n_encoded == expected


def test_bad_clips_are_named_and_the_others_go_on(tones):
    root = tones()
    folder = root / "data" / "tones"
    (folder / "low_2.wav").write_bytes(b"junk")
    (folder / "low_3.wav").unlink()
    data = bytearray((folder / "low_4.wav").read_bytes())
    (folder / "low_4.wav").write_bytes(bytes(data[:60]))  # header says 4000 samples, almost none follow
    task = load_task("tones")
    result = extract(load_encoder("toy"), task.paths, task.policy(), FeatureStore())
    assert sorted(result.bad) == [2, 3, 4] and result.n_encoded == 33
    assert "missing" in result.bad[3] and "not decodable" in result.bad[2] and "too short" in result.bad[4]
    assert [position for position, row in enumerate(result.rows) if row is None] == [2, 3, 4]


def test_vectors_that_are_not_finite_in_any_layer_are_bad_clips(tones):
    tones()
    task, encoder = load_task("tones"), load_encoder("toy")
    forward = encoder.forward
    encoder.forward = lambda *batch: {name: frames * torch.inf for name, frames in forward(*batch).items()}
    result = extract(encoder, task.paths, task.policy(), FeatureStore())
    assert len(result.bad) == 36 and "not finite" in result.bad[0]


def test_a_layer_that_is_not_finite_leaves_the_vectors_of_the_others(tones):
    tones()
    task, encoder, store = load_task("tones"), load_encoder("toy"), FeatureStore()
    with torch.no_grad():
        encoder.scale[2] = torch.inf
    result = extract(encoder, task.paths, task.policy(), store)
    assert not result.bad and result.n_encoded == 36
    assert np.isfinite(store.load(result.key, result.rows, "level")).all()
    is_finite = np.isfinite(store.load(result.key, result.rows, "bands"))
    assert not is_finite[:, 2].any() and is_finite[:, 3].all()


def test_a_full_disk_is_refused_before_the_first_clip(tones, monkeypatch):
    tones()
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(extraction.shutil, "disk_usage", lambda folder: usage)
    task = load_task("tones")
    with pytest.raises(OSError, match="needs about .* GB .* free; choose another disk with --store"):
        extract(load_encoder("toy"), task.paths, task.policy(), FeatureStore())
    assert not Bands.calls


def test_a_stop_in_the_middle_loses_only_the_batch_in_flight(tones, monkeypatch, tmp_path):
    tones(unequal=True)
    task, encoder = load_task("tones"), load_encoder("toy")
    whole = FeatureStore(tmp_path / "whole")
    expected = vectors_of(extract(encoder, task.paths, task.policy(), whole, batch_size=4), whole)
    calls = 0
    forward = Bands.forward

    def stop_at_fifth(self, waveform, lengths):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return forward(self, waveform, lengths)

    store = FeatureStore()
    monkeypatch.setattr(Bands, "forward", stop_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        extract(encoder, task.paths, task.policy(), store, batch_size=4)
    monkeypatch.setattr(Bands, "forward", forward)
    rest = extract(encoder, task.paths, task.policy(), store, batch_size=4)
    assert (rest.n_stored, rest.n_encoded) == (16, 20)
    assert np.array_equal(vectors_of(rest, store), expected)  # the same batches again: equal to the last bit


def test_plan_decodes_nothing(tones, monkeypatch):
    tones()
    monkeypatch.setattr(extraction, "read_clip", None)
    task = load_task("tones")
    planned = plan(load_encoder("toy"), task.paths, ClipPolicy(None), FeatureStore())
    assert len(planned.todo) == 36 and planned.audio_seconds == pytest.approx(18.0)
