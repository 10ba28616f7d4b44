"""Tasks whose clips are parts of files: the same vectors and scores as from cut files, whole groups, names everywhere."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from toy import RATE, Bands, write_config

from evar.audio import ClipPolicy, Segment, read
from evar.data.index_verification import verify_index
from evar.data.segments import name_segments
from evar.data.task import Task, load_task
from evar.encoders import load_encoder
from evar.extraction.extract import extract
from evar.storage.feature_store import FeatureStore


@pytest.fixture
def joined(tmp_path, monkeypatch):
    """The tones of each split, 12 at a time, joined into recordings; the same rows as segments of them."""
    config = write_config(tmp_path)
    monkeypatch.setenv("EVAR_CONFIG", str(config))
    monkeypatch.setenv("EVAR_DATA", str(tmp_path / "data"))
    rows = list(csv.DictReader((config / "tasks" / "tones.csv").open()))
    lines, folder = ["path,start,end,label,split"], tmp_path / "data" / "field"
    folder.mkdir()
    for number in range(0, len(rows), 12):
        for split in ("train", "valid", "test"):
            own = [row for row in rows[number : number + 12] if row["split"] == split]
            waves = [soundfile.read(tmp_path / "data" / "tones" / row["path"])[0] for row in own]
            name = f"{split}{number}.flac"
            soundfile.write(folder / name, np.concatenate(waves), RATE, subtype="PCM_16")
            lines += [f"{name},{at / 2},{at / 2 + 0.5},{row['label']},{split}" for at, row in enumerate(own)]
    entry = yaml.safe_load((config / "tasks" / "tones.yaml").read_text())
    (config / "tasks" / "field.yaml").write_text(yaml.safe_dump(entry | {"folder": "field", "index": "field.csv"}))
    (config / "tasks" / "field.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_segments_give_the_vectors_and_rows_that_cut_files_give(joined, tmp_path):
    cut, field = load_task("tones"), load_task("field")
    assert isinstance(field.paths[0], Segment) and field.index["path"][1] == "train0.flac#t=0.5,1"
    assert set(field.groups) == {name.split("#")[0] for name in field.index["path"]}, "the file is the group"
    encoder, policy = load_encoder("toy"), ClipPolicy(None)
    vectors = {}
    for task in (cut, field):
        store = FeatureStore(tmp_path / task.name)
        Bands.calls.clear()
        found = extract(encoder, task.paths, policy, store)
        assert not found.bad and sum(Bands.calls) == len(task) == found.n_encoded
        again = extract(encoder, task.paths, policy, store)
        assert again.n_encoded == 0 and again.rows == found.rows
        order = np.argsort(task.index["label"] + task.index["split"], kind="stable")
        vectors[task.name] = store.load(found.key, [found.rows[at] for at in order], "bands")
    np.testing.assert_allclose(vectors["tones"], vectors["field"], atol=1e-4)  # 16 bits, as the files have


def test_a_run_and_its_predictions_name_the_segments(joined, tmp_path):
    from evar.cli import run
    from evar.results.predictions import load_predictions

    out = tmp_path / "results"
    assert run(["lineval", "toy", "field", f"--out={out}", f"--store={tmp_path / 'store'}"]) == 0
    (row,) = (out / "runs").glob("*.json")
    clips = load_predictions(out, row.stem)["clip"]
    assert "test0.flac#t=0.5,1" in set(clips)
    assert json.loads(row.read_text())["score"] > 0.95


def test_verification_names_a_segment_that_is_outside_its_file(joined, tmp_path):
    assert verify_index("field").ok and verify_index("field").n_clips == 36
    path = tmp_path / "config" / "tasks" / "field.csv"
    path.write_text(path.read_text().replace("train0.flac,0.5,1.0", "train0.flac,0.5,77"))
    found = verify_index("field")
    assert (
        list(found.undecodable) == ["train0.flac#t=0.5,77"]
        and "is not inside the file" in found.undecodable["train0.flac#t=0.5,77"]
    )
    store = FeatureStore(tmp_path / "store")
    bad = extract(load_encoder("toy"), load_task("field").paths, ClipPolicy(None), store).bad
    assert list(bad) == [1] and "not inside the file" in bad[1]


def test_drawn_validation_keeps_the_cuts_of_a_recording_together():
    from evar.data.task_config import Expected, TaskConfig

    rows = [
        (f"{rec}.wav", cut, cut + 1, "ab"[rec % 2], "test" if rec < 4 else "train")
        for rec in range(24)
        for cut in range(5)
    ]
    index = pd.DataFrame(rows, columns=["path", "start", "end", "label", "split"])
    words = dict.fromkeys(("title", "version", "source", "licence", "citation", "access"), "x")
    config = TaskConfig(
        name="field", kind="multiclass", metric="accuracy", classes=("a", "b"), clip_seconds=None, pad="none", crop="head",
        index="field.csv", folder="field", splits="published", expected=Expected(120, 2), **words,
    )  # fmt: skip
    (one,) = Task(config, index, folder=None).rounds(3)
    files = [
        {name.split("#")[0] for name in np.array([f"{r[0]}#" for r in rows])[part]} for part in (one.train, one.valid)
    ]
    assert len(files[1]) == 4 and not files[0] & files[1]


def test_rows_without_times_are_whole_files_and_bad_times_are_named():
    plain = pd.DataFrame({"path": ["a.wav"], "label": ["x"]})
    assert name_segments(plain) is plain
    mixed = pd.DataFrame(
        {"path": ["a.wav", "b.wav", "b.wav"], "start": [np.nan, 1.0, np.nan], "end": [np.nan, np.nan, 1.0]}
    )
    assert name_segments(mixed)["path"].tolist() == ["a.wav", "b.wav#t=1,", "b.wav#t=0,1"]
    with pytest.raises(ValueError, match="b.wav has a segment that ends before it begins, 4 to 3 s"):
        name_segments(pd.DataFrame({"path": ["b.wav"], "start": ["4"], "end": ["3"]}))
    with pytest.raises(ValueError, match="start and end must be seconds from 0 on, got '1:30'"):
        name_segments(pd.DataFrame({"path": ["b.wav"], "start": ["1:30"], "end": ["2:00"]}))


def test_audits_waveforms_and_the_report_take_segments(joined, tmp_path):
    from evar.data.audit import audit
    from evar.finetune.waveforms import decode_task
    from evar.webpage.sounds import link_file

    task = load_task("field")
    found = audit(task)
    assert not found.bad and {round(sound.seconds, 3) for sound in found.sounds.values()} == {0.5}
    waveforms = decode_task(task, RATE, tmp_path / "waves")
    assert np.diff(waveforms.starts).tolist() == [RATE // 2] * 36
    np.testing.assert_allclose(waveforms.samples[RATE // 2 : RATE], read(task.paths[1], RATE), atol=1e-6)
    assert link_file(task.paths[1], tmp_path / "report.html").endswith("field/train0.flac#t=0.5,1")
