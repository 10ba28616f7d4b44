"""COLA: EfficientNet-B0 on log-mel, trained to find the other second of the same clip.

Paper: Saeed et al., "Contrastive Learning of General-Purpose Audio Representations", ICASSP 2021 (arXiv 2010.10915).
**No weights were ever published** (issues 437 and 442 of google-research ask for them); code: google-research/cola
(Apache-2.0). Weights of your own training load with `--weights=PATH`: a file of `torch.save` or safetensors that maps
the names of Keras's variables ("encoder/stem_conv/kernel", "projection/kernel") to their values; TensorFlow's own
checkpoints need TensorFlow to be read. Trained on AudioSet without labels.

Input: 16 kHz. Magnitude spectra of 400 samples every 160 in a Fourier transform of 1024 (periodic Hann, whole frames
only), 64 HTK mel bands from 60 to 7800 Hz (triangles linear in mel, peak 1), between 1e-5 and 1e8, natural logarithm;
Keras's network divides it by 255. At least 5,360 samples (32 frames).

Network: Keras's EfficientNet-B0: strided convolutions take fixed zeros, one less before than after, so that an odd
frame at the end is not a frame of its own; the largest number of each channel is the vector. `input="clip"` (default):
a clip of any length is one image. `input="padded"` follows the released evaluation: windows of 15,680 samples, the last
one filled up with silence, each divided by its own L2 norm; nothing is seen across their edges.

Layers: stem, stage1..stage7 and top, channel x band side by side, one frame in 2, 2, 4, 8, 16, 16, 32, 32 and 32 of the
log-mel, pooled by mean; emb (1280), the largest numbers of top, which is the default, and proj (512), the dense layer
of the pre-training: one vector a clip, or one a window.

Differs from the original: none known; the training divided whole clips by their norm, the default here divides nothing.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._b0_encoder import HOP, STAGES, TOP, B0Encoder
from evar.encoders._packing import in_chunks, pack, unpack
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

WINDOW, N_FRAMES, ENERGY_FLOOR, LARGEST, N_PROJECTED = 98 * 160, 96, 1e-9, 255.0, 512
INPUTS = ("clip", "padded")
_LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
           "kernel": "weight", "depthwise_kernel": "weight", "bias": "bias"}  # fmt: skip
_PARTS = {"expand_conv": "_expand_conv", "expand_bn": "_bn0", "dwconv": "_depthwise_conv", "bn": "_bn1",
          "se_reduce": "_se_reduce", "se_expand": "_se_expand", "project_conv": "_project_conv",
          "project_bn": "_bn2"}  # fmt: skip
_ENDS = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1"}
#: Keras's names of the blocks, from shallow to deep: 1a, 2a, 2b, ...
_BLOCKS = [
    f"{number}{chr(97 + place)}" for number, stage in enumerate(STAGES, start=1) for place in range(stage.n_blocks)
]


class Cola(B0Encoder):
    """COLA with every stage; see the module's docstring.

    Args:
        input: "clip" or "padded".
        share: of the channels of the network, for tests; checkpoints have all (1.0).

    Raises:
        ValueError: if there is no such input.

    Example:
        >>> Cola(share=0.25).eval().encode(torch.zeros(1, 16000))["emb"].shape
        torch.Size([1, 1, 320])
    """

    min_samples = 400 + 31 * HOP
    default_layers = ("emb",)
    ignored_tensors = ("count",)
    mean: Tensor
    variance: Tensor

    def __init__(self, input: str = "clip", share: float = 1.0) -> None:
        if input not in INPUTS:
            raise ValueError(f"no input {input!r} for cola; {near_miss(input, INPUTS)}")
        width, hop = int(TOP * share), 0 if input == "clip" else WINDOW
        heads = [
            LayerInfo("emb", width, hop, "mean", "the largest number of each channel of top"),
            LayerInfo("proj", N_PROJECTED, hop, "mean", "dense layer of the pre-training"),
        ]
        super().__init__("keras", share, heads)
        self.input = input
        if input == "padded":  # 96 frames a window, of which a layer has 48, 48, 24, ...
            self.layer_infos = tuple(
                dataclasses.replace(info, hop=round(WINDOW / (N_FRAMES * HOP // info.hop)))
                if info.hop != WINDOW
                else info
                for info in self.layer_infos
            )
        self.projection = nn.Linear(width, N_PROJECTED)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("variance", torch.ones(1))

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename Keras's variables, and bring their axes into PyTorch's order."""
        return dict(name_keras_variable(name, value) for name, value in state_dict_of(checkpoint).items())

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the frames of each layer, rounded up, of the clip or of every window of it.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        if self.input == "clip":
            return super().valid_frames(lengths)
        n_windows = (lengths + WINDOW - 1) // WINDOW
        return {info.name: n_windows * round(WINDOW / info.hop) for info in self.layer_infos}

    def cut_examples(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Cut the windows of the released evaluation.

        Args:
            waveform, lengths: as for `forward`.

        Returns:
            (window, 15680): those of all clips, one after the other, each of L2 norm 1.

        Example:
            >>> Cola(share=0.25).cut_examples(torch.ones(1, 16000), torch.tensor([16000])).square().sum(dim=1).tolist()
            [1.0, 1.0]
        """
        n_windows = (lengths + WINDOW - 1) // WINDOW
        padded = nn.functional.pad(waveform, (0, max(0, int(n_windows.max()) * WINDOW - waveform.shape[1])))
        windows = pack(padded[:, : int(n_windows.max()) * WINDOW].unflatten(1, (-1, WINDOW)), n_windows)
        return windows * windows.square().sum(dim=1, keepdim=True).clamp(min=ENERGY_FLOOR).rsqrt()

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every stage of every clip: (batch, samples) -> layer name -> (batch, time, width)."""
        if self.input == "clip":
            return super().forward(waveform, lengths)
        n_windows = (lengths + WINDOW - 1) // WINDOW
        layers = in_chunks(self._run_windows, self.cut_examples(waveform, lengths), 64)
        return {
            info.name: unpack(layers[info.name], n_windows).reshape(lengths.shape[0], -1, info.width)
            for info in self.layer_infos
        }

    def _run_windows(self, windows: Tensor) -> dict[str, Tensor]:
        """(window, samples) -> layer -> (window, frames x feature)."""
        mel = self.network_input(windows, torch.full((windows.shape[0],), WINDOW, device=windows.device))
        return {name: value.flatten(1) for name, value in self.compute_layers(mel).items()}

    def compute_layers(self, mel: Tensor) -> dict[str, Tensor]:
        """Compute the layers of (clips, time, 64) log-mel: layer name -> (clips, time step, feature).

        The input is divided by 255 and normalised as the checkpoint says; a new network does not normalise.
        """
        return super().compute_layers((mel / LARGEST - self.mean) / self.variance.sqrt().clamp(min=1e-7))

    def compute_heads(self, top: Tensor) -> dict[str, Tensor]:
        """Take the maximum over bands and time, and project it: (clips, channel, band, time) -> (clips, 1, width)."""
        emb = top.amax(dim=(2, 3))[:, None]
        return {"emb": emb, "proj": self.projection(emb)}


def name_keras_variable(name: str, value: Tensor) -> tuple[str, Tensor]:
    """Rename a variable of Keras's EfficientNet, and bring its axes into PyTorch's order.

    Args:
        name: such as "encoder/block2a_expand_conv/kernel"; other names stay as they are.
        value: the variable.

    Example:
        >>> name, value = name_keras_variable("encoder/block2b_dwconv/depthwise_kernel", torch.zeros(3, 3, 8, 1))
        >>> name, tuple(value.shape)
        ('network._blocks.2._depthwise_conv.weight', (8, 1, 3, 3))
    """
    _, layer, leaf = ["", "", *name.split("/")][-3:]
    if layer == "normalization":
        return leaf, value
    if layer == "projection":
        return f"projection.{_LEAVES.get(leaf, leaf)}", value.T if value.dim() == 2 else value
    if value.dim() == 4:
        value = value.permute((2, 3, 0, 1) if leaf == "depthwise_kernel" else (3, 2, 0, 1))
    block = re.fullmatch(r"block(\d[a-z])_(\w+)", layer)
    own = _ENDS.get(layer)
    if block and block[1] in _BLOCKS and block[2] in _PARTS:
        own = f"_blocks.{_BLOCKS.index(block[1])}.{_PARTS[block[2]]}"
    return (f"network.{own}.{_LEAVES.get(leaf, leaf)}" if own else name), value
