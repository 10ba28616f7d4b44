"""Predictions over windows: what Audacity and a CSV reader get."""

import csv

import pytest

from evar.exporting.window_labels import write_windows

ROWS = [
    ("sounds/a.wav", 0.0, 3.0, "dog", 0.75),
    ("sounds/a.wav", 3.0, 6.0, "dog", 0.875),
    ("sounds/a.wav", 9.0, 12.0, "dog", 0.5),
    ("sounds/a.wav", 1.5, 4.5, "cat\tor\nbird", float("nan")),
    ("sounds/sub/b.flac", 0.0, 3.0, "dog", 0.25),
]


def test_neighbours_of_one_label_are_joined_in_a_file_for_each_sound(tmp_path):
    written = write_windows(tmp_path / "labels", ROWS, probabilities=True)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == ["labels/a.txt", "labels/sub/b.txt"]
    assert written[0].read_text().splitlines() == [
        "0.000000\t6.000000\tdog 0.88",
        "1.500000\t4.500000\tcat or bird",
        "9.000000\t12.000000\tdog 0.50",
    ]
    assert len(write_windows(tmp_path / "two", [("a.wav", 0, 1, "x", 1), ("a.flac", 0, 1, "x", 1)])) == 2
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["a.flac.txt", "a.wav.txt"]


def test_one_label_file_of_several_sounds_names_them_and_a_csv_has_every_window(tmp_path):
    write_windows(tmp_path / "all.txt", ROWS)
    assert "0.000000\t3.000000\tb.flac: dog" in (tmp_path / "all.txt").read_text().splitlines()
    write_windows(tmp_path / "all.csv", ROWS)
    rows = list(csv.DictReader((tmp_path / "all.csv").open(newline="")))
    assert len(rows) == 5 and rows[1] == {
        "path": "sounds/a.wav", "start": "3.000000", "end": "6.000000", "label": "dog", "probability": "0.875",
    }  # fmt: skip
    assert rows[3]["label"] == "cat\tor\nbird" and rows[3]["probability"] == ""


def test_a_window_that_ends_before_it_begins_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="window 1, of a.wav, must begin at 0 or later and not after its end, got 3 to 1 s"
    ):
        write_windows(tmp_path / "x", [("a.wav", 3, 1, "dog", 1.0)])
