"""`evar task new` on annotations: Raven, Audacity, CSV and JSON Lines give the same clips, or a clear error."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from toy import RATE, tone

from evar import cli
from evar.cli import run
from evar.data.new_task import TaskOptions, new_task
from evar.data.task import load_task

LABELS = ("low", "high")


@pytest.fixture
def field(tmp_path, monkeypatch):
    """Ten recordings of eight tones, half a second each."""
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("EVAR_DATA", raising=False)
    (tmp_path / "field").mkdir()
    (tmp_path / "notes").mkdir()
    for number in range(10):
        waves = [tone(2 * (at % 2), 8 * number + at) for at in range(8)]
        soundfile.write(tmp_path / "field" / f"rec{number}.flac", np.concatenate(waves), RATE)
    return tmp_path


ROWS = [(f"rec{number}.flac", at / 2, at / 2 + 0.5, LABELS[at % 2]) for number in range(10) for at in range(8)]


def make(field, table, **more):
    return new_task("mine", field / "field", field / table, TaskOptions(**more), to=field / "config", replace=True)


def write_raven(field, view_rows=2):
    head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tKind of call"
    for number in range(10):
        lines = [head]
        for selection, (_, start, end, label) in enumerate([row for row in ROWS if row[0] == f"rec{number}.flac"], 1):
            for view in ("Waveform 1", "Spectrogram 1")[:view_rows]:
                lines.append(f"{selection}\t{view}\t1\t{start:.3f}\t{end:.3f}\t100\t3000\t{label}")
        (field / "notes" / f"rec{number}.Table.1.selections.txt").write_text("\n".join(lines) + "\n")


def write_audacity(field):
    for number in range(10):
        own = [row for row in ROWS if row[0] == f"rec{number}.flac"]
        text = "".join(
            f"{start:.6f}\t{end:.6f}\t{label}\n\\\t100.000000\t3000.000000\n" for _, start, end, label in own
        )
        (field / "notes" / f"rec{number}.txt").write_text(text + "3.900000\t3.900000\tpoint\n")


def write_csv(field):
    pd.DataFrame(ROWS, columns=["path", "start", "end", "label"]).to_csv(field / "notes" / "all.csv", index=False)


def write_json_lines(field):
    lines = [json.dumps({"audio_filepath": p, "offset": s, "duration": e - s, "label": c}) for p, s, e, c in ROWS]
    (field / "notes" / "all.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("write, table", [
    (write_raven, "notes"), (write_audacity, "notes"), (write_csv, "notes/all.csv"), (write_json_lines, "notes/all.jsonl"),
])  # fmt: skip
def test_every_format_gives_the_same_clips(field, write, table):
    write(field)
    made = make(field, table)
    assert sorted(made.task.index["path"]) == sorted(f"{p}#t={s:g},{e:g}" for p, s, e, _ in ROWS)
    assert made.task.config.classes == ("high", "low") and len(set(made.task.groups)) == 10
    assert (made.task.index.groupby("group")["split"].nunique() == 1).all(), "no recording is in two splits"
    index = pd.read_csv(made.csv)
    assert list(index.columns)[:3] == ["path", "start", "end"] and index["end"].max() == 4.0
    assert load_task("mine").index_sha256 == made.task.index_sha256
    notes = " ".join(made.notes)
    assert ("80 rows repeat a selection in another view" in notes) == (write is write_raven)
    assert ("10 labels mark a point" in notes) == (write is write_audacity)


def test_the_command_makes_a_task_that_runs(field, capsys):
    write_raven(field)
    words = [
        "task",
        "new",
        "calls",
        f"--folder={field / 'field'}",
        f"--annotations={field / 'notes'}",
        "--label=Kind of call",
        f"--to={field / 'config'}",
    ]
    assert run(words) == cli.DONE
    said = capsys.readouterr().out
    assert "calls: 80 clips, 2 classes, 10 groups" in said and "no groups are known" not in said
    assert run(["verify", "calls"]) == cli.DONE


def test_several_labels_of_one_part_are_joined_or_refused(field):
    rows = [*ROWS, *[(p, s, e, "loud") for p, s, e, _ in ROWS[::3]]]
    pd.DataFrame(rows, columns=["path", "start", "end", "label"]).to_csv(field / "t.csv", index=False)
    with pytest.raises(
        ValueError, match=r"27 parts of files have several labels, first rec0.flac#t=0,0.5 \(low, loud\).*multilabel"
    ):
        make(field, "t.csv")
    made = make(field, "t.csv", kind="multilabel")
    assert len(made.task) == 80 and made.task.config.classes == ("high", "loud", "low")
    assert made.task.y.sum() == 107


def test_annotations_are_the_events_of_whole_files_on_request(field):
    write_audacity(field)
    made = make(field, "notes", kind="events")
    assert len(made.task) == 10 and made.task.index["path"][0] == "rec0.flac" and len(made.task.y[0]) == 8


def test_wrong_times_and_missing_sounds_are_named(field):
    for row, what in (
        ("rec3.flac,2,1.5,low", "1 of 81 segments are wrong, first rec3.flac from 2 to 1.5 s ends before it begins"),
        ("rec3.flac,3,4.5,low", "first rec3.flac from 3 to 4.5 s is not inside the sound, which lasts 4.00 s"),
        ("rec3.flac,1:30,1:40,low", "start and end must be seconds from 0 on, got '1:30'"),
    ):
        write_csv(field)
        with (field / "notes" / "all.csv").open("a") as file:
            file.write(row + "\n")
        with pytest.raises(ValueError, match=what):
            make(field, "notes/all.csv")
    (field / "notes" / "all.csv").unlink()
    write_raven(field)
    (field / "notes" / "rec3.Table.1.selections.txt").rename(field / "notes" / "rex3.Table.1.selections.txt")
    with pytest.raises(
        ValueError, match="rex3.Table.1.selections.txt has no sound below .*expected rex3.wav.*did you mean 'rec3'"
    ):
        make(field, "notes")


def test_which_column_of_a_raven_table_is_the_class_must_be_clear(field):
    head = "Selection\tBegin Time (s)\tEnd Time (s)\tquality\tobserver\n"
    (field / "notes" / "rec0.txt").write_text(head + "1\t0,5\t1\tgood\tann\n")
    with pytest.raises(
        ValueError, match="which column is the class\\? it may be quality, observer; say --label=COLUMN"
    ):
        make(field, "notes")
    with pytest.raises(ValueError, match="no column 'observers'; .*did you mean 'observer'"):
        make(field, "notes", label_column="observers")


def test_a_raven_table_of_several_files_needs_their_offsets(field):
    head = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tAnnotation\n"
    lines = [
        f"{n}\t{4 * int(p[3]) + s}\t{4 * int(p[3]) + e}\tC:\\card\\{p}\t{s}\t{c}\n"
        for n, (p, s, e, c) in enumerate(ROWS)
    ]
    (field / "one.txt").write_text(head + "".join(lines))
    assert sorted(make(field, "one.txt").task.index["path"]) == sorted(f"{p}#t={s:g},{e:g}" for p, s, e, _ in ROWS)
    table = pd.read_csv(field / "one.txt", sep="\t").drop(columns="File Offset (s)")
    table.to_csv(field / "one.txt", sep="\t", index=False)
    with pytest.raises(ValueError, match="is of several sounds, and lacks the column File Offset"):
        make(field, "one.txt")


def test_parts_of_one_recording_in_two_given_splits_are_a_warning(field):
    rows = [(p, s, e, c, "test" if s >= 3 else "train") for p, s, e, c in ROWS]
    pd.DataFrame(rows, columns=["path", "start", "end", "label", "split"]).to_csv(field / "t.csv", index=False)
    assert any(
        "10 of 10 recordings have clips in more than one split" in text for text in make(field, "t.csv").problems
    )
