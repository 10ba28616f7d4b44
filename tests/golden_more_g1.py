"""Every array of the golden set g1 (Audio-MAE, M2D, SSAST, MAE-AST, MaskSpec), computed by our encoders."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar import embed
from evar.encoders import load_encoder
from evar.encoders.base import Encoder

Arrays = dict[str, NDArray[Any]]
Loader = Callable[..., Encoder]

#: "model/array" -> why ours has no such array
UNMAPPED: dict[str, str] = {}


def blocks(clip: Arrays, bands: int = 1) -> NDArray[Any]:
    """(block, feature): each block's vector of the clip; of bands side by side their mean where `bands` says how many."""
    return np.stack([value.reshape(bands, -1).mean(0) for name, value in clip.items() if name.startswith("block")])


def token_arrays(encoder: Encoder, waveform: Tensor, layer: str, prefix: str = "") -> Arrays:
    """Maximum over all tokens of a layer, and its first and last time step, mean over the bands."""
    tokens = encoder.tokens(waveform, layer=layer)[0]  # (time, band, width)
    return {
        f"{prefix}max_last": tokens.amax(dim=(0, 1)).numpy(),
        f"{prefix}frames2": tokens[[0, -1]].mean(dim=1).numpy(),
    }


def front(values: Tensor) -> Arrays:
    """(1, time, mel) -> its first and last frames, and [frames, bins, mean, population std, min, max]."""
    spectrogram = values[0].double().numpy()
    return {"front_first8": spectrogram[:8], "front_last8": spectrogram[-8:], "front_stats": stats(spectrogram)}


def stats(values: NDArray[Any]) -> NDArray[Any]:
    """[frames, bins, mean, population std, min, max] of (time, mel)."""
    return np.array([*values.shape, values.mean(), values.std(), values.min(), values.max()])


def logits(encoder: Encoder, waveform: Tensor) -> Arrays:
    values = encoder.outputs(waveform)[0].numpy()
    return {"logits_first16": values[:16], "logits_mean": values.mean(keepdims=True)}


def clip_vectors(encoder: Encoder, waveform: Tensor, bands: int = 1) -> tuple[Arrays, Arrays]:
    """Every layer's vector of the clip in one forward, and the arrays "blocks" and "emb" (the default layer) of it."""
    clip = {name: value[0] for name, value in embed(encoder, waveform, layers="all").items()}
    default = clip[encoder.default_layers[0]]
    return clip, {"blocks": blocks(clip, bands), "emb": default.reshape(bands, -1).mean(0)}


def audio_mae(load: Loader, waveform: Tensor) -> Arrays:
    encoder = load("audio_mae", input="padded")
    clip, arrays = clip_vectors(encoder, waveform)
    contextual = encoder.tokens(waveform)[0]  # (time, band, width)
    return {
        **front(encoder.mel(waveform)),
        **arrays,
        "norm_mean": clip["norm"],
        "cls": clip["cls"],
        **token_arrays(encoder, waveform, "norm"),
        "contextual_frames2": contextual[[0, -1]].mean(dim=1).numpy(),
    }


def audio_mae_as2m(load: Loader, waveform: Tensor) -> Arrays:
    encoder = load("audio_mae.as2m", input="padded")
    return {
        **front(encoder.mel(waveform)),
        **clip_vectors(encoder, waveform)[1],
        **token_arrays(encoder, waveform, "block12"),
        **logits(encoder, waveform),
    }


def m2d(name: str) -> Callable[[Loader, Tensor], Arrays]:
    def arrays(load: Loader, waveform: Tensor) -> Arrays:
        encoder = load(name)
        frames = encoder.encode(waveform)["norm"][0]  # (time, 3840)
        return {
            **front(encoder.frontend(waveform)),
            **clip_vectors(encoder, waveform)[1],
            "flat_emb": encoder.tokens(waveform).mean(dim=(1, 2))[0].numpy(),
            "max_last": frames.amax(dim=0).numpy(),
            "frames2": frames[[0, -1]].numpy(),
            "n_frames": np.array([len(frames)]),
        }

    return arrays


def ssast(name: str, **options: Any) -> Callable[[Loader, Tensor], Arrays]:
    def arrays(load: Loader, waveform: Tensor) -> Arrays:
        encoder = load(name, **options)
        clip, arrays = clip_vectors(encoder, waveform)
        lengths = torch.tensor([waveform.shape[1]])
        table = encoder.position_table(int(encoder.valid_frames(lengths)["norm"]))[0]
        return {
            **front(encoder.mel(waveform)),
            **arrays,
            "cls_dist": clip["cls_dist"],
            **token_arrays(encoder, waveform, "norm"),
            "pos_embed_first4": table[:4].numpy(),
            "pos_embed_last": table[-1].numpy(),
        }

    return arrays


def mae_ast(name: str) -> Callable[[Loader, Tensor], Arrays]:
    def arrays(load: Loader, waveform: Tensor) -> Arrays:
        encoder = load(name)
        frames = encoder.encode(waveform)["block12"][0]  # (time, band x width)
        return {
            **front(encoder.frontend(waveform)),
            **clip_vectors(encoder, waveform, encoder.n_bands)[1],
            **token_arrays(encoder, waveform, "block12"),
            "frames2_cat": frames[[0, -1]].numpy(),
            "n_tokens": np.array([len(frames) * encoder.n_bands]),
        }

    return arrays


def mask_spec(load: Loader, waveform: Tensor) -> Arrays:
    encoder = load("mask_spec", input="padded")
    clip, arrays = clip_vectors(encoder, waveform)
    return {
        **front(encoder.log_mel(waveform)),
        "input_stats": stats(encoder.compute_normalised_input(waveform)[0].double().numpy()),
        **arrays,
        "half_emb": embed(load("mask_spec", input="padded", half_waveform=True), waveform)[0],
        "cls": clip["cls"],
        **token_arrays(encoder, waveform, "norm"),
    }


def mask_spec_as2m(load: Loader, waveform: Tensor) -> Arrays:
    name = "mask_spec.as2m"
    encoder, stretched, cropped = (load(name, input=kind) for kind in ("padded", "stretched", "clip"))
    ours = clip_vectors(stretched, waveform)[1]
    # The reference's crop takes one input of at most 10 s.
    crop = {f"crop_{key}": value for key, value in clip_vectors(cropped, waveform[:, :320000])[1].items()}
    return {
        **front(encoder.log_mel(waveform)),
        **clip_vectors(encoder, waveform)[1],
        "half_emb": embed(load(name, input="padded", half_waveform=True), waveform)[0],
        **token_arrays(encoder, waveform, "block12"),
        **logits(encoder, waveform),
        "stretch_emb": ours["emb"],
        "stretch_blocks": ours["blocks"][[0, -1]],
        **crop,
        **token_arrays(cropped, waveform[:, :320000], "block12", "crop_"),
    }


#: golden model -> (layout of its checkpoint, Hz, what computes its arrays)
MODELS: dict[str, tuple[str, int, Callable[[Loader, Tensor], Arrays]]] = {
    "audiomae": ("audiomae", 16000, audio_mae),
    "audiomae_ft": ("audiomae_ft", 16000, audio_mae_as2m),
    "m2d": ("m2d", 16000, m2d("m2d")),
    "m2d_enconly": ("m2d_enconly", 16000, m2d("m2d.as_ft")),
    "ssast_patch": ("ssast_patch", 16000, ssast("ssast.patch")),
    "ssast_patch_s16": ("ssast_patch", 16000, ssast("ssast.patch", stride=16)),
    "ssast_patch_1024": ("ssast_patch", 16000, ssast("ssast.patch", input="padded")),
    "ssast_frame": ("ssast_frame", 16000, ssast("ssast.frame")),
    "ssast_frame_s2": ("ssast_frame", 16000, ssast("ssast.frame", stride=2)),
    "mae_ast_patch": ("mae_ast_patch", 16000, mae_ast("mae_ast.patch")),
    "mae_ast_frame": ("mae_ast_frame", 16000, mae_ast("mae_ast.frame")),
    "maskspec": ("maskspec", 32000, mask_spec),
    "maskspec_ft": ("maskspec_ft", 32000, mask_spec_as2m),
}


def compute(model: str, wave: dict[int, NDArray[np.float32]], checkpoint: Callable[[str], Path]) -> Arrays:
    """All arrays of one golden model for one waveform; see `golden_more.compute`."""
    layout, rate, arrays = MODELS[model]
    path = Path(checkpoint(layout))

    def load(name: str, **options: Any) -> Encoder:
        return _loaded(name, str(path), path.stat().st_mtime_ns, tuple(options.items()))

    waveform = torch.from_numpy(np.ascontiguousarray(wave[rate], dtype=np.float32))[None]
    with torch.inference_mode():
        return arrays(load, waveform)


@lru_cache(maxsize=4)
def _loaded(name: str, path: str, _written: int, options: tuple[tuple[str, Any], ...]) -> Encoder:
    return load_encoder(name, weights=path, **dict(options))
