"""Label-efficiency curves: draws of whole groups, choices within a draw, and curves whose shape is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.preprocessing import StandardScaler

from evar.metrics import bootstrap_many, bootstrap_scores
from evar.metrics.draws import average_draws, estimate_draw_intervals, resample_draws, weigh_draws
from evar.probes.draw_fitting import Draw, DrawSettings, PreparedDraw, predict_left_out
from evar.probes.draws import FittingClips, draw_groups
from evar.probes.label_curve import LabelCurveProbe


def make_classes(n: int, seed: int, n_classes: int = 3, width: int = 20, apart: float = 3.0) -> tuple:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return (rng.normal(size=(n, width)) + apart * np.eye(width)[y]).astype(np.float32), y


def test_a_group_is_drawn_whole_or_not_at_all_and_draws_are_nested():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 4, 200), rng.integers(0, 60, 200)
    before: set[int] = set()
    for n in (1, 2, 5, 10, 20):
        drawn = draw_groups(y, groups, n, (7, 1))
        assert set(groups[drawn]).isdisjoint(set(np.delete(groups, drawn)))
        assert (np.bincount(y[drawn], minlength=4) >= n).all()
        assert before <= set(drawn.tolist())
        before = set(drawn.tolist())
    assert draw_groups(y, groups, 2, (7, 1)).tolist() != draw_groups(y, groups, 2, (7, 2)).tolist()
    rare = np.array([0] * 9 + [1])  # a class with fewer clips gives what it has
    assert np.bincount(rare[draw_groups(rare, range(10), 5, 0)]).tolist() == [5, 1]


@pytest.mark.parametrize("groups", [np.arange(30), np.arange(30) // 3])
def test_leaving_groups_out_in_closed_form_is_what_fitting_again_gives(groups):
    X, y = make_classes(30, 1, width=6)
    X = X.astype(np.float64)
    X -= X.mean(axis=0)
    targets = np.eye(3)[y]
    alphas = np.array([2.5, 0.1])
    left, sizes, _ = np.linalg.svd(X, full_matrices=False)
    is_alone = len(np.unique(groups)) == 30
    members = None if is_alone else [np.flatnonzero(groups == one) for one in np.unique(groups)]
    found = predict_left_out(left, sizes**2 / (sizes**2 + alphas[:, None]), targets, members)
    for alpha, values in zip(alphas, found, strict=True):
        expected = cross_val_predict(Ridge(alpha=alpha), X, targets, cv=LeaveOneGroupOut(), groups=groups)
        np.testing.assert_allclose(values, expected, atol=1e-9)


def test_a_draw_is_fitted_as_scikit_learn_fits_it():
    X, y = make_classes(40, 2, width=50)
    settings = DrawSettings((0.05,), 0.05, 0.1, "accuracy", 1e-7, 100)
    from evar.numeric.solve import solve_all

    one = PreparedDraw.of(Draw(X, y, np.arange(40), settings))
    model = one.make_model(solve_all([one.problem])[0])
    scaler = StandardScaler().fit(X.astype(np.float64))
    reference = LogisticRegression(C=0.05, tol=1e-10, max_iter=5000).fit(scaler.transform(X.astype(np.float64)), y)
    other, _ = make_classes(20, 3, width=50)
    logits = model.decide(other.astype(np.float64))
    expected = reference.decision_function(scaler.transform(other.astype(np.float64)))
    centre = expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(logits - logits.mean(axis=1, keepdims=True), expected - centre, atol=1e-5)
    assert not model.is_chosen and model.strength == 0.05


def test_five_labels_suffice_where_they_do_by_construction():
    """Five labels find the classes, one does not.

    Two classes are 8.3 deviations apart in 60 features; with n labels each, a classifier by their means is right for two
    classes with probability Phi(d^2 / 2 / sqrt(d^2 + 120 / n)), where d is 6.9 of standardised features: 0.97 for n = 1 and
    0.997 for n = 5. Of five classes it is right less often.
    """
    rng = np.random.default_rng(4)
    y = np.arange(1000) % 5
    X = (rng.normal(size=(1000, 60)) + 1.7 * np.repeat(np.eye(5), 12, axis=1)[y]).astype(np.float32)
    probe = LabelCurveProbe(n_draws=6).fit(X[:400], y[:400])
    scores = {
        point.n: float(np.mean(predicted == y[400:]))
        for point, predicted in zip(probe.points_, probe.predict_draws(X[400:]), strict=True)
    }
    assert list(scores) == [1, 2, 5, 10, 20, 50, None]
    assert scores[1] < 0.93 < 0.97 < scores[5]
    assert scores[None] - scores[5] < 0.025
    assert probe.predict(X[400:]).tolist() == probe.predict_draws(X[400:])[-1][0].tolist()


def test_shuffled_labels_stay_at_chance_at_every_number_of_labels():
    X, y = make_classes(500, 5, n_classes=4)
    shuffled = np.random.default_rng(0).permutation(y)
    probe = LabelCurveProbe(n_draws=4).fit(X[:200], shuffled[:200])
    for predicted in probe.predict_draws(X[200:]):
        assert abs(np.mean(predicted == shuffled[200:]) - 0.25) < 0.09


def test_points_that_groups_make_equal_are_left_out_and_validation_clips_are_drawn_from():
    X, y = make_classes(120, 6)
    positions = np.arange(120)
    clips = FittingClips(positions, positions // 12)  # 10 groups, each with 4 clips of every class
    probe = LabelCurveProbe(n_draws=3, clips=clips).fit(X[:80], y[:80], X[80:], y[80:])
    sizes = [(point.n, {len(drawn) for drawn in point.draws}) for point in probe.points_]
    assert sizes == [(1, {12}), (5, {24}), (10, {36}), (20, {60}), (None, {120})]
    only = LabelCurveProbe(n_draws=3, refit="train").fit(X[:80], y[:80], X[80:], y[80:])
    assert len(only.points_[-1].draws[0]) == 80
    assert [model.is_chosen for model in only.points_[0].models] == [False] * 3
    assert only.points_[2].models[0].is_chosen


def test_large_draws_are_fewer_but_never_one():
    X, y = make_classes(240, 7)
    probe = LabelCurveProbe(n_draws=10).fit(X, y)
    assert [(point.n, len(point.draws)) for point in probe.points_] == [
        *[(n, 10) for n in (1, 2, 5, 10)],
        *[(20, 6), (50, 3), (None, 1)],
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_draws": 0}, "n_draws must be at least 1"),
        ({"strengths": (0.0,)}, "positive numbers"),
        ({"metric": "acuracy"}, "no metric 'acuracy'"),
        ({"refit": "test"}, "refit must be"),
    ],
)
def test_settings_that_are_not_legal_are_refused(setting, message):
    X, y = make_classes(12, 8)
    with pytest.raises(ValueError, match=message):
        LabelCurveProbe(**setting).fit(X, y)


def test_the_bootstrap_of_many_runs_is_that_of_each():
    rng = np.random.default_rng(1)
    y, groups, rounds = rng.integers(0, 3, 90), np.arange(90) // 3, np.arange(90) // 45
    runs = rng.integers(0, 3, (4, 90))
    for metric in ("accuracy", "chroma_accuracy"):
        many = bootstrap_many(metric, y, runs, groups, rounds, n_resamples=50)
        for run, found in zip(runs, many, strict=True):
            np.testing.assert_allclose(found, bootstrap_scores(metric, y, run, groups, rounds, n_resamples=50))


def test_the_variance_over_draws_is_that_of_their_mean():
    values = np.random.default_rng(2).normal(size=8)
    resampled = np.repeat(values[:, None], 20_000, axis=1)  # test clips say nothing, so all that varies is the draw
    assert average_draws(resampled).std() == pytest.approx(values.std(ddof=1) / np.sqrt(8), rel=0.03)
    assert weigh_draws(1, 5).tolist() == [[1.0] * 5]
    y = np.arange(200) % 2
    noisy = np.where(np.random.default_rng(3).random((8, 200)) < 0.2, 1 - y, y)
    mean, single = estimate_draw_intervals(
        "accuracy", (noisy == y).mean(axis=1), resample_draws("accuracy", y, noisy, range(200), [0] * 200)
    )
    assert single[0] < mean[0] < 0.8 < mean[1] < single[1]


def test_mteb_draws_and_fits_as_mteb_does():
    """Against the procedure written out: one list of places, shuffled again by a new generator of seed 42 each time."""
    from evar.probes.mteb import MtebProbe

    X, y = make_classes(90, 9, width=10)
    places, draws = list(range(90)), []
    for _ in range(3):
        np.random.RandomState(42).shuffle(places)
        kept: dict[int, list[int]] = {}
        for place in places:
            if len(kept.setdefault(y[place], [])) < 8:
                kept[y[place]].append(place)
        draws.append(sorted(place for own in kept.values() for place in own))
    shuffled = np.random.default_rng(0).permutation(90)  # the clips of a round come in another order than the index
    for number, draw in enumerate(draws):
        clips = FittingClips(shuffled, shuffled.astype(str), is_valid_drawn=True)
        probe = MtebProbe(random_state=number, clips=clips)
        probe.fit(X[shuffled[:70]], y[shuffled[:70]], X[shuffled[70:]], y[shuffled[70:]])
        assert sorted(shuffled[probe.drawn_].tolist()) == draw
        reference = LogisticRegression(max_iter=100, random_state=42).fit(X[draw], y[draw])
        np.testing.assert_allclose(probe.predict_proba(X), reference.predict_proba(X), atol=1e-3)
    without = MtebProbe(clips=FittingClips(shuffled, shuffled.astype(str)))
    without.fit(X[shuffled[:70]], y[shuffled[:70]], X[shuffled[70:]], y[shuffled[70:]])
    assert without.drawn_.max() < 70  # published validation clips are no training clips
