"""The linear probe: equal to scikit-learn, honest about its splits, and a well-behaved estimator."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from evar.numeric import logistic as _logistic
from evar.numeric import solve
from evar.numeric.logistic import fit_logistic, principal_coordinates
from evar.numeric.logistic_problem import LogisticProblem
from evar.numeric.solve import solve_all
from evar.probes.linear import LinearProbe


def embeddings(n_clips, width, n_classes, *, rank=20, separation=0.6, noise=0.3, unbalanced=False, seed=0):
    """Correlated, non-negative features as a network gives them: a decaying low-rank part, noise, ReLU."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_clips) % n_classes
    if unbalanced:
        labels = np.minimum(labels, rng.integers(0, n_classes, n_clips) // 2)
        labels[:n_classes] = np.arange(n_classes)
    latent = separation * rng.normal(size=(n_classes, rank))[labels] + rng.normal(size=(n_clips, rank))
    latent *= 5 / np.arange(1, rank + 1)
    features = latent @ rng.normal(size=(rank, width)) / np.sqrt(rank) + noise * rng.normal(size=(n_clips, width))
    return np.maximum(features + 1, 0).astype(np.float32), labels


def three_splits(n_train=120, n_valid=60, n_test=60, width=50, n_classes=4, **options):
    X, y = embeddings(n_train + n_valid + n_test, width, n_classes, **options)
    ends = np.cumsum([n_train, n_valid])
    return list(zip(np.split(X, ends), np.split(y, ends), strict=True))


SHAPES = {
    "fewer clips than features": {"n_clips": 60, "width": 300, "n_classes": 10},
    "more clips than features": {"n_clips": 300, "width": 40, "n_classes": 5},
    "as many": {"n_clips": 80, "width": 80, "n_classes": 4},
    "one feature": {"n_clips": 90, "width": 1, "n_classes": 3},
    "two classes, wide": {"n_clips": 50, "width": 200, "n_classes": 2},
    "two classes, narrow": {"n_clips": 200, "width": 8, "n_classes": 2},
    "two classes, one feature": {"n_clips": 50, "width": 1, "n_classes": 2},
    "50 classes": {"n_clips": 250, "width": 60, "n_classes": 50},
    "unbalanced": {"n_clips": 200, "width": 30, "n_classes": 6, "unbalanced": True},
    "highly correlated": {"n_clips": 150, "width": 60, "n_classes": 4, "rank": 3, "noise": 1e-3},
}


@pytest.mark.parametrize("strength", [1e-4, 1e-1, 10.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_scikit_learn(shape, strength):
    options = dict(SHAPES[shape])
    n_clips = options.pop("n_clips")
    X, y = embeddings(n_clips + 100, **options)
    probe = LinearProbe(strengths=(strength,)).fit(X[:n_clips], y[:n_clips])
    # Double precision throughout: a float32 StandardScaler would be the larger error of the two.
    doubled = X.astype(np.float64)
    # Not its default solver: lbfgs ends about 1e-5 from the optimum on some shapes and machines, newton-cg near 1e-9.
    probing = LogisticRegression(C=strength, solver="newton-cg", tol=1e-11, max_iter=50_000)
    reference = make_pipeline(StandardScaler(), probing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its line search ends at rounding on some shapes
        reference.fit(doubled[:n_clips], y[:n_clips])
    expected = reference.predict_proba(doubled)
    assert probe.converged_
    np.testing.assert_allclose(probe.predict_proba(X), expected, rtol=0, atol=1e-5)
    margin = np.sort(expected, axis=1)[:, -1] - np.sort(expected, axis=1)[:, -2]
    is_clear = margin > 2e-5  # 50 nearly equal probabilities at the weakest strength differ by less
    assert is_clear.mean() > 0.5
    assert np.array_equal(probe.predict(X)[is_clear], reference.predict(doubled)[is_clear])
    assert probe.decision_function(X).shape == reference.decision_function(doubled).shape
    assert probe.coef_.shape == reference[-1].coef_.shape and probe.intercept_.shape == reference[-1].intercept_.shape


@pytest.mark.parametrize(("n_clips", "width"), [(60, 300), (300, 60)])
def test_gradient_vanishes_even_at_extreme_strengths(n_clips, width):
    """Exact by its own definition, without any reference solver: separable clips, strengths far off the usual."""
    X, y = embeddings(n_clips, width, 5)
    X = torch.from_numpy((X - X.mean(axis=0)) / X.std(axis=0)).double()
    X -= X.mean(dim=0)
    strengths = [1e-8, 1e-3, 1e2, 1e5]
    fit = fit_logistic(X[None], torch.from_numpy(y)[None], strengths, n_classes=5, max_iter=200)
    assert bool(fit.converged.all())
    targets = torch.nn.functional.one_hot(torch.from_numpy(y)).T
    residual = torch.softmax(fit.logits(X[None])[0], dim=1) - targets  # (strength, class, clips)
    for at, strength in enumerate(strengths):
        gradient = strength * residual[at] @ X + fit.weights[0, at]
        assert gradient.norm() <= 1e-4 * max(float(fit.weights[0, at].norm()), 1e-6)
        assert residual[at].sum(dim=1).abs().max() < 1e-4


def test_a_padded_batch_equals_its_problems():
    first, second = (embeddings(40, 12, 3), embeddings(25, 7, 3, seed=1))
    batch, labels, weights = torch.zeros(2, 40, 12).double(), torch.zeros(2, 40, dtype=torch.int64), torch.zeros(2, 40)
    for at, (X, y) in enumerate((first, second)):
        batch[at, : X.shape[0], : X.shape[1]] = torch.from_numpy(X)
        labels[at, : len(y)] = torch.from_numpy(y)
        weights[at, : len(y)] = 1
    together = fit_logistic(batch, labels, [10.0, 0.01], n_classes=3, row_weights=weights.double(), tol=1e-8)
    for at, (X, y) in enumerate((first, second)):
        alone = fit_logistic(
            torch.from_numpy(X).double()[None], torch.from_numpy(y)[None], [10.0, 0.01], n_classes=3, tol=1e-8
        )
        torch.testing.assert_close(together.weights[at, ..., : X.shape[1]], alone.weights[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(together.intercepts[at], alone.intercepts[0], rtol=0, atol=1e-6)


def test_problems_of_other_strengths_and_tolerances_share_a_batch():
    """Easy ones end, and are dropped, while hard ones go on; each as it is alone."""
    strengths, tols = [1e-4, 1e-2, 1.0, 100.0], [1e-3, 1e-7]
    problems = []
    for seed in range(12):
        X, y = embeddings(60 + seed % 3, 25 + seed % 2, 3, seed=seed)
        wanted = (torch.from_numpy(X).double(), torch.from_numpy(y), (strengths[seed % 4],), 3, tols[seed % 2], 100)
        problems.append(LogisticProblem(*wanted))
    assert len({one.coordinates.shape for one in problems}) > 2
    for one, fit in zip(problems, solve_all(problems), strict=True):
        (alone,) = solve_all([one])
        assert bool(fit.converged.all()) and fit.weights.shape == (1, 1, 3, one.coordinates.shape[1])
        said = [torch.softmax(each.logits(one.coordinates[None]), dim=2) for each in (fit, alone)]
        torch.testing.assert_close(*said, rtol=0, atol=one.tol)


def test_strengths_are_chosen_as_by_exact_fits():
    """64 validation clips tie often: then tiny differences of the log-loss decide."""
    splits = [three_splits(120, 64, 1, width=60, n_classes=8, seed=seed)[:2] for seed in range(15)]
    chosen = {
        search_tol: [
            probe.strength_
            for probe in LinearProbe.fit_together(
                [LinearProbe(search_tol=search_tol) for _ in splits], [(*train, *valid) for train, valid in splits]
            )
        ]
        for search_tol in (1e-3, 1e-7)
    }
    assert chosen[1e-3] == chosen[1e-7] and len(set(chosen[1e-3])) > 1


def test_strengths_solved_in_turn_give_the_same(monkeypatch):
    X, y = embeddings(60, 20, 3)
    arguments = (torch.from_numpy(X).double()[None], torch.from_numpy(y)[None], [1.0, 1e-3, 0.1])
    at_once = fit_logistic(*arguments, n_classes=3, tol=1e-8)
    monkeypatch.setattr(_logistic, "NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr(solve, "NUMBERS_AT_ONCE", 1)
    in_turn = fit_logistic(*arguments, n_classes=3, tol=1e-8)
    torch.testing.assert_close(in_turn.weights, at_once.weights, rtol=0, atol=1e-6)
    batches: list[int] = []
    fit = solve.fit_batch
    monkeypatch.setattr(solve, "fit_batch", lambda *given: batches.append(len(given[0])) or fit(*given))
    problem = LogisticProblem(torch.from_numpy(X).double(), torch.from_numpy(y), (1.0, 1e-3, 0.1), 3, 1e-8, 100)
    for one in solve_all([problem, problem]):
        torch.testing.assert_close(one.weights, at_once.weights, rtol=0, atol=1e-6)
    assert batches == [1, 1]  # classes and clips count against memory too


@pytest.mark.parametrize("shape", [(10, 30), (30, 10), (12, 12)])
def test_principal_coordinates_are_a_rotation(shape):
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()
    rows[1] = rows[0]
    coordinates, basis = principal_coordinates(rows)
    torch.testing.assert_close(coordinates @ basis.T, rows)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]).double())


def test_separable_classes_are_learned_and_shuffled_labels_give_chance():
    (X, y), (X_valid, y_valid), (X_test, y_test) = three_splits(200, 100, 400, separation=4.0)
    assert LinearProbe().fit(X, y, X_valid, y_valid).score(X_test, y_test) >= 0.95
    rng = np.random.default_rng(0)
    shuffled = LinearProbe().fit(X, rng.permutation(y), X_valid, rng.permutation(y_valid))
    assert shuffled.score(X_test, rng.permutation(y_test)) == pytest.approx(0.25, abs=0.08)


def test_strength_is_the_best_on_validation_as_scikit_learn_finds_it():
    (X, y), (X_valid, y_valid), _ = three_splits(80, 200, 0, width=120, separation=0.8)
    probe = LinearProbe().fit(X, y, X_valid, y_valid)
    scaler = StandardScaler().fit(X.astype(np.float64))
    standard, standard_valid = (scaler.transform(part.astype(np.float64)) for part in (X, X_valid))
    scores = []
    for strength in probe.strengths:
        reference = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000).fit(standard, y)
        scores.append(reference.score(standard_valid, y_valid))
    is_tried = ~np.isnan(probe.valid_scores_)
    assert is_tried.sum() >= 6  # the smaller half of the grid, and larger ones until one is worse
    np.testing.assert_allclose(probe.valid_scores_[is_tried], np.array(scores)[is_tried], atol=0.5 / len(y_valid))
    assert scores[probe.strengths.index(probe.strength_)] == max(scores) and max(scores) > min(scores)
    assert not probe.on_grid_edge_
    assert LinearProbe(strengths=(1e-9, 1e-8)).fit(X, y, X_valid, y_valid).on_grid_edge_


def test_the_search_ends_after_the_first_larger_strength_that_is_worse_in_score_and_log_loss():
    (X, y), (X_valid, y_valid), _ = three_splits(80, 200, 0, width=120, separation=0.8)
    strengths = tuple(10.0**power for power in range(-5, 5))
    probe = LinearProbe(strengths=strengths).fit(X, y, X_valid, y_valid)
    n_tried = int((~np.isnan(probe.valid_scores_)).sum())
    assert 6 <= n_tried < len(strengths) and not np.isnan(probe.valid_scores_[:n_tried]).any()
    last, before = n_tried - 1, slice(0, n_tried - 1)
    assert probe.valid_scores_[last] < probe.valid_scores_[before].max()
    assert probe.valid_log_losses_[last] > probe.valid_log_losses_[before].min()
    backwards = LinearProbe(strengths=strengths[::-1]).fit(X, y, X_valid, y_valid)  # the order given is no matter
    np.testing.assert_array_equal(backwards.valid_scores_[::-1], probe.valid_scores_)


def test_equal_scores_are_decided_by_log_loss():
    # Far apart: every strength is perfect, so only the log-loss tells them apart.
    (X, y), (X_valid, y_valid), _ = three_splits(separation=20.0, noise=0.01)
    probe = LinearProbe(strengths=(1.0, 100.0, 1e-3)).fit(X, y, X_valid, y_valid)
    assert set(probe.valid_scores_) == {1.0}
    assert probe.strength_ == probe.strengths[int(np.argmin(probe.valid_log_losses_))]


def test_refit_rules_differ_and_each_is_what_it_says():
    (X, y), (X_valid, y_valid), _ = three_splits()
    strengths = (0.01, 0.1)
    on_train = LinearProbe(strengths, refit="train").fit(X, y, X_valid, y_valid)
    on_both = LinearProbe(strengths, refit="train_and_valid").fit(X, y, X_valid, y_valid)
    assert on_train.strength_ == on_both.strength_
    assert np.abs(on_train.coef_ - on_both.coef_).max() > 1e-3
    alone = LinearProbe((on_train.strength_,)).fit(X, y)
    np.testing.assert_allclose(on_train.coef_, alone.coef_, atol=1e-6)
    scaler = StandardScaler().fit(X.astype(np.float64))
    both = np.concatenate([X, X_valid]).astype(np.float64)
    reference = LogisticRegression(C=on_both.strength_, tol=1e-10, max_iter=20_000)
    reference.fit(scaler.transform(both), np.concatenate([y, y_valid]))
    np.testing.assert_allclose(
        on_both.predict_proba(both), reference.predict_proba(scaler.transform(both)), rtol=0, atol=1e-5
    )


def test_statistics_come_from_training_clips_alone():
    (X, y), (X_valid, y_valid), _ = three_splits()
    probe = LinearProbe().fit(X, y, X_valid + 100, y_valid)
    np.testing.assert_allclose(probe.mean_, X.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(probe.scale_, X.std(axis=0, dtype=np.float64), rtol=1e-6)


def test_validation_clips_cannot_move_a_fit_on_train():
    (X, y), (X_valid, y_valid), _ = three_splits()
    fits = [
        LinearProbe((0.1,), refit="train").fit(X, y, valid, labels)
        for valid, labels in ((X_valid, y_valid), (X_valid * 3 - 1, y_valid[::-1]))
    ]
    np.testing.assert_allclose(fits[0].predict_proba(X), fits[1].predict_proba(X), rtol=0, atol=1e-6)


def test_constant_features_get_no_weight():
    (X, y), (X_valid, y_valid), _ = three_splits()
    plain = LinearProbe().fit(X, y, X_valid, y_valid)
    constant = np.full((len(X), 1), 0.1, np.float32)
    constant[0] = np.nextafter(np.float32(0.1), np.float32(1))  # rounding of the last bit is no information
    wild = 1e6 * np.ones((len(X_valid), 1), np.float32)
    probe = LinearProbe().fit(np.hstack([X, constant]), y, np.hstack([X_valid, wild]), y_valid)
    assert probe.coef_[:, -1].tolist() == [0.0] * 4
    np.testing.assert_allclose(probe.coef_[:, :-1], plain.coef_, atol=1e-6)
    only = LinearProbe((1.0,)).fit(np.ones((9, 2), np.float32), [0, 1, 1] * 3)
    np.testing.assert_allclose(only.predict_proba(np.ones((1, 2))), [[1 / 3, 2 / 3]], atol=1e-6)


def test_a_label_that_only_validation_has():
    (X, y), (X_valid, y_valid), _ = three_splits()
    y_valid = np.where(np.arange(len(y_valid)) < 10, 99, y_valid)
    on_train = LinearProbe(refit="train").fit(X, y, X_valid, y_valid)
    assert on_train.classes_.tolist() == [0, 1, 2, 3] and np.nanmax(on_train.valid_scores_) <= 50 / 60
    assert LinearProbe().fit(X, y, X_valid, y_valid).classes_.tolist() == [0, 1, 2, 3, 99]


def test_labels_may_be_names_and_integers_alike():
    (X, y), (X_valid, y_valid), (X_test, _) = three_splits()
    names = np.array(["bark", "cough", "engine", "rain"])
    named = LinearProbe().fit(X, names[y], X_valid, names[y_valid])
    numbered = LinearProbe().fit(X, y, X_valid, y_valid)
    assert named.predict(X_test).tolist() == names[numbered.predict(X_test)].tolist()


def test_large_offsets_do_not_hurt():
    (X, y), (X_valid, y_valid), (X_test, _) = three_splits()
    shifted = [part.astype(np.float64) * 1e3 + 1e6 for part in (X, X_valid, X_test)]
    plain = LinearProbe().fit(X, y, X_valid, y_valid)
    moved = LinearProbe().fit(shifted[0], y, shifted[1], y_valid)
    np.testing.assert_allclose(moved.predict_proba(shifted[2]), plain.predict_proba(X_test), rtol=0, atol=1e-5)


def test_too_few_steps_are_admitted():
    (X, y), (X_valid, y_valid), _ = three_splits()
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        probe = LinearProbe(max_iter=1).fit(X, y, X_valid, y_valid)
    assert not probe.converged_


GOOD = {"X": np.eye(4, 3), "y": [0, 1, 0, 1], "X_valid": np.ones((2, 3)), "y_valid": [0, 1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_valid": None, "y_valid": None}, "8 strengths needs X_valid"),
        ({"y_valid": None}, "go together"),
        ({"y": [1, 1, 1, 1]}, "at least 2 classes"),
        ({"X": np.ones((1, 3)), "y": [0]}, "at least 2 classes"),
        ({"X": np.array([[0, 1, np.nan]] * 4)}, "4 NaN or infinite .* clip 0, feature 2"),
        ({"X_valid": np.full((2, 3), np.inf)}, "validation embeddings hold 6"),
        ({"X_valid": np.ones((2, 5))}, "5 features, but LinearProbe is expecting 3"),
        ({"X_valid": np.ones((0, 3)), "y_valid": []}, "validation embeddings are empty"),
        ({"X": np.ones(4)}, r"\(clips, width\)"),
        ({"y": [0, 1]}, "one per clip"),
        ({"y_valid": ["a", "b"]}, "of one type"),
        ({"strengths": ()}, "positive numbers"),
        ({"strengths": (1.0, -1.0)}, "positive numbers"),
        ({"strengths": (1.0, 1.0)}, "distinct"),
        ({"refit": "valid"}, "train or train_and_valid"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"tol": 0}, "tol must be > 0"),
        ({"max_iter": 0}, "max_iter >= 1"),
    ],
)
def test_bad_input_is_one_sentence(changes, message):
    call = {**GOOD, **changes}
    data = {name: call.pop(name) for name in GOOD}
    with pytest.raises(ValueError, match=message) as error:
        LinearProbe(**call).fit(**data)
    assert "\n" not in str(error.value)


def test_prediction_checks_its_input():
    with pytest.raises(NotFittedError):
        LinearProbe().predict(np.ones((1, 3)))
    probe = LinearProbe().fit(**GOOD)
    with pytest.raises(ValueError, match="is expecting 3 features as input; is it another layer"):
        probe.predict(np.ones((1, 4)))
    with pytest.raises(ValueError, match="NaN"):
        probe.predict([[0, 1, np.nan]])


def test_clone_pipeline_and_grid_search():
    (X, y), _, (X_test, y_test) = three_splits(separation=3.0)
    copy = clone(LinearProbe(strengths=(0.1, 1.0), refit="train"))
    assert copy.get_params()["strengths"] == (0.1, 1.0) and copy.refit == "train" and not hasattr(copy, "coef_")
    pipeline = make_pipeline(MinMaxScaler(), LinearProbe((0.1,))).fit(X, y)
    assert pipeline.score(X_test, y_test) > 0.9
    search = GridSearchCV(LinearProbe(), {"strengths": [(1e-6,), (1e-2,)]}, cv=3).fit(X, y)
    assert search.score(X_test, y_test) > 0.9 and len(search.best_params_["strengths"]) == 1


@parametrize_with_checks([LinearProbe(strengths=(1.0,))])
def test_obeys_scikit_learn(estimator, check):
    check(estimator)


def test_fitting_together_equals_fitting_one_by_one():
    """Rounds of unequal sizes and ranks, padded into one batch: the same strengths and the same probabilities."""
    rounds = [three_splits(60 + 7 * seed, 40, 50, width=90, separation=1.0, seed=seed) for seed in range(4)]
    splits = [(*train, *valid) for train, valid, _ in rounds]
    together = LinearProbe.fit_together([LinearProbe() for _ in rounds], splits)
    for probe, split, (_, _, (X_test, _)) in zip(together, splits, rounds, strict=True):
        alone = LinearProbe().fit(*split)
        assert alone.strength_ == probe.strength_
        np.testing.assert_array_equal(alone.valid_scores_, probe.valid_scores_)
        np.testing.assert_allclose(alone.predict_proba(X_test), probe.predict_proba(X_test), atol=1e-5)
