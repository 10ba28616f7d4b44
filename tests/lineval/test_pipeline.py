"""From audio on disk to a table: right on planted data, chance on shuffled labels, computed once, safe to kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from toy import Bands

from evar import cli, results
from evar.cli import run

TESTS = Path(__file__).resolve().parents[1]


def lineval(root: Path, *words: str) -> int:
    return run(["lineval", *words, f"--out={root / 'results'}"])


def rows(root: Path) -> dict[tuple[str, ...], results.Result]:
    return {(row.encoder, "+".join(row.layers), str(row.seed)): row for row in results.load_all(root / "results")}


def test_separable_tones_are_told_apart_and_the_level_is_not_enough(tones):
    root = tones(n_per_class=20)
    assert lineval(root, "toy", "tones", "--layers=all") == cli.DONE
    found = rows(root)
    assert found["toy", "bands", "0"].score >= 0.95
    assert found["toy", "level", "0"].score < found["toy", "bands", "0"].score


def test_shuffled_labels_give_chance(tones):
    root = tones(n_per_class=60, folds=True, shuffled=True)
    assert lineval(root, "toy", "tones") == cli.DONE
    (row,) = rows(root).values()
    assert row.n_test == 180 and abs(row.score - 1 / 3) < 4 * np.sqrt(2 / 9 / 180)


def test_a_row_tells_all_that_a_rerun_needs(tones):
    root = tones(folds=True)
    assert lineval(root, "toy", "tones", "--seeds=2") == cli.DONE
    for path in (root / "results" / "runs").iterdir():
        row = json.loads(path.read_text())
        contract = (
            "encoder, weights, weights_sha256, layers, fusion, pooling, task, task_version, protocol, params, seed, "
            "metric, score, round_scores, n_train, n_valid, n_test, skipped, seconds, versions, created"
        )
        assert set(contract.split(", ")) <= set(row)
        assert len(row["round_scores"]) == 3 == len(row["rounds"]) and row["n_test"] == 36
        assert row["score"] == pytest.approx(np.mean(row["round_scores"]))
        assert row["params"]["strengths"] and len(row["params"]["chosen_strengths"]) == 3
        assert "by group" in row["params"]["validation"] and f"seed {row['seed']}" in row["params"]["validation"]
        assert row["interval"][0] <= row["score"] <= row["interval"][1]
        predicted = results.load_predictions(root / "results", row["id"])
        assert (predicted["y_true"] == predicted["y_pred"]).mean() == pytest.approx(row["score"])
    assert {seed for _, _, seed in rows(root)} == {"0", "1"}


def test_seeds_are_not_repeated_where_nothing_is_random(tones):
    root = tones()
    assert lineval(root, "toy", "tones", "--seeds=3") == cli.DONE
    assert len(rows(root)) == 1


def test_second_run_computes_nothing_and_a_removed_row_only_itself(tones, capsys):
    root = tones(folds=True)
    assert lineval(root, "toy", "tones", "--layers=all") == cli.DONE
    table = (root / "results" / "table.md").read_text()
    runs = {path.name: path.stat().st_mtime_ns for path in (root / "results" / "runs").iterdir()}
    Bands.calls.clear()
    capsys.readouterr()
    assert lineval(root, "toy", "tones", "--layers=all") == cli.DONE
    assert not Bands.calls and "0 of them new; 0 clips encoded" in capsys.readouterr().out
    (removed,) = (root / "results" / "runs").glob("toy__level*")
    removed.unlink()
    assert lineval(root, "toy", "tones", "--layers=all") == cli.DONE
    assert not Bands.calls and "1 of them new; 0 clips encoded" in capsys.readouterr().out
    again = {path.name: path.stat().st_mtime_ns for path in (root / "results" / "runs").iterdir()}
    assert {name for name in runs if again[name] != runs[name]} == {removed.name}
    assert (root / "results" / "table.md").read_text() == table


def test_one_forward_per_clip_whatever_the_folds_layers_and_seeds(tones):
    root = tones(folds=True)
    assert lineval(root, "toy", "tones", "--layers=all", "--seeds=3") == cli.DONE
    assert lineval(root, "toy", "tones", "--layers=level,bands", "--fusion=concat") == cli.DONE
    assert sum(Bands.calls) == 36
    assert rows(root)["toy", "level+bands", "0"].width == 17


def test_a_failing_cell_is_told_and_the_others_go_on(tones, capsys):
    root = tones()
    assert lineval(root, "toy_broken,toy", "tones") == cli.SOME_FAILED
    out = capsys.readouterr().out
    assert "toy_broken x tones FAILED: RuntimeError: this encoder is broken on purpose" in out
    assert len(rows(root)) == 1
    table = (root / "results" / "table.md").read_text()
    assert "failed" in table and "this encoder is broken on purpose" in table


def test_a_failure_is_forgotten_when_the_cell_succeeds(tones, monkeypatch):
    root = tones()
    forward = Bands.forward
    monkeypatch.setattr(Bands, "forward", lambda *arguments: (_ for _ in ()).throw(RuntimeError("for now")))
    assert lineval(root, "toy", "tones") == cli.SOME_FAILED
    monkeypatch.setattr(Bands, "forward", forward)
    assert lineval(root, "toy", "tones") == cli.DONE
    assert not results.load_failures(root / "results")
    assert "for now" not in (root / "results" / "table.md").read_text()


def test_bad_test_clips_count_as_wrong_unless_left_out(tones, capsys):
    root = tones(n_per_class=20)
    for name in ("low_3", "low_7", "low_0"):  # two test clips and a training clip
        (root / "data" / "tones" / f"{name}.wav").write_bytes(b"junk")
    assert lineval(root, "toy", "tones") == cli.DONE
    assert "bad clip low_3.wav: not decodable" in capsys.readouterr().out
    (row,) = rows(root).values()
    assert row.n_test == 15 and row.score == pytest.approx(13 / 15) and row.n_train == 29
    assert {(entry["clip"], entry["counted"]) for entry in row.skipped} == {
        ("low_0.wav", "left_out"), ("low_3.wav", "wrong"), ("low_7.wav", "wrong"),
    }  # fmt: skip
    assert "low_3.wav" in json.dumps(row.to_dict()) and "wrong" in (root / "results" / "table.md").read_text()
    assert run(["lineval", "toy", "tones", "--skip_bad", f"--out={root / 'other'}"]) == cli.DONE
    (row,) = results.load_all(root / "other")
    assert row.n_test == 13 and row.score == 1.0
    assert {entry["counted"] for entry in row.skipped} == {"left_out"}
    assert "left out" in (root / "other" / "table.md").read_text()


def test_missing_clips_fail_the_cell_before_work(tones, capsys):
    root = tones()
    (root / "data" / "tones" / "low_3.wav").unlink()
    assert lineval(root, "toy", "tones") == cli.SOME_FAILED
    assert "1 of 36 clips missing" in capsys.readouterr().out and not Bands.calls
    assert lineval(root, "toy", "tones", "--skip_bad") == cli.DONE


def test_test_labels_choose_nothing(tones, tmp_path):
    """Poisoned test labels change the score and nothing else."""
    import pandas as pd

    root = tones(n_per_class=20)
    assert lineval(root, "toy", "tones") == cli.DONE
    (before,) = rows(root).values()
    index = root / "config" / "tasks" / "tones.csv"
    frame = pd.read_csv(index, dtype=str)
    poisoned = frame["split"] == "test"
    frame.loc[poisoned, "label"] = frame.loc[poisoned, "label"].map({"low": "high", "middle": "low", "high": "middle"})
    frame.to_csv(index, index=False)
    assert run(["lineval", "toy", "tones", f"--out={root / 'poisoned'}"]) == cli.DONE
    (after,) = results.load_all(root / "poisoned")
    assert after.score == 0.0 and before.score == 1.0
    assert after.params == before.params and after.rounds[0]["valid_score"] == before.rounds[0]["valid_score"]


def test_random_weights_are_marked(tones):
    root = tones()
    assert lineval(root, "toy", "tones", "--weights=random") == cli.DONE
    (row,) = rows(root).values()
    assert row.weights == "random" and row.flags == ("random weights",) and len(row.weights_sha256) == 64
    assert "random weights" in (root / "results" / "table.md").read_text()


def test_limits_are_other_rows(tones):
    root = tones()
    assert lineval(root, "toy", "tones", "--limit=6") == lineval(root, "toy", "tones") == cli.DONE
    assert {row.limit for row in results.load_all(root / "results")} == {6, None}
    assert sum(Bands.calls) == 36


def test_dry_run_computes_nothing_and_says_what_is_stored(tones, capsys):
    root = tones()
    assert lineval(root, "toy", "tones", "--layers=all", "--dry_run") == cli.DONE
    out = capsys.readouterr().out
    assert "toy x tones: 2 of 2 rows to compute; 36 of 36 clips to encode, 18 s of audio" in out
    assert not (root / "results").exists() and not list((root / "store").glob("toy"))
    assert lineval(root, "toy", "tones") == cli.DONE
    capsys.readouterr()
    assert lineval(root, "toy", "tones", "--layers=all", "--dry_run") == cli.DONE
    assert "1 of 2 rows to compute; 0 of 36 clips to encode" in capsys.readouterr().out


def test_a_grid_file_says_what_the_command_line_would(tones):
    root = tones()
    grid = root / "mine.yaml"
    grid.write_text("description: x\nencoders: [toy]\ntasks: [tones]\nlayers: all\n")
    assert lineval(root, str(grid)) == cli.DONE and len(rows(root)) == 2
    grid.write_text("description: x\nencoders: [toy]\ntasks: [tones]\nlayer: all\n")
    assert lineval(root, str(grid)) == cli.WRONG


def list_words(root: Path, out: str, store: str) -> list[str]:
    return [
        "lineval",
        "toy",
        "tones",
        "--layers=all",
        "--batch_size=3",
        f"--out={root / out}",
        f"--store={root / store}",
    ]


def spawn(root: Path, out: str, store: str, **options) -> subprocess.Popen:
    """The same command line in a process of its own, with a slow encoder so that there is a middle."""
    code = (
        "import sys, time, toy\n"
        "forward = toy.Bands.forward\n"
        "def slow(self, waveform, lengths):\n"
        "    time.sleep(float(sys.argv[1]))\n"
        "    print('forward', len(waveform), flush=True)\n"
        "    return forward(self, waveform, lengths)\n"
        "toy.Bands.forward = slow\n"
        "from evar.figures import style\n"
        "style._render = lambda figure: (b'no picture', b'no picture')\n"
        "from evar.cli import run\n"
        "sys.exit(run(sys.argv[2:]))\n"
    )
    words = list_words(root, out, store)
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": path, **options.pop("environment", {})}
    delay = str(options.pop("delay", 0.2))
    return subprocess.Popen(
        [sys.executable, "-c", code, delay, *words], env=environment, stdout=subprocess.PIPE, text=True, cwd=root
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is a POSIX signal")
def test_kill_9_in_the_middle_and_a_rerun_give_the_identical_table(tones):
    root = tones(unequal=True)
    assert run(list_words(root, "whole", "whole_store")) == cli.DONE
    victim = spawn(root, "killed", "killed_store", delay=0.15)
    for _ in range(4):  # some batches are done, others are not
        victim.stdout.readline()
    victim.kill()
    victim.wait()
    assert not (root / "killed" / "table.md").exists()
    second = spawn(root, "killed", "killed_store", delay=0)
    printed, _ = second.communicate(timeout=120)
    assert second.returncode == cli.DONE
    encoded = sum(int(line.split()[1]) for line in printed.splitlines() if line.startswith("forward"))
    assert 0 < encoded < 36
    for name in ("table.md", "layers.md"):
        assert (root / "killed" / name).read_text() == (root / "whole" / name).read_text()
    scores = [{row.id: row.score for row in results.load_all(root / out)} for out in ("whole", "killed")]
    assert scores[0] == scores[1] and len(scores[0]) == 2


def test_two_runs_at_once_on_one_store_and_one_results_folder_lose_nothing(tones):
    root = tones()
    began = time.perf_counter()
    both = [spawn(root, "results", "store", delay=0.1) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [cli.DONE, cli.DONE], printed
    encoded = sum(int(line.split()[1]) for text in printed for line in text.splitlines() if line.startswith("forward"))
    assert encoded == 36, f"each clip once over both runs ({time.perf_counter() - began:.0f} s)"
    assert len(results.load_all(root / "results")) == 2
    assert not list((root / "results").rglob("*.tmp"))
