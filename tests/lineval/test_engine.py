"""A grid in several processes, or on Ray: the same table, and a killed worker costs its own cell only."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toy import Bands

from evar import cli, results
from evar.cli import run
from evar.experiment.request import parse_request
from evar.experiment.resolving import resolve_request
from evar.experiment.settings import Settings
from evar.lineval.units import cut_units

TESTS = Path(__file__).resolve().parents[1]
#: for processes of their own, as `conftest.draw_nothing` does it here
DRAW_NOTHING = "from evar.figures import style; style._render = lambda figure: (b'no picture', b'no picture'); "


class Killed(Bands):
    """Its process is killed from outside, as a system short of memory does, unless a file forbids it."""

    def forward(self, waveform, lengths):
        if not Path(os.environ["EVAR_STORE"], "spare").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(waveform, lengths)


@pytest.fixture
def grid(tones, monkeypatch):
    """The tones task, twice by name, and an encoder whose process is killed."""
    root = tones(folds=True)
    tasks = root / "config" / "tasks"
    entry = yaml.safe_load((tasks / "tones.yaml").read_text())
    with open(tasks / "tones.csv", newline="") as file:
        rows = list(csv.reader(file))
    with open(tasks / "again.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    (tasks / "again.yaml").write_text(yaml.safe_dump({**entry, "index": "again.csv"}))
    killed = {
        "implementation": "test_engine:Killed",
        "description": "dies",
        "trained_on": "nothing",
        "citation": "none",
    }
    (root / "config" / "encoders" / "toy_killed.yaml").write_text(yaml.safe_dump(killed))
    monkeypatch.syspath_prepend(str(TESTS))
    folders = [str(Path(__file__).parent), str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    return root


def table(root: Path, out: str) -> str:
    return (root / out / "table.md").read_text()


def test_two_processes_give_the_table_of_one_and_encode_each_clip_once(grid, capsys):
    words = ["lineval", "toy,toy_fragile,logmel", "tones,again", "--layers=all", "--seeds=2"]
    assert run([*words, f"--out={grid / 'one'}", f"--store={grid / 's1'}"]) == cli.DONE
    serial = capsys.readouterr().out.splitlines()
    assert run([*words, f"--out={grid / 'two'}", f"--store={grid / 's2'}", "--jobs=2"]) == cli.DONE
    side_by_side = capsys.readouterr().out.splitlines()
    assert table(grid, "one") == table(grid, "two")
    counts = [line for line in serial if "clips encoded" in line]
    assert counts and counts == [line for line in side_by_side if "clips encoded" in line]
    assert {path.name for path in (grid / "one" / "runs").iterdir()} == {
        p.name for p in (grid / "two" / "runs").iterdir()
    }


def test_a_killed_worker_costs_its_cell_and_the_same_command_goes_on(grid, capsys):
    words = ["lineval", "toy,toy_killed", "tones", f"--out={grid / 'results'}", "--jobs=2"]
    assert run(words) == cli.SOME_FAILED
    (failure,) = results.load_failures(grid / "results")
    assert "killed by signal 9" in failure.reason and "goes on" in failure.reason
    assert failure.cell["encoder"] == "toy_killed"
    assert [row.encoder for row in results.load_all(grid / "results")] == ["toy"]
    (grid / "store").mkdir(exist_ok=True)
    (grid / "store" / "spare").touch()
    assert run(words) == cli.DONE
    assert not results.load_failures(grid / "results")
    assert {row.encoder for row in results.load_all(grid / "results")} == {"toy", "toy_killed"}


def test_a_failing_cell_of_a_worker_is_the_failure_of_the_grid(grid, capsys):
    assert run(["lineval", "toy,toy_broken", "tones", f"--out={grid / 'results'}", "--jobs=2"]) == cli.SOME_FAILED
    (failure,) = results.load_failures(grid / "results")
    assert "broken on purpose" in failure.reason


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_only_some_cells(grid, jobs):
    words = ["lineval", "toy,toy_fragile", "tones,again", f"--out={grid / 'results'}", f"--jobs={jobs}"]
    assert run([*words, "--only=toy:again,toy_fragile:tones"]) == cli.DONE
    found = {(row.encoder, row.task) for row in results.load_all(grid / "results")}
    assert found == {("toy", "again"), ("toy_fragile", "tones")}
    assert run([*words, "--only=toy:tnoes"]) == cli.WRONG


def test_a_search_keeps_its_tasks_and_a_variant_its_base():
    names = "ast,ast.fusion_5_12,logmel"
    units = cut_units(resolve_request(parse_request(names, "esc10,gm_pitch", fusion="search", export="general")))
    assert [one.encoders for one in units] == [("ast", "ast.fusion_5_12"), ("logmel",)]
    for one in units:
        assert all([spec.task for spec in one.list_cells(name)] == ["esc10", "gm_pitch"] for name in one.encoders)
    exports = [one.searches[one.encoders[0]].export for one in units]
    assert exports == ["ast.general", "logmel.general"]  # as the whole grid names them


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engine": "rya"}, "did you mean 'ray'"),
        ({"address": "auto"}, "needs --engine=ray"),
        ({"jobs": 0}, "jobs must be at least 1"),
    ],
)
def test_wrong_engines_are_named(values, said):
    with pytest.raises(ValueError, match=said):
        Settings(("logmel",), ("esc10",), **values)


def test_where_a_cluster_has_gpus_they_encode_and_do_not_wait_for_probes(grid):
    """The GPU is one by name only: what is tested is which task asks for it, and that the second encodes nothing."""
    pytest.importorskip("ray", reason="ray is optional: pip install 'evar-audio[ray]'")
    words = ["lineval", "toy,toy_broken", "tones", "--layers=all", f"--out={grid / 'ray'}", "--engine=ray"]
    code = f"""
{DRAW_NOTHING}
import os, ray
ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, runtime_env={{"env_vars": {{
    name: value for name, value in os.environ.items() if name.startswith("EVAR_") or name == "PYTHONPATH"}}}})
from evar.cli import run
asked = []
remote = ray.remote
def noted(**needs):
    def of(function):
        asked.append((function.__name__, needs.get("num_gpus", 0)))
        return remote(**needs)(function)
    return of
ray.remote = noted
status = run({words!r})
print("ASKED", sorted(asked))
raise SystemExit(status)
"""
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=grid, capture_output=True, text=True)
    assert done.returncode == cli.SOME_FAILED, done.stdout + done.stderr
    assert "ASKED [('encode_unit', 1), ('run_unit', 0)]" in done.stdout
    assert "36 clips encoded" in done.stdout and "2 rows, 2 of them new" in done.stdout
    (failure,) = results.load_failures(grid / "ray")
    assert failure.cell["encoder"] == "toy_broken" and "broken on purpose" in failure.reason


def test_ray_gives_the_same_table_and_a_killed_worker_costs_its_cell(grid, monkeypatch):
    pytest.importorskip("ray", reason="ray is optional: pip install 'evar-audio[ray]'")
    words = ["lineval", "toy,toy_killed,toy_fragile", "tones,again", "--layers=all"]
    words += ["--jobs=2"]
    monkeypatch.setenv("EVAR_STORE", str(grid / "local" / "s"))
    local = [f"--out={grid / 'local'}", f"--store={grid / 'local' / 's'}", "--engine=local"]
    assert run([*words, *local]) == cli.SOME_FAILED
    out = [f"--out={grid / 'ray'}", f"--store={grid / 'ray' / 's'}", "--engine=ray"]
    code = f"{DRAW_NOTHING}from evar.cli import run; raise SystemExit(run({[*words, *out]!r}))"
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "EVAR_STORE": str(grid / "ray" / "s")}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=grid, capture_output=True, text=True)
    assert done.returncode == cli.SOME_FAILED, done.stdout + done.stderr
    assert "worker died" in done.stdout
    rows = {engine: results.load_all(grid / engine) for engine in ("local", "ray")}
    scores = {engine: {row.id: row.score for row in of_engine} for engine, of_engine in rows.items()}
    assert scores["local"] == scores["ray"] and len(scores["ray"]) == 8
