"""Multilabel, regression, pitch and two-class tasks from audio to a row: planted data, shuffled labels, bad clips."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import recall_score
from sklearn.preprocessing import StandardScaler

from evar import cli, results
from evar.cli import run
from evar.data.task import load_task
from evar.metrics import METRICS
from evar.probes.multilabel import MultilabelProbe
from evar.probes.ridge import RidgeProbe


def lineval(root, *words):
    status = run(["lineval", "toy", "tones", *words, f"--out={root / 'results'}"])
    return status, results.load_all(root / "results")


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
@pytest.mark.parametrize("folds", [False, True])
def test_planted_labels_are_found(tones, kind, folds):
    root = tones(kind=kind, folds=folds, n_per_class=20)
    status, (row,) = lineval(root)
    assert status == cli.DONE and row.score >= 0.97 and row.interval[0] <= row.score <= row.interval[1]
    assert ("auc" in row.extras) == (kind == "multilabel") and ("r2" in row.extras) == (kind == "regression")
    kept = results.load_predictions(root / "results", row.id)
    function = METRICS[row.metric].function
    rounds = [
        function(kept["y_true"][own], kept["y_pred"][own]) for own in (kept["round"] == i for i in range(1 + 2 * folds))
    ]
    assert rounds == pytest.approx(row.round_scores, abs=0)  # the predictions that are kept give the very score


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_shuffled_labels_give_chance(tones, kind):
    root = tones(kind=kind, n_per_class=60, folds=True, shuffled=True)
    _, (row,) = lineval(root)
    assert abs(row.score - row.chance) < 0.15 and row.interval[0] < row.chance < row.interval[1]


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
@pytest.mark.parametrize("folds", [False, True])
def test_nearest_clips_tell_labels_and_numbers(tones, kind, folds):
    root = tones(kind=kind, folds=folds, n_per_class=20)
    status, (row,) = lineval(root, "--protocol=knn")
    assert status == cli.DONE and row.score >= 0.85 and "k" in row.params["chosen"][0]


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_rerun_gives_the_same_score(tones, kind):
    root = tones(kind=kind)
    _, (row,) = lineval(root)
    assert run(["rerun", str(root / "results" / "runs" / f"{row.id}.json")]) == cli.DONE


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_a_bad_test_clip_costs_score_and_is_named(tones, kind):
    root = tones(kind=kind, n_per_class=20)
    _, (before,) = lineval(root)
    bad = next(root.glob("data/tones/high_3.wav"))  # a test clip
    bad.write_bytes(b"not audio")
    for path in (root / "results" / "runs").iterdir():
        path.unlink()
    _, (after,) = lineval(root)
    assert after.n_test == before.n_test and after.score < before.score
    assert [entry["clip"] for entry in after.skipped] == ["high_3.wav"]


def test_a_protocol_without_a_probe_for_the_kind_says_so(tones, capsys):
    root = tones(kind="multilabel")
    status, rows = lineval(root, "--protocol=prototype")
    assert status == cli.SOME_FAILED and not rows
    assert "protocol prototype has no probe for multilabel tasks" in capsys.readouterr().out


def test_a_search_serves_multilabel_tasks(tones):
    root = tones(kind="multilabel", n_per_class=20)
    status, rows = lineval(root, "--fusion=search")
    assert status == cli.DONE and max(row.score for row in rows) >= 0.97


def test_two_classes_are_right(tones):
    root = tones(n_per_class=20)
    path = root / "config" / "tasks" / "tones.yaml"
    task = yaml.safe_load(path.read_text())
    index = (root / "config" / "tasks" / "tones.csv").read_text().splitlines()
    kept = [line for line in index if ",middle," not in line]
    (root / "config" / "tasks" / "tones.csv").write_text("\n".join(kept) + "\n")
    path.write_text(yaml.safe_dump({**task, "classes": ["low", "high"], "expected": {"clips": 40, "classes": 2}}))
    _, (row,) = lineval(root)
    assert row.score >= 0.95 and row.chance == 0.5 and row.extras["macro_f1"] >= 0.95


def test_pitch_tasks_show_the_chroma(tones):
    root = tones()
    path = root / "config" / "tasks" / "tones.yaml"
    task = yaml.safe_load(path.read_text())
    notes = [f"note {n}" for n in range(13)]
    path.write_text(yaml.safe_dump({**task, "classes": ["low", *notes[:11], "middle", "high"], "pitch": True}))
    _, (row,) = lineval(root)  # "low" and "middle" are an octave apart
    assert row.extras["chroma_accuracy"] >= row.score


def test_a_task_ranked_by_chroma_shows_accuracy_and_its_chance_counts_pitch_classes(tones):
    root = tones()
    path = root / "config" / "tasks" / "tones.yaml"
    task = yaml.safe_load(path.read_text())
    notes = [f"note {n}" for n in range(13)]
    classes = ["low", *notes[:11], "middle", "high"]
    path.write_text(yaml.safe_dump({**task, "classes": classes, "pitch": True, "metric": "chroma_accuracy"}))
    _, (row,) = lineval(root)  # the notes that occur are 0, 12 and 13: two pitch classes
    assert row.chance == 0.5 and row.n_classes == 14
    assert row.extras["accuracy"] <= row.score and "chroma_accuracy" not in row.extras


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "moods"}, "kind must be multiclass, multilabel, regression, events"),
        ({"kind": "events"}, "metric must be event_onset_f1"),
        ({"metric": "pearson"}, "metric must be accuracy"),
        ({"kind": "regression", "metric": "pearson"}, "classes must be empty"),
        ({"kind": "multilabel", "metric": "auc", "classes": ["a;b", "c"]}, "may hold"),
    ],
)
def test_kinds_that_do_not_fit_are_told(tones, change, said):
    root = tones()
    path = root / "config" / "tasks" / "tones.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(ValueError, match=said):
        load_task("tones")


def test_labels_of_the_index_are_checked(tones):
    root = tones(kind="regression")
    index = root / "config" / "tasks" / "tones.csv"
    index.write_text(index.read_text().replace("low_0.wav,0", "low_0.wav,loud"))
    with pytest.raises(ValueError, match="line 2: label must be a number, got 'loud'"):
        load_task("tones")
    root = tones(kind="multilabel")
    index.write_text(index.read_text().replace("low_0.wav,low", "low_0.wav,low;hihg"))
    with pytest.raises(ValueError, match=r"line 2: label 'hihg' is none of the 2 classes.*did you mean 'high'"):
        load_task("tones")


def test_a_clip_without_labels_and_validation_by_the_rarest_label(tones):
    root = tones(kind="multilabel", folds=True)
    index = root / "config" / "tasks" / "tones.csv"
    index.write_text(index.read_text().replace("low_0.wav,low", "low_0.wav,"))
    task = load_task("tones")
    assert task.y.shape == (36, 2) and not task.y[0].any() and task.y.sum(axis=0).tolist() == [23, 24]
    assert len(load_task("tones", limit=6)) == 18
    for a_round in task.rounds(1):
        assert task.y[a_round.valid].any(axis=0).all()


def _planted(n_clips=150, width=20, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_clips, width))
    return X, X[:, :4] + rng.normal(size=(n_clips, 4))


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_multilabel_probe_equals_scikit_learn_label_by_label(strength):
    X, signal = _planted()
    y = (signal > 0.5).astype(np.uint8)
    probe = MultilabelProbe(strengths=(strength,)).fit(X[:100], y[:100])
    scaler = StandardScaler().fit(X[:100])
    for label in range(4):
        other = LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(scaler.transform(X[:100]), y[:100, label])
        wanted = other.predict_proba(scaler.transform(X[100:]))[:, 1]
        assert probe.predict_proba(X[100:])[:, label] == pytest.approx(wanted, abs=1e-5)


def test_multilabel_probe_bears_labels_that_training_lacks():
    X, signal = _planted()
    y = (signal > 0.5).astype(np.uint8)
    y[:, 3] = 0
    y[120:, 3] = 1
    probe = MultilabelProbe().fit(X[:80], y[:80], X[80:110], y[80:110])
    assert np.ptp(probe.decision_function(X)[:, 3]) < 1e-3


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_ridge_probe_equals_scikit_learn(strength):
    X, signal = _planted()
    y = 3 + 2 * signal[:, 0]
    probe = RidgeProbe(strengths=(strength,)).fit(X[:100], y[:100])
    scaler = StandardScaler().fit(X[:100])
    spread = y[:100].std()
    other = Ridge(alpha=1 / strength).fit(scaler.transform(X[:100]), y[:100] / spread)
    assert probe.predict(X[100:]) == pytest.approx(other.predict(scaler.transform(X[100:])) * spread, abs=1e-8)


def test_ridge_probe_refits_on_both_splits_and_knows_the_edge():
    X, signal = _planted()
    y = signal[:, 0]
    both = RidgeProbe().fit(X[:80], y[:80], X[80:110], y[80:110])
    alone = RidgeProbe(refit="train").fit(X[:80], y[:80], X[80:110], y[80:110])
    assert both.strength_ == alone.strength_ and not np.allclose(both.coef_, alone.coef_)
    scaler = StandardScaler().fit(X[:80])
    other = Ridge(alpha=1 / both.strength_).fit(scaler.transform(X[:110]), y[:110])
    assert both.predict(X[110:]) == pytest.approx(other.predict(scaler.transform(X[110:])), abs=1e-8)
    with pytest.raises(ValueError, match="different labels"):
        RidgeProbe().fit(X[:80], np.ones(80), X[80:], y[80:])


def test_a_confusion_matrix_counts_what_was_taken_for_what(tones, capsys, real_pictures):
    root = tones(n_per_class=20, folds=True)
    (root / "data" / "tones" / "high_3.wav").write_bytes(b"not audio")
    _, (row,) = lineval(root)
    path = root / "results" / "runs" / f"{row.id}.json"
    assert run(["plot", "confusion", str(path), f"--out={root / 'plots'}"]) == cli.DONE
    (table,) = (path for path in (root / "plots").glob("*.csv") if not path.stem.endswith("_clips"))
    with table.open() as file:
        scores = {one["class"]: one for one in csv.DictReader(file)}
    kept = results.load_predictions(root / "results", row.id)
    assert list(scores) == ["low", "middle", "high"] and {one["clips"] for one in scores.values()} == {"20"}
    wanted = recall_score(kept["y_true"], kept["y_pred"], average=None, labels=[0, 1, 2])
    assert [float(one["recall"]) for one in scores.values()] == pytest.approx(wanted)
    assert scores["high"]["taken_for"] == "(unreadable)"
    assert table.with_suffix(".png").stat().st_size > 1000 and "class (worst first)" in capsys.readouterr().out
    assert run(["plot", "confusion", str(path), f"--out={root / 'figure2.png'}"]) == cli.DONE
    assert (root / "figure2.png").is_file() and (root / "figure2_clips.csv").is_file()


def test_a_confusion_matrix_is_for_tasks_of_one_class_a_clip(tones, capsys):
    root = tones(kind="multilabel")
    _, (row,) = lineval(root)
    assert run(["plot", "confusion", str(root / "results" / "runs" / f"{row.id}.json")]) == cli.WRONG
    assert "needs a task of one class a clip" in capsys.readouterr().err
