"""BYOL-S: BYOL-A's training on the speech of AudioSet, with three networks.

Papers: Elbanna et al., "BYOL-S: Learning Self-supervised Speech Representations by Bootstrapping", HEAR 2021 (arXiv
2206.12038); Elbanna et al., "Hybrid Handcrafted and Learnable Audio Representation for Analysis of Speech Under
Cognitive and Physical Load", Interspeech 2022 (arXiv 2203.16637), whose network is the CvT. Checkpoints:
`checkpoints/*.pth` of the repository GasserElbanna/serab-byols (MIT). Trained without labels on the part of AudioSet
that holds speech. BYOL-A's file of width 2048 has the same tensors as that of `default` and loads as well; the hash in the
row shows which file it was.

Input: 16 kHz. Power spectra of 400 samples every 160 in a Fourier transform of 1024 (periodic Hann, centred, clip
mirrored at both ends), 64 HTK mel bands of peak 1 from 60 to 7800 Hz, ln(x + 1.1920929e-07); then shifted and scaled to
mean 0 and sample deviation 1 over the whole clip, as the original does with one clip. At least 513 samples, 1,120 for
`default`. Clips of any length go through the network as a whole.

Networks:
    `default`: BYOL-A's three convolutions and two linear layers.
    `resnetish`: ResNet-34 whose first convolution has stride 1.
    `cvt`: three stages of convolution and one transformer block.

Layers, each at its own rate, channel x band side by side, pooled by mean plus max: conv1, conv2, conv3, fc1, fc2
(`default`); stem, layer1..layer4 (`resnetish`); stage1, stage2, stage3 (`cvt`). The last one is the paper's embedding
(2048); in the two networks without linear layers it is put in the original's order, band x channel. `embed_timestamps`
gives HEAR's timestamp embeddings, with the original's statistics.

Differs from the original: each clip is standardised by itself. The original averages mean and deviation over a list of
clips, so that a clip's vector depends on the others; with one clip the two are the same.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._by_length import flatten_channels, run_by_length, standardise_clips
from evar.encoders._cvt import Cvt, Stage
from evar.encoders._logmel import MelSpectrogram
from evar.encoders._resnet import ResNet
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

N_MELS, HOP, LOG_OFFSET = 64, 160, 1.1920929e-07
FRAME, FRAME_HOP = 16000, 800  # samples of HEAR's timestamps
NETWORKS = ("default", "resnetish", "cvt")
CHUNK_FRAMES = {"default": 2**15, "resnetish": 2**12, "cvt": 2**14}


class ByolS(Encoder):
    """BYOL-S with every stage; see the module's docstring.

    Args:
        network: "default", "resnetish" or "cvt".
        channels: of the first stage, for tests; the checkpoints have 64.

    Raises:
        ValueError: if there is no such network.

    Example:
        >>> ByolS("cvt", channels=4).encode(torch.zeros(1, 16000))["stage3"].shape
        torch.Size([1, 7, 128])
    """

    sample_rate = 16000

    def __init__(self, network: str = "default", channels: int = 64) -> None:
        super().__init__()
        if network not in NETWORKS:
            raise ValueError(f"no network {network!r} for byol_s; {near_miss(network, NETWORKS)}")
        self.network_kind = network
        self.min_samples = 7 * HOP if network == "default" else 513
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate,
            n_fft=1024,
            win_length=400,
            hop=HOP,
            n_mels=N_MELS,
            f_min=60.0,
            f_max=7800.0,
            scale="htk",
            norm="none",
            center="reflect",
            double=True,
        )
        self.network, maps = _build_network(network, channels)
        infos, last = [], len(maps) - 1
        for number, (name, width, n_bands, share) in enumerate(maps):
            note = f"{width} channels x {n_bands} bands"
            if number == last and network != "default":
                note = f"{n_bands} bands x {width} channels"
            infos.append(LayerInfo(name, width * n_bands, share * HOP, "mean_plus_max", note if n_bands > 1 else ""))
        self.layer_infos = tuple(infos)
        self.default_layers = (infos[-1].name,)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the published file."""
        state = state_dict_of(checkpoint)
        if self.network_kind == "cvt":
            state = {name_cvt_tensor(name): value for name, value in state.items()}
        return {f"network.{name}": value for name, value in state.items()}

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + samples // 160: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 64) log-mel, natural logarithm, before it is standardised."""
        return (self.mel(waveform, lengths) + LOG_OFFSET).log()

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the frames of each layer: `default` drops what is left over, the other networks count it as a frame.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        frames, counts = self.mel.frames(lengths), {}
        for info in self.layer_infos:
            share = info.hop // HOP
            counts[info.name] = frames // share if self.network_kind == "default" else (frames + share - 1) // share
        return counts

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every stage of every clip: (batch, samples) -> layer name -> (batch, time, width)."""
        mel, frames = self.network_input(waveform, lengths), self.mel.frames(lengths)
        return run_by_length(
            lambda x: self._compute_layers(self.scale(x)), mel, frames, CHUNK_FRAMES[self.network_kind]
        )

    def scale(self, mel: Tensor) -> Tensor:
        """Shift and scale each clip's log-mel to mean 0 and deviation 1, as the network expects it.

        Args:
            mel: (clips, time, 64), all of one length.

        Example:
            >>> ByolS("cvt", channels=4).scale(torch.rand(1, 9, 64)).std().round(decimals=3).item()
            1.0
        """
        return standardise_clips(mel)

    def embed_timestamps(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """HEAR's timestamp embeddings of one clip: a vector of the second around every 50 ms.

        The log-mels of all seconds are shifted and scaled by one mean and one deviation. The original divides both by the
        number of seconds once more, which is kept here.

        Args:
            waveform: (1, samples) in [-1, 1] at 16 kHz.

        Returns:
            (timestamp, 2048) vectors, and (timestamp,) milliseconds.

        Raises:
            ValueError: if there is more than one clip.

        Example:
            >>> vectors, times = ByolS("cvt", channels=4).eval().embed_timestamps(torch.rand(1, 2000))
            >>> vectors.shape, times.tolist()
            (torch.Size([3, 128]), [0.0, 50.0, 100.0])
        """
        if len(waveform) != 1:
            raise ValueError(f"embed_timestamps takes one clip (1, samples), got {tuple(waveform.shape)}")
        seconds = nn.functional.pad(waveform[0], (FRAME // 2, FRAME // 2)).unfold(0, FRAME, FRAME_HOP)
        mel = (self.mel(seconds) + LOG_OFFSET).log()  # (second, time, 64)
        values = mel.double() if mel.device.type != "mps" else mel
        mean, std = values.mean() / len(values), values.std() / len(values)
        scaled = ((values - mean) / std.clamp(min=1e-9)).float()
        name = self.layer_infos[-1].name
        frames = torch.cat([self._compute_layers(part)[name] for part in scaled.split(16)])  # (second, time, 2048)
        return frames.mean(dim=1) + frames.amax(dim=1), 50.0 * torch.arange(len(frames), device=frames.device)

    def _compute_layers(self, scaled: Tensor) -> dict[str, Tensor]:
        """(clips, time, 64) -> layer -> (clips, time step, feature)."""
        outputs = self.network(scaled.transpose(1, 2)[:, None])  # (clips, channel, band, time), or (clips, time, width)
        layers = {}
        for info, output in zip(self.layer_infos, outputs, strict=True):
            if output.dim() == 4 and output is outputs[-1]:
                layers[info.name] = output.permute(0, 3, 2, 1).flatten(2)  # band x channel
            else:
                layers[info.name] = flatten_channels(output) if output.dim() == 4 else output
        return layers


class AudioNtt(nn.Module):
    """BYOL-A's network: three convolutions on a log-mel, two linear layers on each frame of the last.

    Args:
        channels: of the convolutions.
        width: of the linear layers.
        n_mels: bands.

    Source: Niizumi et al., "BYOL for Audio", IJCNN 2021, table I.

    Example:
        >>> [tuple(one.shape) for one in AudioNtt(4, 32)(torch.zeros(1, 1, 64, 17))]
        [(1, 4, 32, 8), (1, 4, 16, 4), (1, 4, 8, 2), (1, 2, 32), (1, 2, 32)]
    """

    def __init__(self, channels: int = 64, width: int = 2048, n_mels: int = N_MELS) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for n_in in (1, channels, channels):
            modules += [nn.Conv2d(n_in, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*modules)
        self.fc = nn.Sequential(
            nn.Linear(channels * n_mels // 8, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.ReLU()
        )

    def forward(self, maps: Tensor) -> list[Tensor]:
        """Compute every block and every linear layer.

        Args:
            maps: (clips, 1, band, time), at least 8 frames.

        Returns:
            Three maps (clips, channel, band, time), then two (clips, time, width).

        Example:
            >>> len(AudioNtt(2, 8)(torch.zeros(1, 1, 64, 8)))
            5
        """
        found = []
        for block in range(3):
            maps = self.features[4 * block : 4 * block + 4](maps)
            found.append(maps)
        found.append(self.fc[:2](maps.permute(0, 3, 2, 1).flatten(2)))  # (clips, time, band x channel) -> width
        found.append(self.fc[2:](found[-1]))
        return found


def name_cvt_tensor(name: str) -> str:
    """Find the name in `Cvt` of a tensor of the published file.

    Args:
        name: such as "layers.0.2.layers.0.0.fn.to_q.net.1.weight".

    Example:
        >>> name_cvt_tensor("layers.0.2.layers.0.0.fn.to_q.net.1.weight")
        'stages.0.block.attention.to_q.1.weight'
    """
    found = re.fullmatch(r"layers\.(\d+)\.([012])\.(.+)", name)
    if not found:
        return name
    stage, part, leaf = found.groups()
    if part in ("0", "1"):
        return f"stages.{stage}.{'embed' if part == '0' else 'norm'}.{leaf}"
    for published, own in (
        ("layers.0.0.norm.", "norm1."),
        ("layers.0.0.fn.to_out.0.", "attention.to_out."),
        ("layers.0.0.fn.to_q.net.", "attention.to_q."),
        ("layers.0.0.fn.to_kv.net.", "attention.to_kv."),
        ("layers.0.1.norm.", "norm2."),
        ("layers.0.1.fn.net.0.", "mlp.0."),
        ("layers.0.1.fn.net.3.", "mlp.2."),
    ):
        if leaf.startswith(published):
            return f"stages.{stage}.block.{own}{leaf.removeprefix(published)}"
    return name


def _build_network(network: str, channels: int) -> tuple[nn.Module, list[tuple[str, int, int, int]]]:
    """A network, and of each layer its name, channels, bands (1: a vector), and frames of the log-mel in a frame."""
    if network == "default":
        width = 32 * channels
        maps = [(f"conv{number}", channels, N_MELS >> number, 1 << number) for number in (1, 2, 3)]
        return AudioNtt(channels, width), [*maps, ("fc1", width, 1, 8), ("fc2", width, 1, 8)]
    if network == "resnetish":
        maps = [("stem", channels, 32, 2), ("layer1", channels, 32, 2)]
        maps += [(f"layer{number}", channels << number - 1, 64 >> number, 1 << number) for number in (2, 3, 4)]
        return ResNet(channels, (3, 4, 6, 3), first_stride=1), maps
    sizes = ((1, 7, 4, 1), (4, 3, 2, 3), (8, 3, 2, 6))  # width, kernel, stride, heads
    stages = [Stage(n * channels, kernel, stride, n_heads, channels) for n, kernel, stride, n_heads in sizes]
    maps = [(f"stage{number}", stage.width, 32 >> number, 2 << number) for number, stage in enumerate(stages, start=1)]
    return Cvt(stages), maps
