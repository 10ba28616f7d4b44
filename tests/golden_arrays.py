"""Every array of the golden set (outputs of the official implementations), computed by our encoders.

The set's models and arrays are described in `tests/golden/README.md`. `arrays(encoder, model, waveform)` gives what one
wave must give, under the set's names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar import embed
from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.encoders.features import LayerFeatures
from evar.encoders.pooling import mean_plus_max

Arrays = dict[str, NDArray[Any]]
BYOL_STATS, AST_STATS, MSM_STATS = (-5.4919195, 5.0389895), (-4.2677393, 4.5689974), (-7.1, 4.2)


@dataclass(frozen=True)
class Model:
    """One model of the golden set.

    Attributes:
        encoder: our name for it.
        arrays: encoder, waveform (1, samples) -> every array of one wave.
        settings: arguments of `load_encoder`.
        suffix: of the waves' names: 32 kHz models have their own.
    """

    encoder: str
    arrays: Callable[[Encoder, Tensor], Arrays]
    settings: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""

    def load(self, checkpoint: Any) -> Encoder:
        return load_encoder(self.encoder, checkpoint, **self.settings)


def vggish(encoder: Encoder, waveform: Tensor) -> Arrays:
    features = encoder.encode(waveform)
    clip = embed(encoder, waveform, layers="all")
    names = ("conv1", "conv2", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "fc1_1", "fc1_2", "fc2")
    indices = (1, 4, 7, 9, 12, 14, 17, 19, 21)
    return {
        **_front(encoder.frontend(waveform)),
        "frames": features["fc2"][0].numpy(),
        "emb": embed(encoder, waveform)[0],
        **{f"layer{index:02d}": clip[name][0] for index, name in zip(indices, names, strict=True)},
        "fusion_9_14": embed(encoder, waveform, layers=["conv3_2", "conv4_2"], fusion="concat")[0],
    }


def vggish_4k(encoder: Encoder, waveform: Tensor) -> Arrays:
    return {"emb": embed(encoder, waveform)[0]}


def cnn14(encoder: Encoder, waveform: Tensor) -> Arrays:
    clip = embed(encoder, waveform, layers="all")
    return {
        **_front(encoder.frontend(waveform)),
        "emb": clip["fc1"][0],
        "frames4": encoder.frequency_mean(waveform)[0, :4].numpy(),
        **{f"block{number}": clip[f"block{number}"][0] for number in range(1, 7)},
        "fusion_3_6": embed(encoder, waveform, layers="block3,block6", fusion="concat")[0],
        "clipwise_output": encoder.outputs(waveform)[0].numpy(),
    }


def ast(encoder: Encoder, waveform: Tensor) -> Arrays:
    clip = embed(encoder, waveform, layers="all")
    front = encoder.frontend(waveform)
    return {
        **_front(front),
        "blocks": np.stack([clip[f"block{number}"][0] for number in range(1, 13)]),
        "emb": embed(encoder, waveform)[0],
        "fusion_4_11": embed(encoder, waveform, layers=["block5", "block12"], fusion="concat")[0],
        "pos_embed_first4": encoder.position_table(front.shape[1])[0, :4].numpy(),
    }


def ast_hf(encoder: Encoder, waveform: Tensor) -> Arrays:
    clip = embed(encoder, waveform, layers="all")
    return {
        **_front(encoder.compute_normalised_input(waveform)),
        "blocks": np.stack([clip[f"block{number}"][0] for number in range(1, 13)]),
        "emb": clip["block12"][0],
        "logits": encoder.outputs(waveform)[0].numpy(),
    }


def wav2vec2(encoder: Encoder, waveform: Tensor) -> Arrays:
    features = encoder.encode(waveform)
    clip = embed(encoder, waveform, layers="all")
    logits = encoder.outputs(waveform)  # (1, time, 32)
    return {
        "input_first400": encoder.frontend(waveform)[0, :400].numpy(),
        "conv_frames4": features["conv"][0, :4].numpy(),
        "conv_mean_max": clip["conv"][0],
        "hidden_mean": np.stack([clip[f"hidden{number}"][0] for number in range(13)]),
        "last_frames4": features["hidden12"][0, :4].numpy(),
        "logits_mean": logits.mean(dim=1)[0].numpy(),
    }


def byol_a(encoder: Encoder, waveform: Tensor) -> Arrays:
    clip = embed(encoder, waveform, layers="all")
    width = encoder.layer("fc2").width
    layered = [clip[name][0] for name in ("conv1", "conv2", "conv3", "fc1", "fc2")]
    return {
        **_front(encoder.frontend(waveform)),
        "emb": embed(encoder, waveform)[0],
        "frames4": encoder.encode(waveform)["fc2"][0, :4].numpy(),
        # The reference fills groups that are narrower than fc with zeros; ours are not filled.
        "layered": np.concatenate([np.pad(group, (0, max(0, width - len(group)))) for group in layered]),
    }


def byol_a2(encoder: Encoder, waveform: Tensor) -> Arrays:
    features = encoder.encode(waveform)
    return {
        **_front(encoder.frontend(waveform)),
        "emb": mean_plus_max(features["out"], features.frames["out"])[0].numpy(),
        "frames4": features["out"][0, :4].numpy(),
    }


def msm_mae(encoder: Encoder, waveform: Tensor) -> Arrays:
    features: LayerFeatures = encoder.encode(waveform)
    clip = embed(encoder, waveform, layers="all")
    return {
        **_front(encoder.frontend(waveform)),
        "blocks": np.stack([clip[f"block{number}"][0] for number in range(1, 13)]),
        "emb": embed(encoder, waveform)[0],
        "last_frames2": features["block12"][0, [0, -1]].numpy(),
    }


def _front(values: Tensor) -> Arrays:
    """(1, time, mel) -> its first and last frames, and [frames, bins, mean, population std, min, max]."""
    front = values[0].detach().double().numpy()
    stats = [*front.shape, front.mean(), front.std(), front.min(), front.max()]
    return {"front_first8": front[:8], "front_last8": front[-8:], "front_stats": np.array(stats)}


MODELS: dict[str, Model] = {
    "vggish": Model("vggish", vggish),
    "vggish_4k": Model("vggish_4k", vggish_4k),
    "cnn14_16k": Model("cnn14.16k", cnn14),
    "cnn14_32k": Model("cnn14.32k", cnn14, suffix="32"),
    "ast": Model("ast", ast, {"norm_stats": AST_STATS}),
    "ast_hf": Model("ast", ast_hf, {"input": "padded"}),
    "wav2vec2": Model("wav2vec2.base", wav2vec2),
    "byola_d512": Model("byol_a.d512", byol_a, {"norm_stats": BYOL_STATS}),
    "byola_d2048": Model("byol_a.d2048", byol_a, {"norm_stats": BYOL_STATS}),
    "byola2": Model("byol_a2", byol_a2, {"norm_stats": BYOL_STATS}),
    "msm_mae": Model("msm_mae.208", msm_mae, {"norm_stats": MSM_STATS}),
    "msm_mae_512": Model("msm_mae.512", msm_mae, {"norm_stats": MSM_STATS}),
}


def arrays(encoder: Encoder, model: str, waveform: Tensor) -> Arrays:
    """Every array of one wave.

    Args:
        encoder: `MODELS[model].load(checkpoint)`.
        model: name in the golden set.
        waveform: (1, samples) float32.
    """
    with torch.inference_mode():
        return MODELS[model].arrays(encoder, waveform)
