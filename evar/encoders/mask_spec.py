"""MaskSpec: a vision transformer on patches of a log-mel spectrogram at 32 kHz, trained to fill in masked patches.

Paper: Chong et al., "Masked Spectrogram Prediction for Self-Supervised Audio Pre-Training", ICASSP 2023. Checkpoints
(Apache-2.0): WangHelin1997/MaskSpec, pre-trained (`mask_spec`) and fine-tuned on AudioSet (`mask_spec.as2m`). Trained on
AudioSet-2M, without labels; the fine-tuned one also with labels.

Input: 32 kHz. Pre-emphasis x[n+1] - 0.97 x[n]; power spectra of 800 samples (symmetric Hann) in 1024, every 320, centred,
mirrored at both ends; 128 mel bands from 0 to 15000 Hz with triangles linear in mel; ln(x + 1e-5); (x + 4.5) / 5; then
(x - mean) / std of each band. These 256 numbers are not in the checkpoint but in `audioset/mean_std_128.npy` of the
repository: the file must lie beside the checkpoint, or `statistics` gives its path. At least 4,801 samples (16 frames).

Three ways to bring a clip to the network, which takes 1000 frames (10 s) in 8 x 62 patches of 16 x 16:
`input="clip"` (default) cuts the waveform into windows of 10 s, fills the last one with zeros, and lets the network see
only the patches that hold the clip's own frames, as the authors' downstream scripts do for shorter clips;
`input="padded"` fills the waveform with zeros, or CUTS it, to 10 s;
`input="stretched"` takes the clip's own frames and stretches them to 1000 by bicubic interpolation (or CUTS them), as the
network does with inputs without padding; its layers have one frame a clip.
A clip of 10 s gives the same vector all ways. The authors' GPU code rounds waveform and pre-emphasis to 16-bit floats, which
lifts the quiet bands: `half_waveform=true` does so too, on any device.

Layers block1..block12: residual stream, mean over the 8 bands, 768 wide, hop 5120, pooled by mean. Pre-trained: norm (the
final LayerNorm, default), cls (the normed token of the whole clip, hop 0). Fine-tuned: fc_norm (default: LayerNorm of the
mean of block12, what the classifier sees, hop 0); `outputs` gives the logits of 527 classes.

Differs from the original: longer clips than 10 s go in windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._band_statistics import read_band_statistics
from evar.encoders._checkpoints import refuse_other
from evar.encoders._logmel import MelSpectrogram
from evar.encoders._packing import count_missing
from evar.encoders._patch_encoder import PatchEncoder
from evar.encoders._patches import PatchGrid
from evar.encoders._vit import Blocks, PatchEmbed, first_columns, sincos_table, with_first
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import mean
from evar.encoders.weights import load_strict, read_checkpoint

HOP, N_MELS, PATCH, WIDTH, N_HEADS, N_CLASSES = 320, 128, 16, 768, 12, 527
WINDOW_SAMPLES, WINDOW_FRAMES = 320000, 1000
PREEMPHASIS, LOG_OFFSET, SHIFT, SCALE = 0.97, 1e-5, 4.5, 5.0
INPUTS = ("clip", "padded", "stretched")
STATISTICS = "mean_std_128.npy"


class MaskSpec(PatchEncoder):
    """MaskSpec with every block; see the module's docstring.

    Args:
        input: "clip" (windows of 10 s, own patches), "padded" (zeros, or a cut, to 10 s) or "stretched" (to 10 s).
        fine_tuned: whether it is the network of the fine-tuned file, with its classifier.
        half_waveform: round waveform and pre-emphasis to 16-bit floats.
        statistics: path of `mean_std_128.npy`; "": beside the checkpoint.
        n_blocks: of the transformer.

    Raises:
        ValueError: if the input is another.

    Example:
        >>> encoder = MaskSpec()  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 64000))["norm"].shape  # doctest: +SKIP
        torch.Size([1, 12, 768])
    """

    sample_rate = 32000
    min_samples = (PATCH - 1) * HOP + 1
    unit, patch, step, n_bands = WINDOW_FRAMES, PATCH, PATCH, N_MELS // PATCH
    ignored_tensors = ("decoder_", "mask_token")  # of training; no feature depends on them
    band_mean: Tensor
    band_std: Tensor
    pos_embed: Tensor

    def __init__(
        self,
        input: str = "clip",
        fine_tuned: bool = False,
        half_waveform: bool = False,
        statistics: str = "",
        n_blocks: int = 12,
    ) -> None:
        super().__init__()
        if input not in INPUTS:
            raise ValueError(f"no input {input!r} for mask_spec; {near_miss(input, INPUTS)}")
        self.input, self.fine_tuned, self.half_waveform, self.statistics = input, fine_tuned, half_waveform, statistics
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate,
            n_fft=1024,
            win_length=800,
            hop=HOP,
            n_mels=N_MELS,
            f_max=15000.0,
            scale="htk",
            norm="none",
            slope="mel",
            window="symmetric",
            center="reflect",
            double=True,
        )
        self.register_buffer("band_mean", torch.full((N_MELS,), -0.05))  # about what AudioSet has
        self.register_buffer("band_std", torch.full((N_MELS,), 0.7))
        table = sincos_table(self.n_bands, WINDOW_FRAMES // PATCH, WIDTH)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.patch_embed = PatchEmbed(WIDTH, (PATCH, PATCH))
        self.blocks = Blocks(n_blocks, WIDTH, N_HEADS)
        notes = {f"block{number}": "residual stream" for number in range(1, n_blocks + 1)}
        if fine_tuned:
            self.pos_embed = nn.Parameter(table)
            self.fc_norm = nn.LayerNorm(WIDTH, eps=1e-6)
            self.classifier = nn.Linear(WIDTH, N_CLASSES).requires_grad_(False)  # no layer depends on it
            last = LayerInfo("fc_norm", WIDTH, 0, "mean", "LayerNorm of the mean of the last block")
        else:
            self.register_buffer("pos_embed", table)
            self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
            notes["norm"] = "final LayerNorm"
            last = LayerInfo("cls", WIDTH, 0, "mean", "normed token of the whole clip, mean over windows")
        hop = 0 if input == "stretched" else PATCH * HOP
        self.layer_infos = (*self.patch_layers(notes, WIDTH, hop), last)
        self.default_layers = ("fc_norm" if fine_tuned else "norm",)

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Load a checkpoint and the statistics of the bands; if it belongs to another encoder, say which one takes it."""
        state = self.convert(read_checkpoint(path))
        refuse_other(state, path, name, "mask_spec.as2m" if self.fine_tuned else "mask_spec")
        state = {key.replace("head.", "classifier.", 1): value for key, value in state.items()}
        file = Path(self.statistics).expanduser() if self.statistics else path.parent / STATISTICS
        state["band_mean"], state["band_std"] = read_band_statistics(file, N_MELS)
        load_strict(self, state, path, ignore=self.ignored_tensors)
        self.extra_files = (file,)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames: 1 + (samples - 1) // 320, at most 1000 where stretched, always 1000 where padded.

        (batch,) samples -> (batch,) frames.
        """
        if self.input == "padded":
            return torch.full_like(lengths, WINDOW_FRAMES)
        if self.input == "stretched":
            return (1 + (lengths - 1) // HOP).clamp(max=WINDOW_FRAMES)
        full, rest = lengths // WINDOW_SAMPLES, lengths % WINDOW_SAMPLES
        return full * WINDOW_FRAMES + torch.where(rest > 0, 1 + (rest - 1) // HOP, 0)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 128) log-mel after (x + 4.5) / 5, before the statistics of the bands."""
        if self.input == "stretched":
            return self.log_mel(waveform, lengths)
        if self.input == "padded":
            waveform = nn.functional.pad(waveform, (0, count_missing(waveform.shape[1], WINDOW_SAMPLES)))
            return self.log_mel(waveform[:, :WINDOW_SAMPLES])
        n_windows = -(-waveform.shape[1] // WINDOW_SAMPLES)
        # Own frames of a shorter window hear its samples and zeros; how many zeros follow, up to 10 s, they do not hear.
        size = WINDOW_SAMPLES if n_windows > 1 else min(WINDOW_SAMPLES, waveform.shape[1] + 1024)
        waveform = nn.functional.pad(waveform, (0, n_windows * size - waveform.shape[1]))
        return (
            self.log_mel(waveform.unflatten(1, (n_windows, size)).flatten(0, 1))
            .unflatten(0, (-1, n_windows))
            .flatten(1, 2)
        )

    def log_mel(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map (batch, samples) to (batch, time, 128), mirrored at each clip's own end."""
        if self.half_waveform:
            share = torch.tensor(PREEMPHASIS).half().float()
            waveform = waveform.half().float()
            emphasised = (waveform[:, 1:] - share * waveform[:, :-1]).half().float()
        else:
            emphasised = waveform[:, 1:] - PREEMPHASIS * waveform[:, :-1]
        if lengths is not None:
            lengths = lengths - 1
            beyond = torch.arange(emphasised.shape[1], device=lengths.device)[None, :] >= lengths[:, None]
            emphasised = emphasised.masked_fill(beyond, 0.0)
        return ((self.mel(emphasised, lengths) + LOG_OFFSET).log() + SHIFT) / SCALE

    def compute_normalised_input(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute what the patches are cut from: `frontend`, then (x - mean) / std of each band.

        Returns:
            (batch, time, 128).
        """
        return self._normalise(self.frontend(waveform, lengths))

    def _normalise(self, spectrogram: Tensor) -> Tensor:
        return (spectrogram - self.band_mean) / self.band_std

    def window_size(self, n_frames: int) -> int:
        """Count the frames that the own patches cover; all frames up to 1000 if they are stretched."""
        return n_frames if self.input == "stretched" else super().window_size(n_frames)

    def window_steps(self, n_frames: int) -> int:
        """Count the patches that fit into the window; one vector a clip if it is stretched."""
        return 1 if self.input == "stretched" else super().window_steps(n_frames)

    def every_layer(self, spectrogram: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Run windows: (window, frames, 128) -> each layer's name and grid (window, time, band, 768)."""
        image = self._normalise(spectrogram).transpose(1, 2)  # (window, 128, frames)
        if self.input == "stretched" and image.shape[2] < WINDOW_FRAMES:
            size = (N_MELS, WINDOW_FRAMES)
            image = nn.functional.interpolate(image[:, None], size, mode="bicubic", align_corners=True)[:, 0]
        tokens = self.patch_embed(image)  # (window, bands x time, 768)
        positions = first_columns(self.pos_embed, self.n_bands, tokens.shape[1] // self.n_bands)
        grid = self.grid(tokens + positions[:, 1:], "frequency")
        tokens = with_first(self.cls_token + positions[:, :1], grid.tokens)
        for number, stream in enumerate(self.blocks(tokens), start=1):
            yield f"block{number}", self._lay_out(grid, stream)
        if not self.fine_tuned:
            stream = self.norm(stream)
            yield "norm", self._lay_out(grid, stream)
            yield "cls", stream[:, None, :1]

    def _lay_out(self, grid: PatchGrid, stream: Tensor) -> Tensor:
        """(window, time, band, 768), or the mean of all patches where time is stretched (window, 1, 1, 768)."""
        patches = grid.lay_out(stream[:, 1:])
        return patches.mean(dim=(1, 2), keepdim=True) if self.input == "stretched" else patches

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
            raise ValueError(f"{self.name or 'mask_spec'} has no classifier head; use mask_spec.as2m")
        return self.classifier(self.forward(waveform, lengths)["fc_norm"][:, 0])
