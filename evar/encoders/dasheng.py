"""Dasheng: a vision transformer on 40 ms slices of a log-mel spectrogram, a masked autoencoder trained on 272,356 hours.

Paper: Dinkel et al., "Scaling up masked audio encoder learning for general audio classification", Interspeech 2024.
Checkpoints (Apache-2.0): `dasheng_base.pt`, `dasheng_06b.pt`, `dasheng_12b.pt` of Zenodo record 11511780, and the hub's
folders `mispeech/dasheng-base`, `-0.6B`, `-1.2B` (other names, the same numbers). ACAV100M, AudioSet, VGGSound and
MTG-Jamendo, without labels.

Input: 16 kHz. Log-mel of 512 samples every 160 (periodic Hann, centred, clip mirrored at both ends), power, 64 HTK mel
bands from 0 to 8000 Hz (triangles linear in Hz), decibels, at most 120 below the clip's loudest; then a BatchNorm over
the bands, which belongs to the checkpoint. At least 4 frames (480 samples).

Network: patches of all 64 bands x 4 frames, one token in 40 ms; learned positions. Pre-norm blocks (12, 32 or 40), a
final LayerNorm. Longer clips are cut into pieces of 1008 frames, which do not see each other. `input="clip"` (default)
gives the last piece its own length, as the package `dasheng` does. `input="padded"` follows the GitHub version: the last
of several pieces is filled with zeros after the BatchNorm, which take part in attention, and cut afterwards; a last piece
of 1 to 3 frames is not cut, as there.

Layers block1..blockN: the residual stream, and norm, after the final LayerNorm, which is the default; 768, 1280 or 1536
wide, hop 640, pooled by mean. `outputs` gives what the hub's port calls logits, the sigmoid of the mean (the reference
toolkit reads this, which squashes the features), or the tags' probabilities of a checkpoint that was fine-tuned on
AudioSet.

Differs from the original: the ceiling of the decibels is the clip's own (the original's is that of its batch); a clip
never sees its batch-mates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._batch_norm_mel import HOP, N_MELS, BatchNormMel
from evar.encoders._packing import as_count
from evar.encoders._vit import Blocks, PatchEmbed
from evar.encoders._windows import count_steps, run_windows
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import mean

PATCH, N_TIMES, PIECE, EPSILON, HEAD_EPSILON = 4, 252, 1008, 1e-6, 1e-5
#: size -> width, blocks, heads
SIZES = {"base": (768, 12, 12), "0.6B": (1280, 32, 16), "1.2B": (1536, 40, 24)}
INPUTS = ("clip", "padded")


class Dasheng(BatchNormMel):
    """Dasheng with every block; see the module's docstring.

    Args:
        size: "base", "0.6B" or "1.2B".
        input: "clip" (the last piece has its own length) or "padded" (as the GitHub version).
        n_classes: tags of a fine-tuned checkpoint's head; 0 for none.
        n_blocks: blocks, for tests; 0 for all blocks of the size.

    Raises:
        ValueError: if the size or the input is another.

    Example:
        >>> Dasheng(n_blocks=1).encode(torch.zeros(1, 16000))["norm"].shape
        torch.Size([1, 25, 768])
    """

    min_samples = (PATCH - 1) * HOP
    default_layers = ("norm",)

    def __init__(self, size: str = "base", input: str = "clip", n_classes: int = 0, n_blocks: int = 0) -> None:
        super().__init__()
        for option, value, known in (("size", size, SIZES), ("input", input, INPUTS)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for dasheng; {near_miss(value, known)}")
        width, n_all, n_heads = SIZES[size]
        n_blocks = n_blocks or n_all
        self.input = input
        self.patch_embed = PatchEmbed(width, (N_MELS, PATCH))
        self.time_pos_embed = nn.Parameter(0.02 * torch.randn(1, width, 1, N_TIMES))
        self.freq_pos_embed = nn.Parameter(0.02 * torch.randn(1, width, 1, 1))
        self.blocks = Blocks(n_blocks, width, n_heads, eps=EPSILON)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.outputlayer = None
        if n_classes:  # no layer depends on it
            self.outputlayer = nn.Sequential(nn.LayerNorm(width, eps=HEAD_EPSILON), nn.Linear(width, n_classes))
            self.outputlayer.requires_grad_(False)
        self.layer_infos = (
            *(LayerInfo(f"block{number}", width, PATCH * HOP, "mean") for number in range(1, n_blocks + 1)),
            LayerInfo("norm", width, PATCH * HOP, "mean", "final LayerNorm"),
        )

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame for 4 log-mel frames of every piece, and drop the rest of a piece.

        (batch,) samples -> (batch,) frames.
        """
        frames = self.mel.frames(lengths)
        steps = count_steps(frames, PIECE, lambda n: n // PATCH)
        if self.input == "padded":  # the remainder of 1 to 3 frames that the original does not cut
            rest = frames % PIECE
            steps = steps + N_TIMES * ((frames > PIECE) & (rest > 0) & (rest < PATCH))
        return steps

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every block, and the final LayerNorm: (batch, samples) -> layer name -> (batch, time, width)."""
        frames = pieced = self.mel.frames(lengths)
        if self.input == "padded":
            pieced = torch.where(frames > PIECE, -(-frames // PIECE) * PIECE, frames)
        bands = self.compute_normalised_input(waveform, lengths, int(pieced.max()))
        layers = run_windows(
            self._network, bands, pieced, unit=PIECE, size=lambda n: n // PATCH * PATCH, steps=lambda n: n // PATCH
        )
        n_times = as_count(self.valid_frames(lengths).max())
        return {name: value[:, :n_times] for name, value in layers.items()}

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, width) sigmoid of the mean over the tokens, or (batch, 527) probabilities of tags."""
        vectors = mean(self.forward(waveform, lengths)["norm"], self.valid_frames(lengths))
        return (vectors if self.outputlayer is None else self.outputlayer(vectors)).sigmoid()

    def _network(self, bands: Tensor) -> dict[str, Tensor]:
        """(piece, time, 64) -> layer -> (piece, token, width)."""
        tokens = self.patch_embed(bands.transpose(1, 2))  # (piece, token, width)
        places = self.time_pos_embed[:, :, :, : tokens.shape[1]] + self.freq_pos_embed  # (1, width, 1, token)
        layers = {}
        for number, output in enumerate(self.blocks(tokens + places.flatten(2).transpose(1, 2)), start=1):
            layers[f"block{number}"] = tokens = output
        layers["norm"] = self.norm(tokens)
        return layers
