"""VGGish: a VGG network on log-mel examples of 0.96 s, the classic general-purpose audio feature.

Paper: Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017. Trained on a preliminary
version of YouTube-8M (about 70 million videos with automatic labels), as the AudioSet VGGish release states.
Checkpoints: the release's TensorFlow weights as converted to PyTorch by torchvggish (`vggish-10086976.pth`, Apache-2.0)
and by tcvrick's audioset-vggish-tensorflow-to-pytorch (`pytorch_vggish.zip`); both layouts load (`embeddings.*` and
`fc.*`), the zip as it comes.

Input: 16 kHz. Magnitude spectra of 400 samples every 160 (periodic Hann, Fourier transform of 512, no centring), 64 bands
from 125 to 7500 Hz (HTK mel, triangles linear in mel, peak 1), ln(x + 0.01); cut into examples of 96 frames (0.96 s); the
last, partial example is dropped, and a clip shorter than one (15,600 samples) is filled with zeros.

Layers, all after ReLU (in brackets its 0-based index over `features` and `fc`): conv1 (1), conv2 (4), conv3_1 (7), conv3_2
(9), conv4_1 (12), conv4_2 (14): each map max-pooled over time to 6 frames an example, channel x frequency side by
side, 4096 wide, hop 2560; fc1_1 (17), fc1_2 (19), 4096 wide, and fc2 (21), 128 wide: one frame an example, hop 15360. All
pool by mean plus max. Fusion as in Niizumi et al., "Composing General Audio Representation by Fusing Multilayer Features
of a Pre-trained Model", EUSIPCO 2022; there the fc layers are repeated to 6 frames, which changes neither mean nor max.

Differs from the release: nothing is resampled here (`evar.audio` does that), and the release's PCA and 8-bit quantisation
are off unless `pca` names their parameter file; then a last layer `pca` has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from evar.encoders._logmel import make_vggish_mel
from evar.encoders._packing import as_count, in_chunks, pack, unpack
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import read_checkpoint, state_dict_of

EXAMPLE_FRAMES = 96
ALIGNED_FRAMES = 6  # of an example, in every convolutional layer
HOP = 160
LOG_OFFSET = 0.01
# name, output channels, max-pool before it
CONVOLUTIONS = (
    ("conv1", 64, False),
    ("conv2", 128, True),
    ("conv3_1", 256, True),
    ("conv3_2", 256, False),
    ("conv4_1", 512, True),
    ("conv4_2", 512, False),
)
LINEARS = (("fc1_1", 4096), ("fc1_2", 4096), ("fc2", 128))
# Positions of the same tensors in the published state dicts.
_PUBLISHED = dict(zip((0, 3, 6, 8, 11, 13), (name for name, *_ in CONVOLUTIONS), strict=True))
_PUBLISHED_FC = dict(zip((0, 2, 4), (name for name, _ in LINEARS), strict=True))
_QUANTISED_RANGE = 2.0
# Examples that go through the network at once: 64 maps of 96 x 64 are 1.6 MB each.
_CHUNK = 32


class VGGish(Encoder):
    """VGGish with every layer; see the module's docstring.

    Args:
        pca: path of the release's PCA parameters (`vggish_pca_params-970ea276.pth`); None leaves post-processing out.

    Raises:
        ValueError: if the PCA file does not hold `pca_eigen_vectors` (128, 128) and `pca_means` (128, 1).

    Example:
        >>> encoder = VGGish()  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 48000))["fc2"].shape  # doctest: +SKIP
        torch.Size([1, 3, 128])
    """

    sample_rate = 16000
    default_layers = ("fc2",)
    min_samples = 400 + (EXAMPLE_FRAMES - 1) * HOP

    pca_vectors: Tensor  # (128, 128)
    pca_means: Tensor  # (128, 1)

    def __init__(self, pca: str | None = None) -> None:
        super().__init__()
        self.mel = make_vggish_mel()
        channels = 1
        for name, width, _ in CONVOLUTIONS:
            setattr(self, name, nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        features = channels * (EXAMPLE_FRAMES // 16) * (64 // 16)
        for name, width in LINEARS:
            setattr(self, name, nn.Linear(features, width))
            features = width
        for module in self.modules():  # an untrained network must not fade out layer by layer either
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        hop = EXAMPLE_FRAMES * HOP
        self.layer_infos = (
            *(LayerInfo(name, 4096, hop // ALIGNED_FRAMES, "mean_plus_max", "after ReLU") for name, *_ in CONVOLUTIONS),
            *(LayerInfo(name, width, hop, "mean_plus_max", "after ReLU") for name, width in LINEARS),
        )
        if pca is not None:
            self._add_pca(Path(pca))

    def _add_pca(self, path: Path) -> None:
        state = state_dict_of(read_checkpoint(path))
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if shapes != {"pca_eigen_vectors": (128, 128), "pca_means": (128, 1)}:
            raise ValueError(
                f"{path} must hold pca_eigen_vectors (128, 128) and pca_means (128, 1), got {shapes}; "
                "is it vggish_pca_params-970ea276.pth?"
            )
        self.register_buffer("pca_vectors", state["pca_eigen_vectors"].float(), persistent=False)
        self.register_buffer("pca_means", state["pca_means"].float(), persistent=False)
        self.extra_files = (path,)
        info = LayerInfo(
            "pca", 128, EXAMPLE_FRAMES * HOP, "mean_plus_max", "PCA of fc2, whitened, 0..255 in whole steps"
        )
        self.layer_infos = (*self.layer_infos, info)
        self.default_layers = ("pca",)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename `features.N`, and `fc.N` or `embeddings.N`, to the layers' names."""
        renamed = {}
        for key, tensor in state_dict_of(checkpoint).items():
            part, _, rest = key.partition(".")
            number, _, leaf = rest.partition(".")
            names = {"features": _PUBLISHED, "fc": _PUBLISHED_FC, "embeddings": _PUBLISHED_FC}.get(part, {})
            name = names.get(int(number)) if number.isdecimal() else None
            renamed[f"{name}.{leaf}" if name else key] = tensor
        return renamed

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count six frames for each example in the convolutional layers, and one in the others.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        examples = self.mel.frames(lengths) // EXAMPLE_FRAMES
        convolutional = {name for name, *_ in CONVOLUTIONS}
        return {
            info.name: examples * ALIGNED_FRAMES if info.name in convolutional else examples
            for info in self.layer_infos
        }

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames of whole examples, a multiple of 96: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths) // EXAMPLE_FRAMES * EXAMPLE_FRAMES

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, examples x 96, 64) log-mel, natural logarithm."""
        n_frames = as_count(self.network_input_frames(lengths).max())
        return (self.mel(waveform)[:, :n_frames] + LOG_OFFSET).log()

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer of every example; the examples of all clips go through the network together.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        logmel = self.network_input(waveform, lengths)
        counts = self.network_input_frames(lengths) // EXAMPLE_FRAMES
        examples = pack(logmel.unflatten(1, (-1, EXAMPLE_FRAMES)), counts)  # (example, 96, 64)
        layers = in_chunks(self._network, examples, _CHUNK)
        return {name: self._frames(value, counts) for name, value in layers.items()}

    def _frames(self, packed: Tensor, counts: Tensor) -> Tensor:
        """(example, frames x width) -> (batch, time, width)."""
        clips = unpack(packed, counts)  # (batch, examples, frames x width)
        n_frames = ALIGNED_FRAMES if packed.shape[1] == 4096 * ALIGNED_FRAMES else 1
        return clips.reshape(counts.shape[0], clips.shape[1] * n_frames, -1)

    def _network(self, examples: Tensor) -> dict[str, Tensor]:
        """(example, 96, 64) -> layer -> (example, 6 x 4096) or (example, width)."""
        layers: dict[str, Tensor] = {}
        maps = examples[:, None]  # (example, channel, time, mel)
        for name, _, pooled in CONVOLUTIONS:
            if pooled:
                maps = nn.functional.max_pool2d(maps, 2)
            maps = getattr(self, name)(maps).relu()
            layers[name] = _align_maps(maps)
        maps = nn.functional.max_pool2d(maps, 2)  # (example, 512, 6, 4)
        vectors = maps.permute(0, 2, 3, 1).flatten(1)  # (example, time x mel x channel)
        for name, _ in LINEARS:
            vectors = getattr(self, name)(vectors).relu()
            layers[name] = vectors
        if self.extra_files:
            layers["pca"] = self._postprocess(vectors)
        return layers

    def _postprocess(self, vectors: Tensor) -> Tensor:
        """(example, 128) -> PCA of it, clipped to [-2, 2] and quantised to whole numbers in 0..255."""
        projected = (self.pca_vectors @ (vectors.T - self.pca_means)).T  # (example, 128)
        clipped = projected.clamp(-_QUANTISED_RANGE, _QUANTISED_RANGE)
        return ((clipped + _QUANTISED_RANGE) * (255.0 / (2 * _QUANTISED_RANGE))).round()


def _align_maps(maps: Tensor) -> Tensor:
    """(example, channel, time, mel) -> (example, 6 x channel x mel): time max-pooled to 6, frequency fastest."""
    pooled = nn.functional.max_pool2d(maps, (int(maps.shape[2]) // ALIGNED_FRAMES, 1))  # (example, channel, 6, mel)
    return pooled.transpose(1, 2).flatten(1)
