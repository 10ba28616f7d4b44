"""Every array of the golden set g2 (outputs of the official implementations), computed by our encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar import embed
from evar.encoders import load_encoder
from evar.encoders.atst import LONGEST, central
from evar.encoders.base import Encoder

Arrays = dict[str, NDArray[Any]]
Checkpoint = Callable[[str], Path]

#: "model/array" -> why ours has no such array
UNMAPPED: dict[str, str] = {}


def beats(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder = load("beats.as2m", checkpoint("beats_ft"))  # the same encoder as "beats", with the head of the tags
    bands = like(encoder, bands="side_by_side").encode(waveform)["block12"][0].numpy()
    clip = embed(encoder, waveform, layers="all")
    return {
        **front(encoder.frontend(waveform)),
        "input_mean": clip["input"][0],
        "blocks": blocks(clip),
        "emb": embed(load("beats.iter3", checkpoint("beats")), waveform)[0],
        "last_max": bands.reshape(-1, 768).max(axis=0),
        "frames2": bands[[0, -1]],
        "probs": encoder.outputs(waveform)[0].numpy(),
    }


def atst_clip(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    plain = load("atst_clip", checkpoint("atst_clip"))
    encoder = like(plain, input="padded")
    clip = blocks(embed(encoder, waveform, layers="all"))  # (block, 1536)
    centre, _ = central(waveform, torch.tensor([waveform.shape[1]]), LONGEST)
    tokens = plain.encode(centre)["block12"][0, :, 768:].numpy()
    return {
        **front(encoder.frontend(waveform)),
        "blocks_cls": clip[:, :768],
        "blocks_avg": clip[:, 768:],
        "emb": embed(encoder, waveform)[0],
        "last_max": tokens.max(axis=0),
        "frames2": tokens[[0, -1]],
    }


def atst_frame(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    plain = load("atst_frame", checkpoint("atst_frame"))
    encoder = like(plain, input="padded")
    tokens = plain.encode(waveform)["block12"][0].numpy()
    return {
        **front(encoder.frontend(waveform)),
        "blocks": blocks(embed(encoder, waveform, layers="all")),
        "emb": embed(encoder, waveform)[0],
        "emb_lineareval": embed(like(plain, input="lineareval"), waveform)[0],
        "frames_count": np.array([len(tokens)], np.float64),
        "last_max": tokens.max(axis=0),
        "frames2": tokens[[0, -1]],
    }


def eat(waveform: Tensor, checkpoint: Checkpoint, name: str = "eat") -> Arrays:
    plain = load("eat.base" if name == "eat" else name, checkpoint(name))
    arrays = front(plain.frontend(waveform))
    for prefix, way in (("", "padded"), ("own_", "clip")):
        mean = embed(like(plain, input=way), waveform, layers="all")
        cls = embed(like(plain, input=way, readout="cls"), waveform, layers="all")
        bands = like(plain, input=way, readout="side_by_side").encode(waveform)["block12"][0].numpy()
        found = {
            "blocks": blocks(mean),
            "blocks_cls": blocks(cls),
            "emb": mean["block12"][0],
            "emb_cls": cls["block12"][0],
            "emb_patches": embed(like(plain, input=way, readout="patches"), waveform)[0],
            "last_max": bands.reshape(-1, 768).max(axis=0),
            "frames2": bands[[0, -1]],
        }
        arrays |= {prefix + key: value for key, value in found.items()}
    return {**arrays, "logits": load(f"{name}.as2m", checkpoint("eat_hf_ft")).outputs(waveform)[0].numpy()}


def sslam(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    return eat(waveform, checkpoint, "sslam")


def ced(waveform: Tensor, checkpoint: Checkpoint, size: str) -> Arrays:
    encoder: Any = like(load(f"ced.{size}", checkpoint(f"ced_{size}")), input="padded")
    bands = like(encoder, bands="side_by_side").encode(waveform)["norm"][0].numpy()
    clip = embed(encoder, waveform, layers="all")
    return {
        **front(encoder.frontend(waveform)),
        "blocks": blocks(clip),
        "emb": embed(encoder, waveform)[0],
        "last_max": bands.reshape(-1, len(clip["norm"][0])).max(axis=0),
        "frames2": bands[[0, -1]],
        "probs": encoder.outputs(waveform)[0].numpy(),
        "probs_hub": encoder.tags(torch.from_numpy(clip["norm"]))[0].numpy(),
    }


def dasheng(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    plain = load("dasheng.base", checkpoint("dasheng"))
    encoder = like(plain, input="padded")
    tokens = encoder.encode(waveform)["norm"][0].numpy()
    return {
        **front(encoder.frontend(waveform)),
        "blocks": blocks(embed(encoder, waveform, layers="all")),
        "emb": embed(encoder, waveform)[0],
        "emb_unpadded": embed(plain, waveform)[0],
        "last_max": tokens.max(axis=0),
        "frames2": tokens[[0, -1]],
        "frames_count": np.array([len(tokens)], np.float64),
        "logits_hub": encoder.outputs(waveform)[0].numpy(),
    }


def load(name: str, path: Path) -> Encoder:
    """The encoder with that checkpoint; the last two are kept, since waves come one by one."""
    file = path if path.is_file() else path / "model.safetensors"
    return _loaded(name, str(path), file.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _loaded(name: str, path: str, _written: int) -> Encoder:
    return load_encoder(name, path)


def like(encoder: Encoder, **options: Any) -> Encoder:
    """The same encoder with other options, what `load_encoder(name, path, **options)` gives, in no time and memory."""
    options = {**encoder.options, **options}
    draws = ("kaiming_uniform_", "xavier_uniform_", "uniform_", "normal_")
    with mock.patch.multiple(torch.nn.init, **dict.fromkeys(draws, lambda tensor, *_, **__: tensor)):
        other = type(encoder)(**options)
    other.load_state_dict(encoder.state_dict(), assign=True)
    other.options, other.name = options, encoder.name
    return other.eval()


def front(values: Tensor) -> Arrays:
    """(1, time, mel) -> its first and last frames, and [frames, bins, mean, population std, min, max]."""
    numbers = values[0].detach().double().numpy()
    stats = [*numbers.shape, numbers.mean(), numbers.std(), numbers.min(), numbers.max()]
    return {"front_first8": numbers[:8], "front_last8": numbers[-8:], "front_stats": np.array(stats)}


def blocks(clip: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Layer -> (1, feature), as (block, feature), for the layers that are blocks."""
    return np.stack([value[0] for name, value in clip.items() if name.startswith("block")])


MODELS: dict[str, Callable[[Tensor, Checkpoint], Arrays]] = {
    "beats": beats,
    "atst_clip": atst_clip,
    "atst_frame": atst_frame,
    "eat": eat,
    "sslam": sslam,
    **{f"ced_{size}": partial(ced, size=size) for size in ("tiny", "mini", "small", "base")},
    "dasheng": dasheng,
}


def compute(model: str, wave: Mapping[int, NDArray[np.float32]], checkpoint: Checkpoint) -> Arrays:
    """All arrays of one golden model for one waveform, by their golden names.

    Args:
        model: a key of `MODELS`.
        wave: sample rate in Hz -> (samples,) float32.
        checkpoint: layout -> path of the fake checkpoint of that layout.
    """
    waveform = torch.from_numpy(np.ascontiguousarray(wave[16000], np.float32))[None]
    with torch.inference_mode():
        return MODELS[model](waveform, checkpoint)
