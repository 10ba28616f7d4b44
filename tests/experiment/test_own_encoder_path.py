"""The path of an author: an encoder in a file of one's own, from the first row to the export and the run elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from evar import cli, config, results
from evar.cli import run
from evar.encoders import load_encoder
from evar.experiment.settings import weights_by_encoder

SOURCE = """
import torch
from torch import nn
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from my_parts import HOP

class Mine(Encoder):
    sample_rate = 8000
    layers = (LayerInfo("first", 16, HOP, "mean"), LayerInfo("second", 8, HOP, "mean_plus_max"))
    default_layers = ("second",)
    min_samples = HOP

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(HOP, 16)])
        self.head = nn.Linear(16, 8)

    def valid_frames(self, lengths):
        return lengths // HOP

    def forward(self, waveform, lengths):
        first = torch.relu(self.layers[0](waveform.unfold(1, HOP, HOP)))
        return {"first": first, "second": self.head(first)}
"""


@pytest.fixture
def author(tones, monkeypatch) -> Path:
    root = tones()
    (root / "model").mkdir()
    (root / "model" / "mine.py").write_text(SOURCE)
    (root / "model" / "my_parts.py").write_text("HOP = 100\n")
    monkeypatch.chdir(root)
    return root


def test_from_check_to_rerun_elsewhere(author: Path, capsys, monkeypatch) -> None:
    name = "model/mine.py:Mine"
    assert run(["check", name]) == cli.DONE
    torch.save(load_encoder(name, "random").state_dict(), author / "mine.pt")
    command = ["lineval", f"{name},toy", "tones", "--layers=all", "--weights=mine:Mine=mine.pt", "--out=results"]
    assert run(command) == cli.DONE
    rows = {row.layers[0]: row for row in results.load_all(author / "results") if row.encoder == "mine:Mine"}
    assert set(rows) == {"first", "second"} and rows["first"].weights != "random"
    assert set(rows["first"].settings["sources"]) == {"mine.py", "my_parts.py"}
    (kept,) = (author / "results" / "sources").iterdir()
    assert (kept / "mine.py").read_text() == SOURCE

    export = ["lineval", name, "tones", "--fusion=search", "--export=best_of_mine", "--out=results"]
    assert run(export) == cli.DONE
    assert run(["fuse", name, "first,second", "--name=both_of_mine"]) == cli.DONE
    assert run([*export[:-2], "--export=trained", "--weights=mine.pt", "--out=results"]) == cli.DONE
    assert run(["fuse", name, "first", "--name=fused", "--weights=mine.pt"]) == cli.DONE
    assert run(["fuse", name, "first", "--name=other", "--weights=no.pt"]) == cli.WRONG
    capsys.readouterr()

    elsewhere = author / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.py").write_text("raise SystemExit\n")
    (elsewhere / "my_parts.py").write_text("HOP = 77\n")
    monkeypatch.chdir(elsewhere)
    assert load_encoder("both_of_mine", "random").default_layers == ("first", "second")
    for exported in ("trained", "fused"):
        assert load_encoder(exported).weights_sha256 == rows["first"].weights_sha256
    assert load_encoder("best_of_mine", "random").store_name == "mine:Mine"
    assert config.load_encoder_config("both_of_mine").description == "first and second of mine:Mine, side by side"
    row = str(author / "results" / "runs" / f"{rows['first'].id}.json")
    assert run(["rerun", row, "--trust_code"]) == cli.DONE and "the same" in capsys.readouterr().out

    (author / "model" / "mine.py").write_text(SOURCE + "# a comment\n")
    assert run(["rerun", row, "--trust_code"]) == cli.WRONG
    said = capsys.readouterr().err
    assert "the code of" in said and "differs from that of the row (mine.py)" in said
    assert str(kept) in said and "--anyway" in said
    assert run(["rerun", row, "--trust_code", "--anyway"]) == cli.DONE
    out = capsys.readouterr().out
    assert "differs from that of the row" in out and "the same" in out

    (author / "model" / "mine.py").write_text(SOURCE)
    (author / "model" / "my_parts.py").write_text("HOP = 100  # a comment\n")
    assert run(["rerun", row, "--trust_code"]) == cli.WRONG and "my_parts.py" in capsys.readouterr().err
    shutil.rmtree(author / "model")
    assert run(["rerun", row, "--trust_code"]) == cli.WRONG and "is not there" in capsys.readouterr().err


def test_random_vectors_are_no_silent_result(author: Path, capsys) -> None:
    sounds = sorted((author / "data").rglob("*.wav"))[:2]
    assert run(["embed", "model/mine.py:Mine", *map(str, sounds), "-o", "vectors.npz"]) == cli.DONE
    assert "NOTE: model/mine.py:Mine has random weights" in capsys.readouterr().out
    assert run(["embed", "model/mine.py:Mine", str(sounds[0]), "--weights=random", "-o", "other.npz"]) == cli.DONE
    assert "NOTE" not in capsys.readouterr().out


def test_weights_by_the_printed_name() -> None:
    encoders = ["some/mine.py:Mine", "b/mine.yaml"]
    assert weights_by_encoder("mine:Mine=a.pt,mine=b.pt", encoders) == [(encoders[0], "a.pt"), (encoders[1], "b.pt")]
