"""Results: what may be one, how it is named, and that nothing is lost on the way to the disk and back."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from evar import results
from evar.results import Result, run_id
from evar.storage.atomic import write_atomic

CONTRACT = {
    "encoder": "crepe.tiny",
    "weights": "tiny.pth",
    "weights_sha256": "ab" * 32,
    "layers": ["conv5"],
    "fusion": "none",
    "pooling": {"conv5": "mean"},
    "task": "gm_pitch",
    "task_version": "1",
    "protocol": "linear",
    "params": {"protocol_version": "1", "strengths": [0.1, 1.0]},
    "seed": 0,
    "metric": "accuracy",
    "score": 0.5,
    "round_scores": [0.25, 0.75],
    "n_train": 100,
    "n_valid": 20,
    "n_test": 80,
    "skipped": [],
    "seconds": 1.25,
    "versions": {"numpy": "2.0"},
    "created": "2026-01-31T12:00:00+00:00",
}
FULL = {
    **CONTRACT,
    "rounds": [{"name": "fold 1", "score": 0.25, "n_test": 40}, {"name": "fold 2", "score": 0.75, "n_test": 40}],
    "interval": [0.4, 0.6],
    "chance": 1 / 12,
    "n_classes": 12,
    "depth": 5 / 6,
    "layer_index": 4,
    "n_layers": 6,
    "default": True,
    "limit": 50,
    "extraction": {"clip_seconds": 5.0, "norm_stats": None},
    "skipped": [{"clip": "a.wav", "split": "test", "reason": "empty", "counted": "wrong"}],
    "flags": ["random weights"],
    "settings": {"layers": "all"},
}
RUN = {"encoder": "crepe.tiny", "layers": ["conv5"], "task": "gm_pitch", "protocol": "linear", "seed": 0}


@pytest.mark.parametrize("data", [CONTRACT, FULL])
def test_round_trip(tmp_path: Path, data: dict) -> None:
    row = Result.from_dict(data)
    path = results.save(row, tmp_path)
    assert path == tmp_path / "runs" / f"{row.id}.json" == results.run_path(tmp_path, row.id)
    assert results.load(path) == row
    assert results.load_all(tmp_path) == [row]
    written = json.loads(path.read_text(encoding="utf-8"))
    assert {key: written[key] for key in data} == data
    assert list(written) == sorted(written)
    before = path.read_bytes()
    results.save(results.load(path), tmp_path)
    assert path.read_bytes() == before


def test_every_contract_key_is_needed_and_no_other() -> None:
    for key in CONTRACT:
        with pytest.raises(ValueError, match=f"lacks {key};"):
            Result.from_dict({name: value for name, value in CONTRACT.items() if name != key})
    optional = [field.name for field in dataclasses.fields(Result) if field.name not in CONTRACT]
    assert {"id", "interval", "limit", "settings"} <= set(optional)


def test_numpy_values_become_plain_numbers() -> None:
    scores = np.array([0.25, 0.75])
    row = Result.from_dict({**CONTRACT, "score": scores.mean(), "round_scores": list(scores), "n_test": np.int64(80)})
    assert type(row.n_test) is int and type(row.score) is float and row.round_scores == (0.25, 0.75)
    assert row == Result.from_dict(CONTRACT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scroe": 0.5}, "no key 'scroe'.*did you mean 'score'"),
        ({"score": 50.0}, "in percent"),
        ({"score": math.nan}, "score must be finite"),
        ({"score": "0.5"}, "score must be a finite number, got '0.5'"),
        ({"score": 0.5 + 1e-8}, "mean of round_scores"),
        ({"round_scores": []}, "at least one"),
        ({"round_scores": [0.5, 1.5]}, "in percent"),
        ({"encoder": ""}, "encoder must not be empty"),
        ({"encoder": 3}, "encoder must be text, got 3"),
        ({"layers": []}, "at least one layer"),
        ({"layers": ["conv5", "conv5"], "fusion": "concat"}, "each once"),
        ({"layers": "conv5"}, "layers must be a list of text"),
        ({"fusion": "concta"}, "did you mean 'concat'"),
        ({"fusion": "concat"}, "'none' for one layer"),
        ({"layers": ["conv4", "conv5"], "pooling": {"conv4": "mean", "conv5": "mean"}}, "'none' for one layer"),
        ({"pooling": {"conv4": "mean"}}, "pooling must name the layers"),
        ({"params": {"grid": Path("x")}}, "params.grid must be text, numbers"),
        ({"params": {1: 2}}, "params must have text keys"),
        ({"params": {"grid": [math.inf]}}, "params.grid must be finite"),
        ({"seed": True}, "seed must be a whole number"),
        ({"n_train": -1}, "n_train must be a whole number"),
        ({"n_test": 80.0}, "n_test must be a whole number"),
        ({"seconds": -1.0}, "seconds must be >= 0"),
        ({"versions": {"numpy": 2}}, "versions must be an object with text values"),
        ({"created": "yesterday"}, "ISO 8601"),
        ({"created": "2026-01-31T12:00:00"}, "UTC"),
        ({"created": "2026-01-31T12:00:00+01:00"}, "UTC"),
        ({"skipped": [{"clip": "a.wav"}]}, "skipped must hold"),
        ({"skipped": [{"clip": "a", "split": "test", "reason": "r", "counted": "maybe"}]}, "'wrong' or 'left_out'"),
        ({"interval": [0.6, 0.4]}, "low <= high"),
        ({"interval": [0.4]}, "low <= high"),
        ({"interval": [40.0, 60.0]}, "in percent"),
        ({"chance": 1.5}, "chance must lie in 0..1"),
        ({"rounds": [{"name": "1"}]}, "rounds must be one for each of 2"),
        ({"rounds": [{"name": "1", "score": 0.3}, {"name": "2"}]}, "round '1' must have its round_scores entry 0.25"),
        ({"rounds": [{"n_test": 40}, {"n_test": 41}]}, "total over rounds, 81, got 80"),
        ({"schema": 2}, "newer version of evar"),
        ({"id": "../../etc/passwd"}, "plain file name"),
        ({"id": "nul.x"}, "plain file name"),
        ({"flags": "random weights"}, "flags must be a list of text"),
    ],
)
def test_what_cannot_be_a_result(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Result.from_dict({**CONTRACT, **change})
    assert "\n" not in str(caught.value)


def test_a_list_is_no_result() -> None:
    with pytest.raises(ValueError, match="JSON object, got list"):
        Result.from_dict([CONTRACT])


def test_id_is_stable_and_readable() -> None:
    id = run_id(RUN)
    assert id.startswith("crepe.tiny__conv5__gm_pitch__linear__s0__")
    assert id == run_id(dict(reversed(RUN.items()))) == run_id({**RUN, "layers": ("conv5",), "seed": 0.0 + 0})
    assert run_id({**RUN, "clip_seconds": 5}) == run_id({**RUN, "clip_seconds": 5.0})
    assert run_id({**RUN, "clip_seconds": 5}) != run_id({**RUN, "clip_seconds": 5.1})


@pytest.mark.parametrize("key", results.IDENTITY_KEYS)
def test_whatever_can_change_a_number_changes_the_id(key: str) -> None:
    row = Result.from_dict(CONTRACT)
    base = {name: getattr(row, name) for name in results.IDENTITY_KEYS}
    assert run_id(base) == row.id
    assert run_id({**base, key: 7}) != row.id


def test_id_is_a_safe_file_name_on_every_system() -> None:
    long = [f"a_rather_long_layer_name_{index}" for index in range(60)]
    odd = [
        {
            **RUN,
            "encoder": "é/../\\:*?<>|x" * 9,
            "layers": long,
            "task": "t" * 99,
            "protocol": "p" * 99,
            "seed": 10**20,
        },
        {**RUN, "encoder": "aux.tiny"},
        {**RUN, "encoder": "-rf"},
        {**RUN, "encoder": "../up"},
        {**RUN, "encoder": ""},
    ]
    for settings in odd:
        id = run_id(settings)
        assert len(id) <= 140 and results.run_path(Path("results"), id).name == f"{id}.json"
        assert set(id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")
        assert id[0] not in ".-" and id.split(".")[0].lower() not in ("aux", "con", "nul", "prn")
    assert run_id({**RUN, "layers": long}) != run_id({**RUN, "layers": [*long[:-1], "other"]})


def test_id_needs_the_words_that_it_shows() -> None:
    with pytest.raises(ValueError, match="lacks task, seed"):
        run_id({"encoder": "a", "layers": ["b"], "protocol": "linear"})


@pytest.mark.parametrize("id", ["", "..", "a/b", "a\\b", ".hidden", "com1", "con.json", "a b", "x" * 200])
def test_an_id_never_leaves_its_folder(tmp_path: Path, id: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        results.run_path(tmp_path, id)
    with pytest.raises(ValueError, match="plain file name"):
        results.load_predictions(tmp_path, id)


def test_torn_and_foreign_files_are_named_and_left_out(tmp_path: Path) -> None:
    row = Result.from_dict(CONTRACT)
    path = results.save(row, tmp_path)
    whole = path.read_text(encoding="utf-8")
    for name, text in {
        "torn": whole[: len(whole) // 2],
        "empty": "",
        "foreign": '{"hello": 1}',
        "number": "3",
        "nan": whole.replace("1.25", "NaN"),
        "bytes": "\x00",
        "newer": whole.replace('"schema": 1', '"schema": 9'),
    }.items():
        (path.parent / f"{name}.json").write_text(text, encoding="utf-8")
    (path.parent / "copy.json").write_text(whole, encoding="utf-8")
    with pytest.warns(UserWarning) as caught:
        found = results.load_all(tmp_path)
    assert found == [row]
    said = " ".join(str(warning.message) for warning in caught)
    for name in ("torn", "empty", "foreign", "number", "nan", "bytes", "newer"):
        assert f"{name}.json" in said
    assert "repeats the result" in said
    with pytest.raises(ValueError, match=r"torn.json is not valid JSON.*interrupted"):
        results.load(path.parent / "torn.json")
    with pytest.raises(FileNotFoundError):
        results.load(path.parent / "absent.json")


def test_an_error_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Result.from_dict(CONTRACT)
    path = results.save(row, tmp_path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        results.save(dataclasses.replace(row, seconds=9.0), tmp_path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    row = Result.from_dict(CONTRACT)
    path = results.save(row, tmp_path)
    before = path.read_bytes()
    script = f"""
        import dataclasses, os, sys
        from pathlib import Path
        from evar import results
        os.replace = lambda *_: os._exit(9)
        results.save(dataclasses.replace(results.load(Path({str(path)!r})), seconds=9.0), Path({str(tmp_path)!r}))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == 9
    assert path.read_bytes() == before
    assert len(os.listdir(path.parent)) == 2  # what the killed process was writing stays behind, unseen
    assert results.load_all(tmp_path) == [row]


def test_the_data_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *values, name=name, real=real: (calls.append(name), real(*values)))
    write_atomic(tmp_path / "file", b"x")
    assert calls == ["fsync", "replace"]


def test_a_file_that_another_process_holds_open_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = os.replace, []

    def busy(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) < 3:
            raise PermissionError("in use")
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    write_atomic(tmp_path / "new" / "file", b"x")
    assert (tmp_path / "new" / "file").read_bytes() == b"x" and len(calls) == 3


def test_two_processes_save_at_once(tmp_path: Path) -> None:
    script = f"""
        import sys
        from pathlib import Path
        from evar import results
        me, out = int(sys.argv[1]), Path({str(tmp_path)!r})
        for step in range(40):
            for encoder in ("shared", f"own{{me}}.{{step}}"):
                row = results.Result.from_dict({{**{CONTRACT!r}, "encoder": encoder, "seconds": float(me)}})
                results.save(row, out)
            results.save_failure(out, {{"encoder": "shared", "task": "t"}}, "reason")
            assert all(found.seconds in (0.0, 1.0) for found in results.load_all(out))
            results.clear_failure(out, {{"encoder": "shared", "task": "t"}})
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    both = [subprocess.Popen([*command, str(index)]) for index in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(results.load_all(tmp_path)) == 81
    assert not list(tmp_path.rglob("*.tmp"))


def predictions() -> dict[str, list]:
    return {
        "clip": ["a.wav", "bé.wav", "a.wav"],
        "round": [0, 0, 1],
        "group": ["a", "b", "a"],
        "y_true": [0, 1, 0],
        "y_pred": [0, -1, 1],
    }


def test_predictions_round_trip(tmp_path: Path) -> None:
    path = results.save_predictions(tmp_path, "run", **predictions())
    assert path == tmp_path / "predictions" / "run.npz"
    found = results.load_predictions(tmp_path, "run")
    assert {name: values.tolist() for name, values in found.items()} == predictions()
    before = path.read_bytes()
    results.save_predictions(tmp_path, "run", **{name: np.asarray(values) for name, values in predictions().items()})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_pred": [0, 1]}, "y_pred must be 3 values, one per clip, got 2"),
        ({"y_pred": [0.0, 1.0, 1.0]}, "y_pred must be whole numbers, one per clip.*float64"),
        ({"clip": [1, 2, 3]}, "clip must be text, one per clip"),
        ({"group": [["a"], ["b"], ["c"]]}, r"group must be text, one per clip, got shape \(3, 1\)"),
        ({"y_true": [0, -1, 0]}, "y_true must be >= 0"),
        ({"y_pred": [0, -2, 0]}, "y_pred >= -1"),
        ({"clip": []}, "clip must be text, one per clip"),
    ],
)
def test_what_cannot_be_predictions(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        results.save_predictions(tmp_path, "run", **{**predictions(), **change})
    assert not (tmp_path / "predictions").exists()


def test_damaged_predictions_are_named(tmp_path: Path) -> None:
    path = results.save_predictions(tmp_path, "run", **predictions())
    whole = path.read_bytes()
    for data in (whole[:100], b"", b"not a zip"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"run.npz does not hold a run's predictions.*again"):
            results.load_predictions(tmp_path, "run")
    with pytest.raises(FileNotFoundError):
        results.load_predictions(tmp_path, "absent")


def test_pickled_predictions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    np.savez(tmp_path / "predictions" / "run.npz", clip=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="does not hold a run's predictions"):
        results.load_predictions(tmp_path, "run")


def test_failures_come_and_go(tmp_path: Path) -> None:
    cell = {"encoder": "ge2e", "task": "esc10", "layers": ["lstm1"], "seed": 0}
    results.save_failure(tmp_path, cell, "no clip\n could be read")
    results.save_failure(tmp_path, {**cell, "seed": 1}, "other seed")
    results.save_failure(tmp_path, {"encoder": "ge2e", "task": "esc10"}, "before the layers were known")
    results.save_failure(tmp_path, {"encoder": "aisfx", "task": "esc10"}, "other encoder")
    (tmp_path / "failures" / "foreign.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.warns(UserWarning, match="foreign.json"):
        assert {failure.reason for failure in results.load_failures(tmp_path)} == {
            "no clip could be read",
            "other seed",
            "before the layers were known",
            "other encoder",
        }
        results.clear_failure(tmp_path, {**cell, "limit": None})
        assert {failure.reason for failure in results.load_failures(tmp_path)} == {"other seed", "other encoder"}


def test_the_same_failure_is_kept_once(tmp_path: Path) -> None:
    for reason in ("first", "second"):
        results.save_failure(tmp_path, {"encoder": "ge2e", "task": "esc10", "layers": "all"}, reason)
    assert [failure.reason for failure in results.load_failures(tmp_path)] == ["second"]
    with pytest.raises(ValueError, match="lacks task"):
        results.save_failure(tmp_path, {"encoder": "ge2e"}, "reason")


def test_importing_results_is_light() -> None:
    script = "import sys, evar.results; print([m for m in ('torch', 'numpy', 'pandas', 'yaml') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
