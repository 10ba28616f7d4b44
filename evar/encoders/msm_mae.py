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
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from evar.encoders._logmel import MelSpectrogram
from evar.encoders._packing import in_chunks, pack, unpack
from evar.encoders._patches import filled, shown
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

HOP, N_MELS, LOG_OFFSET = 160, 80, 1.1920929e-07
PATCH, WIDTH, N_BLOCKS, N_HEADS, EPSILON = 16, 768, 12, 12, 1e-6
N_FREQUENCIES = N_MELS // PATCH
#: fixed statistics of M2D, the successor
M2D_STATS = (-7.1, 4.2)
# `<mel>x<frames>p<patch>x<patch>_...`: how the published checkpoints' folders are called
_FOLDER = re.compile(r"(?P<mel>\d+)x(?P<frames>\d+)p(?P<height>\d+)x(?P<width>\d+)(_.*)?")
# Tokens that go through the network at once, with some 50 kB of activations each.
_CHUNK_TOKENS = 8192


class MsmMae(Encoder):
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
    has_patches = True
    ignored_tensors = ("decoder_", "mask_token")  # of training; no feature depends on them
    pos_embed: Tensor

    def __init__(self, unit_frames: int = 208) -> None:
        super().__init__()
        if unit_frames < PATCH or unit_frames % PATCH:
            raise ValueError(
                f"unit_frames must be a multiple of {PATCH}, got {unit_frames}; checkpoints have 208 or 512"
            )
        self.unit_frames = unit_frames
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate, n_fft=400, hop=HOP, n_mels=N_MELS, f_min=50.0, f_max=8000.0, center="reflect"
        )
        self.min_samples = self.mel.min_samples
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)})
        self.register_buffer("pos_embed", position_table(unit_frames // PATCH))
        self.blocks = nn.ModuleList(_Block() for _ in range(N_BLOCKS))
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        self.layer_infos = tuple(
            LayerInfo(
                f"block{number}",
                N_FREQUENCIES * WIDTH,
                PATCH * HOP,
                "mean",
                "after the final LayerNorm" if number == N_BLOCKS else "residual stream",
            )
            for number in range(1, N_BLOCKS + 1)
        )

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Also refuses a checkpoint whose folder's name tells another geometry."""
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
        """1 + samples // 160."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples) -> (batch, time, 80) log-mel, natural logarithm, before normalisation."""
        return (self.mel(waveform, lengths) + LOG_OFFSET).log()

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """ceil(T / 16) time patches."""
        return -(-self.mel.frames(lengths) // PATCH)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Every block's time patches."""
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        logmel = (self.network_input(waveform, lengths) - mean) / std  # (batch, time, 80)
        frames = self.mel.frames(lengths)
        n_units = -(-frames // self.unit_frames)  # (batch,)
        logmel = nn.functional.pad(logmel, (0, 0, 0, int(n_units.max()) * self.unit_frames - logmel.shape[1]))
        beyond = torch.arange(logmel.shape[1], device=logmel.device)[None, :] >= frames[:, None]
        logmel = logmel.masked_fill(beyond[:, :, None], 0.0)
        units = pack(logmel.unflatten(1, (-1, self.unit_frames)), n_units)  # (unit, frames, 80)
        layers = in_chunks(self._network, units, max(1, _CHUNK_TOKENS // self.pos_embed.shape[1]))
        n_times = int(self.valid_frames(lengths).max())
        return {
            # (unit, patches x 3840) -> (batch, units x patches, 3840), cut to what the longest clip has
            name: unpack(value, n_units).reshape(len(lengths), -1, N_FREQUENCIES * WIDTH)[:, :n_times]
            for name, value in layers.items()
        }

    def _network(self, units: Tensor) -> dict[str, Tensor]:
        """(unit, frames, 80) -> block -> (unit, time patches x 3840)."""
        patches = self.patch_embed["proj"](units.transpose(1, 2)[:, None])  # (unit, 768, 5, time)
        tokens = patches.flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]  # (unit, 5 x time, 768)
        n_times, kept = patches.shape[3], None
        if self.patch_out is not None:
            kept = self.patch_out.drawn(len(units), N_FREQUENCIES, n_times)
            tokens = shown(tokens, kept[0], kept[1], n_times)
        tokens = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(units), -1, -1), tokens], dim=1)
        layers = {}
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            read = (self.norm(tokens) if number == N_BLOCKS else tokens)[:, 1:]  # without cls
            if kept is not None:
                read = filled(read, kept[0], kept[1], N_FREQUENCIES, n_times)
            by_time = read.unflatten(1, (N_FREQUENCIES, -1)).transpose(1, 2)  # (unit, time, 5, 768)
            layers[f"block{number}"] = by_time.flatten(1)
        return layers


class _Block(nn.Module):
    """A pre-norm transformer block; queries and values have a bias, keys have none."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.attn = _Attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(WIDTH, 4 * WIDTH), "act": nn.GELU(), "fc2": nn.Linear(4 * WIDTH, WIDTH)}
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp["fc2"](self.mlp["act"](self.mlp["fc1"](self.norm2(tokens))))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(WIDTH))
        self.v_bias = nn.Parameter(torch.zeros(WIDTH))
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        joint = nn.functional.linear(tokens, self.qkv.weight, bias)  # (unit, token, 3 x 768)
        q, k, v = joint.unflatten(2, (3, N_HEADS, -1)).permute(2, 0, 3, 1, 4)  # (unit, head, token, 64) each
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def position_table(n_times: int) -> Tensor:
    """The fixed table of positions.

    Args:
        n_times: patches over time; there are always 5 over frequency.

    Returns:
        (1, 1 + 5 x n_times, 768): zeros for cls; then frequency major, time fastest. The first half of a row encodes
        time, the second frequency, each as [sin(p w_k), k = 0..191 | cos(p w_k)] with w_k = 10000^(-k / 192).

    Source: the 2-D table of He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.

    Example:
        >>> position_table(13).shape
        torch.Size([1, 66, 768])
    """
    quarter = WIDTH // 4
    frequency, time = np.divmod(np.arange(N_FREQUENCIES * n_times), n_times)
    rates = 10000.0 ** (-np.arange(quarter) / quarter)
    halves = [wave(np.outer(position, rates)) for position in (time, frequency) for wave in (np.sin, np.cos)]
    table = np.concatenate([np.zeros((1, WIDTH)), np.concatenate(halves, axis=1)])
    return torch.from_numpy(table).float()[None]
