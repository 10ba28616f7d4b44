"""Heads that lineval keeps: a saved head predicts what its row predicted, from a file in which nothing is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy import Bands

import evar
from evar import cli, results
from evar.classifiers.file import read_classifier
from evar.classifiers.saving import head_path
from evar.cli import run
from evar.results import Result


def evaluate(root: Path, encoder: str = "toy", **flags) -> list[Result]:
    outcome = evar.evaluate(encoder, "tones", save_head=True, out=root / "results", **flags)
    assert not outcome.failures
    return outcome.rows


def predict(root: Path, row: Result, **options):
    """The table of the saved head for the clips that its row tested, and what the row predicted."""
    of_row = results.load_predictions(root / "results", row.id)
    classifier = evar.load_classifier(head_path(root / "results", row.id))
    rounds = [head.name for head in classifier.record.heads]
    tables = []
    for number, name in enumerate(rounds):
        clips = [root / "data" / "tones" / clip for clip in of_row["clip"][of_row["round"] == number]]
        tables.append(classifier.predict(clips, round=name, **options))
    return classifier, tables, of_row


@pytest.mark.parametrize(
    ("encoder", "flags"),
    [
        ("toy", {"layers": "all"}),
        ("toy_normalised", {}),  # its input statistics are those of each round
        ("toy_twins", {"layers": "all", "fusion": "weighted"}),
        ("toy_peak_twins", {"layers": "all", "fusion": "concat"}),
        ("toy", {"protocol": "prototype"}),
    ],
)
def test_a_saved_head_predicts_what_its_row_predicted(tones, encoder, flags):
    root = tones(folds=True, n_per_class=12, unequal=True, shuffled=True)
    for row in evaluate(root, encoder, **flags):
        classifier, tables, of_row = predict(root, row)
        assert len(tables) == 3
        labels = np.concatenate([table["predicted"].map(classifier.classes.index).to_numpy() for table in tables])
        assert (labels == of_row["y_pred"]).all()
        if "confidence" in of_row:
            shares = np.concatenate([table[[f"p_{n}" for n in classifier.classes]].max(axis=1) for table in tables])
            assert np.abs(shares - of_row["confidence"]).max() < 6e-4  # rows keep three digits
        average = classifier.predict([root / "data" / "tones" / of_row["clip"][0]])
        assert average.shape == (1, 6) and average.iloc[0, 2:5].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "protocol"), [("multilabel", "linear"), ("regression", "linear"), ("multilabel", "mlp")]
)
def test_labels_and_numbers_are_predicted_as_in_the_row(tones, kind, protocol):
    root = tones(kind=kind, n_per_class=16)
    (row,) = evaluate(root, protocol=protocol, seeds=1)
    _, (table,), of_row = predict(root, row)
    if kind == "regression":
        assert np.abs(table["predicted"].to_numpy(float) - of_row["y_pred"]).max() < 1e-5
    else:
        shares = table[["p_low", "p_high"]].to_numpy()
        assert np.abs(shares - 1 / (1 + np.exp(-of_row["y_pred"]))).max() < 1e-5


def test_a_head_is_made_for_a_row_that_is_there_already_and_once(tones):
    root = tones()
    evar.evaluate("toy", "tones", out=root / "results")
    (row,) = evaluate(root)
    path = head_path(root / "results", row.id)
    assert path.is_file() and path.with_suffix(".md").is_file()
    before = path.stat().st_mtime_ns
    Bands.calls.clear()
    evaluate(root)
    assert path.stat().st_mtime_ns == before and not Bands.calls


@pytest.mark.parametrize(("flag", "reason"), [("--protocol=knn", "KNNProbe is not one of"), ("--fusion=pca", "pca")])
def test_what_cannot_be_saved_is_refused_before_any_work(tones, capsys, flag, reason):
    root = tones()
    words = ["--layers=all"] if "fusion" in flag else []
    assert run(["lineval", "toy", "tones", flag, *words, "--save_head", f"--out={root / 'results'}"]) == cli.WRONG
    assert reason in capsys.readouterr().err and not Bands.calls


def test_the_file_holds_arrays_and_json_and_says_what_it_is(tones):
    root = tones(kind="multilabel")
    (row,) = evaluate(root)
    record, (probe,) = read_classifier(head_path(root / "results", row.id))
    assert record.id == row.id and record.score.interval == tuple(row.interval) and record.encoder.is_random
    assert record.heads[0].clips_per_class == {"low": 18, "high": 18} and record.task.licence == "CC0-1.0"
    assert probe.kind == "multilabel" and probe.arrays["coef_"].shape == (2, 16)
    card = head_path(root / "results", row.id).with_suffix(".md").read_text()
    for text in (
        "random weights",
        "95 % interval",
        "| low | 18 |",
        "## Thresholds",
        "evar.load_classifier(",
        "CC0-1.0",
    ):
        assert text in card
    with pytest.raises(ValueError, match=r"no evar classifier, or not whole"):
        read_classifier(head_path(root / "results", row.id).with_suffix(".md"))
