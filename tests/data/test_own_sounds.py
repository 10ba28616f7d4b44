"""`evar task new` on folders and tables as people have them: what is read, what is refused, and what is written down."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from toy import RATE, tone

from evar import cli
from evar.cli import run
from evar.data.audit import audit
from evar.data.new_task import TaskOptions, new_task
from evar.data.problems import list_label_problems, sample_sound_problems
from evar.data.task import load_task
from evar.data.task_config import load_task_config


def write(path, number=0, rate=RATE, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(number % 3, number), rate, **more)


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("EVAR_DATA", raising=False)
    return tmp_path


def make(work, table=None, **more):
    return new_task("mine", work / "sounds", table, TaskOptions(**more), to=work / "config", replace=True)


def fill(work, labels=("low", "high"), n=10, between=""):
    for number, label in enumerate(labels):
        for take in range(n):
            write(work / "sounds" / between / label / f"{take}.wav", 100 * number + take)


# ---------------------------------------------------------------- folders


def test_folders_named_like_splits_are_splits(work):
    for split, n in (("Training", 4), ("Validation", 2), ("Testing", 2)):
        fill(work, n=n, between=split)
        for number, label in enumerate(("low", "high")):
            for take in range(n):  # other sounds in each split
                write(work / "sounds" / split / label / f"{take}.wav", 100 * number + take + 10 * n + len(split))
    made = make(work)
    assert made.task.config.classes == ("high", "low") and not made.proposed and made.task.config.splits == "published"
    assert made.task.index["split"].value_counts().to_dict() == {"train": 8, "valid": 4, "test": 4}
    assert any("read as splits, not as classes" in note for note in made.notes)


def test_folders_named_like_folds_are_folds_wherever_they_lie(work):
    for label, number in (("low", 0), ("high", 1)):
        for fold in (1, 2, 3):
            for take in range(4):
                write(work / "sounds" / label / f"fold_{fold}" / f"{take}.wav", 100 * number + 10 * fold + take)
    made = make(work)
    assert made.task.config.splits == "folds" and sorted(set(made.task.index["fold"])) == ["1", "2", "3"]
    assert made.task.config.classes == ("high", "low") and not made.task.config.is_proposed


def test_a_folder_that_may_be_a_split_or_a_class_is_refused(work):
    fill(work, ("train", "cat"))
    with pytest.raises(ValueError, match="is it a split or a class"):
        make(work)


def test_deeper_folders_are_told_and_can_be_chosen(work):
    for owner in ("anna", "ben"):
        for number, label in enumerate(("bark", "meow", "purr")):
            for take in range(5):
                write(work / "sounds" / owner / label / f"{take}.wav", 100 * number + take + 7 * len(owner))
    (work / "sounds" / "anna" / "list.txt").write_text("x")
    made = make(work)
    assert made.task.config.classes == ("anna", "ben")
    assert any("--class_level=2" in note for note in made.notes) and any("1 .txt" in note for note in made.notes)
    assert make(work, class_level=2).task.config.classes == ("bark", "meow", "purr")


def test_pointers_among_sounds_are_left_out_by_name(work):
    fill(work)
    for name in ("low/3.wav", "high/7.wav"):
        (work / "sounds" / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    made = make(work)
    assert len(made.task) == 18 and "git lfs pull" in made.left_out_csv.read_text()
    assert sorted(pd.read_csv(made.left_out_csv)["path"]) == ["high/7.wav", "low/3.wav"]
    for path in (work / "sounds").rglob("*.wav"):
        path.write_text("<html><body>404</body></html>")
    with pytest.raises(ValueError, match=r"20 of 20 files .* are no audio, first .*web page"):
        make(work)


# ---------------------------------------------------------------- copies


def test_identical_files_share_a_group_and_all_pairs_are_written(work):
    fill(work)
    for take in range(6):
        shutil.copy(work / "sounds" / "low" / f"{take}.wav", work / "sounds" / "low" / f"copy{take}.wav")
    made = make(work)
    part = dict(zip(made.task.index["path"], made.task.index["split"], strict=True))
    assert all(part[f"low/{take}.wav"] == part[f"low/copy{take}.wav"] for take in range(6)) and not made.duplicates
    pairs = pd.read_csv(made.pairs_csv)
    assert (pairs["kind"] == "identical").sum() == 6 and (pairs["first_split"] == pairs["second_split"]).all()
    assert made.n_joined == 12


def test_clips_that_sound_alike_share_a_group_on_request(work):
    rng = np.random.default_rng(0)
    for number in range(12):
        wave = np.cumsum(rng.standard_normal(RATE * 2)).astype(np.float32)
        wave *= 0.5 / np.abs(wave).max()
        for name, level in (("a", 1.0), ("b", 0.5)):
            path = work / "sounds" / ("low" if number % 2 else "high") / f"{number}{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, level * wave, RATE)
    made = make(work, group_alike=True)
    part = dict(zip(made.task.index["path"], made.task.index["split"], strict=True))
    pairs = pd.read_csv(made.pairs_csv)
    assert len(pairs) >= 10 and all(part[a] == part[b] for a, b in zip(pairs["first"], pairs["second"], strict=True))


def test_a_proposed_split_is_called_proposed_everywhere(work, capsys):
    fill(work)
    make(work)
    assert "splits: proposed" in (work / "config" / "tasks" / "mine.yaml").read_text()
    assert load_task_config("mine").is_proposed and load_task("mine").rounds()[0].name == "test"
    assert run(["verify", "mine"]) == cli.DONE and run(["tasks"]) == cli.DONE
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("mine ")]
    assert "proposed" in line and "published" not in line
    assert "their split is proposed, not published" in said and "as published" not in said


# ---------------------------------------------------------------- tables


def table(work, text, encoding="utf-8"):
    (work / "t.csv").write_bytes(text.encode(encoding))
    return work / "t.csv"


def rows(template, n=10):
    lines = []
    for number, label in enumerate(("low", "high")):
        for take in range(n):
            lines.append(
                template.format(p=f"{label}/{take}.wav", l=label, s=("train", "train", "test")[take % 3], n=number)
            )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\n" + rows("{p},{l}"), "utf-16"),
        ("path,label\n" + rows("{p},{l}"), "utf-16-le"),
        ("Path\tLABEL\n" + rows("{p}\t{l}"), "utf-8-sig"),
        ("\n filename ; class ;\n" + rows(" {p} ; {l}\u00a0;"), "utf-8"),
        ("path|label\n" + rows(".\\\\{p}|{l}").replace("/", "\\").replace(".\\\\", ""), "utf-8"),
        ("path,label\n" + rows("sounds/{p},\"['{l}']\""), "utf-8"),
    ],
)
def test_one_table_saved_in_many_ways_is_one_task(work, text, encoding):
    fill(work)
    made = make(work, table(work, text, encoding))
    assert made.task.config.classes == ("high", "low")
    assert set(made.task.index["path"]) == {f"{label}/{n}.wav" for label in ("low", "high") for n in range(10)}


def test_composed_and_taken_apart_letters_are_one(work):
    fill(work, ("low", "high"))
    os.rename(work / "sounds" / "low", work / "sounds" / "le\u0301ger")  # as macOS writes it
    text = rows("{p},{l}").replace("low", "l\u00e9ger")
    made = make(
        work, table(work, "path,label\n" + text + "le\u0301ger/0.wav,le\u0301ger\n".replace("0.wav", "1.wav") * 0)
    )
    assert made.task.config.classes == ("high", "l\u00e9ger") and not made.task.missing()


def test_missing_and_hidden_labels_are_no_classes(work):
    fill(work)
    text = "path,label\n" + rows("{p},{n}").replace("low/3.wav,0", "low/3.wav,-1").replace(
        "low/4.wav,0", "low/4.wav,NaN"
    )
    made = make(work, table(work, text))
    assert made.task.config.classes == ("0", "1") and len(made.task) == 18
    assert set(pd.read_csv(made.left_out_csv)["path"]) == {"low/3.wav", "low/4.wav"}
    hidden = "path,label,split\n" + rows("{p},{l},{s}").replace("low,test", "?,test").replace("high,test", "?,test")
    with pytest.raises(ValueError, match="none of the 6 clips of split test has a label"):
        make(work, table(work, hidden))


def test_what_can_be_read_in_two_ways_is_refused(work):
    fill(work)
    for text, said in (
        ("path,label,split\n" + rows("{p},{l},{s}").replace("train", "dev"), "which may mean train here"),
        ("path,label,split\n" + rows("{p},{l},{s}").replace("test", "holdout"), "got 'holdout'"),
        ("path,label\n" + rows("{p},\"['{l}', 'x']\""), "--kind=multilabel"),
        ("path,label,start,end\n" + rows("{p},{l},0,1"), "--kind=events"),
    ):
        with pytest.raises(ValueError, match=said):
            make(work, table(work, text))
    with pytest.raises(ValueError, match="between thousands"):
        make(work, table(work, "path;label\n" + rows("{p};1,500")), kind="regression")


def test_events_with_a_row_for_each(work):
    fill(work)
    text = "path,onset,offset,event_label\n" + rows("{p},0.1,0.2,beep\n{p},0.3,0.4,{l}")
    made = make(work, table(work, text), kind="events")
    assert len(made.task) == 20 and made.task.config.classes == ("beep", "high", "low")
    assert made.task.index["label"].iloc[0] == "0.1-0.2 beep;0.3-0.4 low"


def test_many_combinations_and_few_groups(work):
    fill(work, n=15)
    lines = [f"{label}/{n}.wav,0.1-0.2 e{n};0.2-0.3 {label}{n % 4}" for label in ("low", "high") for n in range(15)]
    assert len(make(work, table(work, "path,label\n" + "\n".join(lines)), kind="events").task) == 30
    groups = "path,label,group\n" + "".join(
        f"{la}/{n}.wav,{la},g{n % 3}\n" for la in ("low", "high") for n in range(15)
    )
    with pytest.raises(ValueError, match="got 3; say --folds=3"):
        make(work, table(work, groups))
    assert len(make(work, table(work, groups), n_folds=3).task.rounds()) == 3


def test_unusual_names_are_no_danger(work):
    fill(work)
    for name in ("Robin 06:12:05.wav", "a\\b.wav", "semi;colon.wav", "-dash.wav"):
        write(work / "sounds" / "low" / name, len(name) + 40)
    assert len(make(work).task) == 24
    with pytest.raises(ValueError, match="must stay below"):
        make(work, table(work, "path,label\nlow/../../x.wav,a\n"))


# ---------------------------------------------------------------- what encoders hear


def test_labels_and_sounds_that_spoil_a_comparison_are_told(work):
    fill(work, ("low", "high", "only"), n=9)
    text = "path,label,split\n" + rows("{p},{l},{s}", 9) + "".join(f"only/{n}.wav,only,test\n" for n in range(9))
    noise = np.random.default_rng(0).standard_normal(22050 * 2).astype(np.float32) * 0.1
    folder = work / "sounds" / "low"
    soundfile.write(folder / "0.wav", np.stack([noise, -noise], axis=1), 22050)
    soundfile.write(folder / "1.wav", noise * 32768, 22050, subtype="FLOAT")
    soundfile.write(folder / "2.wav", noise + 0.2, 22050)
    import soxr

    soundfile.write(folder / "3.wav", soxr.resample(noise[:11025], 8000, 44100), 44100)
    made = make(work, table(work, text))
    (problem,) = list_label_problems(made.task)
    assert "9 of 15 test clips are of classes without training clips (only)" in problem and made.problems == (problem,)
    found = "\n".join(audit(made.task).findings)
    for said in (
        "channels cancel: low/0.wav",
        "low/1.wav (peak ",
        "offset (DC) above 0.02",
        "low/3.wav (44100 Hz, nothing",
    ):
        assert said in found
    assert any("full scale" in text for text in sample_sound_problems(made.task, 40))
