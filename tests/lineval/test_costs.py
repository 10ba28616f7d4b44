"""What encoding costs is measured, kept beside the vectors, and shown on request; it changes nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

from evar import evaluate, results
from evar.cli import DONE, run
from evar.storage.costs import NAME, EncodingCost, append_cost, load_costs


def test_costs_are_measured_kept_and_shown(tones, capsys) -> None:
    root: Path = tones(n_per_class=8)
    out = root / "results"
    outcome = evaluate("toy", "tones", out=str(out))
    (file,) = (root / "store").rglob(NAME)
    (measured,) = load_costs(file.parent)
    assert measured.n_clips == 24 and measured.seconds > 0 and abs(measured.audio_seconds - 12.0) < 0.1
    (record,) = results.load_costs(out)
    assert record.matches(outcome.rows[0]) and record.parameters >= 0 and record.device.startswith("cpu")
    assert record.seconds_per_second is not None and record.bytes_per_clip > 0

    plain = (out / "table.md").read_text() if (out / "table.md").exists() else ""
    assert "s per s of audio" not in plain
    assert run(["compare", f"--out={out}", "--cost"]) == DONE
    assert "s per s of audio" in capsys.readouterr().out
    with open(out / "compare.csv", newline="") as table:
        (line,) = csv.DictReader(table)
    assert int(line["parameters"]) == record.parameters and float(line["seconds_per_second"]) > 0
    assert "s per s of audio" in (out / "table.md").read_text()
    assert run(["compare", f"--out={out}"]) == DONE
    assert "parameters" not in (out / "compare.csv").read_text()


def test_a_store_without_costs_stays_valid(tones) -> None:
    root: Path = tones(n_per_class=8)
    first = evaluate("toy", "tones", out=str(root / "results"))
    for file in (root / "store").rglob(NAME):
        file.unlink()
    again = evaluate("toy", "tones", out=str(root / "again"))
    assert again.n_encoded == 0 and again.rows[0].score == first.rows[0].score
    (record,) = results.load_costs(root / "again")
    assert record.seconds is None and record.seconds_per_second is None


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    append_cost(tmp_path, EncodingCost(1.0, 10.0, 3, "cpu", 1))
    with open(tmp_path / NAME, "a") as file:
        file.write('{"seconds": "x"}\n[1]\nno json\n{"seconds": NaN, "audio_seconds": 1, "n_clips": 1}\n')
    assert [cost.n_clips for cost in load_costs(tmp_path)] == [3]
