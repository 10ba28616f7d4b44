"""Paired comparisons and ranks: by hand, against scipy, and in simulations that know the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, friedmanchisquare

from evar.metrics import bootstrap_interval
from evar.significance import paired_difference, ranking


def simulated(seed, p_one=0.7, p_other=0.7, n_groups=60, per_group=4, spread=1.2):
    """Outcomes of two features on groups of clips that are right or wrong together, and the groups."""
    rng = np.random.default_rng(seed)
    shared = spread * rng.normal(size=n_groups)  # easy and difficult recordings

    def outcome(p):
        logit = np.log(p / (1 - p)) + shared + 0.5 * rng.normal(size=n_groups)
        return (rng.random((n_groups, per_group)) < 1 / (1 + np.exp(-logit))[:, None]).ravel()

    return outcome(p_one), outcome(p_other), np.repeat(np.arange(n_groups), per_group)


def compared(one, other, groups, **options):
    """Correctness as predictions of a true class 0."""
    true = np.zeros(len(one), int)
    return paired_difference("accuracy", true, [(~one).astype(int)], [(~other).astype(int)], groups, true, **options)


def test_where_every_clip_is_its_own_group_it_is_mcnemars_exact_test():
    rng = np.random.default_rng(0)
    one, other = rng.random(200) < 0.9, rng.random(200) < 0.82
    found = compared(one, other, np.arange(200))
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    assert found.value == pytest.approx((gained - lost) / 200)
    assert found.p == pytest.approx(binomtest(gained, gained + lost).pvalue, abs=0.02)
    few = compared(np.array([True] * 9 + [False]), np.array([False] * 8 + [True] * 2), np.arange(10))
    assert few.p == pytest.approx(binomtest(8, 9).pvalue)  # every flip is gone through


def test_very_many_groups_are_as_random_signs():
    one, other, groups = simulated(3, 0.72, 0.7, n_groups=500)
    found = compared(one, other, groups)  # by the normal distribution
    from evar.metrics import paired_permutation

    assert found.p == pytest.approx(paired_permutation(one, other, groups, np.zeros(len(one))), abs=0.02)


def test_intervals_cover_a_resampled_truth_and_clip_by_clip_ones_would_not():
    truth = np.mean([simulated(seed, n_groups=4000)[0].mean() for seed in range(1000, 1005)])
    covered, too_narrow, n = 0, 0, 300
    for seed in range(n):
        correct, _, groups = simulated(seed)
        low, high = bootstrap_interval(correct, groups, np.zeros(len(groups)), n_resamples=500)
        covered += low <= truth <= high
        low, high = bootstrap_interval(correct, np.arange(len(groups)), np.zeros(len(groups)), n_resamples=500)
        too_narrow += low <= truth <= high
    assert 0.91 <= covered / n <= 0.985  # 95 % within chance (3 standard errors) and the percentile method's narrowness
    assert too_narrow / n < 0.88


def test_paired_intervals_cover_the_true_difference():
    ones = [simulated(seed, 0.75, 0.7, n_groups=4000) for seed in range(1000, 1005)]
    truth = np.mean([one.mean() - other.mean() for one, other, _ in ones])
    n = 200
    covered = sum(
        found.low <= truth <= found.high for found in (compared(*simulated(seed, 0.75, 0.7)) for seed in range(n))
    )
    assert 0.90 <= covered / n <= 0.99


def test_equal_features_differ_significantly_in_about_one_of_twenty_and_unequal_ones_are_found():
    n = 200
    false_alarms = sum(compared(*simulated(seed)).p <= 0.05 for seed in range(n))
    assert false_alarms / n <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)
    found = sum(compared(*simulated(seed, 0.85, 0.7)).p <= 0.05 for seed in range(60))
    assert found / 60 > 0.8


def test_shuffled_labels_give_no_significant_difference():
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(60):
        true = rng.integers(0, 10, 200)
        one, other = rng.integers(0, 10, (2, 200))
        p_values.append(paired_difference("accuracy", true, [one], [other], np.arange(200), np.zeros(200)).p)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


@pytest.mark.parametrize("metric", ["mean_average_precision", "pearson"])
def test_other_metrics_are_compared_by_the_bootstrap(metric):
    rng = np.random.default_rng(0)
    if metric == "pearson":
        true = rng.normal(size=150)
        good, bad = true + 0.5 * rng.normal(size=150), true + 2.0 * rng.normal(size=150)
    else:
        true = (rng.random((150, 5)) < 0.3).astype(int)
        good, bad = true + 0.5 * rng.normal(size=true.shape), true + 2.0 * rng.normal(size=true.shape)
    groups, rounds = np.arange(150), np.zeros(150)
    found = paired_difference(metric, true, [good], [bad], groups, rounds)
    assert found.value > 0.1 and found.low > 0 and found.p < 0.01
    same = paired_difference(metric, true, [good], [good], groups, rounds)
    assert same.value == same.low == same.high == 0 and same.p == 1
    other_way = paired_difference(metric, true, [bad], [good], groups, rounds)
    assert other_way.value == pytest.approx(-found.value) and other_way.p == pytest.approx(found.p)


def test_seeds_are_averaged_and_not_taken_for_more_clips():
    one, other, groups = simulated(0, 0.75, 0.7)
    true = np.zeros(len(one), int)
    runs, others = [(~one).astype(int)], [(~other).astype(int)]
    single = paired_difference("accuracy", true, runs, others, groups, true)
    tripled = paired_difference("accuracy", true, runs * 3, others * 3, groups, true)
    assert (tripled.low, tripled.high, tripled.p) == pytest.approx((single.low, single.high, single.p))


def test_ranks_are_friedmans_and_ties_share():
    rng = np.random.default_rng(0)
    scores = rng.random((4, 9)) + np.array([[0.4], [0.2], [0.0], [0.0]])
    scores[:2, 0] = 0.9  # a tie
    found = ranking(scores)
    assert found.p == pytest.approx(friedmanchisquare(*scores).pvalue, abs=1e-9)
    assert found.ranks.sum() == pytest.approx(10.0) and found.ranks.argmin() == 0
    # Demsar (2006), table 5: q of 5 % for 4 classifiers is 2.569
    assert found.critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 9)), abs=2e-3)


def test_cliques_are_largest_sets_that_do_not_differ():
    scores = np.tile(np.array([[0.9], [0.8], [0.7], [0.6]]), (1, 12))
    found = ranking(scores)
    assert found.ranks.tolist() == [1, 2, 3, 4] and 1 < found.critical < 2
    assert found.cliques() == [[0, 1], [1, 2], [2, 3]]
    assert ranking(np.tile(scores[:, :5], 1)).cliques() == [[0, 1, 2], [1, 2, 3]]
    with pytest.raises(ValueError, match="at least 3 rows and 5 tasks"):
        ranking(scores[:2])
