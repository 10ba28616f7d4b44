"""MAE-AST: a transformer on patches of a log-mel spectrogram, trained to fill in and to tell masked patches.

Paper: Baade, Peng, Harwath, "MAE-AST: Masked Autoencoding Audio Spectrogram Transformer", Interspeech 2022. Checkpoints:
AlanBaade/MAE-AST-Public, which has no licence file; `chunk_patch_75_12LayerEncoder.pt` (`mae_ast.patch`: patches of 16
frames x 16 mels) and `random_frame_75_12LayerEncoder.pt` (`mae_ast.frame`: 2 frames x 128 mels). Trained on AudioSet-2M and
LibriSpeech 960 h, without labels.

Input: 16 kHz, Kaldi filterbank of 128 bands with Povey's window, natural logarithm, normalised as (x - mean) / (2 std) by
the checkpoint's own running mean and variance, which are this encoder's `norm_stats` (AudioSet's (-4.2677393, 4.5689974)
with random weights). At least 2,800 samples (16 frames), of the frame model 560 (2 frames); frames that fill no patch are
left out.

Any length goes through the network at once: fixed sinusoids over the flattened index of the token, time-major; a LayerNorm
before the first block; post-norm blocks (epsilon 1e-5); none after. `window_frames` cuts long clips into windows of that
many frames (0: none), which bounds time and memory; no official vector depends on it.

Layers block1..block12, the last one the default: in the patch model the 8 bands of a time step side by side, 6144 wide, hop
2560, as s3prl gives them; in the frame model 768 wide, hop 320. Pooled by mean. `bands="mean"` averages the bands (768).

Differs from the original: clips of a batch that have another number of patches run apart, instead of behind a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._checkpoints import refuse_other
from evar.encoders._filterbanks import KaldiFilterbank
from evar.encoders._patch_encoder import PatchEncoder
from evar.encoders._vit import Blocks, PatchEmbed, join_qkv, sinusoid_table
from evar.encoders.weights import load_strict, read_checkpoint, state_dict_of

HOP, N_MELS, WIDTH, N_HEADS, EPSILON = 160, 128, 768, 12, 1e-5
AUDIOSET_STATS = (-4.2677393, 4.5689974)
#: kind -> frames and mels of a patch
KINDS = {"patch": (16, 16), "frame": (2, 128)}
BANDS = ("side_by_side", "mean")
_NEW_NAMES = (
    ("encoder.layers.", "blocks."),
    (".self_attn_layer_norm.", ".norm1."),
    (".final_layer_norm.", ".norm2."),
    (".fc1.", ".mlp.fc1."),
    (".fc2.", ".mlp.fc2."),
    ("encoder.layer_norm.", "norm."),
    ("post_extract_proj.", "patch_embed.proj."),
)


class MaeAst(PatchEncoder):
    """MAE-AST with every block; see the module's docstring.

    Args:
        kind: "patch" or "frame".
        bands: of the patch model: "side_by_side" (6144 wide) or "mean" (768 wide).
        window_frames: frames of a window of the front-end; 0: the clip as a whole.
        n_blocks: of the transformer.

    Raises:
        ValueError: if an option is another.

    Example:
        >>> encoder = MaeAst("frame")  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 16000))["block12"].shape  # doctest: +SKIP
        torch.Size([1, 49, 768])
    """

    sample_rate = 16000
    norm_stats = AUDIOSET_STATS
    # of training, and tables that are formulas; no feature depends on them
    ignored_tensors = (
        *("encoder_mask_emb", "decoder_mask_emb", "decoder.", "final_proj_", "layer_norm."),
        *("enc_sine_pos_embed.", "dec_sine_pos_embed.", "batch_norm."),
    )

    def __init__(
        self, kind: str = "patch", bands: str = "side_by_side", window_frames: int = 0, n_blocks: int = 12
    ) -> None:
        super().__init__()
        for what, value, known in (("kind", kind, KINDS), ("bands", bands, BANDS)):
            if value not in known:
                raise ValueError(f"no {what} {value!r} for mae_ast; {near_miss(value, known)}")
        self.kind, size = kind, KINDS[kind]
        if window_frames and window_frames < size[0]:
            raise ValueError(f"window_frames must be 0 or at least {size[0]}, got {window_frames}")
        self.unit, self.patch, self.step = window_frames, size[0], size[0]
        self.n_bands, self.side_by_side = N_MELS // size[1], bands == "side_by_side"
        self.mel = KaldiFilterbank(window="povey")
        self.min_samples = self.mel.min_samples + (self.patch - 1) * HOP
        self.patch_embed = PatchEmbed(WIDTH, size)
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.blocks = Blocks(n_blocks, WIDTH, N_HEADS, norm="post", eps=EPSILON)
        notes = {f"block{number}": "output" for number in range(1, n_blocks + 1)}
        self.layer_infos = self.patch_layers(notes, WIDTH, self.step * HOP)
        self.default_layers = (f"block{n_blocks}",)

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Load a checkpoint and its input statistics, and refuse one with patches of another size."""
        checkpoint = read_checkpoint(path)
        state = state_dict_of(checkpoint)
        refuse_other(state, path, name, "mae_ast")
        self.check_patches(checkpoint, path, name)
        load_strict(self, self.convert(state), path, ignore=self.ignored_tensors)
        if "batch_norm.running_mean" in state and "batch_norm.running_var" in state:
            variance = float(state["batch_norm.running_var"]) + EPSILON
            self.norm_stats = (float(state["batch_norm.running_mean"]), variance**0.5)

    def check_patches(self, checkpoint: Mapping[str, Any], path: Path, name: str) -> None:
        """Refuse a checkpoint whose settings tell patches of another size: its tensors have the same shapes.

        Raises:
            ValueError: naming the encoder that takes it.
        """
        settings = checkpoint.get("cfg")
        network = settings.get("model") if isinstance(settings, Mapping) else None
        if not isinstance(network, Mapping):
            return
        told = tuple(network.get(f"ast_kernel_size_{axis}") for axis in ("time", "chan"))
        if None not in told and told != KINDS[self.kind]:
            fits = next((f"use mae_ast.{kind}" for kind, size in KINDS.items() if size == told), "no encoder here does")
            raise ValueError(
                f"{path.name} is an MAE-AST with patches of {told[0]} frames x {told[1]} mels, but {name} takes "
                f"{KINDS[self.kind][0]} x {KINDS[self.kind][1]}; {fits}"
            )

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename fairseq's tensors; the projection of flattened patches becomes one of images."""
        state: dict[str, Tensor] = {}
        for name, tensor in state_dict_of(checkpoint).items():
            for old, new in _NEW_NAMES:
                name = name.replace(old, new) if not name.startswith("decoder") else name
            state[name] = tensor
        kernel = state.get("patch_embed.proj.weight")
        if kernel is not None and kernel.dim() == 2 and kernel.shape[1] == 256:
            state["patch_embed.proj.weight"] = kernel.unflatten(1, (1, *KINDS[self.kind]))  # (768, 1, frames, mels)
        return join_qkv(state)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + (samples - 400) // 160: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 128) log-mel before normalisation."""
        return self.mel(waveform)

    def every_layer(self, spectrogram: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Run windows: (window, frames, 128) -> each block's name and grid (window, time, band, 768)."""
        assert self.norm_stats is not None
        mean, std = self.norm_stats
        tokens = self.patch_embed((spectrogram - mean) / (2 * std))  # (window, time x bands, 768), bands fastest
        grid = self.grid(tokens + sinusoid_table(tokens.shape[1], WIDTH).to(tokens), "time")
        for number, stream in enumerate(self.blocks(self.norm(grid.tokens)), start=1):
            yield f"block{number}", grid.lay_out(stream)
