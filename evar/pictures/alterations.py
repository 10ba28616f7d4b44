"""Alterations of a clip that test an encoder: other pitch, other level, noise, another start.

Pure functions on a mono waveform. Pitch is shifted by a phase vocoder (stretch in time, then resample back), written here
on torch's Fourier transform and the package's own resampler. Resampling alone would change the length as well; librosa,
whose `effects.pitch_shift` does the same without locking the phases, is not worth a dependency for forty lines.

No vocoder is transparent: what it does by itself is measured, too, by shifting there and back again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.altering.levels import convert_db, scale_level
from evar.audio.altering.noises import add_noise
from evar.audio.reading import resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEMITONES = tuple(float(step) for step in range(-12, 13))
LEVELS_DB = tuple(float(level) for level in range(-30, 13, 3))
SNRS_DB = tuple(float(ratio) for ratio in range(40, -1, -5))
#: shifts that are also taken back, to see what shifting does by itself
CONTROL_SEMITONES = (-12.0, -9.0, -6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 9.0, 12.0)
#: from 1 ms to half the clip, in equal ratios: shifts within a frame matter as well as shifts over many
N_TIME_SHIFTS = 16


@dataclass(frozen=True)
class Alteration:
    """One way to alter a clip.

    Attributes:
        name: in the CSV ("pitch", "pitch_and_back", "level", "noise", "time").
        title: of the panel.
        unit: axis label, with the unit.
        clips: value, in that unit -> (samples,) float32, the altered clip; in the order of the axis.
    """

    name: str
    title: str
    unit: str
    clips: dict[float, NDArray[np.float32]]


@dataclass(frozen=True)
class AlteredClip:
    """A clip, unaltered and altered in every way, all of them within full scale.

    Attributes:
        unaltered: (samples,) float32; the reference of all distances.
        lowered_db: level taken from everything, unaltered clip included, so that nothing clips; 0 if nothing would.
        alterations: pitch, pitch_and_back (the control), level, noise, time.
    """

    unaltered: NDArray[np.float32]
    lowered_db: float
    alterations: tuple[Alteration, ...]


def alter_clip(waveform: NDArray[np.float32], sample_rate: int, seed: int = 0) -> AlteredClip:
    """Make every altered version of a clip, all of its length.

    Nothing clips: where a shifted or noisy version would exceed full scale, all versions and the clip itself are lowered by
    the same gain first; then levels that would exceed full scale are left out.

    Args:
        waveform: (samples,) float32 in [-1, 1].
        sample_rate: Hz.
        seed: of the noise; one noise serves all signal-to-noise ratios.

    Raises:
        ValueError: if the clip is silent.
    """
    if not np.any(waveform):
        raise ValueError("the clip is silent; there is nothing to shift, and no signal-to-noise ratio")
    steps = np.geomspace(1e-3 * sample_rate, len(waveform) / 2, N_TIME_SHIFTS)
    shifts = [0, *np.unique(np.round(steps).astype(np.int64)).tolist()]
    pitch = {step: shift_pitch(waveform, sample_rate, step) for step in SEMITONES}
    back = {step: shift_pitch(pitch[step], sample_rate, -step) for step in CONTROL_SEMITONES}
    noise = {ratio: add_noise(waveform, ratio, seed) for ratio in SNRS_DB}
    peak = max(float(np.abs(clip).max()) for clip in (waveform, *pitch.values(), *back.values(), *noise.values()))
    gain = min(1.0, 1.0 / peak)
    reference = scale_level(waveform, gain)
    highest = float(np.abs(reference).max())
    levels = {db: scale_level(reference, convert_db(db)) for db in LEVELS_DB if highest * convert_db(db) <= 1.0}
    moved = {1000 * shift / sample_rate: np.roll(reference, shift) for shift in shifts}
    return AlteredClip(
        reference,
        -20 * math.log10(gain) + 0.0,
        (
            Alteration("pitch", "pitch shift", "shift (semitones)", _scale_all(pitch, gain)),
            Alteration("pitch_and_back", "pitch shift, taken back", "shift (semitones)", _scale_all(back, gain)),
            Alteration("level", "level", "change of level (dB)", levels),
            Alteration("noise", "white noise", "signal-to-noise ratio (dB)", _scale_all(noise, gain)),
            Alteration("time", "time shift, circular", "shift (ms)", moved),
        ),
    )


def _scale_all(clips: dict[float, NDArray[np.float32]], gain: float) -> dict[float, NDArray[np.float32]]:
    return {value: scale_level(clip, gain) for value, clip in clips.items()}


def shift_pitch(waveform: NDArray[np.float32], sample_rate: int, semitones: float) -> NDArray[np.float32]:
    """Shift every frequency by the same interval and keep the length; formants move along.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        semitones: upwards; frequencies above half the sample rate are lost. 0 returns the clip unchanged.

    Returns:
        (samples,) float32.
    """
    if semitones == 0:
        return waveform.copy()
    rate_above = round(sample_rate * 2.0 ** (semitones / 12.0))  # whole Hz: at most 0.1 cent off at 8 kHz
    n_fft = 2 ** math.ceil(math.log2(0.064 * sample_rate))  # 64 to 128 ms resolve partials from about 60 Hz
    stretched = stretch_time(waveform, rate_above / sample_rate, n_fft)
    shifted = resample(stretched, rate_above, sample_rate)[: len(waveform)]
    return np.pad(shifted, (0, len(waveform) - len(shifted)))


def stretch_time(waveform: NDArray[np.float32], factor: float, n_fft: int) -> NDArray[np.float32]:
    """Make a clip longer or shorter at its own pitch, by a phase vocoder with locked phases.

    Frames of the short-time spectrum are read at another speed. The phase of each spectral peak is summed up from the
    frequency that it has between two frames; the bins around a peak keep their phases relative to it. Without this lock they
    drift apart and cancel, which costs a real clip some 3 dB; with it, about half a dB.

    Args:
        waveform: (samples,) float32.
        factor: of the duration, above 0.
        n_fft: samples of the periodic Hann window and its transform; frames are a quarter of that apart.

    Returns:
        (round(samples * factor),) float32.

    Source: J. Laroche and M. Dolson, "Improved Phase Vocoder Time-Scale Modification of Audio", IEEE Transactions on
    Speech and Audio Processing 7(3), 1999: "identity phase locking".
    """
    import torch

    hop, n_out = n_fft // 4, round(len(waveform) * factor)
    window = torch.hann_window(n_fft, dtype=torch.float64)
    samples = torch.from_numpy(waveform).double()  # phases add up over thousands of frames: float32 would drift
    frames = torch.stft(samples, n_fft, hop, window=window, center=True, pad_mode="constant", return_complex=True)
    spectrum = np.pad(frames.numpy(), ((0, 0), (0, 1)))  # (bin, time); silence follows the last frame
    positions = np.minimum(np.arange(2 + n_out // hop) / factor, frames.shape[1] - 1)  # (time',) in frames
    left = positions.astype(np.int64)
    share = positions - left
    before, after = spectrum[:, left], spectrum[:, left + 1]  # (bin, time')
    magnitude = (1 - share) * np.abs(before) + share * np.abs(after)
    expected = 2 * np.pi * hop / n_fft * np.arange(n_fft // 2 + 1)[:, None]  # turn of a bin's own frequency in a hop
    deviation = np.angle(after) - np.angle(before) - expected
    advance = expected + deviation - 2 * np.pi * np.round(deviation / (2 * np.pi))
    phase = _lock_phases(magnitude, advance, np.angle(np.where(share < 0.5, before, after)))
    stretched = torch.from_numpy(magnitude * np.exp(1j * phase))
    return torch.istft(stretched, n_fft, hop, window=window, center=True, length=n_out).float().numpy()


def _lock_phases(
    magnitude: NDArray[np.float64], advance: NDArray[np.float64], given: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(bin, time) phases: at the peaks, the last frame's plus its advance; elsewhere as `given`, turned with the peak."""
    around = np.pad(magnitude, ((2, 2), (0, 0)))
    n_bins, n_frames = magnitude.shape
    is_peak = np.logical_and.reduce([magnitude >= around[k : k + n_bins] for k in (0, 1, 3, 4)])  # of two on each side
    phase, bins = given.copy(), np.arange(n_bins)
    for frame in range(1, n_frames):
        peaks = np.flatnonzero(is_peak[:, frame])  # never empty: the largest bin is one
        nearest = peaks[np.searchsorted((peaks[1:] + peaks[:-1]) / 2, bins)]
        phase[:, frame] += phase[nearest, frame - 1] + advance[nearest, frame - 1] - given[nearest, frame]
    return phase
