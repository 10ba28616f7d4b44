"""What the encoders on EfficientNet-B0 share: the log-mel of TensorFlow, the layers, and the names of published
tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evar.encoders._by_length import flatten_channels, run_by_length
from evar.encoders._efficientnet_b0 import HALVINGS, EfficientNet
from evar.encoders._tensorflow_mel import TensorflowMel
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

HOP, N_MELS = 160, 64
LOWEST, HIGHEST = 1e-5, 1e8
NAMES = ("stem", *(f"stage{number}" for number in range(1, 8)), "top")

# names of the package efficientnet_pytorch -> ours, within a block and outside of the blocks
_IN_BLOCK = {
    "expand_conv": "expand", "bn0": "expand_norm", "depthwise_conv": "depthwise", "bn1": "depthwise_norm",
    "se_reduce": "reduce", "se_expand": "excite", "project_conv": "project", "bn2": "project_norm",
}  # fmt: skip
_OUTSIDE = {"conv_stem": "stem", "bn0": "stem_norm", "conv_head": "top", "bn1": "top_norm"}


class B0Encoder(Encoder):
    """An encoder on 64 mel bands and EfficientNet-B0; a family adds what it makes of the last map.

    Args:
        padding: of the network's strided convolutions; see `EfficientNet`.
        share: of the channels of the published network, for tests.
        heads: layers after the map "top".
        mels_first: whether the network's image is (mel, time) and not (time, mel).
    """

    sample_rate = 16000
    min_samples = 400

    def __init__(
        self, padding: str, share: float = 1.0, heads: Sequence[LayerInfo] = (), mels_first: bool = False
    ) -> None:
        super().__init__()
        self.mel: Any = TensorflowMel(self.sample_rate, 400, HOP, 1024, N_MELS, 60.0, 7800.0)
        self.network = EfficientNet(padding, share)
        self.padding, self.mels_first = padding, mels_first
        infos = []
        for name, width, halvings in zip(NAMES, self.network.widths, (*HALVINGS, HALVINGS[-1]), strict=True):
            n_bands = -(-N_MELS >> halvings)
            infos.append(
                LayerInfo(name, width * n_bands, HOP << halvings, "mean", f"{width} channels x {n_bands} bands")
            )
        self.layer_infos = (*infos, *heads)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors that the package efficientnet_pytorch names, whatever stands before its names."""
        return name_pytorch_tensors(state_dict_of(checkpoint))

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """1 + (samples - 400) // 160, or what the family's front-end gives."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples) -> (batch, time, 64) log-mel of magnitudes, natural logarithm."""
        return self.mel(waveform).clamp(LOWEST, HIGHEST).log()

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Frames of each layer's rate, rounded as the padding has it; one a clip in layers of hop 0."""
        frames, counts = self.network_input_frames(lengths), {}
        for info in self.layer_infos:
            share = info.hop // HOP
            up = 0 if self.padding == "keras" else share - 1
            counts[info.name] = (frames + up) // share if share else torch.ones_like(frames)
        return counts

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Every stage of every clip."""
        mel, frames = self.network_input(waveform, lengths), self.network_input_frames(lengths)
        return run_by_length(self.compute_layers, mel, frames)

    def compute_layers(self, mel: Tensor) -> dict[str, Tensor]:
        """(clips, time, 64), all of one length -> layer -> (clips, time step, feature)."""
        image = (mel.transpose(1, 2) if self.mels_first else mel)[:, None]
        maps = [one if self.mels_first else one.transpose(2, 3) for one in self.network(image)]
        layers = {
            name: flatten_channels(one) for name, one in zip(NAMES, maps, strict=True)
        }  # (clips, channel, band, time)
        return {**layers, **self.compute_heads(maps[-1])}

    def compute_heads(self, top: Tensor) -> dict[str, Tensor]:
        """What a family makes of the last map (clips, channel, band, time): layer -> (clips, time step, feature)."""
        return {}


def name_pytorch_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the package efficientnet_pytorch to those of `B0Encoder`; others keep their names.

    Args:
        state: tensor name -> tensor, such as "model_efficient.module._blocks.0._bn1.weight".

    Example:
        >>> list(name_pytorch_tensors({"a._conv_stem.weight": torch.zeros(1), "_blocks.3._bn2.bias": torch.zeros(1)}))
        ['network.stem.weight', 'network.blocks.3.project_norm.bias']
    """
    renamed = {}
    for name, value in state.items():
        block = re.search(r"(?:^|\.)_blocks\.(\d+)\._(\w+)\.(\w+)$", name)
        outside = re.search(r"(?:^|\.)_(conv_stem|bn0|conv_head|bn1)\.(\w+)$", name)
        if block and block[2] in _IN_BLOCK:
            name = f"network.blocks.{block[1]}.{_IN_BLOCK[block[2]]}.{block[3]}"
        elif outside:
            name = f"network.{_OUTSIDE[outside[1]]}.{outside[2]}"
        renamed[name] = value
    return renamed
