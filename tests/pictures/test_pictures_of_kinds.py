"""Pictures of what is not usual: names that look like mathematics, many classes, several labels, numbers, parts of files."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from test_report import row
from toy import RATE, tone

from evar import cli, report, results
from evar.cli import run
from evar.figures.grids import measure_text
from evar.figures.style import make_figure, save_figure
from evar.pictures.classes import NONE, SEVERAL, find_classes, pick_class_style
from evar.pictures.clip import Vector
from evar.pictures.loading import read_sound
from evar.pictures.map import MapData, Panel, draw_map
from evar.report.plots.confusion import plot_confusion
from evar.report.plots.predictions import plot_predictions

STRANGE = ["cost $5 or $6", "$\\frac{$", "a_b^c", "\\alpha", "bell\x07", "50 % {x}"]


def save_predictions(out: Path, one: results.Result, true: np.ndarray, predicted: np.ndarray) -> None:
    names = [f"{index}.wav" for index in range(len(true))]
    results.save_predictions(
        out, one.id, clip=names, round=np.zeros(len(true), int), group=names, y_true=true, y_pred=predicted
    )


def test_names_are_never_mathematics(tmp_path: Path) -> None:
    """A name with two dollar signs shows as it is, in a matrix, on a map, in titles and on axes."""
    true = np.arange(24) % 6
    one = row("$x$", "t", 0.5, id="row", n_test=24)
    save_predictions(tmp_path, one, true, (true + (np.arange(24) % 3 == 0)) % 6)
    paths, _ = plot_confusion(one, tmp_path, STRANGE, tmp_path / "confusion")
    assert all(path.stat().st_size > 5000 for path in paths[:2])
    points = np.random.default_rng(0).normal(size=(24, 2))
    panel = Panel("$y$", "$z$", False, np.arange(24), points, 0.1, 0.2)
    data = MapData("$t$ok", "tsne", tuple(STRANGE), true, tuple(map(str, range(24))), 3, (panel,))
    svg = save_figure(draw_map(data), tmp_path / "map")[1].read_text()
    assert "cost $5 or $6" in svg and "frac" in svg
    results.save_predictions(tmp_path, "x", clip=["a"], round=[0], group=["a"], y_true=[0], y_pred=[0])
    results.save(row("a$b$c", "t$u$", 0.5, ["l$1$"], id="x", layer_index=0, n_layers=2), tmp_path)
    results.save(row("a$b$c", "t$u$", 0.6, ["$m$_{"], id="y", layer_index=1, n_layers=2), tmp_path)
    names = {path.name for path in report.write_tables_and_plots(tmp_path)}
    assert {"layers.png", "layers_by_name.png", "heatmap.png"} <= names


def test_ticks_that_are_made_while_drawing_are_plain_too() -> None:
    figure = make_figure(3, 2, title="$a$")
    ax = figure.add_subplot()
    ax.plot([0, 1], [0, 1])
    ax.set_xticks([0, 0.5, 1], ["$1$", "$_$", "$\\bad{$"])
    figure.draw_without_rendering()
    assert [text.get_text() for text in ax.get_xticklabels()] == ["$1$", "$_$", "$\\bad{$"]
    assert measure_text("$\\frac{$", 8) > measure_text("$", 8) > 0


def test_confusion_fills_its_canvas_and_lists_every_clip(tmp_path: Path) -> None:
    true, names = np.arange(100) % 10, [f"class {n}" for n in range(10)]
    predicted = np.where(np.arange(100) < 30, (true + 1) % 10, true)
    predicted[99] = -1
    one = row("a", "t", 0.5, id="row", n_test=100)
    save_predictions(tmp_path, one, true, predicted)
    paths, scores = plot_confusion(one, tmp_path, names, tmp_path / "c")
    assert [path.name for path in paths] == ["c.png", "c.svg", "c.csv", "c_clips.csv"] and len(scores) == 10
    with open(tmp_path / "c_clips.csv", newline="") as file:
        clips = list(csv.DictReader(file))
    assert len(clips) == 100 and [one["is_right"] for one in clips] == ["false"] * 31 + ["true"] * 69
    assert {one["taken_for"] for one in clips if one["clip"] == "99.wav"} == {"(unreadable)"}
    assert clips[0]["class"] == "class 0" and clips[0]["taken_for"] == "class 1"
    from matplotlib.image import imread

    picture = imread(tmp_path / "c.png")[..., :3]
    assert (picture.min(axis=2) < 0.9).mean() > 0.45  # most of the canvas is matrix


def test_twenty_classes_have_twenty_colours() -> None:
    for n_classes in (8, 9, 20):
        assert len({pick_class_style(label, n_classes)[0] for label in range(n_classes)}) == n_classes
    assert len({pick_class_style(label, 60) for label in range(60)}) == 60


def make_task(kind: str, y: np.ndarray, classes: tuple[str, ...] = ()) -> SimpleNamespace:
    return SimpleNamespace(name="t", y=y, config=SimpleNamespace(kind=kind, classes=classes, unit="dB"))


def test_what_colours_a_map_of_several_labels_or_numbers() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    classes, y, notes = find_classes(make_task("multilabel", labels, ("dog", "cat")))
    assert classes == ("dog", "cat", SEVERAL, NONE) and y.tolist() == [0, 1, 2, 3] and "50 %" in notes[0]
    classes, y, notes = find_classes(make_task("regression", np.arange(100.0)))
    assert len(classes) == 5 and np.bincount(y).tolist() == [20] * 5 and "fifths" in notes[0]
    assert classes[0] == "0 to 19.8 dB"
    with pytest.raises(ValueError, match="but t is events"):
        find_classes(make_task("events", np.zeros(3)))


def test_predictions_of_numbers_and_of_several_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=20)
    number = row("a", "t", 0.5, id="number", metric="pearson", interval=None, n_test=20)
    save_predictions(tmp_path, number, values, values + 0.1)
    paths = plot_predictions(number, tmp_path, (), tmp_path / "n")
    assert [path.name for path in paths] == ["n.png", "n.svg", "n.csv"]
    assert len((tmp_path / "n.csv").read_text().splitlines()) == 21
    several = row("a", "t", 0.5, id="several", metric="mean_average_precision", interval=None, n_test=20)
    labels = np.stack([np.arange(20) % 2, np.arange(20) % 3 == 0], axis=1).astype(int)
    save_predictions(tmp_path, several, labels, np.stack([labels[:, 0] * 1.0, rng.random(20)], axis=1))
    plot_predictions(several, tmp_path, ("dog", "=cat"), tmp_path / "s")
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[1] == "dog,10,1.0,0.5" and lines[2].startswith("'=cat,7,")
    with pytest.raises(ValueError, match="evar plot predictions"):
        plot_confusion(number, tmp_path, ("dog",), tmp_path / "c")
    single = row("a", "t", 0.5, id="single", n_test=2)
    save_predictions(tmp_path, single, np.array([0, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="evar plot confusion"):
        plot_predictions(single, tmp_path, ("dog", "cat"), tmp_path / "p")


def test_a_part_in_the_middle_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, tone(0, 0, 4.0), RATE, subtype="FLOAT")
    part = read_sound(path, 1.0, 2.5)
    assert np.array_equal(part.waveform, soundfile.read(path, dtype="float32")[0][20000:28000])
    assert part.title == f"long.wav (2.5 to 3.5 of 4 s, {RATE} Hz)"
    assert read_sound(path, 9.0, 2.5).seconds == 1.5


def test_plot_clip_begins_where_it_is_told_to(tones, tmp_path: Path) -> None:
    root = tones()
    sound = next((root / "data" / "tones").glob("*.wav"))
    words = ["plot", "clip", str(sound), "--encoders=toy", "--start=0.25", f"--out={tmp_path / 'r'}"]
    assert run(words) == cli.DONE and (tmp_path / "r" / f"clip_{sound.stem}.png").is_file()


def test_a_strip_far_from_zero_shows_its_differences() -> None:
    rng = np.random.default_rng(0)
    levels = np.concatenate([-8 + 0.5 * rng.random(64), 2 + 0.3 * rng.random(64)]).astype(np.float32)
    shown, is_standardised = Vector("logmel", "logmel", levels, 2).standardise()
    assert is_standardised and abs(np.median(shown[:64])) < 1e-6 and abs(np.median(shown[64:])) < 1e-6
    for part in (slice(0, 64), slice(64, 128)):
        assert np.corrcoef(shown[part], levels[part])[0, 1] > 0.999 and 0.8 < np.abs(shown[part]).max() < 1.5
    around = rng.normal(size=64).astype(np.float32)
    assert Vector("a", "a", around).standardise()[1] is False
    assert Vector("a", "a", np.abs(around)).standardise()[1] is False
