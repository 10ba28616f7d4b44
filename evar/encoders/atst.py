"""ATST-Clip and ATST-Frame: transformers on 40 ms slices of a log-mel spectrogram, taught by a copy of themselves.

Papers: Li and Li, "ATST: Audio Representation Learning with Teacher-Student Transformer", Interspeech 2022 (Clip); Li,
Shao, Li, "Self-supervised Audio Teacher-Student Transformer for Both Clip-level and Frame-level Tasks", IEEE/ACM TASLP
2024 (Frame). Checkpoints (weights CC BY 4.0; the code has no licence and was not read for this file): `base.ckpt` and
`atstframe_base.ckpt`, of which the teacher is taken. AudioSet-2M without labels.

Input: 16 kHz. Log-mel of 1024 samples every 160 (periodic Hann, centred, clip mirrored at both ends), power, 64 HTK mel
bands from 60 to 7800 Hz (triangles linear in Hz), decibels, at most 80 below the clip's loudest; then 2 (x + 79.6482) /
(50.6842 + 79.6482) - 1. At least 513 samples, for the mirroring.

Network: patches of all 64 bands x 4 frames, flattened band by band; learned positions. Clip has a cls token in front. 12
pre-norm blocks without biases for queries, keys and values, a final LayerNorm, which every block gets. The table of
positions is cut, never stretched, so that longer clips go in chunks of 601 (Clip: 6 s) or 1001 frames (Frame: 10 s),
which do not see each other.

Layers block1..block12, one frame in 640 samples. ATST-Clip: [cls of the frame's chunk | token], 1536 wide, pooled by
mean; the last is the default, as in the reference toolkit (the authors take all twelve). ATST-Frame: 768 wide, all twelve
are the default.

`input="padded"` gives one vector a clip (hop 0) by the official rules, which differ only for clips of several chunks.
Clip: clips over 12 s are cut to their centre; a later chunk counts only if it has more than 300 frames, every chunk that
counts weighs the same, and a chunk's mean is its tokens' sum over the number of tokens from there to the clip's end, too
small for all but the last. Frame: the mean of every chunk, then of the chunks, the short last one as much as the others.
`input="lineareval"` (Frame): the authors' own evaluation, which first cuts clips over 12 s to their centre and leaves out
later chunks of up to half the length.

Differs from the original: `input="clip"` takes every token of a clip alike, and never cuts.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._filterbanks import DecibelMel, scale_min_max
from evar.encoders._vit import Blocks, with_first
from evar.encoders._windows import count_steps, run_windows, window_lengths
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

HOP, N_MELS, TOP_DB, LIMITS = 160, 64, 80.0, (-79.6482, 50.6842)
PATCH, WIDTH, N_BLOCKS, N_HEADS, EPSILON, N_POSITIONS = 4, 768, 12, 12, 1e-6, 251
LONGEST = 12 * 16000  # samples that the authors' evaluation keeps of a clip


class _Atst(Encoder):
    """What both have in common."""

    sample_rate = 16000
    ignored_tensors: ClassVar[tuple[str, ...]] = ("mask_embed", "head.", "projector.", "predictor.")  # of training
    inputs: ClassVar[tuple[str, ...]] = ("clip", "padded")
    chunk: ClassVar[int]
    tokens_first: ClassVar[int]
    width: ClassVar[int] = WIDTH

    def __init__(self, input: str = "clip", n_blocks: int = N_BLOCKS) -> None:
        super().__init__()
        if input not in self.inputs:
            raise ValueError(f"no input {input!r} for {type(self).__name__}; {near_miss(input, self.inputs)}")
        self.input = input
        self.mel = DecibelMel(1024, 60.0, 7800.0, TOP_DB)
        self.min_samples = self.mel.min_samples
        self.patch_embed = nn.ModuleDict({"patch_embed": nn.Linear(N_MELS * PATCH, WIDTH)})
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, N_POSITIONS, WIDTH))
        self.blocks = Blocks(n_blocks, WIDTH, N_HEADS, eps=EPSILON, qkv_bias=False)
        self.layer_infos = tuple(
            LayerInfo(f"block{number}", self.width, PATCH * HOP if input == "clip" else 0, "mean", self.note)
            for number in range(1, n_blocks + 1)
        )

    note: ClassVar[str]

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """1 + samples // 160, of the centre where the input is cut."""
        return self.mel.frames(lengths.clamp(max=LONGEST) if self._is_cut else lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples) -> (batch, time, 64) decibels, before they are brought to -1..1."""
        if self._is_cut:
            waveform, lengths = central(waveform, lengths, LONGEST)
        return self.mel(waveform, lengths)

    @property
    def _is_cut(self) -> bool:
        return self.input == "lineareval"

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """One in 4 frames of every chunk, or one a clip."""
        if self.input != "clip":
            return torch.ones_like(lengths)
        return count_steps(self.mel.frames(lengths), self.chunk, lambda n: n // PATCH)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Every block after the final LayerNorm."""
        scaled = scale_min_max(self.network_input(waveform, lengths), *LIMITS)  # (batch, time, 64)
        frames = self.network_input_frames(lengths)
        layers = run_windows(
            self._network,
            scaled,
            frames,
            unit=self.chunk,
            size=lambda n: n // PATCH * PATCH,
            steps=lambda n: n // PATCH,
        )
        if self.input == "clip":
            return layers
        return {name: self._clip_vectors(tokens, frames)[:, None] for name, tokens in layers.items()}

    def _clip_vectors(self, tokens: Tensor, frames: Tensor) -> Tensor:
        """(batch, token, feature), chunk after chunk, and (batch,) frames -> (batch, feature), by the official rule."""
        vectors = []
        for row, n_frames in zip(tokens, frames.tolist(), strict=True):
            chunks, begin, first = [], 0, 0
            for number, length in enumerate(window_lengths(n_frames, self.chunk)):
                part = row[begin : begin + length // PATCH]  # (token, feature)
                if len(part) and (number == 0 or length > self.least_frames):
                    chunks.append(self._chunk_vector(part, n_frames - first))
                begin, first = begin + len(part), first + length
            vectors.append(torch.stack(chunks).mean(dim=0))
        return torch.stack(vectors)

    @property
    def least_frames(self) -> int:
        """A later chunk counts only if it has more frames than this."""
        raise NotImplementedError

    def _chunk_vector(self, tokens: Tensor, n_left: int) -> Tensor:
        """(token, feature) of a chunk, and the frames from its start to the clip's end -> (feature,)."""
        raise NotImplementedError

    def _patches(self, scaled: Tensor) -> Tensor:
        """(chunk, time, 64) -> (chunk, token, 768), before positions."""
        flat = scaled.unflatten(1, (-1, PATCH)).transpose(2, 3).flatten(2)  # (chunk, token, band x frame)
        return self.patch_embed["patch_embed"](flat)

    def _network(self, scaled: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


class AtstClip(_Atst):
    """ATST-Clip with every block; see the module's docstring.

    Args:
        input: "clip" or "padded".
        n_blocks: blocks, for tests.

    Raises:
        ValueError: if the input is another.

    Example:
        >>> AtstClip(n_blocks=1).encode(torch.zeros(1, 16000))["block1"].shape
        torch.Size([1, 25, 1536])
    """

    chunk = 601
    width = 2 * WIDTH
    note = "final LayerNorm, [cls | token]"
    default_layers = ("block12",)

    def __init__(self, input: str = "clip", n_blocks: int = N_BLOCKS) -> None:
        super().__init__(input, n_blocks)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.default_layers = (f"block{n_blocks}",)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Take the teacher out of the published file, or of a Lightning file, and rename its tensors to our names."""
        return _teacher(checkpoint)

    @property
    def _is_cut(self) -> bool:
        return self.input == "padded"

    @property
    def least_frames(self) -> int:
        """Half a chunk."""
        return self.chunk // 2

    def _chunk_vector(self, tokens: Tensor, n_left: int) -> Tensor:
        mean = tokens[:, WIDTH:].sum(dim=0) / (n_left // PATCH + 1e-6)
        return torch.cat([tokens[0, :WIDTH], mean])

    def _network(self, scaled: Tensor) -> dict[str, Tensor]:
        tokens = with_first(self.cls_token, self._patches(scaled))
        tokens = tokens + self.pos_embed[:, : tokens.shape[1]]
        layers = {}
        for number, output in enumerate(self.blocks(tokens), start=1):
            read = self.norm(output)
            layers[f"block{number}"] = torch.cat([read[:, :1].expand(-1, read.shape[1] - 1, -1), read[:, 1:]], dim=2)
        return layers


class AtstFrame(_Atst):
    """ATST-Frame with every block; see the module's docstring.

    Args:
        input: "clip", "padded" or "lineareval".
        n_blocks: blocks, for tests.

    Raises:
        ValueError: if the input is another.

    Example:
        >>> AtstFrame(n_blocks=1).encode(torch.zeros(1, 16000))["block1"].shape
        torch.Size([1, 25, 768])
    """

    chunk = 1001
    inputs: ClassVar[tuple[str, ...]] = ("clip", "padded", "lineareval")
    note = "final LayerNorm"
    default_layers = tuple(f"block{number}" for number in range(1, N_BLOCKS + 1))
    # a clip-level token that some files hold, unused here
    ignored_tensors = (*_Atst.ignored_tensors, "cls_token")

    def __init__(self, input: str = "clip", n_blocks: int = N_BLOCKS) -> None:
        super().__init__(input, n_blocks)
        self.norm_frame = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.default_layers = tuple(info.name for info in self.layer_infos)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Take the teacher out of a Lightning file, or the encoder out of a fine-tuned one, and rename its tensors."""
        state = _teacher(checkpoint)
        if "norm_frame.weight" not in state and "teacher" not in checkpoint:  # some files that go round call it so
            state = {re.sub(r"^norm\.", "norm_frame.", name): value for name, value in state.items()}
        return state

    @property
    def least_frames(self) -> int:
        """Nothing, or half a chunk."""
        return self.chunk // 2 if self.input == "lineareval" else 0

    def _chunk_vector(self, tokens: Tensor, n_left: int) -> Tensor:
        return tokens.sum(dim=0) / (len(tokens) + 1e-6)

    def _network(self, scaled: Tensor) -> dict[str, Tensor]:
        tokens = self._patches(scaled)
        tokens = tokens + self.pos_embed[:, 1 : 1 + tokens.shape[1]]
        return {f"block{number}": self.norm_frame(output) for number, output in enumerate(self.blocks(tokens), start=1)}


def central(waveform: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Cut the centre out of every clip that is too long.

    Args:
        waveform: (batch, samples).
        lengths: (batch,) valid samples.
        longest: samples to keep at most.

    Returns:
        (batch, samples), (batch,).

    Example:
        >>> clip, length = central(torch.arange(7.0)[None], torch.tensor([7]), 4)
        >>> clip.tolist(), length.tolist()
        ([[1.0, 2.0, 3.0, 4.0]], [4])
    """
    kept = lengths.clamp(max=longest)
    begins = ((lengths - kept) // 2).tolist()
    n_samples = min(waveform.shape[1], longest)
    return torch.stack([row[begin : begin + n_samples] for row, begin in zip(waveform, begins, strict=True)]), kept


def _teacher(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The teacher's encoder: of {"student", "teacher"}, of a Lightning file, or a bare state dict."""
    state = state_dict_of(checkpoint.get("teacher", checkpoint))
    for prefix in ("model.teacher.encoder.", "encoder.encoder."):
        if any(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return {name.removeprefix("module.").removeprefix("backbone."): value for name, value in state.items()}
