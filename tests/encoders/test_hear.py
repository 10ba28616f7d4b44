"""HEAR modules as encoders, our encoders as HEAR modules by the published validator's rules, and classes in files."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import evar.hear
from evar import cli, results
from evar.cli import run
from evar.encoders import load_encoder
from evar.encoders.pooling import pool

MODULE = """
import numpy
import torch

class Model(torch.nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.sample_rate, self.scene_embedding_size, self.timestamp_embedding_size = 16000, 6, 4
        self.net = torch.nn.Linear(400, 4)
        torch.manual_seed(1)
        torch.nn.init.normal_(self.net.weight, std=gain)

def load_model(model_file_path=""):
    return Model(float(open(model_file_path).read()) if model_file_path else 1.0)

def get_timestamp_embeddings(audio, model):
    assert len({len(clip) for clip in audio}) == 1
    frames = audio.unfold(1, 400, 400)
    times = (torch.arange(frames.shape[1]) * 25.0 + 12.5).expand(len(audio), -1)
    return torch.relu(model.net(frames)), times

def get_scene_embeddings(audio, model):
    frames, _ = get_timestamp_embeddings(audio, model)
    return torch.cat([frames.mean(1), frames.amax(1)[:, :2]], dim=1)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a HEAR module, with some text replaced, and returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = iter(range(9))

    def write(old="", new=""):
        name = f"hear_toy_{abs(hash(tmp_path)) % 10**8}_{next(count)}"
        assert old in MODULE
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE.replace(old, new) if old else MODULE))
        return name

    return write


def test_a_hear_module_is_an_encoder(module):
    encoder = load_encoder(f"hear:{module()}")
    assert [(info.name, info.width, info.hop) for info in encoder.layer_infos] == [
        ("timestamps", 4, 400),
        ("scene", 6, 0),
    ]
    assert encoder.weights_label.startswith("load_model of") and encoder.default_layers == ("scene",)
    clips = 0.1 * torch.randn(3, 16000)
    together = encoder.encode(clips, torch.tensor([16000, 8000, 16000]))
    assert together.frames["timestamps"].tolist() == [40, 20, 40]
    alone = encoder.encode(clips[1:2, :8000])
    assert torch.allclose(together["scene"][1], alone["scene"][0], atol=1e-6)
    assert torch.allclose(together["timestamps"][1, :20], alone["timestamps"][0], atol=1e-6)


def test_whole_numbers_of_numpy_are_whole_numbers(module):
    name = module("16000, 6, 4", "numpy.int64(16000), numpy.int32(6), 4")
    encoder = load_encoder(f"hear:{name}")
    assert encoder.sample_rate == 16000 and type(encoder.sample_rate) is int
    assert [info.width for info in encoder.layer_infos] == [4, 6]


def test_its_checkpoint_and_random_weights_are_other_encoders(module, tmp_path):
    name = f"hear:{module()}"
    (tmp_path / "checkpoint.txt").write_text("2.0")
    own, given, random = (
        load_encoder(name),
        load_encoder(name, tmp_path / "checkpoint.txt"),
        load_encoder(name, "random"),
    )
    assert torch.allclose(given.model.net.weight, 2 * own.model.net.weight) and given.weights_label == "checkpoint.txt"
    assert random.weights_label == "random" and not torch.equal(random.model.net.weight, own.model.net.weight)
    assert len({one.weights_sha256 for one in (own, given, random)}) == 3


def test_a_hear_module_gives_rows(module, tones):
    root = tones(n_per_class=20, unequal=True)
    assert run(["lineval", f"hear:{module()}", "tones", "--layers=all", f"--out={root / 'results'}"]) == cli.DONE
    assert {row.layers[0] for row in results.load_all(root / "results")} == {"timestamps", "scene"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def get_scene_embeddings", "def get_scenes", "has no function get_scene_embeddings"),
        ("16000, 6, 4", "16000, 6.0, 4", "whole number scene_embedding_size, got 6.0"),
        ("16000, 6, 4", "8000, 6, 4", "sample_rate must be one of"),
        ("return Model(", "return dict(a=", "must return a torch.nn.Module"),
        ("* 25.0", "* 400.0", "beyond a clip"),
        ("* 25.0 + 12.5", "* 0.025", "are they seconds in place of milliseconds"),
        ("* 25.0 + 12.5", "* 0.0", "must increase"),
        ("* 25.0 + 12.5", "* 25.0 - 100.0", "below 0"),
        (".expand(len(audio), -1)", "", "timestamps must be float32 .*got"),
        ("return torch.relu(model.net(frames)), times", "return torch.rand(len(audio), 80, 4), times", "called twice"),
        ("return Model(", "return Modle(", "load_model of hear_toy_.* failed: NameError"),
        (
            "torch.relu(model.net(frames))",
            "torch.relu(model.nets(frames))",
            "get_timestamp_embeddings of .* failed: Attrib",
        ),
        ("frames.amax(1)[:, :2]", "frames.amax(1)[:, :1]", "scene embeddings must be float32"),
    ],
)
def test_a_module_that_breaks_the_api_is_told(module, old, new, said):
    name = module(old, new)
    with pytest.raises((ValueError, RuntimeError), match=said):
        load_encoder(f"hear:{name}").encode(0.1 * torch.randn(2, 16000))


def test_names_that_cannot_be(module):
    with pytest.raises(ImportError, match="pip install the HEAR model"):
        load_encoder("hear:no_such_module_here")
    with pytest.raises(ValueError, match="expected hear:MODULE"):
        load_encoder("hear:../x")


# ---------------------------------------------------------------- ours for HEAR

OURS = ["silero_vad", "logmel", "crepe.tiny", "byol_a2", "vggish", "cnn14.16k"]


@pytest.mark.parametrize("name", OURS)
def test_our_encoders_keep_the_rules_of_the_published_validator(name):
    model = evar.hear.load_model(f"{name}@random" if name != "logmel" else name)
    assert isinstance(model, torch.nn.Module) and model.sample_rate in (16000, 22050, 32000, 44100, 48000)
    assert type(model.scene_embedding_size) is int and type(model.timestamp_embedding_size) is int
    generator = torch.Generator().manual_seed(0)
    for n_clips, seconds in ((2, 1.07), (2, 1.98), (2, 4.0)):
        audio = 2 * torch.rand(n_clips, int(seconds * model.sample_rate), generator=generator) - 1
        embeddings, timestamps = evar.hear.get_timestamp_embeddings(audio, model)
        assert embeddings.dtype == torch.float32 and embeddings.dim() == 3 and timestamps.dim() == 2
        assert embeddings.shape[:2] == timestamps.shape and embeddings.shape[2] == model.timestamp_embedding_size
        gaps = timestamps.diff(dim=1)
        if gaps.numel():
            assert float((gaps - gaps.mean()).abs().max()) <= 1.0 and float(gaps.min()) > 0
        assert float(timestamps.max()) <= 1000 * seconds + 1e-3
    scene = evar.hear.get_scene_embeddings(
        2 * torch.rand(4, int(2.74 * model.sample_rate), generator=generator) - 1, model
    )
    assert scene.shape == (4, model.scene_embedding_size) and scene.dtype == torch.float32 and scene.isfinite().all()


def test_scenes_are_what_lineval_probes():
    model, encoder = evar.hear.load_model("byol_a2@random"), load_encoder("byol_a2", "random")
    audio = 0.1 * torch.randn(2, 16000)
    features = encoder.encode(audio)
    parts = [pool(features[n], features.frames[n], encoder.layer(n).pooling) for n in encoder.default_layers]
    assert torch.allclose(evar.hear.get_scene_embeddings(audio, model), torch.cat(parts, dim=1), atol=1e-6)


def test_a_round_trip_through_both_gives_the_same_numbers(monkeypatch):
    monkeypatch.setenv("EVAR_HEAR_ENCODER", "silero_vad@random")
    there, here = load_encoder("hear:evar.hear"), load_encoder("silero_vad", "random")
    audio = 0.1 * torch.randn(2, 16000)
    features = here.encode(audio)
    (name,) = here.default_layers
    wanted = pool(features[name], features.frames[name], here.layer(name).pooling)
    assert torch.allclose(there.encode(audio)["scene"][:, 0], wanted, atol=1e-6)


def test_what_hear_cannot_take_is_told(monkeypatch):
    monkeypatch.delenv("EVAR_HEAR_ENCODER", raising=False)
    with pytest.raises(ValueError, match="needs an encoder's name"):
        evar.hear.load_model()
    with pytest.raises(ValueError, match="no frames"):
        evar.hear.load_model("ast@random")


# ---------------------------------------------------------------- classes in files


def test_a_class_in_a_file_is_an_encoder_and_an_edited_file_is_another(tones, tmp_path):
    root = tones()
    source = (evar.hear.__file__.rpartition("/evar/")[0]) + "/examples/my_encoder.py"
    path = tmp_path / "mine.py"
    path.write_text(Path(source).read_text())
    name = f"{path}:MyEncoder"
    encoder = load_encoder(name)
    assert encoder.name == "mine:MyEncoder" and encoder.weights_label == "random"
    words = ["lineval", name, "tones", "--layers=all", f"--out={root / 'results'}"]
    assert run(words) == cli.DONE
    rows = results.load_all(root / "results")
    assert {row.layers[0] for row in rows} == {"conv1", "conv2"}
    assert run(["rerun", str(root / "results" / "runs" / f"{rows[0].id}.json"), "--trust_code"]) == cli.DONE
    path.write_text(path.read_text().replace("torch.relu(self.conv2", "torch.tanh(self.conv2"))
    edited = load_encoder(name)
    assert edited.weights_sha256 != encoder.weights_sha256
    clip = 0.1 * torch.randn(1, 16000)
    assert not np.allclose(edited.encode(clip)["conv2"].detach(), encoder.encode(clip)["conv2"].detach())
    with pytest.raises(ValueError, match="has no 'MyEncodr'.*did you mean 'MyEncoder'"):
        load_encoder(f"{path}:MyEncodr")
    with pytest.raises(FileNotFoundError, match="no file"):
        load_encoder(f"{tmp_path / 'nothing.py'}:MyEncoder")
