"""An encoder of your own in twenty lines: `evar check examples/my_encoder.py:MyEncoder`, then use that name anywhere.

    evar lineval examples/my_encoder.py:MyEncoder,logmel esc10 --layers=all --data_root=/data

`forward` gives every layer as (batch, time, feature); `valid_frames` says how many of the frames are a clip's own. With a
checkpoint: `--weights=PATH`; where its tensors have other names, write `convert(self, checkpoint)` too. docs/your_encoder.md
says more.
"""

import torch
from torch import Tensor, nn

from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

HOP = 160  # samples between frames


class MyEncoder(Encoder):
    """Two convolutions on the waveform."""

    sample_rate = 16000
    layer_infos = (LayerInfo("conv1", 64, HOP, "mean"), LayerInfo("conv2", 64, HOP, "mean_plus_max"))
    default_layers = ("conv2",)
    min_samples = HOP

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 64, HOP, HOP)
        self.conv2 = nn.Conv1d(64, 64, 1)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        return lengths // HOP

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        first = torch.relu(self.conv1(waveform[:, None]))  # (batch, feature, time)
        second = torch.relu(self.conv2(first))
        return {"conv1": first.transpose(1, 2), "conv2": second.transpose(1, 2)}
