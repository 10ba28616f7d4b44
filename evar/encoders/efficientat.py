"""EfficientAT: MobileNetV3 on log-mel, taught to tag AudioSet by transformers.

Paper: Schmid et al., "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation", ICASSP 2023.
Checkpoints: release v0.0.1 of fschmid56/EfficientAT (code MIT, the licence of the weights is not stated);
`mn40_as_ext_mAP_487.pt` is another file for `efficientat.mn40`, and files for other hops and numbers of bands load with the
options `hop` (in samples) and `n_mels`. Trained on AudioSet-2M with labels and the answers of PaSST; the networks
began with ImageNet.

Input: 32 kHz, the log-mel of PaSST: differences of neighbouring samples (x[n + 1] - 0.97 x[n]), log-mel of 1024 samples
every 320 (symmetric Hann of 800 samples in the middle, centred, mirrored at both ends), power, 128 bands of Kaldi's shape
from 0 to 15000 Hz, (ln(x + 1e-5) + 4.5) / 5. At least 514 samples; shorter clips are filled with zeros.

Network: a convolution of stride 2, 15 inverted residuals with hard-swish or ReLU, some of them with squeeze and
excitation (by a plain sigmoid), and a 1 x 1 convolution; `width` multiplies the channels. A clip of any length goes through
whole; clips of one length share a forward.

Layers stem, block1..block15 and head, the last convolution: mean over frequency, one frame in 2 (stem, block1), 4 (block2,
block3), 8 (block4 to block6), 16 (block7 to block12) or 32 (block13 to head) frames of the log-mel, pooled by mean. head
(960 at width 1) is the default: its mean over frequency and time is what the original returns as features.
`bands="side_by_side"` keeps the bands, channel x frequency. hidden (1280, one vector a clip) is the classifier's hidden
layer. `outputs` gives the logits of the 527 AudioSet tags.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._by_length import run_by_length
from evar.encoders._map_layers import BANDS, read_bands
from evar.encoders._mobile import average_map, make_convolution, make_norm
from evar.encoders._preemphasised_mel import PreemphasisedMel
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

HOP, N_MELS = 320, 128
STEM, HEAD_RATIO, HIDDEN, N_CLASSES = 16, 6, 1280, 527
# Frames that go through the network at once: of the widest, 10 s have some 250 MB of activations.
_CHUNK_FRAMES = 2**13


class _Kind(NamedTuple):
    """An inverted residual: kernel, channels within and after it, whether it weighs channels, activation, stride."""

    kernel: int
    expanded: int
    out: int
    weighs: bool
    swish: bool
    stride: int


KINDS = (
    _Kind(3, 16, 16, False, False, 1),
    _Kind(3, 64, 24, False, False, 2),
    _Kind(3, 72, 24, False, False, 1),
    _Kind(5, 72, 40, True, False, 2),
    _Kind(5, 120, 40, True, False, 1),
    _Kind(5, 120, 40, True, False, 1),
    _Kind(3, 240, 80, False, True, 2),
    _Kind(3, 200, 80, False, True, 1),
    _Kind(3, 184, 80, False, True, 1),
    _Kind(3, 184, 80, False, True, 1),
    _Kind(3, 480, 112, True, True, 1),
    _Kind(3, 672, 112, True, True, 1),
    _Kind(5, 672, 160, True, True, 2),
    _Kind(5, 960, 160, True, True, 1),
    _Kind(5, 960, 160, True, True, 1),
)


def round_channels(channels: float) -> int:
    """Round a number of channels to a multiple of 8 that is at least 0.9 of it.

    Args:
        channels: to round.

    Returns:
        A multiple of 8, at least 8.

    Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, and torchvision's networks.

    Example:
        >>> [round_channels(number) for number in (4, 18, 30, 168)]
        [8, 24, 32, 168]
    """
    rounded = max(8, int(channels / 8 + 0.5) * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class EfficientAT(Encoder):
    """EfficientAT's MobileNetV3 with every block; see the module's docstring.

    Args:
        width: factor of the channels: 1.0 for mn10, 0.4 for mn04.
        bands: "mean" over the bands of a frame, or "side_by_side".
        n_mels: bands of the log-mel.
        hop: samples between its frames.
        n_blocks: blocks, for tests.

    Raises:
        ValueError: if there is no such way to read bands.

    Example:
        >>> import torch
        >>> EfficientAT(width=0.1).encode(torch.zeros(1, 32000))["head"].shape
        torch.Size([1, 4, 96])
    """

    sample_rate = 32000
    default_layers = ("head",)

    def __init__(
        self, width: float = 1.0, bands: str = "mean", n_mels: int = N_MELS, hop: int = HOP, n_blocks: int = len(KINDS)
    ) -> None:
        super().__init__()
        if bands not in BANDS:
            raise ValueError(f"no bands {bands!r} for efficientat; {near_miss(bands, BANDS)}")
        self.bands = bands
        self.mel = PreemphasisedMel(n_mels, hop)
        self.min_samples = self.mel.min_samples
        stem = round_channels(width * STEM)
        steps: list[nn.Module] = [_convolve(1, stem, 3, 2, nn.Hardswish)]
        n_in, hops, widths = stem, [2], [stem]
        for kind in KINDS[:n_blocks]:
            n_out = round_channels(width * kind.out)
            steps.append(_Block(kind, n_in, round_channels(width * kind.expanded), n_out))
            n_in = n_out
            hops.append(hops[-1] * kind.stride)
            widths.append(n_out)
        head = HEAD_RATIO * n_in
        steps.append(_convolve(n_in, head, 1, 1, nn.Hardswish))
        self.features = nn.Sequential(*steps)
        hidden = round_channels(width * HIDDEN)
        # Pooling, flattening and dropout stand in the gaps of the published names.
        self.classifier = nn.ModuleDict({"2": nn.Linear(head, hidden), "5": nn.Linear(hidden, N_CLASSES)})
        self.classifier["5"].requires_grad_(False)  # no layer depends on it
        note = "mean over frequency" if bands == "mean" else "channel x frequency"
        names = ["stem", *(f"block{number}" for number in range(1, n_blocks + 1)), "head"]
        n_bands = [1 if bands == "mean" else -(-n_mels // factor) for factor in (*hops, hops[-1])]
        self.layer_infos = (
            *(
                LayerInfo(name, channels * rows, factor * hop, "mean", note)
                for name, channels, rows, factor in zip(names, (*widths, head), n_bands, (*hops, hops[-1]), strict=True)
            ),
            LayerInfo("hidden", hidden, 0, "mean", "hidden layer of the classifier"),
        )

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames of clips: 1 + (samples - 1) // 320.

        Args:
            lengths: (batch,) valid samples of each clip, at 32 kHz.

        Returns:
            (batch,) frames.

        Example:
            >>> import torch
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("efficientat.mn10").network_input_frames(torch.tensor([32000])).tolist()
            [100]
        """
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the normalised log-mel.

        Args:
            waveform: (batch, samples) in [-1, 1] at 32 kHz.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch, time, band).

        Example:
            >>> import torch
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("efficientat.mn04", "random")
            >>> encoder.network_input(torch.zeros(1, 32000), torch.tensor([32000])).shape
            torch.Size([1, 100, 128])
        """
        return self.mel(waveform, lengths)

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Halve the frames at every stride of 2, rounded up; layers of the whole clip have one frame.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        frames, hop = self.mel.frames(lengths), self.mel.mel.hop
        counts = {}
        for info in self.layer_infos:
            factor = info.hop // hop
            counts[info.name] = -(-frames // factor) if factor else frames.clamp(max=1)
        return counts

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every block, and the classifier's hidden layer.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        return run_by_length(self._run_network, self.mel(waveform, lengths), self.mel.frames(lengths), _CHUNK_FRAMES)

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) logits of the AudioSet tags."""
        return self.classifier["5"](self.forward(waveform, lengths)["hidden"][:, 0])

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Take the wrappers off a checkpoint; the names of its tensors are this module's own."""
        return state_dict_of(checkpoint)

    def _run_network(self, logmel: Tensor) -> dict[str, Tensor]:
        """(clip, time, band), clips of one length -> layer -> (clip, time step, feature)."""
        maps, layers = logmel.transpose(1, 2)[:, None], {}  # (clip, 1, band, time)
        for info, step in zip(self.layer_infos[:-1], self.features, strict=True):
            maps = step(maps)
            layers[info.name] = read_bands(maps, self.bands)
        pooled = average_map(maps).flatten(1)
        layers["hidden"] = nn.functional.hardswish(self.classifier["2"](pooled))[:, None]
        return layers


def _convolve(
    n_in: int, n_out: int, kernel: int, stride: int, activation: type[nn.Module] | None, groups: int = 1
) -> nn.Sequential:
    """A convolution, its batch normalisation, and an activation if there is one."""
    parts = [make_convolution(n_in, n_out, kernel, stride, groups=groups), make_norm(n_out)]
    return nn.Sequential(*parts, *([activation()] if activation else []))


class _Weighing(nn.Module):
    """Weighs channels by their mean over the whole map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = round_channels(channels // 4)
        layer = nn.Module()
        layer.fc1, layer.fc2 = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)
        self.conc_se_layers = nn.ModuleList([layer])

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, channel, frequency, time) -> the same."""
        layer: Any = self.conc_se_layers[0]
        weights = layer.fc2(layer.fc1(average_map(maps).flatten(1)).relu()).sigmoid()
        return maps * weights[:, :, None, None]


class _Block(nn.Module):
    """An inverted residual."""

    def __init__(self, kind: _Kind, n_in: int, expanded: int, n_out: int) -> None:
        super().__init__()
        activation = nn.Hardswish if kind.swish else nn.ReLU
        parts = [_convolve(n_in, expanded, 1, 1, activation)] if expanded != n_in else []
        parts.append(_convolve(expanded, expanded, kind.kernel, kind.stride, activation, groups=expanded))
        weighing = [_Weighing(expanded)] if kind.weighs else []
        self.block = nn.Sequential(*parts, *weighing, _convolve(expanded, n_out, 1, 1, None))
        self.adds = kind.stride == 1 and n_in == n_out

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, channel, frequency, time) -> the same axes."""
        return maps + self.block(maps) if self.adds else self.block(maps)
