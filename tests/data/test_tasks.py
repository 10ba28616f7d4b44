"""Tasks: every registered index is sound, rounds leak nothing, and a wrong index is one sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from toy import write_config

from evar import config
from evar.data.task import load_task
from evar.data.task_config import SPLITS, load_task_config

TASKS = [name for name in config.names("tasks") if load_task_config(name).index]  # the others: test_catalogue.py


@pytest.mark.parametrize("name", TASKS)
def test_every_registered_task_is_sound(name):
    task = load_task(name)
    entry = task.config
    assert len(task) == entry.expected.clips
    if entry.kind == "captions":
        assert not entry.classes and all(own and all(own) for own in task.y)
    else:
        assert {label for text in task.index["label"] for label in text.split(";")} == set(entry.classes)
    assert entry.licence and entry.citation and entry.source and entry.title
    for a_round in task.rounds():
        parts = [set(part.tolist()) for part in (a_round.train, a_round.valid, a_round.test)]
        assert all(parts) and sum(map(len, parts)) == len(task)
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        groups = [set(task.groups[sorted(part)]) for part in parts]
        assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
        if entry.kind == "captions":
            continue
        y = task.y[a_round.train]
        assert y.any(axis=0).all() if entry.kind == "multilabel" else set(y) == set(range(len(entry.classes)))


def test_published_folds_and_splits_are_kept():
    esc10 = load_task("esc10")
    for number, a_round in enumerate(esc10.rounds(), start=1):
        assert a_round.name == f"fold {number}"
        names = esc10.index["path"].to_numpy()[a_round.test]
        assert len(names) == 80 and all(name.split("/")[1].startswith(f"{number}-") for name in names)
    digits = load_task("fsdd_digit")
    (only,) = digits.rounds()
    take = digits.index["path"].str.extract(r"_(\d+)\.wav$")[0].astype(int).to_numpy()
    assert set(take[only.test]) == set(range(5)) and set(take[only.valid]) == set(range(5, 10))
    assert len(only.test) == 300 and not digits.draws_validation


def test_validation_is_drawn_from_training_folds_by_seed():
    task = load_task("esc10")
    first, again, other = task.rounds(0)[0], load_task("esc10").rounds(0)[0], task.rounds(1)[0]
    assert np.array_equal(first.valid, again.valid) and not np.array_equal(first.valid, other.valid)
    assert np.array_equal(first.test, other.test) and "seed 1" in other.drawn
    counts = np.bincount(task.y[first.valid], minlength=10)
    assert counts.min() >= 4  # stratified: 64 clips of 10 classes


def test_limit_is_balanced_nested_and_keeps_splits():
    whole, part = load_task("fsdd_digit"), load_task("fsdd_digit", limit=30)
    (a_round,) = part.rounds()
    for rows in (a_round.train, a_round.valid, a_round.test):
        assert len(rows) == 30 and set(np.bincount(part.y[rows])) == {3}
    assert set(part.index["path"]) < set(whole.index["path"])
    assert set(load_task("fsdd_digit", limit=20).index["path"]) < set(part.index["path"])
    folds = load_task("esc10", limit=20)
    assert [len(a_round.test) for a_round in folds.rounds()] == [20] * 5
    assert part.index_sha256 != whole.index_sha256


def edited(tmp_path, monkeypatch, change, **options):
    """The tones task with its index changed by `change(frame) -> frame`."""
    folder = write_config(tmp_path, **options)
    monkeypatch.setenv("EVAR_CONFIG", str(folder))
    path = folder / "tasks" / "tones.csv"
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)
    return load_task("tones", tmp_path / "data")


def set_cell(column, value, row=0):
    def change(frame):
        frame.loc[row, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_cell("label", "middel"), "line 2: label 'middel' is none of the 3 classes.*did you mean 'middle'"),
        (set_cell("path", "../../etc/passwd"), "line 2: path must stay below"),
        (set_cell("path", "/etc/passwd"), "path must stay below"),
        (set_cell("path", "low_1.wav"), "lists 1 clips twice, first low_1.wav"),
        (set_cell("split", "dev"), "line 2: split must be train, valid or test, got 'dev'"),
        (set_cell("group", "0-3"), "1 groups are in more than one split, first '0-3' in test, train"),
        (lambda frame: frame.iloc[1:], "expected 36 clips, got 35"),
        (lambda frame: frame.drop(columns="label"), "lacks the column 'label'"),
    ],
)
def test_a_wrong_index_is_one_sentence(tmp_path, monkeypatch, change, message):
    with pytest.raises(ValueError, match=message):
        edited(tmp_path, monkeypatch, change)


def test_missing_files_are_counted_and_named(tones):
    root = tones()
    (root / "data" / "tones" / "low_3.wav").unlink()
    task = load_task("tones")
    with pytest.raises(FileNotFoundError, match=r"tones: 1 of 36 clips missing under .*first low_3.wav; .*evar verify"):
        task.require_files()


def test_verify_names_what_is_wrong(tones):
    root = tones()
    folder = root / "data" / "tones"
    (folder / "low_3.wav").unlink()
    (folder / "low_4.wav").write_bytes(b"no audio")
    index = root / "config" / "tasks" / "tones.csv"
    pd.read_csv(index, dtype=str).assign(sha256="").to_csv(index, index=False)
    set_cell("sha256", "0123456789abcdef", 5)(frame := pd.read_csv(index, dtype=str, keep_default_na=False))
    frame.to_csv(index, index=False)
    found = load_task("tones").verify()
    assert found.missing == ["low_3.wav"] and list(found.undecodable) == ["low_4.wav"]
    assert found.wrong_checksum == ["low_5.wav"] and not found.ok and found.n_clips == 36


def test_embedded_tasks_have_every_class_in_every_split():
    for name in TASKS:
        task = load_task(name)
        if task.config.builder and task.config.kind != "captions":
            for split in SPLITS:
                labels = task.index.loc[task.index["split"] == split, "label"]
                assert {label for text in labels for label in text.split(";")} == set(task.config.classes)


def test_unknown_task_names_the_nearest():
    with pytest.raises(ValueError, match="no task 'esc1O'.*did you mean 'esc10'"):
        load_task("esc1O")
