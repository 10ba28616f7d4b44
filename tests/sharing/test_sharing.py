"""Results folders are merged, packed and audited; every planted change is named, and a hostile bundle does no harm."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evar import cli
from evar.cli import run
from evar.results import load_all, load_predictions
from evar.sharing import audit_bundle, merge_results, open_bundle, write_bundle
from evar.sharing.auditing import DIFFERENT, IDENTICAL, NOT_RERUNNABLE, VERIFIED
from evar.sharing.leaderboard import write_leaderboard
from evar.sharing.merging import load_origins
from evar.sharing.privacy import scrub


@pytest.fixture
def results(tones):
    """A results folder with one row of each of three layers."""
    root = tones()
    assert run(["lineval", "toy", "tones", "--layers=all", f"--out={root / 'results'}"]) == cli.DONE
    return root / "results"


def change(bundle, name, edit, *, honest_hash=True):
    """Write the bundle again with one file changed, and with that file's new hash in the manifest."""
    with zipfile.ZipFile(bundle) as archive:
        files = {one: archive.read(one) for one in archive.namelist()}
    files[name] = edit(files[name])
    if honest_hash:
        manifest = json.loads(files["manifest.json"])
        manifest["files"][name] = hashlib.sha256(files[name]).hexdigest()
        files["manifest.json"] = json.dumps(manifest).encode()
    path = bundle.with_name("changed.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for one, data in files.items():
            archive.writestr(one, data)
    return path


def change_array(name, edit):
    def change_arrays(data):
        with np.load(io.BytesIO(data)) as arrays:
            kept = {key: arrays[key] for key in arrays.files}
        kept[name] = edit(kept[name].copy())
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **kept)
        return buffer.getvalue()

    return change_arrays


def flip_first(values):
    values[0] = 1 - min(values[0], 1)
    return values


def change_key(*keys, to):
    def change_json(data):
        top = record = json.loads(data)
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = to
        return json.dumps(top).encode()

    return change_json


def test_a_bundle_is_audited_from_an_empty_store_and_every_row_is_the_same(results, tmp_path):
    path = tmp_path / "ours.zip"
    assert run(["export-results", str(results), "-o", str(path)]) == cli.DONE
    rows = load_all(results)
    found = audit_bundle(path, sample=99)
    assert found.is_clean and found.n_sampled == len(rows) == len(found.rows)
    assert [row.verdict for row in found.rows] == [IDENTICAL] * len(rows)
    assert {row.id: row.score_again for row in found.rows} == {row.id: row.score for row in rows}


def test_the_command_writes_a_certificate(results, tmp_path, capsys):
    write_bundle(results, tmp_path / "ours.zip")
    assert run(["audit", str(tmp_path / "ours.zip"), "--sample=0"]) == cli.DONE
    assert "nothing differs" in capsys.readouterr().out
    data = json.loads((tmp_path / "ours.certificate.json").read_text())
    assert data["is_clean"] and {row["verdict"] for row in data["rows"]} == {VERIFIED}
    assert data["bundle_sha256"] == hashlib.sha256((tmp_path / "ours.zip").read_bytes()).hexdigest()
    assert "Nothing differs" in (tmp_path / "ours.certificate.md").read_text()


def test_an_audit_and_a_leaderboard_read_each_file_once(results, tmp_path, monkeypatch):
    write_bundle(results, tmp_path / "ours.zip")
    read, load = [], np.load
    monkeypatch.setattr(np, "load", lambda path, **how: read.append(Path(path).name) or load(path, **how))
    opened, hashed = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: opened.append(file.name) or hashed(file, kind))
    names = sorted(f"{row.id}.npz" for row in load_all(results))
    assert audit_bundle(tmp_path / "ours.zip", sample=0).is_clean
    assert sorted(read) == names and len(names) == 2 and len(opened) == 1
    opened.clear()
    assert write_leaderboard([tmp_path / "ours.zip"], tmp_path / "site").n_rows == 2
    assert len(opened) == 1


def test_every_planted_change_is_named(results, tmp_path):
    bundle, id = tmp_path / "ours.zip", load_all(results)[0].id
    write_bundle(results, bundle)
    run_name, predictions_name = f"runs/{id}.json", f"predictions/{id}.npz"
    planted = [
        (predictions_name, change_array("y_pred", flip_first), "its predictions give"),
        (predictions_name, change_array("y_true", flip_first), "true labels of tones differ"),
        (predictions_name, change_array("clip", lambda values: values[::-1]), "true labels of tones differ"),
        (run_name, change_key("round_scores", 0, to=0.123), "cannot be read"),  # no longer the mean
        (run_name, change_key("interval", to=[0.1, 0.2]), "the interval is [0.1, 0.2]"),
        (run_name, change_key("weights_sha256", to="0" * 64), "weights_sha256 is"),
        (
            run_name,
            change_key("settings", "spec", "index_sha256", to="0" * 64),
            "its specification belongs to the name",
        ),
        (run_name, change_key("n_test", to=7), "7"),
    ]
    for name, edit, message in planted:
        found = audit_bundle(change(bundle, name, edit), sample=0)
        text = "\n".join([*found.faults, *(reason for row in found.rows for reason in row.reasons)])
        assert not found.is_clean and message in text, (name, message, text)


def test_a_change_without_its_hash_is_named_whatever_it_is(results, tmp_path):
    bundle, id = tmp_path / "ours.zip", load_all(results)[0].id
    write_bundle(results, bundle)
    for name in (f"predictions/{id}.npz", f"runs/{id}.json", "tasks/tones.yaml", "table.json"):
        changed = change(bundle, name, lambda data: data[:-1] + bytes([data[-1] ^ 1]), honest_hash=False)
        faults = audit_bundle(changed, sample=0).faults
        assert any(fault.startswith(f"{name} has the sha256") for fault in faults), (name, faults)


def test_a_test_that_does_not_follow_from_the_predictions_is_named(results, tmp_path):
    write_bundle(results, tmp_path / "ours.zip")

    def lower_p(data):
        tables = json.loads(data)
        tables[0]["cells"][-1]["p_worse_than_best"] = 0.001234
        return json.dumps(tables).encode()

    found = audit_bundle(change(tmp_path / "ours.zip", "table.json", lower_p), sample=0)
    assert any("p_worse_than_best is 0.001234" in fault for fault in found.faults), found.faults


def test_a_score_that_only_a_new_run_can_refute_is_found(results, tmp_path):
    """All predictions, scores and hashes agree with each other, and none is what the encoder gives."""
    row = load_all(results)[0]
    predictions = load_predictions(results, row.id)
    forged = tmp_path / "forged"
    shutil.copytree(results, forged)
    for id in [one.id for one in load_all(forged) if one.id != row.id]:
        (forged / "runs" / f"{id}.json").unlink()
    predicted = np.roll(predictions["y_true"], 0).copy()
    predicted[0] = (predicted[0] + 1) % 3
    _forge(forged, row, predictions, predicted)
    write_bundle(forged, tmp_path / "forged.zip")
    assert audit_bundle(tmp_path / "forged.zip", sample=0).is_clean
    (verdict,) = audit_bundle(tmp_path / "forged.zip", sample=1).rows
    assert verdict.verdict == DIFFERENT and "computed again" in " ".join(verdict.reasons)


def _forge(folder, row, predictions, predicted):
    from evar.metrics.intervals import score_interval
    from evar.results import Result, save, save_predictions

    rounds = predictions["round"]
    right = predicted == predictions["y_true"]
    scores = [float(right[rounds == one].mean()) for one in np.unique(rounds)]
    interval = score_interval("accuracy", predictions["y_true"], [predicted], predictions["group"], rounds)
    data = {**row.to_dict(), "score": sum(scores) / len(scores), "round_scores": scores, "interval": list(interval)}
    data["rounds"] = [{**one, "score": score} for one, score in zip(data["rounds"], scores, strict=True)]
    save_predictions(folder, row.id, **{**predictions, "y_pred": predicted})
    save(Result.from_dict(data), folder)


def test_code_of_a_stranger_is_never_run(results, tmp_path):
    bundle, row = tmp_path / "ours.zip", load_all(results)[0]
    write_bundle(results, bundle)
    path = change(bundle, f"runs/{row.id}.json", change_key("settings", "encoder", to="evil.py:Encoder"))
    verdicts = {one.id: one for one in audit_bundle(path, sample=99).rows}
    assert verdicts[row.id].verdict == NOT_RERUNNABLE and "code of its author" in verdicts[row.id].reasons[0]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "runs/../../evil.json",
        "/etc/evil",
        "runs\\evil.json",
        "runs/a/b.json",
        "evil.py",
        "tasks/x.yaml/",
    ],
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": "evar results 1", "files": {}}))
        archive.writestr(name, b"x")
    with pytest.raises(ValueError, match="found '"):
        open_bundle(tmp_path / "evil.zip", tmp_path / "here")
    assert not (tmp_path / "here").exists() and sorted(path.name for path in tmp_path.iterdir()) == ["evil.zip"]


def test_bombs_and_other_files_are_refused(tmp_path):
    (tmp_path / "text.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="no whole zip"):
        open_bundle(tmp_path / "text.zip", tmp_path / "here")
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"[" * 5000)
    with pytest.raises(ValueError, match="manifest"):
        open_bundle(tmp_path / "big.zip", tmp_path / "here")
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("y_true.npy", bytes(1000))
    bomb = inner.getvalue().replace((1000).to_bytes(4, "little"), (2**31).to_bytes(4, "little"))
    manifest = {"format": "evar results 1", "files": {"predictions/a.npz": hashlib.sha256(bomb).hexdigest()}}
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("predictions/a.npz", bomb)
    found = open_bundle(tmp_path / "bomb.zip", tmp_path / "here")
    assert "would unpack to 2,147,483,648 bytes" in found.faults[0]


def test_paths_and_names_stay_at_home(results, tmp_path, monkeypatch):
    monkeypatch.setattr("evar.sharing.privacy.find_own_names", lambda: frozenset({"annabella"}))
    monkeypatch.setattr("evar.sharing.bundle.find_own_names", lambda: frozenset({"annabella"}))
    row = load_all(results)[0]
    data = json.loads((results / "runs" / f"{row.id}.json").read_text())
    data["settings"]["weights"] = "/home/annabella/models/toy.pt"
    data["flags"] = ["asked by annabella"]
    (results / "runs" / f"{row.id}.json").write_text(json.dumps(data))
    write_bundle(results, tmp_path / "ours.zip")
    with zipfile.ZipFile(tmp_path / "ours.zip") as archive:
        texts = b"".join(archive.read(name) for name in archive.namelist() if not name.endswith(".npz"))
    assert b"annabella" not in texts and str(results.parent).encode() not in texts and b"toy.pt" in texts


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("/data/a.wav", "a.wav"),
        ("cannot read '/data/my set/a.wav': no file", "cannot read 'a.wav': no file"),
        ("/home/Anna Smith/my net.py:Net", "my net.py:Net"),
        ("https://a.org/b/c.pt and hf:org/model", "https://a.org/b/c.pt and hf:org/model"),
        ("~/x/enc.py:Net", "enc.py:Net"),
        ("D:\\sounds\\a.wav", "a.wav"),
        ("fold1/a.wav, 3/4 and and/or", "fold1/a.wav, 3/4 and and/or"),
    ],
)
def test_paths_become_their_last_part(text, scrubbed):
    assert scrub(text, frozenset()) == scrubbed


def test_merging_keeps_origins_and_names_conflicts(results, tmp_path, capsys):
    other = tmp_path / "other_lab"
    shutil.copytree(results, other)
    first, second, *_ = load_all(results)
    (results / "runs" / f"{first.id}.json").unlink()  # only the other lab has it
    assert merge_results([results, other], tmp_path / "all").conflicts == ()
    merged = {row.id for row in load_all(tmp_path / "all")}
    assert merged == {row.id for row in load_all(other)}
    assert load_origins(tmp_path / "all")[first.id] == ["other_lab"]
    assert load_origins(tmp_path / "all")[second.id] == ["results", "other_lab"]
    again = merge_results([other], tmp_path / "all")  # origins of a merged folder stay
    assert again.n_rows == len(merged) and load_origins(tmp_path / "all")[second.id] == ["results", "other_lab"]

    predictions = load_predictions(other, second.id)
    _forge(other, second, predictions, flip_first(predictions["y_pred"].copy()))
    capsys.readouterr()
    assert run(["merge", str(results), str(other), f"--out={tmp_path / 'both'}"]) == cli.SOME_FAILED
    assert f"CONFLICT, left out: {second.id}: the score is" in capsys.readouterr().err
    assert second.id not in {row.id for row in load_all(tmp_path / "both")}
    assert (tmp_path / "both" / "table.md").exists()


def test_a_leaderboard_marks_checked_rows_and_leaves_out_what_differs(results, tmp_path, capsys):
    write_bundle(results, tmp_path / "ours.zip")
    assert run(["audit", str(tmp_path / "ours.zip"), "--sample=99"]) == cli.DONE
    assert run(["leaderboard", str(tmp_path / "ours.zip"), f"--out={tmp_path / 'site'}"]) == cli.DONE
    page = (tmp_path / "site" / "index.html").read_text()
    assert "computed again, with the same score" in page and "Content-Security-Policy" in page
    (copied,) = (tmp_path / "site" / "bundles").iterdir()
    assert copied.read_bytes() == (tmp_path / "ours.zip").read_bytes() and f"bundles/{copied.name}" in page

    id = load_all(results)[0].id
    forged = change(tmp_path / "ours.zip", f"predictions/{id}.npz", change_array("y_pred", flip_first))
    forged = forged.rename(tmp_path / "<b>forged.zip")
    words = ["leaderboard", str(tmp_path / "ours.zip"), str(forged), f"--out={tmp_path / 'both'}"]
    assert run(words) == cli.SOME_FAILED
    assert f"{id} is left out" in capsys.readouterr().err
    page = (tmp_path / "both" / "index.html").read_text()
    assert "<b>forged" not in page and "&lt;b&gt;forged" in page
