"""Every array of the golden set g4 (outputs of the official implementations) but CLAP's, computed by our encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_more_g2 import front, like, load
from numpy.typing import NDArray
from torch import Tensor

from evar import embed
from evar.encoders import load_encoder

Arrays = dict[str, NDArray[Any]]
Checkpoint = Callable[[str], Path]

#: "model/array" -> why ours has no such array
UNMAPPED: dict[str, str] = {}

#: what ours are called, shallow to deep -> the last block of each stage in DECAR's and in COLA's code
STAGES = ("stem", *(f"stage{number}" for number in range(1, 8)))
DECAR = ("stem", *(f"block{number:02d}" for number in (0, 2, 4, 7, 10, 14, 15)))
COLA = ("stem", *(f"block{name}" for name in ("1a", "2b", "3b", "4c", "5c", "6d", "7a")))


#: samples of the waves A, C, D and E, for which the set has the front-ends of the TensorFlow package
TENSORFLOW_LENGTHS = (48000, 240000, 112563, 24000)


def openl3(waveform: Tensor, checkpoint: Checkpoint, n_mels: int) -> Arrays:
    plain = load("openl3.env_mel128" if n_mels == 128 else "openl3.env", checkpoint(f"openl3_mel{n_mels}"))
    frames = {name: value[0].numpy() for name, value in plain.encode(waveform).items()}  # (window, feature)
    arrays = {
        **windowed_front(plain.frontend(waveform)),
        **{name: frames[name].mean(axis=0) for name in ("pool1", "pool2", "pool3", "conv8")},
        "conv8_max": like(plain, within="max").encode(waveform)["conv8"][0].numpy().max(axis=0),
        "emb": frames["emb512"].mean(axis=0),
        "emb6144": frames["emb6144"].mean(axis=0),
        "emb512_max": frames["emb512"].max(axis=0),
        "frames2_512": frames["emb512"][[0, -1]],
    }
    if waveform.shape[1] in TENSORFLOW_LENGTHS:
        for kind in ("kapre", "librosa"):
            encoder = like(plain, frontend=kind)
            clip = embed(encoder, waveform, layers=["emb512", "emb6144"])
            found = {**windowed_front(encoder.frontend(waveform)), **{name: clip[name][0] for name in clip}}
            arrays |= {f"{kind}_{name}": value for name, value in found.items()}
    return arrays


def windowed_front(values: Tensor) -> Arrays:
    """The front-end of all windows, and the middle of the first."""
    return {**front(values), "front_mid8": values[0, 120:128].double().numpy()}


def wav2clip(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder: Any = load("wav2clip", checkpoint("wav2clip"))
    spectrogram = encoder.frontend(waveform)
    clip = embed(encoder, waveform, layers="all")
    last = encoder.encode(waveform)["layer4"][0].numpy()
    arrays = {
        **front(spectrogram),
        "norm_first8": encoder.scale(spectrogram)[0, :8].numpy(),
        **{name: clip[name][0] for name in ("layer1", "layer2", "layer3", "layer4", "encoder", "emb")},
        "layer4_max": last.max(axis=0),
        "frames2": last[[0, -1]].reshape(2, 512, -1).mean(axis=2),
    }
    if waveform.shape[1] >= 16000:
        arrays["frame_emb2"] = encoder.embed_frames(waveform)[[0, -1]].numpy()
    return arrays


def byol_s(waveform: Tensor, checkpoint: Checkpoint, name: str, layout: str, long: int = 10 * 16000) -> Arrays:
    encoder: Any = load(name, checkpoint(layout))
    spectrogram = encoder.frontend(waveform)
    features = encoder.encode(waveform)
    last = encoder.layer_infos[-1]
    arrays = {
        **front(spectrogram),
        "norm_first8": encoder.scale(spectrogram)[0, :8].numpy(),
        **{name: value[0].numpy().mean(axis=0) for name, value in features.items()},
        "emb": embed(encoder, waveform)[0],
    }
    frames = features[last.name][0].numpy()
    if last.name != "fc2":  # the set has layers channel-major, and the embedding band-major
        arrays[last.name] = arrays[last.name].reshape(-1, 512).T.ravel()
    arrays |= {"frames2": frames[[0, -1]], "last_max": frames.max(axis=0), "last_mean": frames.mean(axis=0)}
    if waveform.shape[1] <= long:
        vectors, _ = encoder.embed_timestamps(waveform)
        arrays |= {"timestamps2": vectors[[0, -1]].numpy(), "n_timestamps": np.array([len(vectors)], np.float64)}
    return arrays


def coala(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    plain = load("coala", checkpoint("coala"))
    encoder: Any = like(plain, input="padded")
    clip, chunks = embed(encoder, waveform, layers="all"), encoder.encode(waveform)["emb"][0].numpy()
    lengths = torch.tensor([waveform.shape[1]])
    arrays = {
        **front(encoder.frontend(waveform)),
        "scaled_first8": encoder.scale_chunks(waveform, lengths)[0, :8].numpy(),
        **{name: clip[name][0] for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "emb")},
        "emb_max": chunks.max(axis=0),
        "chunks2": chunks[[0, -1]],
        "fc_mean": clip["fc"][0],
        "n_chunks": np.array([len(chunks)], np.float64),
        "emb_nonoise": embed(like(plain, input="padded", noise=False), waveform)[0],
    }
    own = like(plain, input="whole")
    if waveform.shape[1] >= own.min_samples:
        arrays["emb_own"] = embed(own, waveform)[0]
    return arrays


def decar(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder = load("decar", checkpoint("decar"))
    clip, features = embed(encoder, waveform, layers="all"), encoder.encode(waveform)
    arrays = {
        **front(encoder.frontend(waveform)),
        **{theirs: clip[ours][0] for ours, theirs in zip(STAGES, DECAR, strict=True)},
        "top": clip["top"][0],
        **top_arrays(features["top"]),
        "emb": clip["emb"][0],
    }
    for prefix, layout in (("delores_tf_", "time_mel"), ("delores_ft_", "mel_time")):
        delores = load_encoder("delores", checkpoint("decar"), layout=layout)
        found = {**top_arrays(delores.encode(waveform)["top"]), "emb": embed(delores, waveform)[0]}
        if layout == "mel_time":  # the code takes the first axis of the image for time, which is the mel here
            places = delores.encode(waveform)["top"][0].numpy().reshape(-1, 1280, 2).mean(axis=0).T  # (band, channel)
            found["frames2"] = places[[0, -1]]
        arrays |= {prefix + name: value for name, value in found.items()}
        shown = front(delores.frontend(waveform))
        arrays |= {f"delores_{name}": shown[name] for name in ("front_first8", "front_last8")}
    return arrays


def top_arrays(top: Tensor) -> Arrays:
    """(1, time, channel x band): the first and last step, averaged over bands, and the maximum over time and bands."""
    maps = top[0].numpy().reshape(-1, 1280, 2)
    return {"frames2": maps.mean(axis=2)[[0, -1]], "max": maps.max(axis=(0, 2))}


def cola(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder = load("cola", checkpoint("cola"))
    clip, maps = embed(encoder, waveform, layers="all"), encoder.encode(waveform)["top"][0].numpy().reshape(-1, 1280, 2)
    released: Any = like(encoder, input="padded")
    lengths = torch.tensor([waveform.shape[1]])
    examples = released.cut_examples(waveform, lengths)
    vectors = released.encode(waveform)["emb"][0].numpy()
    shown = released.frontend(examples)
    return {
        **front(encoder.frontend(waveform)),
        **{theirs: clip[ours][0] for ours, theirs in zip(STAGES, COLA, strict=True)},
        "frames2": maps.mean(axis=2)[[0, -1]],
        "mean": maps.mean(axis=(0, 2)),
        "emb": clip["emb"][0],
        "proj": clip["proj"][0],
        "ex_emb": embed(released, waveform)[0],
        "ex_first": vectors[0],
        "ex_front_first8": shown[0, :8].numpy(),
        "ex_count": np.array([len(examples), shown.shape[1]], np.float64),
    }


def trill_front(waveform: Tensor, checkpoint: Checkpoint) -> Arrays:
    encoder: Any = load_encoder("trill_front")
    patches = encoder.cut_patches(padded(waveform, encoder.min_samples), hop_frames=17)
    return {**front(encoder.frontend(waveform)), "examples": np.array(patches.shape[1:], np.float64)}


def padded(waveform: Tensor, least: int) -> Tensor:
    """A clip with silence after it, where it is shorter than that."""
    return torch.nn.functional.pad(waveform, (0, max(0, least - waveform.shape[1])))


#: golden model -> sample rate, and what computes its arrays
MODELS: dict[str, tuple[int, Callable[[Tensor, Checkpoint], Arrays]]] = {
    "openl3_mel128": (48000, partial(openl3, n_mels=128)),
    "openl3_mel256": (48000, partial(openl3, n_mels=256)),
    "wav2clip": (16000, wav2clip),
    "byols_default": (16000, partial(byol_s, name="byol_s.default", layout="byols_default")),
    "byols_resnetish34": (16000, partial(byol_s, name="byol_s.resnetish", layout="byols_resnetish34")),
    "byols_cvt": (16000, partial(byol_s, name="byol_s.cvt", layout="byols_cvt")),
    "coala": (22000, coala),
    "decar": (16000, decar),
    "cola": (16000, cola),
    "trill_front": (16000, trill_front),
}


def compute(model: str, wave: Mapping[int, NDArray[np.float32]], checkpoint: Checkpoint) -> Arrays:
    """All arrays of one golden model for one waveform, by their golden names.

    Args:
        model: a key of `MODELS`.
        wave: sample rate in Hz -> (samples,) float32; the model's own rate must be among them.
        checkpoint: layout -> path of the fake checkpoint of that layout.
    """
    rate, arrays = MODELS[model]
    waveform = torch.from_numpy(np.ascontiguousarray(wave[rate], np.float32))[None]
    with torch.inference_mode():
        return arrays(waveform, checkpoint)
