"""The probe on a weighted sum of layers: finds the layer that knows, and is logistic regression where there is one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from evar.config.protocol import load_protocol_config
from evar.experiment.selection import Selection
from evar.lineval.cells import group_rows
from evar.probes.linear import LinearProbe
from evar.probes.weighted_sum import WeightedSumProbe

N_LAYERS, WIDTH = 4, 12


def planted(knowing: int, n_clips: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(clips, N_LAYERS x WIDTH) float32 and labels of 3 classes, which one layer tells; its scale is odd."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_clips) % 3
    layers = [rng.normal(size=(n_clips, WIDTH)) * 10.0**at for at in range(N_LAYERS)]
    layers[knowing] = (rng.normal(size=(n_clips, WIDTH)) + 3 * np.eye(WIDTH)[y]) * 0.01
    return np.concatenate(layers, axis=1).astype(np.float32), y


@pytest.mark.parametrize("knowing", range(N_LAYERS))
def test_the_layer_that_knows_gets_the_weight(knowing: int) -> None:
    X, y = planted(knowing)
    probe = WeightedSumProbe(N_LAYERS).fit(X[:120], y[:120], X[120:180], y[120:180])
    assert probe.layer_weights_.sum() == pytest.approx(1.0)
    assert probe.layer_weights_.argmax() == knowing and probe.layer_weights_[knowing] > 0.6
    assert probe.score(X[180:], y[180:]) > 0.9
    assert probe.valid_score_ > 0.9 and probe.valid_log_loss_ < 0.5


def test_one_layer_is_logistic_regression() -> None:
    X, y = planted(0)
    X = X[:, :WIDTH] + 0
    probe = WeightedSumProbe(1, strengths=(0.1,), tol=1e-7, max_iter=3000).fit(X[:150], y[:150])
    scaler = StandardScaler().fit(X[:150])
    reference = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(scaler.transform(X[:150]), y[:150])
    logits = probe.decision_function(X)
    expected = reference.decision_function(scaler.transform(X))
    assert logits - logits.mean(1, keepdims=True) == pytest.approx(expected - expected.mean(1, keepdims=True), abs=2e-3)
    assert probe.layer_weights_.tolist() == [1.0]


def test_gradient_is_that_of_the_objective() -> None:
    """The optimum of the objective cannot be bettered by moving the layer weights."""
    X, y = planted(2)
    probe = WeightedSumProbe(N_LAYERS, strengths=(0.01,), tol=1e-7, max_iter=3000).fit(X[:150], y[:150])
    layers = probe._standardise_layers(X[:150]).astype(np.float64)
    index = np.searchsorted(probe.classes_, y[:150])

    def objective(of_layers: np.ndarray) -> float:
        weights = np.exp(of_layers) / np.exp(of_layers).sum()
        logits = np.tensordot(weights, layers, axes=1) @ probe.coef_ + probe.intercept_
        shares = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -0.01 * shares[np.arange(150), index].sum() + 0.5 * (probe.coef_**2).sum()

    best = objective(probe._logits_of_layers)
    for at in range(N_LAYERS):
        for step in (-0.05, 0.05):
            moved = probe._logits_of_layers.copy()
            moved[at] += step
            assert objective(moved) > best - 1e-7


def test_validation_clips_choose_and_test_clips_do_not() -> None:
    X, y = planted(1)
    first = WeightedSumProbe(N_LAYERS).fit(X[:120], y[:120], X[120:180], y[120:180])
    again = clone(first).fit(X[:120], y[:120], X[120:180], y[120:180])
    assert first.strength_ == again.strength_
    assert np.array_equal(first.coef_, again.coef_)
    only_train = WeightedSumProbe(N_LAYERS, refit="train").fit(X[:120], y[:120], X[120:180], y[120:180])
    assert only_train.strength_ == first.strength_ and not np.array_equal(only_train.coef_, first.coef_)


@pytest.mark.parametrize(
    ("n_layers", "strengths", "said"),
    [(5, (1.0,), "must hold 5 layers of equal width, got 48"), (4, (1.0, 2.0), "needs X_valid and y_valid")],
)
def test_what_does_not_fit_is_told(n_layers: int, strengths: tuple[float, ...], said: str) -> None:
    X, y = planted(0)
    with pytest.raises(ValueError, match=said):
        WeightedSumProbe(n_layers, strengths=strengths).fit(X, y)
    with pytest.raises(ValueError, match="at least 2 classes"):
        WeightedSumProbe(4, strengths=(1.0,)).fit(X, np.zeros(len(X), int))


def test_rows_are_fitted_side_by_side_as_memory_bears_and_a_weighted_sum_alone(monkeypatch) -> None:
    class SomeTask(list):
        config = SimpleNamespace(kind="multiclass", metric="accuracy", classes=["a", "b"])

        def rounds(self, seed: int) -> list[int]:
            return [seed]

    names = ["a", "b", "c", "a+b", "d"]
    pending = []
    for name in names:
        selection = Selection((*name.split("+"),), "weighted" if "+" in name else "none")
        pending.append(SimpleNamespace(selection=selection, fusion=selection.fusion, seed=0, id=name))
    vectors = SimpleNamespace(width=lambda selection: 10)
    cell = SimpleNamespace(protocol=load_protocol_config("linear"), task=SomeTask("xyz"), metric="accuracy")

    def groups(n_bytes: int) -> list[str]:
        monkeypatch.setattr("evar.lineval.fit.BYTES_TOGETHER", n_bytes)
        return ["".join(row.id for row in rows) for rows in group_rows(cell, vectors, pending)]

    each = LinearProbe.traits.count_bytes(LinearProbe(), 3, 10, 2)
    assert groups(10 * each) == ["abc", "a+b", "d"]
    assert groups(2 * each) == ["ab", "c", "a+b", "d"]
    assert groups(1) == names
