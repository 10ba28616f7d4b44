"""Protocols that compare test clips with each other, from the command's request to rows and tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import toy

import evar
from evar.experiment.request import parse_request
from evar.experiment.resolving import resolve_request
from evar.probes.pairs import PairsProbe, draw_pairs
from evar.probes.spaces import fit_space
from evar.report.comparing import compare
from evar.results import Result, load_predictions


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with toy encoders and tones."""
    monkeypatch.setenv("EVAR_CONFIG", str(toy.write_config(tmp_path, n_per_class=16)))
    monkeypatch.setenv("EVAR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))
    return tmp_path


def run(place, protocol, encoders="toy_twins", tasks="tones", **flags):
    return evar.evaluate(encoders, tasks, protocol=protocol, out=str(place / "out"), quiet=True, **flags)


def test_separable_tones_are_found_clustered_and_verified_without_training(place):
    for protocol, others in (
        ("sound_retrieval", {"sound_retrieval_recall_at_1", "sound_retrieval_precision_at_10"}),
        ("clustering", {"adjusted_rand_index", "v_measure"}),
        ("pairs", {"pair_eer", "min_dcf_1_percent", "min_dcf_5_percent"}),
    ):
        before = len(toy.Bands.calls)
        outcome = run(place, protocol, layers="all", seeds=1)
        deaf, bands = outcome.rows
        assert bands.score >= 0.95 > deaf.score + 0.2, protocol
        assert bands.interval[0] <= bands.score <= bands.interval[1] and others <= set(bands.extra_intervals)
        (chosen,) = bands.params["chosen"]
        assert set(chosen["valid_scores"]) == {"raw", "centred", "standardised", "whitened"}
        assert chosen["valid_scores"][chosen["space"]] == max(chosen["valid_scores"].values())
        assert bands.rounds[0]["valid_score"] == pytest.approx(chosen["valid_scores"][chosen["space"]], abs=1e-6)
        assert Result.from_dict(json.loads(json.dumps(bands.to_dict()))) == bands
        assert len(toy.Bands.calls) == before or protocol == "sound_retrieval"  # vectors are shared by all protocols
        assert run(place, protocol, layers="all", seeds=1).n_new == 0
    assert deaf.params["compared"] == [{"pairs": "drawn", "n_same": 18, "n_different": 18}] and deaf.n_test == 36
    assert deaf.chance == 0.5 and bands.extras["pair_eer"] <= 0.06


def test_tables_compare_encoders_and_say_the_other_metrics(place):
    run(place, "pairs", "toy,toy_twins", layers="all")
    text = compare(place / "out", "layers=level|deaf|bands", baseline="toy:level").text
    assert "AUC in percent" in text and "EER" in text and "minDCF (p 0.01)" in text and "vectors " in text
    found = compare(place / "out", "layers=level|deaf|bands", baseline="toy:level").differences
    best = found[(found["layers"] == "bands") & (found["encoder"] == "toy")].iloc[0]
    assert best["difference"] > 0.3 and best["low"] > 0 and best["test"] == "bootstrap"


def test_a_clip_that_cannot_be_read_is_wrong_and_never_helps(place):
    (place / "data" / "tones" / "low_3.wav").write_bytes(b"RIFF nothing")  # a test clip
    for protocol in ("sound_retrieval", "clustering", "pairs"):
        (row,) = run(place, protocol, "toy", seeds=1).rows
        assert row.score < 0.99 and row.skipped[0]["counted"] == "wrong"
    kept = load_predictions(place / "out", row.id)
    is_bad = np.char.find(kept["clip"], "low_3") >= 0
    assert is_bad.any() and (kept["y_pred"][is_bad] == np.where(kept["y_true"][is_bad] > 0, -np.inf, np.inf)).all()


def test_published_pairs_are_tested_and_training_clips_are_of_other_speakers(place):
    """A tiny copy of VoxCeleb1-O: speakers are tones; one published label is wrong on purpose, and counts as published."""
    wav, clips = place / "data" / "voxceleb1" / "wav", []
    for speaker in range(1, 5):
        for video in range(1, 7):
            clips.append(f"id1000{speaker}/video{video}/00001.wav")
            (wav / clips[-1]).parent.mkdir(parents=True)
            soundfile.write(wav / clips[-1], toy.tone(speaker - 1, 10 * speaker + video), toy.RATE)
    tested = [clip for clip in clips if clip[6] in "12"]
    lines = [f"{int(a[6] == b[6])} {a} {b}" for a in tested for b in tested if a < b]
    lines[0] = "0" + lines[0][1:]
    (wav.parent / "veri_test2.txt").write_text("\n".join(lines))
    text = (evar.config.find("tasks", "voxceleb1_o")).read_text().replace("parts: {test: 4708}", "parts: {test: 12}")
    (place / "config" / "tasks" / "voxceleb1_o.yaml").write_text(text)
    (row,) = run(place, "pairs", "toy", "voxceleb1_o").rows
    assert row.n_test == len(lines) == 66 and row.params["compared"][0]["pairs"] == "published"
    assert 36 / 37 <= row.score < 1  # all but the pair with the wrong label are told apart
    assert row.n_train + row.n_valid == 12 and row.flags == ("random weights",)
    kept = load_predictions(place / "out", row.id)
    assert kept["clip"][0] == f"wav/{tested[0]} and wav/{tested[1]}" and kept["y_true"][0] == 0
    for clip in clips:
        if clip[6] in "34":
            (wav / clip).unlink()
    (alone,) = run(place, "pairs", "toy", "voxceleb1_o").rows
    assert (
        alone.n_train == 0 and alone.params["chosen"][0]["space"] == "raw" and "no training clips" in str(alone.params)
    )
    (wav.parent / "veri_test2.txt").write_text("\n".join(lines[1:]))
    assert run(place, "pairs", "toy", "voxceleb1_o").rows[0].id != alone.id


def test_drawn_pairs_are_balanced_fixed_and_never_of_one_group():
    rng = np.random.default_rng(0)
    for n in (60, 5000):  # listed, and too many to list
        y, groups = rng.integers(0, 4, n), rng.integers(0, n // 3, n).astype(str)
        pairs = draw_pairs(y, groups, 400, seed=0)
        is_same = y[pairs[:, 0]] == y[pairs[:, 1]]
        assert is_same.sum() == 200 == (~is_same).sum() and len({tuple(pair) for pair in pairs.tolist()}) == 400
        assert (groups[pairs[:, 0]] != groups[pairs[:, 1]]).all() and (pairs[:, 0] < pairs[:, 1]).all()
        assert np.array_equal(pairs, draw_pairs(y, groups, 400, seed=0))
        assert not np.array_equal(pairs, draw_pairs(y, groups, 400, seed=1))
    with pytest.raises(ValueError, match="no pair of clips of one class in different groups"):
        draw_pairs(np.array([0, 0, 1]), np.array(["a", "a", "b"]), 10, seed=0)
    speakers = PairsProbe(spaces=("raw",), interval_over="classes").fit(None, None, None, None)
    assert set(speakers.compare(np.eye(4), _clips([0, 0, 1, 1])).groups) == {"0\t0", "0\t1", "1\t1"}
    with pytest.raises(ValueError, match="interval_over must be groups or classes, got 'clips'"):
        PairsProbe(spaces=("raw",), interval_over="clips").fit(None, None, None, None).compare(
            np.eye(2), _clips([0, 1])
        )


def _clips(y):
    from evar.probes.comparing import ComparedClips

    return ComparedClips.of(y, np.arange(len(y)), np.arange(len(y)))


def test_whitening_equals_the_inverse_root_of_scikit_learns_shrunk_covariance():
    from sklearn.covariance import ledoit_wolf

    rng = np.random.default_rng(0)
    for n, width in ((50, 20), (30, 80)):
        X = rng.normal(size=(n, width)) @ rng.normal(size=(width, width))
        covariance, shrinkage = ledoit_wolf((X - X.mean(axis=0)) / X.std(axis=0))
        space = fit_space("whitened", X)
        values, axes = np.linalg.eigh(covariance)
        expected = (X - X.mean(axis=0)) / X.std(axis=0) @ (axes / np.sqrt(values)) @ axes.T
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert space.shrinkage == pytest.approx(shrinkage) and np.abs(space.find_directions(X) - expected).max() < 1e-6


def test_whitening_wins_where_one_direction_is_loud_and_says_nothing():
    """The planted case: a loud feature without meaning hides the class from the raw cosine."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    X = np.concatenate([50 * rng.normal(size=(120, 1)), 4 * np.eye(4)[y] + rng.normal(size=(120, 4))], axis=1)
    probe = PairsProbe(valid_clips=_clips(y[40:80])).fit(X[:40], y[:40], X[40:80], y[40:80])
    scores = probe.chosen_["valid_scores"]
    assert probe.chosen_["space"] in ("standardised", "whitened") and scores["raw"] < 0.6 < 0.85 < scores["whitened"]
    kept = PairsProbe().fit(X[:40], y[:40], None, None)
    assert kept.chosen_ == {"space": "raw", "reason": "there are no validation clips"}


def test_illegal_requests_are_refused_before_any_work(place):
    for protocol, task, flags, message in (
        ("pairs", "tones", {"fusion": "search"}, "--fusion=search fits probes, and protocol pairs has none"),
        ("clustering", "gm_multi", {}, "protocol clustering has no probe for multilabel tasks"),
    ):
        with pytest.raises(ValueError, match=message):
            grid = resolve_request(parse_request("toy", task, protocol=protocol, **flags))
            raise ValueError(grid.rejections[0].reason)
    text = (evar.config.find("protocols", "pairs")).read_text().replace("metric: pair_auc", "metric: pair_eer")
    (place / "config" / "protocols").mkdir()
    (place / "config" / "protocols" / "mine.yaml").write_text(text.replace("name: pairs", "name: mine"))
    with pytest.raises(ValueError, match="metric must be one where higher is better, such as .*pair_auc"):
        resolve_request(parse_request("toy", "tones", protocol="mine"))
    text = (evar.config.find("protocols", "linear")).read_text().replace("name: linear", "name: mine\nmetric: nmi")
    (place / "config" / "protocols" / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match="metric goes with probes that compare test clips"):
        resolve_request(parse_request("toy", "tones", protocol="mine"))
