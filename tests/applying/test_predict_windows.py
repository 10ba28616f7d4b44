"""Recordings in windows: times, labels for Audacity, the same numbers as clips cut by hand, bad recordings by name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy import RATE, tone

import evar
from evar import cli
from evar.cli import run


@pytest.fixture
def recording(tones) -> tuple[Path, Path]:
    """A classifier of tones, and a folder with a recording: 3 s low, then 3 s high, in samples that noise makes unequal."""
    root = tones()
    evar.train_classifier("tones", "toy", root / "tones.safetensors")
    (root / "field").mkdir()
    sound = np.concatenate([tone(0, 31, 3.0), tone(2, 32, 3.0)])
    soundfile.write(root / "field" / "day.wav", sound, RATE, subtype="FLOAT")
    return root, root / "field" / "day.wav"


def test_windows_have_times_and_the_numbers_of_clips(recording):
    root, path = recording
    classifier = evar.load_classifier(root / "tones.safetensors")
    table = classifier.predict([path], window=1.0, hop=0.5)
    assert table["start"].tolist() == [0.5 * number for number in range(11)]
    assert (table["end"] - table["start"]).tolist() == [1.0] * 11
    assert table["predicted"].tolist()[:5] == ["low"] * 5 and table["predicted"].tolist()[6:] == ["high"] * 5
    sound, _ = soundfile.read(path, dtype="float32")
    parts = [sound[int(RATE * start) : int(RATE * (start + 1))] for start in table["start"]]
    by_hand = classifier.predict(parts)
    assert np.abs(table[["p_low", "p_high"]].to_numpy() - by_hand[["p_low", "p_high"]].to_numpy()).max() < 1e-5
    assert classifier.predict(sound, window=1.0, hop=0.5)["predicted"].tolist() == table["predicted"].tolist()


def test_labels_of_neighbours_are_joined_and_bad_recordings_are_named(recording, capsys):
    root, path = recording
    (path.parent / "broken.wav").write_bytes(b"no sound")
    words = [str(root / "tones.safetensors"), str(path.parent), "--window=1", "-o", str(root / "t.csv")]
    assert run(["predict", *words, f"--labels={root / 'day.txt'}", "--min_probability=0.6"]) == cli.SOME_FAILED
    with open(root / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == ["broken.wav", *["day.wav"] * 6]
    assert rows[0]["start"] == rows[0]["predicted"] == "" and rows[0]["problem"]
    labels = [line.split("\t") for line in (root / "day.txt").read_text().splitlines()]
    assert [(start, end, label.split()[0]) for start, end, label in labels] == [
        ("0.000000", "3.000000", "low"), ("3.000000", "6.000000", "high"),
    ]  # fmt: skip
    assert "6 of 7 windows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--hop=1"], "--window=SECONDS is missing"),
        (["--window=0"], "above 0"),
        (["--labels=x.txt"], "say how long these are"),
        (["--window=1", "--labels=x.csv"], "ends in .txt"),
        (["--window=1", "--min_probability=0.5"], "give both"),
    ],
)
def test_what_makes_no_sense_is_refused(recording, capsys, words, reason):
    root, path = recording
    assert run(["predict", str(root / "tones.safetensors"), str(path), *words]) == cli.WRONG
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_windows_of_a_recording_are_searched(recording, ending):
    root, path = recording
    features = root / f"windows.{ending}"
    assert run(["embed", "toy", str(path), "--window=1", "-o", str(features)]) == cli.DONE
    found = evar.search(features, "day.wav#t=1", k=5)
    assert sorted(found["start"][:2]) == [0.0, 2.0] and sorted(found["start"][2:]) == [3.0, 4.0, 5.0]
    assert evar.search(features, tone(2, 77), k=3)["start"].min() == 3.0
    (root / "other.wav").write_bytes(path.read_bytes())  # not in the file of vectors
    parts = [evar.search(features, f"{root / 'other.wav'}#t={part}", k=3)["start"] for part in ("0.2,1.2", "4.7,5.7")]
    assert parts[0].max() == 2.0 and parts[1].min() == 3.0


def test_parts_that_a_table_names_are_predicted_as_clips(recording, capsys):
    root, path = recording
    (root / "parts.csv").write_text(f"path,start,end,who\n{path},3.5,4.5,b\n{path},0.5,1.5,a\n{path},90,91,c\n")
    words = [str(root / "tones.safetensors"), str(root / "parts.csv")]
    assert run(["predict", *words, "-o", str(root / "t.csv")]) == cli.SOME_FAILED
    with open(root / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["high", "low", ""] and [row["who"] for row in rows] == ["b", "a", "c"]
    assert "not inside the file" in rows[2]["problem"] and float(rows[0]["start"]) == 3.5
    assert run(["predict", *words, "--window=1"]) == cli.WRONG
    assert "leave --window out" in capsys.readouterr().err
