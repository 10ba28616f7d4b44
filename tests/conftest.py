"""Fixtures: every test has a configuration, cache and store of its own, and no results of others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy import Bands, write_config

torch.set_num_threads(1)  # the arrays are small; threads only fight when tests run side by side


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
