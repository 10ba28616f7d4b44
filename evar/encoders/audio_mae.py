"""Audio-MAE: a vision transformer on patches of a log-mel spectrogram, trained to fill in masked patches.

Paper: Huang et al., "Masked Autoencoders that Listen", NeurIPS 2022. Checkpoints: facebookresearch/AudioMAE, pre-trained
(`audio_mae`) and fine-tuned on AudioSet (`audio_mae.as2m`). The repository's LICENSE file is CC BY-NC 4.0, its README says
CC BY 4.0: treat them as non-commercial. Trained on AudioSet-2M, without labels; the fine-tuned one also with labels.

Input: 16 kHz, Kaldi filterbank of 128 bands with a symmetric Hann window, natural logarithm; filled with zeros to 1024
frames BEFORE it is normalised as (x - mean) / (2 std) by `norm_stats`, by default AudioSet's (-4.2677393, 4.5689974). At
least 400 samples. Patches of 16 x 16, time-major. The network has no other length than 1024 frames (10.24 s), and its fixed
table of positions was made for 8 rows of 64 columns but is added to 64 x 8 tokens in plain order: it is used as stored.

Two ways to bring a clip to the network: `input="clip"` (default) cuts it into windows of 1024 frames, the last one filled,
and keeps the time steps that hold the clip's own frames; `input="padded"` fills or CUTS the clip to 1024 frames and keeps
all 64 time steps, as the official pipeline does. A clip of 10.24 s gives the same vector both ways.

Layers block1..block12: residual stream, mean over the 8 bands, 768 wide, hop 2560, pooled by mean. Pre-trained: norm (the
final LayerNorm of block12, the usual choice of ports), contextual (default: mean of the normed blocks 10 to 12, what the
official encoder returns without masks), cls (the normed token of the whole clip, hop 0). Fine-tuned: fc_norm
(default: LayerNorm of the mean of block12, what the classifier sees, hop 0); `outputs` gives the logits of 527 classes.

Differs from the original: clips longer than 10.24 s are only cut there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._checkpoints import refuse_other
from evar.encoders._filterbanks import KaldiFilterbank
from evar.encoders._patch_encoder import PatchEncoder
from evar.encoders._vit import Blocks, PatchEmbed, sincos_table, with_first
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import mean
from evar.encoders.weights import load_strict, read_checkpoint

HOP, PATCH, WIDTH, N_HEADS, N_CLASSES = 160, 16, 768, 12, 527
FRAMES = 1024
AUDIOSET_STATS = (-4.2677393, 4.5689974)
INPUTS = ("clip", "padded")
#: blocks whose normed outputs the official encoder averages
N_CONTEXTUAL = 3


class AudioMae(PatchEncoder):
    """Audio-MAE with every block; see the module's docstring.

    Args:
        input: "clip" (windows of 10.24 s, own time steps) or "padded" (zeros, or a cut, to 1024 frames).
        fine_tuned: whether it is the network of the fine-tuned file, with its classifier.
        n_blocks: of the transformer.

    Raises:
        ValueError: if the input is another.

    Example:
        >>> encoder = AudioMae()  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 16000))["contextual"].shape  # doctest: +SKIP
        torch.Size([1, 7, 768])
    """

    sample_rate = 16000
    norm_stats = AUDIOSET_STATS
    unit, patch, step, n_bands = FRAMES, PATCH, PATCH, 8
    ignored_tensors = ("decoder_", "mask_token")  # of training; no feature depends on them
    pos_embed: Tensor

    def __init__(self, input: str = "clip", fine_tuned: bool = False, n_blocks: int = 12) -> None:
        super().__init__()
        if input not in INPUTS:
            raise ValueError(f"no input {input!r} for audio_mae; {near_miss(input, INPUTS)}")
        self.input, self.fine_tuned = input, fine_tuned
        self.mel = KaldiFilterbank(window="symmetric")
        self.min_samples = self.mel.min_samples
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.patch_embed = PatchEmbed(WIDTH, (PATCH, PATCH))
        self.register_buffer("pos_embed", sincos_table(self.n_bands, FRAMES // PATCH, WIDTH))
        self.blocks = Blocks(n_blocks, WIDTH, N_HEADS)
        notes = {f"block{number}": "residual stream" for number in range(1, n_blocks + 1)}
        if fine_tuned:
            self.fc_norm = nn.LayerNorm(WIDTH, eps=1e-6)
            self.classifier = nn.Linear(WIDTH, N_CLASSES).requires_grad_(False)  # no layer depends on it
            last = LayerInfo("fc_norm", WIDTH, 0, "mean", "LayerNorm of the mean of the last block")
        else:
            self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
            notes |= {"norm": "final LayerNorm", "contextual": "mean of the last three blocks, normed"}
            last = LayerInfo("cls", WIDTH, 0, "mean", "normed token of the whole clip, mean over windows")
        self.layer_infos = (*self.patch_layers(notes, WIDTH, PATCH * HOP), last)
        self.default_layers = ("fc_norm" if fine_tuned else "contextual",)

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Load a checkpoint; if it belongs to another encoder, say which one takes it."""
        state = self.convert(read_checkpoint(path))
        refuse_other(state, path, name, "audio_mae.as2m" if self.fine_tuned else "audio_mae")
        state = {key.replace("head.", "classifier.", 1): value for key, value in state.items()}
        load_strict(self, state, path, ignore=self.ignored_tensors)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames: 1 + (samples - 400) // 160, at most 1024 where the input is padded.

        (batch,) samples -> (batch,) frames.
        """
        frames = self.mel.frames(lengths)
        return frames.clamp(max=FRAMES) if self.input == "padded" else frames

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 128) log-mel before normalisation, at most 1024 frames where padded."""
        logmel = self.mel(waveform)
        return logmel[:, :FRAMES] if self.input == "padded" else logmel

    def window_size(self, n_frames: int) -> int:
        """Return 1024, the size of every window."""
        return FRAMES

    def window_steps(self, n_frames: int) -> int:
        """Count the patches that hold a frame of the clip; all 64 if the input is padded."""
        return FRAMES // PATCH if self.input == "padded" else -(-n_frames // PATCH)

    def every_layer(self, spectrogram: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Run windows of 1024 frames: (window, frames, 128) -> each layer's name and grid (window, time, band, 768)."""
        assert self.norm_stats is not None
        mean_, std = self.norm_stats
        tokens = self.patch_embed((spectrogram - mean_) / (2 * std)) + self.pos_embed[:, 1:]  # (window, 512, 768)
        grid = self.grid(tokens, "time")
        tokens = with_first(self.cls_token + self.pos_embed[:, :1], grid.tokens)
        contextual = torch.zeros_like(tokens)
        n_blocks = len(self.blocks)
        n_contextual = min(N_CONTEXTUAL, n_blocks)
        for number, stream in enumerate(self.blocks(tokens), start=1):
            yield f"block{number}", grid.lay_out(stream[:, 1:])
            if not self.fine_tuned and number > n_blocks - n_contextual:
                contextual = contextual + self.norm(stream) / n_contextual
        if not self.fine_tuned:
            stream = self.norm(stream)
            yield "norm", grid.lay_out(stream[:, 1:])
            yield "contextual", grid.lay_out(contextual[:, 1:])
            yield "cls", stream[:, None, :1]  # (window, 1, 1, 768)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer; the last one of the fine-tuned network belongs to the clip, not to its windows.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        layers = super().forward(waveform, lengths)
        if self.fine_tuned:
            last = f"block{len(self.blocks)}"
            layers["fc_norm"] = self.fc_norm(mean(layers[last], self.valid_frames(lengths)[last]))[:, None]
        return layers

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) logits of the AudioSet classes, before the sigmoid.

        Raises:
            ValueError: if it is the pre-trained network, which has no classifier.
        """
        if not self.fine_tuned:
            raise ValueError(f"{self.name or 'audio_mae'} has no classifier head; use audio_mae.as2m")
        return self.classifier(self.forward(waveform, lengths)["fc_norm"][:, 0])
