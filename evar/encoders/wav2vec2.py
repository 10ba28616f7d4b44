"""Wav2Vec2: seven convolutions on the waveform and a transformer, trained on speech.

Paper: Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", NeurIPS 2020.
Checkpoints (Apache-2.0): the hub's `facebook/wav2vec2-base-960h` and `facebook/wav2vec2-large-960h-lv60`, as folder,
file or hub address; others of the two architectures load as well, with or without a CTC head. base: self-supervised, then
CTC, on LibriSpeech 960 h; large: self-supervised on Libri-Light 60,000 h, then CTC on LibriSpeech 960 h. The network is
that of `transformers`; reading its layers in one pass, and masking, are ours.

Input: 16 kHz waveform, each clip shifted to mean 0 and scaled to variance 1 by itself: (x - mean) / sqrt(var + 1e-7). At
least 400 samples. A clip of n samples has L(...L(n)) frames, L = (n - kernel) // stride + 1 over kernels 10 3 3 3 3 2 2 and
strides 5 2 2 2 2 2 2: one in 320 samples, 20 ms.

Layers: conv (512): the convolutions' output before projection, pooled by mean plus max; hidden0 (after the positional
convolution) and hidden1..hidden12 (768), in large hidden1..hidden24 (1024): each block's output, pooled by mean; the last
one of large after the encoder's final LayerNorm, which is the `last_hidden_state` of `transformers`; logits (32): of the
CTC head where the checkpoint has one, pooled by mean. The last hidden layer is the default.

Differs from the original: clips of different lengths may share a batch of either size. What lies beyond a clip's end is
masked in the positional convolution and in attention, as the large model was trained, and in base also left out of the
first convolution's normalisation over time, so that a clip's frames are those of the clip alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._transformers import load_transformers
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import load_strict, read_checkpoint, state_dict_of

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

KERNELS, STRIDES, N_CHANNELS = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 512
HOP = 320
VARIANCE_FLOOR = 1e-7
N_TOKENS = 32
# size -> settings of transformers' Wav2Vec2Config that differ
SIZES: dict[str, dict[str, Any]] = {
    "base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "feat_extract_norm": "group",
        "conv_bias": False,
        "do_stable_layer_norm": False,
    },
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "do_stable_layer_norm": True,
    },
}
_NEW_NAMES = (
    (".weight_g", ".parametrizations.weight.original0"),
    (".weight_v", ".parametrizations.weight.original1"),
)
_HEAD = "lm_head.weight"


class Wav2Vec2(Encoder):
    """Wav2Vec2 with every layer; see the module's docstring.

    Args:
        size: "base" or "large".
        n_tokens: of the CTC head; 0 for none. A checkpoint's own head counts if there is one.

    Raises:
        ValueError: if the size is another.
        ImportError: if `transformers` is not installed.

    Example:
        >>> encoder = Wav2Vec2("base")  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 16000))["hidden12"].shape  # doctest: +SKIP
        torch.Size([1, 49, 768])
    """

    sample_rate = 16000
    min_samples = 400
    batch_seconds = 40.0  # 200 numbers of the first convolution a sample
    frontend_parameters = ("network.wav2vec2.feature_extractor",)
    ignored_tensors = (
        "network.wav2vec2.masked_spec_embed",
        "network.quantizer.",
        "network.project_",
    )

    def __init__(self, size: str = "base", n_tokens: int = N_TOKENS) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"no wav2vec2 of size {size!r}; {near_miss(size, SIZES)}")
        self.size = size
        self.network = _network(SIZES[size], n_tokens)
        self.has_head = n_tokens > 0
        if not self.has_head:
            self.network.lm_head = None
        width, n_blocks = SIZES[size]["hidden_size"], SIZES[size]["num_hidden_layers"]
        self.layer_infos = (
            LayerInfo("conv", N_CHANNELS, HOP, "mean_plus_max", "convolutions, before projection"),
            *(LayerInfo(f"hidden{number}", width, HOP, "mean") for number in range(n_blocks + 1)),
            *([LayerInfo("logits", n_tokens, HOP, "mean", "CTC head")] if self.has_head else []),
        )
        self.default_layers = (f"hidden{n_blocks}",)

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build with a CTC head if the checkpoint has one, and refuse a folder of another architecture."""
        if weights is None:
            return super().from_config(config, weights=None)
        import dataclasses

        path, size = Path(weights), config.options.get("size", "base")
        _check_folder(path, size)
        state = _rename_tensors(state_dict_of(read_checkpoint(path)))
        head = state.get(f"network.{_HEAD}")
        options = {**config.options, "n_tokens": 0 if head is None else len(head)}
        encoder = super().from_config(dataclasses.replace(config, options=options), weights=None)
        load_strict(encoder, state, path, ignore=cls.ignored_tensors)
        return encoder

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the hub's tensors, older and newer, with or without "wav2vec2." in front, to this module's own names."""
        return _rename_tensors(state_dict_of(checkpoint))

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count samples, since the input is the waveform: (batch,) samples -> (batch,) frames."""
        return lengths

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, samples), as `standardise_clips` gives it."""
        return standardise_clips(waveform, lengths)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count frames, (length - kernel) // stride + 1 seven times: (batch,) samples -> (batch,) frames."""
        for kernel, stride in zip(KERNELS, STRIDES, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute the convolutions and every block: (batch, samples) -> layer name -> (batch, time, width)."""
        body = self.network.wav2vec2
        maps = self._convolutions(self.network_input(waveform, lengths), lengths)  # (batch, 512, time)
        layers = {"conv": maps.transpose(1, 2)}
        hidden = body.feature_projection(layers["conv"])[0]  # (batch, time, width)
        frames = self.valid_frames(lengths)
        mask = None
        if bool((frames < hidden.shape[1]).any()):
            inside = torch.arange(hidden.shape[1], device=hidden.device)[None, :] < frames[:, None]
            hidden = hidden * inside[:, :, None]
            mask = inside[:, None, None, :]  # (batch, head, query, key): no frame attends to padding
        encoder = body.encoder
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if self.size == "base":
            hidden = encoder.layer_norm(hidden)
        layers["hidden0"] = hidden
        n_blocks = len(encoder.layers)
        for number, block in enumerate(encoder.layers, start=1):
            hidden = block(hidden, attention_mask=mask)
            if number == n_blocks and self.size == "large":
                hidden = encoder.layer_norm(hidden)
            layers[f"hidden{number}"] = hidden
        if self.has_head:
            layers["logits"] = self.network.lm_head(hidden)
        return layers

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, time, tokens) CTC logits; the tokens are those of the checkpoint's vocabulary.

        Raises:
            ValueError: if the checkpoint came without a CTC head.
        """
        if not self.has_head:
            raise ValueError(f"the checkpoint of {self.name or 'wav2vec2'} has no CTC head; use one fine-tuned for CTC")
        return self.forward(waveform, lengths)["logits"]

    def _convolutions(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples) -> (batch, 512, time)."""
        blocks = self.network.wav2vec2.feature_extractor.conv_layers
        maps = waveform[:, None]  # (batch, 1, samples)
        for number, block in enumerate(blocks):
            if number == 0 and self.size == "base" and bool((lengths < waveform.shape[1]).any()):
                frames = (lengths - KERNELS[0]) // STRIDES[0] + 1
                maps = block.activation(normalise_over_time(block.conv(maps), frames, block.layer_norm))
            else:
                maps = block(maps)
        return maps


def standardise_clips(waveform: Tensor, lengths: Tensor) -> Tensor:
    """Scale each clip of (batch, samples) to mean 0 and variance 1 over its own samples; zero beyond them."""
    inside = torch.arange(waveform.shape[1], device=waveform.device)[None, :] < lengths[:, None]
    count = lengths[:, None].to(waveform.dtype)
    deviation = (waveform - waveform.sum(dim=1, keepdim=True) / count) * inside
    variance = deviation.square().sum(dim=1, keepdim=True) / count
    return deviation / (variance + VARIANCE_FLOOR).sqrt()


def normalise_over_time(maps: Tensor, frames: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Group normalisation with a channel a group, over each clip's own frames: (batch, channel, time), (batch,)."""
    inside = (torch.arange(maps.shape[2], device=maps.device)[None, :] < frames[:, None])[:, None]  # (batch, 1, time)
    count = frames[:, None, None].to(maps.dtype)
    deviation = maps - (maps * inside).sum(dim=2, keepdim=True) / count
    variance = (deviation * inside).square().sum(dim=2, keepdim=True) / count
    scale = norm.weight[:, None] / (variance + norm.eps).sqrt()  # (batch, channel, 1)
    return deviation * scale + norm.bias[:, None]


def _network(settings: dict[str, Any], n_tokens: int) -> Any:
    transformers = load_transformers("wav2vec2")
    config = transformers.Wav2Vec2Config(
        **settings,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
        feat_extract_activation="gelu",
        conv_dim=(N_CHANNELS,) * len(KERNELS),
        conv_kernel=KERNELS,
        conv_stride=STRIDES,
        num_conv_pos_embeddings=128,
        num_conv_pos_embedding_groups=16,
        vocab_size=max(1, n_tokens),
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        layerdrop=0.0,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        attn_implementation="sdpa",
    )
    return transformers.Wav2Vec2ForCTC(config)


def _rename_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    bare = not any(name.startswith("wav2vec2.") for name in state)
    renamed = {}
    for name, tensor in state.items():
        for old, new in _NEW_NAMES:
            name = name.replace(old, new)
        renamed[f"network.{'wav2vec2.' if bare and not name.startswith('lm_head.') else ''}{name}"] = tensor
    return renamed


def _check_folder(path: Path, size: str) -> None:
    """Refuse a folder whose config.json is that of another architecture, and say which encoder fits."""
    file = path / "config.json" if path.is_dir() else path.parent / "config.json"
    if not file.is_file():
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    if found.get("model_type", "wav2vec2") != "wav2vec2":
        raise ValueError(f"{path} holds a {found['model_type']} model, not a wav2vec2; use the encoder hf:{path}")
    for key, value in SIZES[size].items():
        if key in found and found[key] != value:
            fits = [
                f"wav2vec2.{name}"
                for name, other in SIZES.items()
                if all(found.get(k, v) == v for k, v in other.items())
            ]
            raise ValueError(
                f"{path} has {key} {found[key]}, but wav2vec2.{size} needs {value}; use {fits[0] if fits else f'hf:{path}'}"
            )
