"""OpenL3: a convolutional network on one-second windows, trained to tell which sound belongs to which picture.

Paper: Cramer et al., "Look, Listen and Learn More: Design Choices for Deep Audio Embeddings", ICASSP 2019. Checkpoints:
the Keras files of marl/openl3 (weights CC BY 4.0) and the same tensors as `torchopenl3_mel256_music_6144.pth.tar` and
the like of torchopenl3/torchopenl3-models; both load, the Keras ones (`.h5`, `.h5.gz`) with the package h5py. Trained
without labels on videos of AudioSet: those of music, or those of the environment.

Input: 48 kHz. Windows of 48,000 samples every 4,800, with half a second of silence before the clip and as much after it
as the last window needs. Each window: frames of 2048 samples every 242 (periodic Hann), 199 of them, 128 or 256 mel
bands from 0 to 24,000 Hz of area 1, decibels below the window's loudest number, at most 80. `frontend="trained"`
(default) is the one that the networks were trained with: 982 zeros at both ends of the window, HTK's mel, the square
root of mel bands of power. The TensorFlow package 0.4 uses Slaney's mel bands of magnitude, with zeros at the end only
(`frontend="kapre"`, its default) or 1024 zeros at both ends (`frontend="librosa"`): embeddings differ by 10 to 24 %,
and tables of that package were made with these.

Network: four pairs of convolutions 3 x 3 with batch normalisation and ReLU; max-pooling after each pair; the last
convolution has neither normalisation nor ReLU.

Layers, one frame a window (hop 4800), pooled by mean: pool1, pool2, pool3 and conv8 (the last convolution), channel x
band side by side, averaged over the time within the window (`within="max"`: their maximum); emb512 and emb6144, the two
official embeddings: conv8 max-pooled to one field, or to 4 x 3 fields (band, time, channel). One checkpoint serves
both; emb6144 is the default.

Differs from the original: none known. A clip costs ten windows a second; `hop_seconds=0.5` costs a fifth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._folding import convolve_and_normalise, halve_by_maximum, rectify
from evar.encoders._keras import is_hdf5, read_keras_layers
from evar.encoders._logmel import MelSpectrogram
from evar.encoders._packing import in_chunks, pack, unpack
from evar.encoders._tensorflow_mel import compute_single_magnitudes
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import load_strict, state_dict_of

RATE, WINDOW, HALF = 48000, 48000, 24000
N_FFT, HOP, N_FRAMES = 2048, 242, 199
EPSILON, FLOOR, TOP_DB = 1e-3, 1e-10, 80.0
#: front-end -> zeros before and after each window, mel scale, exponent of the spectrum
FRONTENDS = {"trained": (982, 982, "htk", 2), "kapre": (0, 1964, "slaney", 1), "librosa": (1024, 1024, "slaney", 1)}
WITHIN = ("mean", "max")
# Windows that share a forward: the widest maps of one, 64 x 256 x 199, have 13 MB.
CPU_CHUNK, DEVICE_CHUNK = 4, 64


class OpenL3(Encoder):
    """OpenL3 with every block; see the module's docstring.

    Args:
        n_mels: bands, 128 or 256; each has its own checkpoint.
        frontend: "trained", "kapre" or "librosa".
        hop_seconds: between windows, 0.1 as in the package.
        within: "mean" or "max" over the time within a window, in the layers that have one.
        channels: of the first block, for tests; the checkpoints have 64.

    Raises:
        ValueError: if an option is none of these.

    Example:
        >>> OpenL3(channels=2).encode(torch.zeros(1, 48000))["emb512"].shape
        torch.Size([1, 6, 16])
    """

    sample_rate = RATE
    default_layers = ("emb6144",)
    ignored_tensors = ("speclayer.",)
    batch_seconds = 20.0
    revision = 2  # normalisations are folded into convolutions: other roundings

    def __init__(
        self,
        n_mels: int = 256,
        frontend: str = "trained",
        hop_seconds: float = 0.1,
        within: str = "mean",
        channels: int = 64,
    ) -> None:
        super().__init__()
        for option, value, known in (("frontend", frontend, FRONTENDS), ("within", within, WITHIN)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for openl3; {near_miss(value, known)}")
        if n_mels not in (128, 256) or not 0 < hop_seconds <= 1:
            raise ValueError(
                f"openl3 needs n_mels 128 or 256 and 0 < hop_seconds <= 1, got {n_mels} and {hop_seconds}; "
                "0.1 is the package's hop"
            )
        self.n_mels, self.frontend_kind, self.within = n_mels, frontend, within
        self.hop = int(hop_seconds * RATE)
        self.before, self.after, scale, power = FRONTENDS[frontend]
        self.mel = MelSpectrogram(
            sample_rate=RATE, n_fft=N_FFT, hop=HOP, n_mels=n_mels, scale=scale, power=power, center="none", double=True
        )
        widths = [channels << (number // 2) for number in range(8)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, eps=EPSILON) for width in (1, *widths[:7]))
        pairs = zip((1, *widths[:7]), widths, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(n_in, n_out, 3, padding=1) for n_in, n_out in pairs)
        for conv in self.convs:  # an untrained network must not fade out layer by layer
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # type: ignore[arg-type]
        self.layer_infos = self._declare_layers(widths)

    def _declare_layers(self, widths: list[int]) -> tuple[LayerInfo, ...]:
        """What the layers are: 4 maps of a window, and 2 embeddings."""
        infos = []
        for name, width, share in zip(("pool1", "pool2", "pool3", "conv8"), widths[1::2], (2, 4, 8, 8), strict=True):
            n_bands = self.n_mels // share
            note = f"{width} channels x {n_bands} bands, {self.within} over the window's time"
            infos.append(LayerInfo(name, width * n_bands, self.hop, "mean", note))
        infos.append(LayerInfo("emb512", widths[-1], self.hop, "mean", "conv8, the largest number of each channel"))
        note = "conv8, the largest number of each channel in 4 x 3 fields of band and time"
        return (*infos, LayerInfo("emb6144", 12 * widths[-1], self.hop, "mean", note))

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take every parameter from a PyTorch file or from a Keras one.

        Args:
            path: of the file.
            name: of the encoder's YAML, for errors.

        Raises:
            ValueError: if it does not fit.
            ImportError: if it is a Keras file and h5py is not installed.
        """
        if is_hdf5(path):
            other = [
                kind for kind in ("linear", "mel128", "mel256") if kind in path.name and kind != f"mel{self.n_mels}"
            ]
            if other:  # the networks have the same tensors, and Keras's file holds nothing else
                raise ValueError(f"{path.name} is of {other[0]} by its name, but {name} has {self.n_mels} mel bands")
            load_strict(self, name_keras_layers(read_keras_layers(path), path), path)
            return
        super().load_checkpoint(path, name)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the PyTorch file; its mel filters must be those of this front-end."""
        state = state_dict_of(checkpoint)
        self._take_filters(state)
        renamed = {}
        for name, value in state.items():
            layer, _, leaf = name.rpartition(".")
            kind, _, number = layer.rpartition("_")
            if kind in ("batch_normalization", "conv2d") and number.isdecimal():
                name = f"{'norms' if kind[0] == 'b' else 'convs'}.{int(number) - 1}.{leaf}"
            elif layer == "audio_embedding_layer":
                name = f"convs.7.{leaf}"
            renamed[name] = value
        return renamed

    def _take_filters(self, state: dict[str, Tensor]) -> None:
        """Use the mel filters and the window of a PyTorch file, where these are the front-end of the training.

        The networks of both numbers of bands have the same tensors, so that only the filters tell one from the other.
        """
        filters, kernels = state.get("speclayer.mel_basis"), state.get("speclayer.dft_real_kernels")
        if kernels is not None and (filters is None or filters.shape != (self.n_mels, N_FFT // 2 + 1)):
            held = f"{len(filters)} mel bands" if filters is not None else "linear spectra"
            raise ValueError(f"the checkpoint is of {held}, but this encoder has {self.n_mels} mel bands")
        if self.frontend_kind != "trained" or filters is None or kernels is None:
            return
        double = (kernels[0, 0].double(), filters.T.double().contiguous())
        formula = self.mel._double[torch.device("cpu")]
        if not all(torch.allclose(one, other, atol=1e-6) for one, other in zip(double, formula, strict=True)):
            self.mel._double = {torch.device("cpu"): double}
            self.mel.window, self.mel.filterbank = double[0].float(), double[1].float()

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count the windows that cover every sample: 1 + ceil((samples - 24000) / 4800), at least one.

        (batch,) samples -> (batch,) frames.
        """
        return 1 + (lengths + HALF - WINDOW + self.hop - 1).clamp(min=0) // self.hop

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count 199 log-mel frames for each window: (batch,) samples -> (batch,) frames."""
        return N_FRAMES * self.valid_frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, windows x 199, band) decibels below each window's loudest number."""
        counts = self.valid_frames(lengths)
        bands = in_chunks(lambda part: {"": self._compute_decibels(part)}, self._cut_windows(waveform, counts), 16)[""]
        return unpack(bands.flatten(1), counts).unflatten(2, (N_FRAMES, self.n_mels)).flatten(1, 2)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer of every window; the windows of all clips go through the network together.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        counts = self.valid_frames(lengths)
        windows = self._cut_windows(waveform, counts)
        chunk = CPU_CHUNK if windows.device.type == "cpu" else DEVICE_CHUNK
        layers = in_chunks(lambda part: self._run_network(self._compute_decibels(part)), windows, chunk)
        return {name: unpack(value, counts) for name, value in layers.items()}

    def _cut_windows(self, waveform: Tensor, counts: Tensor) -> Tensor:
        """(batch, samples) -> (window, 48000)."""
        needed = WINDOW + (int(counts.max()) - 1) * self.hop
        padded = nn.functional.pad(waveform, (HALF, max(0, needed - HALF - waveform.shape[1])))
        return pack(padded.unfold(1, WINDOW, self.hop), counts)

    def _compute_decibels(self, windows: Tensor) -> Tensor:
        """(window, 48000) -> (window, 199, band)."""
        padded = nn.functional.pad(windows, (self.before, self.after))
        if self.frontend_kind == "kapre":
            frames = padded.unfold(1, N_FFT, HOP)[:, :N_FRAMES]
            bands = compute_single_magnitudes(frames, N_FFT) @ self.mel.filterbank
        else:
            bands = self.mel(padded)[:, :N_FRAMES]
        if self.frontend_kind == "trained":
            bands = bands.clamp(min=0.0).sqrt()
        decibels = 10.0 * bands.clamp(min=FLOOR).log10()
        return (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp(min=-TOP_DB)

    def _run_network(self, decibels: Tensor) -> dict[str, Tensor]:
        """(window, 199, band) -> layer -> (window, feature)."""
        maps = self.norms[0](decibels.transpose(1, 2)[:, None])  # (window, 1, band, time)
        layers = {}
        for number in range(7):
            convolution, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], (self.convs[number], self.norms[number + 1]))
            maps = rectify(convolve_and_normalise(convolution, norm, maps))
            if number in (1, 3, 5):
                maps = halve_by_maximum(maps)
                layers[f"pool{number // 2 + 1}"] = self._pool_time(maps)
        maps = self.convs[7](maps)  # (window, channel, band, 24)
        layers["conv8"] = self._pool_time(maps)
        layers["emb512"] = maps.amax(dim=(2, 3))
        fields = nn.functional.max_pool2d(
            maps, (int(maps.shape[2]) // 4, int(maps.shape[3]) // 3)
        )  # (window, channel, 4, 3)
        layers["emb6144"] = fields.permute(0, 2, 3, 1).flatten(1)
        return layers

    def _pool_time(self, maps: Tensor) -> Tensor:
        """(window, channel, band, time) -> (window, channel x band)."""
        return (maps.mean(dim=3) if self.within == "mean" else maps.amax(dim=3)).flatten(1)


def name_keras_layers(layers: list[list[Tensor]], path: Path) -> dict[str, Tensor]:
    """Name the tensors of OpenL3's Keras file, which are known by their order only.

    Args:
        layers: of each layer that has weights its tensors: 4 of a batch normalisation, 2 of a convolution. Older files hold
            the front-end's tensors first, which are left out.
        path: of the file, for the message.

    Returns:
        tensor name of `OpenL3` -> tensor.

    Raises:
        ValueError: if these are not OpenL3's layers.

    Example:
        >>> name_keras_layers([[torch.zeros(1)] * 4], Path("x.h5"))
        Traceback (most recent call last):
        ValueError: x.h5 must hold OpenL3's 16 layers (8 normalisations, 8 convolutions), got 1 layers with weights
    """
    order = [("norms", 0)]
    for number in range(7):
        order += [("convs", number), ("norms", number + 1)]
    order.append(("convs", 7))
    own = layers[-len(order) :]
    sizes = [4 if kind == "norms" else 2 for kind, _ in order]
    if [len(tensors) for tensors in own] != sizes:
        raise ValueError(
            f"{path.name} must hold OpenL3's 16 layers (8 normalisations, 8 convolutions), got {len(layers)} layers "
            "with weights"
        )
    state = {}
    for (kind, number), tensors in zip(order, own, strict=True):
        leaves = ("weight", "bias", "running_mean", "running_var") if kind == "norms" else ("weight", "bias")
        for leaf, value in zip(leaves, tensors, strict=True):
            # Keras: (frequency, time, in, out); here: (out, in, frequency, time)
            state[f"{kind}.{number}.{leaf}"] = value.permute(3, 2, 0, 1) if value.dim() == 4 else value
    return state
