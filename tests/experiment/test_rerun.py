"""A row again from its file alone: the same number, or what has changed since."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from toy import Bands

from evar import cli, results
from evar.cli import run


def lineval(root: Path, *words: str) -> list[Path]:
    assert run(["lineval", *words, f"--out={root / 'results'}"]) == cli.DONE
    return sorted((root / "results" / "runs").iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["toy", "tones", "--layers=all", "--seeds=2"],
        ["toy", "tones", "--layers=level,bands", "--fusion=concat", "--limit=9"],
        ["toy_normalised", "tones", "--norm_stats=-3.0,2.5"],
        ["toy_normalised", "tones", "--norm_stats=train"],
        ["toy", "tones", "--weights=random", "--skip_bad", "--batch_size=5"],
        ["toy_twins", "tones", "--layers=all", "--fusion=weighted"],
        ["toy", "tones", "--protocol=knn", "--seeds=2"],
    ],
    ids=" ".join,
)
def test_every_row_of_a_run_comes_out_the_same(tones, capsys, words):
    root = tones(folds=True, unequal=True, shuffled=True)  # shuffled: scores that a slip would change
    for path in lineval(root, *words):
        capsys.readouterr()
        Bands.calls.clear()
        assert run(["rerun", str(path), f"--store={root / 'empty' / path.stem}"]) == cli.DONE
        printed = capsys.readouterr().out
        assert "the same" in printed and "0 of" in printed and "predictions changed" in printed
        assert sum(Bands.calls) > 0  # encoded again, not taken from the old store


def test_another_score_is_told(tones, capsys):
    root = tones()
    (path,) = lineval(root, "toy", "tones")
    row = json.loads(path.read_text())
    row["score"], row["round_scores"] = 0.5, [0.5]
    row["rounds"][0]["score"] = 0.5
    row["interval"] = [0.4, 0.6]
    path.write_text(json.dumps(row))
    assert run(["rerun", str(path), f"--out={root / 'again'}"]) == cli.SOME_FAILED
    assert "then 50.0000 %, now 100.0000 %: DIFFERENT" in capsys.readouterr().out
    assert [again.score for again in results.load_all(root / "again")] == [1.0]


def test_what_has_changed_since_is_named(tones, capsys, monkeypatch):
    root = tones()
    (path,) = lineval(root, "toy", "tones")
    encoder = root / "config" / "encoders" / "toy.yaml"
    before = encoder.read_text()
    encoder.write_text(yaml.safe_dump({**yaml.safe_load(before), "options": {"gain": 2.0}}))
    assert run(["rerun", str(path)]) == cli.WRONG
    said = capsys.readouterr().err
    assert "was made with weights_sha256" in said and "but here it is" in said
    encoder.write_text(before)
    index = root / "config" / "tasks" / "tones.csv"
    index.write_text(index.read_text().replace("low,train", "high,train", 1))
    assert run(["rerun", str(path)]) == cli.WRONG
    assert "index_sha256" in capsys.readouterr().err
    assert run(["rerun", str(root / "none.json")]) == cli.WRONG


def test_another_share_of_validation_clips_is_named(tones, capsys):
    root = tones(folds=True)
    (path,) = lineval(root, "toy", "tones")
    protocol = root / "config" / "protocols" / "linear.yaml"
    protocol.parent.mkdir(exist_ok=True)
    before = yaml.safe_load((Path(__file__).resolve().parents[2] / "config" / "protocols" / "linear.yaml").read_text())
    protocol.write_text(yaml.safe_dump({**before, "validation_parts": 3}))
    assert run(["rerun", str(path)]) == cli.WRONG
    assert "was made with validation_parts 5, but here it is 3" in capsys.readouterr().err
    row = json.loads(path.read_text())
    del row["settings"]["spec"]  # as older versions wrote it
    path.write_text(json.dumps(row))
    assert run(["rerun", str(path)]) == cli.WRONG
    assert "was made with validation_parts 5, but here it is 3" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["encoder", "protocol"])
@pytest.mark.parametrize("name", ["{}/evil.py:X", "evil:X", "hear:evil", "{}/evil.yaml"])
def test_a_record_runs_no_code_that_the_user_did_not_name(tones, monkeypatch, capsys, key, name):
    """Also a file that says so only in its settings, or only at its top."""
    root = tones()
    monkeypatch.chdir(root)
    (root / "evil.py").write_text("open('ran', 'w').close()\nclass X: pass\n")
    (root / "evil.yaml").write_text("implementation: evil:X\n")
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.DONE
    (path,) = (root / "results" / "runs").glob("*.json")
    row = json.loads(path.read_text())
    for changed in ({**row, key: name.format(root)}, row):
        changed["settings"] = {**row["settings"], key: name.format(root)}
        other = path.with_name("other.json")
        other.write_text(json.dumps({**changed, "id": "other"}))
        assert run(["rerun", str(other)]) == cli.WRONG
        assert f"names code to be imported: {key} " in capsys.readouterr().err and not (root / "ran").exists()
    assert run(["compare", f"--out={root / 'results'}"]) == cli.DONE and not (root / "ran").exists()
