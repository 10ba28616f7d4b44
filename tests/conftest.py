"""Fixtures: every test has a configuration, cache and store of its own, and no results of others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy import Bands, write_config

torch.set_num_threads(1)  # the arrays are small; threads only fight when tests run side by side


#: folders whose tests look at pictures, or at what may go wrong in them
DRAWING = ("cli", "pictures", "report", "webpage")


@pytest.fixture
def real_pictures() -> None:
    """Ask for pictures that are really drawn, in a test outside of the folders `DRAWING`."""


@pytest.fixture(autouse=True)
def draw_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures, but draw none: drawing the four of a small run takes two thirds of its time."""
    folders = request.node.path.relative_to(Path(__file__).parent.parent).parts
    if folders[0] == "tests" and folders[1] not in DRAWING and "real_pictures" not in request.fixturenames:
        monkeypatch.setattr("evar.figures.style._render", lambda figure: (b"no picture", b"no picture"))


@pytest.fixture
def tones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes the tones task (options of `toy.write_config`) and returns the folder to work in."""

    def prepare(**options) -> Path:
        monkeypatch.setenv("EVAR_CONFIG", str(write_config(tmp_path, **options)))
        monkeypatch.setenv("EVAR_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))
        Bands.calls.clear()
        return tmp_path

    return prepare
