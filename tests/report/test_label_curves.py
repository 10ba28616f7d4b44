"""Label-efficiency curves of a results folder: a crossing at a known number of labels, ranks, sentences and files."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import kendalltau

from evar import results
from evar.experiment.label_curves import describe_curve, predict_points, save_curve
from evar.metrics.rank_correlation import compute_kendall
from evar.probes.label_curve import LabelCurveProbe
from evar.report import write_tables_and_plots
from evar.report.label_curves import Lead, Pair, find_curves, read_points
from evar.report.label_sentences import describe_crossing, describe_task
from evar.report.label_tables import write_label_tables
from evar.results import Result

N_TRAIN, N_TEST = 100, 300
ROW = {
    "weights": "none",
    "weights_sha256": "none",
    "fusion": "none",
    "task": "planted",
    "task_version": "1",
    "protocol": "curve",
    "seed": 0,
    "metric": "accuracy",
    "n_train": N_TRAIN,
    "n_valid": 0,
    "n_test": N_TEST,
    "skipped": [],
    "seconds": 1.0,
    "versions": {},
    "created": "2026-01-31T12:00:00+00:00",
    "chance": 0.5,
    "default": True,
    "n_classes": 2,
}


def plant(out: Path, encoder: str, width: int, apart: float, n_draws: int = 6, layer: str = "last") -> Result:
    """Write the row of an encoder whose two classes lie `apart` deviations from each other, along the diagonal."""
    rng = np.random.default_rng([width, N_TEST])
    y = np.arange(N_TRAIN + N_TEST) % 2
    X = (rng.normal(size=(len(y), width)) + (y[:, None] - 0.5) * apart / math.sqrt(width)).astype(np.float32)
    test = np.arange(N_TRAIN, len(y))
    task = SimpleNamespace(
        config=SimpleNamespace(kind="multiclass", metric="accuracy"), truth=y, groups=np.arange(len(y)).astype(str)
    )
    task = _Sized(task, len(y))
    probe = LabelCurveProbe(n_draws=n_draws).fit(X[:N_TRAIN], y[:N_TRAIN])
    curve = predict_points(task, probe, X[test], test, test)
    fitted = [SimpleNamespace(curve=curve, tested=test)]
    params = describe_curve(task, fitted)
    score = params["curve"][-1]["score"]
    row = Result(
        encoder=encoder,
        layers=[layer],
        pooling={layer: "mean"},
        score=score,
        round_scores=[score],
        params=params,
        **ROW,
    )
    save_curve(out, row.id, fitted)
    results.save_predictions(
        out,
        row.id,
        clip=[f"{at}.wav" for at in test],
        round=[0] * N_TEST,
        group=task.groups[test],
        y_true=y[test],
        y_pred=curve[-1].y_pred[0],
    )
    results.save(row, out)
    return row


class _Sized:
    def __init__(self, inner: SimpleNamespace, n: int) -> None:
        self.__dict__.update(vars(inner))
        self._n = n

    def __len__(self) -> int:
        return self._n


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Two encoders that cross between 2 and 10 labels per class, and one that is always last.

    With n labels per class the classifier by means of two classes d deviations apart in w features is right with probability
    Phi(d^2 / 2 / sqrt(d^2 + 2 w / n)): few features that lie 1.7 apart start high and end at 0.80; 128 features that lie 4
    apart start low and end near 0.98; the two are equal at n = 3.5.
    """
    out = tmp_path_factory.mktemp("planted")
    plant(out, "few", 1, 1.7), plant(out, "many", 128, 4.0), plant(out, "weak", 8, 0.3)
    return out


def test_encoders_cross_where_they_were_planted_to_cross(planted):
    (task,) = find_curves(results.load_all(planted), planted)
    assert [curve.name for curve in task.main] == ["few", "many", "weak"]
    assert task.numbers == [1, 2, 5, 10, 20, None]
    pair = next(pair for pair in task.pairs if (pair.first, pair.second) == ("few", "many"))
    signs = {lead.n: lead.sign for lead in pair.leads}
    assert signs[1] == 1 and [signs[n] for n in (10, 20, None)] == [-1, -1, -1]
    assert pair.leads[-1].significant_sign == -1
    sentences = describe_task(task)
    assert sentences[1].startswith(("Below 5 labels per class few leads, from 5", "Below 2 labels", "Below 10 labels"))
    assert "many" in sentences[1]
    start = next(at for at, one in enumerate(task.agreements) if all(rest.is_same for rest in task.agreements[at:]))
    assert task.agreements[start].n in (2, 5, 10)
    assert f"From {task.agreements[start].n} labels per class on" in sentences[0]
    assert task.agreements[0].tau < 1 == task.agreements[-1].tau


def test_the_row_says_all_that_its_numbers_are_computed_from(planted):
    for row in results.load_all(planted):
        found, draws = results.load_predictions(planted, row.id), results.load_draws(planted, row.id)
        for point, predicted in zip(row.params["curve"], draws, strict=True):
            assert point["n_draws"] == len(predicted) == len(point["draw_scores"])
            np.testing.assert_allclose((predicted == found["y_true"]).mean(axis=1), point["draw_scores"])
            assert point["score"] == pytest.approx(np.mean(point["draw_scores"]))
            assert point["interval"][0] <= point["score"] <= point["interval"][1]
        assert row.score == row.params["curve"][-1]["score"]


def test_tables_and_plots_are_written_and_go_when_the_rows_go(planted, tmp_path):
    write_label_tables(
        find_curves(results.load_all(planted), planted), planted
    )  # the plot is drawn in the pipeline's test
    text = (planted / "label_curves.md").read_text()
    assert " n = 1 |" in text and "Kendall" in text and "over draws and over groups of test clips" in text
    assert "`-` in its column: the order of all labels is compared with itself" in text
    lines = (planted / "label_curves.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 6 + 3 * 6
    for name in ("label_curve_planted.png", "label_curve_old.svg", "label_curves.md"):
        (tmp_path / name).write_text("from an earlier build")
    write_tables_and_plots(tmp_path)
    assert not list(tmp_path.glob("label_curve*"))


def test_curves_that_cannot_be_compared_say_why(planted, tmp_path):
    rows = results.load_all(planted)
    (alone,) = find_curves(rows[:1], planted)
    assert describe_task(alone) == ["There is one encoder, so there is no ranking."]
    (lost,) = find_curves(rows, tmp_path)
    assert describe_task(lost) == ["The predictions of some draws are missing, so no lead is tested."]
    (two,) = find_curves(rows[:2], planted)
    assert describe_task(two)[0].startswith("There are fewer than three encoders")


@pytest.mark.parametrize("value", [5, "a", [3], [{}], [{"n": True}], [{"n": 1, "draw_scores": ["x"]}]])
def test_a_curve_that_is_not_legal_is_no_curve(planted, value):
    row = dataclasses.replace(results.load_all(planted)[0], params={"curve": value})
    assert read_points(row) == () and find_curves([row], planted) == []
    assert json.dumps(row.to_dict())


def test_crossings_are_marked_when_they_are_not_significant():
    def lead(n: int | None, difference: float, p: float) -> Lead:
        return Lead(n, difference, 0.01, p, p)

    sure, unsure = 0.001, 0.5
    both = Pair("A", "B", (lead(1, 0.1, sure), lead(5, 0.02, unsure), lead(10, -0.1, sure), lead(None, -0.1, sure)))
    assert describe_crossing(both) == (
        "Below 10 labels per class A leads, from 10 labels per class on B; "
        "both leads are significant (A at n = 1, B at n = 10 and with all labels)."
    )
    one = Pair("A", "B", (lead(1, 0.1, unsure), lead(None, -0.1, sure)))
    assert describe_crossing(one) == (
        "Below all labels A leads, with all labels B; "
        "this change is not significant, since only one of the leads is (B with all labels)."
    )
    none = Pair("A", "B", (lead(1, -0.1, unsure), lead(5, 0.1, unsure)))
    assert describe_crossing(none).startswith(
        "Below 5 labels per class B leads"
    ) and "neither lead is" in describe_crossing(none)
    often = Pair("A", "B", (lead(1, 0.1, sure), lead(2, -0.1, unsure), lead(5, 0.1, unsure), lead(10, -0.1, sure)))
    assert describe_crossing(often).startswith(
        "Up to 1 label per class A leads significantly, from 10 labels per class on B"
    )
    assert describe_crossing(Pair("A", "B", (lead(1, 0.1, sure), lead(5, 0.0, unsure)))) == ""


def test_kendall_is_that_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (30, 6)), rng.integers(0, 4, (30, 6))
    expected = [kendalltau(one, other).statistic for one, other in zip(first, second, strict=True)]
    np.testing.assert_allclose(compute_kendall(first, second), expected)


def test_the_page_shows_curves_with_their_sentences(planted):
    from evar.webpage.context import Context, Settings
    from evar.webpage.labels import make_labels, make_protocols
    from evar.webpage.page import render_page

    context = Context(Settings(planted, planted / "report.html"), results.load_all(planted))
    part = make_labels(context)
    assert make_protocols(context) is None  # one protocol
    page = render_page("planted", [part])
    assert 'src="data:image/png;base64,' in page and "of all labels" in page and "10 draws" not in page
    assert "6 draws of 1.0 clips per class" in page and "n = 20" in page
