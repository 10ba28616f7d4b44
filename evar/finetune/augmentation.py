"""Augmentation of training clips, one draw for every clip. All random numbers come from the generator that is given."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from evar.encoders.base import Encoder

#: of the virtual canvas of a random resize crop, against the input: frequency, time
CANVAS = (1.0, 1.5)
CROP_RANGE = (0.6, 1.5)


def mix_clips(
    waveform: Tensor, lengths: Tensor, targets: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixup of waveforms: each clip with another of the batch, by a share of its own.

    Args:
        waveform: (batch, samples).
        lengths: (batch,) valid samples.
        targets: (batch, classes) floats.
        alpha: shares are drawn from Beta(alpha, alpha).
        generator: of the shares and partners.

    Returns:
        Waveforms, lengths (the longer of the two) and targets, mixed by the same shares.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    n = len(waveform)
    share = _draw_beta(n, alpha, generator).to(waveform)  # (batch,)
    partner = torch.randperm(n, generator=generator).to(waveform.device)
    clips = share[:, None] * waveform + (1 - share)[:, None] * waveform[partner]
    return (
        clips,
        torch.maximum(lengths, lengths[partner]),
        share[:, None] * targets + (1 - share)[:, None] * targets[partner],
    )


def _draw_beta(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    """(n,) draws of Beta(alpha, alpha), as a ratio of two gamma variates."""
    import numpy as np

    numbers = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    return torch.from_numpy(numbers.beta(alpha, alpha, n))


def change_gain(waveform: Tensor, decibels: float, generator: torch.Generator) -> Tensor:
    """Return each clip (batch, samples) louder or softer by at most `decibels`, uniform in dB."""
    gain = (2 * torch.rand(len(waveform), generator=generator) - 1) * decibels
    return waveform * (10 ** (gain / 20)).to(waveform)[:, None]


def add_noise(waveform: Tensor, lengths: Tensor, decibels: float, generator: torch.Generator) -> Tensor:
    """White noise on each clip (batch, samples), `decibels` against the clip's own level at most (down to 20 dB less)."""
    valid = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
    level = (waveform.square().sum(dim=1) / lengths).sqrt()  # (batch,) root mean square
    relative = decibels - 20 * torch.rand(len(waveform), generator=generator)
    noise = torch.randn(waveform.shape, generator=generator).to(waveform)
    return waveform + noise * valid * (level * (10 ** (relative / 20)).to(waveform))[:, None]


def shift_clips(waveform: Tensor, lengths: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Return each clip (batch, samples) rolled around its own length by at most `samples` either way."""
    by = torch.randint(-samples, samples + 1, (len(waveform),), generator=generator).to(waveform.device)
    place = torch.arange(waveform.shape[1], device=waveform.device)[None, :]
    source = torch.where(place < lengths[:, None], (place - by[:, None]) % lengths[:, None], place)
    return waveform.gather(1, source)


def mask_logmel(logmel: Tensor, frames: Tensor, freq_mask: int, time_mask: int, generator: torch.Generator) -> Tensor:
    """SpecAugment: a band of frequencies and a stretch of time of each clip are set to the clip's mean.

    Args:
        logmel: (batch, time, mel).
        frames: (batch,) the clip's own frames.
        freq_mask: largest number of mel bands; each clip's is uniform in 0..freq_mask.
        time_mask: largest number of frames, likewise; never more than the clip has.
        generator: of widths and places.

    Source: Park et al., "SpecAugment", Interspeech 2019: one mask on each axis; the fill is the mean of the clip's own
        values, which is close to what a normalised input has as 0.
    """
    n, n_frames, n_mels = logmel.shape
    valid = (torch.arange(n_frames, device=logmel.device) < frames[:, None])[:, :, None]
    mean = (logmel * valid).sum(dim=(1, 2)) / (frames * n_mels)  # (batch,)
    hidden = torch.zeros_like(logmel, dtype=torch.bool)
    for most, size, axis in ((freq_mask, torch.full((n,), n_mels), 2), (time_mask, frames.cpu(), 1)):
        if most < 1:
            continue
        width = torch.minimum((torch.rand(n, generator=generator) * (most + 1)).long(), size)
        start = (torch.rand(n, generator=generator) * (size - width + 1)).long()
        place = torch.arange(logmel.shape[axis])
        inside = ((place >= start[:, None]) & (place < (start + width)[:, None])).to(logmel.device)  # (batch, places)
        hidden |= inside[:, None, :] if axis == 2 else inside[:, :, None]
    return torch.where(hidden & valid, mean[:, None, None], logmel)


def crop_logmel(logmel: Tensor, generator: torch.Generator) -> Tensor:
    """Random resize crop of each clip's log-mel: a window of other height and length is stretched to the old size.

    The input lies in the middle of a canvas that is 1.5 times as long and filled with the clip's mean; a window of 0.6 to
    1.5 times the input's height and length, at most the canvas, is taken at random and resized by bicubic interpolation.

    Args:
        logmel: (batch, time, mel).
        generator: of sizes and places.

    Source: Niizumi et al., "BYOL for Audio", IJCNN 2021, section III-B-2; bicubic on pixel centres.
    """
    n, n_frames, n_mels = logmel.shape
    height, length = round(CANVAS[0] * n_mels), round(CANVAS[1] * n_frames)
    canvas = logmel.mean(dim=(1, 2), keepdim=True).expand(n, length, height).clone()
    top, left = (height - n_mels) // 2, (length - n_frames) // 2
    canvas[:, left : left + n_frames, top : top + n_mels] = logmel
    draws = torch.rand(n, 4, generator=generator)
    cropped = []
    for one, (a, b, c, d) in zip(canvas, draws.tolist(), strict=True):
        low, high = CROP_RANGE
        h = max(1, min(height, int((low + a * (high - low)) * n_mels)))
        w = max(1, min(length, int((low + b * (high - low)) * n_frames)))
        i, j = int(c * (height - h + 1)), int(d * (length - w + 1))
        window = one[None, None, j : j + w, i : i + h]
        cropped.append(
            torch.nn.functional.interpolate(window, (n_frames, n_mels), mode="bicubic", align_corners=True)[0, 0]
        )
    return torch.stack(cropped)


def wrap_logmel(
    encoder: Encoder, freq_mask: int, time_mask: int, rrc: bool, generator: torch.Generator
) -> Callable[..., Tensor]:
    """Make a front-end with masks and crops behind it, which takes the place of `encoder.network_input`.

    Args:
        encoder: whose front-end it is.
        freq_mask, time_mask: the longest mask, in mel bands and in frames; 0 for none.
        rrc: whether the log-mel is cropped and resized at random.
        generator: that draws masks and crops.

    Returns:
        A function of waveform (batch, samples) and lengths (batch,) that gives (batch, time, mel).
    """
    plain = type(encoder).network_input

    @torch.compiler.disable
    def augment(waveform: Tensor, lengths: Tensor) -> Tensor:
        logmel = plain(encoder, waveform, lengths)
        if rrc:
            logmel = crop_logmel(logmel, generator)
        if freq_mask or time_mask:
            frames = encoder.network_input_frames(lengths).clamp(max=logmel.shape[1])
            logmel = mask_logmel(logmel, frames, freq_mask, time_mask, generator)
        return logmel

    return augment
