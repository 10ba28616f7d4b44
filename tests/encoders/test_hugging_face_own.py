"""Folders of CED, Dasheng and EAT by `hf:` name: our classes take their tensors, and their code is never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.encoders.ced import Ced
from evar.encoders.dasheng import Dasheng
from evar.encoders.eat import Eat

CED = {"model_type": "ced", "name": "ced-tiny", "depth": 2, "outputdim": 527, "pooling": "mean", "n_mels": 64}
DASHENG = {
    "model_type": "dasheng", "name": "dasheng-base", "loss": "BCELoss",
    "encoder_kwargs": {"embed_dim": 768, "depth": 1, "num_heads": 12, "target_length": 1008, "patch_size": [64, 4]},
}  # fmt: skip
EAT = {
    "model_type": "eat", "embed_dim": 768, "depth": 1, "num_heads": 12, "model_variant": "pretrain", "num_classes": 527,
    "norm_eps": 1e-6, "layer_norm_first": False, "img_size": [1024, 128],
}  # fmt: skip
HUB_NAMES = (("patch_embed.proj.", "local_encoder.proj."), ("positions", "fixed_positional_encoder.positions"))


def save(folder: Path, encoder: Encoder, settings: dict[str, Any]) -> Path:
    """Write an encoder's tensors under the hub's names, beside a config.json that names code of its own."""
    state = {}
    for name, tensor in encoder.state_dict().items():
        if name.startswith("mel."):
            continue
        if isinstance(encoder, Eat):
            for own, hub in (*HUB_NAMES, ("classifier.", "head.")):
                name = hub + name.removeprefix(own) if name.startswith(own) else name
            name = f"model.{name}"
        elif not name.startswith("outputlayer."):
            name = f"encoder.{name}"
        state[name] = tensor.contiguous()
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    own = {"auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps({**settings, **own}))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    return folder


CASES = {
    "ced": (lambda: Ced("tiny", n_blocks=2), CED),
    "dasheng": (lambda: Dasheng(n_blocks=1), DASHENG),
    "eat": (lambda: Eat(n_blocks=1), EAT),
    "eat_tuned": (lambda: Eat(n_blocks=1, n_classes=527), {**EAT, "model_variant": "finetune"}),
}


@pytest.mark.parametrize("name", CASES)
def test_our_class_takes_the_folders_tensors(name, tmp_path):
    build, settings = CASES[name]
    torch.manual_seed(4)
    own = build().eval()
    folder = save(tmp_path / name, own, settings)
    encoder = load_encoder(f"hf:{folder}")
    assert type(encoder) is type(own) and encoder.layer_infos == own.layer_infos and encoder.weights_label == name
    waveform = 0.1 * torch.randn(2, 12000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine, theirs = encoder.encode(waveform), own.encode(waveform)
        drawn = load_encoder(f"hf:{folder}", "random").encode(waveform)
    for layer, value in theirs.items():
        assert torch.equal(mine[layer], value) and not torch.equal(drawn[layer], value)
    if name == "eat_tuned":
        with torch.no_grad():
            assert encoder.outputs(waveform).shape == (2, 527)
    assert not (folder / "ran").exists()


def test_options_of_our_class_can_be_given(tmp_path):
    folder = save(tmp_path / "eat", Eat(n_blocks=1), EAT)
    encoder = load_encoder(f"hf:{folder}", readout="side_by_side")
    assert encoder.layer_infos[0].width == 8 * 768 and encoder.options["readout"] == "side_by_side"
    with pytest.raises(ValueError, match="no readout 'side' for eat"):
        load_encoder(f"hf:{folder}", readout="side")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ced", {"target_length": 500}, "target_length is 500, but only models with 1012"),
        ("ced", {"name": "own", "embed_dim": 100}, "no published network is 100 wide"),
        (
            "ced",
            {"name": None, "embed_dim": 192, "num_heads": 4},
            "no published network is 192 wide with 4 heads; there are 192 wide with 3 heads",
        ),
        ("dasheng", {"encoder_kwargs": {"patch_size": [16, 16]}}, r"patch_size is \[16, 16\]"),
        ("eat", {"layer_norm_first": True}, "layer_norm_first is True"),
        ("eat", {"depth": 2}, "missing"),
    ],
)
def test_another_network_than_the_published_one_is_refused(name, changes, message, tmp_path):
    build, settings = CASES[name]
    folder = save(tmp_path / name, build(), {**settings, **changes})
    with pytest.raises(ValueError, match=message):
        load_encoder(f"hf:{folder}")
