"""Small parts of large networks, for tests whose question does not depend on the depth."""

from __future__ import annotations

import pytest

from evar.encoders import ast, clap, msm_mae, wav2vec2


def leave_two_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all but two of the equal blocks from the transformers that have no such option; golden tests have them all."""
    family = name.partition(".")[0]
    if family == "wav2vec2":
        for size in wav2vec2.SIZES.values():
            monkeypatch.setitem(size, "num_hidden_layers", 2)
    if name == "clap.ms2022":  # pieces of a second in place of 5, which short clips fill by repetition
        monkeypatch.setattr(clap.ClapMs2022, "piece", 44_100)
    for module, kind in ((ast, ast.AST), (msm_mae, msm_mae.MsmMae)):
        if module.__name__.endswith(f".{family}"):
            monkeypatch.setattr(module, "N_BLOCKS", 2)
            monkeypatch.setattr(kind, "default_layers", ("block2",))
