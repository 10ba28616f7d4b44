"""Neural codecs of transformers as encoders: EnCodec, DAC, Mimi and X-Codec, up to what their quantiser takes.

Layers: block1..blockN, the output of each convolution (EnCodec, Mimi) or block of convolutions (DAC, X-Codec) that lowers
the frame rate; then EnCodec's `lstm`; Mimi's `hidden0`..`hiddenN`, the input and the blocks of its transformer; X-Codec's
`acoustic` and `semantic` halves; and `latent`, the continuous vector that is quantised, which is the default. The
quantiser and the decoder are not built into the encoder.

Causal codecs (EnCodec at 24 kHz, Mimi) hear nothing that follows a frame, so that padding in a batch changes no frame of
the clip; frames that end inside the clip are kept. The other codecs get batches of equal length, and DAC and X-Codec
zeros up to a whole frame, as their feature extractor does; frames that begin inside the clip are kept.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evar.encoders._hf_readers import Reader

# Type of the codec -> the parts of the model that no layer here needs.
DECODING_PARTS: dict[str, tuple[str, ...]] = {
    "encodec": ("decoder", "quantizer"),
    "dac": ("decoder", "quantizer"),
    "mimi": ("decoder", "decoder_transformer", "upsample", "quantizer"),
    "xcodec": ("acoustic_decoder", "decoder_semantic", "fc1", "fc2", "quantizer"),
}
BATCH_SECONDS = 20.0  # the first blocks run at half or a quarter of the sample rate, 64 channels wide and more


def remove_decoder(model: Any) -> None:
    """Remove the modules behind the continuous latent: the quantiser and the decoder.

    Args:
        model: a codec of transformers, whose parts are removed in place.

    Example:
        >>> from types import SimpleNamespace
        >>> model = nn.ModuleDict({"encoder": nn.Identity(), "quantizer": nn.Identity(), "decoder": nn.Identity()})
        >>> model.config = SimpleNamespace(model_type="dac")
        >>> remove_decoder(model)
        >>> list(dict(model.named_children()))
        ['encoder']
    """
    for name in DECODING_PARTS[model.config.model_type]:
        if name in dict(model.named_children()):
            delattr(model, name)


class CodecReader(Reader):
    """A codec's encoder, whose layers have frame rates of their own.

    Attributes:
        modules: layer name -> the module whose output it is.
        strides: layer name -> samples between its frames.
        is_causal: whether a frame hears nothing that follows it.
    """

    def __init__(self, network: Any, extractor: Any) -> None:
        self.network, self.extractor = network, extractor
        config = network.config
        self.kind = config.model_type
        self.is_causal = bool(getattr(config, "use_causal_conv", False))
        if getattr(config, "audio_channels", 1) != 1 or getattr(config, "normalize", False):
            raise ValueError(
                f"this {self.kind} model takes {config.audio_channels} channels in parts of its own scale, which is not "
                "supported; take one of a single channel, such as facebook/encodec_24khz"
            )
        if getattr(config, "norm_type", "weight_norm") != "weight_norm":
            raise ValueError(f"{self.kind} with norm_type {config.norm_type} is not supported; it needs weight_norm")
        self.modules, self.strides = (
            _seanet_layers(network) if self.kind in ("encodec", "mimi") else _dac_layers(network)
        )
        self.invariant = self.is_causal
        self.step = max(self.strides.values())  # samples of the coarsest frame
        self.min_samples = self._shortest()

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute the layers of the codec: (batch, samples) in [-1, 1] -> layer name -> (batch, time, width)."""
        maps: dict[str, Tensor] = {}
        hooks = [
            module.register_forward_hook(partial(_keep, maps, name))
            for name, module in self.modules.items()
            if module is not None
        ]
        try:
            if self.kind in ("dac", "xcodec"):
                waveform = nn.functional.pad(waveform, (0, -waveform.shape[1] % self.step))
            maps["latent"] = self._latent(waveform[:, None])
        finally:
            for hook in hooks:
                hook.remove()
        return {
            name: maps[name] if name.startswith("hidden") and name != "hidden0" else maps[name].transpose(1, 2)
            for name in self.modules
        }  # (batch, time, width)

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Count the frames, (batch,): those that end inside the clip in a causal codec, else those that begin inside it."""
        stride = self.strides[name]
        return lengths // stride if self.is_causal else (lengths + stride - 1) // stride

    def hop(self, name: str) -> int:
        return self.strides[name]

    def _latent(self, waveform: Tensor) -> Tensor:
        """(batch, 1, samples) -> (batch, width, time), before quantisation."""
        network = self.network
        if self.kind == "xcodec":
            return _xcodec_latent(network, waveform)
        if self.kind == "mimi" and hasattr(network.encoder, "encoder_seanet"):
            latent: Tensor = network.encoder(waveform).latents
            return latent
        latent = network.encoder(waveform)
        if self.kind == "mimi":  # versions of transformers in which the parts lie side by side
            latent = network.encoder_transformer(latent.transpose(1, 2)).last_hidden_state.transpose(1, 2)
            latent = latent if network.downsample is None else network.downsample(latent)
        return latent

    def _shortest(self) -> int:
        """Samples of the shortest clip whose frames do not depend on the samples after it."""
        config = self.network.config
        if self.kind == "xcodec":  # one frame of the speech model, which gets half a hop of zeros at each end
            speech, samples = config.semantic_model_config, 1
            for kernel, stride in zip(reversed(speech.conv_kernel), reversed(speech.conv_stride), strict=True):
                samples = (samples - 1) * stride + kernel
            return max(1, samples - 2 * (config.hop_length // 2))
        if not self.is_causal:
            return 1
        # Where convolutions see the clip mirrored at its beginning, the mirror must not reach beyond its end.
        return self.step * (int(config.last_kernel_size) if config.pad_mode == "reflect" else 1)


def _keep(maps: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    maps[name] = output[0] if isinstance(output, tuple) else output


def _seanet_layers(network: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """EnCodec's and Mimi's layers: name -> module, name -> samples between frames; None for what no hook gives."""
    half = network.encoder if hasattr(network.encoder, "encoder_seanet") else network
    seanet = getattr(half, "encoder_seanet", None) or half.encoder
    modules: dict[str, Any] = {}
    strides: dict[str, int] = {}
    hop = 1
    for module in seanet.layers:
        stride = int(module.conv.stride[0]) if hasattr(module, "conv") else 1
        hop *= stride
        if stride > 1:
            name = f"block{len(modules) + 1}"
        elif hasattr(module, "lstm"):
            name = "lstm"
        else:
            continue
        modules[name], strides[name] = module, hop
    transformer = getattr(half, "encoder_transformer", None)
    if transformer is not None:
        for number, module in enumerate((seanet, *transformer.layers)):
            modules[f"hidden{number}"], strides[f"hidden{number}"] = module, hop
        if half.downsample is not None:
            hop *= int(half.downsample.conv.stride[0])
    return {**modules, "latent": None}, {**strides, "latent": hop}


def _dac_layers(network: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """DAC's and X-Codec's layers, as `_seanet_layers` gives those of EnCodec."""
    config = network.config
    acoustic = getattr(config, "acoustic_model_config", config)
    encoder = network.acoustic_encoder if hasattr(network, "acoustic_encoder") else network.encoder
    modules: dict[str, Any] = {f"block{number}": block for number, block in enumerate(encoder.block, start=1)}
    hops = np.cumprod(acoustic.downsampling_ratios).tolist()
    strides = dict(zip(modules, (int(hop) for hop in hops), strict=True))
    last = {"acoustic": encoder, "semantic": network.encoder_semantic} if hasattr(network, "acoustic_encoder") else {}
    last["latent"] = None
    return {**modules, **last}, {**strides, **dict.fromkeys(last, int(hops[-1]))}


def _xcodec_latent(network: Any, waveform: Tensor) -> Tensor:
    """Both halves of X-Codec side by side, joined by a linear layer: (batch, 1, samples) -> (batch, width, time)."""
    speech = network._extract_semantic_features(waveform).detach()  # (batch, time, width): the mean over its layers
    semantic = network.encoder_semantic(speech.transpose(1, 2))
    acoustic = network.acoustic_encoder(waveform)
    if acoustic.shape[2] != semantic.shape[2]:
        acoustic = network.acoustic_encoder(nn.functional.pad(waveform, (network.pad, network.pad)))
    both = torch.cat([acoustic, semantic], dim=1)  # (batch, width, time)
    latent: Tensor = network.fc(both.transpose(1, 2)).transpose(1, 2)
    return latent
