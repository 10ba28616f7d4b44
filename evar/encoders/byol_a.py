"""BYOL-A: small convolutional networks on log-mel, trained without labels to see two mixtures of a sound as one.

Papers: Niizumi et al., "BYOL for Audio: Self-Supervised Learning for General-Purpose Audio Representation", IJCNN 2021
(`ByolA`); "BYOL for Audio: Exploring Pre-trained General-purpose Audio Representations", IEEE/ACM TASLP 2023 (`ByolA2`).
Checkpoints: `AudioNTT2020-BYOLA-64x96d{512,1024,2048}.pth` and `AudioNTT2022-BYOLA-64x96d2048.pth` of the repository
nttcslab/byol-a, whose licence allows evaluation only. Trained on AudioSet without its labels.

Input: 16 kHz. Power spectra of 1024 samples every 160 (periodic Hann, centred, clip mirrored at both ends), 64 Slaney mel
bands of area 1 from 60 to 7800 Hz, ln(x + 1.1920929e-07). (The repository's own data loader builds HTK bands without area
normalisation, which differ by up to 14 nat; its notes and its evaluation use Slaney's.) Normalised as (x - mean) / std by
the statistics of the data at hand: `norm_stats`. Its default here, (-5.4919195, 5.0389895), is the repository's example;
`lineval` computes them from the training clips of each round. At least 8 frames (1,120 samples).

Layers of `ByolA` (d512, d1024, d2048), all at one frame in 8 of the front-end (hop 1280), pooled by mean plus max: conv1
(2048), conv2 (1024), conv3 (512): after max-pooling, channel x mel side by side, averaged over time in pairs down to that
rate (where the number of frames is odd, the last two are averaged into one first), not filled up to the width of the fc
layers as the original does; fc1 and fc2 (d each) after ReLU. fc2 is the paper's embedding.
Layers of `ByolA2` at one frame in 4 (hop 640): conv1 (2048, averaged in pairs), conv2 (1024), fc1 (2048), fc2 (2048), and
out (3072): conv2 (mel-major) and fc2 side by side, the paper's embedding.

Differs from the originals: clips of different lengths may share a batch; what lies beyond a clip's end is set to zero
after every convolution and pooling, which is what the convolution of the clip alone sees there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from evar.encoders._folding import convolve_and_normalise, halve_by_maximum, rectify
from evar.encoders._logmel import MelSpectrogram
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import read_checkpoint, state_dict_of

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

N_MELS, CHANNELS = 64, 64
LOG_OFFSET = 1.1920929e-07
HOP = 160
#: example statistics of the BYOL-A repository
EXAMPLE_STATS = (-5.4919195, 5.0389895)


class _ByolA(Encoder):
    """What both versions share: the front-end and blocks of convolution, batch normalisation, ReLU, max-pooling."""

    sample_rate = 16000
    min_samples = 7 * HOP
    norm_stats = EXAMPLE_STATS
    default_norm_stats = "train"
    revision = 2  # normalisations are folded into convolutions: other roundings
    n_blocks: int

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate, n_fft=1024, hop=HOP, n_mels=N_MELS, f_min=60.0, f_max=7800.0, center="reflect"
        )
        modules: list[nn.Module] = []
        for block in range(self.n_blocks):
            modules += [
                nn.Conv2d(CHANNELS if block else 1, CHANNELS, 3, padding=1),
                nn.BatchNorm2d(CHANNELS),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*modules)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """The published names are the module's own; training code may have put "model." or "body." before them."""
        state = state_dict_of(checkpoint)
        for prefix in ("model.", "body."):
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
        return state

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """1 + samples // 160."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples) -> (batch, time, 64) log-mel, natural logarithm, before normalisation."""
        return (self.mel(waveform, lengths) + LOG_OFFSET).log()

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """One frame in 2 for each block of the front-end's."""
        return self.mel.frames(lengths) // 2**self.n_blocks

    def _maps(self, waveform: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each block's map (batch, channel, mel, time), zero beyond each clip's end, and its valid frames (batch,)."""
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        frames = self.mel.frames(lengths)
        maps = ((self.network_input(waveform, lengths) - mean) / std).transpose(1, 2)[:, None]  # (batch, 1, mel, time)
        maps = _silence_padding(maps, frames)
        found = []
        for block in range(self.n_blocks):
            convolution, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], self.features[4 * block : 4 * block + 2])
            frames = frames // 2
            # A pooled frame whose second half lies beyond the clip's end is beyond it itself. So zeros are needed
            # after pooling only: within the block no convolution follows.
            maps = halve_by_maximum(
                convolve_and_normalise(convolution, norm, maps)
            )  # a maximum may come before the ReLU
            maps = _silence_padding(rectify(maps), frames)
            found.append((maps, frames))
        return found


class ByolA(_ByolA):
    """BYOL-A of 2021 with every layer; see the module's docstring.

    Args:
        width: of the fully connected layers, d = 512, 1024 or 2048; each has its own checkpoint.

    Raises:
        ValueError: if the width is another.

    Example:
        >>> ByolA(512).encode(torch.zeros(1, 16000))["conv1"].shape
        torch.Size([1, 12, 2048])
    """

    default_layers = ("fc2",)
    n_blocks = 3

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        if width not in (512, 1024, 2048):
            raise ValueError(f"byol_a has checkpoints of width 512, 1024 and 2048, got {width}")
        self.width = width
        n_flat = CHANNELS * N_MELS // 8
        self.fc = nn.Sequential(
            nn.Linear(n_flat, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.ReLU()
        )
        note = "channel x mel, averaged over time in pairs"
        widths = {"conv1": 2048, "conv2": 1024, "conv3": 512, "fc1": width, "fc2": width}
        self.layer_infos = tuple(
            LayerInfo(name, n, 8 * HOP, "mean_plus_max", note if name in ("conv1", "conv2") else "")
            for name, n in widths.items()
        )

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build; if the checkpoint has another width, name the encoder that fits."""
        if weights is not None:
            first = state_dict_of(read_checkpoint(weights)).get("fc.0.weight")
            width = config.options.get("width", 512)
            if first is not None and first.dim() == 2 and first.shape[0] in (512, 1024, 2048) and len(first) != width:
                raise ValueError(
                    f"{Path(weights).name} is of width {len(first)}, but {config.name} has {width}; "
                    f"use {'byol_a2' if first.shape[1] == 1024 else f'byol_a.d{len(first)}'}"
                )
        return super().from_config(config, weights=weights)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer at T // 8 frames, where T counts log-mel frames.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        maps = self._maps(waveform, lengths)
        layers = {}
        for number, (map_, frames) in enumerate(maps, start=1):
            values = _join_bands(map_)
            for _ in range(3 - number):
                values, frames = average_pairs(values, frames)
            layers[f"conv{number}"] = values
        flat = maps[-1][0].permute(0, 3, 2, 1).flatten(2)  # (batch, time, mel x channel)
        layers["fc1"] = self.fc[:2](flat)
        layers["fc2"] = self.fc[2:](layers["fc1"])
        return layers


class ByolA2(_ByolA):
    """BYOL-A of 2022 with every layer; see the module's docstring of `evar.encoders.byol_a`.

    Example:
        >>> ByolA2().encode(torch.zeros(1, 16000))["out"].shape
        torch.Size([1, 25, 3072])
    """

    default_layers = ("out",)
    n_blocks = 2

    def __init__(self) -> None:
        super().__init__()
        n_flat = CHANNELS * N_MELS // 4
        self.fc = nn.Sequential(nn.Linear(n_flat, 2048), nn.ReLU(), nn.Dropout(0.3), nn.Linear(2048, 2048), nn.ReLU())
        widths = {"conv1": 2048, "conv2": n_flat, "fc1": 2048, "fc2": 2048, "out": n_flat + 2048}
        notes = {"conv1": "channel x mel, averaged over time in pairs", "out": "conv2 (mel x channel) and fc2"}
        self.layer_infos = tuple(
            LayerInfo(name, n, 4 * HOP, "mean_plus_max", notes.get(name, "")) for name, n in widths.items()
        )

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer at T // 4 frames, where T counts log-mel frames.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        (first, frames), (second, _) = self._maps(waveform, lengths)
        flat = second.permute(0, 3, 2, 1).flatten(2)  # (batch, time, mel x channel)
        fc1 = self.fc[:2](flat)
        fc2 = self.fc[2:](fc1)
        return {
            "conv1": average_pairs(_join_bands(first), frames)[0],
            "conv2": _join_bands(second),
            "fc1": fc1,
            "fc2": fc2,
            "out": torch.cat([flat, fc2], dim=2),
        }


def average_pairs(values: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Halve the frame rate: adjacent frames are averaged; an odd clip's last two become one frame first.

    Args:
        values: (batch, time, feature), zero beyond each clip's frames.
        frames: (batch,) valid frames, each >= 2.

    Returns:
        (batch, time // 2, feature) and (batch,) frames // 2.

    Source: BYOL-A's layered features (nttcslab/byol-a, `AudioNTT2020Task6X`), as facts.

    Example:
        >>> average_pairs(torch.tensor([[[0.0], [4.0], [8.0], [1.0], [3.0]]]), torch.tensor([5]))[0].ravel().tolist()
        [2.0, 5.0]
    """
    half = values.shape[1] // 2
    pairs = (values[:, 0 : 2 * half : 2] + values[:, 1 : 2 * half : 2]) / 2  # (batch, time // 2, feature)
    odd = frames % 2 == 1
    if torch.jit.is_tracing():  # for `evar export`: clips are of one length, odd or even
        a, b, c = (values[:, frames[0] - back] for back in (3, 2, 1))
        last = torch.where(odd[0], a / 2 + (b + c) / 4, pairs[:, -1])
        return torch.cat([pairs[:, :-1], last[:, None]], dim=1), frames // 2
    if bool(odd.any()):
        # Of an odd clip's last three frames a, b, c the last two are averaged, then the pair: a / 2 + b / 4 + c / 4.
        rows = torch.arange(len(values), device=values.device)[odd]
        ends = frames[odd]
        a, b, c = (values[rows, ends - back] for back in (3, 2, 1))
        pairs = pairs.index_put((rows, ends // 2 - 1), a / 2 + (b + c) / 4)
    return pairs, frames // 2


def _join_bands(maps: Tensor) -> Tensor:
    """(batch, channel, mel, time) -> (batch, time, channel x mel)."""
    return maps.permute(0, 3, 1, 2).flatten(2)


def _silence_padding(maps: Tensor, frames: Tensor) -> Tensor:
    """(batch, channel, mel, time) with zeros beyond each clip's frames."""
    beyond = torch.arange(maps.shape[3], device=maps.device)[None, :] >= frames[:, None]
    return maps.masked_fill(beyond[:, None, None, :], 0.0) if bool(beyond.any()) else maps
