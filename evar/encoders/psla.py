"""PSLA: EfficientNet-B2 on log-mel with attention over time, trained to tag AudioSet.

Paper: Gong et al., "PSLA: Improving Audio Tagging with Pretraining, Sampling, Labeling, and Aggregation", IEEE/ACM TASLP
2021. Checkpoints: the files that the README of YuanGongND/psla links (code BSD-3-Clause, the licence of the weights is not
stated). Trained on AudioSet-2M with labels at 16 kHz; the network began with ImageNet. `as_mdl_0_wa.pth` is the average of
several training states.

Input: 16 kHz. The clip's mean is removed; Kaldi's log-mel filterbank: 400 samples every 160, no padding, symmetric Hann, 128
bands from 20 to 8000 Hz; (x + 4.6476) / 4.5699. At least 4 frames (880 samples); shorter clips are filled with zeros.

`input="clip"` (default): a clip of any length goes through at its own length; clips of one length share a forward.
`input="padded"` follows the original: zeros are added to the log-mel, or it is cut, to 1056 frames (10.6 s), before it is
normalised.

Network: a convolution of stride 2, 23 inverted residuals in 7 stages, a 1 x 1 convolution, all with swish, on an image whose
rows are bands. The zeros around the image are those of an image of 260 x 260: one row and one column behind it at the stem
and at block3, the same on all sides elsewhere.

Layers stem, block1..block23 and head: mean over frequency, one frame in 2 (stem to block2), 4 (to block5), 8 (to block8), 16
(to block16) or 32 (to head) frames of the log-mel, pooled by mean. head (1408) is the default: the original has no embedding
of its own, and this is what its classifier sees. `bands="side_by_side"` keeps the bands, channel x frequency. `outputs`
gives the probabilities of the 527 AudioSet tags, by four heads of attention over time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._by_length import run_by_length
from evar.encoders._efficientnet import EfficientNet, Stage
from evar.encoders._filterbanks import KaldiFilterbank
from evar.encoders._map_layers import BANDS, read_bands
from evar.encoders._mobile import Padding
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

HOP, N_MELS, FRAMES, LEAST_FRAMES = 160, 128, 1056, 4
STEM, HEAD, N_CLASSES, N_HEADS = 32, 1408, 527, 4
LEAST_ATTENTION = 1e-7
INPUTS = ("clip", "padded")
# Frames that go through the network at once; 10 s have some 120 MB of activations.
_CHUNK_FRAMES = 2**13
STAGES = (
    Stage(3, 1, 1, 16, 2),
    Stage(3, 2, 6, 24, 3),
    Stage(5, 2, 6, 48, 3),
    Stage(3, 2, 6, 88, 4),
    Stage(5, 1, 6, 120, 4),
    Stage(5, 2, 6, 208, 5),
    Stage(3, 1, 6, 352, 2),
)


class Psla(Encoder):
    """PSLA's EfficientNet-B2 with every block; see the module's docstring.

    Args:
        input: "clip" (a clip's own length) or "padded" (1056 frames, as the original).
        bands: "mean" over the bands of a frame, or "side_by_side".
        n_classes: tags of the checkpoint: 527 of AudioSet, or 200 of FSD50K.

    Raises:
        ValueError: if an option is none of these.

    Example:
        >>> Psla().encode(torch.zeros(1, 16000))["block2"].shape
        torch.Size([1, 49, 16])
    """

    sample_rate = 16000
    norm_stats = (-4.6476, 4.5699)
    default_layers = ("head",)
    ignored_tensors = ("effnet._fc.",)  # a classifier of images, in some files

    def __init__(self, input: str = "clip", bands: str = "mean", n_classes: int = N_CLASSES) -> None:
        super().__init__()
        for option, value, known in (("input", input, INPUTS), ("bands", bands, BANDS)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for psla; {near_miss(value, known)}")
        self.input, self.bands = input, bands
        self.mel = KaldiFilterbank(window="symmetric")
        self.min_samples = self.mel.min_samples + (LEAST_FRAMES - 1) * HOP
        self.effnet = EfficientNet(STAGES, STEM, HEAD, find_padding)
        self.attention = _TagAttention(n_classes).requires_grad_(False)  # no layer depends on it
        blocks = [
            (stage.width, stage.stride if number == 0 else 1) for stage in STAGES for number in range(stage.n_blocks)
        ]
        names, factor = ["stem", *(f"block{number}" for number in range(1, len(blocks) + 1)), "head"], 1
        note, infos = "mean over frequency" if bands == "mean" else "channel x frequency", []
        for name, (width, stride) in zip(names, [(STEM, 2), *blocks, (HEAD, 1)], strict=True):
            factor *= stride
            rows = 1 if bands == "mean" else N_MELS // factor
            infos.append(LayerInfo(name, width * rows, factor * HOP, "mean", note))
        self.layer_infos = tuple(infos)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames of clips: 1 + (samples - 400) // 160, at most 1056 where the input is padded.

        Args:
            lengths: (batch,) valid samples of each clip, at 16 kHz.

        Returns:
            (batch,) frames.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("psla").network_input_frames(torch.tensor([16000])).tolist()
            [98]
        """
        frames = self.mel.frames(lengths)
        return frames.clamp(max=FRAMES) if self.input == "padded" else frames

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel of clips shifted to mean 0, before it is filled and normalised.

        Args:
            waveform: (batch, samples) in [-1, 1] at 16 kHz.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch, time, 128) natural logarithms, at most 1056 frames where the input is padded.

        Example:
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("psla", "random")
            >>> encoder.network_input(torch.zeros(1, 16000), torch.tensor([16000])).shape
            torch.Size([1, 98, 128])
        """
        inside = torch.arange(waveform.shape[1], device=waveform.device)[None, :] < lengths[:, None]
        mean = waveform.sum(dim=1, keepdim=True) / lengths[:, None]
        logmel = self.mel((waveform - mean) * inside)
        return logmel[:, :FRAMES] if self.input == "padded" else logmel

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Halve the frames at every stride of 2, rounded down at the stem and block3, and rounded up elsewhere.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        steps = self._count_run_frames(lengths)
        counts, factor = {}, 1
        for number, info in enumerate(self.layer_infos):
            if info.hop != factor * HOP:
                factor = info.hop // HOP
                steps = steps // 2 if has_zeros_behind(2, number) else -(-steps // 2)
            counts[info.name] = steps
        return counts

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every block, and the head: (batch, samples) -> layer name -> (batch, time, width)."""

        def network(image: Tensor) -> dict[str, Tensor]:
            layers = zip(self.layer_infos, self.effnet(image.transpose(1, 2)[:, None]), strict=True)
            return {info.name: read_bands(maps, self.bands) for info, maps in layers}

        return run_by_length(
            network, self._normalise(waveform, lengths), self._count_run_frames(lengths), _CHUNK_FRAMES
        )

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) probabilities of the AudioSet tags, or of the checkpoint's own."""

        def network(image: Tensor) -> dict[str, Tensor]:
            *_, head = self.effnet(image.transpose(1, 2)[:, None])
            return {"tags": self.attention(head.mean(dim=2, keepdim=True))[:, None]}

        return run_by_length(
            network, self._normalise(waveform, lengths), self._count_run_frames(lengths), _CHUNK_FRAMES
        )["tags"][:, 0]

    def _count_run_frames(self, lengths: Tensor) -> Tensor:
        """Frames that go through the network: (batch,) samples -> (batch,) frames."""
        frames = self.mel.frames(lengths)
        return torch.full_like(frames, FRAMES) if self.input == "padded" else frames

    def _normalise(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, time, 128): filled with zeros where the input is padded, then normalised."""
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        logmel = self.network_input(waveform, lengths)
        if self.input == "padded":
            own = torch.arange(logmel.shape[1], device=logmel.device)[None, :] < self.mel.frames(lengths)[:, None]
            logmel = nn.functional.pad(logmel * own[:, :, None], (0, 0, 0, FRAMES - logmel.shape[1]))
        return (logmel - mean) / std


def has_zeros_behind(stride: int, position: int) -> bool:
    """Tell whether a convolution has zeros behind the image only, as it has in a network for images of 260 x 260.

    Args:
        stride: of the convolution.
        position: 0 is the stem, 1 the first block.

    Example:
        >>> [position for position in range(24) if has_zeros_behind(2, position)]
        [0, 3]
    """
    return stride == 2 and position in (0, 3)


def find_padding(kernel: int, stride: int, position: int) -> Padding | None:
    """Find the zeros around the image of a convolution: (before, after) both axes; None: the same on all sides.

    Args:
        kernel: rows and columns.
        stride: of the convolution.
        position: 0 is the stem, 1 the first block.

    Example:
        >>> find_padding(3, 2, 0), find_padding(5, 2, 6)
        ((0, 1), None)
    """
    return (0, 1) if has_zeros_behind(stride, position) else None


class _TagAttention(nn.Module):
    """Heads that each weigh the time steps for every tag; their sum is the probability of the tag."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.head_weight = nn.Parameter(torch.full((N_HEADS,), 1.0 / N_HEADS))
        self.att = nn.ModuleList(nn.Conv2d(HEAD, n_classes, 1) for _ in range(N_HEADS))
        self.cla = nn.ModuleList(nn.Conv2d(HEAD, n_classes, 1) for _ in range(N_HEADS))

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, channel, 1, time) -> (batch, tag)."""
        heads = []
        for weight, att, cla in zip(self.head_weight, self.att, self.cla, strict=True):
            attention = att(maps).sigmoid().clamp(LEAST_ATTENTION, 1.0 - LEAST_ATTENTION)
            shares = attention / attention.sum(dim=3, keepdim=True)
            heads.append(weight * (shares * cla(maps).sigmoid()).sum(dim=(2, 3)))
        return torch.stack(heads).sum(dim=0)
