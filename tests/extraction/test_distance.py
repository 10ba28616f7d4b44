"""The Fréchet distance: known distances of normal distributions, the extrapolation, and the command on two folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import toy
from scipy.linalg import sqrtm

import evar
from evar import cli
from evar.cli import run
from evar.numeric.frechet import gaussian_frechet_distance, measure_frechet_distance


def planted(width=12, seed=0):
    """Two normal distributions: roots of their covariances, and the second's mean."""
    rng = np.random.default_rng(seed)
    roots = [rng.normal(size=(width, width)) / np.sqrt(width) for _ in range(2)]
    return *roots, 0.3 * rng.normal(size=width)


def test_the_distance_of_two_normal_distributions_is_the_closed_form():
    one, other, mean = planted()
    first, second = one @ one.T, other @ other.T
    expected = mean @ mean + np.trace(first + second - 2 * sqrtm(first @ second).real)
    found = gaussian_frechet_distance(np.zeros(12), first, mean, second)
    assert found == pytest.approx(expected, rel=1e-9)
    assert gaussian_frechet_distance(mean, second, np.zeros(12), first) == pytest.approx(found, rel=1e-9)
    sizes = np.arange(1.0, 13.0)  # of commuting covariances it is the sum of squared differences of deviations
    commuting = gaussian_frechet_distance(np.zeros(12), np.diag(sizes), np.zeros(12), np.diag(4 * sizes))
    assert commuting == pytest.approx(sizes.sum(), rel=1e-12)
    assert gaussian_frechet_distance(mean, first, mean, first) == pytest.approx(0.0, abs=1e-6)
    flat = np.diag(np.where(sizes > 6, sizes, 0.0))  # without full rank
    assert gaussian_frechet_distance(mean, flat, mean, 4 * flat) == pytest.approx(np.trace(flat), rel=1e-9)


def test_the_extrapolation_takes_the_bias_away_and_its_error_is_honest():
    one, other, mean = planted()
    truth = gaussian_frechet_distance(np.zeros(12), one @ one.T, mean, other @ other.T)
    plain, lines = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X, Y = rng.normal(size=(150, 12)) @ one.T, rng.normal(size=(200, 12)) @ other.T + mean
        found = measure_frechet_distance(X, Y, seed=seed)
        plain.append(found.value)
        lines.append((found.extrapolation.value, found.extrapolation.standard_error))
    values, errors = np.array(lines).T
    assert np.mean(plain) - truth > 4 * np.std(plain) / np.sqrt(40)  # finite sets look further apart
    assert abs(values.mean() - truth) < 3 * values.std() / np.sqrt(40)
    assert 0.7 < errors.mean() / values.std() < 1.5
    assert np.mean(np.abs(values - truth) < 2 * errors) >= 0.85


def test_few_vectors_give_the_same_number_by_another_way_and_a_warning():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 60)), rng.normal(size=(40, 60)) + 0.5
    found = measure_frechet_distance(X, Y)
    expected = gaussian_frechet_distance(X.mean(0), np.cov(X.T), Y.mean(0), np.cov(Y.T))
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert "the first set has 30 vectors and the second set has 40 vectors for 60 dimensions" in found.warnings[0]
    same = measure_frechet_distance(X, X)
    assert same.value == pytest.approx(0.0, abs=1e-6)
    assert found.of_means == pytest.approx(np.square(X.mean(0) - Y.mean(0)).sum())
    few = measure_frechet_distance(X[:9], Y)
    assert few.extrapolation is None and "needs 10 files in each set, got 9 and 40" in few.warnings[1]


def test_whole_files_are_drawn():
    """Ten equal vectors a file say no more than one: the error must not shrink."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(100, 3)), rng.normal(size=(100, 3)) + 1
    once = measure_frechet_distance(X, Y)
    files = np.repeat(np.arange(100), 10)
    often = measure_frechet_distance(X[files], Y[files], files, files)
    assert often.n_files == (100, 100) and often.n_vectors == (1000, 1000)
    assert 0.7 < often.extrapolation.standard_error / once.extrapolation.standard_error < 1.4


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros((1, 3)), "at least 2 vectors, got .1, 3."),
        (np.full((5, 3), np.nan), "finite numbers"),
        (np.zeros((5, 2)), "both sets must have one width, got 3 and 2"),
    ],
)
def test_illegal_sets_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        measure_frechet_distance(np.eye(3), bad)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders of tones and one of other tones, and the toy encoders."""
    monkeypatch.setenv("EVAR_CONFIG", str(toy.write_config(tmp_path)))
    monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))
    for name, label in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        for number in range(12):
            wave = toy.tone(label, 1000 * ord(name) + number)
            soundfile.write(tmp_path / name / f"{number}.wav", wave, toy.RATE)
    return tmp_path


def test_folders_of_like_sounds_are_near_and_nothing_is_encoded_twice(folders, capsys):
    near = evar.frechet_distance("toy", folders / "a", folders / "b", layers="all", window="frame")
    before = len(toy.Bands.calls)
    far = evar.frechet_distance("toy", folders / "a", folders / "c", layers=["bands"], window="frame")
    assert far.layers["bands"].value > 20 * near.layers["bands"].value and far.layers["bands"].n_vectors == (120, 120)
    assert sum(toy.Bands.calls[before:]) == 12  # only the new folder
    path, n_calls = folders / "found.json", len(toy.Bands.calls)
    words = [
        str(folders / "a"),
        str(folders / "c"),
        "--encoder=toy",
        "--layers=bands",
        "--window=frame",
        "-o",
        str(path),
    ]
    assert run(["distance", *words]) == cli.DONE and len(toy.Bands.calls) == n_calls
    kept, text = json.loads(path.read_text()), capsys.readouterr().out
    assert kept == json.loads(json.dumps(far.to_plain())) and f"{far.layers['bands'].value:.4g}" in text
    assert kept["window"] == "frame" and len(kept["layers"]["bands"]["points"]) == 19
    (folders / "c" / "bad.wav").write_bytes(b"RIFF nothing")
    assert run(["distance", *words[:2], "--encoder=toy", "--layers=all"]) == cli.SOME_FAILED
    told = capsys.readouterr().out
    assert "bad.wav" in told and "distance: has no interval" in told
    assert "WARNING: bands: the first set has 12 vectors" in told
    n_calls = len(toy.Bands.calls)
    means = evar.frechet_distance("toy", folders / "a", folders / "b", window=0.1)
    assert means.layers["bands"].n_vectors == (60, 60)
    assert sum(toy.Bands.calls[n_calls:]) == 24  # once more for another window, and not again for the same
    evar.frechet_distance("toy", folders / "a", folders / "b", window=0.1)
    assert sum(toy.Bands.calls[n_calls:]) == 24


def write_levels(folder, levels):
    """Write a file for each (mean, deviation): samples that jump between mean - deviation and mean + deviation."""
    folder.mkdir()
    for number, (mean, deviation) in enumerate(levels):
        wave = mean + deviation * np.tile([1.0, -1.0], toy.HOP)  # two frames
        soundfile.write(folder / f"{number:02}.wav", wave, toy.RATE)
    return folder


def test_folders_of_known_levels_have_the_closed_form_distance(tmp_path, monkeypatch):
    """The vector of a file is its written (mean, deviation), so that means and covariances of folders are known."""
    config = toy.write_config(tmp_path, n_per_class=1)
    entry = {"implementation": "toy:Moments", "description": "x", "trained_on": "nothing", "citation": "none"}
    (config / "encoders" / "toy_moments.yaml").write_text(json.dumps(entry))
    monkeypatch.setenv("EVAR_CONFIG", str(config))
    monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))
    # Four corners of a square, three times: variances 12 / 11 / 16 ** 2, no covariance; 1 / 16 is exact in every format.
    square = np.array([[1, 1], [1, 3], [3, 1], [3, 3]] * 3) / 16
    slanted = np.array([[1, 1], [2, 3], [4, 3], [5, 6]] * 3) / 16
    first = write_levels(tmp_path / "first", square)
    for name, levels, expected in (
        ("same", square[::-1], 0.0),
        ("shifted", square + np.array([3, 1]) / 16, 10 / 256),  # 3 ** 2 + 1 ** 2: the means alone
        ("wider", 2 * square + np.array([-2, 1]) / 16, (9 + 2 * 12 / 11) / 256),  # deviations twice as large
    ):
        found = evar.frechet_distance("toy_moments", first, write_levels(tmp_path / name, levels)).layers["moments"]
        assert found.value == pytest.approx(expected, abs=1e-7) and found.n_vectors == (12, 12)
    one, other = np.cov(square.T), np.cov(slanted.T)
    product = one @ other  # the trace of the root of a 2 x 2 matrix has a closed form
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.square(square.mean(0) - slanted.mean(0)).sum() + np.trace(one + other) - 2 * root
    second = write_levels(tmp_path / "slanted", slanted)
    found = evar.frechet_distance("toy_moments", first, second).layers["moments"]
    assert found.value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--encoder=toy", "--window=minute"], "window must be clip, frame or seconds"),
        ([], "needs --encoder=NAME"),
        (["--encoder=toy", "-o", "x.csv"], "must end in .json"),
        (["--encoder=toy", "--layers=conv9"], "no layer 'conv9'"),
    ],
)
def test_illegal_requests_are_refused(folders, capsys, words, message):
    assert run(["distance", str(folders / "a"), str(folders / "b"), *words]) == cli.WRONG
    assert message in capsys.readouterr().err
    assert run(["distance", str(folders / "a"), str(folders / "nothing"), "--encoder=toy"]) == cli.WRONG
    assert "expected a folder of sounds" in capsys.readouterr().err
