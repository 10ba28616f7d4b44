"""Several protocols in one command, and the protocols curve and mteb through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import Bands

from evar import evaluate, results
from evar.cli import DONE, run
from evar.rerun import rerun


def test_each_clip_is_encoded_once_for_all_protocols(tones, capsys) -> None:
    root: Path = tones(n_per_class=8)
    out = root / "results"
    words = ["lineval", "toy,toy_twins", "tones", "--protocol=linear,knn,curve,mteb", "--seeds=2"]
    words.append(f"--out={out}")
    assert run([*words, "--dry_run"]) == DONE
    dry = capsys.readouterr().out
    assert "toy x tones under linear: 1 of 1 rows to compute; 24 of 24 clips to encode" in dry
    assert "toy x tones under knn: 1 of 1 rows to compute; 0 of 24 clips to encode (the same vectors" in dry
    Bands.calls.clear()
    assert run(words) == DONE
    printed = capsys.readouterr().out
    rows = results.load_all(out)
    assert {row.protocol for row in rows} == {"linear", "knn", "curve", "mteb"} and len(rows) == 2 * (1 + 1 + 2 + 2)
    assert sum(Bands.calls) == 2 * 24  # forwards of a clip by two encoders
    assert "48 clips encoded" in printed and "How ranks move between protocols" in printed
    for name in ("protocol_ranks.md", "label_curves.md", "label_curve_tones.png", "table.md"):
        assert (out / name).is_file()
    curve = next(row for row in rows if (row.protocol, row.encoder, row.seed) == ("curve", "toy", 0))
    assert curve.score >= 0.95 and [point["n"] for point in curve.params["curve"]] == [1, 2, 5, None]
    assert (out / "curves" / f"{curve.id}.npz").is_file()
    old, new, n_changed = rerun(out / "runs" / f"{curve.id}.json", store=str(root / "store"))
    assert (old.score, old.params["curve"], n_changed) == (new.score, new.params["curve"], 0)
    again = evaluate(["toy"], "tones", protocol=["linear", "knn"], out=str(out))
    assert again.n_new == 0 and [row.protocol for row in again.rows] == ["linear", "knn"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"protocol": "linear,linear"}, "protocols must be named once each, got linear, linear"),
        ({"protocol": "linear,kn"}, "kn"),
        ({"protocol": "linear,knn", "fusion": "search"}, "--fusion=search chooses layers by one protocol"),
        ({"protocol": "linear,knn", "learning_rate": "0.1"}, "protocol linear has no learning rate"),
    ],
)
def test_illegal_lists_of_protocols_are_refused_before_any_work(tones, flags, message) -> None:
    root: Path = tones(n_per_class=8)
    with pytest.raises(ValueError, match=message):
        evaluate("toy", "tones", out=str(root / "results"), **flags)
    assert not Bands.calls


@pytest.mark.parametrize("protocol", ["curve", "mteb"])
def test_tasks_of_several_labels_are_refused_before_any_work(tones, protocol) -> None:
    root: Path = tones(kind="multilabel")
    outcome = evaluate("toy", "tones", protocol=protocol, out=str(root / "results"))
    (failure,) = outcome.failures
    assert f"protocol {protocol} has no probe for multilabel tasks, only for multiclass" in failure.reason
    assert not Bands.calls
