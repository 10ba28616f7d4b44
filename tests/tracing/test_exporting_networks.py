"""`evar export`: a file gives the encoder's own numbers, says what it can do, and is refused where it cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import toy
import yaml
from torch import Tensor, nn

import evar
from evar import cli
from evar.classifiers.file import read_classifier
from evar.cli import run
from evar.encoders import load_encoder
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import pool
from evar.tracing import export_network
from evar.tracing.head import load_head
from evar.tracing.operations import Spectrum, cut_windows, rewritten_operations, transform_frames, transform_signal

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


class Positions(toy.Bands):
    """Adds numbers of its own to each frame, of which it has 20: a network for one length only."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(20, 16))

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        layers = super().forward(waveform, lengths)
        n_frames = int(layers["bands"].shape[1])
        rows = [self.positions[at % 20] for at in range(n_frames)]
        return {**layers, "bands": layers["bands"] + torch.stack(rows)}


class OneByOne(toy.Bands):
    """Goes through its clips one by one."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        clips = [toy.Bands.forward(self, clip[None], lengths[:1]) for clip in waveform]
        return {name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}


class ThroughNumpy(toy.Bands):
    """Leaves torch on its way, so that no trace follows it."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        return super().forward(torch.from_numpy(np.tanh(waveform.numpy())), lengths)


class Pooled(toy.Bands):
    """Two layers that are pooled in other ways."""

    layer_infos = (LayerInfo("level", 1, toy.HOP, "mean_std"), LayerInfo("bands", 16, toy.HOP, "mean_plus_max"))


def make(kind: type[toy.Bands]) -> toy.Bands:
    torch.manual_seed(0)
    encoder = kind()
    encoder.name = kind.__name__.lower()
    return encoder.eval()


def test_an_onnx_file_takes_any_batch_and_length_and_is_an_encoder_again(tmp_path):
    encoder = make(toy.Bands)
    done = export_network(encoder, tmp_path / "toy.onnx", layers="all", seconds=0.5)
    assert done.check.any_batch and done.check.any_length and done.check.error < 1e-5
    assert done.outputs == {"level": 1, "bands": 16} and done.files[1] == tmp_path / "toy.yaml"
    session = onnxruntime.InferenceSession(str(tmp_path / "toy.onnx"))
    again = load_encoder(f"onnx:{tmp_path / 'toy.onnx'}")
    assert [(one.name, one.width, one.hop, one.pooling) for one in again.layer_infos] == [
        ("level", 1, toy.HOP, "mean"), ("bands", 16, toy.HOP, "mean"),
    ]  # fmt: skip
    for n_clips, n_samples in ((1, 4000), (3, 4000), (5, 9321)):
        waveform = torch.from_numpy(np.stack([toy.tone(at % 3, at, n_samples / toy.RATE) for at in range(n_clips)]))
        own = encoder.encode(waveform)
        level, bands = session.run(None, {"waveform": waveform.numpy()})
        np.testing.assert_allclose(bands, own["bands"].detach(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(level, own["level"].detach(), rtol=1e-4, atol=1e-4)
        read = again.encode(waveform)
        np.testing.assert_allclose(read["bands"], own["bands"].detach(), rtol=1e-4, atol=1e-4)


def test_the_file_says_what_it_is(tmp_path):
    export_network("logmel", tmp_path / "a.onnx", seconds=0.3)
    facts = {one.key: one.value for one in onnx.load(str(tmp_path / "a.onnx")).metadata_props}
    assert facts["evar.encoder"] == "logmel" and facts["evar.sample_rate"] == "16000" and facts["evar.n_samples"] == "0"
    assert json.loads(facts["evar.layers"]) == [{"hop": 160, "name": "logmel", "pooling": "mean_std", "width": 64}]
    assert facts["evar.weights_sha256"] == "none" and facts["evar.licence"] == "no checkpoint"
    assert yaml.safe_load((tmp_path / "a.yaml").read_text())["sample_rate"] == 16000


def test_pooled_vectors_are_those_of_the_encoder(tmp_path):
    encoder = make(Pooled)
    done = export_network(encoder, tmp_path / "p.onnx", layers="all", pooled=True, seconds=0.5)
    assert done.outputs == {"embedding": 18}
    waveform = torch.from_numpy(np.stack([toy.tone(at, at, 0.7) for at in range(2)]))
    frames = encoder.encode(waveform)
    own = torch.cat([pool(frames[i.name], frames.frames[i.name], i.pooling) for i in encoder.layer_infos], dim=1)
    (found,) = onnxruntime.InferenceSession(str(tmp_path / "p.onnx")).run(None, {"waveform": waveform.numpy()})
    np.testing.assert_allclose(found, own.detach(), rtol=1e-3, atol=1e-3)
    again = load_encoder(f"onnx:{tmp_path / 'p.onnx'}").encode(waveform)
    np.testing.assert_allclose(again["embedding"][:, 0], found, rtol=1e-6)


def test_a_network_of_one_length_says_so_and_its_yaml_cuts_windows(tmp_path):
    encoder = make(Positions)
    done = export_network(encoder, tmp_path / "fixed.onnx", seconds=0.5)
    assert done.check.any_batch and not done.check.any_length and done.check.n_samples == 4000
    assert yaml.safe_load((tmp_path / "fixed.yaml").read_text())["window"] == 4000
    (shape,) = [one.shape for one in onnxruntime.InferenceSession(str(tmp_path / "fixed.onnx")).get_inputs()]
    assert shape == ["batch", 4000]
    waveform = torch.from_numpy(toy.tone(1, 3))[None]
    read = load_encoder(f"onnx:{tmp_path / 'fixed.onnx'}").encode(waveform)
    np.testing.assert_allclose(read["bands"], encoder.encode(waveform)["bands"].detach(), rtol=1e-4, atol=1e-4)


def test_a_network_of_one_clip_says_so(tmp_path):
    done = export_network(make(OneByOne), tmp_path / "one.onnx", seconds=0.5)
    assert not done.check.any_batch and done.check.any_length
    before = (tmp_path / "one.onnx").read_bytes()
    export_network(make(OneByOne), tmp_path / "one.onnx", seconds=0.5)
    assert (tmp_path / "one.onnx").read_bytes() == before  # the same encoder gives the same bytes


def test_torchscript_gives_the_same_numbers(tmp_path):
    encoder = make(toy.Bands)
    done = export_network(encoder, tmp_path / "toy.pt", layers="all", seconds=0.5)
    assert done.check.any_batch and done.check.any_length
    extra = {"evar.json": ""}
    loaded = torch.jit.load(str(tmp_path / "toy.pt"), _extra_files=extra)
    waveform = torch.from_numpy(np.stack([toy.tone(at, at, 0.9) for at in range(3)]))
    level, bands = loaded(waveform)
    own = encoder.encode(waveform)
    assert torch.allclose(bands, own["bands"], atol=1e-5) and torch.allclose(level, own["level"], atol=1e-5)
    assert json.loads(extra["evar.json"])["sample_rate"] == toy.RATE


def test_what_cannot_be_exported_is_refused_with_a_sentence(tmp_path, capsys):
    with pytest.raises(ValueError, match="throughnumpy cannot be exported with the same numbers"):
        export_network(make(ThroughNumpy), tmp_path / "n.onnx", seconds=0.5)
    assert not list(tmp_path.iterdir())
    assert run(["export", "logmel", f"--output={tmp_path}/a.tflite"]) == cli.WRONG
    assert "must end in .onnx or .pt, got 'a.tflite'" in capsys.readouterr().err
    assert run(["export", "logmel"]) == cli.WRONG
    assert run(["export", "logmel", "-o", f"{tmp_path}/a.pt", "--seconds=0"]) == cli.WRONG
    assert run(["export", "logmel", "-o", f"{tmp_path}/a.pt", "--layers=nothing"]) == cli.WRONG
    assert run(["export", "logmel", "-o", f"{tmp_path}/a.pt", "--pooled", "--seconds=0.3"]) == cli.DONE
    assert "embedding (128 wide)" in capsys.readouterr().out


def test_rewritten_operations_equal_those_of_torch():
    wave = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cut_windows(wave, 1, 400, 160), wave.unfold(1, 400, 160))
    cube = wave.reshape(2, 10, 100)
    assert torch.equal(cut_windows(cube, 1, 4, 3), cube.unfold(1, 4, 3))
    found, own = transform_frames(wave[:, :400], n=512), torch.fft.rfft(wave[:, :400], n=512)
    assert torch.allclose(found.real, own.real, atol=1e-4) and torch.allclose(found.imag, own.imag, atol=1e-4)
    window = torch.hann_window(300)
    spectrum = torch.stft(wave, 512, 160, 300, window, return_complex=True)
    assert torch.allclose(
        transform_signal(wave, 512, 160, 300, window, return_complex=True).abs(), spectrum.abs(), atol=1e-4
    )
    before = torch.fft.rfft
    with rewritten_operations():
        assert isinstance(torch.fft.rfft(wave), Tensor)  # only a trace meets the other ones
    assert torch.fft.rfft is before and Spectrum(wave, wave).transpose(0, 1).shape == (1000, 2)


def test_a_head_gives_the_probabilities_of_the_classifier(tones, capsys):
    root = tones()
    classifier = root / "tones.safetensors"
    assert run(["train", "tones", "--encoder=toy", "--layers=level,bands", "-o", str(classifier)]) == cli.DONE
    assert run(["export", f"--head={classifier}", "-o", str(root / "tones.onnx"), "--seconds=0.5"]) == cli.DONE
    assert "output: scores (3 wide)" in capsys.readouterr().out
    waveforms = [toy.tone(at % 3, 900 + at, 0.8) for at in range(4)]
    table = evar.load_classifier(str(classifier)).predict(waveforms, sample_rate=toy.RATE)
    session = onnxruntime.InferenceSession(str(root / "tones.onnx"))
    (found,) = session.run(None, {"waveform": np.stack(waveforms)})
    np.testing.assert_allclose(found, table[["p_low", "p_middle", "p_high"]], atol=1e-5)
    facts = {one.key: one.value for one in onnx.load(str(root / "tones.onnx")).metadata_props}
    assert json.loads(facts["evar.classes"]) == ["low", "middle", "high"] and facts["evar.task"] == "tones"
    assert run(["export", "logmel", f"--head={classifier}", "-o", str(root / "no.onnx")]) == cli.WRONG
    assert "was trained on toy, got logmel" in capsys.readouterr().err
    assert run(["export", f"--head={classifier}", "--pooled", "-o", str(root / "no.onnx")]) == cli.WRONG


def test_heads_of_several_folds_are_averaged_or_named(tones):
    root = tones(folds=True)
    classifier = root / "tones.safetensors"
    assert run(["train", "tones", "--encoder=toy", "-o", str(classifier)]) == cli.DONE
    network = load_head(classifier).network
    vectors = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    record = read_classifier(classifier)[0]
    names = [head.name for head in record.heads]
    each = torch.stack([load_head(classifier, name).network(vectors) for name in names])
    assert torch.allclose(network(vectors), each.mean(dim=0), atol=1e-6)
    with pytest.raises(ValueError, match="the classifier has no head 'fold 9'"):
        load_head(classifier, "fold 9")
