"""COALA: a convolutional network on chunks of log-mel, trained to agree with the tags that people gave to a sound.

Paper: Favory et al., "COALA: Co-Aligned Autoencoders for Learning Semantically Enriched Audio Representations", ICML
workshop 2020 (arXiv 2006.08386). Checkpoints: `saved_models/dual_ae_c/audio_encoder_epoch_200.pt` (trained together
with decoders) and `saved_models/dual_e_c/...` (encoders only) of xavierfav/coala (MIT); both are the same network.
Trained on clips of Freesound with 1000 tags.

Input: 22,000 Hz (not 22,050). Magnitude spectra of 1024 samples every 512 (periodic Hann, centred, clip mirrored at
both ends), 96 Slaney mel bands of area 1 from 0 to 11,000 Hz, ln(x + 1.1920929e-07); chunks of 96 frames (49,152
samples). In every chunk the 96 positions in time have a scale and an offset each, as fitted by the authors, whose
numbers are part of this package (from `scaler_top_1000.pkl` of the repository, MIT).

Network: five convolutions 4 x 4 with stride 2, batch normalisation and ReLU, 128 channels each.

`input="clip"` (default): silence fills up the last chunk, and every sample counts. `input="whole"`: the last, partial
chunk is dropped; at least 48,640 samples. `input="padded"` follows the original: clips of up to 10 s are filled up with
silence to 10 s, of which 4 whole chunks are used, and noise of at most 5e-4 is added to every sample (the original's
noise differs at every call; here it has a fixed seed); longer clips are cut as with "whole".

Layers: conv1..conv5, channel x band side by side, 48, 24, 12, 6 and 3 frames a chunk; emb (1152), the last convolution
of a chunk as one vector, which is the default, and fc (1152), the linear layer that faced the tags: one frame a chunk.
All pool by mean, as the authors do.

Differs from the original: the noise, and the mirrored ends, which were librosa's default until its version 0.10.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._by_length import flatten_channels
from evar.encoders._coala_scaler import OFFSET, SCALE
from evar.encoders._logmel import MelSpectrogram
from evar.encoders._packing import as_count, count_missing, in_chunks, pack, unpack
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

RATE, N_FFT, HOP, N_MELS, CHUNK, LOG_OFFSET = 22000, 1024, 512, 96, 96, 1.1920929e-07
PADDED, NOISE = 10 * RATE, 5e-4
CHUNK_SAMPLES = CHUNK * HOP
INPUTS = ("clip", "whole", "padded")
TOGETHER = 64  # chunks that share a forward


class Coala(Encoder):
    """COALA with every convolution; see the module's docstring.

    Args:
        input: "clip", "whole" or "padded".
        noise: whether the noise of `input="padded"` is added.
        channels: of the convolutions, for tests; the checkpoints have 128.

    Raises:
        ValueError: if there is no such input.

    Example:
        >>> Coala(channels=4).encode(torch.zeros(1, 22000))["emb"].shape
        torch.Size([1, 1, 36])
    """

    sample_rate = RATE
    default_layers = ("emb",)
    scale: Tensor
    offset: Tensor

    def __init__(self, input: str = "clip", noise: bool = True, channels: int = 128) -> None:
        super().__init__()
        if input not in INPUTS:
            raise ValueError(f"no input {input!r} for coala; {near_miss(input, INPUTS)}")
        self.input, self.noise = input, noise
        self.min_samples = (CHUNK - 1) * HOP if input == "whole" else N_FFT // 2 + 1
        self.mel = MelSpectrogram(
            sample_rate=RATE, n_fft=N_FFT, hop=HOP, n_mels=N_MELS, power=1, center="reflect", double=True
        )
        self.register_buffer("scale", torch.tensor(SCALE, dtype=torch.float64).float(), persistent=False)
        self.register_buffer("offset", torch.tensor(OFFSET, dtype=torch.float64).float(), persistent=False)
        modules: list[nn.Module] = []
        for block in range(5):
            conv = nn.Conv2d(channels if block else 1, channels, 4, stride=2, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # an untrained network must not fade out
            modules += [conv, nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.25)]
        self.audio_encoder = nn.Sequential(*modules)
        width = channels * 9
        self.fc_audio = nn.Sequential(nn.Linear(width, width, bias=False))
        self.layer_infos = (
            *(describe_conv(number, channels) for number in range(1, 6)),
            LayerInfo("emb", width, CHUNK_SAMPLES, "mean", "conv5 of a chunk: channel x band x time"),
            LayerInfo("fc", width, CHUNK_SAMPLES, "mean", "linear layer that faced the tags"),
        )

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Return the published tensors as they are: their names are this module's own."""
        return state_dict_of(checkpoint)

    def count_chunks(self, lengths: Tensor) -> Tensor:
        """Count the chunks of clips.

        Args:
            lengths: (batch,) samples.

        Returns:
            (batch,) chunks.

        Example:
            >>> [Coala(way, channels=1).count_chunks(torch.tensor([49152, 98305])).tolist() for way in ("clip", "whole")]
            [[1, 3], [1, 2]]
        """
        if self.input == "clip":
            return (lengths + CHUNK_SAMPLES - 1) // CHUNK_SAMPLES
        return self.mel.frames(self._pad_lengths(lengths)) // CHUNK

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count 96, 48, ... frames for each chunk, and one for each chunk in the last layers.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        chunks = self.count_chunks(lengths)
        return {info.name: chunks * (CHUNK_SAMPLES // info.hop) for info in self.layer_infos}

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames of a clip with its padding: 1 + samples // 512: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(self._pad_lengths(lengths))

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 96) log-mel, natural logarithm, of a clip with its padding."""
        padded = self._pad_lengths(lengths)
        waveform = nn.functional.pad(waveform, (0, count_missing(waveform.shape[1], as_count(padded.max()))))
        if self.input == "padded" and self.noise:
            draw = np.random.RandomState(0).rand(PADDED)  # a frozen stream
            noise = (NOISE * torch.from_numpy(draw)).to(waveform)
            short = (lengths <= PADDED)[:, None]
            waveform = waveform + nn.functional.pad(noise, (0, waveform.shape[1] - PADDED))[None] * short
        return (self.mel(waveform, padded) + LOG_OFFSET).log()

    def scale_chunks(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return what the network sees.

        Args:
            waveform, lengths: as for `forward`.

        Returns:
            (chunk, time, mel): the chunks of all clips, one after the other, each 96 x 96.

        Example:
            >>> Coala(channels=1).scale_chunks(torch.zeros(1, 60000), torch.tensor([60000])).shape
            torch.Size([2, 96, 96])
        """
        counts = self.count_chunks(lengths)
        mel = self.network_input(waveform, lengths)[:, : as_count(counts.max()) * CHUNK]
        return pack(mel.unflatten(1, (-1, CHUNK)), counts) * self.scale[:, None] + self.offset[:, None]

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every convolution of every chunk, and the two vectors of a chunk.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        counts = self.count_chunks(lengths)
        layers = in_chunks(self._run_network, self.scale_chunks(waveform, lengths), TOGETHER)
        return {
            info.name: unpack(layers[info.name], counts).reshape(counts.shape[0], -1, info.width)
            for info in self.layer_infos
        }

    def _run_network(self, chunks: Tensor) -> dict[str, Tensor]:
        """(chunk, time, mel) -> layer -> (chunk, frames x feature)."""
        maps, layers = chunks.transpose(1, 2)[:, None], {}  # (chunk, 1, mel, time)
        for number in range(5):
            maps = self.audio_encoder[4 * number : 4 * number + 4](maps)
            layers[f"conv{number + 1}"] = flatten_channels(maps).flatten(1)
        layers["emb"] = maps.flatten(1)
        layers["fc"] = self.fc_audio(layers["emb"])
        return layers

    def _pad_lengths(self, lengths: Tensor) -> Tensor:
        """Samples of each clip together with the silence after it: (batch,) -> (batch,)."""
        if self.input == "clip":
            return CHUNK_SAMPLES * self.count_chunks(lengths)
        return lengths.clamp(min=PADDED) if self.input == "padded" else lengths


def describe_conv(number: int, channels: int) -> LayerInfo:
    """Describe what the layer of a convolution is.

    Example:
        >>> describe_conv(1, 128).width
        6144
    """
    n_bands = N_MELS >> number
    return LayerInfo(
        f"conv{number}", channels * n_bands, HOP << number, "mean", f"{channels} channels x {n_bands} bands"
    )
