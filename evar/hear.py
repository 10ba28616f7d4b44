"""Every encoder of this toolkit as a module of the HEAR 2021 API, for HEAR's own evaluator and other programs that use it.

    import evar.hear
    model = evar.hear.load_model("crepe.tiny")
    scenes = evar.hear.get_scene_embeddings(audio, model)

`load_model("NAME")`, `load_model("NAME@CHECKPOINT")`, or EVAR_HEAR_ENCODER in the environment where a caller gives nothing.

Source: https://hearbenchmark.com/hear-api.html.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import count_pooled_features, pool

_RATES = (16000, 22050, 32000, 44100, 48000)


class HearModel(nn.Module):
    """An encoder in the form that the API calls a model.

    Attributes:
        encoder: of this toolkit.
        sample_rate: Hz.
        scene_embedding_size: width of the default layers, pooled and concatenated.
        timestamp_embedding_size: width of a frame of `frames_of`.
        frames_of: layer that gives timestamps: the last default layer with frames, else the deepest that has some.

    Raises:
        ValueError: if HEAR does not know the encoder's sample rate, or no layer has frames.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if encoder.sample_rate not in _RATES:
            raise ValueError(
                f"HEAR knows the rates {', '.join(map(str, _RATES))}, but {encoder.name} hears {encoder.sample_rate} Hz"
            )
        with_frames = [info for info in encoder.layer_infos if info.hop > 0]
        if not with_frames:
            raise ValueError(f"{encoder.name} has one embedding a clip and no frames that timestamps could belong to")
        default = [info for info in with_frames if info.name in encoder.default_layers]
        self.encoder, self.sample_rate = encoder, int(encoder.sample_rate)
        self.frames_of: LayerInfo = (default or with_frames)[-1]
        infos = [encoder.layer(name) for name in encoder.default_layers]
        self.scene_embedding_size = int(sum(count_pooled_features(info.width, info.pooling) for info in infos))
        self.timestamp_embedding_size = int(self.frames_of.width)


def load_model(model_file_path: str = "") -> HearModel:
    """Load an encoder as a HEAR model.

    Args:
        model_file_path: encoder's name, or "NAME@CHECKPOINT"; "" takes EVAR_HEAR_ENCODER.

    Raises:
        ValueError: if no encoder is named, or HEAR cannot take it.

    Example:
        >>> model = load_model("silero_vad@random")
        >>> model.sample_rate, get_scene_embeddings(torch.zeros(2, 16000), model).shape == (2, model.scene_embedding_size)
        (16000, True)
    """
    asked = str(model_file_path or os.environ.get("EVAR_HEAR_ENCODER", ""))
    name, _, weights = asked.partition("@") if not asked.startswith("hf:") else (asked, "", "")
    if not name:
        raise ValueError(
            "load_model needs an encoder's name, such as 'crepe.tiny', or EVAR_HEAR_ENCODER in the environment"
        )
    return HearModel(load_encoder(name, weights or None)).eval()


@torch.no_grad()
def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """Compute one embedding a clip: what `evar lineval` would probe.

    Args:
        audio: (clips, samples) in [-1, 1] at `model.sample_rate`, all of one length.
        model: of `load_model`.

    Returns:
        (clips, scene_embedding_size) float32.
    """
    encoder = model.encoder
    features = encoder.encode(audio.float())
    pooled = [
        pool(features[name], features.frames[name], encoder.layer(name).pooling) for name in encoder.default_layers
    ]
    return torch.cat(pooled, dim=1).float()


@torch.no_grad()
def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """Compute frames, and the times of their centres.

    Args:
        audio: (clips, samples) in [-1, 1] at `model.sample_rate`, all of one length.
        model: of `load_model`.

    Returns:
        (clips, time, timestamp_embedding_size) float32, and (clips, time) float32 milliseconds: the middle of each frame's
        hop. Frames whose middle lies beyond the clip are left out, but for the first.
    """
    info, n_samples = model.frames_of, audio.shape[1]
    features = model.encoder.encode(audio.float())
    n_frames = int(features.frames[info.name].min())
    middles = (torch.arange(n_frames) + 0.5) * info.hop
    n_kept = max(1, int((middles <= n_samples).sum()))
    milliseconds = (1000 * middles[:n_kept] / model.sample_rate).clamp(max=1000 * n_samples / model.sample_rate)
    embeddings = features[info.name][:, :n_kept].float()
    return embeddings, milliseconds.float().to(embeddings.device).expand(len(audio), -1).contiguous()
