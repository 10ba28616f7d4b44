"""`evar task new`: folders and tables become tasks; splits are proposed openly; what is wrong is one sentence."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from toy import RATE, tone

from evar import cli, results
from evar.cli import run
from evar.data.new_task import TaskOptions, new_task
from evar.data.task import load_task
from evar.data.task_config import load_task_config


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    """Three class folders, one with a comma and one with an umlaut in its name, of ten tones each."""
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("EVAR_DATA", raising=False)
    for number, label in enumerate(["low, dull", "mitte über", "high"]):
        for take in range(10):
            path = tmp_path / "sounds" / label / f"{take}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, tone(number, 100 * number + take), RATE)
    return tmp_path


def made(root, *words):
    return run(["task", "new", "mine", f"--folder={root / 'sounds'}", f"--to={root / 'config'}", *words])


def test_a_folder_of_class_folders_becomes_a_row(sounds, capsys):
    assert made(sounds) == cli.DONE
    said = capsys.readouterr().out
    assert "30 clips, 3 classes" in said and "NOTE: the split is a proposal" in said and "seed 0" in said
    task = load_task("mine")
    assert set(task.config.classes) == {"low, dull", "mitte über", "high"}
    for part in ("train", "valid", "test"):
        own = task.index[task.index["split"] == part]
        assert set(own["label"].value_counts()) == {6 if part == "train" else 2}
    assert "not published by anybody" in load_task_config("mine").notes
    assert run(["verify", "mine"]) == cli.DONE
    assert run(["lineval", "logmel", "mine", f"--out={sounds / 'results'}"]) == cli.DONE
    (row,) = results.load_all(sounds / "results")
    assert row.score >= 0.9 and row.n_test == 6
    assert "WARNING" not in said
    soundfile.write(sounds / "sounds" / "high" / "10.wav", np.zeros(1000 * 1801), 1000, subtype="PCM_U8")
    assert made(sounds, "--replace") == cli.DONE
    assert "WARNING: 1 of 31 sounds are longer than 30 minutes, first high/10.wav (1801 s)" in capsys.readouterr().out
    assert made(sounds, "--replace", "--clip_seconds=1") == cli.DONE
    assert "longer than" not in capsys.readouterr().out


def test_a_table_with_splits_is_kept_as_it_is(sounds, capsys):
    rows = [(f"high/{n}.wav", "h", "test" if n < 3 else "valid" if n < 5 else "train", f"g{n}") for n in range(10)]
    rows += [
        (f"low, dull/{n}.wav", "l", "test" if n < 3 else "valid" if n < 5 else "train", f"k{n}") for n in range(10)
    ]
    table = sounds / "table.csv"
    pd.DataFrame(rows, columns=["path", "label", "split", "group"]).to_csv(table, index=False)
    assert made(sounds, f"--csv={table}") == cli.DONE
    assert "proposal" not in capsys.readouterr().out
    assert list(load_task("mine").index["split"]) == [row[2] for row in rows]


def test_groups_stay_together_in_what_is_proposed(sounds):
    rows = [(f"high/{n}.wav", "h", f"g{n // 2}") for n in range(10)] + [
        (f"low, dull/{n}.wav", "l", f"k{n // 2}") for n in range(10)
    ]
    table = sounds / "table.csv"
    pd.DataFrame(rows, columns=["path", "label", "group"]).to_csv(table, index=False)
    assert made(sounds, f"--csv={table}", "--folds=5") == cli.DONE
    task = load_task("mine")
    assert task.config.splits == "folds" and len(task.rounds()) == 5
    assert (task.index.groupby("group")["fold"].nunique() == 1).all()


def test_the_same_seed_proposes_the_same_and_another_another(sounds):
    found = [
        new_task(f"t{i}", sounds / "sounds", options=TaskOptions(seed=seed), to=sounds / "config")
        .task.index["split"]
        .tolist()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert found[0] == found[1] != found[2]


def test_other_kinds(sounds):
    paths = [f"{label}/{n}.wav" for label in ("high", "low, dull", "mitte über") for n in range(10)]
    table = sounds / "table.csv"
    labels = ["bright,loud" if p.startswith("high") else "dull" if p.startswith("low") else "" for p in paths]
    pd.DataFrame({"path": paths, "label": labels}).to_csv(table, index=False)
    assert made(sounds, f"--csv={table}", "--kind=multilabel", "--separator=,") == cli.DONE
    task = load_task("mine")
    assert task.config.classes == ("bright", "dull", "loud") and task.y.sum(axis=0).tolist() == [10, 10, 10]
    pd.DataFrame({"file_name": paths, "label": [str(n) for n in range(30)]}).to_csv(table, index=False)
    assert made(sounds, f"--csv={table}", "--kind=regression", "--replace") == cli.DONE
    assert np.array_equal(load_task("mine").y, np.arange(30.0))


def test_copies_in_two_splits_are_named(sounds, capsys):
    made(sounds)
    index = load_task("mine").index
    of = {part: index["path"][index["split"] == part].iloc[0] for part in ("train", "test")}
    shutil.copy(sounds / "sounds" / of["train"], sounds / "sounds" / of["test"])
    capsys.readouterr()
    assert made(sounds, "--replace") == cli.DONE
    assert "WARNING" in capsys.readouterr().out


def test_a_folder_below_the_data_root_is_written_relative_to_it(sounds):
    assert made(sounds, f"--data_root={sounds}") == cli.DONE
    assert load_task_config("mine").folder == "sounds"
    assert not load_task("mine", data_root=sounds).missing()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--csv=nothing.csv"], "no table nothing.csv"),
        (["--kind=events"], "events need a table"),
        (["--folder=/nowhere"], "given twice"),
    ],
)
def test_what_is_wrong_is_one_sentence(sounds, words, said, capsys):
    assert made(sounds, *words) == cli.WRONG
    text = capsys.readouterr().err
    assert said in text and len(text.strip().splitlines()) == 1
    assert not (sounds / "config" / "tasks" / "mine.yaml").exists()


def test_wrong_tables_and_folders(sounds, capsys):
    table = sounds / "table.csv"
    cases = {
        "path,labl\nhigh/0.wav,h\n": "must have the columns path and label",
        "path,label\nhigh/99.wav,h\n": "1 of 1 clips",
        "path,label,split\nhigh/0.wav,h,dev\n": "split must be train, valid or test, got 'dev'",
        "path,label\n/etc/passwd,h\n": "is not below",
        "path,label\n../table.csv,h\n": "must stay below",
        "path,label\nhigh/0.wav,h\nhigh/1.wav,l\n": "groups",
    }
    for text, said in cases.items():
        table.write_text(text)
        assert made(sounds, f"--csv={table}") == cli.WRONG
        assert said in capsys.readouterr().err, text
    (sounds / "sounds" / "stray.wav").write_bytes(b"x")
    assert made(sounds) == cli.WRONG and "lies in no class folder" in capsys.readouterr().err
    (sounds / "sounds" / "stray.wav").unlink()
    assert made(sounds) == cli.DONE
    assert made(sounds) == cli.WRONG and "is there already" in capsys.readouterr().err
    assert run(["task", "old", "mine"]) == cli.WRONG and "evar task knows new" in capsys.readouterr().err
