"""ESResNeXt-fbsp: ResNeXt-50 with attention on a learned time-frequency transform, trained to tag AudioSet.

Paper: Guzhov et al., "ESResNe(X)t-fbsp: Learning Robust Time-Frequency Transformation of Audio", IJCNN 2021. Checkpoint:
release v0.1 of AndreyGuzhov/ESResNeXt-fbsp, which states no licence, so that all rights are reserved. Trained on
AudioSet-2M with labels; the network began with ImageNet.

Input: 44.1 kHz. The waveform times 32767 (EVAR's way; the authors' loader multiplies by 32768), then (x + 32768) x 2 /
65535 - 1, so that silence becomes 1.5e-5. Frames of 1654 samples every 561 with zeros at both ends, periodic
Blackman-Harris window, 1025 learned complex wavelets, of which 1023 are kept, power in decibels with zeros replaced by
1e-18. The bins become an image of three channels: the low, the middle and the high 341 bins. Clips of any length go
through whole; clips of one length share a forward.

Network: a convolution 7 x 7 of stride 2 and max-pooling, four stages of 3, 4, 6 and 3 bottlenecks (32 groups, inner width
128 to 1024); after each stage its output is multiplied by an attention map made from the stage's input.

Layers stem, block1..block16, and stage1..stage4 after the attention of their stage: mean over frequency, one frame for
every 2244 (to stage1), 4488 (to stage2), 8976 (to stage3) or 17952 samples, pooled by mean. emb (2048, one vector a clip)
is the mean of stage4 over frequency and time, times a last attention, and the default. `outputs` gives the logits of the
527 AudioSet tags.

`precision="mixed"` (default) computes the wavelets in float64 and the network in float32, "single" all of it in float32,
as the original does, and "double" all of it in float64. The wavelets reach angles of 3217 radians, which float32 resolves
to about 1e-4 only: the original's vectors are right to about 1e-3, and in digital silence its decibels are those of
rounding errors.

Differs from the original: its fine-tuning cuts or fills clips to 5 s.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._by_length import run_by_length
from evar.encoders._fbsp import HOP, WaveletSpectrum
from evar.encoders._map_layers import read_bands
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

#: EVAR gives the network numbers of 16 bits, which it scales to [-1, 1]
FULL_SCALE, OFFSET, RANGE = 32767.0, 32768.0, 65535.0
N_CHANNELS, STEM, N_GROUPS, N_CLASSES = 3, 64, 32, 527
#: blocks, inner width and stride of each stage
STAGES = ((3, 128, 1), (4, 256, 2), (6, 512, 2), (3, 1024, 2))
#: rows and columns that the attention of each stage compares; the last one is that of the clip's vector
ATTENTION = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))
# Frames that go through the network at once; 10 s have some 360 MB of activations.
_CHUNK_FRAMES = 2**12
PRECISIONS = ("mixed", "single", "double")


class EsresnextFbsp(Encoder):
    """ESResNeXt-fbsp with every block; see the module's docstring.

    Args:
        precision: "mixed" (wavelets in float64), "single" (float32, as the original) or "double" (float64).
        n_blocks: blocks, for tests.

    Raises:
        ValueError: if there is no such precision.

    Example:
        >>> EsresnextFbsp(n_blocks=1).eval().encode(torch.zeros(1, 44100))["stage1"].shape
        torch.Size([1, 20, 256])
    """

    sample_rate = 44100
    default_layers = ("emb",)
    frontend_parameters = ("fbsp",)
    ignored_tensors = ("window", "fbsp.bias")  # a formula, and an empty tensor

    def __init__(self, precision: str = "mixed", n_blocks: int = 16) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"no precision {precision!r} for esresnext_fbsp; {near_miss(precision, PRECISIONS)}")
        self.dtype = torch.float64 if precision == "double" else torch.float32
        self.precision = precision
        self.fbsp = WaveletSpectrum(double=precision != "single")
        self.conv1 = nn.Conv2d(N_CHANNELS, STEM, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        hop, width, note = 4 * HOP, STEM, "mean over frequency"
        infos = [LayerInfo("stem", STEM, hop, "mean", note)]
        self._stages: list[tuple[nn.Sequential, _Attention]] = []
        for number, (depth, inner, stride) in enumerate(STAGES, start=1):
            depth, done = min(depth, n_blocks - len(infos) + number), sum(info.name[0] == "b" for info in infos)
            if depth <= 0:
                break
            blocks = [_Bottleneck(width if n == 0 else 2 * inner, inner, stride if n == 0 else 1) for n in range(depth)]
            attention = _Attention(width, 2 * inner, ATTENTION[number - 1])
            width, hop = 2 * inner, hop * stride
            self._stages.append((nn.Sequential(*blocks), attention))
            setattr(self, f"layer{number}", self._stages[-1][0])
            setattr(self, f"att{number}", attention)
            infos += [LayerInfo(f"block{done + n}", width, hop, "mean", note) for n in range(1, depth + 1)]
            infos.append(LayerInfo(f"stage{number}", width, hop, "mean", f"with attention, {note}"))
        self.att5 = _Attention(width, width, ATTENTION[-1])
        self.fc = nn.Linear(width, N_CLASSES).requires_grad_(False)  # no layer depends on it
        self.layer_infos = (*infos, LayerInfo("emb", width, 0, "mean", "mean of the last stage, with attention"))
        for module in self.modules():  # an untrained network must not fade out layer by layer either
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.to(self.dtype)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the frames of clips: one, and one more for every 561 samples, or part of them, beyond 1654.

        Args:
            lengths: (batch,) valid samples of each clip, at 44.1 kHz.

        Returns:
            (batch,) frames.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("esresnext_fbsp").network_input_frames(torch.tensor([44100])).tolist()
            [77]
        """
        return self.fbsp.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the decibels of the learned wavelets.

        Args:
            waveform: (batch, samples) in [-1, 1] at 44.1 kHz.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch, time, 1023) decibels.

        Example:
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("esresnext_fbsp", "random", n_blocks=1)
            >>> encoder.network_input(torch.zeros(1, 4410), torch.tensor([4410])).shape
            torch.Size([1, 6, 1023])
        """
        samples = waveform if self.precision == "single" or waveform.device.type == "mps" else waveform.double()
        return self.fbsp((samples * FULL_SCALE + OFFSET) * 2.0 / RANGE - 1.0, lengths)

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Halve the frames at every stride of 2, rounded up; the layer of the whole clip has one frame.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        frames, counts = self.fbsp.frames(lengths), {}
        for info in self.layer_infos:
            counts[info.name] = -(-frames // (info.hop // HOP)) if info.hop else torch.ones_like(frames)
        return counts

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every block, every stage, and the clip's vector.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        layers = run_by_length(
            self._run_network,
            self.network_input(waveform, lengths),
            self.fbsp.frames(lengths),
            chunk_frames=_CHUNK_FRAMES,
        )
        return {name: value.float() for name, value in layers.items()}

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) logits of the AudioSet tags."""
        return self.fc(self.forward(waveform, lengths)["emb"][:, 0].to(self.dtype)).float()

    def weigh_channels(self, waveform: Tensor) -> Tensor:
        """Compute the last attention: the factor of every channel of a clip's vector.

        Args:
            waveform: (batch, samples) in [-1, 1] at 44.1 kHz, clips of one length.

        Returns:
            (batch, channel) between 0 and 1.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("esresnext_fbsp", "random", n_blocks=1).weigh_channels(torch.zeros(1, 44100)).shape
            torch.Size([1, 256])
        """
        waveform, lengths = self._check_input(waveform, None)
        *_, (_, maps) = self._run_stages(self.network_input(waveform, lengths))
        return self.att5(maps, (1, 1)).flatten(1).float()

    def _run_network(self, decibels: Tensor) -> dict[str, Tensor]:
        """(clip, time, bin), clips of one length -> layer -> (clip, time step, feature)."""
        layers: dict[str, Tensor] = {}
        for name, maps in self._run_stages(decibels):
            layers[name] = read_bands(maps, "mean")
        vector = maps.mean(dim=(2, 3), keepdim=True) * self.att5(maps, (1, 1))
        return {**layers, "emb": vector.flatten(1)[:, None]}

    def _run_stages(self, decibels: Tensor) -> list[tuple[str, Tensor]]:
        """(clip, time, bin) -> name and map (clip, channel, frequency, time) of the stem, every block and stage."""
        image = decibels.unflatten(2, (N_CHANNELS, -1)).permute(0, 2, 3, 1)  # (clip, channel, bin, time)
        maps = nn.functional.max_pool2d(self.bn1(self.conv1(image)).relu(), 3, 2, 1)
        found = [("stem", maps)]
        n_blocks = 0
        for number, (blocks, attention) in enumerate(self._stages, start=1):
            before = maps
            for block in blocks:
                maps, n_blocks = block(maps), n_blocks + 1
                found.append((f"block{n_blocks}", maps))
            maps = maps * attention(before, (maps.shape[2], maps.shape[3]))
            found.append((f"stage{number}", maps))
        return found


class _Bottleneck(nn.Module):
    """A residual block of ResNeXt: 1 x 1, 3 x 3 in 32 groups, 1 x 1."""

    def __init__(self, n_in: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=N_GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 2 * inner, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * inner)
        changes = stride != 1 or n_in != 2 * inner
        self.downsample = (
            nn.Sequential(nn.Conv2d(n_in, 2 * inner, 1, stride, bias=False), nn.BatchNorm2d(2 * inner))
            if changes
            else None
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(clip, channel, frequency, time) -> the same axes."""
        residual = maps if self.downsample is None else self.downsample(maps)
        inner = self.bn1(self.conv1(maps)).relu()
        inner = self.bn2(self.conv2(inner)).relu()
        return (self.bn3(self.conv3(inner)) + residual).relu()


class _Attention(nn.Module):
    """Factors between 0 and 1 for a map, from a map of another size."""

    def __init__(self, n_in: int, n_out: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(n_in, n_in, kernel, padding=padding, groups=n_in)
        self.conv_point = nn.Conv2d(n_in, n_out, 1)
        self.bn = nn.BatchNorm2d(n_out)

    def forward(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """(clip, channel, frequency, time) -> (clip, other channel, *size)."""
        pooled = nn.functional.adaptive_max_pool2d(maps, size)
        return self.bn(self.conv_point(self.conv_depth(pooled))).sigmoid()
