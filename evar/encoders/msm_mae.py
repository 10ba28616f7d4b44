"""MSM-MAE: a vision transformer on patches of a log-mel spectrogram, trained to fill in masked patches.

Paper: Niizumi et al., "Masked Spectrogram Modeling using Masked Autoencoders for Learning General-purpose Audio
Representation", HEAR (PMLR 166), 2022. Checkpoints: `80x208p16x16_0422`, `80x512p16x16_paper` and the like, each a folder
with `checkpoint-100.pth`, of nttcslab/msm-mae, whose licence allows evaluation only. Trained on AudioSet without labels.

Input: 16 kHz. Power spectra of 400 samples every 160 (periodic Hann, centred, clip mirrored at both ends), 80 Slaney mel
bands of area 1 from 50 to 8000 Hz, ln(x + 1.1920929e-07). Normalised as (x - mean) / std by `norm_stats`; its default
here, (-7.1, 4.2), is what the successor M2D uses for all data; `lineval` computes them from the training clips of each
round. At least 201 samples, for the mirroring.

Long audio: the clip is cut into units of `unit_frames` (208 or 512) frames, the last one filled with zeros after
normalisation; each unit goes through the network by itself, and the time patches of all units are put in a row and cut
to ceil(T / 16). There is no mask: zeros in the last unit do take part in its attention, as in the original.

Layers block1..block12: for each time patch the 5 frequency patches side by side, 5 x 768 = 3840 wide, one frame in 16 of
the front-end (hop 2560), pooled by mean; blocks 1 to 11 are the residual stream as it is, block 12 has the final
LayerNorm. block12 is the paper's.

Differs from the original: units of all clips of a batch go through the network together; a clip never sees its
batch-mates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evar.encoders._logmel import MelSpectrogram
from evar.encoders._patch_encoder import PatchEncoder
from evar.encoders._vit import Attention, Blocks, PatchEmbed, sincos_table, with_first
from evar.encoders.base import Encoder

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

HOP, N_MELS, LOG_OFFSET = 160, 80, 1.1920929e-07
PATCH, WIDTH, N_BLOCKS, N_HEADS, EPSILON = 16, 768, 12, 12, 1e-6
N_FREQUENCIES = N_MELS // PATCH
#: fixed statistics of M2D, the successor
M2D_STATS = (-7.1, 4.2)
# `<mel>x<frames>p<patch>x<patch>_...`: how the published checkpoints' folders are called
_FOLDER = re.compile(r"(?P<mel>\d+)x(?P<frames>\d+)p(?P<height>\d+)x(?P<width>\d+)(_.*)?")


class MsmMae(PatchEncoder):
    """MSM-MAE with every block; see the module's docstring.

    Args:
        unit_frames: frames of the front-end that the network takes at once, 208 or 512: a multiple of 16; each has its
            own checkpoint.

    Raises:
        ValueError: if unit_frames is no multiple of 16.

    Example:
        >>> encoder = MsmMae(208)  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 32000))["block12"].shape  # doctest: +SKIP
        torch.Size([1, 13, 3840])
    """

    sample_rate = 16000
    default_layers = ("block12",)
    norm_stats = M2D_STATS
    default_norm_stats = "train"
    patch, step, n_bands, side_by_side = PATCH, PATCH, N_FREQUENCIES, True
    ignored_tensors = ("decoder_", "mask_token")  # of training; no feature depends on them
    pos_embed: Tensor

    def __init__(self, unit_frames: int = 208) -> None:
        super().__init__()
        if unit_frames < PATCH or unit_frames % PATCH:
            raise ValueError(
                f"unit_frames must be a multiple of {PATCH}, got {unit_frames}; checkpoints have 208 or 512"
            )
        self.unit = self.unit_frames = unit_frames
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate, n_fft=400, hop=HOP, n_mels=N_MELS, f_min=50.0, f_max=8000.0, center="reflect"
        )
        self.min_samples = self.mel.min_samples
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.patch_embed = PatchEmbed(WIDTH, (PATCH, PATCH))
        self.register_buffer("pos_embed", position_table(unit_frames // PATCH))
        self.blocks = Blocks(N_BLOCKS, WIDTH, N_HEADS, eps=EPSILON, attention=_Attention)
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        notes = {f"block{number}": "residual stream" for number in range(1, N_BLOCKS)}
        notes[f"block{N_BLOCKS}"] = "after the final LayerNorm"
        self.layer_infos = self.patch_layers(notes, WIDTH, PATCH * HOP)

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build, and refuse a checkpoint whose folder's name gives another geometry."""
        if weights is not None and (match := _FOLDER.fullmatch(Path(weights).resolve().parent.name)):
            told = tuple(int(match[name]) for name in ("mel", "frames", "height", "width"))
            wanted = (N_MELS, config.options.get("unit_frames", 208), PATCH, PATCH)
            if told != wanted:
                known = {(N_MELS, frames, PATCH, PATCH): f"use msm_mae.{frames}" for frames in (208, 512)}
                raise ValueError(
                    f"the folder {Path(weights).resolve().parent.name} tells {told[0]} mels x {told[1]} frames in patches "
                    f"of {told[2]} x {told[3]}, but {config.name} has {N_MELS} x {wanted[1]} and {PATCH} x {PATCH}; "
                    + known.get(told, "write a YAML with base: msm_mae.208 and that unit_frames")  # type: ignore[arg-type]
                )
        encoder = super().from_config(config, weights=weights)
        assert isinstance(encoder, cls)
        # The table is a formula. One that differs belongs to a network that orders its patches in another way.
        error = float((encoder.pos_embed - position_table(encoder.unit_frames // PATCH)).abs().max())
        if error > 1e-4:
            raise ValueError(
                f"{Path(str(weights)).name} has another table of positions than MSM-MAE's sines and cosines "
                f"(by {error:.1e}); is it the checkpoint of another network?"
            )
        return encoder

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + samples // 160: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 80) log-mel, natural logarithm, before normalisation."""
        return (self.mel(waveform, lengths) + LOG_OFFSET).log()

    def prepare(self, spectrogram: Tensor) -> Tensor:
        """Normalise (batch, frames, 80) by `norm_stats`, so that units are filled with the mean; the shape stays."""
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        return (spectrogram - mean) / std

    def window_size(self, n_frames: int) -> int:
        """Return the size of a whole unit."""
        return self.unit

    def window_steps(self, n_frames: int) -> int:
        """Time patches that hold a frame of the clip."""
        return -(-n_frames // PATCH)

    def every_layer(self, spectrogram: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Run normalised units: (window, frames, 80) -> each block's name and grid (window, time, band, 768).

        The last block is followed by the final LayerNorm.
        """
        tokens = self.patch_embed(spectrogram.transpose(1, 2)) + self.pos_embed[:, 1:]  # (unit, 5 x time, 768)
        grid = self.grid(tokens, "frequency")
        tokens = with_first(self.cls_token + self.pos_embed[:, :1], grid.tokens)
        for number, stream in enumerate(self.blocks(tokens), start=1):
            yield f"block{number}", grid.lay_out((self.norm(stream) if number == N_BLOCKS else stream)[:, 1:])


class _Attention(Attention):
    """Queries and values have a bias, keys have none."""

    def __init__(self, width: int, n_heads: int, *, qkv_bias: bool = False) -> None:
        super().__init__(width, n_heads, qkv_bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))

    def project(self, tokens: Tensor) -> Tensor:
        """(batch, token, width) -> (batch, token, 3 x width)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return nn.functional.linear(tokens, self.qkv.weight, bias)


def position_table(n_times: int) -> Tensor:
    """Make the fixed table of positions.

    Args:
        n_times: patches over time; there are always 5 over frequency.

    Returns:
        (1, 1 + 5 x n_times, 768), as `sincos_table` gives it: zeros for cls; then frequency-major, time fastest.

    Example:
        >>> position_table(13).shape
        torch.Size([1, 66, 768])
    """
    return sincos_table(N_FREQUENCIES, n_times, WIDTH)
