"""Spectrograms in the form that families of encoders share: Kaldi's filterbanks, decibels with a ceiling, min-max scaling.

The spectra and bands themselves come from `_logmel.MelSpectrogram`; here are its settings for Kaldi, and what happens to
the bands afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evar.encoders._logmel import Count, MelSpectrogram

#: the distance from 1 to the next number of float32: Kaldi's floor under the logarithm
KALDI_FLOOR = 1.1920928955078125e-07


class KaldiFilterbank(nn.Module):
    """Kaldi's log-mel filterbank: (batch, samples) -> (batch, time, band), natural logarithm.

    Frames of 400 samples every 160 inside the clip only ("snip edges"), each frame's mean removed, pre-emphasis within the
    frame (its first sample against itself), window, Fourier transform of the next power of two, power, triangles that are
    linear in mel with peak 1, ln(max(x, 1.1920929e-07)). No dither, no energy. Computed in float64, because the faintest
    bands of a float32 transform are rounding errors.

    Args:
        sample_rate: Hz; a frame is 25 ms every 10 ms.
        n_mels: bands.
        window: "povey" (Kaldi's and torchaudio's default) or "symmetric" (torchaudio's "hanning").
        f_min, f_max: edges of the bands, Hz; None is sample_rate / 2.
        preemphasis: share of the previous sample that is subtracted.
        scale: factor of the waveform, such as 2**15 where an encoder was trained on 16-bit numbers.

    Source: Kaldi's feature-fbank and torchaudio.compliance.kaldi.fbank, held against the latter in the tests.

    Example:
        >>> KaldiFilterbank()(torch.zeros(2, 16000)).shape
        torch.Size([2, 98, 128])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mels: int = 128,
        window: str = "povey",
        f_min: float = 20.0,
        f_max: float | None = None,
        preemphasis: float = 0.97,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        win_length = sample_rate * 25 // 1000
        self.mel = MelSpectrogram(
            sample_rate=sample_rate,
            n_fft=1 << (win_length - 1).bit_length(),
            win_length=win_length,
            hop=sample_rate // 100,
            n_mels=n_mels,
            f_min=f_min,
            f_max=f_max,
            scale="htk",
            norm="none",
            slope="mel",
            window=window,
            center="none",
            remove_dc=True,
            preemphasis=preemphasis,
            double=True,
        )

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that gives a frame: one whole frame of 25 ms.

        Example:
            >>> KaldiFilterbank().min_samples
            400
        """
        return self.mel.min_samples

    def frames(self, n_samples: Count) -> Count:
        """Count the frames of a clip: 1 + (samples - 400) // 160 at 16 kHz.

        Args:
            n_samples: samples of the clip, at least `min_samples`: a number, or (batch,) numbers.

        Returns:
            Frames, of the same kind as `n_samples`.

        Example:
            >>> KaldiFilterbank().frames(16000)
            98
        """
        return self.mel.frames(n_samples)

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the log-mel bands of every frame.

        Args:
            waveform: (batch, samples) in [-1, 1].

        Returns:
            (batch, time, band) natural logarithms, at least ln(1.1920929e-07).

        Example:
            >>> round(KaldiFilterbank(n_mels=40)(torch.zeros(1, 400))[0, 0, 0].item(), 4)  # silence: the floor
            -15.9424
        """
        return self.mel(waveform * self.scale if self.scale != 1.0 else waveform).clamp(min=KALDI_FLOOR).log()


def to_decibels(power: Tensor, frames: Tensor, top_db: float, floor: float = 1e-10) -> Tensor:
    """Convert power to decibels, at most `top_db` below the loudest number of the same clip.

    Args:
        power: (batch, time, band), >= 0.
        frames: (batch,) valid frames of each clip; what lies beyond does not count for its loudest number.
        top_db: decibels.
        floor: smallest power that the logarithm sees.

    Returns:
        (batch, time, band): max(10 log10(max(power, floor)), loudest - top_db). Each clip has its own loudest number,
        whatever shares its batch.

    Source: torchaudio.transforms.AmplitudeToDB("power", top_db), called with one clip.

    Example:
        >>> to_decibels(torch.tensor([[[1.0], [1e-3], [1e-9]]]), torch.tensor([3]), 80.0).flatten().tolist()
        [0.0, -30.0, -80.0]
    """
    decibels = 10.0 * power.clamp(min=floor).log10()
    valid = torch.arange(power.shape[1], device=power.device)[None, :] < frames.to(power.device)[:, None]
    loudest = decibels.masked_fill(~valid[:, :, None], -torch.inf).amax(dim=(1, 2), keepdim=True)  # (batch, 1, 1)
    return torch.maximum(decibels, loudest - top_db)


def scale_min_max(values: Tensor, low: float, high: float) -> Tensor:
    """Scale values (batch, time, mel) so that fixed limits become -1 and 1: 2 (x - low) / (high - low) - 1, without a cut.

    Example:
        >>> scale_min_max(torch.tensor([-80.0, 0.0, 40.0]), -80.0, 40.0).tolist()
        [-1.0, 0.3333333730697632, 1.0]
    """
    return 2.0 * (values - low) / (high - low) - 1.0


class DecibelMel(nn.Module):
    """torchaudio's log-mel in decibels: (batch, samples) -> (batch, time, band).

    Centred frames every 160 samples, the clip mirrored at both of its ends, periodic Hann, power, triangles linear in Hz
    with peak 1 whose edges are evenly spaced in HTK's mel, 10 log10(max(x, 1e-10)), at most `top_db` below the clip's
    loudest number.

    Args:
        n_fft: samples of a frame and of its Fourier transform.
        f_min, f_max: edges of the bands, Hz.
        top_db: see `to_decibels`.
        n_mels: bands.

    Source: torchaudio.transforms.MelSpectrogram and AmplitudeToDB with their defaults, at 16 kHz.

    Example:
        >>> DecibelMel(512, 0.0, 8000.0, 120.0)(torch.zeros(2, 16000), torch.tensor([16000, 8000])).shape
        torch.Size([2, 101, 64])
    """

    def __init__(self, n_fft: int, f_min: float, f_max: float, top_db: float, n_mels: int = 64) -> None:
        super().__init__()
        self.top_db = top_db
        self.mel = MelSpectrogram(
            sample_rate=16000,
            n_fft=n_fft,
            hop=160,
            n_mels=n_mels,
            f_min=f_min,
            f_max=f_max,
            scale="htk",
            norm="none",
            slope="hz",
            center="reflect",
            double=True,
        )

    @property
    def min_samples(self) -> int:
        """Samples of the shortest clip that can be mirrored: half a frame, and one more.

        Example:
            >>> DecibelMel(512, 0.0, 8000.0, 120.0).min_samples
            257
        """
        return self.mel.min_samples

    def frames(self, n_samples: Count) -> Count:
        """Count the frames of a clip: 1 + samples // 160.

        Args:
            n_samples: samples of the clip at 16 kHz: a number, or (batch,) numbers.

        Returns:
            Frames, of the same kind as `n_samples`.

        Example:
            >>> DecibelMel(512, 0.0, 8000.0, 120.0).frames(torch.tensor([16000, 8000])).tolist()
            [101, 51]
        """
        return self.mel.frames(n_samples)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the mel bands of every frame in decibels.

        Args:
            waveform: (batch, samples) in [-1, 1] at 16 kHz, zero beyond each clip's length.
            lengths: (batch,) valid samples of each clip, at least `min_samples`.

        Returns:
            (batch, time, band) decibels, at most `top_db` below each clip's loudest number.

        Example:
            >>> DecibelMel(512, 0.0, 8000.0, 120.0)(torch.zeros(1, 800), torch.tensor([800])).unique().tolist()
            [-100.0]
        """
        return to_decibels(self.mel(waveform, lengths), self.mel.frames(lengths), self.top_db)
