"""SSAST: AST's transformer, trained without labels to tell and to draw masked patches.

Paper: Gong et al., "SSAST: Self-Supervised Audio Spectrogram Transformer", AAAI 2022. Checkpoints: YuanGongND/ssast
(BSD-3-Clause code, no licence of their own), `SSAST-Base-Patch-400.pth` and the like. Trained on AudioSet-2M and LibriSpeech
960 h, without labels. `ssast.patch` has patches of 16 mels x 16 frames, `ssast.frame` of 128 mels x 2 frames.

Input: 16 kHz, Kaldi filterbank of 128 bands with a symmetric Hann window, natural logarithm, normalised as
(x - mean) / (2 std) by `norm_stats`, by default AudioSet's (-4.2677393, 4.5689974). At least 2,800 samples (16 frames), of
the frame model 560 (2 frames). The stride between patches is free; as in the authors' fine-tuning it is 10 x 10 for the
patch model and 1 frame for the frame model. The stored table of 8 x 64 (1 x 512) positions is adapted: the centre columns
where fewer are needed, else bilinear interpolation; rows bilinear.

Two ways to bring a clip to the network: `input="clip"` (default, as the authors' evaluation with a clip's own length) takes
all frames at once; `input="padded"` fills with zeros, or CUTS, to 1024 frames before normalising, as
in training. `window_frames` cuts long clips into windows of that many frames (0: none), which bounds time and memory; no
official vector depends on it.

Layers block1..block12 (residual stream) and norm (the final LayerNorm of the last block, the default): mean over the bands
of a time step, without cls and dist, 768 wide (small 384, tiny 192), hop 160 x stride, pooled by mean: the paper's average
over tokens. cls_dist: mean of the two normed tokens of the whole clip, hop 0.

Differs from the original: clips of a batch that have another number of patches run apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._checkpoints import refuse_other
from evar.encoders._filterbanks import KaldiFilterbank
from evar.encoders._patch_encoder import PatchEncoder
from evar.encoders._vit import Blocks, PatchEmbed, count_patches, resize_table, with_first
from evar.encoders.features import LayerInfo
from evar.encoders.weights import load_strict, read_checkpoint, state_dict_of

HOP, N_MELS, PADDED_FRAMES = 160, 128, 1024
AUDIOSET_STATS = (-4.2677393, 4.5689974)
INPUTS = ("clip", "padded")
#: kind -> (mels and frames of a patch, stride over mels and frames of downstream use, stored table's rows and columns)
KINDS = {"patch": ((16, 16), (10, 10), (8, 64)), "frame": ((128, 2), (128, 1), (1, 512))}
#: size -> (width, heads)
SIZES = {"base": (768, 12), "small": (384, 6), "tiny": (192, 3)}


class Ssast(PatchEncoder):
    """SSAST with every block; see the module's docstring.

    Args:
        kind: "patch" or "frame".
        size: "base", "small" or "tiny".
        stride: frames (and, of the patch model, mels) between patches; 0: 10 for "patch", 1 for "frame".
        input: "clip" (the clip's own length) or "padded" (zeros, or a cut, to 1024 frames).
        window_frames: frames of a window of the front-end; 0: the clip as a whole.
        n_blocks: of the transformer.

    Raises:
        ValueError: if an option is another.

    Example:
        >>> encoder = Ssast("frame", "tiny")  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 16000))["norm"].shape  # doctest: +SKIP
        torch.Size([1, 97, 192])
    """

    sample_rate = 16000
    norm_stats = AUDIOSET_STATS
    batch_seconds = 80.0
    # heads of training and of ImageNet; no feature depends on them
    ignored_tensors = ("mask_embed", "cpredlayer.", "gpredlayer.", "head.", "head_dist.", "p_input_")

    def __init__(
        self,
        kind: str = "patch",
        size: str = "base",
        stride: int = 0,
        input: str = "clip",
        window_frames: int = 0,
        n_blocks: int = 12,
    ) -> None:
        super().__init__()
        for what, value, known in (("kind", kind, KINDS), ("size", size, SIZES), ("input", input, INPUTS)):
            if value not in known:
                raise ValueError(f"no {what} {value!r} for ssast; {near_miss(value, known)}")
        patch, strides, self.stored = KINDS[kind]
        if stride:
            strides = (stride if kind == "patch" else N_MELS, stride)
        if stride < 0 or (window_frames and window_frames < patch[1]):
            raise ValueError(
                f"stride must be >= 0 and window_frames 0 or at least {patch[1]}, got {stride} and {window_frames}"
            )
        self.kind, self.size, self.input = kind, size, input
        self.unit, self.patch, self.step = window_frames, patch[1], strides[1]
        self.n_bands = count_patches(N_MELS, patch[0], strides[0])
        self.mel = KaldiFilterbank(window="symmetric")
        self.min_samples = self.mel.min_samples + (self.patch - 1) * HOP
        width, n_heads = SIZES[size]
        n_stored = self.stored[0] * self.stored[1]
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.dist_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 2 + n_stored, width))
        self.patch_embed = PatchEmbed(width, patch, strides)
        self.blocks = Blocks(n_blocks, width, n_heads)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        notes = {f"block{number}": "residual stream" for number in range(1, n_blocks + 1)}
        self.layer_infos = (
            *self.patch_layers({**notes, "norm": "final LayerNorm"}, width, self.step * HOP),
            LayerInfo("cls_dist", width, 0, "mean", "mean of the two normed tokens of the whole clip"),
        )
        self.default_layers = ("norm",)

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Load a checkpoint; if it belongs to another encoder, say which one takes it."""
        state = state_dict_of(read_checkpoint(path))
        size = "" if self.size == "base" else f"_{self.size}"
        refuse_other(state, path, name, f"ssast.{self.kind}{size}")
        load_strict(self, self.convert(state), path, ignore=self.ignored_tensors)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Take off the "v." before the transformer's names."""
        return {name.removeprefix("v."): value for name, value in state_dict_of(checkpoint).items()}

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames: 1 + (samples - 400) // 160, at most 1024 where the input is padded.

        (batch,) samples -> (batch,) frames.
        """
        frames = self.mel.frames(lengths)
        return frames.clamp(max=PADDED_FRAMES) if self.input == "padded" else frames

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 128) log-mel before normalisation, at most 1024 frames where padded."""
        logmel = self.mel(waveform)
        return logmel[:, :PADDED_FRAMES] if self.input == "padded" else logmel

    def window_size(self, n_frames: int) -> int:
        """Count the frames that the patches cover; 1024 if the input is padded."""
        return PADDED_FRAMES if self.input == "padded" else super().window_size(n_frames)

    def window_steps(self, n_frames: int) -> int:
        """Count the patches that fit into the window; into 1024 frames if the input is padded."""
        return super().window_steps(PADDED_FRAMES if self.input == "padded" else n_frames)

    def position_table(self, n_columns: int) -> Tensor:
        """Return (1, 2 + bands x columns, width): cls, dist, then the patches, columns (time) fastest."""
        return resize_table(self.pos_embed, self.stored, self.n_bands, n_columns)

    def every_layer(self, spectrogram: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Run windows: (window, frames, 128) -> each layer's name and grid (window, time, band, width).

        The two tokens of the whole clip are a grid (window, 1, 1, width).
        """
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        image = ((spectrogram - mean) / (2 * std)).transpose(1, 2)  # (window, 128, frames)
        tokens = self.patch_embed(image)  # (window, bands x time, width)
        positions = self.position_table(tokens.shape[1] // self.n_bands)
        grid = self.grid(tokens + positions[:, 2:], "frequency")
        first = torch.cat([self.cls_token, self.dist_token], dim=1) + positions[:, :2]
        for number, stream in enumerate(self.blocks(with_first(first, grid.tokens)), start=1):
            yield f"block{number}", grid.lay_out(stream[:, 2:])
        stream = self.norm(stream)
        yield "norm", grid.lay_out(stream[:, 2:])
        yield "cls_dist", stream[:, None, :2].mean(dim=2, keepdim=True)
