"""Metrics of multilabel, regression and pitch tasks: by hand, against scikit-learn and scipy, and their bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import pearsonr
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    r2_score,
    roc_auc_score,
    roc_curve,
)
from sklearn.metrics import mean_absolute_error as sklearn_mean_absolute_error

from evar import metrics
from evar.metrics import METRICS, bootstrap_interval, bootstrap_scores, score_interval
from evar.metrics.labels import average_precisions, equal_error_rates, roc_areas


def planted_labels(seed=0, n_clips=80, n_labels=6, with_ties=True):
    rng = np.random.default_rng(seed)
    y = (rng.random((n_clips, n_labels)) < 0.3).astype(np.uint8)
    score = y + rng.normal(size=y.shape)
    return y, np.round(score, 1 if with_ties else 12)


@pytest.mark.parametrize("with_ties", [False, True])
def test_label_metrics_equal_scikit_learn(with_ties):
    y, score = planted_labels(with_ties=with_ties)
    wanted = [average_precision_score(y[:, k], score[:, k]) for k in range(y.shape[1])]
    assert metrics.mean_average_precision(y, score) == pytest.approx(np.mean(wanted), abs=1e-12)
    assert metrics.auc(y, score) == pytest.approx(roc_auc_score(y, score), abs=1e-12)


def test_label_metrics_of_weighted_clips_are_those_of_repeated_clips():
    y, score = planted_labels()
    counts = np.random.default_rng(1).integers(0, 4, (3, len(y)))
    for of, metric in ((average_precisions, average_precision_score), (roc_areas, roc_auc_score)):
        found = of(y.astype(bool), score, counts.astype(float))
        for sample, row in zip(counts, found, strict=True):
            again = np.repeat(np.arange(len(y)), sample)
            assert row == pytest.approx([metric(y[again, k], score[again, k]) for k in range(y.shape[1])], abs=1e-12)


def find_crossing(y, score):
    """Equal error rate on the straight line between the points of scikit-learn's ROC curve."""
    alarms, hits, _ = roc_curve(y, score, drop_intermediate=False)
    return brentq(lambda alarm: 1 - alarm - np.interp(alarm, alarms, hits), 0.0, 1.0, xtol=1e-14)


@pytest.mark.parametrize("with_ties", [False, True])
def test_equal_error_rates_equal_the_crossing_on_scikit_learns_roc_curve(with_ties):
    y, score = planted_labels(with_ties=with_ties)
    wanted = np.array([find_crossing(y[:, k], score[:, k]) for k in range(y.shape[1])])
    assert equal_error_rates(y.astype(bool), score, np.ones((1, len(y))))[0] == pytest.approx(wanted, abs=1e-9)
    assert metrics.eer(y, score) == pytest.approx(wanted.mean()) and 0 < wanted.min() < wanted.max() < 0.5
    assert metrics.equal_error_accuracy(y, score) == pytest.approx(1 - wanted.mean())
    counts = np.random.default_rng(1).integers(0, 4, (3, len(y)))
    found = equal_error_rates(y.astype(bool), score, counts.astype(float))
    for sample, row in zip(counts, found, strict=True):
        again = np.repeat(np.arange(len(y)), sample)
        assert row == pytest.approx([find_crossing(y[again, k], score[again, k]) for k in range(y.shape[1])], abs=1e-9)


def test_equal_error_rates_of_known_cases():
    y = np.array([[1], [1], [1], [1], [0], [0], [0], [0]])
    for score, rate in (([5, 6, 7, 8, 1, 2, 3, 4], 0), ([1, 2, 3, 4, 5, 6, 7, 8], 1), ([0] * 8, 0.5)):
        assert metrics.eer(y, np.array(score, float)[:, None]) == pytest.approx(rate)
    assert metrics.eer(y, np.array([[5], [6], [7], [2.5], [1], [2], [3], [4.0]])) == pytest.approx(0.25)
    assert metrics.eer(y, np.array([[-np.inf], [6], [7], [8], [1], [2], [3], [4.0]])) == pytest.approx(0.25)


def test_keys_that_are_near_are_worth_a_part():
    # from C major: itself, G major, A minor, C minor, F major; from A minor: itself, E minor, C major, A major
    said = [metrics.weighted_key_score([0], [key]) for key in (0, 7, 21, 12, 5)]
    assert said == [1, 0.5, 0.3, 0.2, 0] and metrics.weighted_key_score([0], [-1]) == 0
    assert [metrics.weighted_key_score([21], [key]) for key in (21, 16, 0, 9)] == [1, 0.5, 0.3, 0.2]
    every = np.arange(24)
    guessed = np.mean([metrics.weighted_key_score(np.full(24, key), every) for key in every])
    assert guessed == pytest.approx(METRICS["weighted_key_score"].chance(every, 24))
    with pytest.raises(ValueError, match="keys must be 0..11"):
        metrics.weighted_key_score([0], [24])


def test_sensitivity_and_specificity_of_the_lung_sound_challenge():
    # 8 of 10 normal ones, and 3 of 6 abnormal ones by their very class
    true, said = np.repeat([0, 1, 2, 3], [10, 2, 2, 2]), np.array([0] * 8 + [1, 1] + [1, 2] + [2, 1] + [0, 3])
    assert metrics.sensitivity_specificity(true, said) == pytest.approx((8 / 10 + 3 / 6) / 2)
    assert metrics.sensitivity_specificity([0, 0], [0, 1]) == 0.5


def test_labels_without_clips_are_left_out_and_never_nan():
    y, score = planted_labels()
    y[:, 0], y[:, 1] = 0, 1
    assert metrics.mean_average_precision(y, score) == metrics.mean_average_precision(y[:, 1:], score[:, 1:])
    assert metrics.auc(y, score) == metrics.auc(y[:, 2:], score[:, 2:])
    with pytest.raises(ValueError, match="needs a label that some clip has"):
        metrics.mean_average_precision(np.zeros_like(y), score)


def test_an_unreadable_clip_is_ranked_last():
    y, score = np.array([[1], [0], [0]]), np.array([[-np.inf], [0.2], [0.1]])
    assert metrics.mean_average_precision(y, score) == pytest.approx(1 / 3) and metrics.auc(y, score) == 0


def test_value_metrics_equal_scipy_and_scikit_learn():
    rng = np.random.default_rng(0)
    true = 1e4 + rng.normal(size=200)  # a large offset: sums of squares would lose it
    predicted = true + rng.normal(size=200)
    assert metrics.pearson(true, predicted) == pytest.approx(pearsonr(true, predicted)[0], abs=1e-9)
    assert metrics.r2(true, predicted) == pytest.approx(r2_score(true, predicted), abs=1e-9)
    assert metrics.mean_absolute_error(true, predicted) == pytest.approx(sklearn_mean_absolute_error(true, predicted))
    assert metrics.pearson(true, np.full(200, 3.0)) == 0 == metrics.r2(np.full(200, 3.0), true)
    assert metrics.pearson(true, -true) == pytest.approx(-1)


def test_class_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 200)
    predicted = np.where(rng.random(200) < 0.6, true, rng.integers(0, 5, 200))
    assert metrics.balanced_accuracy(true, predicted) == pytest.approx(balanced_accuracy_score(true, predicted))
    assert metrics.macro_f1(true, predicted) == pytest.approx(f1_score(true, predicted, average="macro"))
    assert metrics.chroma_accuracy([60, 60, 60], [48, 61, -1]) == pytest.approx(1 / 3)  # -1 is 61 semitones below


def test_calibration_error_of_a_calibrated_and_an_overconfident_guesser():
    rng = np.random.default_rng(0)
    shares = np.array([[0.7, 0.3]] * 20_000)
    true = (rng.random(20_000) > 0.7).astype(int)
    assert metrics.calibration_error(true, shares) < 0.01
    assert metrics.calibration_error(true, np.array([[0.99, 0.01]] * 20_000)) == pytest.approx(0.29, abs=0.01)


def _planted(metric, seed=0, n=60):
    rng = np.random.default_rng(seed)
    if METRICS[metric].kind == "multilabel":
        return planted_labels(seed, n)
    if METRICS[metric].kind == "regression":
        true = rng.normal(size=n)
        return true, true + rng.normal(size=n)
    if METRICS[metric].kind == "events":
        true, right = rng.integers(1, 9, n), rng.integers(0, 2, n)
        none = np.zeros(n, np.int64)
        return np.stack([true, none, true], axis=1), np.stack([right, rng.integers(1, 9, n), right], axis=1)
    if METRICS[metric].kind == "captions":
        ranks = np.stack([rng.permutation(4 * n)[:4] + 1 for _ in range(n)]) // 8 + 1.0
        there = np.tile([[1, 1, 1, 1], [1, 0, 1, 0]], (n // 2, 1)).astype(np.uint8)
        return there, np.where(there == 1, ranks, np.inf)
    if METRICS[metric].kind == "queries":
        return np.tile([[3, 50, 0, 0]], (n, 1)), np.stack(
            [rng.random(n), rng.integers(1, 20, n), rng.integers(0, 3, n), rng.integers(0, 3, n)], axis=1
        )
    if METRICS[metric].kind == "pairs":
        true = rng.integers(0, 2, n).astype(float)
        return true, true + np.round(rng.normal(size=n), 1)
    true = rng.integers(0, 24, n)
    return true, np.where(rng.random(n) < 0.5, true, rng.integers(0, 24, n))


@pytest.mark.parametrize("metric", [name for name, one in METRICS.items() if one.resampled])
def test_the_bootstrap_of_every_metric_is_the_metric_of_drawn_clips(metric):
    true, predicted = _planted(metric)
    groups = np.repeat(np.arange(20), 3)
    found = bootstrap_scores(metric, true, predicted, groups, np.zeros(60), n_resamples=5)
    counts = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=5)
    for score, sample in zip(found, counts, strict=True):
        rows = np.repeat(np.arange(60), sample[groups])
        assert score == pytest.approx(METRICS[metric].function(true[rows], predicted[rows]), abs=1e-9)


@pytest.mark.parametrize("metric", ["mean_average_precision", "pearson", "accuracy"])
def test_intervals_hold_the_score_and_narrow_with_more_clips(metric):
    widths = []
    for n in (60, 600):
        true, predicted = _planted(metric, n=n)
        low, high = score_interval(metric, true, [predicted], np.arange(n), np.zeros(n))
        assert low < METRICS[metric].function(true, predicted) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_score_interval_of_accuracy_is_the_interval_of_mean_correctness():
    rng = np.random.default_rng(0)
    true, runs = rng.integers(0, 2, 100), [rng.integers(0, 2, 100) for _ in range(3)]
    groups, rounds = np.repeat(np.arange(25), 4), np.repeat([0, 1], 50)
    correct = np.mean([run == true for run in runs], axis=0)
    assert score_interval("accuracy", true, runs, groups, rounds) == pytest.approx(
        bootstrap_interval(correct, groups, rounds)
    )
    assert score_interval("accuracy", true[:4], [runs[0][:4]], [0] * 4, [0] * 4) == (0.0, 1.0)


@pytest.mark.parametrize("metric", ["mean_average_precision", "pearson"])
def test_intervals_cover_the_score_of_very_many_clips(metric):
    truth = METRICS[metric].function(*_planted(metric, seed=1000, n=50_000))
    covered = 0
    for seed in range(80):
        true, predicted = _planted(metric, seed=seed, n=100)
        low, high = score_interval(metric, true, [predicted], np.arange(100), np.zeros(100))
        covered += low <= truth <= high
    assert 68 <= covered <= 80  # 95 % of 80 is 76; fewer than 68 has a chance below 0.1 %
