"""DeLoRes: a small convolutional network on log-mel, trained so that the features of two views agree and repeat
nothing.

Paper: Ghosh et al., "DeLoRes: Decorrelating Latent Spaces for Low-Resource Audio Representation Learning", 2022 (arXiv
2203.13628). **No weights were ever published**: neither Speech-Lab-IITM/DeLoRes nor its successor Sreyan88/LAPE has a
file or a licence. A checkpoint of your own training loads with `--weights=PATH`. Trained without labels, on a part of
AudioSet as the paper says.

Input: 16 kHz. The waveform of a clip divided by its L2 norm; power spectra of 1024 samples every 160 (periodic Hann,
centred, clip mirrored at both ends), plus 2.2e-16; 64 Slaney mel bands of area 1 from 60 to 7800 Hz, ln(x +
1.1920929e-07). At least 1,120 samples; clips of any length go through the network as a whole.

Networks: `efficientnet`, EfficientNet-B0 as in `decar`, on images (mel, time), of the first repository
(`layout="time_mel"`: on images (time, mel)). `audio_ntt`, BYOL-A's convolutions and linear layers, of the second one
(DeLoRes-S and -M).

Layers of `efficientnet` (`delores`): stem, stage1..stage7, top and emb (1280, the default), as in `decar`, pooled by
mean. Layers of `audio_ntt` (`delores.ntt`): conv1, conv2, conv3, fc1 and fc2 (2048, the default), pooled by mean. The
tensors of the second have the names of the repository's code (`features_1`, `features_2`, `features_3`, `fc`); no file
was at hand.

Differs from the original: pre-training cut windows of 0.95 or 0.98 s; here a clip is one image.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._b0_encoder import HOP, N_MELS, TOP, B0Encoder
from evar.encoders._by_length import flatten_channels, run_by_length
from evar.encoders._logmel import MelSpectrogram
from evar.encoders.base import Encoder
from evar.encoders.byol_s import AudioNtt
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

LOG_OFFSET, POWER_OFFSET, NORM_FLOOR = 1.1920929e-07, 2.2e-16, 1e-12
LAYOUTS = ("mel_time", "time_mel")


class DeloresMel(nn.Module):
    """The front-end of DeLoRes: (batch, samples) -> (batch, time, 64) log-mel of clips of L2 norm 1.

    Example:
        >>> import torch
        >>> DeloresMel()(torch.zeros(1, 16000), torch.tensor([16000])).shape
        torch.Size([1, 101, 64])
    """

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            sample_rate=16000,
            n_fft=1024,
            hop=HOP,
            n_mels=N_MELS,
            f_min=60.0,
            f_max=7800.0,
            center="reflect",
            double=True,
        )
        # What is added to the power of every bin adds the same to every frame of a band.
        self.register_buffer("offset", POWER_OFFSET * self.mel.filterbank.sum(dim=0), persistent=False)

    def frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames: (batch,) samples -> (batch,) frames, 1 + samples // 160."""
        return self.mel.frames(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel of clips that are zero beyond their lengths: (batch, samples) -> (batch, time, 64)."""
        norm = waveform.square().sum(dim=1, keepdim=True).clamp(min=NORM_FLOOR**2).sqrt()
        return (self.mel(waveform / norm, lengths) + self.offset + LOG_OFFSET).log()


class Delores(B0Encoder):
    """DeLoRes on EfficientNet-B0; see the module's docstring.

    Args:
        layout: of the network's image, "mel_time" (height x width) as in the repository, or "time_mel".
        share: of the channels of the network, for tests; checkpoints have all (1.0).

    Raises:
        ValueError: if there is no such layout.

    Example:
        >>> import torch
        >>> Delores(share=0.25).eval().encode(torch.zeros(1, 16000))["emb"].shape
        torch.Size([1, 4, 320])
    """

    min_samples = 7 * HOP
    default_layers = ("emb",)
    ignored_tensors = ("classifier.", "top_layer.", "projector.", "*._fc.*", "_fc.")

    def __init__(self, layout: str = "mel_time", share: float = 1.0) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"no layout {layout!r} for delores; {near_miss(layout, LAYOUTS)}")
        info = LayerInfo("emb", int(TOP * share), 32 * HOP, "mean", "top, mean over the 2 bands")
        super().__init__("tensorflow", share, [info], mels_first=layout == "mel_time")
        self.mel: Any = DeloresMel()

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 64) log-mel, natural logarithm."""
        return self.mel(waveform, lengths)

    def compute_heads(self, top: Tensor) -> dict[str, Tensor]:
        """Average the last map over its bands: (clips, channel, band, time) -> (clips, time step, channel)."""
        return {"emb": top.mean(dim=2).transpose(1, 2)}


class DeloresNtt(Encoder):
    """DeLoRes-S and -M on BYOL-A's network; see the module's docstring.

    Args:
        channels: of the convolutions, for tests; checkpoints have 64.

    Example:
        >>> import torch
        >>> DeloresNtt(channels=4).eval().encode(torch.zeros(1, 16000))["fc2"].shape
        torch.Size([1, 12, 128])
    """

    sample_rate = 16000
    min_samples = 7 * HOP
    default_layers = ("fc2",)
    ignored_tensors = ("projector.", "predictor.")

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.mel = DeloresMel()
        self.network = AudioNtt(channels, 32 * channels)
        maps = [(f"conv{number}", channels * (N_MELS >> number), HOP << number) for number in (1, 2, 3)]
        vectors = [(name, 32 * channels, 8 * HOP) for name in ("fc1", "fc2")]
        self.layer_infos = tuple(
            LayerInfo(name, width, hop, "mean", f"{channels} channels x {width // channels} bands" * (name[0] == "c"))
            for name, width, hop in (*maps, *vectors)
        )

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename features_1.0.weight, ... to the network's own names, whatever stands before them."""
        state = {}
        for name, value in state_dict_of(checkpoint).items():
            block = re.search(r"(?:^|\.)features_([123])\.(\d)\.(\w+)$", name)
            linear = re.search(r"(?:^|\.)(fc\.\d\.\w+)$", name)
            if block:
                name = f"network.features.{4 * (int(block[1]) - 1) + int(block[2])}.{block[3]}"
            elif linear:
                name = f"network.{linear[1]}"
            state[name] = value
        return state

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + samples // 160: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 64) log-mel, natural logarithm."""
        return self.mel(waveform, lengths)

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the frames of each layer; its pooling drops what is left over.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        frames = self.mel.frames(lengths)
        return {info.name: frames // (info.hop // HOP) for info in self.layer_infos}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every convolution and both linear layers: (batch, samples) -> layer name -> (batch, time, width)."""
        return run_by_length(self._compute_layers, self.network_input(waveform, lengths), self.mel.frames(lengths))

    def _compute_layers(self, mel: Tensor) -> dict[str, Tensor]:
        outputs = self.network(mel.transpose(1, 2)[:, None])
        names = (info.name for info in self.layer_infos)
        return {
            name: flatten_channels(one) if one.dim() == 4 else one for name, one in zip(names, outputs, strict=True)
        }
