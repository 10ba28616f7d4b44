"""CNN14 of PANNs: six convolutional blocks on log-mel, trained to tag AudioSet.

Paper: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition", IEEE/ACM TASLP
2020. Checkpoints: `Cnn14_16k_mAP=0.438.pth` and `Cnn14_mAP=0.431.pth` (32 kHz) of Zenodo record 3987831 (CC BY 4.0 as
stated there), read as published: what they hold of the front-end is compared with ours, so that a checkpoint of the other
rate is refused. Trained on AudioSet-2M with labels.

Input: 16 kHz (Fourier transform of 512 samples, hop 160, 50 to 8000 Hz) or 32 kHz (1024, 320, 50 to 14000 Hz): periodic
Hann, centred frames, clip mirrored at both ends, power, 64 Slaney mel bands of area 1, 10 log10(max(x, 1e-10)) dB; a batch
normalisation over the bands comes first. At least 32 frames (4,960 or 9,920 samples); shorter clips are filled with zeros.

Layers: block1..block6 after each block's average-pooling, max-pooled over time to the rate of the last (32 frames of the
front-end: hop 5120 or 10240), channel x frequency side by side (2048, block6 4096), pooled by mean plus max: Niizumi et
al., "Composing General Audio Representation by Fusing Multilayer Features of a Pre-trained Model", EUSIPCO 2022. fc1
(2048, one frame a clip): block 6 averaged over frequency, mean plus max over time, a linear layer and ReLU: the paper's
embedding. `outputs` gives the 527 tag probabilities, where the checkpoint has its `fc_audioset`.

Differs from the original: clips of different lengths may share a batch; what lies beyond a clip's end is set to zero after
every convolution, which is what the convolution of the clip alone sees there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evar.encoders._folding import convolve_and_normalise, rectify
from evar.encoders._logmel import MelSpectrogram, mel_filterbank
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import mean_plus_max
from evar.encoders.weights import load_strict, read_checkpoint, state_dict_of

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

N_MELS = 64
WIDTHS = (64, 128, 256, 512, 1024, 2048)
N_TAGS = 527
POWER_FLOOR = 1e-10
# sample rate -> Fourier transform, hop, lowest and highest frequency
FRONT_ENDS = {16000: (512, 160, 50.0, 8000.0), 32000: (1024, 320, 50.0, 14000.0), 44100: (1024, 320, 50.0, 14000.0)}
_FRAMES_PER_STEP = 32  # of the front-end, in a frame of block 5 and 6
_FILTERS = "logmel_extractor.melW"
_HEAD = "fc_audioset"


class Cnn14(Encoder):
    """CNN14 with every block; see the module's docstring.

    Args:
        sample_rate: 16000 or 32000 Hz; each has its own checkpoint. 44100 Hz is that of MS-CLAP 2022, which holds a CNN14.

    Raises:
        ValueError: if the rate is none of these.

    Example:
        >>> encoder = Cnn14(16000)  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 16000))["block6"].shape  # doctest: +SKIP
        torch.Size([1, 3, 4096])
    """

    default_layers = ("fc1",)
    ignored_tensors = ("spectrogram_extractor.", "logmel_extractor.")
    batch_seconds = 80.0
    revision = 2  # normalisations are folded into convolutions: other roundings

    def __init__(self, sample_rate: int = 16000) -> None:
        super().__init__()
        if sample_rate not in FRONT_ENDS:
            raise ValueError(
                f"cnn14 needs sample_rate 16000, 32000 or 44100, got {sample_rate}; cnn14.16k and cnn14.32k set it"
            )
        n_fft, hop, f_min, f_max = FRONT_ENDS[sample_rate]
        self.sample_rate = sample_rate
        self.mel = MelSpectrogram(
            sample_rate=sample_rate,
            n_fft=n_fft,
            hop=hop,
            n_mels=N_MELS,
            f_min=f_min,
            f_max=f_max,
            center="reflect",
            double=True,
        )
        self.min_samples = (_FRAMES_PER_STEP - 1) * hop
        self.bn0 = nn.BatchNorm2d(N_MELS)
        channels = (1, *WIDTHS)
        for number in range(1, 7):
            setattr(self, f"conv_block{number}", _Block(channels[number - 1], channels[number], pooled=number < 6))
        self.fc1 = nn.Linear(2048, 2048)
        self.fc_audioset = nn.Linear(2048, N_TAGS).requires_grad_(False)  # no layer depends on it
        self.has_head = True
        for module in self.modules():  # an untrained network must not fade out layer by layer either
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        step = _FRAMES_PER_STEP * hop
        self.layer_infos = (
            *(LayerInfo(f"block{n}", 2048, step, "mean_plus_max", "channel x frequency") for n in range(1, 6)),
            LayerInfo("block6", 4096, step, "mean_plus_max", "channel x frequency"),
            LayerInfo("fc1", 2048, 0, "mean", "of mean plus max over time"),
        )

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Cnn14:
        """Build, and refuse a checkpoint of the other sample rate, which its mel filters show."""
        encoder = super().from_config(config, weights=None)
        assert isinstance(encoder, cls)
        if weights is not None:
            state = state_dict_of(read_checkpoint(weights))
            encoder._check_filters(state, Path(weights))
            encoder.has_head = f"{_HEAD}.weight" in state
            if not encoder.has_head:
                state |= {f"{_HEAD}.{k}": v for k, v in encoder.fc_audioset.state_dict().items()}
            load_strict(encoder, state, weights, ignore=cls.ignored_tensors)
        return encoder

    def _check_filters(self, state: dict[str, Tensor], path: Path) -> None:
        """The published files hold their mel filters (bin, mel): they tell the rate that the network was trained at."""
        if _FILTERS not in state:
            return
        given = state[_FILTERS].double()
        for rate, (n_fft, _, f_min, f_max) in FRONT_ENDS.items():
            filters = torch.from_numpy(mel_filterbank(rate, n_fft, N_MELS, f_min, f_max).T.copy())
            if given.shape == filters.shape and torch.allclose(given, filters, atol=1e-5):
                if rate == self.sample_rate:
                    return
                raise ValueError(
                    f"{path.name} was trained at {rate} Hz, but this encoder works at {self.sample_rate} Hz; "
                    f"use {'clap.ms2022' if rate == 44100 else f'cnn14.{rate // 1000}k'}"
                )
        raise ValueError(
            f"{path.name} holds mel filters {tuple(given.shape)} that belong to no known CNN14; "
            "is it the 8 kHz or another variant of PANNs?"
        )

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + samples // hop: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 64) log-mel in dB, before the batch normalisation over bands."""
        return 10.0 * self.mel(waveform, lengths).clamp(min=POWER_FLOOR).log10()

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count one frame of the blocks for 32 log-mel frames; fc1 has one frame a clip.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        frames = self.mel.frames(lengths) // _FRAMES_PER_STEP
        return {info.name: frames if info.hop else torch.ones_like(frames) for info in self.layer_infos}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every block, and fc1: (batch, samples) -> layer name -> (batch, time, width)."""
        frames = self.mel.frames(lengths)
        maps = self.network_input(waveform, lengths)[:, None]  # (batch, 1, time, mel)
        maps = self.bn0(maps.transpose(1, 3)).transpose(1, 3)  # bn0 takes the bands for channels
        mask = _Mask(frames, maps.shape[2])
        maps = mask(maps)
        layers: dict[str, Tensor] = {}
        for number in range(1, 7):
            maps, mask = getattr(self, f"conv_block{number}")(maps, mask)  # (batch, channel, time, frequency)
            n_per_step = 2 ** max(0, 5 - number)
            aligned = nn.functional.max_pool2d(maps, (n_per_step, 1)) if n_per_step > 1 else maps
            layers[f"block{number}"] = aligned.transpose(1, 2).flatten(2)  # (batch, time, channel x frequency)
        clip = mean_plus_max(_over_frequency(layers["block6"]), frames // _FRAMES_PER_STEP)  # (batch, 2048)
        layers["fc1"] = self.fc1(clip).relu()[:, None]  # (batch, 1, 2048)
        return layers

    def frequency_mean(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Block 6 averaged over frequency: the frame embedding of PANNs.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, time, 2048), one frame in 32 of the front-end.
        """
        return _over_frequency(self.encode(waveform, lengths)["block6"])

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) probabilities of the AudioSet tags, in AudioSet's order.

        Raises:
            ValueError: if the checkpoint came without its `fc_audioset`.
        """
        if not self.has_head:
            raise ValueError(f"the checkpoint of {self.name or 'cnn14'} has no fc_audioset; use the published file")
        return self.fc_audioset(self.forward(waveform, lengths)["fc1"][:, 0]).sigmoid()


class _Mask:
    """Zeros beyond each clip's end in (batch, channel, time, frequency); nothing if all clips are equally long."""

    def __init__(self, frames: Tensor, n_frames: int) -> None:
        self.frames, self.n_frames = frames, n_frames
        beyond = torch.arange(n_frames, device=frames.device)[None, :] >= frames[:, None]
        self.beyond = beyond[:, None, :, None] if bool(beyond.any()) else None

    def __call__(self, maps: Tensor) -> Tensor:
        return maps if self.beyond is None else maps.masked_fill(self.beyond, 0.0)

    def halve(self) -> _Mask:
        return _Mask(self.frames // 2, self.n_frames // 2)


class _Block(nn.Module):
    """Two 3 x 3 convolutions, each with batch normalisation and ReLU, then average-pooling over 2 x 2."""

    def __init__(self, n_in: int, n_out: int, pooled: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.pooled = pooled

    def forward(self, maps: Tensor, mask: _Mask) -> tuple[Tensor, _Mask]:
        maps = mask(rectify(convolve_and_normalise(self.conv1, self.bn1, maps)))
        maps = mask(rectify(convolve_and_normalise(self.conv2, self.bn2, maps)))
        if self.pooled:
            # A frame whose second half lies beyond the clip's end is beyond it itself: floors, as for the clip alone.
            mask = mask.halve()
            maps = mask(nn.functional.avg_pool2d(maps, 2))
        return maps, mask


def _over_frequency(block6: Tensor) -> Tensor:
    """(batch, time, 2048 x 2) -> (batch, time, 2048)."""
    return block6.unflatten(2, (2048, -1)).mean(dim=3)
