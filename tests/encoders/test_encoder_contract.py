"""Every registered encoder keeps the contract, and each check of the contract catches an encoder that breaks it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import socket

import pytest
import torch
from small import leave_two_blocks
from torch import Tensor, nn

from evar import config
from evar.config.registry import resolve
from evar.encoders import contract, describe_encoder
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

RATE, HOP = 4000, 200


@pytest.mark.parametrize("name", config.names("encoders"))
def test_encoder_keeps_the_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = config.load_encoder_config(name)
    few = few_blocks(entry)
    if entry.base and entry.options == config.load_encoder_config(entry.base).options:
        # The same network but for its default layers or weights: its numbers are those of the base, checked there.
        findings = [*contract.check_config(entry), *contract.check_declaration(describe_encoder(name))]
    elif few:  # the declared layers of the whole network, and the rest of the contract on a small part of it
        declared = contract.check_declaration(describe_encoder(name))
        findings = [*declared, *contract.check_named(name, **few)]
    else:
        declared = contract.check_declaration(describe_encoder(name))
        leave_two_blocks(name, monkeypatch)
        findings = [*declared, *contract.check_named(name)]
    assert [str(finding) for finding in findings] == []


#: options that make a network small: two of a transformer's equal blocks, few channels, windows that overlap less
SMALL = {"n_blocks": 2, "channels": 4, "share": 0.25, "hop_seconds": 1.0}


def few_blocks(entry: config.EncoderConfig) -> dict[str, float]:
    """Options that leave a small part of a network, where it has any of the options in `SMALL`; else none."""
    options = inspect.signature(resolve(entry.implementation).__init__).parameters
    return {name: value for name, value in SMALL.items() if name in options}


class Sound(Encoder):
    """Two layers that keep every promise; the classes below each break one."""

    sample_rate = RATE
    layers = (LayerInfo("frames", 8, HOP, "mean"), LayerInfo("clip", 8, 0, "mean"))
    default_layers = ("clip",)
    min_samples = HOP

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Linear(HOP, 8)
        self.clip = nn.Linear(8, 8)

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        return {"frames": lengths // HOP, "clip": torch.ones_like(lengths)}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        frames = self.frames(waveform.unfold(1, HOP, HOP)).tanh()  # (batch, time, 8)
        valid = torch.arange(frames.shape[1])[None, :] < (lengths // HOP)[:, None]
        mean = (frames * valid[:, :, None]).sum(1) / valid.sum(1)[:, None]
        return {"frames": frames, "clip": self.clip(mean)[:, None]}


def changed(features: dict[str, Tensor], **changes: Tensor) -> dict[str, Tensor]:
    return {**features, **changes}


class UnknownDefault(Sound):
    default_layers = ("clop",)


class NoDefault(Sound):
    default_layers = ()


class SameNames(Sound):
    layers = (LayerInfo("clip", 8, 0, "mean"), LayerInfo("clip", 8, 0, "mean"))


class UnknownPooling(Sound):
    layers = (Sound.layers[0], LayerInfo("clip", 8, 0, "median"))


class RateInKilohertz(Sound):
    sample_rate = 0


class TrainMode(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.eval = lambda: self  # type: ignore[method-assign]


class OtherOrder(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return dict(reversed(super().forward(waveform, lengths).items()))


class OtherWidth(Sound):
    layers = (LayerInfo("frames", 9, HOP, "mean"), Sound.layers[1])


class WrongHop(Sound):
    layers = (LayerInfo("frames", 8, HOP + 8, "mean"), Sound.layers[1])


class FramesDeclaredAsClip(Sound):
    layers = (LayerInfo("frames", 8, 0, "mean"), Sound.layers[1])


class FramesOverlooked(Sound):
    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        return {"frames": (lengths // HOP - 1).clamp(min=1), "clip": torch.ones_like(lengths)}


class FramesInvented(Sound):
    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        return {"frames": lengths // HOP + 1, "clip": torch.ones_like(lengths)}


class LogarithmOfSilence(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        return changed(features, frames=features["frames"] + waveform.unfold(1, HOP, HOP).std(2, keepdim=True).log())


class DoublePrecision(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        return changed(features, clip=features["clip"].double())


class OneSampleFails(Sound):
    min_samples = 1


class Dropout(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        return changed(features, frames=nn.functional.dropout(features["frames"], 0.1, training=True))


class KeptState(Sound):
    state = 0.0

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        before, self.state = self.state, float(features["clip"].detach()[-1].sum())
        return changed(features, clip=features["clip"] + before)


class WritesIntoInput(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        waveform.mul_(0.5)
        return features


class SharedBuffer(Sound):
    buffer: Tensor | None = None

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        if torch.is_grad_enabled():
            return features
        if self.buffer is None or self.buffer.shape != features["clip"].shape:
            self.buffer = torch.empty_like(features["clip"])
        self.buffer.copy_(features["clip"])
        return changed(features, clip=self.buffer)


class NoGradient(Sound):
    @torch.no_grad()
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return super().forward(waveform, lengths)


class UnusedParameter(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)


class GradientNotFinite(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        return changed(features, clip=features["clip"] + self.gain.square().sqrt())


class HearsPadding(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        return changed(features, clip=features["clip"] + features["frames"].mean(1, keepdim=True))


class HearsBatchMates(Sound):
    batch_invariant = False

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        return changed(features, clip=features["clip"] - features["clip"].mean(0, keepdim=True) / 2)


class CountsBatch(Sound):
    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        return {"frames": (lengths // HOP).max().expand(len(lengths)), "clip": torch.ones_like(lengths)}


class HearsJunk(Sound):
    """Skips the zeroing of what lies beyond a clip's length, and hears it."""

    def _check_input(self, waveform: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        _, checked = super()._check_input(waveform, lengths)
        missing = max(0, self.min_samples - waveform.shape[1])
        return nn.functional.pad(waveform, (0, missing)), checked

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        features = super().forward(waveform, lengths)
        return changed(
            features, clip=features["clip"] + waveform[:, -1:, None] * (lengths < waveform.shape[1])[:, None, None]
        )


class OpensSocket(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        socket.create_connection(("127.0.0.1", 9))
        return super().forward(waveform, lengths)


class OpensSocketQuietly(Sound):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        with contextlib.suppress(OSError):
            socket.socket()
        return super().forward(waveform, lengths)


class Normalised(Sound):
    """Its frames see the waveform minus a mean, over a standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_stats = (0.01, 0.1)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform.unfold(1, HOP, HOP)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        return lengths // HOP

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        mean, std = self.norm_stats or (0.0, 1.0)
        return super().forward((waveform - mean) / std, lengths)


class NoFrontend(Normalised):
    network_input = Encoder.network_input


class StatisticsOfPadding(Normalised):
    def network_input_frames(self, lengths: Tensor) -> Tensor:
        return (lengths // HOP).max().expand(len(lengths))


class StatisticsIgnored(Normalised):
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return Sound.forward(self, waveform, lengths)


class FrontendNormalised(Normalised):
    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return (waveform.unfold(1, HOP, HOP) - self.norm_stats[0]) / self.norm_stats[1]


class UnknownDefaultStatistics(Normalised):
    default_norm_stats = "audioset"


class HeadNotFinite(Sound):
    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform[:, :5] / 0.0


class HeadOfOneClip(Sound):
    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        return waveform[:1, :5]


BROKEN = [
    (UnknownDefault, "declaration", "'clop', but the layers are"),
    (NoDefault, "declaration", "at least one layer"),
    (SameNames, "declaration", "unique names"),
    (UnknownPooling, "declaration", "no known pooling 'median'"),
    (RateInKilohertz, "declaration", "sample_rate"),
    (TrainMode, "declaration", "train mode"),
    (OtherOrder, "clips", "declares layers ['frames', 'clip'], but forward returned ['clip', 'frames']"),
    (OtherWidth, "clips", "expected (1, time, 9)"),
    (WrongHop, "clips", "its hop is about 200 samples"),
    (FramesDeclaredAsClip, "clips", "declares hop 0"),
    (FramesOverlooked, "clips", "20 frames, but valid_frames says 19"),
    (FramesInvented, "clips", "valid frames must lie in 1..1"),
    (LogarithmOfSilence, "clips", "a second of silence is not finite"),
    (DoublePrecision, "clips", "must be float32"),
    (OneSampleFails, "clips", ""),
    (Dropout, "repeatable", "differs between two calls"),
    (KeptState, "repeatable", "differs between two calls"),
    (WritesIntoInput, "repeatable", "changed the caller's waveform"),
    (SharedBuffer, "repeatable", "overwritten by a later call"),
    (NoGradient, "gradients", "no layer carries a gradient"),
    (UnusedParameter, "gradients", "no gradient reaches head.weight"),
    (GradientNotFinite, "gradients", "the gradient of gain is not finite"),
    (HearsPadding, "batch_invariance", "declare batch_invariant = False"),
    (HearsBatchMates, "batch_invariance", "even clips of equal length"),
    (CountsBatch, "batch_invariance", "valid frames in a batch"),
    (HearsJunk, "batch_invariance", "samples beyond its length are heard"),
    (NoFrontend, "input_statistics", "has no front-end of its own"),
    (StatisticsOfPadding, "input_statistics", "network_input_frames must count the clip's own frames only"),
    (StatisticsIgnored, "input_statistics", "norm_stats change no layer"),
    (FrontendNormalised, "input_statistics", "before normalisation"),
    (UnknownDefaultStatistics, "input_statistics", "default_norm_stats must be one of"),
    (HeadNotFinite, "extras", "outputs of a second of noise is not finite"),
    (HeadOfOneClip, "extras", "tensor of 2 rows, got (1, 5)"),
    (OpensSocket, "no_socket", "reaches for host '127.0.0.1'"),
    (OpensSocketQuietly, "no_socket", "reaches for a network socket"),
]


def seeded(kind: type[Encoder]) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


@pytest.mark.parametrize("kind", [Sound, Normalised])
def test_a_sound_encoder_has_no_findings(kind: type[Encoder]) -> None:
    assert contract.check_encoder(seeded(kind), lambda: seeded(kind)) == []


@pytest.mark.parametrize(("kind", "check", "said"), BROKEN, ids=[kind.__name__ for kind, _, _ in BROKEN])
def test_a_broken_encoder_is_caught(kind: type[Encoder], check: str, said: str) -> None:
    findings = contract.check_encoder(seeded(kind))
    assert any(finding.check == check and said in finding.problem for finding in findings), findings


def test_every_check_has_a_broken_encoder() -> None:
    names = {check.__name__.removeprefix("check_") for check in contract.CHECKS}
    assert names == {check for _, check, _ in BROKEN} - {"no_socket"}


def test_an_encoder_that_hears_padding_may_say_so() -> None:
    class Honest(HearsPadding):
        batch_invariant = False

    assert contract.check_encoder(seeded(Honest)) == []


def test_weights_that_depend_on_chance_are_caught() -> None:
    findings = contract.check_encoder(seeded(Sound), lambda: Sound().eval())
    assert {finding.check for finding in findings} == {"seeded"}
    assert "frames.weight differs when built twice" in str(findings)


def test_an_encoder_that_fetches_when_built_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetching(name: str, weights: str) -> Encoder:
        socket.getaddrinfo("weights.example", 443)
        return seeded(Sound)

    monkeypatch.setattr(contract, "load_encoder", fetching)
    monkeypatch.setattr(contract, "load_encoder_config", lambda name: described())
    assert [finding.check for finding in contract.check_named("toy")] == ["no_socket"]


def test_sockets_are_given_back() -> None:
    before = socket.socket, socket.getaddrinfo
    with contract.watch_sockets():
        assert socket.socket is not before[0]
    assert (socket.socket, socket.getaddrinfo) == before


def described(**changes: str) -> config.EncoderConfig:
    texts = {"description": "a toy", "trained_on": "nothing", "citation": "this file", **changes}
    weights = config.WeightsSource(kind="url", licence=texts.pop("licence", "MIT"), urls=("https://weights.example",))
    return config.EncoderConfig(name="toy", implementation="toy:Bands", weights=weights, **texts)


@pytest.mark.parametrize("key", ["description", "trained_on", "citation", "licence"])
def test_a_yaml_must_say_where_things_come_from(key: str) -> None:
    assert contract.check_config(described()) == []
    findings = contract.check_config(described(**{key: " "}))
    assert len(findings) == 1
    assert key in findings[0].problem


def test_weights_are_optional_in_a_yaml() -> None:
    assert contract.check_config(dataclasses.replace(described(), weights=None)) == []


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [([1.0, 0.0], [1.0, 0.0], 0.0), ([2.0, 0.0], [1.0, 0.0], 1.0), ([1.0], [0.0], float("inf"))],
)
def test_relative_l2(value: list[float], reference: list[float], expected: float) -> None:
    assert contract.relative_l2(torch.tensor(value), torch.tensor(reference)) == expected


def test_relative_l2_never_passes_what_cannot_be_compared() -> None:
    nan, one = torch.tensor([float("nan")]), torch.ones(1)
    pairs = [*itertools.permutations([nan, one], 2), (nan, nan), (one, torch.ones(2))]
    assert all(contract.relative_l2(value, reference) == float("inf") for value, reference in pairs)
