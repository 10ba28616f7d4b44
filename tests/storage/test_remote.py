"""Results and stores at an address: two machines share them, a killed one loses nothing, names cannot lead astray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import Bands

from evar import cli, results
from evar.cli import run
from evar.storage import atomic
from evar.storage import mirror as remote
from evar.storage.mirror import Mirror, at_hand


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Go to another machine: another cache folder, nothing remembered. Results and store are at one address for all."""

    def arrive(name: str) -> None:
        monkeypatch.setenv("EVAR_CACHE", str(tmp_path / name))
        monkeypatch.setenv("EVAR_STORE", f"file://{tmp_path}/shared/store")
        monkeypatch.setattr(remote, "_results", {})
        monkeypatch.setattr(atomic, "listeners", {})
        Bands.calls.clear()

    return arrive


def lineval(tmp_path: Path, *words: str) -> int:
    return run(["lineval", "toy", "tones", *words, f"--out=file://{tmp_path}/shared/results"])


def test_a_second_machine_encodes_and_computes_nothing_again(tones, machine, tmp_path, capsys, real_pictures) -> None:
    tones(folds=True)
    machine("one")
    assert lineval(tmp_path, "--layers=all") == cli.DONE
    assert sum(Bands.calls) == 36
    shared = tmp_path / "shared" / "results"
    assert len(list(shared.glob("runs/*.json"))) == 2 == len(list(shared.glob("predictions/*.npz")))
    assert (shared / "table.md").is_file() and (shared / "layers.png").is_file()
    machine("two")
    assert lineval(tmp_path, "--layers=all") == cli.DONE
    assert not Bands.calls and "0 of them new; 0 clips encoded" in capsys.readouterr().out
    machine("three")  # another protocol there: rows are new, vectors are not
    assert lineval(tmp_path, "--layers=all", "--protocol=prototype") == cli.DONE
    assert not Bands.calls and "2 of them new; 0 clips encoded" in capsys.readouterr().out
    machine("one")
    assert run(["compare", f"--out=file://{shared}"]) == cli.DONE
    assert "prototype" in capsys.readouterr().out
    row = next(shared.glob("runs/*.json"))
    assert run(["rerun", str(row)]) == cli.DONE


def test_frames_are_shared_too(tones, machine, tmp_path) -> None:
    tones(n_per_class=16)
    for name, n_encoded in (("one", 48), ("two", 0)):
        machine(name)
        (tmp_path / "shared" / "results").mkdir(parents=True, exist_ok=True)
        out = f"--out=file://{tmp_path}/shared/results_of_{name}"
        assert run(["lineval", "toy", "tones", "--protocol=attentive", "--learning_rate=0.01", out]) == cli.DONE
        assert sum(Bands.calls) == n_encoded


def test_what_a_killed_run_did_not_upload_follows(tones, machine, tmp_path) -> None:
    tones()
    machine("one")
    assert lineval(tmp_path) == cli.DONE
    shared = tmp_path / "shared"
    for lost in [*shared.glob("store/*/*/segment-*/*"), *shared.glob("results/runs/*")]:
        lost.unlink()
    machine("one")
    assert lineval(tmp_path, "--layers=all") == cli.DONE and not Bands.calls
    machine("two")
    assert lineval(tmp_path, "--layers=all") == cli.DONE and not Bands.calls


def test_a_longer_local_segment_is_not_overwritten(machine, tmp_path) -> None:
    machine("one")
    mirror = Mirror(f"file://{tmp_path}/shared/store")
    local, there = mirror.folder / "toy/k/segment-1/a.f32", tmp_path / "shared/store/toy/k/segment-1/a.f32"
    for path, data in ((local, b"12345678"), (there, b"1234")):
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    mirror.fetch("toy/k", grows=True)
    assert local.read_bytes() == there.read_bytes() == b"12345678"
    there.write_bytes(b"123456789012")
    mirror.fetch("toy/k", grows=True)
    assert local.read_bytes() == b"123456789012"


def test_a_record_of_equal_size_and_other_content_replaces_the_local_one(machine, tmp_path) -> None:
    machine("one")
    shared = tmp_path / "shared/results/runs/a.json"
    shared.parent.mkdir(parents=True)
    shared.write_bytes(b'{"score": 0.51}')
    address = f"file://{tmp_path}/shared/results"
    local = Path(at_hand(address)) / "runs/a.json"
    assert local.read_bytes() == b'{"score": 0.51}'
    shared.write_bytes(b'{"score": 0.99}')
    at_hand(address)
    assert local.read_bytes() == b'{"score": 0.99}'
    machine("one")  # another process, which remembers nothing
    shared.write_bytes(b'{"score": 0.12}')
    at_hand(address)
    assert local.read_bytes() == b'{"score": 0.12}'


def test_a_record_that_is_known_is_not_fetched_again(machine, tmp_path, monkeypatch) -> None:
    machine("one")
    shared = tmp_path / "shared/results/runs/a.json"
    shared.parent.mkdir(parents=True)
    shared.write_bytes(b"{}")
    at_hand(f"file://{tmp_path}/shared/results")
    machine("one")
    monkeypatch.setattr(Mirror, "_download", lambda self, name: pytest.fail(f"{name} is fetched again"))
    at_hand(f"file://{tmp_path}/shared/results")


def test_the_commit_record_is_uploaded_last(machine, tmp_path, monkeypatch) -> None:
    machine("one")
    mirror = Mirror(f"file://{tmp_path}/shared/store")
    segment = mirror.folder / "toy/k/segment-1"
    segment.mkdir(parents=True)
    for name in ("rows.jsonl", "z.f32", "widths.json", ".lock.tmp"):
        (segment / name).write_text("x")
    sent: list[str] = []
    monkeypatch.setattr(mirror, "send", lambda path: sent.append(path.name))
    mirror.send_folder(segment)
    assert sent[-1] == "rows.jsonl" and sorted(sent) == ["rows.jsonl", "widths.json", "z.f32"]
    sent.clear()
    mirror.fetch("toy/k", grows=True)
    assert sent[-1] == "rows.jsonl" and len(sent) == 3


def test_a_failure_that_another_machine_cleared_is_gone(tones, machine, tmp_path, capsys) -> None:
    tones()
    machine("one")
    out = f"file://{tmp_path}/shared/results"
    assert run(["lineval", "toy_broken", "tones", f"--out={out}"]) == cli.SOME_FAILED
    shared = tmp_path / "shared" / "results"
    (failure,) = (shared / "failures").glob("*.json")
    assert json.loads(failure.read_text())["cell"]["encoder"] == "toy_broken"
    machine("two")
    results.clear_failure(Path(at_hand(out)), json.loads(failure.read_text())["cell"])
    assert not failure.exists()
    machine("one")
    assert not results.load_failures(Path(at_hand(out)))


def test_names_that_lead_outside_are_refused(machine, tmp_path, monkeypatch) -> None:
    machine("one")
    mirror = Mirror(f"file://{tmp_path}/shared/store")
    root = mirror._root
    for name in (f"{root}/runs/../../../evil", "/elsewhere/evil"):
        found = {name: {"size": 1, "type": "file"}}
        monkeypatch.setattr(mirror._files, "find", lambda *_, found=found, **__: found)
        with pytest.raises(ValueError, match="outside"):
            mirror.fetch("runs", grows=False)


def test_addresses_that_nobody_knows_are_told(tones, machine, tmp_path, capsys) -> None:
    tones()
    machine("one")
    assert run(["lineval", "toy", "tones", "--out=nosuch://bucket/results"]) == cli.WRONG
    assert "cannot open nosuch://bucket/results" in capsys.readouterr().err


def test_processes_of_one_machine_share_an_address(tones, machine, tmp_path) -> None:
    tones()
    machine("one")
    assert lineval(tmp_path, "--jobs=2", "--layers=all") == cli.DONE
    assert len(list((tmp_path / "shared" / "results").glob("runs/*.json"))) == 2


def test_frames_of_more_layers_at_the_address_are_found(tones, machine, tmp_path) -> None:
    tones(n_per_class=16)
    for name, words, n_encoded in (("one", [], 48), ("two", ["--layers=bands"], 0)):
        machine(name)
        out = f"--out=file://{tmp_path}/shared/results_of_{name}"
        Bands.calls.clear()
        words = ["lineval", "toy", "tones", "--protocol=attentive", "--learning_rate=0.01", *words]
        assert run([*words, out]) == cli.DONE
        assert sum(Bands.calls) == n_encoded
