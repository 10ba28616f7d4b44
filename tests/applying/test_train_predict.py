"""`evar train` and `evar predict`: choices by validation clips alone, bad clips by name, other weights refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from toy import RATE, Bands, tone

import evar
from evar import cli
from evar.classifiers.file import KEY, read_classifier, read_record
from evar.classifiers.thresholds import choose_thresholds
from evar.cli import run


def train(root: Path, *words: str, encoder: str = "toy") -> Path:
    path = root / "tones.safetensors"
    assert run(["train", "tones", f"--encoder={encoder}", "-o", str(path), *words]) == cli.DONE
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_one_bad_file_among_good_ones_has_a_row_without_values(tones, capsys):
    root = tones()
    classifier, folder = train(root, "--layers=all"), root / "new"
    folder.mkdir()
    for number, label in enumerate([2, 0, 1]):
        soundfile.write(folder / f"{number}.wav", tone(label, 900 + number, 1.0), RATE)
    (folder / "1b.wav").write_bytes(b"no sound")
    capsys.readouterr()
    assert run(["predict", str(classifier), str(folder), "-o", str(root / "t.csv")]) == cli.SOME_FAILED
    out, rows = capsys.readouterr().out, read_table(root / "t.csv")
    assert [Path(row["path"]).name for row in rows] == ["0.wav", "1.wav", "1b.wav", "2.wav"]
    assert [row["predicted"] for row in rows] == ["high", "low", "", "middle"]
    assert [bool(row["problem"]) for row in rows] == [False, False, True, False] and rows[2]["p_low"] == ""
    assert "bad clip" in out and "1b.wav" in out and "3 of 4 clips" in out and "random weights" in out
    assert run(["predict", str(classifier), str(folder), "-o", str(root / "t.csv"), "--skip_bad"]) == cli.DONE


def test_a_table_gives_its_columns_and_its_order(tones, capsys):
    root = tones()
    classifier = train(root)
    (root / "clips.csv").write_text("path,site\nmiddle_1.wav,=A1\nlow_3.wav,north\nmissing.wav,south\n")
    words = [str(root / "clips.csv"), f"--data_root={root / 'data' / 'tones'}", "-o", str(root / "t.csv")]
    assert run(["predict", str(classifier), *words]) == cli.SOME_FAILED
    rows = read_table(root / "t.csv")
    assert [(row["path"], row["predicted"]) for row in rows] == [
        ("middle_1.wav", "middle"), ("low_3.wav", "low"), ("missing.wav", ""),
    ]  # fmt: skip
    assert rows[0]["site"] == "'=A1"  # no spreadsheet runs it
    (root / "clips.csv").write_text("path,predicted\nlow_3.wav,low\n")
    assert run(["predict", str(classifier), *words]) == cli.WRONG
    assert "'predicted' has the name of a column of the output" in capsys.readouterr().err


def test_three_lines_of_python_take_what_embed_takes(tones):
    root = tones()
    trained = evar.train_classifier("tones", "toy", root / "c.safetensors", layers="bands")
    classifier = evar.load_classifier(trained.path)
    path = root / "data" / "tones" / "low_0.wav"
    sounds = [
        tone(2, 5),
        str(path),
        {"array": tone(1, 6), "sampling_rate": RATE},
        path.read_bytes(),
        np.full(RATE, np.nan),
    ]
    table = classifier.predict(sounds)
    assert table["predicted"].tolist()[:4] == ["high", "low", "middle", "low"] and table["predicted"].isna()[4]
    assert table["path"].tolist()[:2] == ["clip 0", str(path)] and "NaN" in table["problem"][4]
    with pytest.raises(ValueError, match="clip 4"):
        classifier.predict(sounds, errors="raise")


def test_the_layer_is_chosen_on_validation_clips_and_folds_are_joined(tones):
    root = tones(folds=True, n_per_class=15)
    trained = evar.train_classifier("tones", "toy", root / "c.safetensors", layers="all")
    assert trained.record.feature.layers == ("bands",) and set(trained.layer_scores) == {"level", "bands"}
    (head,) = trained.record.heads
    assert head.name == "all clips" and head.n_train + head.n_valid == 45 and sum(head.clips_per_class.values()) == 45
    assert len(trained.record.score.round_scores) == 3 and "cross-validation" in trained.record.score.of


def test_thresholds_come_from_validation_clips_only(tones, monkeypatch):
    """The labels of test clips are turned over: the file must stay the same, but for its score."""
    root = tones(kind="multilabel", n_per_class=16)
    index = root / "config" / "tasks" / "tones.csv"
    records = []
    for name in ("a", "b"):
        records.append(evar.train_classifier("tones", "toy", root / f"{name}.safetensors").record)
        lines = index.read_text().splitlines()
        turned = {"low": "high", "high": "low", "low;high": "low"}
        for number, line in enumerate(lines):
            path, label, *rest = line.split(",")
            if ",test," in line:
                lines[number] = ",".join([path, turned[label], *rest])
        index.write_text("\n".join(lines) + "\n")
    first, second = records
    assert first.heads == second.heads and first.score.score != second.score.score
    a, b = (read_classifier(root / f"{name}.safetensors")[1][0].arrays for name in ("a", "b"))
    assert all((a[key] == b[key]).all() for key in a)


def test_thresholds_are_those_of_all_candidates_with_the_best_f1():
    def f1_score(true, has):  # as scikit-learn's, only faster
        return 2 * (true & has).sum() / (true.sum() + has.sum())

    rng = np.random.default_rng(0)
    y, shares = rng.random((60, 3)) < 0.4, rng.random((60, 3))
    y[:, 2] = False
    thresholds, scores = choose_thresholds(y, shares)
    for label in range(2):
        best = max(f1_score(y[:, label], shares[:, label] >= one) for one in shares[:, label])
        assert scores[label] == pytest.approx(best, abs=1e-6)
        assert f1_score(y[:, label], shares[:, label] >= thresholds[label]) == pytest.approx(best, abs=1e-6)
    assert thresholds[2] == 0.5 and scores[2] is None


def test_another_checkpoint_is_refused_with_what_to_do(tones, capsys):
    root = tones()
    torch.save({"scale": torch.full((16,), 1.0)}, root / "first.pth")
    torch.save({"scale": torch.full((16,), 2.0)}, root / "second.pth")
    path = train(root, f"--weights={root / 'first.pth'}")
    assert read_record(path).encoder.weights_label == "first.pth"
    sound = str(root / "data" / "tones" / "low_0.wav")
    assert run(["predict", str(path), sound]) == cli.DONE
    Bands.calls.clear()
    assert run(["predict", str(path), sound, f"--weights={root / 'second.pth'}"]) == cli.WRONG
    said = capsys.readouterr().err
    assert "SHA-256" in said and "--weights=PATH" in said and "evar train tones" in said and not Bands.calls
    shutil.move(root / "first.pth", root / "moved.pth")
    assert run(["predict", str(path), sound]) == cli.WRONG
    assert "where no file is; --weights=PATH" in capsys.readouterr().err
    assert run(["predict", str(path), sound, f"--weights={root / 'moved.pth'}"]) == cli.DONE


def test_a_file_of_a_stranger_imports_nothing(tones, capsys):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    root = tones()
    path = train(root)
    with safe_open(path, framework="numpy") as file:
        data, arrays = json.loads(file.metadata()[KEY]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    data["encoder"]["request"] = "shutil:rmtree"
    save_file(arrays, path, metadata={KEY: json.dumps(data)})
    assert run(["predict", str(path), str(root / "data" / "tones" / "low_0.wav")]) == cli.WRONG
    assert "names code to be imported, shutil:rmtree" in capsys.readouterr().err
    data["encoder"]["request"], data["task"]["classes"] = "toy", ["low", 7, "high"]
    save_file(arrays, path, metadata={KEY: json.dumps(data)})
    with pytest.raises(ValueError, match=r"classes must be text"):
        evar.load_classifier(path)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["tones", "--encoder=toy", "-o", "c.pkl"], "ends in .safetensors"),
        (["tones", "--encoder=toy,toy_twins", "-o", "c.safetensors"], "one encoder and one task"),
        (["tones", "-o", "c.safetensors"], "needs --encoder"),
        (["tones", "--encoder=toy", "-o", "c.safetensors", "--protocol=knn"], "cannot be saved"),
        (["tones", "--encoder=toy", "-o", "c.safetensors", "--fusion=search"], "--export=NAME"),
    ],
)
def test_illegal_requests_are_refused_before_any_sound_is_read(tones, capsys, words, reason):
    tones()
    assert run(["train", *words]) == cli.WRONG
    assert reason in capsys.readouterr().err and not Bands.calls
