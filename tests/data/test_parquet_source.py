"""`evar task new --parquet`: sounds come out byte by byte, labels by their names, splits by the files' names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from evar import cli
from evar.cli import run
from evar.data.parquet import unpack_parquet
from evar.data.task import load_task

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A function that writes a data set as the hub has it; returns its folder, and the sounds by split."""
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))

    def write(labels=lambda n: n % 2, feature=None, files=("train-00000-of-00001", "test-00000-of-00001"), n=12):
        contents = {}
        folder = tmp_path / "hub" / "data"
        folder.mkdir(parents=True, exist_ok=True)
        for at, name in enumerate(files):
            sounds = []
            for number in range(n):
                path = tmp_path / f"x.{'wav' if number % 3 else 'flac'}"
                pitch = 300 + 500 * (number % 2) + 10 * number + at
                soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * np.arange(4000) / 8000), 8000)
                sounds.append(path.read_bytes())
            contents[name] = sounds
            table = pa.table(
                {
                    "audio": pa.array([{"bytes": one, "path": f"../{k}.wav"} for k, one in enumerate(sounds)]),
                    "label": pa.array([labels(number) for number in range(n)]),
                    "speaker": pa.array([f"{name[:2]}{number // 2}" for number in range(n)]),
                }
            )
            feature_of = feature or {"names": ["dog", "cat"], "_type": "ClassLabel"}
            about = {"info": {"features": {"audio": {"_type": "Audio"}, "label": feature_of}}}
            parquet.write_table(
                table.replace_schema_metadata({"huggingface": json.dumps(about)}), folder / f"{name}.parquet"
            )
        return folder.parent, contents

    return write


def test_a_data_set_becomes_a_task_and_a_row(hub, tmp_path, capsys):
    source, contents = hub()
    words = [
        "task",
        "new",
        "pets",
        f"--folder={tmp_path / 'pets'}",
        f"--parquet={source}",
        f"--to={tmp_path / 'config'}",
    ]
    assert run([*words, "--group=speaker"]) == cli.DONE
    task = load_task("pets")
    assert task.config.classes == ("cat", "dog") and "NOTE: the split" not in capsys.readouterr().out
    assert task.index["split"].value_counts().to_dict() == {"train": 12, "test": 12}
    assert task.index["label"].tolist()[:2] == ["dog", "cat"] and task.groups[0] == "te0" == task.groups[1]
    for name, sounds in contents.items():
        own = [path for path in task.paths if name in path.name]
        assert [path.read_bytes() for path in own] == sounds
        assert [path.suffix for path in own] == [
            ".wav" if n % 3 else ".flac" for n in range(12)
        ]  # not what the path says
    assert run(["lineval", "logmel", "pets", f"--out={tmp_path / 'results'}"]) == cli.DONE
    before = {path: path.stat().st_mtime_ns for path in task.paths}
    assert run([*words, "--group=speaker", "--replace"]) == cli.DONE
    assert before == {path: path.stat().st_mtime_ns for path in task.paths}  # what is there is left alone


def test_one_file_tells_no_split_and_lists_are_several_labels(hub, tmp_path, capsys):
    names = {"feature": {"names": ["a", "b", "c"], "_type": "ClassLabel"}, "_type": "Sequence"}
    source, _ = hub(labels=lambda n: [n % 2, 2], feature=names, files=("train",), n=40)
    words = [
        "task",
        "new",
        "tags",
        f"--folder={tmp_path / 'tags'}",
        f"--parquet={source}",
        f"--to={tmp_path / 'config'}",
    ]
    assert run([*words, "--kind=multilabel"]) == cli.DONE
    assert "NOTE: the split is a proposal" in capsys.readouterr().out
    task = load_task("tags")
    assert task.config.classes == ("a", "b", "c") and task.y.sum(axis=0).tolist() == [20, 20, 40]


def test_what_is_wrong_is_one_sentence(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="no parquet file at"):
        unpack_parquet(tmp_path, tmp_path / "out")
    source, _ = hub(files=("train", "test"))
    with pytest.raises(ValueError, match="has no column 'labels'; it has audio, label, speaker; did you mean 'label'"):
        unpack_parquet(source, tmp_path / "out", label="labels")
    (source / "data" / "train.parquet").rename(source / "data" / "some.parquet")
    with pytest.raises(ValueError, match="named after a split and others are not"):
        unpack_parquet(source, tmp_path / "out")
    (source / "data" / "some.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no parquet file"):
        unpack_parquet(source / "data" / "some.parquet", tmp_path / "out")
    empty = pa.table({"audio": [{"bytes": None, "path": "/etc/passwd"}], "label": ["a"]})
    parquet.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="row 0: no sound in it"):
        unpack_parquet(tmp_path / "empty.parquet", tmp_path / "out")
    parquet.write_table(pa.table({"label": ["a"]}), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="no column of sounds"):
        unpack_parquet(tmp_path / "empty.parquet", tmp_path / "out")


def test_a_shard_that_was_published_again_with_other_rows_is_another_one(hub, tmp_path):
    """The same names and sizes, other sounds: old sounds must not stay under new labels."""
    source, _ = hub(files=("train-00000-of-00001",))
    first = unpack_parquet(source, tmp_path / "out")
    (file,) = source.rglob("*.parquet")
    table = parquet.read_table(file)
    order = list(reversed(range(len(table))))
    parquet.write_table(table.take(order).replace_schema_metadata(table.schema.metadata), file)
    before = first.read_text().splitlines()[1:]
    again = unpack_parquet(source, tmp_path / "out").read_text().splitlines()[1:]
    sounds = table.column("audio").to_pylist()
    for number, line in zip(order, again, strict=True):
        assert (tmp_path / "out" / line.split(",")[0]).read_bytes() == sounds[number]["bytes"]
    assert len(before) == len(again) == 12


def test_configurations_never_share_a_file_name(hub, tmp_path):
    source, _ = hub(files=("0000",))
    (file,) = source.rglob("*.parquet")
    for language, rows in (("en", range(6)), ("fr", range(6, 12))):
        target = tmp_path / "both" / language / "train" / "0000.parquet"
        target.parent.mkdir(parents=True)
        table = parquet.read_table(file)
        parquet.write_table(table.take(list(rows)).replace_schema_metadata(table.schema.metadata), target)
    lines = unpack_parquet(tmp_path / "both", tmp_path / "out").read_text().splitlines()[1:]
    paths = [line.split(",")[0] for line in lines]
    assert len(set(paths)) == 12 and len({(tmp_path / "out" / path).read_bytes() for path in paths}) == 12


def test_hidden_labels_are_left_out(hub, tmp_path):
    source, _ = hub(labels=lambda n: -1 if n == 4 else 7 if n == 5 else n % 2, files=("train-00000-of-00001",))
    lines = unpack_parquet(source, tmp_path / "out").read_text().splitlines()[1:]
    assert len(lines) == 10 and {line.split(",")[1] for line in lines} == {"dog", "cat"}
