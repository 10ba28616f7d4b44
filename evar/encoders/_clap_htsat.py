"""The audio half of those CLAP models that have HTS-AT: pieces, log-mel, network and projection."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._clap_audio import run_pieces
from evar.encoders._logmel import MelSpectrogram, mel_filterbank
from evar.encoders._packing import count_missing
from evar.encoders._swin import N_MELS, AudioSwin, unfold
from evar.encoders._text import ReadsText
from evar.encoders.features import LayerInfo

POWER_FLOOR, F_MIN, F_MAX, N_FFT = 1e-10, 50.0, 14000.0, 1024
INPUTS = ("repeated", "clip")
#: size of HTS-AT -> width, blocks of each stage
SIZES = {"tiny": (96, (2, 2, 6, 2)), "base": (128, (2, 2, 12, 2))}
HEADS = (4, 8, 16, 32)
PIECES_AT_ONCE = 4  # with some 60 MB of activations each


class HtsatClap(ReadsText):
    """A CLAP whose audio half is HTS-AT.

    Args:
        size: of HTS-AT, "tiny" or "base".
        input: "repeated" (short clips fill a piece by repetition) or "clip" (a clip has its own length).
        n_blocks: blocks of HTS-AT, for tests: those of whole stages; untrained text halves then have one block.

    Raises:
        ValueError: if an option is none of these.
    """

    text_layer = "proj"
    default_layers = ("proj",)
    piece: ClassVar[int]
    hop: ClassVar[int]
    filters_rate: ClassVar[int]
    fill: ClassVar[str]
    projected_width: ClassVar[int]
    projection_note: ClassVar[str]
    audio_projection: nn.Module

    def __init__(self, size: str = "tiny", input: str = "repeated", n_blocks: int = 0) -> None:
        super().__init__()
        for option, value, known in (("size", size, SIZES), ("input", input, INPUTS)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for clap; {near_miss(value, known)}")
        width, depths = SIZES[size]
        stages = dict(zip(accumulate(depths), range(1, 5), strict=True))  # blocks -> stages
        if n_blocks and n_blocks not in stages:
            raise ValueError(f"clap needs n_blocks {', '.join(map(str, stages))}, got {n_blocks}")
        n_stages = stages[n_blocks] if n_blocks else 4
        self.input, self.is_small = input, bool(n_blocks)
        self.min_samples = 1 if input == "repeated" else N_FFT // 2 + 1
        self.mel = MelSpectrogram(
            sample_rate=self.filters_rate,
            n_fft=N_FFT,
            hop=self.hop,
            n_mels=N_MELS,
            f_min=F_MIN,
            f_max=F_MAX,
            center="reflect",
            double=True,
        )
        self.network = AudioSwin(width, depths[:n_stages], HEADS[:n_stages])
        self.audio_projection = self.build_projection(self.network.width)
        self.has_tags = True
        note = "mean over tokens"
        self.layer_infos = (
            *(LayerInfo(name, width, 0, "mean", note) for name, width in self.network.layer_widths().items()),
            LayerInfo("proj", self.projected_width, 0, "mean", self.projection_note),
        )

    def build_projection(self, n_in: int) -> nn.Module:
        """Make the projection into the space that sound and text share."""
        raise NotImplementedError

    def project(self, vectors: Tensor) -> Tensor:
        """Map (batch, width) of the layer norm to (batch, width) of the layer proj."""
        return self.audio_projection(vectors)

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take every parameter, and remember where the text half is."""
        super().load_checkpoint(path, name)
        self.checkpoint = path

    def check_filters(self, given: Tensor) -> None:
        """Refuse a checkpoint whose own mel filters (bin, band) are others than this encoder's."""
        own = torch.from_numpy(mel_filterbank(self.filters_rate, N_FFT, N_MELS, F_MIN, F_MAX).T.copy())
        if given.shape != own.shape or not torch.allclose(given.double(), own, atol=1e-5):
            raise ValueError(
                f"the checkpoint's mel filters {tuple(given.shape)} are others than those for {self.filters_rate} Hz, "
                f"{F_MIN:g} to {F_MAX:g} Hz; was it trained with another front-end?"
            )

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + samples // hop: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel in decibels of clips as they are, before repetition: (batch, samples) -> (batch, time, 64)."""
        waveform = nn.functional.pad(waveform, (0, count_missing(waveform.shape[1], self.mel.min_samples)))
        return decibels(self.mel(waveform, lengths.clamp(min=self.mel.min_samples)))

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame a clip, in every layer: (batch,) samples -> (batch,) frames."""
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer's mean over all tokens, and the projection; time is 1.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        return self._run(self._read_layers, waveform, lengths)

    def time_steps(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give the final LayerNorm at each of the 32 time steps of a piece, averaged over the 2 bands.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, 32 steps, width); those of a repeated clip are steps of all its copies.
        """

        def read(pieces: Tensor) -> dict[str, Tensor]:
            return {"steps": unfold(dict(self.network(self._images(pieces)))["norm"]).mean(dim=2).flatten(1)}

        steps = self._run(read, *self._check_input(waveform, lengths))["steps"]
        return steps[:, 0].unflatten(1, (-1, self.network.width))

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) probabilities of the AudioSet tags, by the head that HTS-AT brought along.

        Raises:
            ValueError: if the checkpoint came without it (hub folders).
        """
        if not self.has_tags:
            raise ValueError(f"the checkpoint of {self.name or 'clap'} has no head for tags (tscam_conv)")

        def read(pieces: Tensor) -> dict[str, Tensor]:
            return {
                "tags": self.network.tag_steps(dict(self.network(self._images(pieces)))["norm"]).mean(dim=1).sigmoid()
            }

        return self._run(read, waveform, lengths)["tags"][:, 0]

    def _run(self, read: Any, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        fill = self.fill if self.input == "repeated" else ""
        return run_pieces(
            read, waveform, lengths, piece=self.piece, fill=fill, at_once=PIECES_AT_ONCE, least=self.min_samples
        )

    def _images(self, pieces: Tensor) -> Tensor:
        return self.network.to_image(decibels(self.mel(pieces)), repeat=False)

    def _read_layers(self, pieces: Tensor) -> dict[str, Tensor]:
        """(piece, samples) -> layer -> (piece, width)."""
        layers = {name: tokens.mean(dim=(1, 2)) for name, tokens in self.network(self._images(pieces))}
        layers["proj"] = self.project(layers["norm"])
        return layers


def decibels(power: Tensor) -> Tensor:
    """Convert the power of mel bands to decibels.

    Args:
        power: (..., mel), 0 or more.

    Returns:
        (..., mel) in dB, at least -100.

    Example:
        >>> decibels(torch.tensor([1.0, 0.0])).tolist()
        [0.0, -100.0]
    """
    return 10.0 * power.clamp(min=POWER_FLOOR).log10()
