"""Wav2CLIP: a ResNet-18 on spectrograms, taught to give a sound the vector that CLIP gives to its picture.

Paper: Wu et al., "Wav2CLIP: Learning Robust Audio Representations From CLIP", ICASSP 2022 (arXiv 2110.11499).
Checkpoint: `Wav2CLIP.pt` of the releases of descriptinc/lyrebird-wav2clip (MIT). Distilled from CLIP's image tower on
the videos of VGGSound; the vector of a clip can therefore be compared with CLIP's vectors of pictures and texts.

Input: 16 kHz. Power spectra of 512 samples every 353 (periodic Hann, centred, clip mirrored at both ends), 257 linear
bins, ln(x + 1e-7), then shifted and scaled to mean 0 and sample deviation 1 over the whole clip. At least 257 samples;
clips of any length go through the network as a whole.

Network: convolution 7 x 7, four stages of two residual blocks, global average, an MLP of two linear layers.

Layers: layer1..layer4, after each stage, channel x frequency side by side, one frame in 4, 8, 16 and 32 of the
spectrogram, pooled by mean; encoder (512), their average over time and frequency, and emb (512), the official embedding
of the clip, which is the default: both one vector a clip. `embed_frames` gives the original's frame mode.

Differs from the original: each clip is standardised by itself. The original takes mean and deviation over the whole
batch, so that a clip's vector depends on the others; with one clip the two are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evar.encoders._by_length import flatten_channels, run_by_length, standardise_clips
from evar.encoders._resnet import ResNet
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import state_dict_of

N_FFT, HOP, N_BINS = 512, 353, 257
LOG_OFFSET, STD_FLOOR = 1e-7, 1e-9
CHUNK_FRAMES = 2**13  # of spectrograms that share a forward: 64 maps of 129 bins


class Wav2Clip(Encoder):
    """Wav2CLIP with every stage; see the module's docstring.

    Args:
        channels: of the first stage, for tests; the checkpoint has 64.

    Example:
        >>> Wav2Clip(channels=4).encode(torch.zeros(1, 16000))["emb"].shape
        torch.Size([1, 1, 512])
    """

    sample_rate = 16000
    min_samples = N_FFT // 2 + 1
    default_layers = ("emb",)
    ignored_tensors = ("spectrogram.", "image_transform.", "loss_fn_")

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.encoder = ResNet(channels, (2, 2, 2, 2), first_stride=2)
        self.transform = nn.Sequential(nn.Linear(8 * channels, 512), nn.ReLU(), nn.Linear(512, 512))
        n_bins, infos = N_BINS, []
        n_bins = -(-n_bins // 4)  # after the first convolution and the max-pool
        for number in range(1, 5):
            width, hop = channels << (number - 1), HOP << (number + 1)
            infos.append(LayerInfo(f"layer{number}", width * n_bins, hop, "mean", f"{width} channels x {n_bins} bands"))
            n_bins = -(-n_bins // 2)
        self.layer_infos = (
            *infos,
            LayerInfo("encoder", 8 * channels, 0, "mean", "average over time and frequency"),
            LayerInfo("emb", 512, 0, "mean", "after the MLP: CLIP's space"),
        )

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the published file, and leave out CLIP's own and those of the losses."""
        state = {}
        for name, value in state_dict_of(checkpoint).items():
            name = name.removeprefix("audio_encoder.")
            for published, own in (("0", "0"), ("3", "2")):  # a dropout lies between the two linear layers
                name = name.replace(f"audio_transform.sequential.{published}.", f"transform.{own}.")
            state[name if name.startswith(("transform.", *self.ignored_tensors)) else f"encoder.{name}"] = value
        return state

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the frames of the spectrogram: 1 + samples // 353: (batch,) samples -> (batch,) frames."""
        return 1 + lengths // HOP

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 257) ln(power + 1e-7), before it is standardised."""
        return run_by_length(lambda x: {"": self._compute_spectrogram(x)}, waveform, lengths, 2**22)[""]

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count one frame for 4, 8, 16 and 32 frames of the spectrogram, rounded up; the last two layers have one a clip.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        frames = self.network_input_frames(lengths)
        return {
            info.name: (frames + info.hop // HOP - 1) // (info.hop // HOP) if info.hop else torch.ones_like(frames)
            for info in self.layer_infos
        }

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every stage, their average, and the embedding.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        spectrogram = self.network_input(waveform, lengths)
        return run_by_length(
            lambda x: self._run_network(self.scale(x)), spectrogram, self.network_input_frames(lengths), CHUNK_FRAMES
        )

    def scale(self, spectrogram: Tensor) -> Tensor:
        """Shift and scale each clip's spectrogram to mean 0 and deviation 1, as the network expects it.

        Args:
            spectrogram: (clips, time, 257), all of one length.

        Example:
            >>> Wav2Clip(channels=4).scale(torch.rand(1, 9, 257)).std().round(decimals=3).item()
            1.0
        """
        return standardise_clips(spectrogram, STD_FLOOR)

    def embed_frames(self, waveform: Tensor, frame: int = 16000, hop: int = 16000) -> Tensor:
        """Compute a vector for every frame of one clip, as the original's frame mode does.

        All frames are standardised by one mean and deviation. What is left over at the end is dropped, as in the original.

        Args:
            waveform: (1, samples) in [-1, 1] at 16 kHz, at least one frame long.
            frame, hop: samples of a frame, and between frames.

        Returns:
            (frame, 512).

        Raises:
            ValueError: if the waveform holds no frame, or more than one clip.

        Example:
            >>> Wav2Clip(channels=4).eval().embed_frames(torch.zeros(1, 40000)).shape
            torch.Size([2, 512])
        """
        if len(waveform) != 1 or waveform.shape[1] < frame:
            raise ValueError(
                f"embed_frames needs one clip of at least {frame} samples, got {tuple(waveform.shape)}; "
                "pad it, or use encode"
            )
        spectrogram = self._compute_spectrogram(waveform[0].unfold(0, frame, hop))  # (frame, time, bin)
        whole = self.scale(spectrogram.flatten(0, 1)[None])[0].unflatten(0, spectrogram.shape[:2])
        return self._run_network(whole)["emb"][:, 0]

    def _compute_spectrogram(self, waveform: Tensor) -> Tensor:
        """(clips, samples), all of one length -> (clips, time, 257); in float64, as rounding noise would be heard."""
        kind = torch.float32 if waveform.device.type == "mps" else torch.float64
        window = torch.hann_window(N_FFT, dtype=kind, device=waveform.device)
        spectrum = torch.stft(waveform.to(kind), N_FFT, HOP, window=window, pad_mode="reflect", return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()  # (clips, bin, time)
        return (power.transpose(1, 2) + LOG_OFFSET).log().float()

    def _run_network(self, scaled: Tensor) -> dict[str, Tensor]:
        """(clips, time, 257) -> layer -> (clips, time step, feature)."""
        _, *maps = self.encoder(scaled.transpose(1, 2)[:, None])  # (clips, channel, frequency, time)
        layers = {f"layer{number}": flatten_channels(one) for number, one in enumerate(maps, start=1)}
        layers["encoder"] = maps[-1].mean(dim=(2, 3))[:, None]
        layers["emb"] = self.transform(layers["encoder"])
        return layers
