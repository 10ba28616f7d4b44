"""An index is checked in parts as it is checked whole: the same faults, the same first line, in bounded memory."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from evar import cli
from evar.cli import run
from evar.data import index as indexes
from evar.data.index import IndexCheck, in_parts
from evar.data.index_verification import verify_index
from evar.data.task import Task, load_task
from evar.data.task_config import Expected, TaskConfig


def config(**changes) -> TaskConfig:
    fields = {
        "name": "many", "title": "many", "version": "1", "kind": "multiclass", "metric": "accuracy",
        "classes": ("a", "b", "c"), "clip_seconds": 1.0, "pad": "none", "crop": "head", "folder": "many",
        "splits": "published", "source": "made here", "licence": "none", "citation": "none", "access": "free",
        "expected": Expected(90, 3), "index": "many.csv",
    }  # fmt: skip
    return TaskConfig(**{**fields, **changes})


def table(**planted: tuple[int, str]) -> pd.DataFrame:
    """90 rows; planted: column -> (row, value)."""
    rows = pd.DataFrame(
        {
            "path": [f"{row:03d}.wav" for row in range(90)],
            "label": ["abc"[row % 3] for row in range(90)],
            "split": ["train" if row < 50 else "valid" if row < 70 else "test" for row in range(90)],
            "group": [f"g{row // 5:02d}" for row in range(90)],
        }
    )
    for column, (row, value) in planted.items():
        rows.loc[row, column] = value
    return rows


def fault(rows: pd.DataFrame, of: TaskConfig, on_disk: bool, at_once: int) -> str:
    check = IndexCheck(of, on_disk)
    try:
        for start in range(0, len(rows), at_once):
            check.add(rows.iloc[start : start + at_once].reset_index(drop=True))
        check.finish()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("planted", "changes", "said"),
    [
        ({}, {}, ""),
        ({"path": (80, "003.wav")}, {}, "lists 1 clips twice, first 003.wav"),
        ({"path": (81, "080.wav")}, {}, "lists 1 clips twice, first 080.wav"),
        ({"path": (77, "../evil.wav")}, {}, "line 79: path must stay below"),
        ({"label": (71, "d")}, {}, "line 73: label 'd' is none of the 3 classes"),
        ({"split": (88, "tset")}, {}, "line 90: split must be train, valid or test, got 'tset'"),
        ({"group": (75, "g02")}, {}, "1 groups are in more than one split, first 'g02' in test, train"),
        ({"group": (60, "g02")}, {"may_share_groups": ("train", "valid")}, ""),
        ({"group": (75, "g02")}, {"may_share_groups": ("train", "valid")}, "first 'g02' in test, train"),
        ({}, {"expected": Expected(91, 3)}, "expected 91 clips, got 90"),
        ({}, {"expected": Expected(90, 4)}, "expected 4 classes, got 3"),
        ({}, {"expected": Expected(90, 3, None, {"valid": 21})}, "expected 21 clips in split valid, got 20"),
    ],
)
def test_faults_are_found_whole_and_in_parts(planted, changes, said) -> None:
    rows, of = table(**planted), config(**changes)
    whole = fault(rows, of, on_disk=False, at_once=1000)
    assert said in whole and bool(said) == bool(whole)
    for on_disk, at_once in ((False, 7), (True, 1000), (True, 7)):
        assert fault(rows, of, on_disk, at_once) == whole


def test_an_index_without_groups_leaks_nothing() -> None:
    for rows in (table().drop(columns="group"), table().assign(group="")):
        assert fault(rows, config(), True, 7) == fault(rows, config(), False, 7) == ""


def test_hash_and_labels_do_not_depend_on_the_parts(monkeypatch, tmp_path) -> None:
    whole = Task(config(), table(), tmp_path)
    monkeypatch.setattr("evar.data.task.ROWS_AT_ONCE", 7)
    assert Task(config(), table(), tmp_path).index_sha256 == whole.index_sha256
    assert load_task("esc10").index_sha256 == load_task("esc10").index_sha256


def test_verify_in_parts_finds_what_verify_of_all_finds(tones, monkeypatch) -> None:
    root = tones()
    data = root / "data" / "tones"
    (data / "low_3.wav").unlink()
    (data / "high_7.wav").write_bytes(b"no sound")
    monkeypatch.setattr(indexes, "ROWS_AT_ONCE", 5)
    assert len(list(in_parts(root / "config" / "tasks" / "tones.csv"))) == 8
    found, whole = verify_index("tones"), load_task("tones").verify()
    assert found == whole
    assert (found.n_clips, found.n_missing, found.n_undecodable, found.n_altered) == (36, 1, 1, 0)
    assert found.missing == ["low_3.wav"] and not found.ok


def test_only_so_many_names_are_kept_and_all_are_counted(tones, monkeypatch, capsys) -> None:
    root = tones(n_per_class=12)
    for path in (root / "data" / "tones").glob("*.wav"):
        path.unlink()
    monkeypatch.setattr("evar.data.verification.NAMES_KEPT", 25)
    assert run(["verify", "tones"]) == cli.SOME_FAILED
    said = capsys.readouterr().out
    assert "missing: ... and 16 more" in said and "0 of 36 clips are as published" in said
    assert len(verify_index("tones").missing) == 25


def test_memory_of_verify_does_not_grow_with_the_clips(tmp_path) -> None:
    """200,000 names take no more than 20,000 do, but for what the allocator keeps."""
    peaks = []
    for n_clips in (20_000, 200_000):
        folder = tmp_path / str(n_clips) / "config" / "tasks"
        folder.mkdir(parents=True)
        with open(folder / "many.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split", "group"])
            for row in range(n_clips):
                part = ("train", "valid", "test")[row // 20 % 3]
                writer.writerow([f"audio/{row:07d}.wav", "ab"[row % 2], part, f"source{row // 20:06d}"])
        lines = [f"{key}: {value}" for key, value in {
            "title": "many", "version": "'1'", "kind": "multiclass", "metric": "accuracy", "classes": "[a, b]",
            "clip_seconds": 1.0, "pad": "none", "crop": "head", "index": "many.csv", "folder": "many",
            "splits": "published", "source": "here", "licence": "none", "citation": "none", "access": "free",
            "expected": f"{{clips: {n_clips}, classes: 2}}",
        }.items()]  # fmt: skip
        (folder / "many.yaml").write_text("\n".join(lines))
        code = (
            "import resource; from evar.data.index_verification import verify_index; found = verify_index('many');"
            "print(found.n_missing, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        environment = {
            "EVAR_CONFIG": str(folder.parent),
            "PATH": "",
            "PYTHONPATH": str(Path(indexes.__file__).parents[2]),
        }
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        n_missing, peak = map(int, done.stdout.split())
        assert n_missing == n_clips
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 25 * 1024  # KiB; read whole, it would be 60 MB more
