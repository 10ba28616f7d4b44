"""Choices on validation clips, put together from rows of fixed layers, by small cases that were worked out by hand."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import permutation_test
from test_report import cells, row

from evar import report, results
from evar.metrics import holm, paired_permutation
from evar.report import fusion
from evar.report.plots.fusion import draw_search, make_pair_maps, make_weight_curves
from evar.report.tables.choices import compose_choice, find_best_layers, subtract_choices
from evar.report.where import find_readings, format_markdown, group_by_encoder_and_task
from evar.results import Result, SearchRecord

#: test clips of each of two folds; right or wrong by layer
RIGHT = {
    "low": ([1, 1, 1, 1], [0, 0, 0, 0]),
    "high": ([0, 0, 1, 1], [1, 1, 1, 0]),
    "low+high": ([1, 1, 1, 0], [1, 1, 1, 1]),
}
#: validation scores of each fold
VALID = {"low": (0.9, 0.2), "high": (0.5, 0.8), "low+high": (0.8, 0.9)}


def saved(out: Path, layers: str, task: str = "esc10", flip: bool = False, **others: Any) -> Result:
    """A row of two folds and its predictions."""
    names = layers.split("+")
    right = [np.array(part) ^ flip for part in RIGHT[layers]]
    scores = [float(part.mean()) for part in right]
    made = row(
        "toy",
        task,
        sum(scores) / 2,
        names,
        round_scores=scores,
        n_test=8,
        rounds=[
            {"name": f"fold {at + 1}", "score": scores[at], "n_test": 4, "valid_score": VALID[layers][at]}
            for at in range(2)
        ],
        layer_index={"low": 0, "high": 1}.get(layers),
        n_layers=2,
        default=layers == "high",
        settings={"layers": "all"},
        **others,
    )
    correct = np.concatenate(right)
    results.save_predictions(
        out,
        made.id,
        clip=[f"{at}.wav" for at in range(8)],
        round=np.repeat([0, 1], 4),
        group=[f"g{at}" for at in range(8)],
        y_true=np.ones(8, int),
        y_pred=correct.astype(int),
    )
    results.save(made, out)
    return made


def record(tasks: Sequence[str] = ("esc10",), choices: Any = None, **others: Any) -> SearchRecord:
    scores = {name: {key: list(VALID[name]) for key in tasks} for name in RIGHT}
    ranked = [{"layers": name.split("+"), "scores": found} for name, found in scores.items()]
    values: dict[str, Any] = {
        "id": "toy__search",
        "encoder": "toy",
        "weights": "x.pt",
        "weights_sha256": "ab" * 32,
        "layers": ["low", "high"],
        "default_layers": ["high"],
        "tasks": [
            {"name": t, "version": "1", "metric": "accuracy", "is_fold": True, "rounds": ["fold 1", "fold 2"]}
            for t in tasks
        ],
        "protocol": "linear",
        "protocol_version": "1",
        "seed": 0,
        "limit": None,
        "objective": "mean_score",
        "method": {},
        "n_ranked": 3,
        "n_probed": 2,
        "ranked": ranked,
        "probed": [],
        "choice": ["low", "high"],
        "choices": choices or {task: [["low"], ["low", "high"]] for task in tasks},
        "seconds": 1.0,
        "created": "2026-01-31T12:00:00+00:00",
        "row_settings": {"encoder_options": {}, "norm_stats": None},
    }
    return SearchRecord(**{**values, **others})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for layers in RIGHT:
        saved(tmp_path, layers)
    return tmp_path


def rows_of(out: Path) -> dict[tuple[str, ...], list[Result]]:
    (rows,) = group_by_encoder_and_task(results.load_all(out)).values()
    return rows


def test_each_fold_has_the_layer_that_its_own_validation_clips_choose(out: Path) -> None:
    rows = rows_of(out)
    assert find_best_layers(rows) == [("low",), ("high",)]
    best = compose_choice(rows, [("low",), ("high",)], out)
    assert best is not None
    assert best.correct.tolist() == [1, 1, 1, 1, 1, 1, 1, 0]
    assert best.score == pytest.approx((1 + 0.75) / 2)
    assert best.interval[0] < best.score <= best.interval[1] <= 1
    assert best.label == "low (1 of 2 folds)"


def test_equal_scores_are_decided_by_log_loss_then_depth(out: Path) -> None:
    rows = rows_of(out)
    for losses, expected in (((1.0, 0.5), "high"), ((0.5, 1.0), "low"), ((None, None), "high")):
        told = {}
        for name, loss in zip(("low", "high"), losses, strict=True):
            (one,) = rows[name,]
            parts = [{**part, "valid_score": 0.5, "valid_log_loss": loss} for part in one.rounds]
            told[name,] = [Result.from_dict({**one.to_dict(), "rounds": parts})]
        assert find_best_layers(told) == [(expected,)] * 2


def test_a_gain_is_paired(out: Path) -> None:
    rows = rows_of(out)
    best = compose_choice(rows, [("low",), ("high",)], out)
    default = compose_choice(rows, [("high",)] * 2, out)
    assert best is not None and default is not None
    gain = subtract_choices(best, default)
    assert gain is not None
    assert gain.score == pytest.approx(0.25)  # two clips of the first fold
    assert gain.p_value == 0.5  # both signs alike: 2 of 4 flips
    assert gain.interval[0] == 0.0 and 0.25 < gain.interval[1] <= 0.5


def test_where_to_read_it(out: Path) -> None:
    report.write_tables_and_plots(out)
    (table,) = cells((out / "where.md").read_text())
    assert table[1][:2] == ["toy", "esc10"]
    assert table[1][2] == "low (1 of 2 folds)" and table[1][4] == "high"
    assert table[1][3].startswith("87.5 ±") and table[1][5].startswith("62.5 ±")
    assert table[1][6].startswith("+25.0 [+0.0,") and not table[1][6].endswith("*")
    (line,) = csv.DictReader((out / "where.csv").open())
    assert line["layers"] == "low;high" and float(line["gain"]) == 0.25 and float(line["p_holm"]) == 0.5


def test_p_values_are_corrected_over_the_table(out: Path) -> None:
    for layers in RIGHT:
        saved(out, layers, task="fsdd")
    found = find_readings(results.load_all(out), out)
    assert [one.task for one in found] == ["esc10", "fsdd"]
    assert [one.gain.p_value for one in found if one.gain] == [0.5, 0.5]
    assert [one.p_value for one in found] == [1.0, 1.0]


def test_fusion_table_and_its_differences(out: Path) -> None:
    results.save_search(record(), out)
    report.write_tables_and_plots(out)
    (table,) = cells((out / "fusion.md").read_text())
    by_feature = {line[1]: line[2:] for line in table}
    assert list(by_feature) == [
        "feature", "high (default)", "best layer of each task", "low+high (search)", "search minus high",
        "search minus best layer"]  # fmt: skip
    assert by_feature["high (default)"][0].startswith("62.5 ±")
    assert by_feature["best layer of each task"][0].startswith("87.5 ±")
    assert by_feature["low+high (search)"][0].startswith("**100.0 ±")
    assert by_feature["search minus high"] == ["+37.5", "+37.5"]
    assert by_feature["search minus best layer"] == ["+12.5", "+12.5"]
    lines = list(csv.DictReader((out / "fusion.csv").open()))
    searched = next(line for line in lines if line["kind"] == "search" and not line["minus"])
    assert searched["layers"] == "low;low+high" and float(searched["score"]) == 1.0


def test_averages_are_over_all_tasks_and_missing_where_a_task_is(out: Path) -> None:
    for layers in RIGHT:
        saved(out, layers, task="fsdd", flip=True)
    table = fusion.make_fusion_tables([record(("esc10", "fsdd"))], results.load_all(out), out)[0]
    search = next(line for line in table.lines if line.kind == "search" and not line.minus)
    assert search.average == pytest.approx(0.5)
    minus = next(line for line in table.lines if line.minus == "default")
    assert minus.average == pytest.approx(0.0)
    alone = fusion.make_fusion_tables([record(("esc10", "gone"))], results.load_all(out), out)[0]
    assert all(line.average is None for line in alone.lines)
    lines = cells(fusion.format_markdown([alone]))[0][1:]
    assert {line[3] for line in lines} == {line[4] for line in lines} == {"-"}


def test_rows_of_other_weights_protocols_or_statistics_do_not_mix_in(out: Path) -> None:
    for change in ({"weights_sha256": "cd" * 32}, {"protocol": "knn"}, {"extraction": {"norm_stats": "task"}},
                   {"encoder_options": {"input": "padded"}}, {"task_version": "2"}, {"limit": 5}):  # fmt: skip
        saved(out, "high", flip=True, created="2026-02-01T12:00:00+00:00", **change)
    table = fusion.make_fusion_tables([record()], results.load_all(out), out)[0]
    assert table.lines[0].cells["esc10"].score == pytest.approx(0.625)


def test_a_row_without_predictions_is_left_out(out: Path) -> None:
    for path in (out / "predictions").glob("toy__low__*"):
        path.unlink()
    with pytest.warns(UserWarning, match="left out of the comparison"):
        table = fusion.make_fusion_tables([record()], results.load_all(out), out)[0]
    assert next(line for line in table.lines if line.kind == "search").cells["esc10"] is None


def test_pair_map_data() -> None:
    (found,) = make_pair_maps([record()])
    assert found.layers == ("low", "high") and found.choice == (0, 1)
    assert found.scores.tolist() == [
        [pytest.approx(55.0), pytest.approx(85.0)],
        [pytest.approx(85.0), pytest.approx(65.0)],
    ]


def test_the_chosen_triple_shows_its_own_score_and_the_best_cell_is_framed() -> None:
    layers = ["a", "b", "c"]
    scores = {"a": 0.5, "b": 0.6, "c": 0.4, "a+b": 0.7, "a+c": 0.65, "b+c": 0.72, "a+b+c": 0.9}
    ranked = [{"layers": name.split("+"), "scores": {"esc10": [score]}} for name, score in scores.items()]
    probed = [{"layers": layers, "scores": {"esc10": [0.93, 0.95]}}]
    choices = {"esc10": [layers, layers]}
    made = record(layers=layers, default_layers=["c"], ranked=ranked, probed=probed, choice=layers, choices=choices)
    (found,) = make_pair_maps([made])
    assert found.choice_score == pytest.approx(90.0) and found.probe_score == pytest.approx(94.0)
    assert set(found.best or ()) == {1, 2}
    ax = draw_search([found]).axes[0]
    assert ax.get_title() == "toy\nchosen: a+b+c\nranker 90.0 %, probe 94.0 %"
    framed = {(round(patch.get_y() + 0.5), round(patch.get_x() + 0.5)) for patch in ax.patches}
    assert framed == {(1, 2), (2, 1)}  # the best pair, not the pairs of the triple
    assert [name.get_fontweight() for name in ax.get_xticklabels()] == ["bold"] * 3


def test_where_to_read_it_is_said_in_words(out: Path) -> None:
    text = format_markdown(find_readings(results.load_all(out), out))
    assert "In none of 1 cases is the layer that validation chooses better than the default layer beyond chance" in text


def test_weight_curves_are_means_over_folds_and_seeds() -> None:
    made = [
        row("toy", "esc10", 0.5, ["low", "high"], fusion="weighted", seed=seed, default=False,
            params={"protocol_version": "1", "layer_weights": weights})
        for seed, weights in enumerate(([[0.2, 0.8], [0.4, 0.6]], [[0.5, 0.5], [0.5, 0.5]]))
    ]  # fmt: skip
    (curve,) = make_weight_curves(made)
    assert curve.weights == (pytest.approx(0.4), pytest.approx(0.6))


def test_permutation_test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for n_clips in (9, 60):
        one, other = (rng.random(n_clips) < 0.8).astype(float), (rng.random(n_clips) < 0.5).astype(float)
        theirs = permutation_test(
            (one, other), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=20_000, rng=1
        )
        ours = paired_permutation(one, other, np.arange(n_clips), np.zeros(n_clips))
        assert ours == pytest.approx(theirs.pvalue, abs=0.02)


def test_clips_of_a_group_are_flipped_together() -> None:
    one, other = np.ones(12), np.zeros(12)
    assert paired_permutation(one, other, np.repeat([0, 1, 2], 4), np.zeros(12)) == 0.25
    assert paired_permutation(one, other, np.arange(12), np.zeros(12)) == 2 / 2**12
    assert paired_permutation(one, one, np.arange(12), np.zeros(12)) == 1.0
    with pytest.raises(ValueError, match="of one shape"):
        paired_permutation(one, other[:5], np.arange(12), np.zeros(12))


def test_equal_features_seldom_differ() -> None:
    rng = np.random.default_rng(0)
    values = [
        paired_permutation(rng.random(40) < 0.6, rng.random(40) < 0.6, np.arange(40), np.zeros(40), n_permutations=500)
        for _ in range(200)
    ]
    assert np.mean(np.array(values) < 0.05) < 0.09


def test_holm_by_hand() -> None:
    assert holm([0.02, 0.01, 0.5]).tolist() == [0.04, 0.03, 0.5]
    assert holm([]).tolist() == []
