"""Defects of earlier toolkits, one test each; docs/pitfalls.md lists all 22 and says where else one is tested."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from toy import RATE, Bands, tone

from evar import cli, load_encoder, results
from evar.audio.reading import ClipPolicy, inspect, read_clip
from evar.cli import run
from evar.data.task import load_task
from evar.extraction.input_statistics import of_task
from evar.probes.linear import LinearProbe
from evar.storage.feature_store import FeatureStore

ROOT = Path(__file__).resolve().parents[2]


def lineval(root: Path, *words: str, out: str = "results") -> int:
    return run(["lineval", *words, f"--out={root / out}"])


def rewrite(root: Path, classes: list[str], rows: pd.DataFrame, **changes: object) -> None:
    """Another labelling of the tones."""
    tasks = root / "config" / "tasks"
    entry = yaml.safe_load((tasks / "tones.yaml").read_text())
    entry |= {"classes": classes, "expected": {"clips": len(rows), "classes": len(classes)}, **changes}
    (tasks / "tones.yaml").write_text(yaml.safe_dump(entry))
    rows.to_csv(tasks / "tones.csv", index=False)


def labelled(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "config" / "tasks" / "tones.csv", dtype=str)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_pitfall_01_statistics_weigh_every_value_alike_whatever_the_batches(tones, batch_size):
    root = tones(unequal=True)
    encoder, task = load_encoder("toy_normalised"), load_task("tones")
    ((mean, std),) = of_task(encoder, task, "train", [0], FeatureStore(root / f"s{batch_size}"), batch_size)[0]
    values = []
    for position in task.rounds(0)[0].train:
        samples = soundfile.read(task.paths[position], dtype="float32")[0]
        lengths = torch.tensor([len(samples)])
        values.append(encoder.network_input(torch.from_numpy(samples)[None], lengths).numpy().ravel())
    every = np.concatenate(values).astype(np.float64)  # longer clips weigh more, the first batch as much as the last
    assert (mean, std) == pytest.approx((every.mean(), every.std()), abs=1e-5)


def test_pitfall_02_each_fold_has_statistics_of_its_own_training_clips(tones):
    root = tones(folds=True, unequal=True)
    of_rounds = of_task(load_encoder("toy_normalised"), load_task("tones"), "train", [0], FeatureStore(root / "s"))[0]
    assert len(set(of_rounds)) == 3


def test_pitfall_03_without_a_validation_split_the_test_clips_choose_nothing(tones):
    root = tones(folds=True, n_per_class=15)
    task = load_task("tones")
    for a_round in task.rounds(0):
        assert len(a_round.valid) and not set(a_round.valid) & set(a_round.test)
        assert not set(a_round.train) & {*a_round.valid, *a_round.test}
        assert a_round.drawn.startswith("1/5 of the training clips")
    assert lineval(root, "toy", "tones") == cli.DONE
    (before,) = results.load_all(root / "results")
    rows = labelled(root)
    one_fold = rows["fold"] == "1"
    rows.loc[one_fold, "label"] = rows.loc[one_fold, "label"].map({"low": "high", "middle": "low", "high": "middle"})
    rewrite(root, ["low", "middle", "high"], rows)
    assert lineval(root, "toy", "tones", out="poisoned") == cli.DONE
    (after,) = results.load_all(root / "poisoned")
    assert after.rounds[0]["score"] == 0.0
    assert before.params["chosen_strengths"][0] == after.params["chosen_strengths"][0]  # fold 1 was only tested there
    assert before.rounds[0]["valid_score"] == after.rounds[0]["valid_score"]


@pytest.mark.parametrize("names", [["low", "high"], ["high", "low"]])
def test_pitfall_04_two_classes_are_told_apart_in_either_order(tones, names):
    root = tones(n_per_class=20)
    rows = labelled(root)
    rewrite(root, names, rows[rows["label"] != "middle"])
    assert lineval(root, "toy", "tones") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.score == 1.0 and row.n_classes == 2 and row.chance == 0.5
    predicted = results.load_predictions(root / "results", row.id)
    assert set(predicted["y_true"]) == {0, 1} == set(predicted["y_pred"])


def test_pitfall_05_classes_come_from_the_task_and_a_comma_in_a_name_means_nothing(tones):
    root = tones(n_per_class=20)
    rows = labelled(root)
    rows["label"] = rows["label"].replace({"low": "low, deep"})
    lacking = rows[~((rows["split"] == "test") & (rows["label"] == "middle"))]  # a split that lacks a class
    rewrite(root, ["low, deep", "middle", "high"], lacking)
    assert lineval(root, "toy", "tones") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.score == 1.0 and row.n_classes == 3 and row.metric == "accuracy"
    assert set(results.load_predictions(root / "results", row.id)["y_true"]) == {0, 2}


@pytest.mark.parametrize("name", ["wav2vec2.base", "msm_mae.208"])
def test_pitfall_07_and_08_one_clip_one_forward_with_gradients(name, monkeypatch):
    encoder = load_encoder(name, "random")
    calls = []
    monkeypatch.setattr(type(encoder), "forward", _counted(type(encoder).forward, calls))
    features = encoder.encode(torch.randn(1, encoder.sample_rate))
    assert len(calls) == 1 and {layer.name for layer in encoder.layer_infos} == set(features)
    features[encoder.default_layers[-1]].sum().backward()
    assert sum(parameter.grad is not None for parameter in encoder.parameters()) > 10


def _counted(forward, calls):
    def counting(self, *arguments):
        calls.append(1)
        return forward(self, *arguments)

    return counting


def test_pitfall_08_batch_mates_change_no_input_statistics():
    first, second = load_encoder("msm_mae.208", "random"), load_encoder("msm_mae.208", "random")
    assert first.options is not second.options  # no mutable default is shared
    quiet, loud = 0.01 * torch.randn(1, 16000), torch.randn(1, 16000)
    with torch.inference_mode():
        alone = first.encode(quiet)[first.default_layers[-1]]
        beside = first.encode(torch.cat([quiet, loud]))[first.default_layers[-1]][:1]
    torch.testing.assert_close(alone, beside, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("width", [512, 1024])
def test_pitfall_09_declared_widths_are_the_real_ones(width):
    encoder = load_encoder(f"byol_a.d{width}", "random")
    with torch.inference_mode():
        features = encoder.encode(torch.randn(1, encoder.sample_rate))
    assert {layer.name: layer.width for layer in encoder.layer_infos} == {
        name: features[name].shape[2] for name in (layer.name for layer in encoder.layer_infos)
    }
    assert encoder.layer(encoder.default_layers[-1]).width == width


def test_pitfall_10_a_vector_that_is_not_a_number_is_a_bad_clip_and_draws_are_seeded(tones):
    root = tones(folds=True)
    path = root / "data" / "tones" / "low_0.wav"
    soundfile.write(path, np.full(RATE // 2, np.nan, np.float32), RATE, subtype="FLOAT")
    assert lineval(root, "toy", "tones") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert [entry["clip"] for entry in row.skipped] == ["low_0.wav"] and row.skipped[0]["counted"] == "wrong"
    drawn = [[a_round.valid.tolist() for a_round in load_task("tones").rounds(seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_pitfall_11_the_input_statistics_are_in_the_row_and_in_the_key(tones):
    root = tones()
    for stats in ("-3.0,2.5", "-1.0,1.5"):
        assert lineval(root, "toy_normalised", "tones", f"--norm_stats={stats}") == cli.DONE
    rows = results.load_all(root / "results")
    assert sorted(row.rounds[0]["norm_stats"] for row in rows) == [[-3.0, 2.5], [-1.0, 1.5]]
    assert len(list((root / "store").glob("*/*/key.json"))) == 2


def test_pitfall_12_folds_cost_no_further_encode(tones):
    root = tones(folds=True)
    assert lineval(root, "toy", "tones", "--layers=all", "--seeds=2") == cli.DONE
    assert sum(Bands.calls) == 36


def test_pitfall_14_only_the_window_of_a_file_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(tone(0, 1), 60), RATE)  # 30 s
    asked_for = []
    read = soundfile.SoundFile.read

    def watched(self, frames=-1, *arguments, **words):
        asked_for.append(frames)
        return read(self, frames, *arguments, **words)

    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    clip = read_clip(path, inspect(path), ClipPolicy(1.0, "none", "head"), RATE)
    assert len(clip) == RATE and 0 < sum(asked_for) <= RATE and min(asked_for) > 0


def test_pitfall_16_vectors_are_read_from_mapped_files(tones, monkeypatch):
    root = tones()
    assert lineval(root, "toy", "tones") == cli.DONE
    modes = []
    load = np.load

    def watched(file, mmap_mode=None, **words):
        modes.append(mmap_mode)
        return load(file, mmap_mode=mmap_mode, **words)

    monkeypatch.setattr(np, "load", watched)
    store = FeatureStore(root / "store")
    (key,) = [record.parent for record in (root / "store").glob("*/*/key.json")]
    memmap = np.memmap

    class Watched(memmap):  # type: ignore[misc]
        def __new__(cls, *arguments, **words):
            modes.append("r")
            return memmap(*arguments, **words)

    monkeypatch.setattr(np, "memmap", Watched)
    from evar.extraction.extract import extract

    encoder, task = load_encoder("toy"), load_task("tones")
    found = extract(encoder, task.paths, task.policy(), store)
    assert found.n_encoded == 0
    store.load(found.key, [row for row in found.rows if row], "bands")
    assert modes and set(modes) <= {"r"}, key


def test_pitfall_17_half_a_store_is_completed(tones):
    root = tones(folds=True)
    assert lineval(root, "toy", "tones", "--limit=9") == cli.DONE
    n_first = sum(Bands.calls)
    assert lineval(root, "toy", "tones") == cli.DONE
    assert 0 < n_first < 36 == sum(Bands.calls)


def test_a_limit_that_leaves_too_few_clips_to_draw_from_is_one_sentence(tones):
    root = tones(folds=True)
    assert lineval(root, "toy", "tones", "--limit=6") == cli.SOME_FAILED
    assert "--limit=6 too small?" in results.load_failures(root / "results")[0].reason


def test_pitfall_18_options_are_data_and_never_code(tones, tmp_path, monkeypatch, capsys):
    root = tones()
    mark = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    assert lineval(root, "toy", "tones", f"--limit={code}") == cli.WRONG
    path = root / "config" / "encoders" / "toy.yaml"
    entry = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**entry, "options": {"gain": f"({code}, 1.0)[1]"}}))
    assert lineval(root, "toy", "tones") == cli.SOME_FAILED  # the text is no number, and nothing else
    assert "cannot be built" in results.load_failures(root / "results")[0].reason
    assert not mark.exists()
    path.write_text("implementation: !!python/object/apply:os.system ['true']\n")
    assert lineval(root, "toy", "tones") == cli.WRONG


def test_pitfall_19_an_absent_package_breaks_one_encoder_only(tones):
    root = tones()
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from evar.cli import run\n"
        f"raise SystemExit(run(['lineval', 'ast,logmel', 'tones', '--weights=random', '--out={root / 'results'}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == cli.SOME_FAILED, done.stderr
    assert [row.encoder for row in results.load_all(root / "results")] == ["logmel"]
    assert "transformers" in results.load_failures(root / "results")[0].reason


def test_pitfall_20_every_folder_can_be_named(tones, tmp_path):
    root = tones()
    assert run(["lineval", "toy", "tones", f"--out={tmp_path / 'o'}", f"--store={tmp_path / 's'}"]) == cli.DONE
    assert (tmp_path / "o" / "runs").is_dir() and any((tmp_path / "s").iterdir()) and not (root / "store").exists()


def test_pitfall_21_no_file_of_ours_patches_another_package():
    for path in (ROOT / "evar").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(transformers|timm|torchaudio|librosa)(\.\w+)+ = ", text, re.MULTILINE), path
        assert "sed -i" not in text and "git clone" not in text, path


def test_pitfall_04_a_probe_of_two_classes_gives_two_probabilities():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    probe = LinearProbe(strengths=(1.0,)).fit(rng.normal(size=(60, 3)) + 3 * y[:, None], y)
    assert probe.predict_proba(np.zeros((4, 3))).shape == (4, 2) and set(probe.predict(np.eye(3) * 9)) <= {0, 1}


def test_the_list_is_whole_and_names_tests_that_exist():
    text = (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8")
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == list(range(1, 23))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named and named <= defined, named - defined
