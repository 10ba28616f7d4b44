"""Scores go into the files of other toolkits and come back; what a format cannot hold is said."""

from __future__ import annotations

import json

import pytest

from evar import cli
from evar.cli import run
from evar.config.published import load_published_config
from evar.results import load_all
from evar.sharing.formats import read_scores


@pytest.mark.parametrize("kind", ["mteb", "hear"])
def test_scores_come_back(tones, tmp_path, capsys, kind):
    root = tones()
    assert run(["lineval", "toy", "tones", "--layers=all", f"--out={root / 'results'}"]) == cli.DONE
    words = ["export-results", str(root / "results"), "-o", str(tmp_path / "files"), f"--format={kind}"]
    assert run(words) == cli.DONE and "lost, as the format has no field for it: predictions" in capsys.readouterr().out
    assert run(["import-scores", str(tmp_path / "files"), "-o", str(tmp_path / "back.yaml")]) == cli.DONE
    found = load_published_config(str(tmp_path / "back.yaml"))
    assert found.tasks == ("tones",)
    layers = {"+".join(row.layers): round(100 * row.score, 4) for row in load_all(root / "results")}
    assert {row.label.split("__")[1]: row.scores[0] for row in found.rows} == layers
    assert run(["compare", f"--out={root / 'results'}", f"--published={tmp_path / 'back.yaml'}"]) == cli.DONE


def test_files_of_the_other_toolkits_are_read(tmp_path):
    mteb = tmp_path / "org__model" / "abc123"
    mteb.mkdir(parents=True)
    scores = [{"main_score": 0.75, "accuracy": 0.75, "hf_subset": "default", "languages": ["zxx-Zxxx"]}]
    (mteb / "ESC50.json").write_text(json.dumps({"task_name": "ESC50", "scores": {"test": scores}}))
    (mteb / "OnlyHere.json").write_text(json.dumps({"task_name": "OnlyHere", "scores": {"test": scores}}))
    (mteb / "model_meta.json").write_text(json.dumps({"name": "org/model"}))
    (mteb / "torn.json").write_text("{")
    hear = tmp_path / "hear_model" / "esc50-v2.0.0-full"
    hear.mkdir(parents=True)
    folds = {"fold00": {"test_score": 0.5}, "fold01": {"test_score": 0.7}}
    (hear / "test.predicted-scores.json").write_text(json.dumps(folds))
    data, notes = read_scores(tmp_path / "org__model")
    assert data["tasks"] == ["esc50", "onlyhere"] and data["rows"] == [{"label": "org__model", "scores": [75.0, 75.0]}]
    assert set(data["other_tasks"]) == {"onlyhere"} and len(notes) == 1 and "torn.json" in notes[0]
    data, _ = read_scores(tmp_path / "hear_model")
    assert data["tasks"] == ["hear_esc50"] and data["rows"] == [{"label": "hear_model", "scores": [60.0]}]
    with pytest.raises(ValueError, match="no task in common"):
        read_scores(tmp_path)


def test_a_folder_without_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        read_scores(tmp_path)
