"""CED: a small vision transformer on log-mel patches, taught to tag AudioSet by an ensemble of larger ones.

Paper: Dinkel et al., "CED: Consistent ensemble distillation for audio tagging", ICASSP 2024. Checkpoints: the files of
Zenodo records 8275347 and 8275319, and the hub's folders `mispeech/ced-tiny` to `-base` (other names, the same numbers).
AudioSet-2M with labels. The original code is GPL-3 and was not read for this file; the licence of the weights is not
stated.

Input: 16 kHz. Log-mel of 512 samples every 160 (periodic Hann, centred, clip mirrored at both ends), power, 64 HTK mel
bands from 0 to 8000 Hz (triangles linear in Hz), decibels, at most 120 below the clip's loudest; then a BatchNorm over
the bands, which belongs to the checkpoint. At least 16 frames (2,400 samples).

Network: patches of 16 x 16, 4 bands x T // 16 time steps, band-major; learned positions of time and of band are added. 12
pre-norm blocks, a final LayerNorm. No cls token. Longer clips are cut into pieces of 1012 frames, which do not see each
other and lose their last 4. `input="clip"` (default) gives the last piece its own length. `input="padded"` follows the
original: the last piece is filled with zeros after the BatchNorm, and these patches count as any other; where the length
is a multiple of 1012 frames, the last piece is left out.

Layers block1..block12: the residual stream, and norm, after the final LayerNorm, which is the default; mean over the 4
bands, 192, 256, 384 or 768 wide, one frame in 16 (hop 2560), pooled by mean: the mean over all tokens.
`bands="side_by_side"` keeps the 4 bands side by side, from low to high. `outputs` gives the probabilities of the 527
AudioSet tags.

Differs from the original: the ceiling of the decibels is the clip's own (the original's is that of its batch); a clip
never sees its batch-mates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._batch_norm_mel import HOP, BatchNormMel
from evar.encoders._vit import Blocks, PatchEmbed, grid_of
from evar.encoders._windows import count_steps, run_windows
from evar.encoders.features import LayerInfo

PATCH, N_BANDS, N_TIMES, PIECE = 16, 4, 63, 1012
N_BLOCKS, EPSILON, HEAD_EPSILON, N_CLASSES = 12, 1e-6, 1e-5, 527
#: size -> width, heads
SIZES = {"tiny": (192, 3), "mini": (256, 4), "small": (384, 6), "base": (768, 12)}
INPUTS = ("clip", "padded")
BANDS = ("mean", "side_by_side")


class Ced(BatchNormMel):
    """CED with every block; see the module's docstring.

    Args:
        size: "tiny", "mini", "small" or "base".
        input: "clip" (the last piece has its own length) or "padded" (as the original).
        bands: "mean" over the 4 bands of a time step, or "side_by_side".
        n_blocks: blocks, for tests.

    Raises:
        ValueError: if an option is none of these.

    Example:
        >>> Ced("tiny").encode(torch.zeros(1, 16000))["norm"].shape
        torch.Size([1, 6, 192])
    """

    min_samples = (PATCH - 1) * HOP
    default_layers = ("norm",)

    def __init__(self, size: str = "base", input: str = "clip", bands: str = "mean", n_blocks: int = N_BLOCKS) -> None:
        super().__init__()
        for option, value, known in (("size", size, SIZES), ("input", input, INPUTS), ("bands", bands, BANDS)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for ced; {near_miss(value, known)}")
        width, n_heads = SIZES[size]
        self.input, self.bands = input, bands
        self.patch_embed = PatchEmbed(width, (PATCH, PATCH))
        self.time_pos_embed = nn.Parameter(0.02 * torch.randn(1, width, 1, N_TIMES))
        self.freq_pos_embed = nn.Parameter(0.02 * torch.randn(1, width, N_BANDS, 1))
        self.blocks = Blocks(n_blocks, width, n_heads, eps=EPSILON)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        # No layer depends on the tags' head.
        self.outputlayer = nn.Sequential(nn.LayerNorm(width, eps=HEAD_EPSILON), nn.Linear(width, N_CLASSES))
        self.outputlayer.requires_grad_(False)
        wide = width if bands == "mean" else N_BANDS * width
        note = "mean over the 4 bands" if bands == "mean" else "4 bands side by side"
        self.layer_infos = (
            *(LayerInfo(f"block{number}", wide, PATCH * HOP, "mean", note) for number in range(1, n_blocks + 1)),
            LayerInfo("norm", wide, PATCH * HOP, "mean", f"final LayerNorm, {note}"),
        )

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame for 16 log-mel frames of every piece, and drop the rest of a piece.

        (batch,) samples -> (batch,) frames.
        """
        return count_steps(self._count_run_frames(self.mel.frames(lengths)), PIECE, lambda n: n // PATCH)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every block, and the final LayerNorm: (batch, samples) -> layer name -> (batch, time, width)."""
        pieced = self._count_run_frames(self.mel.frames(lengths))
        bands = self.compute_normalised_input(waveform, lengths, int(pieced.max()))
        return run_windows(
            self._network, bands, pieced, unit=PIECE, size=lambda n: n // PATCH * PATCH, steps=lambda n: n // PATCH
        )

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) probabilities of the AudioSet tags.

        `input="clip"`: of the mean over all tokens, as the hub's port computes them; "padded": the mean over the pieces of
        each piece's own, as the original does. The two differ only for clips of several pieces.
        """
        tokens = self.forward(waveform, lengths)["norm"]  # (batch, time step, feature)
        if self.bands == "side_by_side":
            tokens = tokens.unflatten(2, (N_BANDS, -1)).mean(dim=2)
        n_pieces = -(-tokens.shape[1] // N_TIMES) if self.input == "padded" else 1
        unit = N_TIMES if self.input == "padded" else tokens.shape[1]
        tokens = nn.functional.pad(tokens, (0, 0, 0, n_pieces * unit - tokens.shape[1])).unflatten(1, (n_pieces, unit))
        before = unit * torch.arange(n_pieces, device=tokens.device)
        counts = (self.valid_frames(lengths)[:, None] - before[None, :]).clamp(0, unit)  # (batch, piece)
        inside = torch.arange(unit, device=tokens.device)[None, None, :] < counts[:, :, None]
        means = (tokens * inside[..., None]).sum(dim=2) / counts.clamp(min=1)[..., None]  # (batch, piece, width)
        exists = (counts > 0)[..., None]
        return (self.tags(means) * exists).sum(dim=1) / exists.sum(dim=1)

    def tags(self, vectors: Tensor) -> Tensor:
        """Probabilities of the AudioSet tags of clip vectors of the layer norm: (..., width) -> (..., 527)."""
        return self.outputlayer(vectors).sigmoid()

    def _count_run_frames(self, frames: Tensor) -> Tensor:
        """Frames that go through the network: all of a clip's, or, padded, whole pieces: (batch,) -> (batch,)."""
        if self.input == "clip":
            return frames
        whole = torch.where(frames % PIECE == 0, frames - PIECE, -(-frames // PIECE) * PIECE)
        return torch.where(frames > PIECE, whole, frames)

    def _network(self, bands: Tensor) -> dict[str, Tensor]:
        """(piece, time, 64) -> layer -> (piece, time step, feature)."""
        tokens = self.patch_embed(bands.transpose(1, 2))  # (piece, band x time, width)
        places = self.time_pos_embed[:, :, :, : bands.shape[1] // PATCH] + self.freq_pos_embed  # (1, width, band, time)
        layers = {}
        for number, output in enumerate(self.blocks(tokens + places.flatten(2).transpose(1, 2)), start=1):
            layers[f"block{number}"] = self._by_time(output)
            tokens = output
        layers["norm"] = self._by_time(self.norm(tokens))
        return layers

    def _by_time(self, tokens: Tensor) -> Tensor:
        """(piece, band x time, width) -> (piece, time, width), or (piece, time, band x width)."""
        grid = grid_of(tokens, N_BANDS, "frequency")
        return grid.mean(dim=2) if self.bands == "mean" else grid.flatten(2)
