"""MusiCNN: a convolutional music tagger whose first filters are shaped like timbres and like rhythms.

Paper: Pons, Serra, "musicnn: Pre-trained convolutional neural networks for music audio tagging", ISMIR 2019 (late-breaking);
the network is that of Pons et al., "End-to-end learning for music audio tagging at scale", ISMIR 2018.
Checkpoints: `MTT_musicnn` and `MSD_musicnn` of the package musicnn 0.1.0, ISC licence: TensorFlow checkpoints, each an index
and a data file, which are read as numbers; TensorFlow is not needed.
Trained on: MagnaTagATune (`musicnn.mtt`) or the Million Song Dataset (`musicnn.msd`), 50 tags each.

Input: 16 kHz. Power spectra of 512 samples (periodic Hann) centred on every 256th sample, the clip mirrored beyond its ends,
96 bands to 8 kHz (Slaney mel, area 1), log10(1 + 10000 x). Windows of 187 frames (3 s) side by side, as in training; what is
left over at the end is a shorter window, since the network takes any length.

Layers, pooled by their mean over time, one frame in 256 samples. Those of a whole window are repeated at each of its frames,
so that a short last window counts by its length.

| layer | width | what it is |
|---|---|---|
| timbral | 408 | filters of 7 frames x 38 and x 67 bands, maximum over bands |
| temporal | 153 | filters of 128, 64 and 32 frames, maximum over bands |
| cnn1 | 64 | convolution of 7 frames over both |
| cnn2 | 64 | the same, added to cnn1 |
| cnn3 | 64 | the same, added to cnn2 |
| mean_pool | 753 | mean of all of these over the window |
| max_pool | 753 | maximum of all of these over the window |
| penultimate | 200 | default: dense layer before the tags, of the window |

Differs from the package: it rounds the bands to half precision, in which loud sound overflows, and leaves out the last,
partial window; here neither happens. The layer of tags is not loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evar.encoders._logmel import MelSpectrogram
from evar.encoders._tf_checkpoint import list_checkpoint_files, read_tf_checkpoint
from evar.encoders._windows import count_steps, run_windows
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import load_strict, read_checkpoint

HOP, N_FFT, N_MELS = 256, 512, 96
WINDOW_FRAMES = 187
LOG_GAIN = 1e4
EPSILON = 1e-3  # of batch normalisation, TensorFlow's
TIMBRAL = ((7, 38), (7, 67))  # frames, bands
TEMPORAL = (128, 64, 32)  # frames
N_TIMBRAL, N_TEMPORAL, N_MIDDLE, N_DENSE = 204, 51, 64, 200
N_FRONT = N_TIMBRAL * len(TIMBRAL) + N_TEMPORAL * len(TEMPORAL)
N_POOLED = N_FRONT + 3 * N_MIDDLE
CHUNK_FRAMES = 8 * WINDOW_FRAMES  # 59 x 204 numbers a frame: 9 MB a window


class MusiCnn(Encoder):
    """MusiCNN with the layers that its package gives; see the module's docstring.

    Example:
        >>> features = MusiCnn().eval().encode(torch.zeros(1, 16000))
        >>> features["timbral"].shape, features["penultimate"].shape
        (torch.Size([1, 63, 408]), torch.Size([1, 63, 200]))
    """

    sample_rate = 16000
    default_layers = ("penultimate",)
    batch_seconds = 60.0
    layer_infos = (
        LayerInfo("timbral", N_TIMBRAL * len(TIMBRAL), HOP, "mean"),
        LayerInfo("temporal", N_TEMPORAL * len(TEMPORAL), HOP, "mean"),
        *(LayerInfo(f"cnn{number}", N_MIDDLE, HOP, "mean") for number in (1, 2, 3)),
        LayerInfo("mean_pool", N_POOLED, HOP, "mean", "of its window of 3 s"),
        LayerInfo("max_pool", N_POOLED, HOP, "mean", "of its window of 3 s"),
        LayerInfo("penultimate", N_DENSE, HOP, "mean", "of its window of 3 s"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate, n_fft=N_FFT, hop=HOP, n_mels=N_MELS, center="reflect", double=True
        )
        self.min_samples = self.mel.min_samples
        filters = [nn.Conv2d(1, N_TIMBRAL, kernel) for kernel in TIMBRAL]
        filters += [nn.Conv2d(1, N_TEMPORAL, (n_frames, 1)) for n_frames in TEMPORAL]
        self.filters = nn.ModuleList(filters)
        self.middle = nn.ModuleList(nn.Conv1d(width, N_MIDDLE, 7, padding=3) for width in (N_FRONT, N_MIDDLE, N_MIDDLE))
        self.dense = nn.Linear(2 * N_POOLED, N_DENSE)
        # one of the input, one behind each filter and each middle convolution, and around the dense layer
        self.input_norm = nn.BatchNorm2d(1, eps=EPSILON)
        self.filter_norms = nn.ModuleList(nn.BatchNorm2d(layer.out_channels, eps=EPSILON) for layer in filters)
        self.middle_norms = nn.ModuleList(nn.BatchNorm1d(N_MIDDLE, eps=EPSILON) for _ in range(3))
        self.pooled_norm = nn.BatchNorm1d(2 * N_POOLED, eps=EPSILON)
        self.dense_norm = nn.BatchNorm1d(N_DENSE, eps=EPSILON)

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take a TensorFlow checkpoint, given by either of its files, or the tensors of a file that PyTorch wrote."""
        if path.name.endswith((".index", ".data-00000-of-00001")):
            load_strict(self, self.convert(dict(read_tf_checkpoint(path))), path)
            self.extra_files = tuple(file for file in list_checkpoint_files(path) if file != path)
        else:
            load_strict(self, self.convert(read_checkpoint(path)), path)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename TensorFlow's tensors and reorder their axes, without the optimiser's tensors and the layer of tags."""
        tensors = super().convert(checkpoint)
        if "conv2d/kernel" not in tensors:
            return tensors
        filters, middles = [f"filters.{at}" for at in range(5)], [f"middle.{at}" for at in range(3)]
        norms = ["input_norm", *(f"filter_norms.{at}" for at in range(5)), *(f"middle_norms.{at}" for at in range(3))]
        own = {
            **_number("conv2d", [*filters, *middles]),
            **_number("batch_normalization", [*norms, "pooled_norm", "dense_norm"]),
        }
        own["dense"] = "dense"
        entries = {
            "gamma": "weight",
            "beta": "bias",
            "bias": "bias",
            "moving_mean": "running_mean",
            "moving_variance": "running_var",
        }
        state = {}
        for name, value in tensors.items():
            layer, _, entry = name.partition("/")
            if layer in own and entry == "kernel":
                state[f"{own[layer]}.weight"] = _turn_kernel(value, own[layer])
            elif layer in own and entry in entries:
                state[f"{own[layer]}.{entries[entry]}"] = value
        return state

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames whose centre lies inside the clip: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, time, mel) log-mel."""
        return torch.log10(1.0 + LOG_GAIN * self.mel(waveform, lengths))

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame for 256 samples, in every layer: (batch,) samples -> (batch,) frames."""
        return count_steps(self.network_input_frames(lengths), WINDOW_FRAMES, lambda n: n)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer; see `Encoder.forward`: (batch, samples) -> layer name -> (batch, time, width)."""
        return run_windows(
            self._run_network,
            self.network_input(waveform, lengths),
            self.network_input_frames(lengths),
            unit=WINDOW_FRAMES,
            size=lambda n: n,
            steps=lambda n: n,
            chunk_frames=CHUNK_FRAMES,
        )

    def _run_network(self, frames: Tensor) -> dict[str, Tensor]:
        """(window, time, mel) -> layer name -> (window, time, feature)."""
        normalised = self.input_norm(frames[:, None])  # (window, 1, time, mel)
        bands = []
        sizes = (*(n_frames for n_frames, _ in TIMBRAL), *TEMPORAL)
        for n_frames, layer, norm in zip(sizes, self.filters, self.filter_norms, strict=True):
            # Of an even number of frames, one more is added at the end, as TensorFlow does.
            padded = nn.functional.pad(normalised, (0, 0, (n_frames - 1) // 2, n_frames // 2))
            bands.append(norm(layer(padded).relu()).amax(dim=3))  # (window, feature, time)
        layers = {
            "timbral": torch.cat(bands[: len(TIMBRAL)], dim=1),
            "temporal": torch.cat(bands[len(TIMBRAL) :], dim=1),
        }
        front = torch.cat([layers["timbral"], layers["temporal"]], dim=1)
        hidden, parts = front, [front]
        for number, (layer, norm) in enumerate(zip(self.middle, self.middle_norms, strict=True), start=1):
            following = norm(layer(hidden).relu())
            hidden = following if number == 1 else following + hidden
            parts.append(hidden)
            layers[f"cnn{number}"] = hidden
        together = torch.cat(parts, dim=1)  # (window, 753, time)
        largest, mean = together.amax(dim=2), together.mean(dim=2)
        pooled = self.pooled_norm(torch.stack([largest, mean], dim=2).flatten(1))  # (window, 753 x 2)
        whole = {"mean_pool": mean, "max_pool": largest, "penultimate": self.dense_norm(self.dense(pooled).relu())}
        repeated = {name: value[:, :, None].expand(-1, -1, frames.shape[1]) for name, value in whole.items()}
        return {name: value.transpose(1, 2) for name, value in {**layers, **repeated}.items()}


def _number(kind: str, own: list[str]) -> dict[str, str]:
    """TensorFlow's names of layers of one kind, in the order in which they were made, and ours."""
    return {kind if number == 0 else f"{kind}_{number}": name for number, name in enumerate(own)}


def _turn_kernel(value: Tensor, own: str) -> Tensor:
    """A kernel in PyTorch's order of axes."""
    if own == "dense":
        return value.T  # (in, out) -> (out, in)
    if own.startswith("middle"):
        return value[:, :, 0].permute(2, 1, 0)  # (time, in, 1, out) -> (out, in, time)
    return value.permute(3, 2, 0, 1)  # (time, band, 1, out) -> (out, 1, time, band)
