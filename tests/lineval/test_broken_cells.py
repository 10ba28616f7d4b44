"""What goes wrong in one layer, one label or one process costs no more than that, and is told with its reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from toy import HOP, Bands, write_config

from evar import cli, results
from evar.cli import run
from evar.encoders.features import LayerInfo
from evar.experiment.spec import Resources
from evar.lineval.processes import describe_end
from evar.lineval.ray_cluster import check_reachable

TESTS = Path(__file__).resolve().parent


class HalfBroken(Bands):
    """A layer that is finite, and one that is not for loud sounds, or never."""

    layer_infos = (LayerInfo("bands", 16, HOP, "mean"), LayerInfo("deep", 16, HOP, "mean"))
    default_layers = ("bands",)

    def forward(self, waveform, lengths):
        bands = super().forward(waveform, lengths)["bands"]
        return {"bands": bands, "deep": bands * float("nan")}


class Stuck(Bands):
    """Writes that it has begun, then waits for longer than any test."""

    def forward(self, waveform, lengths):
        Path(os.environ["EVAR_STORE"]).with_name(f"begun.{os.getpid()}").touch()
        time.sleep(600)


def add_encoder(root: Path, name: str, class_name: str) -> None:
    entry = {
        "implementation": f"test_broken_cells:{class_name}",
        "description": "x",
        "trained_on": "x",
        "citation": "x",
    }
    (root / "config" / "encoders" / f"{name}.yaml").write_text(yaml.safe_dump(entry))


def test_a_layer_that_is_not_finite_costs_its_own_rows_only(tones, capsys, monkeypatch):
    root = tones()
    monkeypatch.syspath_prepend(str(TESTS))
    add_encoder(root, "toy_half", "HalfBroken")
    out = f"--out={root / 'results'}"
    assert run(["lineval", "toy_half", "tones", "--layers=all", out]) == cli.SOME_FAILED
    (row,) = results.load_all(root / "results")
    assert row.layers == ("bands",) and row.score > 0.9 and not row.skipped
    (failure,) = results.load_failures(root / "results")
    assert "layer deep is not finite for 36 of 36 clips" in failure.reason and failure.cell["layers"] == "deep"
    assert run(["lineval", "toy_half", "tones", "--layers=bands", f"--out={root / 'one'}"]) == cli.DONE
    capsys.readouterr()
    assert run(["lineval", "toy_half", "tones", "--fusion=search", f"--out={root / 'two'}"]) == cli.SOME_FAILED
    assert "at least 2 layers that are finite" in capsys.readouterr().out
    assert [row.layers for row in results.load_all(root / "two")] == [("bands",)]


def move_split(root: Path, label: str, old: str, new: str) -> None:
    index = root / "config" / "tasks" / "tones.csv"
    lines = index.read_text().splitlines()
    moved = [line.replace(f",{label},{old},", f",{label},{new},") for line in lines]
    index.write_text("\n".join(moved) + "\n")


def test_a_class_without_training_clips_is_told_and_recorded(tones, capsys):
    root = tones()
    move_split(root, "high", "train", "test")
    move_split(root, "high", "valid", "test")
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.DONE
    (row,) = results.load_all(root / "results")
    n_test, n_lost = row.n_test, 12
    sentence = f"{n_lost} of {n_test} test clips are of classes without training clips (high)"
    assert sentence in row.flags and f"{sentence}: they count as wrong" in capsys.readouterr().out
    assert row.score <= 1 - n_lost / n_test


def test_a_single_training_class_and_an_empty_test_set_are_told_before_anything_is_encoded(tones, capsys):
    root = tones()
    for label in ("middle", "high"):
        move_split(root, label, "train", "test")
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.SOME_FAILED
    assert "training clips are of class 'low', but a probe needs at least 2 classes" in capsys.readouterr().out
    for label in ("low", "middle", "high"):
        move_split(root, label, "test", "train")
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.SOME_FAILED
    assert "the index has no test clips" in capsys.readouterr().out
    assert not Bands.calls


def test_a_killed_worker_is_no_proof_of_too_little_memory():
    reason = describe_end(-signal.SIGKILL)
    assert "killed by signal 9 (SIGKILL)" in reason and "goes on" in reason
    from evar.experiment.outcome import explain_error

    assert not explain_error(OSError(reason)).startswith("out of memory")


def test_an_unreachable_cluster_is_told_at_once():
    began = time.monotonic()
    with pytest.raises(OSError, match=r"no Ray cluster answers at ray://127.0.0.1:9 .*ray status"):
        check_reachable("ray://127.0.0.1:9")
    assert time.monotonic() - began < 15
    with pytest.raises(OSError, match="must be auto or ray://HOST:PORT"):
        check_reachable("ray://host:port")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_do_not_outlive_their_parent(tmp_path, number):
    config = write_config(tmp_path)
    add_encoder(tmp_path, "toy_stuck", "Stuck")
    env = {
        **os.environ,
        "EVAR_CONFIG": str(config),
        "EVAR_DATA": str(tmp_path / "data"),
        "EVAR_STORE": str(tmp_path / "store"),
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]),
    }
    words = ["lineval", "toy_stuck", "tones", "--jobs=2", f"--out={tmp_path / 'results'}"]
    code = f"from evar.cli import run; raise SystemExit(run({words!r}))"
    parent = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not (begun := list(tmp_path.glob("begun.*"))) and time.monotonic() < deadline:
            assert parent.poll() is None
            time.sleep(0.2)
        worker = int(begun[0].suffix[1:])
        parent.send_signal(number)
        parent.wait(timeout=60)
        while is_alive(worker) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not is_alive(worker)
    finally:
        parent.kill()


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_the_device_of_a_request_reaches_probes_that_are_trained(tones, monkeypatch):
    from evar.probes.targets import TrainedProbe

    seen = []
    plain = TrainedProbe.place
    monkeypatch.setattr(TrainedProbe, "place", lambda probe: seen.append(probe.device) or plain(probe))
    root = tones(n_per_class=16)
    words = ["lineval", "toy", "tones", "--protocol=mlp", "--seeds=1", "--learning_rate=0.01", "--device=cpu"]
    assert run([*words, f"--out={root / 'results'}"]) == cli.DONE
    assert seen and set(seen) == {"cpu"}
    assert Resources().device == "auto"


def test_scores_from_probabilities_hold_four_digits(tones):
    root = tones()
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.DONE
    (row,) = results.load_all(root / "results")
    for value in (row.extras["calibration_error"], row.rounds[0]["valid_log_loss"]):
        assert value == round(value, 4) and np.isfinite(value)


def test_odd_sounds_are_told_before_a_run_and_recorded_in_the_row(tones, capsys):
    root = tones()
    for number, path in enumerate(sorted((root / "data").rglob("*.wav"))):
        samples, rate = soundfile.read(path, dtype="float32")
        soundfile.write(path, samples * 32768 if number % 2 else samples * 0, rate, subtype="FLOAT")
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.DONE
    lines = [line for line in capsys.readouterr().out.splitlines() if "clips looked at" in line]
    assert len(lines) == 1 and "far beyond full scale" in lines[0] and "are silent" in lines[0]
    (row,) = results.load_all(root / "results")
    assert all(text in lines[0] for text in row.settings["warnings"]) and len(row.settings["warnings"]) == 2
