"""BEATs: a transformer on log-mel patches whose attention knows how far apart two patches are.

Papers: Chen et al., "BEATs: Audio Pre-Training with Acoustic Tokenizers", ICML 2023; Bharadwaj et al., "OpenBEATs: A
Fully Open-Source General-Purpose Audio Encoder", WASPAA 2025. Checkpoints: BEATs_iter3.pt, BEATs_iter3_plus_AS2M.pt and
fine-tuned ones of microsoft/unilm (code MIT, no licence stated for the weights), and OpenBEATs of ESPnet (CC BY 4.0),
base and large. BEATs: AudioSet-2M; iter3 without labels, iter3+ with a tokeniser that learnt from labels. OpenBEATs:
speech, music, environmental sounds and animals, without labels.

Input: 16 kHz, waveform x 2^15. Kaldi filterbank: 400 samples every 160 inside the clip only, each frame's mean removed,
pre-emphasis 0.97, Povey window, Fourier transform of 512, power, 128 mel bands from 20 to 8000 Hz (triangles linear in
mel), ln(max(x, 1.1920929e-07)). Normalised as (x - mean) / (2 std) by `norm_stats`. At least 16 frames (2,800 samples).

Network: patches of 16 x 16 without overlap, 8 bands a time step, time-major; incomplete ones are dropped. LayerNorm, a
projection, a positional convolution over 128 tokens, LayerNorm; then post-norm blocks with DeepNorm. Every head adds to
its scores a bias by distance, which a gate of the query scales. A clip of any length goes through whole, as in the
original: memory grows with the square of its length (30 s: 1,496 tokens).

Layers: input (before block 1) and block1..block12 (large: block24), mean over the 8 bands, 768 (1024) wide, hop 2560,
pooled by mean, which is the mean over all tokens. The last block is the default. `bands="side_by_side"` keeps the 8
bands, from low to high, 6144 (8192) wide. `outputs` of a fine-tuned checkpoint gives the tags' probabilities.

Differs from the original: clips of a batch that have other numbers of patches run apart, so that none sees another's
padding (the original's mask of padding is only roughly where it should be).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._filterbanks import KaldiFilterbank
from evar.encoders._vit import Attention, Blocks, grid_of, join_qkv
from evar.encoders._windows import run_windows
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import read_checkpoint, state_dict_of

if TYPE_CHECKING:
    from evar.config import EncoderConfig

HOP, SCALE = 160, 2.0**15
PATCH, N_BANDS, EMBEDDING, EPSILON = 16, 8, 512, 1e-5
KERNEL, GROUPS, N_BUCKETS, N_CLASSES = 128, 16, 320, 527
BEATS_STATS = (15.41663, 6.55582)
#: size -> width, blocks, heads
SIZES = {"base": (768, 12, 12), "large": (1024, 24, 16)}
BANDS = ("mean", "side_by_side")
# Pairs of tokens in a forward: each has a number for each head in memory.
_CHUNK_PAIRS = 16 * 496**2
_NAMES = (
    ("encoder.layers.", "blocks."),
    ("encoder.layer_norm.", "encoder_norm."),
    ("encoder.pos_conv.0.", "pos_conv."),
    (".self_attn.grep_", ".attn.grep_"),
    (".self_attn_layer_norm.", ".norm1."),
    (".final_layer_norm.", ".norm2."),
    (".fc1.", ".mlp.fc1."),
    (".fc2.", ".mlp.fc2."),
)
# What the published files' cfg must say; the class of the original has other defaults, which are never meant.
_NEEDED = {
    "input_patch_size": PATCH,
    "embed_dim": EMBEDDING,
    "conv_bias": False,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "conv_pos": KERNEL,
    "conv_pos_groups": GROUPS,
    "relative_position_embedding": True,
    "num_buckets": N_BUCKETS,
    "gru_rel_pos": True,
}


class Beats(Encoder):
    """BEATs with every block; see the module's docstring.

    Args:
        size: "base" or "large".
        n_blocks: blocks; 0 for all blocks of the size.
        n_classes: tags of a fine-tuned checkpoint's head; 0 for none.
        max_distance: distance in tokens from which all share a bias; a checkpoint's own counts.
        mean, std: of the input; those of the checkpoint count, if it has any.
        bands: "mean" over the 8 bands of a time step, or "side_by_side".

    Raises:
        ValueError: if an option is none of these.

    Example:
        >>> encoder = Beats(n_blocks=1)
        >>> encoder.encode(torch.zeros(1, 16000))["block1"].shape
        torch.Size([1, 6, 768])
    """

    sample_rate = 16000
    min_samples = 400 + (PATCH - 1) * HOP
    batch_seconds = 80.0
    # of training, or copies; no feature depends on them
    ignored_tensors = ("mask_", "*_pad.weight", "decoder.", "final_proj.", "label_embs_concat", "quantize.")

    def __init__(
        self,
        size: str = "base",
        n_blocks: int = 0,
        n_classes: int = 0,
        max_distance: int = 800,
        mean: float = BEATS_STATS[0],
        std: float = BEATS_STATS[1],
        bands: str = "mean",
    ) -> None:
        super().__init__()
        for option, value, known in (("size", size, SIZES), ("bands", bands, BANDS)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for beats; {near_miss(value, known)}")
        width, n_all, n_heads = SIZES[size]
        n_blocks = n_blocks or n_all
        self.bands, self.norm_stats, self.max_distance = bands, (mean, std), max_distance
        self.mel = KaldiFilterbank(scale=SCALE)
        self.patch_embedding = nn.Conv2d(1, EMBEDDING, PATCH, stride=PATCH, bias=False)
        self.layer_norm = nn.LayerNorm(EMBEDDING, eps=EPSILON)
        self.post_extract_proj = nn.Linear(EMBEDDING, width)
        self.pos_conv = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=GROUPS)
        self.encoder_norm = nn.LayerNorm(width, eps=EPSILON)
        self.distance_bias = nn.Embedding(N_BUCKETS, n_heads)
        self.blocks = Blocks(
            n_blocks,
            width,
            n_heads,
            norm="post",
            eps=EPSILON,
            residual_scale=(2 * n_blocks) ** 0.25,  # DeepNorm
            attention=GatedAttention,
        )
        self.predictor = nn.Linear(width, n_classes).requires_grad_(False) if n_classes else None
        wide = width if bands == "mean" else N_BANDS * width
        note = "mean over the 8 bands" if bands == "mean" else "8 bands side by side"
        names = ["input", *(f"block{number}" for number in range(1, n_blocks + 1))]
        self.layer_infos = tuple(LayerInfo(name, wide, PATCH * HOP, "mean", note) for name in names)
        self.default_layers = (names[-1],)

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build with the settings in the checkpoint's `cfg`, and refuse a checkpoint of another size or kind."""
        if weights is not None:
            checkpoint = read_checkpoint(weights)
            config = dataclasses.replace(config, options=_options(config, checkpoint, Path(weights).name))
        return super().from_config(config, weights=weights)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the published tensors; the two factors of the positional convolution become one kernel."""
        renamed: dict[str, Tensor] = {}
        for name, tensor in join_qkv(_without_prefix(state_dict_of(checkpoint))).items():
            if name.endswith("relative_attention_bias.weight"):  # one table, stored with every block
                renamed["distance_bias.weight"] = tensor
                continue
            for old, new in _NAMES:
                name = name.replace(old, new)
            renamed[name] = tensor
        gain, direction = renamed.pop("pos_conv.weight_g", None), renamed.pop("pos_conv.weight_v", None)
        if gain is not None and direction is not None:
            renamed["pos_conv.weight"] = direction * (gain / direction.norm(dim=(0, 1), keepdim=True))
        return renamed

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + (samples - 400) // 160: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 128) log-mel of the waveform times 2^15, before normalisation."""
        return self.mel(waveform)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame for 16 log-mel frames and drop the rest: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths) // PATCH

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute the input of the first block, and every block.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        logmel = (self.network_input(waveform, lengths) - mean) / (2 * std)  # (batch, time, 128)
        n_tokens = N_BANDS * (logmel.shape[1] // PATCH)
        return run_windows(
            self._network,
            logmel,
            self.mel.frames(lengths),
            unit=0,
            size=lambda n: n // PATCH * PATCH,
            steps=lambda n: n // PATCH,
            chunk_frames=max(1, _CHUNK_PAIRS // n_tokens**2) * logmel.shape[1],
        )

    def _network(self, logmel: Tensor) -> dict[str, Tensor]:
        """(clip, time, 128), normalised -> layer -> (clip, time step, feature)."""
        patches = self.patch_embedding(logmel[:, None]).flatten(2).transpose(1, 2)  # (clip, time x band, 512)
        tokens = self.post_extract_proj(self.layer_norm(patches))
        places = self.pos_conv(tokens.transpose(1, 2))[:, :, :-1]  # (clip, width, token)
        tokens = self.encoder_norm(tokens + nn.functional.gelu(places).transpose(1, 2))
        bias = distance_bias(self.distance_bias.weight, tokens.shape[1], self.max_distance)
        layers = {"input": self._by_time(tokens)}
        for number, output in enumerate(self.blocks(tokens, bias), start=1):
            layers[f"block{number}"] = self._by_time(output)
        return layers

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) probabilities of the AudioSet tags, in the order of the checkpoint's `label_dict`.

        Raises:
            ValueError: if the checkpoint is not fine-tuned.
        """
        if self.predictor is None:
            raise ValueError(f"{self.name or 'beats'} has no classifier head; beats.as2m has one")
        from evar.encoders.pooling import mean

        last = self.forward(waveform, lengths)[self.layer_infos[-1].name]
        if self.bands != "mean":
            last = last.unflatten(2, (N_BANDS, -1)).mean(dim=2)
        return self.predictor(mean(last, self.valid_frames(lengths))).sigmoid()

    def _by_time(self, tokens: Tensor) -> Tensor:
        """(clip, time x band, width) -> (clip, time, width), or (clip, time, band x width)."""
        grid = grid_of(tokens, N_BANDS, "time")
        return grid.mean(dim=2) if self.bands == "mean" else grid.flatten(2)


class GatedAttention(Attention):
    """Attention whose bias by distance is scaled by a gate, from the head's query before its own scaling.

    Source: Chi et al., "XLM-E", ACL 2022: gated relative position bias.
    """

    def __init__(self, width: int, n_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__(width, n_heads, qkv_bias=qkv_bias)
        self.grep_linear = nn.Linear(width // n_heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, n_heads, 1, 1))

    def make_bias(self, query: Tensor, bias: Tensor | None) -> Tensor | None:
        """Map (batch, head, query, width / heads) and (head, query, key) to (batch, head, query, key)."""
        assert bias is not None
        halves = self.grep_linear(query).unflatten(3, (2, 4)).sum(dim=4)  # (batch, head, query, 2)
        first, second = halves.sigmoid().chunk(2, dim=3)
        return (first * (second * self.grep_a - 1.0) + 2.0) * bias


def distance_bias(table: Tensor, n_tokens: int, max_distance: int) -> Tensor:
    """Compute what is added to the score of every query and key, by their distance in the row of tokens.

    Args:
        table: (bucket, head).
        n_tokens: tokens in a row.
        max_distance: from here on all distances share the last bucket.

    Returns:
        (head, query, key).

    Example:
        >>> table = torch.arange(320.0)[:, None]  # a head that shows its bucket
        >>> distance_bias(table, 3, 800)[0].tolist()
        [[0.0, 161.0, 162.0], [1.0, 0.0, 161.0], [2.0, 1.0, 0.0]]
    """
    span = torch.arange(1 - n_tokens, n_tokens, device=table.device)  # key - query
    by_distance = table[buckets(span, len(table), max_distance)]  # (distance, head)
    place = torch.arange(n_tokens, device=table.device)
    return by_distance[place[None, :] - place[:, None] + n_tokens - 1].permute(2, 0, 1).contiguous()


def buckets(distance: Tensor, n_buckets: int, max_distance: int) -> Tensor:
    """Find the bucket of each distance (any shape): half of them for keys behind the query, half for those ahead.

    Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", JMLR 2020:
        near distances have a bucket each, farther ones share logarithmically wider ones.

    Example:
        >>> buckets(torch.tensor([-5, 5, -79, -100, 799, 5000]), 320, 800).tolist()
        [5, 165, 79, 87, 319, 319]
    """
    half = n_buckets // 2
    exact = half // 2
    size = distance.abs()
    steps = (size.clamp(min=1).float() / exact).log() / math.log(max_distance / exact) * (half - exact)
    far = (exact + steps.long()).clamp(max=half - 1)
    return torch.where(size < exact, size, far) + half * (distance > 0)


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ESPnet's models hold the network under "encoder."."""
    if "decoder.linear_out.weight" in state:
        raise ValueError(
            "the checkpoint is an OpenBEATs that was fine-tuned with ESPnet, which no encoder takes; use the pre-trained "
            "file of the repository that its name tells, with openbeats.base or openbeats.large"
        )
    if "encoder.patch_embedding.weight" not in state:
        return dict(state)
    return {name.removeprefix("encoder."): value for name, value in state.items()}


def _options(config: EncoderConfig, checkpoint: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The YAML's options, with what the checkpoint says about itself."""
    cfg = checkpoint.get("cfg")
    options = dict(config.options)
    if isinstance(cfg, Mapping):
        for key, value in _NEEDED.items():
            if cfg.get(key, value) != value:
                raise ValueError(
                    f"{file} is another BEATs: its cfg has {key} {cfg[key]}, but {config.name} needs {value}"
                )
        options["max_distance"] = int(cfg.get("max_distance", 800))
        for own, theirs in (("mean", "fbank_mean"), ("std", "fbank_std")):
            if theirs in cfg:
                options[own] = float(cfg[theirs])
    return options
