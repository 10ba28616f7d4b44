"""YAMNet: MobileNet on patches of log-mel, trained to tag AudioSet.

Published with TensorFlow's models (`research/audioset/yamnet`, Apache-2.0; the weights' licence is not stated apart from
it); network: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017.
Checkpoints: `yamnet.h5` (Keras, needs h5py) and `yamnet.pth`, the same numbers as w-hc/torch_audioset (PyTorch) holds
them; both load. Trained on AudioSet-2M with labels (521 of the classes).

Input: 16 kHz. Zeros fill the end up to 15,600 samples, or up to 15,600 + k x 7,680. Log-mel of 400 samples every 160
(periodic Hann, Fourier transform of 512, no padding), magnitude, 64 HTK mel bands from 125 to 7500 Hz (triangles linear
in mel), ln(x + 0.001). Patches of 96 frames (0.96 s) every 48 frames (0.48 s) go through the network one by one, so that
no part of a clip is left out.

Network: a convolution 3 x 3 of stride 2, then 13 times a depthwise and a pointwise convolution, each with a batch
normalisation (epsilon 1e-4, without scale) and ReLU; zeros around the map as TensorFlow's "SAME" puts them.

Layers layer1..layer14: mean over the time steps and bands of a patch, one frame for each patch (hop 7680), pooled by
mean. Patches overlap by half, so that all but the first and last half second count twice. layer14 (1024), YAMNet's
embedding, is the default. `bands="side_by_side"` keeps the bands, channel x band. `outputs` gives the probabilities of
the 521 tags, the mean over the patches.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._keras import is_hdf5, read_keras_layers
from evar.encoders._logmel import make_vggish_mel
from evar.encoders._map_layers import BANDS
from evar.encoders._mobile import make_convolution
from evar.encoders._packing import as_count, count_missing, in_chunks, pack, unpack
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import load_strict

HOP, N_MELS, LOG_OFFSET = 160, 64, 0.001
PATCH_FRAMES, PATCH_STEP = 96, 48
PATCH_SAMPLES, PATCH_HOP = 15_600, 7_680
EPSILON, STEM, N_CLASSES = 1e-4, 32, 521
#: channels and stride of layer2 to layer14
LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
# Patches that go through the network at once, with some 10 MB of activations each.
_CHUNK = 64


class Yamnet(Encoder):
    """YAMNet with every layer; see the module's docstring.

    Args:
        bands: "mean" over the bands of a patch, or "side_by_side".

    Raises:
        ValueError: if there is no such way to read bands.

    Example:
        >>> Yamnet().encode(torch.zeros(1, 16000))["layer14"].shape
        torch.Size([1, 2, 1024])
    """

    sample_rate = 16000
    default_layers = ("layer14",)

    def __init__(self, bands: str = "mean") -> None:
        super().__init__()
        if bands not in BANDS:
            raise ValueError(f"no bands {bands!r} for yamnet; {near_miss(bands, BANDS)}")
        self.bands = bands
        self.mel = make_vggish_mel()
        self.layer1 = nn.ModuleDict({"fused": _Convolution(1, STEM, 3, 2)})
        n_in, factor, infos = STEM, 2, [self._describe("layer1", STEM, 2)]
        for number, (n_out, stride) in enumerate(LAYERS, start=2):
            layer = {"depthwise_conv": _Convolution(n_in, n_in, 3, stride, groups=n_in)}
            layer["pointwise_conv"] = _Convolution(n_in, n_out, 1, 1)
            setattr(self, f"layer{number}", nn.ModuleDict(layer))
            n_in, factor = n_out, factor * stride
            infos.append(self._describe(f"layer{number}", n_out, factor))
        self.classifier = nn.Linear(n_in, N_CLASSES).requires_grad_(False)  # no layer depends on it
        self.layer_infos = tuple(infos)

    def _describe(self, name: str, channels: int, factor: int) -> LayerInfo:
        if self.bands == "mean":
            return LayerInfo(name, channels, PATCH_HOP, "mean", "mean over a patch")
        return LayerInfo(name, channels * (N_MELS // factor), PATCH_HOP, "mean", "channel x band, mean over time")

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take every parameter from the Keras file (with h5py) or the PyTorch file, as `Encoder.load_checkpoint` does."""
        if is_hdf5(path):
            load_strict(self, self._convert_keras(read_keras_layers(path), path), path)
        else:
            super().load_checkpoint(path, name)

    def _convert_keras(self, layers: list[list[Tensor]], path: Path) -> dict[str, Tensor]:
        """The arrays of the Keras file, in the order of its layers, under our names."""
        parts = [name.removesuffix(".conv.weight") for name in self.state_dict() if name.endswith(".conv.weight")]
        if [len(layer) for layer in layers] != [1, 3] * len(parts) + [2]:
            raise ValueError(
                f"{path.name} must hold the {4 * len(parts) + 2} arrays of YAMNet, got "
                f"{sum(map(len, layers))} arrays in {len(layers)} layers; is it the file of another network?"
            )
        state = {}
        for part, (kernel,), (beta, mean, variance) in zip(parts, layers[:-1:2], layers[1:-1:2], strict=True):
            # Keras: row, column, in, out; of depthwise kernels: row, column, channel, 1
            is_depthwise = part.endswith("depthwise_conv")
            state[f"{part}.conv.weight"] = kernel.permute((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))
            state |= {f"{part}.bn.weight": torch.ones_like(beta), f"{part}.bn.bias": beta}
            state |= {f"{part}.bn.running_mean": mean, f"{part}.bn.running_var": variance}
        weight, bias = layers[-1]
        return {**state, "classifier.weight": weight.T, "classifier.bias": bias}

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames that begin within the clip: samples / 160, rounded up.

        Args:
            lengths: (batch,) valid samples of each clip, at 16 kHz.

        Returns:
            (batch,) frames.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("yamnet").network_input_frames(torch.tensor([16000])).tolist()
            [100]
        """
        return torch.minimum(-(-lengths // HOP), self.mel.frames(self._count_samples(lengths)))

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel of clips with zeros behind them, as far as the last patch goes.

        Args:
            waveform: (batch, samples) in [-1, 1] at 16 kHz.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch, time, 64) natural logarithms.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("yamnet", "random").network_input(torch.zeros(1, 16000), torch.tensor([16000])).shape
            torch.Size([1, 144, 64])
        """
        n_samples = as_count(self._count_samples(lengths).max())
        filled = nn.functional.pad(waveform, (0, count_missing(waveform.shape[1], n_samples)))[:, :n_samples]
        return (self.mel(filled) + LOG_OFFSET).log()

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count patches: one, and one more for every 7,680 samples, or part of them, beyond 15,600.

        (batch,) samples -> (batch,) frames.
        """
        return 1 + -(-(lengths - PATCH_SAMPLES).clamp(min=0) // PATCH_HOP)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer of every patch: (batch, samples) -> layer name -> (batch, time, width)."""
        patches = self.network_input(waveform, lengths).unfold(
            1, PATCH_FRAMES, PATCH_STEP
        )  # (batch, patch, band, time)
        counts = self.valid_frames(lengths)
        layers = in_chunks(self._run_network, pack(patches, counts), _CHUNK)
        return {name: unpack(value, counts) for name, value in layers.items()}

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 521) probabilities of the tags, the mean over the patches."""
        return self._average_patches(self._tag_patches(waveform, lengths).sigmoid(), lengths)

    def compute_logits(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the logits of the tags, the mean over the patches.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, 521) logits.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("yamnet", "random").compute_logits(torch.zeros(1, 16000)).shape
            torch.Size([1, 521])
        """
        waveform, lengths = self._check_input(waveform, lengths)
        return self._average_patches(self._tag_patches(waveform, lengths), lengths)

    def _tag_patches(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, patch, 521) logits."""
        embedding = self.forward(waveform, lengths)["layer14"]
        if self.bands == "side_by_side":
            embedding = embedding.unflatten(2, (LAYERS[-1][0], -1)).mean(dim=3)
        return self.classifier(embedding)

    def _average_patches(self, values: Tensor, lengths: Tensor) -> Tensor:
        """(batch, patch, feature) -> (batch, feature), of each clip's own patches."""
        counts = self.valid_frames(lengths)[:, None]
        own = torch.arange(values.shape[1], device=values.device)[None, :] < counts
        return (values * own[:, :, None]).sum(dim=1) / counts

    def _count_samples(self, lengths: Tensor) -> Tensor:
        """Samples of clips with the zeros behind them."""
        return PATCH_SAMPLES + (self.valid_frames(lengths) - 1) * PATCH_HOP

    def _run_network(self, patches: Tensor) -> dict[str, Tensor]:
        """(patch, band, time) -> layer -> (patch, feature)."""
        maps, layers = patches.transpose(1, 2)[:, None], {}  # (patch, 1, time, band)
        for info in self.layer_infos:
            for part in getattr(self, info.name).values():
                maps = part(maps)
            bands = maps.mean(dim=2)  # (patch, channel, band)
            layers[info.name] = bands.mean(dim=2) if self.bands == "mean" else bands.flatten(1)
        return layers


class _Convolution(nn.Module):
    """A convolution, its batch normalisation, and ReLU; at stride 2, zeros lie behind the map only."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        padding = (0, 1) if stride == 2 else None
        self.conv = make_convolution(n_in, n_out, kernel, stride, groups=groups, padding=padding)
        self.bn = nn.BatchNorm2d(n_out, eps=EPSILON)
        self.bn.weight.requires_grad_(False)  # there is no scale

    def forward(self, maps: Tensor) -> Tensor:
        """(patch, channel, time, band) -> the same axes."""
        return self.bn(self.conv(maps)).relu()
