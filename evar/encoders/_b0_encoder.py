"""Shared parts of the encoders on EfficientNet-B0: TensorFlow's log-mel, the layers, and the names of published tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evar.config.registry import near_miss
from evar.encoders._by_length import flatten_channels, run_by_length
from evar.encoders._efficientnet import EfficientNet, Stage
from evar.encoders._mobile import Padding
from evar.encoders._tensorflow_mel import TensorflowMel
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

HOP, N_MELS = 160, 64
LOWEST, HIGHEST = 1e-5, 1e8
NAMES = ("stem", *(f"stage{number}" for number in range(1, 8)), "top")
STEM, TOP = 32, 1280
#: Source: Tan and Le, "EfficientNet", ICML 2019, table 1
STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
#: halvings of the map at the stem, each stage and the top
HALVINGS = (1, 1, 2, 3, 4, 4, 5, 5, 5)
PADDINGS = ("tensorflow", "keras")


class B0Encoder(Encoder):
    """An encoder on 64 mel bands and EfficientNet-B0; a family adds its own layers on top of the last map.

    Args:
        padding: zeros around the map of strided convolutions: "tensorflow" (by the size of the map, with the odd one
            behind) or "keras" (one less before than behind, for any size).
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
        if padding not in PADDINGS:
            raise ValueError(f"no padding {padding!r}; {near_miss(padding, PADDINGS)}")
        stages = tuple(stage._replace(width=int(stage.width * share)) for stage in STAGES)
        widths = [int(STEM * share), *(stage.width for stage in stages), int(TOP * share)]
        find_padding = find_keras_padding if padding == "keras" else find_tensorflow_padding
        self.network = EfficientNet(stages, widths[0], widths[-1], find_padding)
        self.padding, self.mels_first = padding, mels_first
        infos = []
        for name, width, halvings in zip(NAMES, widths, HALVINGS, strict=True):
            n_bands = -(-N_MELS >> halvings)
            infos.append(
                LayerInfo(name, width * n_bands, HOP << halvings, "mean", f"{width} channels x {n_bands} bands")
            )
        self.layer_infos = (*infos, *heads)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Put "network" before the names of the package efficientnet_pytorch, in place of their own beginning."""
        return name_pytorch_tensors(state_dict_of(checkpoint))

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames: 1 + (samples - 400) // 160, or what the family's front-end gives.

        (batch,) samples -> (batch,) frames.
        """
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 64) log-mel of magnitudes, natural logarithm."""
        return self.mel(waveform).clamp(LOWEST, HIGHEST).log()

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the frames of each layer, rounded as the padding rounds; a layer of hop 0 has one frame a clip.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        frames, counts = self.network_input_frames(lengths), {}
        for info in self.layer_infos:
            share = info.hop // HOP
            up = 0 if self.padding == "keras" else share - 1
            counts[info.name] = (frames + up) // share if share else torch.ones_like(frames)
        return counts

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every stage of every clip: (batch, samples) -> layer name -> (batch, time, width)."""
        mel, frames = self.network_input(waveform, lengths), self.network_input_frames(lengths)
        return run_by_length(self.compute_layers, mel, frames)

    def compute_layers(self, mel: Tensor) -> dict[str, Tensor]:
        """Map (clips, time, 64), all of one length, to layer name -> (clips, time step, feature)."""
        image = (mel.transpose(1, 2) if self.mels_first else mel)[:, None]
        stem, *blocks, top = self.network(image)
        ends = [sum(stage.n_blocks for stage in STAGES[: number + 1]) - 1 for number in range(len(STAGES))]
        # (clips, channel, band, time)
        maps = [one if self.mels_first else one.transpose(2, 3) for one in (stem, *(blocks[end] for end in ends), top)]
        layers = {name: flatten_channels(one) for name, one in zip(NAMES, maps, strict=True)}
        return {**layers, **self.compute_heads(maps[-1])}

    def compute_heads(self, top: Tensor) -> dict[str, Tensor]:
        """Map the last map (clips, channel, band, time) to a family's own layers -> (clips, time step, feature)."""
        return {}


def find_tensorflow_padding(kernel: int, stride: int, position: int) -> Padding | None:
    """Find the zeros around a map by TensorFlow's rule: `EfficientNet` asks for each convolution.

    Args:
        kernel, stride, position: of the convolution.

    Example:
        >>> find_tensorflow_padding(3, 2, 0), find_tensorflow_padding(3, 1, 1)
        ('same', None)
    """
    return "same" if stride > 1 else None


def find_keras_padding(kernel: int, stride: int, position: int) -> Padding | None:
    """Find the zeros around a map of Keras's network, whose input has no known height.

    Args:
        kernel, stride, position: of the convolution.

    Example:
        >>> find_keras_padding(3, 2, 0), find_keras_padding(5, 2, 4), find_keras_padding(3, 1, 1)
        ((0, 1), (1, 2), None)
    """
    return (kernel // 2 - 1, kernel // 2) if stride > 1 else None


def name_pytorch_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the package efficientnet_pytorch to those of `B0Encoder`; others keep their names.

    Args:
        state: tensor name -> tensor, such as "model_efficient.module._blocks.0._bn1.weight".

    Example:
        >>> list(name_pytorch_tensors({"a._conv_stem.weight": torch.zeros(1), "_blocks.3._bn2.bias": torch.zeros(1)}))
        ['network._conv_stem.weight', 'network._blocks.3._bn2.bias']
    """
    own = re.compile(r"(?:^|\.)(_(?:conv_stem|bn0|blocks|conv_head|bn1)\..+)$")
    return {f"network.{found[1]}" if (found := own.search(name)) else name: value for name, value in state.items()}
