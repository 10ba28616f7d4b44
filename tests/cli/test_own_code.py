"""Code of strangers is not run: not by lists, not from the current folder, not from its folder `config`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evar import cli, config
from evar.cli import run
from evar.config.registry import resolve

ENCODER = """
import torch
from torch import nn
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from parts import WIDTH

class Mine(Encoder):
    sample_rate = 16000
    layers = (LayerInfo("first", WIDTH, 160, "mean"),)
    default_layers = ("first",)
    min_samples = 160

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(160, WIDTH)])

    def valid_frames(self, lengths):
        return lengths // 160

    def forward(self, waveform, lengths):
        return {"first": self.layers[0](waveform.unfold(1, 160, 160))}
"""


def _write_encoder(folder: Path, width: int) -> str:
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(ENCODER)
    (folder / "parts.py").write_text(f"WIDTH = {width}\n")
    return f"{folder}/mine.py:Mine"


def test_a_folder_config_that_lies_here_is_not_used(tmp_path, monkeypatch, capsys) -> None:
    root = Path(config.find("tasks", "esc10")).parents[1]
    for kind, name in (("tasks", "esc10"), ("encoders", "logmel"), ("protocols", "linear")):
        (tmp_path / "config" / kind).mkdir(parents=True)
        (tmp_path / "config" / kind / f"{name}.yaml").write_text((root / kind / f"{name}.yaml").read_text())
    (tmp_path / "config" / "tasks" / "trap.yaml").write_text("name: trap")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVAR_CONFIG", raising=False)
    assert all(not config.find(kind, name).is_relative_to(tmp_path) for kind, name in (
        ("tasks", "esc10"), ("encoders", "logmel"), ("protocols", "linear")))  # fmt: skip
    assert run(["verify", "trap"]) == cli.WRONG
    assert "trap.yaml is used only with EVAR_CONFIG=config" in capsys.readouterr().err


def test_a_file_in_place_of_a_packaged_one_is_mentioned_once(tmp_path, monkeypatch, capsys) -> None:
    packaged = config.find("encoders", "crepe.tiny")
    own = tmp_path / "encoders" / packaged.name
    own.parent.mkdir()
    own.write_text(packaged.read_text())
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path))
    assert run(["layers", "crepe.tiny"]) == run(["layers", "crepe.tiny"]) == cli.DONE
    assert capsys.readouterr().out.count(f"{own} is used in place of the packaged encoders/crepe.tiny.yaml") == 1


def test_lists_and_dry_runs_call_no_foreign_maker(tones, capsys, monkeypatch) -> None:
    root = tones()
    folder = Path(root / "config" / "tasks")
    entry = yaml.safe_load((folder / "tones.yaml").read_text())
    entry.pop("index", None)
    (folder / "made.yaml").write_text(yaml.safe_dump({**entry, "name": "made", "index_maker": "makers:make"}))
    (root / "makers.py").write_text("from pathlib import Path\nPath('called').touch()\nmake = print\n")
    monkeypatch.chdir(root)
    assert run(["tasks"]) in (cli.DONE, cli.SOME_FAILED)
    assert "made by makers:make" in capsys.readouterr().out
    run(["lineval", "toy", "made,tones", "--dry_run", f"--out={root}/results"])
    assert not (root / "called").exists() and "makers" not in sys.modules


@pytest.mark.parametrize("how", [["-m", "evar"], ["-c", "from evar.cli import main; main()"]])
def test_optional_packages_are_not_taken_from_here(how: list[str], tmp_path: Path) -> None:
    for name in ("numexpr", "bottleneck", "odf"):
        (tmp_path / f"{name}.py").write_text(f"from pathlib import Path\nPath('called_{name}').touch()\n")
    repository = Path(cli.__file__).parents[2]
    environment = {"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin"}
    flags = ["-P"] if how[0] == "-c" and sys.version_info >= (3, 11) else []
    subprocess.run([sys.executable, *flags, *how, "tasks"], cwd=tmp_path, env=environment, capture_output=True)
    assert not list(tmp_path.glob("called_*"))


def test_the_current_folder_counts_while_a_typed_name_is_resolved(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_own_module.py").write_text("import my_own_part\nvalue = my_own_part.value\n")
    (tmp_path / "my_own_part.py").write_text("value = 3\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert resolve("my_own_module:value") == 3
    assert sys.path == before


def test_modules_beside_a_file_belong_to_it(tmp_path, monkeypatch) -> None:
    """Two files in two folders have a module `parts` each, and the current folder has a third."""
    from evar.encoders import load_encoder

    first, second = _write_encoder(tmp_path / "a", 4), _write_encoder(tmp_path / "b", 6)
    here = tmp_path / "here"
    here.mkdir()
    (here / "parts.py").write_text("WIDTH = 99\n")
    (here / "mine.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(here)
    encoders = [load_encoder(name, "random") for name in (first, second, first)]
    assert [encoder.layer_infos[0].width for encoder in encoders] == [4, 6, 4]
    assert [path.name for path in encoders[0].extra_files] == ["mine.py", "parts.py"]
