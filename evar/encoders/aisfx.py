"""aiSFX: an eight-layer CNN on log-mel windows, trained to sort the sounds of nine sound-effects libraries.

Paper: Ma, Lerch, "Representation Learning for the Automatic Indexing of Sound Effects Libraries", ISMIR 2022. The
network is the nine-layer CNN of Kong et al., "DCASE 2018 Challenge baseline with convolutional neural networks", with
max-pooling.
Checkpoint: "X-Sequential-CE", inside the wheel aisfx 0.1.2. Licence: the wheel's licence file and its description put
model and paper under CC BY 4.0 (copyright 2022 A. B. Ma and A. Lerch): name them where you publish results.
Trained on: Pro Sound Effects, Soundly, UCS Mixed, Soundstorm, Production Elements, Cartoon Express, HPX Digital, Series
6000 and Series 9000 (commercial sound-effects libraries; the names are the checkpoint's).

Input: 44.1 kHz, any length. Log-mel as the package computes it with Essentia, its default: frames of 2048 samples under
a symmetric Hann window, centred on every 1024th sample, zeros beyond the clip's ends, 1 + ceil(samples / 1024) frames;
power; 96 bands to 22,050 Hz, HTK scale, triangles linear in mel, each summing to 1; log10(1 + 10000 x), divided by
9.4578, the largest value of the training data. Windows of 100 frames (2.3 s) every `hop` samples (default: half a
window); a clip shorter than a window is padded with silence, and frames that fill no further window are dropped.

Layers, one frame per window; each convolution is followed by batch normalisation and ReLU:

=========  ================  ===========================================================================
layer      width             what it is
=========  ================  ===========================================================================
conv1      64                mean over 96 bands, max over the window's time
conv2      64 x 48 = 3072    after its 2 x 2 max-pool; channel x band, band fastest; max over time
conv3      128               mean over 48 bands, max over time
conv4      128 x 24 = 3072   as conv2
conv5      256               mean over 24 bands, max over time
conv6      256 x 12 = 3072   as conv2
conv7      512               mean over 12 bands, max over time
embedding  512               default: conv8, mean over 12 bands, max over time: the package's own embedding
=========  ================  ===========================================================================

Flattened, odd layers and conv8 would have 6144 features, so they are averaged over bands, as the network itself does at
its end. conv8 is therefore the embedding, and is not listed twice.

Differences from the original: the package refuses clips under 51 frames (1.1 s), which are padded here like any other
short clip. Its alternative front-end (librosa, each file scaled to peak 1) is not offered: it hands bands over as time.
The nine classification heads, which the package never runs either, are not loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evar.encoders._logmel import MelSpectrogram
from evar.encoders._packing import count_missing, in_chunks, pack, unpack
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

FRAME_HOP = 1024  # samples
N_MELS = 96
WINDOW = 100  # mel frames
HALF_WINDOW = WINDOW // 2 * FRAME_HOP  # samples
LOG_GAIN = 1e4
LARGEST_LOG = 9.457798957824707  # of the training data, from the package

CHANNELS = (64, 64, 128, 128, 256, 256, 512, 512)
POOLED = (2, 4, 6)  # convolutions that a 2 x 2 max-pool follows

# A window's widest activation has 2.4 MB; fastest of 1..16 on two cores.
CPU_CHUNK = 4
DEVICE_CHUNK = 128


class AiSfx(Encoder):
    """aiSFX as an encoder of 2.3-second windows; see the module's docstring for its layers.

    Args:
        hop: samples between windows at 44.1 kHz, a positive multiple of 1024.

    Raises:
        ValueError: if `hop` is not such a number.

    Example:
        >>> encoder = AiSfx().eval()
        >>> encoder.encode(torch.zeros(1, 44100 * 4))["embedding"].shape
        torch.Size([1, 2, 512])
    """

    sample_rate = 44100
    default_layers = ("embedding",)

    def __init__(self, hop: int = HALF_WINDOW) -> None:
        super().__init__()
        if hop < FRAME_HOP or hop % FRAME_HOP:
            raise ValueError(
                f"hop must be a positive multiple of {FRAME_HOP} samples (one mel frame), got {hop}; "
                f"half a window is {HALF_WINDOW}"
            )
        self.hop_frames = hop // FRAME_HOP
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate,
            n_fft=2048,
            hop=FRAME_HOP,
            n_mels=N_MELS,
            scale="htk",
            norm="sum",
            slope="mel",
            window="symmetric",
            center="constant",
        )
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
            for before, after in zip((1, *CHANNELS[:-1]), CHANNELS, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in CHANNELS)
        self.to(memory_format=torch.channels_last)  # a tenth faster on CPU
        self.layer_infos = _layer_infos(hop)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the package's tensors, such as embedding_net.conv_block1.conv1.weight; its heads fc.* are left out."""
        state: dict[str, Tensor] = {}
        for name, value in state_dict_of(checkpoint).items():
            block, _, rest = name.removeprefix("embedding_net.conv_block").partition(".")
            layer, _, entry = rest.partition(".")
            kind, place = layer[:-1], layer[-1:]
            if name.startswith("embedding_net.") and block.isdecimal() and place.isdecimal():
                own = {"conv": "convolutions", "bn": "norms"}.get(kind, kind)
                state[f"{own}.{2 * int(block) + int(place) - 3}.{entry}"] = value
            elif not name.startswith("fc."):
                state[name] = value
        return state

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count whole windows, at least one: (batch,) samples -> (batch,) frames."""
        mel_frames = 1 + (lengths + FRAME_HOP - 1) // FRAME_HOP
        return (1 + (mel_frames - WINDOW) // self.hop_frames).clamp(min=1)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer: (batch, samples) -> layer name -> (batch, time, feature), time in windows."""
        # Essentia's last frame is centred at or beyond the clip's end. Later frames touch nothing but the zeros there,
        # and are exactly 0 after the logarithm, as if the clip were alone.
        padded = nn.functional.pad(waveform, (0, FRAME_HOP - 1))
        log_mel = torch.log10(self.mel(padded) * LOG_GAIN + 1.0) / LARGEST_LOG  # (batch, mel frame, mel)
        log_mel = nn.functional.pad(log_mel, (0, 0, 0, count_missing(log_mel.shape[1], WINDOW)))
        counts = self.valid_frames(lengths)
        windows = pack(log_mel.unfold(1, WINDOW, self.hop_frames), counts).transpose(1, 2)  # (n, mel frame, mel)
        # In train mode batch statistics need all windows at once.
        chunk = len(windows) if self.training else (CPU_CHUNK if windows.device.type == "cpu" else DEVICE_CHUNK)
        features = in_chunks(self._network, windows[:, None], chunk)
        return {name: unpack(value, counts) for name, value in features.items()}

    def _network(self, hidden: Tensor) -> dict[str, Tensor]:
        """(n, 1, mel frame, mel) -> layer name -> (n, feature)."""
        features = {}
        for depth, (convolution, norm, info) in enumerate(
            zip(self.convolutions, self.norms, self.layer_infos, strict=True), start=1
        ):
            hidden = norm(convolution(hidden)).relu()
            if depth in POOLED:
                hidden = nn.functional.max_pool2d(hidden, 2)  # (n, channel, time / 2, band / 2)
                features[info.name] = hidden.amax(dim=2).flatten(1)  # (n, channel x band)
            else:
                features[info.name] = hidden.mean(dim=3).amax(dim=2)  # (n, channel)
        return features


def _layer_infos(hop: int) -> tuple[LayerInfo, ...]:
    infos, bands = [], N_MELS
    for depth, channels in enumerate(CHANNELS, start=1):
        name = "embedding" if depth == len(CHANNELS) else f"conv{depth}"
        if depth in POOLED:
            bands //= 2
            note = f"{channels} channels x {bands} bands, max over the window's time"
            infos.append(LayerInfo(name, channels * bands, hop, "mean", note))
        else:
            note = f"mean over {bands} bands, max over the window's time"
            infos.append(LayerInfo(name, channels, hop, "mean", note))
    return tuple(infos)
