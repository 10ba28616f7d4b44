"""Metrics, poolings and probes of one's own: the examples work from the command line, and broken promises are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from evar import cli, results
from evar.cli import run
from evar.metrics import METRICS, Metric, check_metric, register_metric

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


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
