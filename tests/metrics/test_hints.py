"""Hints without labels, against independent implementations and planted cases; their records and their tables."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import svdvals
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors
from test_report import cells, layer_rows, row

from evar import report, results
from evar.metrics import label_free as hints
from evar.report.hints import hint_tables, long_csv, markdown, write_hints
from evar.report.plots.hints import draw, similarity_maps
from evar.results import Result
from evar.results.hints import HintsRecord, hints_id, hints_path, load_hints, read_hints, save_hints

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
        (RELU[:2], "at least 3 clips .* got 2"),
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


# Records


def record(encoder: str = "a", task: str = "t", **others: object) -> HintsRecord:
    """Hints of four layers, layer1 to layer4, that fit `layer_rows(encoder, task, four scores)`."""
    layers = [f"layer{index + 1}" for index in range(4)]
    values = {
        "encoder": encoder,
        "weights": "x.pt",
        "weights_sha256": "ab" * 32,
        "pooling": dict.fromkeys(layers, "mean"),
        "task": task,
        "task_version": "1",
        "layers": layers,
        "widths": [8, 8, 16, 1],
        "numbers": {
            "effective_rank": [1.0, 2.0, 4.0, 3.0],
            "mean_cosine": [0.9, 0.8, 0.7, 0.6],
            "intrinsic_dimension": [2.0, 3.0, 4.0, None],
        },
        "cka": [[1.0, 0.5, 0.4, None], [0.5, 1.0, 0.3, None], [0.4, 0.3, 1.0, None], [None] * 4],
        "n_clips": 50,
        "n_usable": 80,
        "seed": 0,
        "created": "2026-01-31T12:00:00+00:00",
    }
    return HintsRecord(**{**values, **others})


def test_record_round_trip(tmp_path: Path) -> None:
    whole = record(extraction={"clip_seconds": 5.0, "norm_stats": "train"}, norm_stats=(-7.1, 4.2), limit=50)
    path = save_hints(tmp_path, whole)
    assert path == tmp_path / "hints" / f"{whole.id}.json" == hints_path(tmp_path, whole.id)
    assert whole.id.startswith("a__all__t__hints__s0__")
    assert read_hints(path) == whole and load_hints(tmp_path) == [whole]
    written = json.loads(path.read_text(encoding="utf-8"))
    assert list(written) == sorted(written) and written["numbers"]["intrinsic_dimension"][3] is None
    before = path.read_bytes()
    save_hints(str(tmp_path), read_hints(path))
    assert path.read_bytes() == before and [other.name for other in path.parent.iterdir()] == [path.name]
    assert record(created="").created.endswith("+00:00")


def test_what_makes_another_record() -> None:
    same = record()
    for others in [
        {"encoder": "b"},
        {"weights_sha256": "c" * 64},
        {"encoder_options": {"n_mels": 64}},
        {"extraction": {"clip_seconds": 2}},
        {"pooling": dict.fromkeys(same.layers, "max")},
        {"task": "u"},
        {"task_version": "2"},
        {"index_sha256": "d" * 64},
        {"limit": 5},
        {"seed": 1},
    ]:
        assert record(**others).id != same.id
    assert record(created="2026-02-01T12:00:00+00:00", n_clips=40).id == same.id
    assert hints_id({**same.to_dict(), "more": 1}) == same.id
    with pytest.raises(ValueError, match="lacks task, task_version"):
        hints_id({key: value for key, value in same.to_dict().items() if not key.startswith("task")})


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"layers": []}, "layers must name at least one"),
        ({"layers": ["layer1"] * 4}, "each once"),
        ({"widths": [1, 2, 3]}, "widths must be 4 whole numbers"),
        ({"widths": [1, 2, 3, 4.5]}, "widths must be 4 whole numbers"),
        ({"numbers": {"mean_cosine": [1.0]}}, "numbers.mean_cosine must be 4 finite numbers or nulls"),
        ({"numbers": {"mean_cosine": [1.0, 2.0, 3.0, "4"]}}, "numbers.mean_cosine must be 4"),
        ({"numbers": {"mean_cosine": [1.0, 2.0, 3.0, math.nan]}}, "must be finite, got nan"),
        ({"cka": [[1.0] * 4] * 3}, "cka must be 4 lists of 4"),
        ({"cka": [[50.0] * 4] * 4}, "is it in percent"),
        ({"pooling": {"layer1": "mean"}}, "pooling must name one for each"),
        ({"n_clips": 81}, "n_clips must be at most n_usable, 80, got 81"),
        ({"n_clips": -1}, "n_clips must be a whole number"),
        ({"limit": "5"}, "limit must be a whole number"),
        ({"encoder": ""}, "encoder must be text"),
        ({"norm_stats": [1.0]}, "a mean and a standard deviation"),
        ({"created": "yesterday"}, "ISO 8601 time in UTC"),
        ({"id": "../a"}, "plain file name"),
        ({"extraction": []}, "extraction must be an object"),
    ],
)
def test_what_may_not_be_in_a_record(others: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record(**others)


def test_reading_is_strict(tmp_path: Path) -> None:
    data = record().to_dict()
    with pytest.raises(ValueError, match="no key 'layer'; .* did you mean 'layers'"):
        HintsRecord.from_dict({**data, "layer": 1})
    for key in data:
        with pytest.raises(ValueError, match=f"needs all of its keys, but lacks {key};"):
            HintsRecord.from_dict({name: value for name, value in data.items() if name != key})
    with pytest.raises(ValueError, match="schema 2 needs a newer version"):
        HintsRecord.from_dict({**data, "schema": 2})
    with pytest.raises(ValueError, match="JSON object"):
        HintsRecord.from_dict([])
    path = save_hints(tmp_path, record())
    path.with_name("copy.json").write_bytes(path.read_bytes())
    path.with_name("torn.json").write_bytes(path.read_bytes()[:100])
    path.with_name("nan.json").write_text(path.read_text().replace("0.9", "NaN"), encoding="utf-8")
    with pytest.warns(UserWarning) as said:
        assert load_hints(tmp_path) == [record()]
    assert [
        name in str(one.message) for one, name in zip(said, ("a__all__", "nan.json", "torn.json"), strict=True)
    ] == ([True] * 3)
    assert load_hints(tmp_path / "none") == []


# Tables


SCORES = [0.2, 0.3, 0.5, 0.4]


def test_scores_stand_beside_the_hints_of_the_same_vectors() -> None:
    (only,), n_older = hint_tables([record()], layer_rows("a", "t", SCORES, default=2))
    assert n_older == 0 and (only.label, only.task, only.protocol, only.metric) == ("a", "t", "linear", "accuracy")
    assert [(line.layer, line.depth, line.score, line.is_default) for line in only.lines] == [
        ("layer1", 0.25, 0.2, False),
        ("layer2", 0.5, 0.3, False),
        ("layer3", 0.75, 0.5, True),
        ("layer4", 1.0, 0.4, False),
    ]
    assert only.correlation("effective_rank") == (pytest.approx(1.0), 4)
    assert only.correlation("mean_cosine") == (pytest.approx(spearmanr([4, 3, 2, 1], SCORES).statistic), 4)
    assert only.correlation("intrinsic_dimension") == (None, 3)


@pytest.mark.parametrize(
    "others",
    [
        {"weights_sha256": "c" * 64},
        {"extraction": {"clip_seconds": 2}},
        {"encoder_options": {"n_mels": 64}},
        {"index_sha256": "d" * 64},
        {"task_version": "2"},
        {"limit": 5},
        {"pooling": {"layer1": "max", "layer2": "max", "layer3": "max", "layer4": "max"}},
        {"encoder": "b"},
    ],
)
def test_scores_of_other_vectors_or_clips_do_not(others: dict) -> None:
    (only,), _ = hint_tables([record(**others)], layer_rows("a", "t", SCORES))
    assert [line.score for line in only.lines] == [None] * 4
    assert only.correlation("effective_rank") == (None, 0)


def test_correlations_need_four_layers_that_differ() -> None:
    few, _ = hint_tables([record()], layer_rows("a", "t", SCORES)[:3])
    assert few[0].correlation("effective_rank") == (None, 3)
    same, _ = hint_tables([record()], layer_rows("a", "t", [0.5] * 4))
    assert same[0].correlation("effective_rank") == (None, 4)
    lines = [line for one in (few, same) for line in cells(markdown(one))[0][1:]]
    assert [line[2:] for line in lines] == [
        ["3", "too few layers", "too few layers", "too few layers"],
        ["4", "constant", "constant", "too few layers"],
    ]


def test_hints_table_by_hand() -> None:
    text = markdown(*hint_tables([record(), record(task="u")], layer_rows("a", "t", SCORES)))
    correlations, layers = cells(text)
    assert correlations == [
        ["encoder", "task", "layers", "effective rank", "mean cosine", "intrinsic dimension"],
        ["a", "t", "4", "+1.00", "-0.80", "too few layers"],
        ["a", "u", "0", "too few layers", "too few layers", "too few layers"],
    ]
    assert layers[0] == [
        *("task", "layer", "depth", "width", "accuracy (%)", "effective rank", "mean cosine", "intrinsic dimension"),
    ]
    assert layers[3:6] == [
        ["t", "layer3", "0.75", "16", "50.0", "4.0", "0.70", "4.0"],
        ["t", "layer4 (default)", "1.00", "1", "40.0", "3.0", "0.60", "-"],
        ["u", "layer1", "0.25", "8", "-", "1.0", "0.90", "2.0"],
    ]
    for said in ("Roy and Vetterli 2007", "Facco et al. 2017", "Ethayarajh 2019", "t 50 of 80, u 50 of 80", "test clips",
                 "not independent"):  # fmt: skip
        assert said in text
    assert "older" not in text


def test_the_newest_of_two_settings_is_shown_and_said() -> None:
    older = record(extraction={"clip_seconds": 1}, created="2025-01-01T00:00:00+00:00")
    newer = record(extraction={"clip_seconds": 2})
    found, n_older = hint_tables([newer, older], [])
    assert [one.record for one in found] == [newer] and n_older == 1
    assert "1 older records of other settings" in markdown(found, n_older)
    rows = layer_rows("a", "t", SCORES, extraction={"clip_seconds": 1})
    assert [one.record for one in hint_tables([newer, older], rows)[0]] == [older]  # the one that the scores are of


def test_variants_and_protocols_are_told_apart() -> None:
    untrained = record(weights="random", weights_sha256="c" * 64)
    rows = [
        *layer_rows("a", "t", SCORES),
        *layer_rows("a", "t", SCORES, weights="random", weights_sha256="c" * 64),
        *layer_rows("a", "t", SCORES[::-1], params={"protocol_version": "2"}),
    ]
    found, _ = hint_tables([record(), untrained], rows)
    assert [(one.label, one.protocol) for one in found] == [
        ("a (weights random)", "linear version 1"),
        ("a (weights x.pt)", "linear version 1"),
        ("a (weights x.pt)", "linear version 2"),
    ]
    upside_down = spearmanr([1, 2, 4, 3], SCORES[::-1]).statistic
    assert [one.correlation("effective_rank")[0] for one in found] == pytest.approx([1.0, 1.0, upside_down])
    assert "t, linear version 2" in markdown(found)
    alone, _ = hint_tables([untrained], [])
    assert alone[0].label == "a (random weights)"
    assert len(similarity_maps([(one.label, one.record) for one in found])) == 2


def test_seeds_are_averaged() -> None:
    rows = [*layer_rows("a", "t", SCORES), *layer_rows("a", "t", [score + 0.1 for score in SCORES], seed=1)]
    (only,), _ = hint_tables([record()], rows)
    assert [line.score for line in only.lines] == pytest.approx([0.25, 0.35, 0.55, 0.45])


def test_csv_has_a_line_a_layer() -> None:
    found, _ = hint_tables([record(limit=50)], layer_rows("a", "t", SCORES, limit=50))
    lines = list(csv.DictReader(io.StringIO(long_csv(found))))
    assert [line["layer"] for line in lines] == ["layer1", "layer2", "layer3", "layer4"]
    last = lines[3]
    assert (last["encoder"], last["task"], last["limit"], last["score"], last["default"]) == (
        "a",
        "t",
        "50",
        "0.4",
        "true",
    )
    assert (last["effective_rank"], last["mean_cosine"], last["intrinsic_dimension"]) == ("3.0", "0.6", "")
    assert (last["n_clips"], last["n_usable"], last["width"]) == ("50", "80", "1")
    assert (last["spearman_effective_rank"], last["n_layers_effective_rank"]) == ("1.0", "4")
    assert (last["spearman_intrinsic_dimension"], last["n_layers_intrinsic_dimension"]) == ("", "3")


def test_nothing_breaks_markdown() -> None:
    nasty = "a|b`c*d<e>\n| h | _i_ \\"
    text = markdown(hint_tables([record(encoder=nasty, task=nasty)], [])[0])
    assert [{len(line) for line in lines} for lines in cells(text)] == [{6}, {8}]


# Pictures


def test_similarity_is_the_mean_over_tasks() -> None:
    other = record(task="u", cka=[[1.0, 0.7, 0.4, 0.1], *[[0.7, 1.0, 0.3, None]] * 3])
    limited = record(limit=5)
    single = record("floor", layers=["x"], pooling={"x": "mean"}, widths=[3], numbers={}, cka=[[1.0]])
    maps = similarity_maps([("a", record()), ("a", record()), ("a", other), ("a", limited), ("floor", single)])
    assert [(one.label, one.tasks) for one in maps] == [("a", ("t", "u")), ("a (limit 5)", ("t",))]
    assert maps[0].values[0] == pytest.approx((1.0, 0.6, 0.4, 0.1))
    assert maps[0].values[1][3] is None
    figure = draw(maps)
    first, second, bar = figure.axes
    assert [ax.get_title(loc="left") for ax in (first, second)] == [
        "a",
        "a (limit 5)",
    ] and bar.get_title() == "linear CKA"
    assert [text.get_text() for text in first.get_xticklabels()] == ["layer1", "layer2", "layer3", "layer4"]
    drawn = first.images[0].get_array()
    np.testing.assert_allclose(drawn[0], [1.0, 0.6, 0.4, 0.1])
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0.0, 1.0)
    assert "0.60" in [text.get_text() for text in first.texts] and np.ma.is_masked(drawn[1, 3])
    said = " ".join(text.get_text() for text in figure.texts)
    assert "mean over the tasks of each encoder" in " ".join(said.split())


def test_many_layers_get_cells_without_numbers() -> None:
    names = [f"hidden{index}" for index in range(25)]
    (found,) = similarity_maps(
        [
            (
                "a",
                record(
                    layers=names,
                    pooling=dict.fromkeys(names, "mean"),
                    widths=[1] * 25,
                    numbers={},
                    cka=[[0.5] * 25] * 25,
                ),
            )
        ]
    )
    ax = draw([found]).axes[0]
    assert not any(text.get_text() for text in ax.texts) and ax.get_xticklabels()[0].get_rotation() == 90


def test_build_writes_hints_and_forgets_them(tmp_path: Path) -> None:
    for one in layer_rows("a", "t", SCORES):
        results.save(one, tmp_path)
    path = save_hints(tmp_path, record())
    names = {"hints.md", "hints.csv", "hints.png", "hints.svg"}
    assert names < {written.name for written in report.build(tmp_path)}
    assert (tmp_path / "hints.png").read_bytes().startswith(b"\x89PNG")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    again = write_hints(load_hints(tmp_path), results.load_all(tmp_path), tmp_path / "again")
    assert {written.name: written.read_bytes() for written in again} == before
    path.unlink()
    assert not names & {written.name for written in report.build(tmp_path)}
    assert not any((tmp_path / name).exists() for name in names)


def test_hints_need_no_torch(tmp_path: Path) -> None:
    save_hints(tmp_path, record())
    results.save(row("a", "t", 0.5), tmp_path)
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import evar.results.hints\n"
        "assert 'numpy' not in sys.modules\n"
        "import evar.metrics.label_free, evar.report\n"
        "assert 'scipy' not in sys.modules and 'matplotlib' not in sys.modules\n"
        f"assert 'hints.md' in [path.name for path in evar.report.build({str(tmp_path)!r})]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_record_matches_rows_that_were_read_back(tmp_path: Path) -> None:
    """Tuples, numpy numbers and whole floats are the same after a trip to the disk."""
    extraction = {"clip_seconds": np.float64(2.0), "norm_stats": (-7.1, 4.2)}
    one = record(extraction=extraction)
    (first, *_) = layer_rows("a", "t", SCORES, extraction=extraction)
    read = results.load(results.save(first, tmp_path))
    assert isinstance(read, Result) and read_hints(save_hints(tmp_path, one)).matches(read)
