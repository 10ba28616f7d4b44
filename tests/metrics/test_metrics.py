"""Accuracy and the bootstrap interval: by hand, against scikit-learn, and coverage in a simulation."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from evar import metrics
from evar.metrics import METRICS, accuracy, bootstrap_interval


def test_accuracy_by_hand():
    assert accuracy([0, 1, 2, 2], [0, 2, 2, 1]) == 0.5
    assert accuracy(["a", "b"], ["a", "b"]) == 1.0
    assert accuracy([0, 1], [1, 0]) == 0.0


def test_accuracy_equals_scikit_learn():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, 333), rng.integers(0, 5, 333)
    assert accuracy(true, predicted) == pytest.approx(accuracy_score(true, predicted), abs=1e-15)


@pytest.mark.parametrize("bad", [([], []), ([0, 1], [0]), ([0, 1], [[0.2, 0.8], [0.9, 0.1]])])
def test_accuracy_refuses_shapes_that_do_not_fit(bad):
    with pytest.raises(ValueError, match="one shape"):
        accuracy(*bad)


def test_the_registry_names_functions():
    assert METRICS["accuracy"].function is accuracy and METRICS["accuracy"].higher_is_better
    assert all(metric.function.__name__ == name for name, metric in METRICS.items())


def test_interval_by_hand():
    # Two groups, one all right and one all wrong: a resample scores 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    correct, groups, rounds = [1, 1, 0, 0], [7, 7, 9, 9], [0, 0, 0, 0]
    assert bootstrap_interval(correct, groups, rounds, level=0.95) == (0.0, 1.0)
    assert bootstrap_interval(correct, groups, rounds, level=0.4) == (0.5, 0.5)


def test_groups_of_different_size_weigh_by_their_clips():
    # Resamples: both big (3/4 right), both small (0/1), one each (3/5).
    correct, groups = [1, 1, 1, 0, 0], [0, 0, 0, 0, 1]
    assert bootstrap_interval(correct, groups, [0] * 5, level=0.4) == pytest.approx((0.6, 0.6))
    assert bootstrap_interval(correct, groups, [0] * 5) == pytest.approx((0.0, 0.75))


def test_rounds_count_alike_and_groups_are_drawn_within_them():
    # A big perfect round and a small wrong one: every resample of each round gives its own mean.
    correct, groups = [1] * 90 + [0] * 10, list(range(100))
    rounds = [0] * 90 + [1] * 10
    assert bootstrap_interval(correct, groups, rounds) == (0.5, 0.5)
    # One label in two rounds means two groups.
    assert bootstrap_interval([1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1], level=0.999) == (0.0, 1.0)


def test_perfect_score_and_one_group():
    assert bootstrap_interval([1] * 20, range(20), [0] * 20) == (1.0, 1.0)
    assert bootstrap_interval([1, 0, 1], ["same"] * 3, [0] * 3) == (0.0, 1.0)


def test_the_interval_is_deterministic_and_independent_of_memory(monkeypatch):
    rng = np.random.default_rng(1)
    correct, groups, rounds = rng.random(300), rng.integers(0, 60, 300), rng.integers(0, 3, 300)
    first = bootstrap_interval(correct, groups, rounds)
    assert bootstrap_interval(correct, groups, rounds) == first
    assert bootstrap_interval(correct, groups, rounds, seed=1) != first
    monkeypatch.setattr(metrics.intervals, "_COUNTS_AT_ONCE", 500)
    assert bootstrap_interval(correct, groups, rounds) == first


def test_coverage_on_clustered_clips():
    """About 95 % with groups; far less when clips of one recording are taken for independent."""
    rng = np.random.default_rng(2)
    truth, n_trials, hits = 0.7, 200, {"groups": 0, "clips": 0}
    groups, rounds = np.repeat(np.arange(60), 8), np.repeat([0, 1], 240)
    for _ in range(n_trials):
        skill = rng.beta(0.7, 0.3, size=60)  # mean 0.7: recordings are mostly all right or all wrong
        correct = rng.random(480) < skill[groups]
        for name, labels in (("groups", groups), ("clips", np.arange(480))):
            low, high = bootstrap_interval(correct, labels, rounds, n_resamples=200)
            hits[name] += low <= truth <= high
    assert 0.90 <= hits["groups"] / n_trials <= 0.985
    assert hits["clips"] / n_trials < 0.75


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct": [0.5, 1.5]}, "0..1"),
        ({"correct": [0.5, np.nan]}, "0..1"),
        ({"groups": [1]}, "one shape"),
        ({"correct": [], "groups": [], "rounds": []}, "at least 1 clip"),
        ({"level": 95}, "in percent"),
        ({"n_resamples": 0}, "n_resamples"),
    ],
)
def test_interval_refuses_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**{"correct": [0, 1], "groups": [0, 1], "rounds": [0, 0], **changes})
