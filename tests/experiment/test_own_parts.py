"""Metrics, poolings and probes of one's own: the examples work from the command line, and broken promises are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.base import BaseEstimator

from evar import cli, load_encoder, results
from evar.audio.reading import ClipPolicy
from evar.cli import run
from evar.encoders.pooling import check_pooling, describe_pooling, find_pooling, mean, pool
from evar.extraction.plan import feature_key
from evar.metrics import METRICS, Metric, check_metric, register_metric
from evar.probes.protocol import ProbeTraits, check_probe

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.fixture(autouse=True)
def forget_own_metrics():
    """What a test registers is gone after it: other tests count the metrics of the package."""
    before = dict(METRICS)
    yield
    METRICS.clear()
    METRICS.update(before)


def lineval(root, *words):
    status = run(["lineval", "toy", "tones", *words, f"--out={root / 'results'}"])
    return status, results.load_all(root / "results")


def change_task(root, **changes):
    path = root / "config" / "tasks" / "tones.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def test_an_own_metric_ranks_a_task_and_has_interval_chance_and_neighbours(tones):
    root = tones()
    name = f"{EXAMPLES / 'my_metric.py'}:NEAR_ACCURACY"
    change_task(root, metric=name)
    status, (row,) = lineval(root)
    assert status == cli.DONE and row.metric == name and row.score >= row.extras["accuracy"] >= 0.95
    assert row.interval[0] <= row.score <= row.interval[1] and "200 resamples" in row.interval_method
    assert row.chance == pytest.approx(np.mean([2, 3, 2]) / 3)  # three classes, equally many clips of each
    assert METRICS[name].display_name == "accuracy within one class" and len(METRICS[name].source_sha256) == 16
    change_task(root, metric="accuracy")
    _, rows = lineval(root)
    (plain,) = [one for one in rows if one.metric == "accuracy"]
    assert set(plain.extras) >= {"macro_f1"} and name not in plain.extras  # an own metric touches no other task


def test_tables_and_reruns_know_an_own_metric_and_an_own_probe(tones, capsys):
    root = tones()
    change_task(root, metric=f"{EXAMPLES / 'my_metric.py'}:NEAR_ACCURACY")
    status, rows = lineval(root, f"--protocol={EXAMPLES / 'my_probe.py'}:DiscriminantProbe")
    assert status == cli.DONE and len(rows) == 1
    assert "Scores: accuracy within one class in percent" in (root / "results" / "table.md").read_text()
    (path,) = (root / "results" / "runs").glob("*.json")
    assert run(["rerun", str(path), "--trust_code"]) == cli.DONE and "the same" in capsys.readouterr().out


def test_another_source_of_an_own_metric_is_another_row(tones):
    root = tones()
    own = root / "mine.py"
    own.write_text((EXAMPLES / "my_metric.py").read_text())
    change_task(root, metric=f"{own}:NEAR_ACCURACY")
    lineval(root)
    own.write_text(own.read_text().replace("<= 1)", "<= 2)"))
    _, rows = lineval(root)
    assert len({row.id for row in rows}) == 2
    lineval(root)
    assert len(results.load_all(root / "results")) == 2


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (np.mean, "must be an evar.metrics.Metric, got"),
        (Metric(METRICS["accuracy"].function, kind="moods"), "kind must be multiclass"),
        (Metric(METRICS["accuracy"].function, bounds=(0.0, 5.0)), "bounds must be (0.0, 1.0)"),
        (Metric(METRICS["accuracy"].function, higher_is_better=False), "higher_is_better True"),
        (Metric(lambda t, p: METRICS["accuracy"].function(t, p) / 2), "a perfect prediction must score 1, got 0.5"),
        (Metric(lambda t, p: float(np.mean(np.asarray(t) == p[: len(t)])) ** 0.5 + 1), "must lie in 0..1"),
        (Metric(lambda t, p: np.equal(t, p)), "must be one finite number"),
        (Metric(lambda t, p: 1 / 0), "raised ZeroDivisionError"),
        (Metric(METRICS["accuracy"].function, chance=33.0), "chance must lie in 0..1, got 33.0"),
        (Metric(METRICS["accuracy"].function, resampled=lambda t, p, i, c: np.zeros(len(c))), "resampled must give"),
    ],
)
def test_a_broken_promise_of_a_metric_is_named(metric, said):
    assert any(said in sentence for sentence in check_metric(metric)), check_metric(metric)
    with pytest.raises(ValueError, match="breaks"):
        register_metric("mine:METRIC", metric)
    assert "mine:METRIC" not in METRICS


def test_a_metric_that_is_not_there_or_of_another_kind_is_said_with_the_yaml(tones, capsys):
    root = tones()
    for metric, said in (
        ("nowhere.py:M", "nowhere.py"),
        (f"{EXAMPLES / 'my_metric.py'}:MISSING", "has no 'MISSING'"),
        (f"{EXAMPLES / 'my_metric.py'}:near_accuracy", "write NAME = Metric(your_function, kind=...)"),
    ):
        change_task(root, metric=metric)
        status, _ = lineval(root)
        assert status == cli.WRONG and said in capsys.readouterr().err


def write_toy(root, name, **changes):
    entry = {"implementation": "toy:Bands", "description": "bands", "trained_on": "nothing", "citation": "none"}
    (root / "config" / "encoders" / f"{name}.yaml").write_text(yaml.safe_dump({**entry, **changes}))


def test_an_own_pooling_is_named_in_a_yaml_and_its_source_is_part_of_the_key(tones, capsys):
    root = tones()
    own = root / "mine.py"
    own.write_text((EXAMPLES / "my_pooling.py").read_text())
    name = f"{own}:mean_of_strongest"
    write_toy(root, "toy_own", pooling=name)
    assert run(["lineval", "toy_own", "tones", f"--out={root / 'results'}"]) == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.score >= 0.95 and row.pooling == {"bands": describe_pooling(name)} and "#" in row.pooling["bands"]
    first = feature_key(load_encoder("toy_own", "random"), ClipPolicy(0.5, "none", "head"))
    own.write_text(own.read_text().replace("lengths // 4", "lengths // 2"))
    second = feature_key(load_encoder("toy_own", "random"), ClipPolicy(0.5, "none", "head"))
    assert first.digest != second.digest
    capsys.readouterr()
    assert run(["lineval", "toy_own", "tones", f"--out={root / 'results'}"]) == cli.DONE
    assert len(results.load_all(root / "results")) == 2 and "encoded 36 clips" in capsys.readouterr().out


def test_the_keys_of_this_package_s_poolings_hold_the_bare_name(tones):
    tones()
    key = feature_key(load_encoder("toy", "random"), ClipPolicy(0.5, "none", "head"))
    assert dict(key.layers) == {"level": "1 mean", "bands": "16 mean"}


def test_the_example_of_a_pooling_takes_the_strongest_quarter():
    name = f"{EXAMPLES / 'my_pooling.py'}:mean_of_strongest"
    features = torch.tensor([[[1.0], [-9.0], [3.0], [2.0], [7.0], [50.0]]])
    assert pool(features, torch.tensor([5]), name).tolist() == [[-1.0]]  # 5 frames: two of them, -9 and 7
    assert find_pooling(name)[1] == 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("mean", "must be a function of features and lengths, got str"),
        (lambda features, lengths: features, "must become (3, k x 4)"),
        (lambda features, lengths: mean(features, lengths)[:, :0], "must become (3, k x 4)"),
        (lambda features, lengths: mean(features, lengths).repeat(1, 4)[:, :4], "of twice the width"),
        (lambda features, lengths: features.amax(dim=1), "beyond the length of a clip"),
        (lambda features, lengths: mean(features, lengths) / (lengths[:, None] - 1), "must be finite"),
        (lambda features, lengths: mean(features, lengths) - mean(features, lengths).mean(0), "alone and in a batch"),
        (lambda features, lengths: mean(features, lengths) + torch.rand(1), "the same vector at every call"),
        (lambda features, lengths: mean(features, lengths).detach(), "must pass a gradient"),
        (lambda features, lengths: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_broken_promise_of_a_pooling_is_named(function, said):
    assert any(said in sentence for sentence in check_pooling(function)), check_pooling(function)


def test_a_pooling_that_is_not_there_is_said():
    for name, said in (
        ("nowhere.py:f", "nowhere.py"),
        ("json:nothing", "has no 'nothing'"),
        ("medain", "did you mean"),
    ):
        with pytest.raises(ValueError, match=said):
            find_pooling(name)


def test_an_own_probe_is_a_protocol_and_its_source_is_part_of_the_row(tones):
    root = tones()
    own = root / "mine.py"
    own.write_text((EXAMPLES / "my_probe.py").read_text())
    status, (row,) = lineval(root, f"--protocol={own}:DiscriminantProbe")
    assert status == cli.DONE and row.score >= 0.95 and row.protocol == "mine:DiscriminantProbe"
    assert set(row.params["chosen"][0]) == {"shrinkage"} and row.rounds[0]["valid_score"] >= 0.9
    own.write_text(own.read_text() + "\n# another version\n")
    _, rows = lineval(root, f"--protocol={own}:DiscriminantProbe")
    assert len(rows) == 2


class Minimal(BaseEstimator):
    """Keeps every promise with the least that is needed: the class whose mean is nearest."""

    def fit(self, X, y, X_valid, y_valid):
        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
        self._means = np.stack([X[y == label].mean(axis=0) for label in self.classes_])
        return self

    def predict(self, X):
        return self.classes_[np.square(X[:, None] - self._means).sum(axis=2).argmin(axis=1)]


class NeedsSetting(Minimal):
    def __init__(self, setting):
        self.setting = setting


class TwoArrays(Minimal):
    def fit(self, X, y):
        return self


class ForgetsItself(Minimal):
    def fit(self, X, y, X_valid, y_valid):
        super().fit(X, y, X_valid, y_valid)


class Scales(Minimal):
    def predict(self, X):
        X *= 1.5
        return super().predict(X)


class NoWidth(Minimal):
    def fit(self, X, y, X_valid, y_valid):
        super().fit(X, y, X_valid, y_valid)
        del self.n_features_in_
        return self


class Scores(Minimal):
    def predict(self, X):
        return np.ones((len(X), 2))


class Constant(Minimal):
    def predict(self, X):
        return np.zeros(len(X), int)


class Breaks(Minimal):
    def predict(self, X):
        raise RuntimeError("no")


class NoDevice(Minimal):
    traits = ProbeTraits(takes_device=True, fits_together=True)


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (NeedsSetting, "every parameter must have a default"),
        (object, "it has no fit, predict, get_params, set_params"),
        (TwoArrays, "fit must take X, y, X_valid and y_valid"),
        (ForgetsItself, "fit must return the probe itself, got NoneType"),
        (Scales, "leave the vectors that they are given as they are"),
        (NoWidth, "n_features_in_ must be the features of a clip, 4, got None"),
        (Scores, "one class for each of 15 clips, got shape (15, 2)"),
        (Constant, "must be separated"),
        (Breaks, "predict raised RuntimeError: no"),
        (NoDevice, "it has no parameter device"),
        (NoDevice, "there is no fit_together"),
    ],
)
def test_a_broken_promise_of_a_probe_is_named(probe, said):
    assert check_probe(Minimal) == []
    assert any(said in sentence for sentence in check_probe(probe)), check_probe(probe)


def test_a_broken_probe_is_named_before_any_work(tones, capsys):
    root = tones()
    own = root / "mine.py"
    own.write_text("class Mine:\n    def fit(self, X, y):\n        return self\n")
    run(["lineval", "toy", "tones", f"--protocol={own}:Mine", f"--out={root / 'results'}"])
    said = "".join(capsys.readouterr())
    assert "breaks 1 promise(s): it has no predict, get_params, set_params" in said and "encoded 36" not in said


def test_an_own_pooling_is_named_on_the_command_line_and_an_edited_one_makes_a_new_file(tones):
    root = tones()
    own, out = root / "mine.py", root / "vectors.npz"
    own.write_text((EXAMPLES / "my_pooling.py").read_text())
    sounds = str(root / "data" / "tones")
    words = ["embed", "toy", sounds, f"--output={out}", "--weights=random", f"--pooling={own}:mean_of_strongest"]
    assert run(words) == cli.DONE
    first = np.load(out)["bands"]
    own.write_text(own.read_text().replace("lengths // 4", "lengths // 2"))
    out.unlink()
    assert run(words) == cli.DONE
    assert first.shape == np.load(out)["bands"].shape and not np.allclose(first, np.load(out)["bands"])
