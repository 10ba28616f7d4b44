"""M2D: a vision transformer on patches of a log-mel spectrogram, trained to predict masked patches' representations.

Paper: Niizumi et al., "Masked Modeling Duo: Towards a Universal Audio Pre-training Framework", IEEE/ACM TASLP 2024 (first
at ICASSP 2023). Checkpoints: release archives of nttcslab/m2d, whose licence allows evaluation only; the folder's name
tells the geometry: `m2d_vit_base-80x608p16x16-...` is 80 mels x 608 frames in patches of 16 x 16, `p32k` means 32 kHz. Full
training files, encoder-only files and files that EVAR fine-tuned load alike. Trained on AudioSet-2M without labels; names
with `as` or `AS-FT` have also seen its labels, `clap` has seen captions.

Input: 16 kHz: power spectra of 400 samples every 160 (32 kHz: 800 every 320), periodic Hann, centred, clip mirrored at both
ends, 80 Slaney mel bands of area 1 from 50 Hz to half the rate, ln(x + 1.1920929e-07). Normalised as (x - mean) / std by
the file's `norm_stats`, or (-7.1, 4.2) where a file has none. At least 201 (401) samples.

Any length: the clip is cut into units of `unit_frames` frames; the last one is filled with zeros, after normalisation, to
the next whole patch only, and takes the first columns of the table of positions. A unit that is no multiple of a patch
loses its last frames (1001 frames: 62 time steps, 9 frames lost), as in the original.

Layers block1..block12 (residual stream) and norm (the final LayerNorm of block12, the default): for each time patch the 5
bands side by side, 3840 wide, one frame in 16 of the front-end (hop 2560 at 16 kHz; a little more where units lose frames),
pooled by mean. `bands="mean"` averages the bands instead (768 wide), as EVAR does for M2D-CLAP.

Differs from the original: units of all clips of a batch go through the network together; a clip never sees its
batch-mates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._checkpoints import refuse_other
from evar.encoders._logmel import MelSpectrogram
from evar.encoders._patch_encoder import PatchEncoder
from evar.encoders._vit import Blocks, PatchEmbed, first_columns, sincos_table, with_first
from evar.encoders.weights import load_strict, read_checkpoint, state_dict_of

N_MELS, WIDTH, N_HEADS, LOG_OFFSET = 80, 768, 12, 1.1920929e-07
#: of checkpoints that hold no `norm_stats`
M2D_STATS = (-7.1, 4.2)
BANDS = ("side_by_side", "mean")
# `<class>-<mels>x<frames>p<patch>x<patch>[p32k]-...`: how the published checkpoints' folders are called
_FOLDER = re.compile(r".*-(?P<mels>\d+)x(?P<frames>\d+)p(?P<height>\d+)x(?P<width>\d+)(?P<rate>p32k)?([-_].*)?")
_PREFIXES = ("ar.runtime.backbone.", "backbone.")
#: (frames, frames of a patch, Hz) -> encoders of that geometry
GEOMETRIES = {
    (608, 16, 16000): "m2d or m2d.as",
    (200, 4, 16000): "m2d.p16x4",
    (1001, 16, 16000): "m2d.as_ft, m2d.ft or m2d.clap",
    (608, 16, 32000): "m2d.32k",
}


class M2D(PatchEncoder):
    """M2D with every block; see the module's docstring.

    Args:
        unit_frames: frames of the front-end that the network takes at once.
        patch_frames: frames of a patch; it always has 16 mels.
        sample_rate: 16000 or 32000 Hz.
        bands: "side_by_side" (3840 wide) or "mean" (768 wide).
        n_blocks: of the transformer.

    Raises:
        ValueError: if an option is out of range.

    Example:
        >>> encoder = M2D(608)  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 32000))["norm"].shape  # doctest: +SKIP
        torch.Size([1, 13, 3840])
    """

    norm_stats = M2D_STATS
    ignored_tensors = ("decoder_", "mask_token", "target_", "head.")  # of training; no feature depends on them
    pos_embed: Tensor

    def __init__(
        self,
        unit_frames: int = 608,
        patch_frames: int = 16,
        sample_rate: int = 16000,
        bands: str = "side_by_side",
        n_blocks: int = 12,
    ) -> None:
        super().__init__()
        if bands not in BANDS:
            raise ValueError(f"no bands {bands!r} for m2d; {near_miss(bands, BANDS)}")
        if sample_rate not in (16000, 32000) or not 1 <= patch_frames <= unit_frames:
            raise ValueError(
                "m2d needs sample_rate 16000 or 32000 and 1 <= patch_frames <= unit_frames, "
                f"got {sample_rate}, {patch_frames} and {unit_frames}"
            )
        n_fft, hop = sample_rate // 40, sample_rate // 100
        self.sample_rate, self.unit, self.patch, self.step = sample_rate, unit_frames, patch_frames, patch_frames
        self.n_bands, self.side_by_side = N_MELS // 16, bands == "side_by_side"
        self.mel = MelSpectrogram(
            sample_rate=sample_rate,
            n_fft=n_fft,
            hop=hop,
            n_mels=N_MELS,
            f_min=50.0,
            f_max=sample_rate / 2,
            center="reflect",
        )
        self.min_samples = self.mel.min_samples
        n_times = unit_frames // patch_frames
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.patch_embed = PatchEmbed(WIDTH, (16, patch_frames))
        self.register_buffer("pos_embed", sincos_table(self.n_bands, n_times, WIDTH))
        self.blocks = Blocks(n_blocks, WIDTH, N_HEADS)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        notes = {f"block{number}": "residual stream" for number in range(1, n_blocks + 1)}
        # What a unit loses at its end counts: frames are that much further apart on average.
        self.layer_infos = self.patch_layers({**notes, "norm": "final LayerNorm"}, WIDTH, unit_frames * hop // n_times)
        self.default_layers = ("norm",)

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Load a checkpoint and its `norm_stats`, and refuse a folder whose name gives another geometry."""
        self.check_folder(path, name)
        state = self.convert(read_checkpoint(path))
        refuse_other(state, path, name, f"m2d.{self.unit // self.patch}")
        stats = state.pop("norm_stats", None)
        load_strict(self, state, path, ignore=self.ignored_tensors)
        if stats is not None:
            self.norm_stats = (float(stats[0]), float(stats[1]))

    def check_folder(self, path: Path, name: str) -> None:
        """Refuse a checkpoint whose folder's name tells another geometry.

        Raises:
            ValueError: naming the encoder that takes it.
        """
        folder = path.resolve().parent.name
        match = _FOLDER.fullmatch(folder)
        if not match:
            return
        told = tuple(int(match[part]) for part in ("mels", "frames", "height", "width"))
        rate = 32000 if match["rate"] else 16000
        own = (N_MELS, self.unit, 16, self.patch)
        if (*told, rate) != (*own, self.sample_rate):
            fits = GEOMETRIES.get((told[1], told[3], rate)) if told[::2] == (N_MELS, 16) else None
            raise ValueError(
                f"the folder {folder} tells {told[0]} mels x {told[1]} frames in patches of {told[2]} x {told[3]} at "
                f"{rate} Hz, but {name} has {own[0]} x {own[1]}, {own[2]} x {own[3]} and {self.sample_rate} Hz; "
                + (f"use {fits}" if fits else "write a YAML with base: m2d and these options")
            )

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Take off what the wrappers of EVAR and of the authors put before the names."""
        state = state_dict_of(checkpoint)
        for prefix in _PREFIXES:
            if any(name.startswith(prefix) for name in state):
                return {name.removeprefix(prefix): value for name, value in state.items()}
        return state

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames: 1 + samples // hop, where the hop is 160 (16 kHz) or 320 (32 kHz).

        (batch,) samples -> (batch,) frames.
        """
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 80) log-mel, natural logarithm, before normalisation."""
        return (self.mel(waveform, lengths) + LOG_OFFSET).log()

    def prepare(self, spectrogram: Tensor) -> Tensor:
        """Normalise (batch, frames, 80) by `norm_stats`, so that units are filled with the mean; the shape stays."""
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        return (spectrogram - mean) / std

    def window_steps(self, n_frames: int) -> int:
        """Count the patches of a unit; the last one is filled, and the table of positions limits their number."""
        return min(-(-n_frames // self.patch), self.unit // self.patch)

    def every_layer(self, spectrogram: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Run normalised units: (window, frames, 80) -> each layer's name and grid (window, time, band, 768).

        The layers are the blocks and the final LayerNorm.
        """
        tokens = self.patch_embed(spectrogram.transpose(1, 2))  # (unit, 5 x time, 768), time fastest
        positions = first_columns(self.pos_embed, self.n_bands, tokens.shape[1] // self.n_bands)
        grid = self.grid(tokens + positions[:, 1:], "frequency")
        tokens = with_first(self.cls_token + positions[:, :1], grid.tokens)
        for number, stream in enumerate(self.blocks(tokens), start=1):
            yield f"block{number}", grid.lay_out(stream[:, 1:])
        yield "norm", grid.lay_out(self.norm(stream)[:, 1:])
