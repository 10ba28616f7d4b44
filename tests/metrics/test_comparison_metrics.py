"""Metrics of comparisons between clips: by hand, against scikit-learn, and their bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    normalized_mutual_info_score,
    roc_auc_score,
    roc_curve,
    v_measure_score,
)

from evar.metrics import METRICS, bootstrap_scores, score_interval
from evar.metrics.clusters import name_clusters
from evar.metrics.same_class import rank_sounds, value_queries
from evar.metrics.significance import compare_pairs
from evar.probes.zero_shot import to_directions


def planted_sounds(seed=0, n=60, n_classes=4, width=6, lift=1.0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, width)) + lift * np.eye(n_classes, width)[y]
    return to_directions(X), y


def test_retrieval_equals_scikit_learn_without_clips_of_the_same_group():
    directions, y = planted_sounds()
    groups = np.arange(60) // 3  # three clips a group, of three classes
    groups[:4] = [0, 1, 2, 0]
    y_true, y_pred, queries = rank_sounds(directions, y, groups)
    assert queries.tolist() == list(range(60))
    for row, query in enumerate(queries):
        searched = np.flatnonzero(groups != groups[query])
        right, similar = y[searched] == y[query], directions[searched] @ directions[query]
        assert y_pred[row, 0] == pytest.approx(average_precision_score(right, similar), abs=1e-12)
        order = right[np.argsort(-similar)]
        assert y_pred[row, 1:].tolist() == [1 + order.argmax(), order[:5].sum(), order[:10].sum()]
        assert y_true[row].tolist() == [right.sum(), len(searched), y[query], 59 - len(searched)]
    for what, expected in (
        ("recall_at_5", y_pred[:, 1] <= 5),
        ("precision_at_10", y_pred[:, 3] / 10),
    ):
        assert METRICS[f"sound_retrieval_{what}"].function(y_true, y_pred) == pytest.approx(np.mean(expected))


def test_clips_of_the_same_group_never_count():
    """Twins of each clip are the nearest of all; with the leak every query would be perfect at rank 1."""
    rng = np.random.default_rng(0)
    X = to_directions(rng.normal(size=(40, 8)))
    X, y, groups = np.concatenate([X, X]), np.tile(np.arange(40) % 4, 2), np.tile(np.arange(40), 2)
    leaked, honest = (rank_sounds(X, y, of) for of in (np.arange(80), groups))
    first = METRICS["sound_retrieval_recall_at_1"].function
    assert first(*leaked[:2]) == 1.0 and first(*honest[:2]) < 0.45  # chance is 0.23
    assert honest[0][:, 3].tolist() == [1] * 80  # the twin of each is left out


def test_ties_gain_nothing_and_unreadable_clips_find_nothing_and_are_never_found():
    same = np.ones((6, 1))
    _, y_pred, _ = rank_sounds(same, [0, 0, 0, 1, 1, 1], range(6))
    assert (y_pred[:, 1] == 4).all()  # the wrong ones come first
    directions, y = planted_sounds(lift=50.0, n=12, n_classes=3)
    is_readable = np.arange(12) != 0
    _, y_pred, _ = rank_sounds(directions, y, range(12), is_readable)
    assert y_pred[0].tolist() == [0.0, np.inf, 0.0, 0.0]
    assert y_pred[3, 0] == pytest.approx(2 / 3)  # one of its three right clips cannot be read


def test_chance_of_retrieval_is_the_mean_of_random_orders():
    rng = np.random.default_rng(1)
    y, groups = rng.integers(0, 3, 30), np.arange(30) // 2
    found = {name: [] for name in METRICS if name.startswith("sound_retrieval")}
    for _ in range(300):
        y_true, y_pred, _ = rank_sounds(to_directions(rng.normal(size=(30, 40))), y, groups)
        for name, scores in found.items():
            scores.append(METRICS[name].function(y_true, y_pred))
    for name, scores in found.items():
        assert np.mean(scores) == pytest.approx(METRICS[name].chance(y_true, 3), abs=0.01), name


def test_agreement_of_clusters_equals_scikit_learn():
    rng = np.random.default_rng(0)
    for n_clusters in (1, 2, 5, 9):
        true, found = rng.integers(0, 5, 90), rng.integers(0, n_clusters, 90)
        found = np.where(rng.random(90) < 0.5, true % n_clusters, found)
        for name, reference in (
            ("nmi", normalized_mutual_info_score),
            ("v_measure", v_measure_score),
            ("adjusted_rand_index", adjusted_rand_score),
        ):
            assert METRICS[name].function(true, found) == pytest.approx(reference(true, found), abs=1e-12)
    names = name_clusters(true % 3, found % 3)
    assert METRICS["nmi"].function(found % 3, names) == pytest.approx(1.0)  # clips stay together as they were
    with pytest.raises(ValueError, match="9 clusters and 5 classes"):
        name_clusters(true, found)


def test_errors_of_pairs_equal_those_of_scikit_learns_roc():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 400).astype(float)
    for digits in (12, 1):  # without and with equal scores
        scores = np.round(true + rng.normal(size=400), digits)
        alarms, hits, _ = roc_curve(true, scores, drop_intermediate=False)
        line = interp1d(alarms, hits)
        eer = brentq(lambda x: 1 - x - line(x), 0, 1)  # noqa: B023 - it is called here
        assert METRICS["pair_eer"].function(true, scores) == pytest.approx(eer, abs=1e-9)
        assert METRICS["pair_auc"].function(true, scores) == pytest.approx(roc_auc_score(true, scores), abs=1e-12)
        for percent in (1, 5):
            p = percent / 100
            least = min(p * (1 - hits) + (1 - p) * alarms) / p
            assert METRICS[f"min_dcf_{percent}_percent"].function(true, scores) == pytest.approx(least, abs=1e-12)


def test_pairs_of_two_normal_distributions_have_the_known_error_rate():
    n, distance = 20_000, 2.0
    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    true, scores = np.repeat([1.0, 0.0], n), np.concatenate([quantiles + distance, quantiles])
    assert METRICS["pair_eer"].function(true, scores) == pytest.approx(norm.cdf(-distance / 2), abs=1e-4)
    assert METRICS["pair_auc"].function(true, scores) == pytest.approx(norm.cdf(distance / np.sqrt(2)), abs=1e-4)
    unread = np.where(np.arange(2 * n) % 10 == 0, np.where(true > 0, -np.inf, np.inf), scores)
    assert METRICS["pair_eer"].function(true, unread) > 0.2  # a tenth is wrong at every threshold


def test_the_bootstrap_of_pairs_draws_clips_and_not_pairs():
    """With 30 clips there are 435 pairs, but no more than 30 things that are drawn: the interval is that of 30."""
    rng = np.random.default_rng(3)
    y, X = np.arange(30) % 2, rng.normal(size=(30, 3))
    X[:, 0] += y
    first, second = np.triu_indices(30, 1)
    true, scores = (y[first] == y[second]).astype(float), (to_directions(X)[first] * to_directions(X)[second]).sum(1)
    both = np.array([f"{one}\t{other}" for one, other in zip(first, second, strict=True)])
    widths = [
        np.ptp(score_interval("pair_eer", true, [scores], of, np.zeros(435)))
        for of in (both, np.arange(435).astype(str))
    ]
    assert widths[0] > 1.3 * widths[1]
    samples = bootstrap_scores("pair_auc", true, scores, both, np.zeros(435), n_resamples=3)
    counts = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=3)
    numbers = np.unique(np.array([text.split("\t") for text in both]), return_inverse=True)[1].reshape(-1, 2)
    for score, drawn in zip(samples, counts, strict=True):
        rows = np.repeat(np.arange(435), drawn[numbers[:, 0]] * drawn[numbers[:, 1]])
        assert score == pytest.approx(roc_auc_score(true[rows], scores[rows]), abs=1e-12)
    better = scores + 3 * true
    found = compare_pairs("pair_auc", true, [better], [scores], both, np.zeros(435))
    assert (
        found.value > 0.3
        and found.low > 0.2
        and found.p < 0.01
        and found.low < found.value < found.high
        and found.test == "bootstrap"
    )


def test_values_of_queries_are_named():
    with pytest.raises(ValueError, match="no value 'rank'"):
        value_queries([[1.0, 1, 1, 1]], "rank")
