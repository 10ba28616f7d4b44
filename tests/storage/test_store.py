"""The store: what was committed is there, what was not is not, and nobody loses anything."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import time

import numpy as np
import pytest

from evar.audio.known_files import AudioIndex
from evar.storage.feature_store import FeatureStore
from evar.storage.keys import FeatureKey
from evar.storage.segments import estimate_bytes

KEY = FeatureKey(
    encoder="toy", weights_sha256="00", options={"gain": 1.0}, revision=1, norm_stats=None, sample_rate=16000,
    resampler="soxr_hq", clip_seconds=1.0, pad="none", crop="head", crop_seed=0, layers={"a": "3 mean", "b": "2 mean"},
)  # fmt: skip


def batch(start: int, n: int) -> tuple[list[str], dict[str, np.ndarray]]:
    rows = [f"clip{i}@0" for i in range(start, start + n)]
    numbers = np.arange(start, start + n, dtype=np.float32)[:, None]
    return rows, {"a": numbers + np.zeros((1, 3), np.float32), "b": -numbers + np.zeros((1, 2), np.float32)}


def test_rows_come_back_in_the_order_asked_for_over_several_segments(tmp_path):
    store = FeatureStore(tmp_path)
    for start in (0, 10):
        with store.writing(KEY) as writer:
            writer.append(*batch(start, 4))
            writer.append(*batch(start + 4, 3))
    asked = ["clip12@0", "clip0@0", "clip6@0", "clip16@0", "clip0@0"]
    assert store.load(KEY, asked, "a")[:, 0].tolist() == [12, 0, 6, 16, 0]
    assert store.load(KEY, asked, "b").shape == (5, 2) and store.load(KEY, asked, "b")[0, 1] == -12
    assert len(store.rows(KEY)) == 14
    with pytest.raises(KeyError, match="1 of 2 rows of toy are not stored, first clip9@0"):
        store.load(KEY, ["clip1@0", "clip9@0"], "a")


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": "toy2"}, {"weights_sha256": "01"}, {"options": {"gain": 2.0}}, {"revision": 2},
        {"norm_stats": (0.0, 1.0)}, {"sample_rate": 8000}, {"resampler": "other"}, {"clip_seconds": 2.0},
        {"pad": "zero_end"}, {"crop": "seeded_random"}, {"crop_seed": 1}, {"layers": {"a": "3 max"}},
        {"precision": "float16"}, {"alteration": {"name": "level", "params": {"gain_db": 20.0}}},
    ],
)  # fmt: skip
def test_every_setting_is_in_the_key(tmp_path, change):
    assert set(change) <= {entry.name for entry in dataclasses.fields(FeatureKey)}
    other = dataclasses.replace(KEY, **change)
    assert other.digest != KEY.digest
    store = FeatureStore(tmp_path)
    with store.writing(KEY) as writer:
        writer.append(*batch(0, 2))
    assert store.rows(KEY) and not store.rows(other)


def test_this_test_knows_every_field_of_the_key():
    marks = test_every_setting_is_in_the_key.pytestmark[0].args[1]
    assert {name for change in marks for name in change} == {entry.name for entry in dataclasses.fields(FeatureKey)}


def test_what_was_not_committed_is_not_seen(tmp_path):
    """Torn files as a kill leaves them: vectors without record, half a record, a record without its vectors."""
    store = FeatureStore(tmp_path)
    with store.writing(KEY) as writer:
        writer.append(*batch(0, 3))
        writer.append(*batch(3, 3))
    (segment,) = store.key_folder(KEY).glob("segment-*")
    whole = (segment / "rows.jsonl").read_bytes()

    with open(segment / "a.f32", "ab") as file:
        file.write(b"\x01" * 17)  # vectors of a batch that never came to its record
    assert len(store.rows(KEY)) == 6 and store.load(KEY, ["clip5@0"], "a")[0, 0] == 5

    (segment / "rows.jsonl").write_bytes(whole[:-9])  # half of the second record
    assert list(store.rows(KEY)) == ["clip0@0", "clip1@0", "clip2@0"]

    (segment / "rows.jsonl").write_bytes(whole)
    (segment / "b.f32").write_bytes((segment / "b.f32").read_bytes()[: 5 * 2 * 4])  # power failure: short data file
    assert len(store.rows(KEY)) == 3


def _append_slowly(folder, start):
    store = FeatureStore(folder)
    with store.writing(KEY) as writer:
        for i in range(5):
            writer.append(*batch(start + 2 * i, 2))
            time.sleep(0.02)


def test_two_processes_on_one_key_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_slowly, args=(tmp_path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = FeatureStore(tmp_path)
    rows = list(store.rows(KEY))
    assert len(rows) == 20
    assert store.load(KEY, rows, "a")[:, 0].tolist() == [float(row[4:].split("@")[0]) for row in rows]


def test_prune_removes_what_it_says(tmp_path):
    store = FeatureStore(tmp_path)
    other = dataclasses.replace(KEY, encoder="other")
    for key in (KEY, other):
        with store.writing(key) as writer:
            writer.append(*batch(0, 2))
    (store.key_folder(KEY) / "segment-dead").mkdir()
    (store.key_folder(KEY) / "segment-dead" / "widths.json").write_text(json.dumps({"a": 3, "b": 2}))
    assert [path.name for path in store.prune()] == ["segment-dead"]
    assert [entry["clips"] for entry in store.contents()] == [2, 2]
    assert len(store.prune(encoder="other")) == 1 and not store.rows(other) and store.rows(KEY)
    assert store.prune(digest=KEY.digest[:6]) and not store.rows(KEY)


def test_a_changed_file_is_hashed_again(tmp_path):
    import soundfile

    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1600, np.float32), 16000)
    index = AudioIndex(tmp_path / "store")
    assert index.lookup([path, tmp_path / "gone.wav"]) == [None, None]
    index.remember([index.inspect(path)])
    (known,) = index.lookup([path])
    assert known is not None and known.n_samples == 1600
    soundfile.write(path, np.zeros(3200, np.float32), 16000)
    assert index.lookup([path]) == [None]


def test_the_estimate_is_what_lands_on_disk(tmp_path):
    store = FeatureStore(tmp_path)
    rows = [f"{i:032x}@0" for i in range(200)]
    with store.writing(KEY) as writer:
        writer.append(rows, {"a": np.zeros((200, 3), np.float32), "b": np.zeros((200, 2), np.float32)})
    (segment,) = store.key_folder(KEY).glob("segment-*")
    on_disk = sum(file.stat().st_size for file in segment.iterdir())
    assert 0.8 < estimate_bytes({"a": 3, "b": 2}, 200) / on_disk < 1.3
