"""Log-mel frames without any network: the floor that every table should show.

Paper: none; the common front-end of audio networks. Checkpoint: none, nothing was trained.
Input: 16 kHz, any length. Power spectra of 25 ms (400 samples, periodic Hann) every 10 ms (160 samples), zero-padded to
a Fourier transform of 1024 samples so that no low band is empty; frames are centred, with zeros beyond the clip's ends,
1 + samples // 160 of them; 64 bands from 50 to 8000 Hz (Slaney's scale, triangles of peak 1); ln(x + 1e-6), which lies
well above the rounding noise of 16-bit files.

Layers: `logmel` (width n_mels, hop 160), pooled to the mean and standard deviation over time: 2 x n_mels features.
"""

from __future__ import annotations

from torch import Tensor

from evar.encoders._logmel import MelSpectrogram
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

LOG_OFFSET = 1e-6


class LogMel(Encoder):
    """Log-mel frames; see the module's docstring for the settings.

    Args:
        n_mels: bands.
        n_fft, win_length, hop: samples at 16 kHz.
        f_min, f_max: Hz.

    Raises:
        ValueError: if an option is out of range.

    Example:
        >>> import torch
        >>> LogMel().encode(torch.zeros(1, 16000))["logmel"].shape
        torch.Size([1, 101, 64])
    """

    sample_rate = 16000
    default_layers: tuple[str, ...] = ("logmel",)
    power = 2  # of the spectra: 2, or 1 for magnitudes

    def __init__(
        self,
        n_mels: int = 64,
        n_fft: int = 1024,
        win_length: int = 400,
        hop: int = 160,
        f_min: float = 50.0,
        f_max: float = 8000.0,
    ) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            sample_rate=self.sample_rate,
            n_fft=n_fft,
            win_length=win_length,
            hop=hop,
            n_mels=n_mels,
            f_min=f_min,
            f_max=f_max,
            norm="none",
            power=self.power,
        )
        self.layer_infos = (LayerInfo("logmel", n_mels, hop, "mean_std", f"ln(power + {LOG_OFFSET:g})"),)

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count 1 + samples // hop frames: (batch,) samples -> (batch,) frames."""
        return self.mel.frames(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Map (batch, samples) to {"logmel": (batch, time, n_mels)}, natural logarithm."""
        return {"logmel": (self.mel(waveform) + LOG_OFFSET).log()}
