"""Every array of the golden set g3 (outputs of the official implementations), computed by our encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_more_g2 import blocks, front, like, load
from numpy.typing import NDArray
from torch import Tensor

from evar import embed
from evar.encoders import load_encoder

Arrays = dict[str, NDArray[Any]]
Checkpoint = Callable[[str], Path]

#: "model/array" -> why ours has no such array
UNMAPPED: dict[str, str] = {}


def htsat(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder: Any = load("htsat", checkpoint("htsat"))
    clip = {name: value[0] for name, value in embed(encoder, waveform, layers="all").items()}
    pieces = waveform.split(320_000, dim=1)
    image = encoder.network.to_image(encoder.frontend(pieces[0]), repeat=True)[0]
    steps = [{name: value[0] for name, value in encoder.read_time_steps(piece).items()} for piece in pieces]
    norm, block12 = ([step[name] for step in steps] for name in ("norm", "block12"))
    frame_tags = encoder.tag_frames(waveform)[0]
    clipwise = encoder.outputs(waveform)[0]
    arrays = {
        **front(encoder.frontend(pieces[0])),
        "image_rows": image[[0, 63, 64, 255]],
        **clip,
        "emb": clip["norm"],
        "norm_max": average([step.amax(dim=0) for step in norm]),
        "block12_max": average([step.amax(dim=0) for step in block12]),
        "frames2": average([step[[0, -1]] for step in norm]),
        "logits16": encoder.compute_logits(waveform)[0, :16],
        "clipwise16": clipwise[:16],
        "clipwise_mean": clipwise.mean()[None],
        "framewise2": frame_tags[[0, -1], :16],
    }
    del arrays["norm"]
    if len(pieces) == 1:
        padded = like(encoder, input="padded")
        own = embed(padded, waveform, layers="all")
        arrays |= {"pad10_emb": own["norm"][0], "pad10_clipwise16": padded.outputs(waveform)[0, :16]}
        arrays |= {f"pad10_{name}": own[name][0] for name in ("block6", "block12")}
    return numbers(arrays)


def passt(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    plain: Any = load("passt", checkpoint("passt"))
    first = waveform[:, :320_000]  # the training repository cuts the patches to 99 columns
    features = plain.encode(first)
    columns, logits = features["block12"][0], features["logits"][0, 0]
    hear = embed(like(plain, input="padded"), waveform, layers=["scene", "logits"])
    arrays = {
        **front(plain.frontend(waveform)),
        "blocks_patch": blocks({name: value.mean(dim=1) for name, value in features.items()}),
        "blocks_tok": blocks(embed(like(plain, readout="tokens"), first, layers="all")),
        "block12_max": columns.amax(dim=0),
        "frames2": columns[[0, -1]],
        "emb": embed(plain, first)[0],
        "logits16": logits[:16],
        "logits_mean": logits.mean()[None],
        "scene": hear["scene"][0],
        "scene_logits16": hear["logits"][0, :16],
    }
    if waveform.shape[1] <= 32_000:
        vectors, moments = plain.embed_moments(waveform)
        arrays |= {"hear_ts2": vectors[0, [0, -1]], "hear_ts_info": np.array([len(moments), moments[0], moments[-1]])}
    return numbers(arrays)


def mn10_as(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder: Any = load("efficientat.mn10", checkpoint("mn10_as"))
    clip = {name: value[0] for name, value in embed(encoder, waveform, layers="all").items()}
    wide = embed(like(encoder, bands="side_by_side"), waveform, layers="all")
    names = ["stem", *(f"block{number}" for number in range(1, 16)), "head"]
    frames, logits = encoder.encode(waveform)["head"][0], encoder.outputs(waveform)[0]
    return numbers(
        {
            **front(encoder.frontend(waveform)),
            **{f"features{number:02d}": clip[name] for number, name in enumerate(names)},
            **{f"features{number:02d}_flat": wide[names[number]][0] for number in (1, 3, 6, 12, 16)},
            "emb": clip["head"],
            "emb_max": frames.amax(dim=0),
            "frames2": frames[[0, -1]],
            "clf_hidden": clip["hidden"],
            "logits16": logits[:16],
            "logits_mean": logits.mean()[None],
        }
    )


def psla(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder: Any = load("psla", checkpoint("psla"))
    arrays = {
        **front(encoder.frontend(waveform)),
        **psla_own(encoder, waveform),
        **{f"pad1056_{name}": value for name, value in psla_own(like(encoder, input="padded"), waveform).items()},
    }
    kept = ("block11", "stage7_flat", "emb", "frames2", "clipwise16", "clipwise_mean")
    return numbers(
        {k: v for k, v in arrays.items() if not k.startswith("pad1056_") or k.removeprefix("pad1056_") in kept}
    )


def psla_own(encoder: Any, waveform: Tensor) -> dict[str, Any]:
    """What one way of filling clips gives."""
    clip = {name: value[0] for name, value in embed(encoder, waveform, layers="all").items()}
    wide = embed(like(encoder, bands="side_by_side"), waveform, layers="all")
    frames, tags = encoder.encode(waveform)["head"][0], encoder.outputs(waveform)[0]
    last_blocks = enumerate((2, 5, 8, 12, 16, 21, 23), start=1)
    return {
        "stem": clip["stem"],
        **{f"block{number:02d}": clip[f"block{number}"] for number in range(1, 24)},
        **{f"stage{stage}_flat": wide[f"block{block}"][0] for stage, block in last_blocks},
        "head_flat": wide["head"][0],
        "emb": clip["head"],
        "emb_max": frames.amax(dim=0),
        "frames2": frames[[0, -1]],
        "clipwise16": tags[:16],
        "clipwise_mean": tags.mean()[None],
    }


def yamnet(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder: Any = load("yamnet", checkpoint("yamnet"))
    clip = {name: value[0] for name, value in embed(encoder, waveform, layers="all").items()}
    wide = embed(like(encoder, bands="side_by_side"), waveform, layers="all")
    logmel, patches = encoder.frontend(waveform), encoder.encode(waveform)["layer14"][0]
    logits = encoder.compute_logits(waveform)[0]
    return numbers(
        {
            **front(logmel),
            **{f"layer{number:02d}": clip[f"layer{number}"] for number in range(1, 15)},
            **{f"layer{number:02d}_flat": wide[f"layer{number}"][0] for number in (2, 7, 12, 14)},
            "frames4": patches[:4],
            "emb": clip["layer14"],
            "emb_max": patches.amax(dim=0),
            "info": np.array([len(patches), logmel.shape[1]]),
            "logits16": logits[:16],
            "logits_mean": logits.mean()[None],
            "predictions16": encoder.outputs(waveform)[0, :16],
        }
    )


def esresnext_fbsp(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    path = checkpoint("esresnext_fbsp")
    encoder: Any = load_encoder("esresnext_fbsp", path, precision="single")  # as the original
    double = load_encoder("esresnext_fbsp", path, precision="double")
    clip = {name: value[0] for name, value in embed(encoder, waveform, layers="all").items()}
    exact = embed(double, waveform, layers=["stage4", "emb"])
    frames, logits = encoder.encode(waveform)["stage4"][0], encoder.outputs(waveform)[0]
    return numbers(
        {
            **front(encoder.frontend(waveform)),
            "stem": clip["stem"],
            **{f"block{number:02d}": clip[f"block{number}"] for number in range(1, 17)},
            **{f"stage{number}": clip[f"stage{number}"] for number in range(1, 5)},
            "stage4_max": frames.amax(dim=0),
            "frames2": frames[[0, -1]],
            "att5": encoder.weigh_channels(waveform)[0],
            "emb": clip["emb"],
            "logits16": logits[:16],
            "logits_mean": logits.mean()[None],
            "f64_front_first8": double.frontend(waveform)[0, :8],
            "f64_stage4": exact["stage4"][0],
            "f64_emb": exact["emb"][0],
        }
    )


def average(values: list[Tensor]) -> Tensor:
    """The mean of what the pieces of a clip give."""
    return torch.stack(values).mean(dim=0)


def numbers(arrays: Mapping[str, Any]) -> Arrays:
    return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in arrays.items()}


#: golden model -> its sample rate, and what computes its arrays
MODELS: dict[str, tuple[int, Callable[[Tensor, Checkpoint], Arrays]]] = {
    "htsat": (32000, htsat),
    "passt": (32000, passt),
    "mn10_as": (32000, mn10_as),
    "psla": (16000, psla),
    "yamnet": (16000, yamnet),
    "esresnext_fbsp": (44100, esresnext_fbsp),
}


def compute(model: str, wave: Mapping[int, NDArray[np.float32]], checkpoint: Checkpoint) -> Arrays:
    """All arrays of one golden model for one waveform, by their golden names.

    Args:
        model: a key of `MODELS`.
        wave: sample rate in Hz -> (samples,) float32.
        checkpoint: layout -> path of the fake checkpoint of that layout.
    """
    rate, arrays = MODELS[model]
    waveform = torch.from_numpy(np.ascontiguousarray(wave[rate], np.float32))[None]
    with torch.inference_mode():
        return arrays(waveform, checkpoint)
