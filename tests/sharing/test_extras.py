"""Bundles hold label curves and records of robustness: both can be checked, and their tables are made again."""

from __future__ import annotations

import json
import zipfile

from test_sharing import change, change_array, change_key, flip_first

import evar
from evar import cli
from evar.cli import run
from evar.report.label_curves import find_curves
from evar.report.robustness import format_robustness
from evar.results import load_all
from evar.results.robustness import load_robustness
from evar.sharing import audit_bundle, merge_results, open_bundle, write_bundle


def audit(path):
    """The report, and all of its sentences."""
    found = audit_bundle(path, sample=0)
    reasons = [reason for one in (*found.rows, *found.robustness) for reason in one.reasons]
    return found, "\n".join([*found.faults, *reasons])


def find_planted(bundle, folder, planted, comparison):
    """Each planted change is named: by its file's hash, and with the right hashes by what no longer follows."""
    found, text = audit(bundle)
    assert found.is_clean and text == ""
    wrong = right = bundle
    for name, edit, _ in planted:
        wrong, right = change(bundle, name, edit, honest_hash=False), bundle
        faults = open_bundle(wrong, folder / name.replace("/", "_")).faults
        assert any(fault.startswith(f"{name} has the sha256") for fault in faults)
    for name, edit, _ in planted:
        right = change(right, name, edit)
    found, text = audit(right)
    assert not found.is_clean and [message for *_, message in planted if message not in text] == [], text
    found, text = audit(change(bundle, "comparisons.json", change_key(*comparison, to=0.0123)))
    assert not found.is_clean and f"comparisons.{'.'.join(map(str, comparison))} is 0.0123" in text


def test_label_curves_are_packed_checked_and_shown_again(tones, tmp_path):
    out, bundle = tones(n_per_class=8) / "results", tmp_path / "ours.zip"
    for encoder in ("toy", "toy_twins"):
        evar.evaluate(encoder, "tones", protocol="curve", out=str(out))
    row, other = load_all(out)
    assert write_bundle(out, bundle) == []
    opened = open_bundle(bundle, tmp_path / "opened").folder
    (before,), (after,) = find_curves([row, other], out), find_curves(load_all(opened), opened)
    assert before.pairs == after.pairs and before.pairs and before.curves == after.curves
    curve = ("params", "curve", 0)
    find_planted(
        bundle,
        tmp_path,
        [
            (f"curves/{row.id}.npz", change_array("point_0", lambda values: 0 * values), "draw_scores is"),
            (f"runs/{row.id}.json", change_key(*curve, "interval", to=[0.1, 0.2]), "interval is [0.1, 0.2], but"),
            (f"runs/{row.id}.json", change_key(*curve, "one_draw", to=[0.1, 0.2]), "one_draw is [0.1, 0.2], but"),
        ],
        ("label_curves", 0, "pairs", 0, "leads", 0, "p_holm"),
    )


def test_records_of_robustness_are_packed_checked_and_merged(tones, tmp_path, capsys, monkeypatch):
    out, bundle = tones(n_per_class=8) / "results", tmp_path / "ours.zip"
    settings = {"alterations": "white_noise", "severities": "white_noise=0/-20", "seeds": 2}
    evar.measure_robustness("toy", "tones", layers="bands", out=str(out), **settings)
    records = load_robustness(out)
    one, other = (record for record in records if record.severity is not None)
    assert write_bundle(out, bundle) == []
    opened = open_bundle(bundle, tmp_path / "opened").folder
    assert format_robustness(load_robustness(opened), opened) == format_robustness(records, out)
    name = f"robustness/{one.id}.json"
    altered, labels = (f"robustness/predictions/{record.predictions[-1]}.npz" for record in (one, other))
    find_planted(
        bundle,
        tmp_path,
        [
            (altered, change_array("y_pred", flip_first), "loss is"),
            (labels, change_array("y_true", flip_first), "y_true of its predictions differs"),
            (name, change_key("loss_interval", to=[-0.9, 0.9]), "loss_interval is [-0.9, 0.9], but"),
            (name, change_key("clean_score", to=0.125), "clean_score is 0.125"),
            (name, change_key("condition", 0, "version", to=77), "belong to the name"),
        ],
        ("robustness", 0, "p_holm"),
    )
    assert run(["audit", str(bundle), "--sample=0"]) == cli.DONE
    assert "robustness: 3 records; the numbers of 3 follow" in capsys.readouterr().out
    # Names of people go, and what is made from them gets another name.
    monkeypatch.setattr("evar.sharing.bundle.find_own_names", lambda: frozenset({"toy"}))
    data = json.loads((out / name).read_text())
    reason = "toy has no /home/toy/low_3.wav"
    (out / name).write_text(json.dumps({**data, "failed": [{"clip": "low_3.wav", "reason": reason}], "n_failed": 1}))
    write_bundle(out, bundle)
    assert audit(bundle)[1] == ""
    with zipfile.ZipFile(bundle) as archive:
        assert not [one for one in archive.namelist() if "toy" in one or b"/home" in archive.read(one)]
    # Two folders that disagree on one record.
    (opened / name).write_text(json.dumps({**data, "p": 0.0123}))
    found = merge_results([out, opened], tmp_path / "all")
    assert [text.split(":")[0] for text in found.conflicts] == [name.removesuffix(".json")]
    assert {record.id for record in load_robustness(tmp_path / "all")} == {record.id for record in records} - {one.id}
