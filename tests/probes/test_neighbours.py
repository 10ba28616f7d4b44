"""Protocols knn and prototype: equal to scikit-learn and to a plain loop, and chosen on validation clips only."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from evar import cli, config, results
from evar.cli import run
from evar.experiment.request import choose_protocol
from evar.experiment.settings import Settings
from evar.metrics import METRICS
from evar.probes.nearest import KNNLabelsProbe, KNNNumbersProbe, KNNProbe, PrototypeProbe


def planted(n_clips=240, n_classes=3, width=12, apart=3.0, seed=0):
    """Features of very different scales (clips, width), and the labels that the first of them tell."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n_clips) % n_classes)
    noise = rng.normal(size=(n_clips, width)) * 10 ** rng.uniform(-2, 2, width)
    return (noise + apart * np.eye(width)[y]).astype(np.float32), y


@pytest.mark.parametrize("k", [1, 5, 20])
def test_many_alike_votes_equal_scikit_learn(k):
    X, y = planted()
    probe = KNNProbe(ks=(k,), temperature=1e6).fit(X[:160], y[:160])
    scaler = StandardScaler().fit(X[:160].astype(np.float64))
    reference = KNeighborsClassifier(k, metric="cosine").fit(scaler.transform(X[:160]), y[:160])
    told = reference.predict_proba(scaler.transform(X[160:]))
    np.testing.assert_allclose(probe.predict_proba(X[160:]), told, atol=1e-5)
    clear = np.sort(told, axis=1)[:, -1] - np.sort(told, axis=1)[:, -2] > 1e-3  # scikit-learn breaks ties by class
    assert (
        clear.sum() > 20
        and (probe.predict(X[160:])[clear] == reference.predict(scaler.transform(X[160:]))[clear]).all()
    )


def test_votes_are_weighted_by_similarity_as_in_a_plain_loop(monkeypatch):
    X, y = planted(seed=1)
    monkeypatch.setattr("evar.probes.cosine._NUMBERS_AT_ONCE", 1000)  # several portions
    probe = KNNProbe(ks=(7,)).fit(X[:160], y[:160])
    scaled = StandardScaler().fit(X[:160].astype(np.float64)).transform(X)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    for at in range(160, 180):
        similar = scaled[:160] @ scaled[at]
        nearest = np.argsort(-similar)[:7]
        votes = np.array([np.exp(similar[nearest[y[nearest] == c]] / 0.07).sum() for c in range(3)])
        np.testing.assert_allclose(probe.predict_proba(X[at : at + 1])[0], votes / votes.sum(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_averages_of_labels_and_numbers_equal_scikit_learn(k, kind):
    X, classes = planted()
    told = np.stack([classes == 0, classes >= 1], axis=1).astype(np.uint8) if kind == "labels" else classes * 1.5
    probe = (KNNLabelsProbe if kind == "labels" else KNNNumbersProbe)(ks=(k,), temperature=1e6).fit(X[:160], told[:160])
    scaler = StandardScaler().fit(X[:160].astype(np.float64))
    reference = KNeighborsRegressor(k, metric="cosine").fit(scaler.transform(X[:160]), told[:160])
    found = probe.decision_function(X[160:]) if kind == "labels" else probe.predict(X[160:])
    np.testing.assert_allclose(found, reference.predict(scaler.transform(X[160:])), atol=1e-5)
    if kind == "labels":
        assert (probe.predict(X[160:]) == (found >= 0.5)).all()


@pytest.mark.parametrize(("cls", "metric"), [(KNNLabelsProbe, "mean_average_precision"), (KNNNumbersProbe, "pearson")])
def test_k_of_labels_and_numbers_is_chosen_on_validation_clips(cls, metric):
    X, classes = planted(apart=1.5)
    told = np.eye(3, dtype=np.uint8)[classes] if cls is KNNLabelsProbe else classes.astype(float)
    probe = cls(ks=(1, 5, 20), metric=metric).fit(X[:120], told[:120], X[120:180], told[120:180])
    alone = [cls(ks=(k,), metric=metric).fit(X[:120], told[:120]) for k in (1, 5, 20)]
    said = [one.decision_function(X[120:180]) if cls is KNNLabelsProbe else one.predict(X[120:180]) for one in alone]
    scores = [METRICS[metric].function(told[120:180], one) for one in said]
    assert probe.valid_scores_ == pytest.approx(scores) and probe.chosen_["k"] == (1, 5, 20)[int(np.argmax(scores))]
    again = cls(ks=(probe.chosen_["k"],), metric=metric).fit(
        X[:180], told[:180]
    )  # on the scale of training clips alone
    assert probe.predict(X[180:]).shape == again.predict(X[180:]).shape
    with pytest.raises(ValueError, match="choosing among 3 numbers of neighbours needs X_valid"):
        cls(ks=(1, 5, 20), metric=metric).fit(X[:120], told[:120])


def test_prototypes_are_the_class_means():
    X, y = planted(seed=2)
    scaled = StandardScaler().fit(X[:160].astype(np.float64)).transform(X)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    means = np.stack([scaled[:160][y[:160] == c].mean(axis=0) for c in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    expected = (scaled[160:] @ means.T).argmax(axis=1)
    assert (PrototypeProbe().fit(X[:160], y[:160]).predict(X[160:]) == expected).all()


def test_k_is_the_best_on_validation_and_neighbours_are_whose_refit_says():
    X, y = planted(apart=1.5)
    probe = KNNProbe().fit(X[:120], y[:120], X[120:180], y[120:180])
    alone = [KNNProbe(ks=(k,)).fit(X[:120], y[:120]).score(X[120:180], y[120:180]) for k in probe.ks]
    np.testing.assert_allclose(probe.valid_scores_, alone)
    assert probe.valid_score_ == max(alone)
    fixed = KNNProbe(ks=(probe.chosen_["k"],))
    np.testing.assert_allclose(probe.predict_proba(X[180:]).argmax(1), _joined(fixed, X, y, 180).argmax(1))
    train = KNNProbe(refit="train").fit(X[:120], y[:120], X[120:180], y[120:180])
    np.testing.assert_allclose(train.predict_proba(X[180:]), fixed.fit(X[:120], y[:120]).predict_proba(X[180:]))


def _joined(probe, X, y, end):
    """Neighbours of both splits, standardised by the training clips."""
    probe = clone(probe).fit(X[:120], y[:120])
    scaled = (X.astype(np.float64) - probe.mean_) / probe.scale_
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    similar = scaled[end:] @ scaled[:end].T
    k = probe.ks[0]
    rows = []
    for row in similar:
        nearest = np.argsort(-row)[:k]
        rows.append([np.exp(row[nearest[y[nearest] == c]] / 0.07).sum() for c in range(3)])
    return np.array(rows)


@pytest.mark.parametrize("probe", [KNNProbe(), PrototypeProbe()])
def test_two_classes_shuffled_labels_and_labels_by_name(probe):
    X, y = planted(n_classes=2, apart=8.0, n_clips=400)
    X[:, 2:] = np.random.default_rng(0).normal(size=X[:, 2:].shape)
    X[:, :2] = 8 * np.eye(2)[y] + np.random.default_rng(1).normal(size=(400, 2))
    names = np.array(["no", "yes"])[y]
    parts = (X[:200], names[:200], X[200:300], names[200:300])
    assert clone(probe).fit(*parts).score(X[300:], names[300:]) >= 0.98
    shuffled = np.random.default_rng(3).permutation(names)
    chance = clone(probe).fit(X[:200], shuffled[:200], X[200:300], shuffled[200:300]).score(X[300:], shuffled[300:])
    assert abs(chance - 0.5) < 0.2


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        (KNNProbe(ks=()), "ks must be"),
        (KNNProbe(ks=(0,)), "ks must be"),
        (KNNProbe(temperature=0.0), "temperature must be above 0"),
        (KNNProbe(), "needs X_valid and y_valid"),
        (KNNProbe(ks=(1,), refit="all"), "refit must be"),
        (PrototypeProbe(metric="acuracy"), "did you mean 'accuracy'"),
    ],
)
def test_bad_settings_are_one_sentence(probe, said):
    X, y = planted(30)
    with pytest.raises(ValueError, match=said):
        probe.fit(X, y)
    with pytest.raises(ValueError, match="is it another layer"):
        KNNProbe(ks=(1,)).fit(X, y).predict(X[:, :5])


@pytest.mark.parametrize("protocol", config.probe_protocols())
def test_every_protocol_gives_a_row_that_holds_its_values(tones, protocol):
    root = tones(folds=True, n_per_class=15)
    encoder = "toy_twins" if protocol == "weighted" else "toy"
    words = [encoder, "tones", f"--protocol={protocol}", "--seeds=1", f"--out={root / 'results'}"]
    if protocol == "hear":
        return  # minutes of training; test_trained.py has it smaller
    if protocol in ("events", "events_notes"):
        return  # for tasks of events; test_events.py and test_more_tasks.py have them
    if protocol in ("retrieval", "zero_shot", "zero_shot_average"):
        return  # for captions and for encoders that read text; tests/lineval/test_text.py has them
    assert run(["lineval", *words]) == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.protocol == protocol and row.score >= (
        0.39 if protocol in ("evar", "mlp", "fewshot", "attentive") else 0.9
    )
    told = choose_protocol(Settings(("toy",), ("tones",), protocol=protocol))
    for name, value in told.params.items():
        assert row.params[name] == (list(value) if isinstance(value, list | tuple) else value)
    if protocol == "knn":
        assert [entry["k"] in (1, 3, 5, 10, 20, 50) for entry in row.params["chosen"]] == [True] * 3
        assert row.rounds[0]["valid_score"] is not None
