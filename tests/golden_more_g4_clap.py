"""Every array of the CLAP models of the golden set g4 (outputs of the official implementations), by our encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_more_g2 import front, like
from numpy.typing import NDArray
from torch import Tensor

from evar.encoders import load_encoder
from evar.encoders._clap_audio import fill_piece
from evar.encoders._clap_htsat import HtsatClap

Arrays = dict[str, NDArray[Any]]
Checkpoint = Callable[[str], Path]

#: "model/array" -> why ours has no such array
UNMAPPED: dict[str, str] = {}
RATES = {"laion_clap": 48000, "ms_clap_2023": 44100}
NAMES = {"laion_clap": "clap.laion", "ms_clap_2023": "clap.ms2023"}


def clap(model: str, waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    """All arrays of one wave; the set cuts what is longer than a piece at its start, in place of a random cut."""
    encoder = load(NAMES[model], checkpoint(model))
    waveform = waveform[:, : encoder.piece]
    arrays = of_layers(encoder, waveform)
    filled = fill_piece(waveform[0], encoder.piece, encoder.fill)[None]
    arrays |= front(encoder.frontend(filled))
    tags = encoder.outputs(waveform)[0].numpy()
    steps = encoder.time_steps(waveform)[0].numpy()
    arrays |= {"clipwise_first16": tags[:16], "clipwise_mean": tags.mean()[None]}
    arrays |= {"frames2": steps[[0, -1]], "frames_max": steps.max(axis=0)}
    own = like(encoder, input="clip").encode(waveform)
    arrays |= {"own_emb": own["norm"][0, 0].numpy(), "own_proj": unscaled(encoder, own["norm"])}
    if model == "laion_clap":
        rounded = (waveform.clamp(-1, 1) * 32767.0).to(torch.int16) / 32767.0
        found = encoder.encode(rounded.float())
        arrays |= {"q16_emb": found["norm"][0, 0].numpy(), "q16_proj": unscaled(encoder, found["norm"])}
        hub = load(NAMES[model], checkpoint("laion_clap_hf"))
        arrays["hub_pooler"] = hub.encode(waveform)["norm"][0, 0].numpy()
        arrays["hub_front_first8"] = hub.frontend(filled)[0, :8].numpy()
    return arrays


def of_layers(encoder: HtsatClap, waveform: Tensor) -> Arrays:
    layers = encoder.encode(waveform)
    blocks = {
        f"block{int(name.removeprefix('block')):02d}": value[0, 0].numpy()
        for name, value in layers.items()
        if name.startswith("block")
    }
    projected = unscaled(encoder, layers["norm"])
    normed = layers["proj"][0, 0] / layers["proj"][0, 0].norm()
    return {
        "patch": layers["patch"][0, 0].numpy(),
        **blocks,
        "emb": layers["norm"][0, 0].numpy(),
        "proj": projected,
        "proj_norm": normed.numpy(),
    }


def unscaled(encoder: HtsatClap, norm: Tensor) -> NDArray[Any]:
    """The projection as it comes, before it is scaled to length 1."""
    return encoder.audio_projection(norm[0, 0]).numpy()


def load(name: str, path: Path) -> HtsatClap:
    """The encoder with that checkpoint; the last two are kept, since waves come one by one."""
    file = path if path.is_file() else path / "model.safetensors"
    return _loaded(name, str(path), file.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _loaded(name: str, path: str, _written: int) -> HtsatClap:
    encoder = load_encoder(name, path)
    assert isinstance(encoder, HtsatClap)
    return encoder


MODELS = tuple(NAMES)


def compute(model: str, wave: Mapping[int, NDArray[np.float32]], checkpoint: Checkpoint) -> Arrays:
    """All arrays of one golden model for one waveform, by their golden names.

    Args:
        model: one of `MODELS`.
        wave: sample rate in Hz -> (samples,) float32; the rates of `RATES` are needed.
        checkpoint: layout -> path of the fake checkpoint of that layout.
    """
    waveform = torch.from_numpy(np.ascontiguousarray(wave[RATES[model]], np.float32))[None]
    with torch.inference_mode():
        return clap(model, waveform, checkpoint)
