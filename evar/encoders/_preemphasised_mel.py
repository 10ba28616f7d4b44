"""The log-mel that PaSST and EfficientAT share, with the difference of neighbouring samples in front."""

from __future__ import annotations

from torch import Tensor, nn

from evar.encoders._logmel import Count, MelSpectrogram

PREEMPHASIS = 0.97
FLOOR, SHIFT, SCALE = 1e-5, 4.5, 5.0


class PreemphasisedMel(nn.Module):
    """A normalised log-mel at 32 kHz: (batch, samples) -> (batch, time, band).

    x[n + 1] - 0.97 x[n], which is one sample shorter than the clip; frames of 1024 samples, of which a symmetric Hann
    window of 800 sees the middle, centred, mirrored at both ends; power; triangles that are linear in mel with peak 1
    from 0 to 15000 Hz; (ln(x + 1e-5) + 4.5) / 5. Computed in float64.

    Args:
        n_mels: bands.
        hop: samples between frames.

    Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout", Interspeech 2022, and its code. The
        upper edge is half the sample rate less 1000 Hz, the middle of the range that training draws from.

    Example:
        >>> import torch
        >>> PreemphasisedMel()(torch.zeros(2, 32000), torch.tensor([32000, 16000])).shape
        torch.Size([2, 100, 128])
    """

    def __init__(self, n_mels: int = 128, hop: int = 320) -> None:
        super().__init__()
        self.mel = MelSpectrogram(
            sample_rate=32000,
            n_fft=1024,
            win_length=800,
            hop=hop,
            n_mels=n_mels,
            f_min=0.0,
            f_max=15000.0,
            scale="htk",
            norm="none",
            slope="mel",
            window="symmetric",
            center="reflect",
            double=True,
        )

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that the original takes: half a frame of the difference, and one more.

        Example:
            >>> PreemphasisedMel().min_samples
            514
        """
        return self.mel.n_fft // 2 + 2

    def frames(self, n_samples: Count) -> Count:
        """Count the frames of a clip: 1 + (samples - 1) // hop.

        Args:
            n_samples: samples of the clip at 32 kHz: a number, or (batch,) numbers.

        Returns:
            Frames, of the same kind as `n_samples`.

        Example:
            >>> PreemphasisedMel().frames(32000)
            100
        """
        return self.mel.frames(n_samples - 1)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the normalised log-mel of every frame.

        Args:
            waveform: (batch, samples) in [-1, 1] at 32 kHz, zero beyond each clip's length.
            lengths: (batch,) valid samples of each clip, at least `min_samples`.

        Returns:
            (batch, time, band), at least (ln(1e-5) + 4.5) / 5.

        Example:
            >>> import torch
            >>> round(PreemphasisedMel()(torch.zeros(1, 3200), torch.tensor([3200]))[0, 0, 0].item(), 4)
            -1.4026
        """
        difference = waveform[:, 1:] - PREEMPHASIS * waveform[:, :-1]
        return ((self.mel(difference, lengths - 1) + FLOOR).log() + SHIFT) / SCALE
