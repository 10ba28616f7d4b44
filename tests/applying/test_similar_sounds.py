"""`evar search`: planted neighbours are found exactly, examples are joined by the stated rule, files are read in blocks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from toy import RATE, Bands, Reader, tone

import evar
from evar import cli
from evar.applying import feature_table
from evar.applying.feature_table import FeatureTable
from evar.applying.ranking import join_examples, rank_rows
from evar.cli import run

RNG = np.random.default_rng(5)


def plant(path: Path, n_rows: int = 300, width: int = 8, **columns) -> np.ndarray:
    """A file as `evar embed` writes it, of random vectors; returns them."""
    vectors = RNG.normal(size=(n_rows, width)).astype(np.float32)
    meta = {"features": {"fc": width}, "rows": "clips", "columns": [], "encoder": "toy", "weights": "random"}
    paths = np.array([f"clips/{number}.wav" for number in range(n_rows)])
    np.savez(path, path=paths, seconds=np.ones(n_rows), fc=vectors, meta=np.array(json.dumps(meta)), **columns)
    return vectors


def compute_cosines(vectors: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return vectors @ direction / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(direction))


@pytest.mark.parametrize("index", ["exact", "faiss"])
def test_the_nearest_rows_are_those_of_all_cosines(tmp_path, monkeypatch, index):
    if index == "faiss":
        pytest.importorskip("faiss")
    monkeypatch.setattr(feature_table, "_BLOCK_BYTES", 4 * 8 * 37)  # blocks that do not divide the rows
    vectors = plant(tmp_path / "f.npz")
    vectors[:, :] = FeatureTable(tmp_path / "f.npz").read_vectors(range(300))
    found = evar.search(tmp_path / "f.npz", "7.wav", k=12, index=index)
    cosines = compute_cosines(vectors.astype(np.float64), vectors[7].astype(np.float64))
    order = np.argsort(-cosines)[1:13]
    assert found["path"].tolist() == [f"clips/{row}.wav" for row in order]
    assert np.allclose(found["similarity"], cosines[order]) and found["rank"].tolist() == list(range(1, 13))


def test_several_examples_are_joined_by_the_stated_rule(tmp_path):
    vectors = plant(tmp_path / "f.npz").astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    direction = (unit[3] + unit[4]) / 2 - 0.8 * unit[5]
    found = evar.search(tmp_path / "f.npz", like=["3.wav", "4.wav"], unlike=["clips/5.wav"], unlike_weight=0.8, k=300)
    order = [row for row in np.argsort(-compute_cosines(vectors, direction)) if row not in (3, 4, 5)]
    assert found["path"].tolist() == [f"clips/{row}.wav" for row in order]
    with pytest.raises(ValueError, match="no direction in common"):
        join_examples(np.ones((1, 4), np.float32), np.ones((1, 4), np.float32), 1.0)


def test_equal_rows_come_in_their_order_and_zeros_have_no_direction(tmp_path):
    vectors = plant(tmp_path / "f.npz", 6)
    vectors[:] = [[1, 0] + [0] * 6, [0] * 8, [2, 0] + [0] * 6, [-1, 0] + [0] * 6, [0, 1] + [0] * 6, [3, 0] + [0] * 6]
    with np.load(tmp_path / "f.npz") as arrays:
        np.savez(tmp_path / "f.npz", **{**arrays, "fc": vectors})
    found = rank_rows(FeatureTable(tmp_path / "f.npz"), np.eye(8)[0], 6)
    assert [row for row, _ in found] == [0, 2, 5, 1, 4, 3] and [value for _, value in found] == [1, 1, 1, 0, 0, -1]


def test_windows_are_named_and_shown_with_their_times(tmp_path, capsys):
    start = np.arange(6) * 1.5
    plant(tmp_path / "f.npz", 6, start=start, end=start + 3.0)
    with np.load(tmp_path / "f.npz") as arrays:
        np.savez(tmp_path / "f.npz", **{**arrays, "path": np.array(["day.wav"] * 6)})
    features = str(tmp_path / "f.npz")
    assert run(["search", "day.wav#t=3", features, "-k", "2", "-o", str(tmp_path / "found.csv")]) == cli.DONE
    found = pd.read_csv(tmp_path / "found.csv")
    assert len(found) == 2 and 3.0 not in found["start"].tolist() and (found["end"] - found["start"] == 3.0).all()
    assert "start" in capsys.readouterr().out
    assert run(["search", "day.wav", features]) == cli.WRONG
    assert "6 rows of the name" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["npz", "parquet", "h5"])
def test_a_sound_is_encoded_as_the_file_says_and_a_row_is_not(tones, ending):
    root = tones()
    sounds, features = root / "data" / "tones", root / f"features.{ending}"
    assert run(["embed", "toy", str(sounds), "-o", str(features), "--pooling=mean_std"]) == cli.DONE
    soundfile.write(root / "new.wav", tone(1, 777), RATE)
    found = evar.search(features, root / "new.wav", k=12)
    assert found["path"].map(lambda path: Path(path).name.startswith("middle")).all()
    Bands.calls.clear()
    (row,) = evar.search(features, "middle_0.wav", k=1).itertuples()
    assert (
        row.similarity > 0.9 and "middle" in row.path and row.path != str(sounds / "middle_0.wav") and not Bands.calls
    )
    array = evar.search(features, tone(2, 778), unlike=[tone(0, 779)], k=3)
    assert array["path"].map(lambda path: Path(path).name.startswith("high")).all()


def test_a_sentence_finds_sounds_in_the_joint_layer_only(tones, monkeypatch):
    monkeypatch.setattr("toy.Bands", Reader)  # the encoder toy reads text
    root = tones()
    for layers in ("bands", "level"):
        words = [str(root / "data" / "tones"), "-o", str(root / f"{layers}.npz"), f"--layers={layers}"]
        assert run(["embed", "toy", *words]) == cli.DONE
    found = evar.search(root / "bands.npz", text="a high tone", k=12)
    assert found["path"].map(lambda path: Path(path).name.startswith("high")).all()
    with pytest.raises(ValueError, match=r"embed the sounds with --layers=bands"):
        evar.search(root / "level.npz", text="a high tone")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["f.npz"], "expected a query, --like or --text"),
        (["nothing.wav", "f.npz"], "neither a row of f.npz nor a sound file"),
        (["1.wav", "f.npz", "--layer=conv"], "no feature 'conv'"),
        (["1.wav", "f.npz", "-k", "0"], "k must be at least 1"),
        (["1.wav", "f.npz", "-o", "found.txt"], "found.csv"),
        (["1.wav", "2.wav", "f.npz"], "a query and a file of vectors"),
        (["1.wav", "missing.npz"], "evar embed ENCODER SOUNDS"),
    ],
)
def test_requests_that_make_no_sense_say_what_to_do(tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "f.npz", 4)
    assert run(["search", *words]) == cli.WRONG
    assert reason in capsys.readouterr().err


def test_vectors_of_other_weights_are_refused(tones):
    root = tones()
    features = root / "features.npz"
    assert run(["embed", "toy", str(root / "data" / "tones"), "-o", str(features)]) == cli.DONE
    with np.load(features) as arrays:
        meta = json.loads(arrays["meta"].item()) | {"weights_sha256": "0" * 64}
        np.savez(features, **{**arrays, "meta": np.array(json.dumps(meta))})
    soundfile.write(root / "new.wav", tone(1, 777), RATE)
    with pytest.raises(ValueError, match=r"embed the sounds again: evar embed toy"):
        evar.search(features, root / "new.wav")
