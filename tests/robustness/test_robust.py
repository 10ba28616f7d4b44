"""`evar robust`: right on planted layers, only test clips altered, nothing encoded twice, rows recomputable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from toy import RATE, Bands, tone

import evar
from evar import cli, results
from evar.audio.reading import ClipPolicy
from evar.audio.segments import Segment
from evar.cli import run
from evar.config.alteration import choose_alterations
from evar.encoders import load_encoder
from evar.extraction.altered import AlteredPass, extract_altered
from evar.extraction.conditions import list_conditions
from evar.metrics.significance import compare_pairs
from evar.results.robustness import load_altered_predictions, load_robustness
from evar.storage.feature_store import FeatureStore
from evar.webpage.context import Context, Settings
from evar.webpage.page import render_page
from evar.webpage.robustness import make_robustness

PLANTED = Path(__file__).with_name("planted.py")
ENCODER = f"{PLANTED}:Planted"


def measure(root: Path, encoder: str = ENCODER, **flags: object) -> evar.robustness.cell.RobustnessOutcome:  # type: ignore[name-defined]
    return evar.measure_robustness(encoder, "tones", out=str(root / "results"), **flags)


def write_alteration(root: Path, function: str, parameter: str, severities: list[float]) -> Path:
    path = root / f"{function}.yaml"
    text = {"title": function, "function": f"{PLANTED}:{function}", "parameter": parameter, "unit": "none"}
    path.write_text(yaml.safe_dump({**text, "severities": severities}))
    return path


def test_a_layer_that_ignores_the_level_survives_and_the_loss_of_the_other_is_known(tones):
    root = tones(n_per_class=40)
    outcome = measure(root, alterations="level", severities="level=-20/-50")
    found = {(one.layers[0], one.severity): one for one in outcome.records}
    assert found["shape", -50.0].clean_score == found["gated", -50.0].clean_score == 1.0
    assert [found["shape", severity].loss for severity in (-20.0, -50.0, None)] == [0.0, 0.0, 0.0]
    assert found["gated", -20.0].loss == 0.0  # still louder than the gate
    quiet = found["gated", -50.0]  # all clips alike: one class of three is right
    assert quiet.loss == pytest.approx(2 / 3) and quiet.score == pytest.approx(1 / 3)
    assert quiet.loss_interval[0] <= 2 / 3 <= quiet.loss_interval[1] and quiet.loss_interval[0] > 0.3
    assert quiet.p < 1e-4 and quiet.test == "McNemar"
    assert found["gated", None].loss == pytest.approx(1 / 3)  # mean over the two severities
    assert found["gated", None].severities == (-20.0, -50.0)

    # The loss follows from the predictions of both rows alone.
    clean = results.load_predictions(root / "results", quiet.runs[0])
    (altered,) = load_altered_predictions(root / "results", quiet)
    assert clean["clip"].tolist() == altered["clip"].tolist() and len(clean["clip"]) == 30
    again = compare_pairs(
        *("accuracy", clean["y_true"], [clean["y_pred"]], [altered["y_pred"]], clean["group"], clean["round"])
    )
    assert (again.value, again.low, again.high, again.p) == (quiet.loss, *quiet.loss_interval, quiet.p)


def test_a_second_run_encodes_nothing_and_new_severities_only_their_own(tones, capsys):
    root = tones(n_per_class=8, folds=True)
    first = measure(root, "toy", alterations="white_noise", severities="white_noise=10")
    assert (first.n_encoded, first.n_altered) == (24, 24) and sum(
        Bands.calls
    ) == 48  # each clip is tested once in its fold
    again = measure(root, "toy", alterations="white_noise", severities="white_noise=10")
    assert sum(Bands.calls) == 48 and [one.id for one in again.records] == [one.id for one in first.records]
    more = measure(root, "toy", alterations="white_noise", severities="white_noise=10/0")
    assert more.n_altered == 24 and sum(Bands.calls) == 72
    assert {one.severity for one in more.records} == {10.0, 0.0, None} and len(more.table()) == len(more.records) == 6
    # The clean rows are those of lineval.
    before = {path.name for path in (root / "results" / "runs").iterdir()}
    evar.evaluate("toy", "tones", layers="all", out=str(root / "results"))
    assert {path.name for path in (root / "results" / "runs").iterdir()} == before and sum(Bands.calls) == 72
    # The command finds all of it, and shows it.
    words = ["robust", "toy", "tones", f"--out={root / 'results'}", "--alterations=white_noise"]
    assert run([*words, "--severities=white_noise=10/0"]) == cli.DONE and sum(Bands.calls) == 72
    names = {path.name for path in (root / "results").iterdir()}
    assert {
        "robustness.md",
        "robustness.csv",
        "robustness.json",
        "robustness_tones.png",
        "robustness_tones_toy_random.png",
    } <= names
    lines = json.loads((root / "results" / "robustness.json").read_text())
    assert {line["severity"] for line in lines} == {10.0, 0.0, "mean"}
    assert "best layer" in capsys.readouterr().out
    # A record is computed again from its file, with an empty store.
    path = root / "results" / "robustness" / f"{more.records[-1].id}.json"
    assert run(["rerun", str(path), f"--store={root / 'empty'}"]) == cli.DONE and sum(Bands.calls) == 72 + 72
    assert "0 of 48 predictions changed" in capsys.readouterr().out
    # The report shows it as well.
    part = make_robustness(Context(Settings(root / "results", root / "report.html"), []))
    assert part is not None and len(part.shown["sections"][0]["rows"]) == 2
    assert "Change of every layer" in (page := render_page("tones", [part])) and "are in robustness.csv" in page


@pytest.mark.parametrize(("kind", "fusion"), [("multiclass", "pca"), ("multilabel", "none"), ("regression", "concat")])
def test_an_alteration_that_changes_nothing_costs_nothing(tones, kind, fusion):
    """All kinds of labels, fitted fusions, and an own function: the path of altered clips is that of clean clips."""
    root = tones(folds=True, unequal=True, kind=kind)
    path = write_alteration(root, "keep_all", "times", [1.0])
    outcome = measure(root, "toy", alterations=str(path), fusion=fusion, seeds=2)
    assert not outcome.failures and outcome.n_altered == 36
    for record in outcome.records:
        assert (record.loss, record.loss_interval) == (0.0, (0.0, 0.0)) and len(record.predictions) == len(
            record.runs
        ) == 2
        for id, altered in zip(record.runs, load_altered_predictions(root / "results", record), strict=True):
            clean = results.load_predictions(root / "results", id)
            assert np.array_equal(clean["y_pred"], altered["y_pred"])
    if kind == "multilabel":  # and one that does harm is seen in every metric
        (harmed,) = measure(
            root, "toy", alterations="white_noise", severities="white_noise=-30", layers="bands"
        ).records
        assert harmed.metric == "mean_average_precision" and harmed.loss > 0.2 and harmed.test == "bootstrap"


def test_a_clip_is_altered_alike_alone_and_in_a_batch(tones, tmp_path):
    tones()
    paths = [tmp_path / "data" / "tones" / f"low_{number}.wav" for number in range(4)]
    encoder, conditions = load_encoder("toy"), list_conditions(choose_alterations("white_noise,reverberation"))[3:5]
    assert [one.label for one in conditions] == ["white_noise 0", "reverberation 0.3"]
    policy, vectors = ClipPolicy(seconds=None), []
    for name, chosen in (("all", paths), ("one", paths[2:3])):
        store = FeatureStore(tmp_path / name)
        found = extract_altered(AlteredPass(encoder, chosen, policy, store), conditions)
        of = [found[condition] for condition in conditions]
        vectors.append([store.load(one.key, one.rows[-2 if name == "all" else 0 :][:1], "bands") for one in of])
    for together, alone in zip(*vectors, strict=True):
        assert np.array_equal(together, alone)
    # A part of a long recording is altered like a file that holds nothing else, up to what is drawn.
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate([tone(0, 1), tone(1, 2), tone(2, 3)]), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "part.wav", tone(1, 2), RATE, subtype="FLOAT")
    level = list_conditions(choose_alterations("level", "level=-20"))
    store, parts = FeatureStore(tmp_path / "parts"), [Segment(long, 0.5, 1.0), tmp_path / "part.wav"]
    (of_parts,) = extract_altered(AlteredPass(encoder, parts, policy, store), level).values()
    one, other = store.load(of_parts.key, of_parts.rows, "bands")
    assert not of_parts.bad and np.array_equal(one, other)
    first, second = (conditions[0].apply(tone(0, 1), RATE, clip) for clip in ("a", "b"))
    assert not np.array_equal(first, second)  # each clip has a noise of its own


def test_test_clips_are_encoded_under_the_statistics_of_their_own_round_only(tones):
    root = tones(folds=True)
    path = write_alteration(root, "keep_all", "times", [1.0])
    outcome = measure(root, "toy_normalised", alterations=str(path), layers="bands")
    assert outcome.n_encoded == 3 * 36 and outcome.n_altered == 36  # three folds, three pairs of statistics
    assert [record.loss for record in outcome.records] == [0.0]


def test_clips_that_cannot_be_altered_count_as_wrong_and_are_named(tones):
    root = tones(n_per_class=16)
    path = write_alteration(root, "fail_when_loud", "limit", [0.5])
    outcome = measure(root, alterations=str(path), layers="shape")
    (record,) = outcome.records
    assert 0 < record.n_failed < record.n_test == 12 and record.score == pytest.approx(1 - record.n_failed / 12)
    assert len(record.failed) == record.n_failed and "RuntimeError: too loud" in record.failed[0]["reason"]


def test_the_key_of_clean_vectors_is_as_before_and_altered_ones_differ(tones):
    import dataclasses
    import hashlib

    from evar.extraction.plan import feature_key

    tones()
    key = feature_key(load_encoder("toy"), ClipPolicy(seconds=1.0))
    fields = {name: value for name, value in dataclasses.asdict(key).items() if name != "alteration"}
    text = json.dumps(fields, sort_keys=True, default=str)
    assert key.digest == hashlib.sha256(text.encode()).hexdigest()[:16]
    conditions = list_conditions(choose_alterations("noise,mp3", "mp3=32/16"))
    digests = {dataclasses.replace(key, alteration=one.describe()).digest for one in conditions}
    assert len(digests) == len(conditions) == 10 and key.digest not in digests


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--alterations=white"], "no alteration 'white'"),
        (["--alterations=mp3", "--severities=opus=8"], "not among the alterations"),
        (["--alterations=mp3", "--severities=mp3=33"], "kbps must be a bit rate of mp3"),
        (["--background=nowhere.wav"], "no file nowhere.wav"),
        (["--protocol=attentive"], "reads frames"),
        (["--protocol=clustering"], "fits none"),
        (["--fusion=search"], "looks for layers"),
    ],
)
def test_illegal_requests_are_refused_before_any_work(tones, capsys, words, reason):
    root = tones()
    assert run(["robust", "toy", "tones", f"--out={root / 'results'}", *words]) == cli.WRONG
    assert reason in capsys.readouterr().err and not Bands.calls


def test_a_dry_run_counts_and_encodes_nothing(tones, capsys):
    root = tones(n_per_class=8)
    words = ["robust", "toy", "tones", f"--out={root / 'results'}", "--alterations=crop", "--dry_run"]
    assert run(words) == cli.DONE and not Bands.calls
    assert "6 test clips; 18 altered clips to encode" in capsys.readouterr().out


def test_a_recording_is_mixed_in_and_known_by_its_content(tones, tmp_path):
    tones()
    sound = tmp_path / "crowd.wav"
    soundfile.write(sound, np.random.default_rng(0).standard_normal(3000) * 0.1, RATE)
    found = choose_alterations("telephone", "background=5", str(sound))
    assert [one.name for one in found] == ["telephone", "background"]
    (condition,) = list_conditions(found[1:])
    assert (
        str(tmp_path) not in json.dumps(condition.describe()) and len(condition.describe()["params"]["recording"]) == 64
    )
    clip = tone(0, 1, seconds=1.0)
    noise = condition.apply(clip, RATE, "a") - clip
    assert 10 * np.log10(np.mean(clip**2) / np.mean(noise**2)) == pytest.approx(5.0, abs=1e-3)
    assert load_robustness(tmp_path) == []
