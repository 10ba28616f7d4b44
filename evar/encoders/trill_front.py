"""TRILL's front-end: the log-mel that this network takes, without the network.

Paper: Shor et al., "Towards Learning a Universal Non-Semantic Representation of Speech", Interspeech 2020 (arXiv
2002.12764). The network was published as a TensorFlow SavedModel only, and its layers are in no repository; the encoder
`trill` runs that file, and needs TensorFlow. This encoder is the part before the network, from
google-research/non_semantic_speech_benchmark (Apache-2.0): a baseline without parameters, to compare TRILL's rows with.

Input: 16 kHz. Magnitude spectra of 400 samples every 160 in a Fourier transform of 512 (periodic Hann, whole frames
only), 64 HTK mel bands from 125 to 7500 Hz (triangles linear in mel, peak 1), ln(max(x, 1e-12) + 0.001). Clips shorter
than 16,000 samples are filled up with silence.

Layers: logmel (64), one frame every 160 samples, pooled to mean and standard deviation: 128 features. `cut_patches` cuts it
into the images of 96 frames that the network takes.
"""

from __future__ import annotations

from torch import Tensor

from evar.encoders._logmel import make_vggish_mel
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

HOP, N_MELS, PATCH_FRAMES = 160, 64, 96
FLOOR, OFFSET = 1e-12, 1e-3


class TrillFront(Encoder):
    """TRILL's log-mel; see the module's docstring.

    Example:
        >>> import torch
        >>> TrillFront().encode(torch.zeros(1, 16000))["logmel"].shape
        torch.Size([1, 98, 64])
    """

    sample_rate = 16000
    min_samples = 16000
    default_layers = ("logmel",)
    layer_infos = (LayerInfo("logmel", N_MELS, HOP, "mean_std", "ln(magnitude + 0.001)"),)

    def __init__(self) -> None:
        super().__init__()
        self.mel = make_vggish_mel()

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + (samples - 400) // 160: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, time, 64) log-mel, natural logarithm."""
        return (self.mel(waveform).clamp(min=FLOOR) + OFFSET).log()

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count log-mel frames, 1 + (samples - 400) // 160: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Map (batch, samples) to {"logmel": (batch, time, 64)}."""
        return {"logmel": self.network_input(waveform, lengths)}

    def cut_patches(self, waveform: Tensor, hop_frames: int = PATCH_FRAMES) -> Tensor:
        """Images of 96 frames; what is left over at the end is dropped.

        Args:
            waveform: (batch, samples) in [-1, 1] at 16 kHz, all of one length.
            hop_frames: frames between the beginnings of images.

        Returns:
            (batch, patch, 96, 64).

        Example:
            >>> import torch
            >>> TrillFront().cut_patches(torch.zeros(1, 64000), hop_frames=17).shape
            torch.Size([1, 18, 96, 64])
        """
        return self.frontend(waveform).unfold(1, PATCH_FRAMES, hop_frames).transpose(2, 3)
