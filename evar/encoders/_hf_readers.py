"""Readers for known families of transformers' models: waveforms, and pairs of log-mel frames."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evar.encoders.wav2vec2 import normalise_over_time, standardise_clips

# Waveform models in which a mask keeps a clip's frames from hearing padding; all others get batches of equal length.
MASKABLE = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")


class Reader:
    """Feeds clips to a family of models, and knows the frames of its layers.

    Attributes:
        min_samples: shortest clip that gives a frame.
        invariant: whether a clip's frames are the same in any batch.
        has_last: whether the last hidden state is another than the last of the hidden states; known after a first run.
    """

    min_samples = 1
    invariant = True

    def __init__(self, network: Any, extractor: Any) -> None:
        self.network, self.extractor = network, extractor
        self.has_last: bool | None = None
        self.takes = set(inspect.signature(network.forward).parameters)

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Layer name -> (batch, time, width), shallow to deep; arguments as for `Encoder.forward`."""
        raise NotImplementedError

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Valid frames of a layer: (batch,) samples -> (batch,) frames."""
        raise NotImplementedError

    def hop(self, name: str) -> int:
        """Return the number of samples between a layer's frames; 0 for one frame a clip."""
        raise NotImplementedError

    def run(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Run the network: layer name -> its output in the network's own layout, mostly (batch, token, width)."""
        device = next(self.network.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items() if name in self.takes}
        output = self.network(**inputs, output_hidden_states=True, return_dict=True)
        hidden, last = output.hidden_states, getattr(output, "last_hidden_state", None)
        if not hidden:
            raise ValueError("it returns no hidden states")
        if self.has_last is None:
            self.has_last = last is not None and not torch.equal(last, hidden[-1])
        layers = {f"hidden{number}": state for number, state in enumerate(hidden)}
        if self.has_last:
            layers["last"] = last
        if getattr(output, "pooler_output", None) is not None:
            layers["pooled"] = output.pooler_output
        return layers


class WaveformReader(Reader):
    """Convolutions on the waveform, then a transformer: wav2vec2 and its kin."""

    def __init__(self, network: Any, extractor: Any) -> None:
        super().__init__(network, extractor)
        config = network.config
        self.kernels, self.strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        self.squeeze = int(getattr(config, "squeeze_factor", 1))  # SEW joins neighbouring frames
        self.has_adapter = bool(getattr(config, "add_adapter", False))
        self.invariant = (
            config.model_type in MASKABLE and not self.has_adapter and not getattr(config, "conv_pos_batch_norm", False)
        )
        self.norm = _own_frames_norm(network) if self.invariant else None
        self.min_samples = self.squeeze
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            self.min_samples = (self.min_samples - 1) * stride + kernel

    def scale_clips(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Scale clips as the model was trained on them.

        Args:
            waveform: (batch, samples) in [-1, 1].
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch, samples); with `do_normalize`, each clip has mean 0 and variance 1 over its own samples.

        Example:
            >>> from types import SimpleNamespace
            >>> config = SimpleNamespace(conv_kernel=(10, 3), conv_stride=(5, 2), model_type="sew")
            >>> network = SimpleNamespace(config=config, forward=lambda input_values: None)
            >>> reader = WaveformReader(network, SimpleNamespace(do_normalize=False))
            >>> reader.scale_clips(torch.ones(1, 2), torch.tensor([2])).tolist()
            [[1.0, 1.0]]
        """
        if not getattr(self.extractor, "do_normalize", True):
            return waveform
        return standardise_clips(waveform, lengths)

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute the convolutions and all blocks: (batch, samples) in [-1, 1] -> layer name -> (batch, time, width)."""
        inputs = {"input_values": self.scale_clips(waveform, lengths)}
        is_padded = bool((lengths < waveform.shape[1]).any())
        if is_padded:
            inside = torch.arange(waveform.shape[1], device=waveform.device)[None, :] < lengths[:, None]
            inputs["attention_mask"] = inside.long()  # (batch, samples)
        maps: list[Tensor] = []
        hook = self.network.feature_extractor.register_forward_hook(lambda *call: maps.append(call[2]))
        try:
            if self.norm is not None and is_padded:
                self.norm.frames = (lengths - self.kernels[0]) // self.strides[0] + 1
            layers = self.run(inputs)
        finally:
            hook.remove()
            if self.norm is not None:
                self.norm.frames = None
        return {"conv": maps[0].transpose(1, 2), **layers}  # (batch, width, time) -> (batch, time, width)

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Count a layer's frames: (samples - kernel) // stride + 1 over all convolutions, one after the other.

        Squeezing or an adapter may then leave fewer of them.

        Args:
            name: of the layer ("conv", "hidden0", ..., "last").
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch,) frames.

        Example:
            >>> from types import SimpleNamespace
            >>> config = SimpleNamespace(conv_kernel=(10, 3), conv_stride=(5, 2), model_type="sew")
            >>> network = SimpleNamespace(config=config, forward=lambda input_values: None)
            >>> WaveformReader(network, None).frames("conv", torch.tensor([20, 100])).tolist()
            [1, 9]
        """
        if name == "last" and self.has_adapter:
            return self.network._get_feat_extract_output_lengths(lengths).long()
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        if name == "conv":
            return lengths
        return lengths // self.squeeze * (self.squeeze if name == "last" else 1)

    def hop(self, name: str) -> int:
        hop = int(np.prod(self.strides))
        if name == "last" and self.has_adapter:
            return hop * int(self.network.config.adapter_stride**self.network.config.num_adapter_layers)
        return hop * (self.squeeze if name.startswith("hidden") else 1)


class OwnFramesNorm(nn.GroupNorm):
    """Group normalisation over time that ignores frames beyond each clip's `frames`, if these are set."""

    frames: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel over time.

        Args:
            input: (batch, channel, time).

        Returns:
            (batch, channel, time); frames beyond a clip's `frames` play no part in its mean and variance.

        Example:
            >>> norm = OwnFramesNorm(1, 1)
            >>> norm.frames = torch.tensor([2])
            >>> norm(torch.tensor([[[1.0, 3.0, 900.0]]]))[0, 0, :2].round(decimals=3).tolist()
            [-1.0, 1.0]
        """
        if self.frames is None:
            return super().forward(input)
        return normalise_over_time(input, self.frames, self)


def _own_frames_norm(network: Any) -> OwnFramesNorm | None:
    """Put it in the place of the first convolution's normalisation, with the same parameters, if there is one."""
    block = network.feature_extractor.conv_layers[0]
    norm = getattr(block, "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        return None
    block.layer_norm = OwnFramesNorm(norm.num_groups, norm.num_channels, norm.eps)
    block.layer_norm.weight, block.layer_norm.bias = norm.weight, norm.bias
    return block.layer_norm


class MelPairsReader(Reader):
    """Wav2Vec2-BERT: log-mel frames of 25 ms every 10 ms, joined in pairs, normalised by band over the clip."""

    def __init__(self, network: Any, extractor: Any) -> None:
        super().__init__(network, extractor)
        rate = int(extractor.sampling_rate)
        self.frame, self.step, self.stride = rate // 40, rate // 100, int(extractor.stride)
        self.min_samples = self.frame + (self.stride - 1) * self.step
        self.invariant = not getattr(network.config, "add_adapter", False)

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute all blocks: (batch, samples) in [-1, 1] -> layer name -> (batch, time, width)."""
        clips = [clip[:length].numpy() for clip, length in zip(waveform.detach().cpu(), lengths.tolist(), strict=True)]
        rate = self.extractor.sampling_rate
        how = {"sampling_rate": rate, "padding": True, "return_attention_mask": True, "return_tensors": "pt"}
        return self.run(dict(self.extractor(clips, **how)))

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Count a layer's frames: ((samples - 400) // 160 + 1) // 2 at 16 kHz, then as an adapter leaves them.

        Args:
            name: of the layer.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch,) frames.

        Example:
            >>> from types import SimpleNamespace
            >>> network = SimpleNamespace(config=SimpleNamespace(), forward=lambda input_features: None)
            >>> reader = MelPairsReader(network, SimpleNamespace(sampling_rate=16000, stride=2))
            >>> reader.frames("hidden0", torch.tensor([560, 16000])).tolist()
            [1, 49]
        """
        frames = ((lengths - self.frame) // self.step + 1) // self.stride
        if name == "last" and getattr(self.network.config, "add_adapter", False):
            return self.network._get_feat_extract_output_lengths(frames).long()
        return frames

    def hop(self, name: str) -> int:
        """Return how many samples lie between a layer's frames.

        Args:
            name: of the layer.

        Example:
            >>> from types import SimpleNamespace
            >>> network = SimpleNamespace(config=SimpleNamespace(), forward=lambda input_features: None)
            >>> MelPairsReader(network, SimpleNamespace(sampling_rate=16000, stride=2)).hop("hidden0")
            320
        """
        config, hop = self.network.config, self.step * self.stride
        if name == "last" and getattr(config, "add_adapter", False):
            return hop * int(config.adapter_stride**config.num_adapter_layers)
        return hop
