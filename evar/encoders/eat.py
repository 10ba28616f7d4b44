"""EAT and SSLAM: a vision transformer on log-mel patches, a student that predicts its teacher's patches and clip vector.

Papers: Chen et al., "EAT: Self-Supervised Pre-Training with Efficient Audio Transformer", IJCAI 2024; Alex et al.,
"SSLAM: Enhancing Self-Supervised Models with Audio Mixtures", ICLR 2025, the same network trained further on mixtures.
Checkpoints (code MIT, no licence stated for the weights): the hub's folders `worstchan/EAT-base_epoch30_pretrain`,
`worstchan/EAT-large_epoch20_pretrain` and `ta012/SSLAM_pretrain`, their fine-tuned ones, and the fairseq files (other
names, the same numbers). AudioSet-2M without labels.

Input: 16 kHz, each clip shifted to mean 0. Kaldi filterbank: 400 samples every 160 inside the clip only, each frame's
mean removed, pre-emphasis 0.97, symmetric Hann, Fourier transform of 512, power, 128 mel bands from 20 to 8000 Hz
(triangles linear in mel), ln(max(x, 1.1920929e-07)). Filled with zeros, then normalised as (x - mean) / (2 std) by
`norm_stats`: what was filled has the value 0.467, takes part in attention and counts in the mean, as in the original. At
least 400 samples.

`input="padded"` fills or cuts to 1024 frames (10.24 s), as the official pipeline does, and gives one vector a clip (hop
0). `input="clip"` (default) fills to a multiple of 16 frames, as the authors do for clips of other lengths; clips of 10
to 10.24 s, the length of AudioSet's, get the official 1024 frames, and clips of more than 12,288 frames (123 s) go in
windows of this length.

Network: patches of 16 x 16, 8 bands a time step, time-major, a fixed table of positions, cls in front, LayerNorm, then
post-norm blocks; no final LayerNorm.

Layers block1..block12 (large: block24), 768 (1024) wide, pooled by mean, hop 2560; the last is the default. What a layer
reads is the `readout`: "mean" (default; as the reference toolkit does), for each time step the mean of its 8 patches and
of a share of cls, so that the mean over time is the mean over cls and all patches; "patches", without cls;
"side_by_side", the 8 patches side by side, from low to high, 6144 (8192) wide; "cls", the authors' vector for
classification (hop 0). `outputs` gives a fine-tuned checkpoint's class logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._filterbanks import KaldiFilterbank
from evar.encoders._vit import Blocks, PatchEmbed, grid_of, sincos_table, with_first
from evar.encoders._windows import count_steps, run_windows
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

HOP, N_MELS = 160, 128
PATCH, N_BANDS, EPSILON = 16, 8, 1e-6
PADDED_FRAMES = 1024
TEN_SECONDS = 998  # frames of the front-end
LONGEST_STEPS = 768  # that the table of positions has
EAT_STATS = (-4.268, 4.569)
#: size -> width, blocks, heads
SIZES = {"base": (768, 12, 12), "large": (1024, 24, 16)}
INPUTS = ("clip", "padded")
READOUTS = ("mean", "patches", "side_by_side", "cls")
_NAMES = (
    ("modality_encoders.IMAGE.", ""),
    ("context_encoder.norm.", "pre_norm."),
    ("local_encoder.proj.", "patch_embed.proj."),
    ("fixed_positional_encoder.positions", "positions"),
)


class Eat(Encoder):
    """EAT with every block; see the module's docstring.

    Args:
        size: "base" or "large".
        input: "clip" (the clip's own length) or "padded" (1024 frames).
        readout: "mean", "patches", "side_by_side" or "cls".
        n_classes: classes of a fine-tuned checkpoint's head; 0 for none.
        head_eps: epsilon of the head's LayerNorm: 1e-5 in the hub's code, 1e-6 in fairseq's.
        n_blocks: blocks, for tests; 0 for all blocks of the size.

    Raises:
        ValueError: if an option is none of these.

    Example:
        >>> Eat(n_blocks=1).encode(torch.zeros(1, 16000))["block1"].shape
        torch.Size([1, 7, 768])
    """

    sample_rate = 16000
    min_samples = 400
    norm_stats = EAT_STATS
    batch_seconds = 80.0
    ignored_tensors = ("decoder.", "alibi_")
    positions: Tensor

    def __init__(
        self,
        size: str = "base",
        input: str = "clip",
        readout: str = "mean",
        n_classes: int = 0,
        head_eps: float = 1e-5,
        n_blocks: int = 0,
    ) -> None:
        super().__init__()
        for option, value, known in (("size", size, SIZES), ("input", input, INPUTS), ("readout", readout, READOUTS)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for eat; {near_miss(value, known)}")
        width, n_all, n_heads = SIZES[size]
        n_blocks = n_blocks or n_all
        self.input, self.readout = input, readout
        self.mel = KaldiFilterbank(window="symmetric")
        self.patch_embed = PatchEmbed(width, (PATCH, PATCH))
        self.extra_tokens = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.register_buffer("positions", sincos_table(LONGEST_STEPS, N_BANDS, width, n_first=0))
        self.pre_norm = nn.LayerNorm(width, eps=EPSILON)
        self.blocks = Blocks(n_blocks, width, n_heads, norm="post", eps=EPSILON)
        self.fc_norm = nn.LayerNorm(width, eps=head_eps).requires_grad_(False) if n_classes else None
        self.classifier = nn.Linear(width, n_classes).requires_grad_(False) if n_classes else None
        hop = 0 if readout == "cls" or (input == "padded" and readout != "side_by_side") else PATCH * HOP
        note = {
            "mean": "mean of cls and patches",
            "patches": "mean over the 8 bands",
            "side_by_side": "8 bands side by side",
            "cls": "cls",
        }
        wide = N_BANDS * width if readout == "side_by_side" else width
        self.layer_infos = tuple(
            LayerInfo(f"block{n}", wide, hop, "mean", note[readout]) for n in range(1, n_blocks + 1)
        )
        self.default_layers = (f"block{n_blocks}",)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the fairseq files, or of the hub's, to this module's own names."""
        renamed: dict[str, Tensor] = {}
        for name, tensor in state_dict_of(checkpoint).items():
            name = name.removeprefix("model.")
            for old, new in (*_NAMES, ("head.", "classifier.")):
                name = new + name.removeprefix(old) if name.startswith(old) else name
            renamed[name] = tensor
        stored = renamed.get("positions")
        if stored is not None and stored.shape[1] < self.positions.shape[1]:  # older files have 512
            rest = self.positions[:, stored.shape[1] :]
            renamed["positions"] = torch.cat([stored, rest.to(stored)], dim=1)
        return renamed

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames: 1 + (samples - 400) // 160, at most 1024 where the input is padded.

        (batch,) samples -> (batch,) frames.
        """
        frames = self.mel.frames(lengths)
        return frames.clamp(max=PADDED_FRAMES) if self.input == "padded" else frames

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 128) log-mel of the clip shifted to mean 0, before it is filled."""
        inside = torch.arange(waveform.shape[1], device=waveform.device)[None, :] < lengths[:, None]
        mean = waveform.sum(dim=1, keepdim=True) / lengths[:, None]
        logmel = self.mel((waveform - mean) * inside)
        return logmel[:, :PADDED_FRAMES] if self.input == "padded" else logmel

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame for every 16 log-mel frames that the network is given, or one frame a clip.

        (batch,) samples -> (batch,) frames.
        """
        if self.layer_infos[0].hop == 0:
            return torch.ones_like(lengths)
        frames = self.network_input_frames(lengths)
        return count_steps(frames, LONGEST_STEPS * PATCH, lambda n: steps_of(n, self.input == "padded"))

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute what is read from every block: (batch, samples) -> layer name -> (batch, time, width)."""
        layers = self._layers(waveform, lengths, self.input == "padded", self.readout)
        if self.layer_infos[0].hop == 0:
            return {name: value.mean(dim=1, keepdim=True) for name, value in layers.items()}
        return layers

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, classes) logits of the fine-tuned checkpoint's classes, for the official input of 1024 frames.

        Raises:
            ValueError: if the checkpoint is not fine-tuned.
        """
        if self.classifier is None or self.fc_norm is None:
            raise ValueError(f"{self.name or 'eat'} has no classifier head; eat.as2m has one")
        cls = self._layers(waveform, lengths, True, "cls")[self.layer_infos[-1].name][:, 0]
        return self.classifier(self.fc_norm(cls))

    def _layers(self, waveform: Tensor, lengths: Tensor, is_padded: bool, readout: str) -> dict[str, Tensor]:
        """Every block's readout, layer -> (batch, time step, feature)."""
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        logmel, frames = self.network_input(waveform, lengths), self.network_input_frames(lengths)
        if is_padded:
            frames = frames.clamp(max=PADDED_FRAMES)
        beyond = torch.arange(logmel.shape[1], device=logmel.device)[None, :] >= frames[:, None]
        return run_windows(
            lambda filled: self._network((filled - mean) / (2 * std), readout),
            logmel.masked_fill(beyond[:, :, None], 0.0),
            frames,
            unit=LONGEST_STEPS * PATCH,
            size=lambda n: PATCH * steps_of(n, is_padded),
            steps=lambda n: 1 if readout == "cls" else steps_of(n, is_padded),
            chunk_frames=2**14,
            per_window=tuple(info.name for info in self.layer_infos) if readout == "cls" else (),
        )

    def _network(self, logmel: Tensor, readout: str) -> dict[str, Tensor]:
        """(window, time, 128), filled and normalised -> layer -> (window, time step, feature)."""
        tokens = self.patch_embed(logmel)  # (window, time x band, width)
        tokens = with_first(self.extra_tokens, tokens + self.positions[:, : tokens.shape[1]])
        outputs = enumerate(self.blocks(self.pre_norm(tokens)), start=1)
        return {f"block{number}": read(output, readout) for number, output in outputs}


def read(tokens: Tensor, readout: str) -> Tensor:
    """Read what a layer gives of its tokens.

    Args:
        tokens: (window, 1 + time x 8, width): cls, then patches, time-major.
        readout: "cls", "side_by_side", "patches" or "mean".

    Returns:
        (window, time step, feature); "cls": (window, 1, width). The mean over time of "mean" is the mean over all tokens.

    Example:
        >>> tokens = torch.arange(17.0).view(1, 17, 1)
        >>> read(tokens, "mean").mean().item() == tokens.mean().item(), read(tokens, "patches").flatten().tolist()
        (True, [4.5, 12.5])
    """
    cls, grid = tokens[:, :1], grid_of(tokens[:, 1:], N_BANDS, "time")  # (window, time, band, width)
    if readout == "cls":
        return cls
    if readout == "side_by_side":
        return grid.flatten(2)
    if readout == "patches":
        return grid.mean(dim=2)
    return (grid.sum(dim=2) * grid.shape[1] + cls) / tokens.shape[1]


def steps_of(n_frames: int, is_padded: bool) -> int:
    """Time steps of 16 frames that a window is filled to.

    Example:
        >>> steps_of(100, True), steps_of(100, False), steps_of(998, False), steps_of(1025, False)
        (64, 7, 64, 65)
    """
    if is_padded or TEN_SECONDS <= n_frames <= PADDED_FRAMES:
        return PADDED_FRAMES // PATCH
    return -(-n_frames // PATCH)
