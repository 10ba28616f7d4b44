"""Models of the package mteb behind the one interface, held against a stand-in that follows its API."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from evar import cli, load_encoder
from evar.cli import run
from evar.encoders.certificate import measure_wrapper

RATE = 16000


class Wrapper:
    """Mean and deviation of the samples; pads the batch with zeros if told so, as careless wrappers do."""

    sampling_rate = RATE

    def __init__(self, pads: bool = False, most: int | None = None) -> None:
        self.model, self.pads, self.most = torch.nn.Linear(2, 4), pads, most

    def get_audio_embeddings(self, inputs, show_progress_bar=True, **others):
        assert "audio" in inputs.dataset.features
        inputs.collate_fn = lambda rows: {"audio": [row["audio"] for row in rows]}
        found = []
        for batch in inputs:
            clips = [torch.from_numpy(np.asarray(one["array"]))[: self.most] for one in batch["audio"]]
            assert {one["sampling_rate"] for one in batch["audio"]} == {RATE}
            if self.pads:
                clips = list(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True))
            moments = torch.stack([torch.stack([clip.abs().mean(), clip.std()]) for clip in clips])
            found.append(self.model(moments).detach())
        return torch.cat(found).numpy()


@pytest.fixture
def mteb(monkeypatch):
    """A module `mteb` with four models."""
    module = types.ModuleType("mteb")
    known = {
        "org/good": Wrapper,
        "org/pads": lambda: Wrapper(pads=True),
        "org/cuts": lambda: Wrapper(most=10 * RATE),
        "org/text": object,
    }

    def get_model(name, revision=None, device=None):
        return known[name]()

    module.get_model = get_model
    monkeypatch.setitem(sys.modules, "mteb", module)


@pytest.mark.parametrize(("name", "bad"), [("good", []), ("pads", ["same_in_batch"]), ("cuts", ["nothing_cut"])])
def test_the_certificate_finds_what_wrappers_do(mteb, name, bad):
    torch.manual_seed(0)
    encoder = load_encoder(f"mteb:org/{name}")
    found = measure_wrapper(encoder)
    assert [answer.name for answer in found.answers if answer.is_good is False] == bad
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 12


def test_the_command_writes_it(mteb, tmp_path, capsys):
    words = ["check", "mteb:org/pads", "--weights=random", f"--certificate={tmp_path / 'pads'}"]
    assert run(words) == cli.SOME_FAILED
    assert "alone and in a batch? no" in " ".join(capsys.readouterr().out.split())


def test_what_is_no_audio_model_is_named(mteb):
    with pytest.raises(ValueError, match="no get_audio_embeddings"):
        load_encoder("mteb:org/text")
    with pytest.raises(ValueError, match="mteb could not load org/none: KeyError"):
        load_encoder("mteb:org/none")
    with pytest.raises(ValueError, match="expected mteb:ORG/NAME"):
        load_encoder("mteb:nothing")


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ImportError, match="pip install"):
        load_encoder("mteb:org/good")
