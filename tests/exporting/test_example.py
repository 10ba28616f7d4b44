"""The example: a classifier from a folder of sounds, its honest score, and its predictions from a file without pickle."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from toy import RATE, tone

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "classify_folder.py"
LABELS = ("low", "middle", "high")
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the examples are not part of an installed package")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("classify_folder", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["classify_folder"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder of tones with one sub-folder a class, 8 clips each."""
    for label, name in enumerate(LABELS):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(8):
            wave = tone(label, 100 * label + number, 0.3 + 0.05 * number)
            soundfile.write(tmp_path / "sounds" / name / f"{number}.wav", wave, RATE)
    return tmp_path / "sounds"


def call(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)


def test_train_and_predict_as_a_user_would(sounds, tmp_path):
    trained = call("train", str(sounds), "--encoder=logmel", f"--out={tmp_path / 'mine.npz'}")
    assert trained.returncode == 0, trained.stderr
    assert "held out: 6 of 6 right, accuracy 100.0 % (95 % interval 61.0 to 100.0)" in trained.stdout
    assert "would be right on 33.3 %" in trained.stdout and "fitted on all 24 clips" in trained.stdout
    assert "too good to be true" in trained.stdout
    soundfile.write(tmp_path / "new.wav", tone(1, 999), RATE)
    told = call("predict", str(tmp_path / "mine.npz"), str(tmp_path / "new.wav"), str(sounds / "high" / "0.wav"))
    assert told.returncode == 0, told.stderr
    first, second = told.stdout.splitlines()
    assert first.startswith(f"{tmp_path / 'new.wav'}: middle ") and ": high " in second
    with zipfile.ZipFile(tmp_path / "mine.npz") as archive:
        assert all(b"'O'" not in archive.read(name)[:128] for name in archive.namelist())  # no object array, no pickle


def test_groups_stay_on_one_side_and_shuffled_labels_are_at_chance(example, sounds, tmp_path, capsys):
    files = sorted(sounds.rglob("*.wav"))
    labels = np.random.default_rng(0).permutation([LABELS[i % 3] for i in range(len(files))])
    with open(tmp_path / "list.csv", "w", newline="") as file:
        rows = [[path, label, f"{label}{i % 4}"] for i, (path, label) in enumerate(zip(files, labels, strict=True))]
        csv.writer(file).writerows([["path", "label", "group"], *rows])
    example.train(str(tmp_path / "list.csv"), "logmel", None, tmp_path / "mine.npz", seed=0)
    said = capsys.readouterr().out
    assert "groups were kept on one side" in said
    n_right, n_clips = (int(word) for word in said.split()[2:5:2])
    assert n_clips >= 3 and n_right <= 0.75 * n_clips


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_saved_arrays_give_what_scikit_learn_gives(example, tmp_path, n_classes):
    random = np.random.default_rng(n_classes)
    labels = np.array(LABELS)[np.arange(60) % n_classes]
    vectors = random.normal(size=(60, 5)) * [1, 10, 0.1, 1, 0] + np.arange(60)[:, None] % n_classes
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(vectors, labels)
    example.Classifier.of(fitted, {"encoder": "logmel"}).save(tmp_path / "mine.npz")
    loaded = example.Classifier.load(tmp_path / "mine.npz")
    assert list(loaded.classes) == list(fitted.classes_) and loaded.made_with == {"encoder": "logmel"}
    np.testing.assert_allclose(loaded.probabilities(vectors), fitted.predict_proba(vectors), atol=1e-12)


def test_the_interval_is_wilsons(example):
    scipy_stats = pytest.importorskip("scipy.stats")
    for n_right, n_clips in ((9, 10), (0, 7), (33, 100)):
        expected = scipy_stats.binomtest(n_right, n_clips).proportion_ci(0.95, "wilson")
        assert example.interval(n_right, n_clips) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_other_weights_and_unusable_data_are_told(example, sounds, tmp_path):
    arrays = {name: np.zeros(2) for name in ("mean", "scale", "weight", "bias", "classes")}
    example.Classifier(**arrays, made_with={"encoder": "logmel", "weights_sha256": "ab", "layers": None}).save(
        tmp_path / "old.npz"
    )
    with pytest.raises(ValueError, match="other weights of logmel"):
        example.predict(tmp_path / "old.npz", [str(sounds / "low" / "0.wav")])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz holds x; expected a classifier"):
        example.predict(tmp_path / "other.npz", ["a.wav"])
    with pytest.raises(ValueError, match="expected at least 2 classes .* is it one folder too deep"):
        example.labelled(str(sounds / "low"))
    for number in range(2, 8):
        (sounds / "high" / f"{number}.wav").unlink()
    with pytest.raises(ValueError, match="class 'high' has 2 clips, expected at least 4"):
        example.labelled(str(sounds))
    (tmp_path / "list.csv").write_text("path,lable\na.wav,x\n")
    with pytest.raises(ValueError, match="needs a column 'label', it has path, lable"):
        example.labelled(str(tmp_path / "list.csv"))
