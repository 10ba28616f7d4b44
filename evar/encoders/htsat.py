"""HTS-AT: a Swin transformer on a folded log-mel, trained to tag AudioSet.

Paper: Chen et al., "HTS-AT: A hierarchical token-semantic audio transformer for sound classification and detection",
ICASSP 2022. Checkpoints: `HTSAT_AudioSet_Saved_1.ckpt` to `_6.ckpt`, in a folder that the README of
RetroCirce/HTS-Audio-Transformer links; the code is under the MIT licence, the licence of the weights is not stated.
Trained on AudioSet-2M with labels, from a Swin transformer for images.

Input: 32 kHz. Log-mel of 1024 samples every 320 (periodic Hann, centred, clip mirrored at both ends), power, 64 Slaney mel
bands of area 1 from 50 to 14000 Hz, 10 log10(max(x, 1e-10)) dB; a batch normalisation over the bands comes first. At least
513 samples; shorter clips are filled with zeros. The log-mel is stretched to 1024 frames by bicubic interpolation and
folded into an image of 256 x 256: 4 segments of 256 frames stand on top of each other.

`input="repeated"` (default) is the way of the original for embeddings, and of EVAR: a clip is repeated end to end as
often as it fits whole into 1024 frames. `input="padded"` is its way in training: zeros up to 10 s, no repetition. In
both, clips over 10 s are cut into pieces of 10 s, each of which goes through the network alone, and the vectors of the
pieces are averaged with equal weight. What is left over after the last whole piece is repeated or filled like a short
clip; fewer than 513 samples are left out.

Network: patches of 4 x 4, four stages of 2, 2, 6 and 2 Swin blocks (windows of 8 x 8 tokens, every second block shifted by
4 but for the last stage), 96, 192, 384 and 768 wide, merging of 2 x 2 tokens between the stages, a final LayerNorm.

Layers patch, block1..block12, merge1..merge3 and norm, which is the default (768): the mean over all tokens. Because a
clip is repeated and stretched, tokens belong to no fixed time; every layer is one vector a clip (hop 0). `read_time_steps`
gives the 32 steps of one piece. `outputs` gives the probabilities of the 527 AudioSet tags, `tag_frames` those of each
step.

Differs from the original: its program for single files reads them at 16 kHz, though the network was trained at 32 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._logmel import MelSpectrogram
from evar.encoders._packing import in_chunks
from evar.encoders._swin import N_MELS, AudioSwin, unfold
from evar.encoders._windows import average_pieces, cut_waveform
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

HOP, PIECE = 320, 320_000
POWER_FLOOR = 1e-10
INPUTS = ("repeated", "padded")
DEPTHS, N_HEADS, WIDTH = (2, 2, 6, 2), (4, 8, 16, 32), 96
# Pieces of 10 s that go through the network at once, with some 40 MB of activations each.
_CHUNK = 8

Tokens = Iterator[tuple[str, Tensor]]


class Htsat(Encoder):
    """HTS-AT with every block; see the module's docstring.

    Args:
        input: "repeated" (short clips are repeated, as for the original's embeddings) or "padded" (zeros up to 10 s).
        n_blocks: blocks, for tests: 2, 4, 10 or 12, which are whole stages.

    Raises:
        ValueError: if an option is none of these.

    Example:
        >>> encoder = Htsat(n_blocks=2)
        >>> encoder.encode(torch.zeros(1, 32000))["norm"].shape
        torch.Size([1, 1, 96])
    """

    sample_rate = 32000
    min_samples = 513
    default_layers = ("norm",)
    # Formulas (window, mel filters, tables of places), and a layer that is never used.
    ignored_tensors = (
        "spectrogram_extractor.",
        "logmel_extractor.",
        "*.relative_position_index",
        "*.attn_mask",
        "head.",
    )

    def __init__(self, input: str = "repeated", n_blocks: int = 12) -> None:
        super().__init__()
        stages = dict(zip(accumulate(DEPTHS), range(1, 5), strict=True))  # blocks -> stages
        if input not in INPUTS:
            raise ValueError(f"no input {input!r} for htsat; {near_miss(input, INPUTS)}")
        if n_blocks not in stages:
            raise ValueError(f"htsat needs n_blocks {', '.join(map(str, stages))}, got {n_blocks}")
        self.input = input
        self.mel = MelSpectrogram(
            sample_rate=32000,
            n_fft=1024,
            hop=HOP,
            n_mels=N_MELS,
            f_min=50.0,
            f_max=14000.0,
            center="reflect",
            double=True,
        )
        self.network = AudioSwin(WIDTH, DEPTHS[: stages[n_blocks]], N_HEADS[: stages[n_blocks]])
        self.layer_infos = tuple(
            LayerInfo(
                name, width, 0, "mean", "final LayerNorm, mean over tokens" if name == "norm" else "mean over tokens"
            )
            for name, width in self.network.layer_widths().items()
        )

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the published file to this module's own names.

        Args:
            checkpoint: what the file holds, wrappers included.

        Returns:
            tensor name of this module -> tensor.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> list(describe_encoder("htsat").convert({"state_dict": {"sed_model.bn0.weight": torch.ones(64)}}))
            ['network.bn0.weight']
        """
        own = {name.removeprefix("sed_model."): value for name, value in state_dict_of(checkpoint).items()}
        parts = {name.partition(".")[0] for name in self.network.state_dict()}
        return {f"network.{name}" if name.partition(".")[0] in parts else name: value for name, value in own.items()}

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames of clips: 1 + samples // 320 of each piece of 10 s.

        Args:
            lengths: (batch,) valid samples of each clip, at 32 kHz.

        Returns:
            (batch,) frames.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("htsat").network_input_frames(torch.tensor([32000, 352000])).tolist()
            [101, 1102]
        """
        full, rest = lengths // PIECE, lengths % PIECE
        return full * self.mel.frames(PIECE) + torch.where(rest >= self._least, self.mel.frames(rest), 0)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel in decibels, before the batch normalisation; the pieces of a clip stand in a row.

        Args:
            waveform: (batch, samples) in [-1, 1] at 32 kHz.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch, time, 64) decibels, zeros beyond a clip's own frames.

        Example:
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("htsat", "random", n_blocks=2)
            >>> encoder.network_input(torch.zeros(1, 32000), torch.tensor([32000])).shape
            torch.Size([1, 101, 64])
        """
        decibels, frames, counts = self._compute_decibels(waveform, lengths)
        own = [rows[:n] for rows, n in zip(decibels, frames.tolist(), strict=True)]
        ends = list(accumulate(counts.tolist()))
        clips = [torch.cat(own[end - count : end]) for end, count in zip(ends, counts.tolist(), strict=True)]
        return nn.utils.rnn.pad_sequence(clips, batch_first=True)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame a clip, in every layer: (batch,) samples -> (batch,) frames."""
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer's mean over all tokens; time is 1.

        (batch, samples) -> layer name -> (batch, time, width).
        """

        def read(layers: Tokens) -> dict[str, Tensor]:
            return {name: tokens.mean(dim=(1, 2))[:, None] for name, tokens in layers}

        return self._average_over_pieces(read, waveform, lengths)

    def read_time_steps(self, waveform: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Give the last block and the final LayerNorm at each time step, averaged over the 2 bands.

        A step is a 32nd of the repeated and stretched piece of 10 s. Those of longer clips are averages over the pieces.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            The last block's name and "norm" -> (batch, 32 steps, width).

        Example:
            >>> from evar.encoders import load_encoder
            >>> {name: tuple(steps.shape) for name, steps in load_encoder("htsat", "random").read_time_steps(
            ...     torch.zeros(1, 32000)).items()}
            {'block12': (1, 32, 768), 'norm': (1, 32, 768)}
        """

        def read(layers: Tokens) -> dict[str, Tensor]:
            last = [self.layer_infos[-2].name, "norm"]
            return {name: unfold(tokens).mean(dim=2) for name, tokens in layers if name in last}

        return self._average_over_pieces(read, *self._check_input(waveform, lengths))

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) probabilities of the AudioSet tags: those of each piece of 10 s, averaged."""
        return self._compute_tags(waveform, lengths)["clip"]

    def tag_frames(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the probabilities of the AudioSet tags at each of the 32 time steps.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, 32 steps, 527) probabilities; steps as in `read_time_steps`.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("htsat", "random").tag_frames(torch.zeros(1, 32000)).shape
            torch.Size([1, 32, 527])
        """
        return self._compute_tags(*self._check_input(waveform, lengths))["steps"]

    def compute_logits(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the logits of the AudioSet tags: the mean over the time steps of all pieces.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, 527) logits.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("htsat", "random").compute_logits(torch.zeros(1, 32000)).shape
            torch.Size([1, 527])
        """
        return self._compute_tags(*self._check_input(waveform, lengths))["logits"]

    def _compute_tags(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        def read(layers: Tokens) -> dict[str, Tensor]:
            steps = self.network.tag_steps(dict(layers)["norm"])
            logits = steps.mean(dim=1)
            return {"steps": steps.sigmoid(), "logits": logits, "clip": logits.sigmoid()}

        return self._average_over_pieces(read, waveform, lengths)

    def _average_over_pieces(
        self, read: Callable[[Tokens], dict[str, Tensor]], waveform: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        """Run the network on all pieces and average what `read` makes of each: name -> (batch, ...)."""
        decibels, frames, counts = self._compute_decibels(waveform, lengths)
        images = decibels.new_empty(0)
        for n_frames in frames.unique().tolist():  # pieces of one length are stretched together
            rows = (frames == n_frames).nonzero()[:, 0]
            made = self.network.to_image(decibels[rows, :n_frames], repeat=self.input == "repeated")
            if not len(images):
                images = made.new_zeros(len(frames), *made.shape[1:])
            images = images.index_put((rows,), made)
        pieces = in_chunks(lambda part: read(self.network(part)), images, _CHUNK)
        return {name: average_pieces(value, counts) for name, value in pieces.items()}

    def _compute_decibels(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(piece, time, 64) log-mel, (piece,) frames of each piece, (batch,) pieces of each clip."""
        pieces, sizes, counts = cut_waveform(waveform, lengths, PIECE, self._least)
        if self.input == "padded":
            pieces = nn.functional.pad(pieces, (0, PIECE - pieces.shape[1]))
            sizes = torch.full_like(sizes, PIECE)
        power = self.mel(pieces, sizes)
        return 10.0 * power.clamp(min=POWER_FLOOR).log10(), self.mel.frames(sizes), counts

    @property
    def _least(self) -> int:
        """Samples that the last piece of a clip must have; a shorter one is left out."""
        return 1 if self.input == "padded" else self.min_samples
