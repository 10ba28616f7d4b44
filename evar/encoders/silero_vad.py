"""Silero VAD: a small causal network that hears speech in chunks of 32 ms.

Paper: none; Silero Team, "Silero VAD", https://github.com/snakers4/silero-vad (2021-).
Checkpoint: `silero_vad/data/silero_vad_16k.safetensors` of the package silero-vad 6.2.3, MIT. It is another training of
the same network than the JIT and ONNX files of that wheel: no tensor but the Fourier basis is the same.
Input: 16 kHz, any length >= 1 sample. A clip is zero-padded to whole chunks of 512 samples, and each chunk is seen with
the 64 samples before it (zeros before the first) and its own last 64 mirrored behind it.

| layer | width | hop | what it is |
|---|---|---|---|
| stft | 129 | 128 | magnitudes of a Hann-windowed Fourier transform of 256 samples; fixed, not learned |
| conv1 | 128 | 128 | after ReLU, as all convolutions |
| conv2 | 64 | 256 | |
| conv3 | 64 | 512 | |
| conv4 | 128 | 512 | |
| lstm | 128 | 512 | hidden state, before the ReLU of the output layer; carried from the clip's first chunk to its last |
| speech | 1 | 512 | probability that someone speaks |

Differs from the original: it runs on whole clips instead of a stream (same numbers), and only at 16 kHz.
Layers are pooled by their mean over time: every chunk counts alike, whereas the last state of the LSTM would know
little beyond the clip's end, which is often silence.
Trained on: undisclosed speech corpora; its authors speak of more than 6000 languages and of many kinds of noise.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from evar.encoders._packing import as_count, pack, unpack
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

CHUNK = 512  # samples
CONTEXT = 64  # samples of the previous chunk before each chunk, and as many mirrored behind it
N_FFT = 256
N_BINS = N_FFT // 2 + 1
STFT_HOP = 128

_CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4")


class SileroVad(Encoder):
    """The 16 kHz network of Silero VAD, every hidden layer.

    Example:
        >>> features = SileroVad().encode(torch.zeros(2, 16000))
        >>> features["lstm"].shape, features.frames["lstm"].tolist()
        (torch.Size([2, 32, 128]), [32, 32])
    """

    sample_rate = 16000
    layer_infos = (
        LayerInfo("stft", width=N_BINS, hop=STFT_HOP, pooling="mean", note="magnitude"),
        LayerInfo("conv1", width=128, hop=128, pooling="mean"),
        LayerInfo("conv2", width=64, hop=256, pooling="mean"),
        LayerInfo("conv3", width=64, hop=512, pooling="mean"),
        LayerInfo("conv4", width=128, hop=512, pooling="mean"),
        LayerInfo("lstm", width=128, hop=512, pooling="mean"),
        LayerInfo("speech", width=1, hop=512, pooling="mean", note="probability"),
    )
    default_layers = ("lstm",)
    min_samples = 1
    batch_invariant = True

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("basis", _fourier_basis())  # (2 x bin, 1, tap): real parts, then imaginary parts
        self.conv1 = nn.Conv1d(N_BINS, 128, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, kernel_size=3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, kernel_size=3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, kernel_size=3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.speech = nn.Linear(128, 1)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer; see `Encoder.forward`: (batch, samples) -> layer name -> (batch, time, width).

        The convolutions see each chunk by itself, so they run over the valid chunks of all clips at once; only the
        LSTM runs along time. It never looks ahead, so the zeros behind a shorter clip change nothing in it.
        """
        n_chunks = _n_chunks(lengths)
        end = as_count(n_chunks.max()) * CHUNK
        kept = waveform[:, :end]
        padded = nn.functional.pad(kept, (CONTEXT, end - kept.shape[1]))
        chunks = pack(padded.unfold(1, CONTEXT + CHUNK, CHUNK), n_chunks)  # (chunk, context + chunk samples)
        layers = {}
        for name, value in self._convolve(chunks).items():  # (chunk, frame, feature)
            layers[name] = unpack(value.flatten(1), n_chunks).reshape(waveform.shape[0], -1, value.shape[2])
        layers["lstm"], _ = self.lstm(layers["conv4"])  # (batch, chunk, 128)
        layers["speech"] = self.speech(layers["lstm"].relu()).sigmoid()  # (batch, chunk, 1)
        return layers

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the frames of each begun chunk: 4 at a hop of 128, 2 at 256 and 1 at 512.

        (batch,) samples -> layer name -> (batch,) frames.

        Example:
            >>> frames = SileroVad().valid_frames(torch.tensor([512, 513]))
            >>> frames["stft"].tolist(), frames["lstm"].tolist()
            ([4, 8], [1, 2])
        """
        n_chunks = _n_chunks(lengths)
        return {info.name: n_chunks * (CHUNK // info.hop) for info in self.layer_infos}

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the published tensors; the output layer is a convolution of one tap there."""
        renamed = {"stft_conv.weight": "basis", "final_conv.weight": "speech.weight", "final_conv.bias": "speech.bias"}
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            renamed[f"lstm_cell.{kind}"] = f"lstm.{kind}_l0"
        state = {renamed.get(name, name): tensor for name, tensor in checkpoint.items()}
        tap = state.get("speech.weight")
        if isinstance(tap, Tensor) and tap.dim() == 3 and tap.shape[2] == 1:
            state["speech.weight"] = tap[:, :, 0]  # (1, 128, 1) -> (1, 128)
        return state

    def _convolve(self, chunks: Tensor) -> dict[str, Tensor]:
        """Layers without memory: (chunk, samples) -> name -> (chunk, frame, feature)."""
        mirrored = nn.functional.pad(chunks[:, None, :], (0, CONTEXT), mode="reflect")
        parts = nn.functional.conv1d(mirrored, self.basis, stride=STFT_HOP)  # (chunk, 2 x bin, frame)
        # Unlike a square root of summed squares, a complex magnitude has a finite gradient in silence.
        value = torch.complex(parts[:, :N_BINS], parts[:, N_BINS:]).abs()  # (chunk, bin, frame)
        layers = {"stft": value}
        for name in _CONVOLUTIONS:
            value = getattr(self, name)(value).relu()  # (chunk, feature, frame)
            layers[name] = value
        return {name: value.transpose(1, 2) for name, value in layers.items()}


def _n_chunks(lengths: Tensor) -> Tensor:
    return (lengths + CHUNK - 1) // CHUNK


def _fourier_basis() -> Tensor:
    """Cosines and negative sines under a periodic Hann window: (2 x bin, 1, tap), as in the published file."""
    tap = torch.arange(N_FFT, dtype=torch.float64)
    angle = 2 * math.pi / N_FFT * torch.outer(torch.arange(N_BINS, dtype=torch.float64), tap)  # (bin, tap)
    window = torch.hann_window(N_FFT, periodic=True, dtype=torch.float64)
    return (torch.cat([angle.cos(), -angle.sin()]) * window)[:, None, :].float()
