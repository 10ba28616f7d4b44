"""The certificate finds what wrappers do wrong, and says that sound ones are sound."""

from __future__ import annotations

import json

import pytest
import torch
from test_encoder_contract import Sound
from torch import Tensor

from evar import cli, load_encoder
from evar.cli import run
from evar.encoders.base import Encoder
from evar.encoders.certificate import measure_wrapper


def list_bad(encoder: Encoder) -> list[str]:
    return [answer.name for answer in measure_wrapper(encoder.eval()).answers if answer.is_good is False]


class FirstTenSeconds(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        kept = waveform.clone()
        kept[:, 10 * self.sample_rate :] = 0.0  # as a wrapper that crops and fills up
        return super().forward(kept, lengths)


class NormalisesTheBatch(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return super().forward(waveform / waveform.abs().max().clamp(min=1e-9), lengths)


class Dithers(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return super().forward(waveform + 1e-3 * torch.randn_like(waveform), lengths)


class DividesByTheLevel(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return super().forward(waveform / waveform.std(1, keepdim=True), lengths)


class Raises(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        if waveform.shape[1] > 20 * self.sample_rate:
            raise IndexError("too long")
        return super().forward(waveform, lengths)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (Sound, []),
        (FirstTenSeconds, ["nothing_cut"]),
        (NormalisesTheBatch, ["same_in_batch"]),
        (Dithers, ["same_twice", "same_in_batch"]),
        (DividesByTheLevel, ["same_in_batch", "silence"]),
        (Raises, ["cut"]),
    ],
)
def test_each_fault_is_found_and_no_other(kind, bad):
    torch.manual_seed(0)
    assert list_bad(kind()) == bad


def test_the_command_prints_and_writes_it(tmp_path, capsys):
    assert run(["check", "logmel", f"--certificate={tmp_path / 'logmel'}"]) == cli.DONE
    assert "same vector alone and in a batch? yes" in " ".join(capsys.readouterr().out.split())
    data = json.loads((tmp_path / "logmel.json").read_text())
    assert data["n_good"] == data["n_judged"] == 5
    assert "![evar check: 5 of 5](logmel.svg)" in (tmp_path / "logmel.md").read_text()
    assert (tmp_path / "logmel.svg").read_text().startswith("<svg")


def test_the_change_must_be_larger_than_rounding():
    found = {answer.name: answer for answer in measure_wrapper(load_encoder("logmel")).answers}
    assert found["nothing_cut"].number > 1e-3 and found["speed"].number > 0
