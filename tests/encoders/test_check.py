"""`evar check`: anyone's encoder, by name, YAML or class, with findings that teach."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from toy import Bands

from evar import cli, evaluate, load_encoder
from evar.cli import run

SOUND = """
import torch
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

class Sound(Encoder):
    sample_rate = 8000
    layer_infos = (LayerInfo("frames", 4, 400, "mean"),)
    default_layers = ("frames",)
    min_samples = 400

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(400, 4)

    def valid_frames(self, lengths):
        return lengths // 400

    def forward(self, waveform, lengths):
        return {"frames": self.linear(waveform.unfold(1, 400, 400)).tanh()}

class Nan(Sound):
    def forward(self, waveform, lengths):
        return {"frames": super().forward(waveform, lengths)["frames"] / waveform.abs().sum()}

class Unfinished(Encoder):
    sample_rate = 8000

class Clumsy(Sound):
    def __init__(self):
        super().__init__()
        self.linear.no_such_thing()

class NoEncoder:
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module of somebody's own, in a folder of its own."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOUND)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_class_that_keeps_the_contract(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", f"{own}:Sound"]) == cli.DONE
    said = capsys.readouterr().out
    assert f"{own}:Sound keeps every promise" in said
    assert "layers frames to frames, 0.00 M parameters, weights random" in said
    assert "batch_invariance" in said and f"next: evar layers {own}:Sound" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nan", "clips: layer frames of a second of silence is not finite; look for a logarithm or division"),
        ("Unfinished", "build: building it raises TypeError: Can't instantiate abstract class Unfinished"),
        ("Clumsy", "build: building it raises AttributeError: 'Linear' object has no attribute 'no_such_thing'"),
    ],
)
def test_a_broken_class_is_told_what_is_wrong(own: str, name: str, said: str, capsys) -> None:
    assert run(["check", f"{own}:{name}"]) == cli.SOME_FAILED
    out = capsys.readouterr().out
    assert said in out and "broken promises; `evar check --help`" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NoEncoder", "must be a subclass of evar.encoders.base.Encoder"),
        ("Sounds", "did you mean 'Sound'?"),
    ],
)
def test_what_is_no_encoder_is_refused(own: str, name: str, said: str, capsys) -> None:
    assert run(["check", f"{own}:{name}"]) == cli.WRONG
    assert said in capsys.readouterr().err


def test_names_near_misses_and_missing_files(capsys) -> None:
    assert run(["check", "logmel"]) == cli.DONE
    assert capsys.readouterr().out.count("0.00 M parameters\n") == 1
    assert run(["check", "logmell"]) == cli.WRONG
    assert "did you mean 'logmel'?" in capsys.readouterr().err
    assert run(["check", "no/such/file.yaml"]) == cli.WRONG
    assert "no/such/file.yaml" in capsys.readouterr().err
    assert run(["check", "logmel", "--weights=no/such/file.pth"]) == cli.WRONG
    assert "no weights at no/such/file.pth" in capsys.readouterr().err


def test_a_yaml_anywhere_is_an_encoder(own: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "mine.yaml"
    entry = {"implementation": f"{own}:Sound", "description": "mine", "trained_on": "nothing", "citation": "me, today"}
    path.write_text(yaml.safe_dump(entry))
    assert run(["check", str(path)]) == cli.DONE
    assert load_encoder(str(path), "random").name == "mine"
    path.write_text(yaml.safe_dump({**entry, "citation": ""}))
    assert run(["check", str(path)]) == cli.SOME_FAILED
    assert "config: mine.yaml must say its citation" in capsys.readouterr().out


def test_classes_and_yamls_run_through_the_pipeline(tones, capsys) -> None:
    root = tones()
    path = root / "config" / "encoders" / "toy.yaml"
    outcome = evaluate(["toy:Bands", str(path)], "tones", out=str(root / "results"))
    assert not outcome.failures
    assert [row.encoder for row in outcome.rows] == ["toy:Bands", "toy"]
    assert outcome.rows[0].score == outcome.rows[1].score
    assert sum(Bands.calls) == 2 * 36
    assert all(part not in row.name for row in (root / "results" / "runs").iterdir() for part in ":/")
