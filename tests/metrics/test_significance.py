"""Paired comparisons and ranks: by hand, against scipy, and in simulations that know the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, friedmanchisquare

from evar.metrics import bootstrap_interval, bootstrap_scores, holm, paired_permutation
from evar.metrics.significance import compare_pairs, correct_for_the_best, randomisation_test, rank_rows


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
    return compare_pairs("accuracy", true, [(~one).astype(int)], [(~other).astype(int)], groups, true, **options)


@pytest.mark.parametrize("n_clips", [10, 200, 5000])
@pytest.mark.parametrize("rounds", [1, 5, "unequal"])
def test_where_every_clip_is_its_own_group_it_is_mcnemars_exact_test(n_clips, rounds):
    rng = np.random.default_rng(0)
    one, other = rng.random(n_clips) < 0.9, rng.random(n_clips) < 0.87
    one[0], other[0] = True, False
    round_of = np.sort(rng.integers(0, 3, n_clips)) if rounds == "unequal" else np.arange(n_clips) % rounds
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    p, test = randomisation_test(one, other, np.arange(n_clips), round_of)
    assert test == "McNemar" and p == pytest.approx(binomtest(gained, gained + lost).pvalue, rel=1e-9)
    found = compared(one, other, np.arange(n_clips))
    assert found.test == "McNemar" and found.value == pytest.approx((gained - lost) / n_clips)


def test_groups_flip_together_and_every_flip_is_counted():
    one, other, groups = simulated(3, 0.8, 0.7, n_groups=12)
    p, test = randomisation_test(one, other, groups, np.zeros(len(one)))
    assert test == "randomisation" and p == pytest.approx(paired_permutation(one, other, groups, np.zeros(len(one))))
    six = np.repeat(np.arange(6), 4)  # six recordings of four clips, right under one and wrong under the other
    assert randomisation_test(np.ones(24), np.zeros(24), six, np.zeros(24))[0] == pytest.approx(2 / 2**6)
    assert randomisation_test(np.ones(24), np.zeros(24), np.arange(24), np.zeros(24))[0] == pytest.approx(2 / 2**24)
    one, other, groups = simulated(3, 0.72, 0.7, n_groups=500)
    drawn = paired_permutation(one, other, groups, np.zeros(len(one)))
    assert randomisation_test(one, other, groups, np.zeros(len(one)))[0] == pytest.approx(drawn, abs=0.02)


def test_flips_are_drawn_where_rounds_of_unequal_size_weigh_differently():
    one, other, groups = simulated(5, 0.8, 0.7, n_groups=12)
    rounds = np.repeat([0, 1], [20, 28])
    assert randomisation_test(one, other, groups, rounds)[0] == pytest.approx(
        paired_permutation(one, other, groups, rounds), abs=1e-9
    )


@pytest.mark.parametrize("n_rounds", [1, 3])
def test_the_quick_interval_is_that_of_the_bootstrap_of_groups(n_rounds):
    one, other, groups = simulated(4, 0.8, 0.7)
    rounds = groups % n_rounds
    true, run, another = np.zeros(len(one), int), (~one).astype(int), (~other).astype(int)
    found = compare_pairs("accuracy", true, [run], [another], groups, rounds)
    samples = [bootstrap_scores("accuracy", true, y, groups, rounds, n_resamples=10_000) for y in (run, another)]
    low, high = np.quantile(samples[0] - samples[1], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.006)  # of some 0.15 between them
    unknown = compare_pairs("accuracy", true, [run], [another], np.zeros(len(true)), np.zeros(len(true)))
    assert (unknown.low, unknown.high) == (-1.0, 1.0)


def test_means_over_runs_are_fractions_that_flip_too():
    rng = np.random.default_rng(2)
    one, other = rng.integers(0, 4, 12) / 3, rng.integers(0, 3, 12) / 2
    p, test = randomisation_test(one, other, np.arange(12), np.zeros(12), n_runs=(3, 2))
    assert test == "randomisation"  # outcomes of several runs are not right or wrong
    assert p == pytest.approx(paired_permutation(one, other, np.arange(12), np.zeros(12)))


def test_an_octave_too_high_is_right_in_chroma():
    true = np.arange(30) + 40
    found = compare_pairs("chroma_accuracy", true, [true + 12], [true + 1], np.arange(30), np.zeros(30))
    assert found.value == 1 and found.p == pytest.approx(2**-29)
    same = compare_pairs("chroma_accuracy", true, [true + 12], [true], np.arange(30), np.zeros(30))
    assert same.value == 0 and same.p == 1


def test_the_best_of_many_equal_rows_does_not_beat_the_others_by_luck():
    """Correcting only the comparisons with the best, which the same scores chose, gives far too many false alarms."""
    rng = np.random.default_rng(0)
    alarms, without, n, k = 0, 0, 200, 20
    for _ in range(n):
        runs = rng.random((k, 200)) < rng.beta(4, 2, 200)
        best = int(runs.mean(axis=1).argmax())
        clips, rounds = np.arange(200), np.zeros(200)
        p_values = [randomisation_test(runs[best], run, clips, rounds)[0] for i, run in enumerate(runs) if i != best]
        alarms += correct_for_the_best(p_values, k * (k - 1) // 2).min() <= 0.05
        without += holm(p_values).min() <= 0.05
    assert alarms / n <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n) < 0.12 < without / n


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
        p_values.append(compare_pairs("accuracy", true, [one], [other], np.arange(200), np.zeros(200)).p)
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
    found = compare_pairs(metric, true, [good], [bad], groups, rounds)
    assert found.value > 0.1 and found.low > 0 and found.p < 0.01
    same = compare_pairs(metric, true, [good], [good], groups, rounds)
    assert same.value == same.low == same.high == 0 and same.p == 1
    other_way = compare_pairs(metric, true, [bad], [good], groups, rounds)
    assert other_way.value == pytest.approx(-found.value) and other_way.p == pytest.approx(found.p)


def test_seeds_are_averaged_and_not_taken_for_more_clips():
    one, other, groups = simulated(0, 0.75, 0.7)
    true = np.zeros(len(one), int)
    runs, others = [(~one).astype(int)], [(~other).astype(int)]
    single = compare_pairs("accuracy", true, runs, others, groups, true)
    tripled = compare_pairs("accuracy", true, runs * 3, others * 3, groups, true)
    assert (tripled.low, tripled.high, tripled.p) == pytest.approx((single.low, single.high, single.p))


def test_ranks_are_friedmans_and_ties_share():
    rng = np.random.default_rng(0)
    scores = rng.random((4, 9)) + np.array([[0.4], [0.2], [0.0], [0.0]])
    scores[:2, 0] = 0.9  # a tie
    found = rank_rows(scores)
    assert found.p == pytest.approx(friedmanchisquare(*scores).pvalue, abs=1e-9)
    assert found.ranks.sum() == pytest.approx(10.0) and found.ranks.argmin() == 0
    # Demsar (2006), table 5: q of 5 % for 4 classifiers is 2.569
    assert found.critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 9)), abs=2e-3)


def test_cliques_are_largest_sets_that_do_not_differ():
    scores = np.tile(np.array([[0.9], [0.8], [0.7], [0.6]]), (1, 12))
    found = rank_rows(scores)
    assert found.ranks.tolist() == [1, 2, 3, 4] and 1 < found.critical < 2
    assert found.cliques() == [[0, 1], [1, 2], [2, 3]]
    assert rank_rows(np.tile(scores[:, :5], 1)).cliques() == [[0, 1, 2], [1, 2, 3]]
    with pytest.raises(ValueError, match="at least 3 rows and 5 tasks"):
        rank_rows(scores[:2])


@pytest.mark.parametrize("metric", ["mean_average_precision", "pearson"])
def test_two_features_at_chance_differ_in_no_more_than_one_of_twenty_by_any_metric(metric):
    n, n_groups, alarms, found = 60, 40, 0, 0
    groups = np.repeat(np.arange(n_groups), 3)
    for seed in range(n):
        rng = np.random.default_rng(seed)
        if metric == "pearson":
            true = rng.normal(size=n_groups)[groups] + 0.5 * rng.normal(size=120)
            one, other = (rng.normal(size=n_groups)[groups] + rng.normal(size=120) for _ in range(2))
        else:
            true = (rng.random((n_groups, 4)) < 0.3)[groups].astype(int)
            one, other = (rng.normal(size=(n_groups, 4))[groups] + rng.normal(size=(120, 4)) for _ in range(2))
        good = true + rng.normal(size=true.shape)
        alarms += compare_pairs(metric, true, [one], [other], groups, np.zeros(120)).p <= 0.05
        found += compare_pairs(metric, true, [good], [other], groups, np.zeros(120)).p <= 0.05
    assert alarms / n <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n) and found / n > 0.9
