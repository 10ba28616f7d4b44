"""AST: a vision transformer on patches of a log-mel spectrogram, trained to tag AudioSet.

Paper: Gong, Chung, Glass, "AST: Audio Spectrogram Transformer", Interspeech 2021. Checkpoints (BSD-3-Clause): the hub's
`MIT/ast-finetuned-audioset-10-10-0.4593`, and the original file `audioset_10_10_0.4593.pth` (keys `module.v.*`, LayerNorm
epsilon 1e-6 instead of 1e-12); they hold the same numbers. DeiT weights (ImageNet), then AudioSet-2M with labels.
The network is that of `transformers`; the front-end and the reading of the layers are ours.

Input: 16 kHz. Kaldi filterbank: 400 samples every 160, frames inside the clip only, each frame's mean removed,
pre-emphasis 0.97, symmetric Hann, Fourier transform of 512, power, 128 HTK mel bands from 20 to 8000 Hz (triangles linear
in mel), ln(max(x, 1.1920929e-07)); band 3 is empty at this resolution. Normalised as (x - mean) / (2 std) by `norm_stats`,
by default AudioSet's (-4.2677393, 4.5689974). At least 16 frames (2,800 samples).

Two ways to bring a clip to the network: `input="clip"` (default, as the evaluation protocol does) takes the clip's own
length and adapts the stored 12 x 101 table of positions (its centre columns, or bilinear interpolation beyond 101);
`input="padded"` (as in training) fills with zeros, or cuts, to 1024 frames before normalising.

Layers block1..block12: the final LayerNorm applied to a block's output, mean of the cls and dist tokens; 768 wide, one
frame a clip (hop 0). block12 is the paper's. `outputs` gives the logits of the 527 AudioSet classes.

Differs from the original: under `input="clip"` clips of a batch that have another number of patches run apart, so that
no clip sees another's length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._logmel import MelSpectrogram
from evar.encoders._packing import count_missing
from evar.encoders._patches import keep_shown
from evar.encoders._transformers import load_transformers
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import read_checkpoint, state_dict_of

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

HOP, N_MELS, LOG_FLOOR = 160, 128, 1.1920929e-07
PATCH, STRIDE = 16, 10
N_BLOCKS, WIDTH, N_CLASSES = 12, 768, 527
PADDED_FRAMES = 1024
TABLE = (12, 101)  # patches over frequency and time that the stored table of positions has
AUDIOSET_STATS = (-4.2677393, 4.5689974)
INPUTS = ("clip", "padded")
ORIGINAL_EPSILON, HUB_EPSILON = 1e-6, 1e-12

# Parts of names in the original file and in the hub's older files -> names in transformers' modules.
_ORIGINAL = (
    ("v.cls_token", "embeddings.cls_token"),
    ("v.dist_token", "embeddings.distillation_token"),
    ("v.pos_embed", "embeddings.position_embeddings"),
    ("v.patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("v.blocks.", "layers."),
    ("v.norm.", "layernorm."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.o_proj."),
    ("mlp_head.0.", "classifier.layernorm."),
    ("mlp_head.1.", "classifier.dense."),
)
_HUB = (
    ("audio_spectrogram_transformer.", ""),
    ("encoder.layer.", "layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


class AST(Encoder):
    """AST with every block; see the module's docstring.

    Args:
        input: "clip" (the clip's own length) or "padded" (zeros, or a cut, to 1024 frames).
        layer_norm_eps: of the transformer; `from_config` sets it by the checkpoint's format.

    Raises:
        ValueError: if the input is another.
        ImportError: if `transformers` is not installed.

    Example:
        >>> encoder = AST(input="padded")  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 16000))["block12"].shape  # doctest: +SKIP
        torch.Size([1, 1, 768])
    """

    sample_rate = 16000
    default_layers = ("block12",)
    min_samples = 400 + (PATCH - 1) * HOP
    norm_stats = AUDIOSET_STATS
    ignored_tensors = ("v.head.", "v.head_dist.")  # ImageNet's classifiers
    batch_seconds = 80.0
    has_patches = True

    def __init__(self, input: str = "clip", layer_norm_eps: float = HUB_EPSILON) -> None:
        super().__init__()
        if input not in INPUTS:
            raise ValueError(f"no input {input!r} for ast; {near_miss(input, INPUTS)}")
        self.input = input
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate,
            n_fft=512,
            win_length=400,
            hop=HOP,
            n_mels=N_MELS,
            f_min=20.0,
            f_max=8000.0,
            scale="htk",
            norm="none",
            slope="mel",
            window="symmetric",
            center="none",
            remove_dc=True,
            preemphasis=0.97,
            double=True,
        )
        network = _network(layer_norm_eps)
        body = network.audio_spectrogram_transformer
        self.embeddings, self.blocks, self.layernorm = body.embeddings, body.layers, body.layernorm
        self.classifier = network.classifier.requires_grad_(False)  # no layer depends on it
        self.layer_infos = tuple(
            LayerInfo(f"block{number}", WIDTH, 0, "mean", "final LayerNorm, mean of cls and dist")
            for number in range(1, N_BLOCKS + 1)
        )

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build; take the LayerNorm epsilon from the checkpoint's format, and refuse a folder of another AST."""
        if weights is not None:
            import dataclasses

            epsilon = _epsilon(Path(weights))
            config = dataclasses.replace(config, options={"layer_norm_eps": epsilon, **config.options})
        return super().from_config(config, weights=weights)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the original file, or of an old or new file of the hub, to this module's own names."""
        state = state_dict_of(checkpoint)
        is_original = any(name.startswith("v.") for name in state)
        renamed: dict[str, Tensor] = {}
        for name, tensor in state.items():
            for old, new in _ORIGINAL if is_original else _HUB:
                name = name.replace(old, new)
            if ".attn.qkv." in name:
                for part, value in zip("qkv", tensor.chunk(3), strict=True):
                    renamed[name.replace("attn.qkv", f"attention.{part}_proj")] = value
            else:
                renamed[name] = tensor
        return {name.replace("layers.", "blocks.", 1): value for name, value in renamed.items()}

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames: 1 + (samples - 400) // 160, at most 1024 where the input is padded.

        (batch,) samples -> (batch,) frames.
        """
        frames = self.mel.frames(lengths)
        return frames.clamp(max=PADDED_FRAMES) if self.input == "padded" else frames

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 128) log-mel before normalisation; if padded, time is 1024."""
        logmel = self.mel(waveform).clamp(min=LOG_FLOOR).log()
        if self.input == "clip":
            return logmel
        logmel = nn.functional.pad(logmel[:, :PADDED_FRAMES], (0, 0, 0, count_missing(logmel.shape[1], PADDED_FRAMES)))
        beyond = (
            torch.arange(PADDED_FRAMES, device=logmel.device)[None, :] >= self.network_input_frames(lengths)[:, None]
        )
        return logmel.masked_fill(beyond[:, :, None], 0.0)

    def compute_normalised_input(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute what the patches are cut from: `frontend`, then (x - mean) / (2 std).

        Returns:
            (batch, time, 128).
        """
        return self._normalise(self.frontend(waveform, lengths))

    def _normalise(self, logmel: Tensor) -> Tensor:
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        return (logmel - mean) / (2 * std)

    def position_table(self, n_frames: int) -> Tensor:
        """Cut or stretch the table of positions to the size of an input.

        Args:
            n_frames: log-mel frames of the input, at least 16.

        Returns:
            (1, 2 + 12 x columns, 768): cls, dist, then patches, frequency major, time fastest.

        Source: the authors' `ast_models.py`: centre columns of the stored table up to 101 columns, else bilinear.
        """
        columns = (n_frames - PATCH) // STRIDE + 1
        stored = self.embeddings.position_embeddings
        if columns == TABLE[1]:
            return stored
        grid = stored[:, 2:].transpose(1, 2).unflatten(2, TABLE)  # (1, 768, 12, 101)
        if columns < TABLE[1]:
            begin = TABLE[1] // 2 - columns // 2
            grid = grid[:, :, :, begin : begin + columns]
        else:
            grid = nn.functional.interpolate(grid, size=(TABLE[0], columns), mode="bilinear")
        return torch.cat([stored[:, :2], grid.flatten(2).transpose(1, 2)], dim=1)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame a clip, in every layer: (batch,) samples -> (batch,) frames."""
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute what is read from the tokens of every block; time is 1.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        patches = self._normalise(self.network_input(waveform, lengths))  # (batch, time, 128)
        if self.input == "padded":
            blocks = self._read(patches)
        else:
            columns = (self.network_input_frames(lengths) - PATCH) // STRIDE + 1
            blocks = patches.new_empty(len(patches), N_BLOCKS, WIDTH)
            for n_columns in columns.unique().tolist():
                rows = (columns == n_columns).nonzero()[:, 0]
                n_frames = PATCH + (n_columns - 1) * STRIDE  # what the patches cover
                blocks = blocks.index_copy(0, rows, self._read(patches[rows, :n_frames]))
        return {info.name: blocks[:, number][:, None] for number, info in enumerate(self.layer_infos)}

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) logits of the AudioSet classes, in AudioSet's order."""
        return self.classifier(self.forward(waveform, lengths)[self.layer_infos[-1].name][:, 0])

    def _read(self, patches: Tensor) -> Tensor:
        """(batch, time, 128), normalised -> (batch, 12, 768)."""
        tokens = self.embeddings.patch_embeddings(patches)  # (batch, patch, 768)
        first = torch.cat([self.embeddings.cls_token, self.embeddings.distillation_token], dim=1)
        tokens = torch.cat([first.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = tokens + self.position_table(patches.shape[1])
        if self.patch_out is not None:
            columns = (patches.shape[1] - PATCH) // STRIDE + 1
            kept_rows, kept_columns = self.patch_out.draw(len(tokens), TABLE[0], columns)
            tokens = torch.cat([tokens[:, :2], keep_shown(tokens[:, 2:], kept_rows, kept_columns, columns)], dim=1)
        read = []
        for block in self.blocks:
            tokens = block(tokens)
            read.append(self.layernorm(tokens[:, :2]).mean(dim=1))  # (batch, 768)
        return torch.stack(read, dim=1)


def _network(epsilon: float) -> Any:
    transformers = load_transformers("ast")
    settings: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_hidden_layers": N_BLOCKS,
        "num_attention_heads": 12,
        "intermediate_size": 4 * WIDTH,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": epsilon,
        "patch_size": PATCH,
        "qkv_bias": True,
        "frequency_stride": STRIDE,
        "time_stride": STRIDE,
        "max_length": PADDED_FRAMES,
        "num_mel_bins": N_MELS,
        "num_labels": N_CLASSES,
    }
    return transformers.ASTForAudioClassification(transformers.ASTConfig(**settings))


def _epsilon(checkpoint: Path) -> float:
    """LayerNorm epsilon by format: what a folder's config.json says, 1e-12 for a hub file, 1e-6 for the original one.

    Raises:
        ValueError: if the folder's config.json or preprocessor_config.json is that of another AST.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if not checkpoint.is_dir() and checkpoint.name != "model.safetensors":
        names = state_dict_of(read_checkpoint(checkpoint))
        return ORIGINAL_EPSILON if any(name.startswith("v.") for name in names) else HUB_EPSILON
    config = _json(folder / "config.json")
    preprocessor = _json(folder / "preprocessor_config.json")
    needed = {
        "hidden_size": WIDTH,
        "num_hidden_layers": N_BLOCKS,
        "patch_size": PATCH,
        "frequency_stride": STRIDE,
        "time_stride": STRIDE,
        "num_mel_bins": N_MELS,
        "max_length": PADDED_FRAMES,
    }
    front_end = {"num_mel_bins": N_MELS, "max_length": PADDED_FRAMES, "sampling_rate": 16000}
    statistics = {"mean": AUDIOSET_STATS[0], "std": AUDIOSET_STATS[1]}
    for found, wanted in ((config, needed), (preprocessor, {**front_end, **statistics})):
        for key, value in wanted.items():
            if key in found and abs(found[key] - value) > 1e-6:
                raise ValueError(
                    f"{folder} is another AST: {key} is {found[key]}, but ast needs {value}; try hf:{folder}"
                )
    return float(config.get("layer_norm_eps", HUB_EPSILON))


def _json(path: Path) -> Mapping[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
