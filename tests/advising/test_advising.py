"""`evar advise` on planted results: a clear winner, a tie, too few clips, licences, limits, few labels, and no rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import evar
from evar import cli, results
from evar.advising.labels import Point, read_off
from evar.advising.many_tasks import bootstrap_ranks, rank_down
from evar.advising.verdicts import observe_clips
from evar.advising.wishes import Wishes
from evar.cli import run
from evar.config import load_encoder_config, names
from evar.config.licences import COMMERCIAL_USE, NO, UNKNOWN, YES, allows_commercial_use, normalise_licence
from evar.results import CostRecord, Result


def plant(
    out: Path, encoder: str, right: np.ndarray, *, valid: float | None = None, task: str = "esc10", **others
) -> Result:
    """Save a row and its predictions; `right` is (clips,) True where the clip is predicted well."""
    true = np.arange(len(right)) % 10
    score = float(np.mean(right))
    layers = others.pop("layers", ["out"])
    values = {
        "encoder": encoder, "weights": "x.pt", "weights_sha256": "ab" * 32, "layers": layers,
        "fusion": "none" if len(layers) == 1 else "concat", "pooling": dict.fromkeys(layers, "mean"), "task": task,
        "task_version": "1", "protocol": "linear", "params": {"protocol_version": "1"}, "seed": 0, "metric": "accuracy",
        "score": score, "round_scores": [score], "n_train": 300, "n_valid": 100, "n_test": len(right), "skipped": [],
        "seconds": 1.0, "versions": {}, "created": "2026-01-31T12:00:00+00:00", "chance": 0.1, "default": True, "width": 64,
        "interval": [max(0.0, score - 0.05), min(1.0, score + 0.05)], "n_classes": 10,
    }  # fmt: skip
    if valid is not None:
        values["rounds"] = [{"name": "test", "valid_score": valid, "score": score, "n_test": len(right)}]
    row = Result.from_dict({**values, **others})
    results.save_predictions(
        out, row.id, clip=[f"{i:05d}.wav" for i in range(len(true))], round=np.zeros(len(true), int),
        group=[f"g{i}" for i in range(len(true))], y_true=true, y_pred=np.where(right, true, (true + 1) % 10),
    )  # fmt: skip
    results.save(row, out)
    return row


def draw(n: int, share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n) < round(share * n)


def test_a_clear_winner_is_named_first_and_its_layer_is_that_of_validation(tmp_path, capsys):
    plant(tmp_path, "good", draw(300, 0.9, 1), valid=0.93, layers=["deep"])
    plant(
        tmp_path, "good", draw(300, 0.97, 2), valid=0.80, layers=["lucky"], default=False
    )  # better on test clips only
    plant(tmp_path, "bad", draw(300, 0.5, 3), valid=0.55)
    assert run(["advise", "esc10", f"--out={tmp_path}"]) == cli.DONE
    assert capsys.readouterr().out.startswith("Read layer deep of good for esc10: accuracy 90.0 %")
    found = evar.advise("esc10", out=tmp_path)
    (one,) = found.tasks
    assert one.chosen_by == "validation" and one.choice.feature.score == pytest.approx(0.9)
    assert [(other.facts.encoder, other.verdict.word) for other in one.others] == [("bad", "worse")]
    assert "significantly better than bad" in found.answer
    assert " ".join(found.text.split()).count("no interval, because") == 2  # validation scores and seconds
    data = json.loads((tmp_path / "advice.json").read_text())
    assert data["tasks"][0]["candidates"][0]["layers"] == ["deep"] and data["request"]["tie"] == 0.02
    assert (tmp_path / "advice.md").read_text().startswith("# Advice\n\nRead layer deep of good")
    before = (tmp_path / "advice.json").read_bytes()
    evar.advise(tmp_path)
    evar.advise("esc10", out=tmp_path)
    assert (tmp_path / "advice.json").read_bytes() == before  # the same rows give the same bytes
    assert not (tmp_path / "advice.png").exists()  # no cost was measured
    assert found.table["verdict"].tolist() == ["choice", "worse"]


def test_equal_predictions_tie_on_many_clips_and_say_nothing_on_few(tmp_path):
    right = draw(2000, 0.9, 1)
    plant(tmp_path / "many", "a", right, valid=0.91)
    plant(tmp_path / "many", "b", right, valid=0.90)
    assert evar.advise("esc10", out=tmp_path / "many", write=False).tasks[0].others[0].verdict.word == "tie"
    plant(tmp_path / "few", "a", right[:10], valid=0.91)
    plant(tmp_path / "few", "b", right[:10], valid=0.90)
    found = evar.advise("esc10", out=tmp_path / "few", write=False)
    assert found.tasks[0].others[0].verdict.word == "cannot tell" and "no difference was observed" in found.answer


def test_a_cheaper_tie_is_pointed_out(tmp_path):
    for name, seconds in (("slow", 10.0), ("fast", 1.0)):
        plant(tmp_path, name, draw(2000, 0.9, 1), valid=0.9 + seconds / 1000)
        results.save_cost(
            tmp_path, CostRecord(f"{name}__cost", name, "ab" * 32, {}, 1000, 256, seconds, 100.0, 9, "cpu", 1)
        )
    found = evar.advise("esc10", out=tmp_path)
    assert found.answer.startswith("Read layer out of slow")
    assert "fast (layer out) is as good and 10.0 times as fast" in found.answer
    assert [one.is_on_front for one in found.tasks[0].fitting] == [False, True]
    assert (tmp_path / "advice.png") in found.files
    limited = evar.advise("esc10", out=tmp_path, max_seconds_per_second=0.05, write=False)
    assert limited.answer.startswith("Read layer out of fast") and "Without your conditions" in limited.answer


def test_too_few_clips_are_said_and_as_many_as_said_would_do(tmp_path):
    rng = np.random.default_rng(4)
    one = rng.random(120) < 0.85
    other = one.copy()
    other[np.flatnonzero(one)[:9]] = False
    other[np.flatnonzero(~one)[:4]] = True  # 9 clips lost and 4 won: 5 of 120
    plant(tmp_path, "a", one, valid=0.9)
    plant(tmp_path, "b", other, valid=0.8)
    verdict = evar.advise("esc10", out=tmp_path, write=False).tasks[0].others[0].verdict
    assert verdict.word == "cannot tell" and verdict.power < 0.5
    # By hand: (1.96 + 0.84)^2 x (13 / 120 - (5 / 120)^2) / (5 / 120)^2 = 482 clips, 362 more.
    assert verdict.n_more == pytest.approx(482 - 120, rel=0.1)
    times = -(-(120 + verdict.n_more) // 120)
    plant(tmp_path / "more", "a", np.tile(one, times), valid=0.9)
    plant(tmp_path / "more", "b", np.tile(other, times), valid=0.8)
    assert evar.advise("esc10", out=tmp_path / "more", write=False).tasks[0].others[0].verdict.word == "worse"


def test_one_that_test_clips_prefer_significantly_is_said(tmp_path):
    plant(tmp_path, "chosen", draw(400, 0.7, 1), valid=0.9)
    plant(tmp_path, "other", draw(400, 0.95, 2), valid=0.8)
    found = evar.advise("esc10", out=tmp_path, write=False)
    assert (
        found.answer.startswith("Read layer out of chosen")
        and "other is significantly better, although" in found.answer
    )


def test_licences_filter_and_what_is_unknown_is_never_allowed(tmp_path):
    source = load_encoder_config("aisfx").weights
    plant(
        tmp_path, "aisfx", draw(200, 0.6, 1), valid=0.6, weights_sha256=source.sha256,
        weights=f"{source.package}=={source.version}:{source.member}",
    )  # fmt: skip
    plant(tmp_path, "byol_a.d512", draw(200, 0.9, 2), valid=0.9, weights="AudioNTT2020-BYOLA-64x96d512.pth")
    plant(tmp_path, "ced.tiny", draw(200, 0.8, 3), valid=0.8, weights="hf:mispeech/ced-tiny/model.safetensors")
    plant(tmp_path, "crepe.tiny", draw(200, 0.8, 4), valid=0.8, weights="my_own.pth")  # not the published checkpoint
    plant(tmp_path, "nobody_knows", draw(200, 0.8, 5), valid=0.8)
    plant(tmp_path, "logmel", draw(200, 0.4, 6), valid=0.4, weights="none", weights_sha256="none")
    plant(tmp_path, "vggish", draw(200, 0.9, 7), valid=0.9, weights="random", flags=["random weights"])
    found = evar.advise("esc10", licence="commercial", out=tmp_path, write=False)
    (one,) = found.tasks
    assert [c.facts.encoder for c in one.fitting] == ["aisfx", "logmel"]
    assert {c.facts.encoder: c.facts.commercial for c in one.left_out}.items() >= {
        "ced.tiny": UNKNOWN, "crepe.tiny": UNKNOWN, "nobody_knows": UNKNOWN,
    }.items()  # fmt: skip
    assert "Without your conditions it would be layer out of byol_a.d512, 90.0 %" in found.answer
    everything = evar.advise("esc10", out=tmp_path, write=False).tasks[0]
    assert everything.choice.facts.encoder == "byol_a.d512"
    assert [c.facts.encoder for c in everything.left_out] == ["vggish"]  # random weights are no candidate


def test_the_table_knows_every_licence_of_the_encoders():
    licences = {config.weights.licence for name in names("encoders") if (config := load_encoder_config(name)).weights}
    missing = [one for one in licences if normalise_licence(one)[0] not in COMMERCIAL_USE]
    assert not missing, "write these into evar/config/licences.py, or they are unknown to evar advise"
    assert all(
        allows_commercial_use(one) != YES for one in licences if "NC" in one or "not" in one or one.startswith("none")
    )
    assert allows_commercial_use("CC-BY-NC-4.0 (LICENSE file; the README says CC BY 4.0)") == NO
    assert allows_commercial_use("my own") == UNKNOWN == allows_commercial_use("")


def test_limits_leave_out_what_is_not_known(tmp_path):
    plant(tmp_path, "wide", draw(100, 0.9, 1), valid=0.95, width=4096)
    plant(tmp_path, "wide", draw(100, 0.7, 2), valid=0.7, width=32, layers=["narrow"], default=False)
    found = evar.advise("esc10", out=tmp_path, max_width=100, write=False)
    assert found.answer.startswith("Read layer narrow of wide") and "layer out of wide, 90.0 %" in found.answer
    nothing = evar.advise("esc10", out=tmp_path, max_seconds_per_second=1, max_parameters="5M", write=False)
    assert nothing.tasks[0].choice is None and nothing.answer.startswith("Nothing fits")
    assert "its cost was not measured" in nothing.text and "its number of parameters is not recorded" in nothing.text
    with pytest.raises(ValueError, match="--licence must be any or commercial"):
        evar.advise("esc10", out=tmp_path, licence="free")
    with pytest.raises(ValueError, match="--max_width must be above 0"):
        evar.advise("esc10", out=tmp_path, max_width=-1)


def test_scores_at_few_labels_are_measured_read_off_or_not_known(tmp_path):
    plant(tmp_path, "a", draw(100, 0.9, 1), valid=0.9)
    plant(tmp_path, "a", draw(100, 0.6, 2), protocol="fewshot", params={"protocol_version": "1", "n_per_class": 5})
    at = {
        n: evar.advise("esc10", out=tmp_path, labels=n, write=False).tasks[0].choice.at_labels
        for n in (50, 200, 20, 999)
    }
    assert at[50].score == pytest.approx(0.6) and at[50].low < 0.6 < at[50].high
    assert at[200].score is None and (at[200].low, at[200].high) == pytest.approx(
        (0.6, 0.9)
    )  # 50 and 400 are far apart
    assert at[20].low is None and at[999].high is None
    curve = [
        {
            "n": n, "n_per_class": n, "n_draws": 10, "n_short": 0, "score": score, "draw_scores": [score],
            "interval": [score - 0.02, score + 0.02], "one_draw": [score - 0.1, score + 0.1],
        }
        for n, score in ((5, 0.7), (20, 0.8))
    ]  # fmt: skip
    plant(tmp_path, "a", draw(100, 0.9, 1), protocol="curve", params={"protocol_version": "1", "curve": curve})
    found = evar.advise("esc10", out=tmp_path, labels=200, write=False)
    at_200 = found.tasks[0].choice.at_labels
    assert at_200.score == 0.8 and (at_200.low, at_200.high) == pytest.approx((0.7, 0.9))  # of a single draw
    assert "With 200 labelled clips it reaches 80.0 % (70.0 to 90.0) (measured under curve)" in found.answer
    for name in ("a", "b", "c"):
        plant(tmp_path, name, draw(100, 0.5, 3), protocol="mteb", params={"protocol_version": "1", "n_per_class": 8})
    found = evar.advise("esc10", out=tmp_path, write=False)
    assert found.tasks[0].protocol == "linear"  # though fewer encoders have it
    points = [Point(100, 0.5, 0.4, 0.6, "curve"), Point(400, 0.7, 0.6, 0.8, "curve")]
    assert read_off(points, 200).score == pytest.approx(0.6)


def test_without_validation_scores_the_best_test_score_is_said_to_be_too_high(tmp_path):
    plant(tmp_path, "a", draw(200, 0.8, 1))
    plant(tmp_path, "a", draw(200, 0.9, 2), layers=["lucky"], default=False)
    plant(tmp_path, "b", draw(200, 0.7, 3))
    found = evar.advise("esc10", out=tmp_path, write=False)
    assert found.tasks[0].chosen_by == "test" and "No row tells validation scores" in found.answer
    assert found.tasks[0].choice.feature.label == "out"  # the declared layer: none was chosen by test scores


def test_a_task_without_rows_is_answered_by_tasks_like_it_and_a_command(tmp_path):
    for at, task in enumerate(["esc10", "urbansound8k", "tut_scenes_2018", "fsdd_digit"]):
        plant(tmp_path, "a", draw(100, 0.9, at), valid=0.9, task=task)
        plant(tmp_path, "b", draw(100, 0.5, 10 + at), valid=0.5, task=task)
    found = evar.advise("esc50", out=tmp_path, write=False)
    assert found.new_task == "esc50" and found.over_tasks.tasks == ("esc10", "tut_scenes_2018", "urbansound8k")
    assert found.answer.startswith("Nothing was measured on esc50. What follows is from 3 tasks")
    assert "Try layer out of a: mean rank 1.0 (1.0 to 1.0) of 2 encoders" in found.answer
    assert "3 tasks are too few for any significant difference" in found.answer
    assert found.over_tasks.others[0].verdict.word == "cannot tell"
    assert found.commands[0] == f"evar lineval a,b esc50 --layers=all --out={tmp_path}"
    assert evar.advise("esc50", out=tmp_path, like="fsdd_digit", write=False).over_tasks.tasks == ("fsdd_digit",)
    with pytest.raises(ValueError, match="--like names gtzan"):
        evar.advise("esc50", out=tmp_path, like="gtzan")
    with pytest.raises(ValueError, match="the name of a task, got 'esc51'"):
        evar.advise("esc51", out=tmp_path)


def test_a_folder_is_answered_over_its_tasks_and_six_tasks_can_show_a_difference(tmp_path):
    for at in range(6):
        plant(tmp_path, "a", draw(50, 0.9, at), valid=0.9, task=f"task{at}")
        plant(tmp_path, "b", draw(50, 0.5, 10 + at), valid=0.5, task=f"task{at}")
    plant(tmp_path, "c", draw(50, 0.5, 0), valid=0.5, task="task0")
    found = evar.advise(tmp_path, write=False)
    assert found.over_tasks.choice.facts.encoder == "a" and found.over_tasks.others[0].verdict.word == "worse"
    assert found.over_tasks.left_out[0].misfits[0].startswith("it was not measured on task1, task2")
    assert len(found.tasks) == 6 and "scores of single tasks have no interval here" in " ".join(found.text.split())


def test_ranks_and_their_intervals():
    ranks = rank_down(np.array([[0.9, 0.8, 0.7], [0.5, 0.8, 0.9]]))
    assert ranks.tolist() == [[1, 1.5, 2], [2, 1.5, 1]]
    low, high = bootstrap_ranks(ranks)[0]
    assert low == 1 and high == 2


def test_predictions_for_other_clips_are_not_compared():
    assert observe_clips(None, None) is None
    assert Wishes().find_misfit("unknown", width=None, parameters=None, seconds_per_second=None) == []
