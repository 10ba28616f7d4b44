"""Hints without labels, against independent implementations and planted cases."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from scipy.linalg import svdvals
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from evar.metrics import label_free as hints

RNG = np.random.default_rng(0)
RELU = np.maximum(RNG.normal(size=(60, 8)) @ RNG.normal(size=(8, 40)), 0)  # (clips, width), like pooled features
WIDE = np.maximum(RNG.normal(size=(60, 8)) @ RNG.normal(size=(8, 900)), 0)
MAP = RNG.normal(size=(40, 15))


def orthonormal(n: int, k: int, *, centred: bool = False) -> np.ndarray:
    """(n, k) with orthonormal columns, each of mean 0 where asked for."""
    start = np.random.default_rng(1000 * n + k).normal(size=(n, k))
    start = np.column_stack([np.ones(n), start]) if centred else start
    return np.linalg.qr(start)[0][:, 1:] if centred else np.linalg.qr(start)[0]


# Effective rank


@pytest.mark.parametrize(("n", "width"), [(200, 50), (50, 300), (40, 9216)])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_k_equal_directions_are_k(n: int, width: int, k: int) -> None:
    planted = orthonormal(n, k, centred=True) @ orthonormal(width, k).T
    assert hints.effective_rank(planted) == pytest.approx(k, abs=2e-3)
    assert hints.effective_rank(1e-3 * planted + np.linspace(0, 1, width)) == pytest.approx(k, abs=2e-3)


@pytest.mark.parametrize("X", [RELU, WIDE, RNG.normal(size=(500, 30)) * np.arange(1, 31)])
def test_effective_rank_equals_its_definition(X: np.ndarray) -> None:
    singular = svdvals(X - X.mean(axis=0))
    p = singular[singular > 1e-9 * singular[0]] / singular.sum()
    assert hints.effective_rank(X) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4)
    by_variance = p**2 / (p**2).sum()
    assert hints.effective_rank(X) > 1.01 * math.exp(-(by_variance * np.log(by_variance)).sum())  # the other variant


def test_a_large_constant_feature_is_no_direction() -> None:
    with_constant = np.column_stack([RELU, np.full(len(RELU), 0.1e9)]).astype(np.float32)
    assert hints.effective_rank(with_constant) == pytest.approx(hints.effective_rank(RELU.astype(np.float32)))
    assert hints.linear_cka(with_constant, RELU) == pytest.approx(1.0)
    assert hints.intrinsic_dimension(with_constant) == pytest.approx(hints.intrinsic_dimension(RELU), rel=1e-3)


# Mean cosine


@pytest.mark.parametrize("X", [RELU, WIDE, RNG.normal(size=(100, 5)), np.tile([3.0, 4.0], (9, 1))])
def test_mean_cosine_equals_scikit_learn(X: np.ndarray) -> None:
    pairs = cosine_similarity(X)[~np.eye(len(X), dtype=bool)]
    assert hints.mean_cosine(X) == pytest.approx(pairs.mean(), abs=1e-12)


def test_mean_cosine_of_a_cone_and_without_directions() -> None:
    assert hints.mean_cosine(np.ones((5, 3)) * [[1], [2], [3], [4], [5]]) == pytest.approx(1.0)
    assert abs(hints.mean_cosine(np.random.default_rng(0).normal(size=(2000, 300)))) < 1e-3
    assert hints.mean_cosine(1e-30 * RELU) == pytest.approx(hints.mean_cosine(RELU))
    with_silence = np.vstack([np.zeros((2, RELU.shape[1])), RELU])
    assert hints.mean_cosine(with_silence) == pytest.approx(hints.mean_cosine(RELU))
    assert math.isnan(hints.mean_cosine(np.vstack([RELU[:1], np.zeros((3, RELU.shape[1]))])))


# Linear CKA


def hsic(X: np.ndarray, Y: np.ndarray) -> float:
    """Biased HSIC with linear kernels, entry by entry."""
    n = len(X)
    K = [[sum(a * b for a, b in zip(X[i], X[j], strict=True)) for j in range(n)] for i in range(n)]
    L = [[sum(a * b for a, b in zip(Y[i], Y[j], strict=True)) for j in range(n)] for i in range(n)]
    H = [[(i == j) - 1 / n for j in range(n)] for i in range(n)]
    return float(np.trace(np.array(K) @ np.array(H) @ np.array(L) @ np.array(H))) / (n - 1) ** 2


@pytest.mark.parametrize(("n", "p", "q"), [(12, 3, 2), (12, 30, 2), (8, 20, 25)])
def test_cka_equals_a_naive_hsic_loop(n: int, p: int, q: int) -> None:
    draw_numbers = np.random.default_rng(n)
    X, Y = draw_numbers.normal(size=(n, p)) + 3, draw_numbers.normal(size=(n, q))
    Y[:, 0] += X[:, 0]
    expected = hsic(X, Y) / math.sqrt(hsic(X, X) * hsic(Y, Y))
    assert hints.linear_cka(X, Y) == pytest.approx(expected, rel=1e-9)
    assert hints.cka_matrix([X, Y])[0, 1] == pytest.approx(expected, rel=1e-5)


def test_invariances_of_cka() -> None:
    X, Y = RELU, np.tanh(RELU @ MAP / 5)
    value = hints.linear_cka(X, Y)
    assert 0.05 < value < 0.95
    rotation = orthonormal(40, 40)
    assert hints.linear_cka(X @ rotation, Y) == pytest.approx(value)
    assert hints.linear_cka(7.5 * X - 3, Y) == pytest.approx(value)
    assert hints.linear_cka(Y, X) == pytest.approx(value)
    assert hints.linear_cka(X, X @ rotation) == pytest.approx(1.0)
    stretched = X * np.logspace(0, 3, 40)  # a general linear map, which loses nothing
    assert abs(hints.linear_cka(stretched, Y) - value) > 0.02 and hints.linear_cka(stretched, X) < 0.9


def test_cka_matrix_is_that_of_pairs() -> None:
    constant = np.ones((60, 4))
    layers = [RELU, WIDE, np.square(RELU), constant]
    matrix = hints.cka_matrix(layers)
    for i in range(3):
        assert matrix[i, i] == 1.0 and math.isnan(matrix[3, i]) and math.isnan(matrix[i, 3])
        for j in range(3):
            assert matrix[i, j] == matrix[j, i] == pytest.approx(hints.linear_cka(layers[i], layers[j]), rel=1e-5)
    assert math.isnan(matrix[3, 3])
    with pytest.raises(ValueError, match="the same clips in each, got \\[60, 59\\]"):
        hints.cka_matrix([RELU, RELU[1:]])
    with pytest.raises(ValueError, match="at least one layer"):
        hints.cka_matrix([])
    with pytest.raises(ValueError, match="same clips, got 60 and 59"):
        hints.linear_cka(RELU, RELU[1:])


# Intrinsic dimension


@pytest.mark.parametrize(("d", "tolerance"), [(1, 0.1), (2, 0.15), (5, 0.5), (8, 1.2)])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_dimension_of_points_embedded_in_fifty(d: int, tolerance: float, kind: str) -> None:
    """Rotated into 50 dimensions; borders make it a little too low, the more the higher d."""
    draw_points = np.random.default_rng(d)
    places = draw_points.uniform(size=(1000, d)) if kind == "uniform" else draw_points.normal(size=(1000, d))
    assert hints.intrinsic_dimension(places @ orthonormal(50, d).T + 2) == pytest.approx(d, abs=tolerance)


def two_nn(X: np.ndarray) -> float:
    """By a tree of neighbours and least squares."""
    distances = NearestNeighbors(n_neighbors=3).fit(X).kneighbors(X)[0]
    mu = np.sort(distances[:, 2] / distances[:, 1])
    n = len(mu)
    kept = int(0.9 * n)
    y = -np.log(1 - np.arange(1, kept + 1) / n)
    return float(np.linalg.lstsq(np.log(mu[:kept])[:, None], y, rcond=None)[0][0])


@pytest.mark.parametrize("X", [RELU, WIDE, RNG.normal(size=(300, 6))])
def test_dimension_equals_an_independent_implementation(X: np.ndarray) -> None:
    value = hints.intrinsic_dimension(X)
    assert value == pytest.approx(two_nn(X), rel=1e-8)
    assert hints.intrinsic_dimension(1e4 * X + 5) == pytest.approx(value, rel=1e-5)
    doubled = np.vstack([X, X[:7], X * (1 + 1e-9)])
    assert hints.intrinsic_dimension(doubled[::-1]) == pytest.approx(value, rel=1e-6)


def test_dimension_without_an_answer() -> None:
    assert math.isnan(hints.intrinsic_dimension(np.vstack([RELU[:2]] * 4)))  # two places
    assert math.isnan(hints.intrinsic_dimension(np.eye(6)))  # all equally far
    assert hints.intrinsic_dimension(RELU[:3]) > 0


# All of them


@pytest.mark.parametrize("function", [*hints.HINTS.values(), lambda X: hints.linear_cka(X, X)])
def test_what_no_hint_takes(function) -> None:
    for bad, message in [
        (RELU[0], r"\(clips, width\).* got shape \(40,\)"),
        (RELU[:2], "at least 3 clips, got 2"),
        (np.zeros((5, 0)), "at least one feature"),
        (np.where(RELU > 1, np.nan, RELU), "must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            function(bad)
    with np.errstate(all="raise"):
        for constant in (np.zeros((5, 3)), np.full((5, 3), 0.1), np.full((5, 3), 1 / 3) * (1 + 1e-9 * np.eye(5, 3))):
            assert math.isnan(function(constant)) or function is hints.mean_cosine


def test_measure_is_each_hint_on_the_usable_clips() -> None:
    bad = np.zeros(60, bool)
    bad[[3, 17]] = True
    layers = {"relu": RELU, "wide": WIDE, "flat": np.ones((60, 2))}
    read: list[str] = []

    def vectors(layer: str) -> np.ndarray:
        read.append(layer)
        return np.where(bad[:, None], np.nan, layers[layer]).astype(np.float32)

    found = hints.measure(vectors, list(layers))
    assert read == ["relu", "wide", "flat"] == found["layers"]  # one at a time, each once
    assert (found["n_clips"], found["n_usable"], found["widths"]) == (58, 58, [40, 900, 2])
    for name, function in hints.HINTS.items():
        expected = [function(layers[layer][~bad].astype(np.float32)) for layer in ("relu", "wide")]
        assert found["numbers"][name][:2] == pytest.approx(expected, rel=1e-9)
    assert [found["numbers"][name][2] for name in hints.HINTS] == [None, pytest.approx(1.0), None]
    assert found["cka"][0][1] == pytest.approx(hints.linear_cka(RELU[~bad], WIDE[~bad]), rel=1e-5)
    assert found["cka"][2] == [None, None, None]
    json.dumps(found, allow_nan=False)


def test_measure_draws_a_seeded_subset_of_the_same_clips_in_each_layer() -> None:
    X = np.random.default_rng(0).normal(size=(300, 5))
    X[::7] = np.nan
    found = hints.measure({"a": X, "b": X.copy()}.__getitem__, ["a", "b"], seed=1, max_clips=50)
    assert (found["n_clips"], found["n_usable"], found["seed"]) == (50, int(np.isfinite(X[:, 0]).sum()), 1)
    assert found["cka"][0][1] == pytest.approx(1.0)
    assert found == hints.measure({"a": X, "b": X}.__getitem__, ["a", "b"], seed=1, max_clips=50)
    assert found["numbers"] != hints.measure({"a": X, "b": X}.__getitem__, ["a", "b"], seed=2, max_clips=50)["numbers"]
    usable = np.flatnonzero(np.isfinite(X[:, 0]))
    drawn = np.sort(np.random.default_rng(1).choice(usable, 50, replace=False))
    assert found["numbers"]["effective_rank"][0] == pytest.approx(hints.effective_rank(X[drawn]))


def test_what_measure_refuses() -> None:
    other = RELU.copy()
    other[0] = np.nan
    for layers, options, message in [
        ({}, {}, "at least one layer"),
        ({"a": RELU, "b": other}, {}, "layer b must have the usable clips of layer a, 60 of 60, but has 59 of 60"),
        ({"a": RELU, "b": RELU[1:]}, {}, "59 of 59"),
        ({"a": RELU[0]}, {}, r"layer a must be \(clips, width\), got shape \(40,\)"),
        ({"a": RELU[:2]}, {}, "layer a must have at least 3 clips"),
        ({"a": RELU}, {"max_clips": 2}, "max_clips must be at least 3, got 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            hints.measure(layers.__getitem__, list(layers), **options)


def test_hints_are_cheap() -> None:
    """Seven layers of 400 clips take about 0.2 s; the limit leaves room for a machine that is busy."""
    X = np.random.default_rng(0).normal(size=(400, 2048)).astype(np.float32)
    layers = {str(index): X * (index + 1) for index in range(7)}
    began = time.process_time()
    hints.measure(layers.__getitem__, list(layers))
    assert time.process_time() - began < 3.0
