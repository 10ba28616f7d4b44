"""Sound one note of a SoundFont preset, in numpy: no compiler, the same on every platform.

Pitch, loops, both envelopes, both oscillators and the low-pass filter follow the SoundFont 2.01 specification (section
9); left out are modulators (what controllers and key velocity change), stereo and effects.
Control signals (envelopes, oscillators, filter) are computed every `BLOCK` samples.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from evar.data.embedded.soundfont import SoundFont, Voice

VELOCITY = 96  # it only chooses zones: the level of a clip is set afterwards
BLOCK = 64  # samples between control values: 1.5 ms at 44.1 kHz, below what an ear tells from a smooth change
_MAX_CUTOFF = 0.45  # of the sample rate; a higher cutoff is as good as no filter


def render_note(
    font: SoundFont,
    program: int,
    note: int,
    *,
    seconds: float,
    held_seconds: float,
    sample_rate: int,
) -> np.ndarray:
    """Sound one note.

    Args:
        font: where the recordings come from.
        program: MIDI program, 0..127.
        note: MIDI key, 0..127.
        seconds: length of the result.
        held_seconds: when the key is let go.
        sample_rate: of the result, in Hz.

    Returns:
        (samples,) float32, not normalised.

    Raises:
        ValueError: if the preset has nothing to sound for that note.
    """
    voices = font.voices(program, note, VELOCITY)
    if not voices:
        raise ValueError(f"program {program} of {font.path.name} sounds nothing at note {note}")
    n_samples = round(seconds * sample_rate)
    total = np.zeros(n_samples)
    for voice in voices:
        total += _render_voice(voice, note, n_samples, held_seconds, sample_rate)
    return total.astype(np.float32)


def _render_voice(voice: Voice, note: int, n_samples: int, held_seconds: float, sample_rate: int) -> np.ndarray:
    """(samples,) float64 of one recording."""
    settings = voice.settings
    block_seconds = np.arange(0, n_samples + BLOCK, BLOCK) / sample_rate  # (blocks + 1,)
    envelope = _compute_modulation(settings, block_seconds, held_seconds)
    wobble = _oscillate(block_seconds, settings["modulation_lfo_delay"], settings["modulation_lfo_frequency"])
    vibrato = _oscillate(block_seconds, settings["vibrato_lfo_delay"], settings["vibrato_lfo_frequency"])

    cents = (
        (note - voice.root) * settings["scale_tuning"]
        + 100 * settings["coarse_tune"]
        + settings["fine_tune"]
        + voice.correction
        + envelope * settings["modulation_envelope_to_pitch"]
        + wobble * settings["modulation_lfo_to_pitch"]
        + vibrato * settings["vibrato_lfo_to_pitch"]
    )
    wave = _read(voice, _interpolate(2 ** (cents / 1200), n_samples) * (voice.sample_rate / sample_rate))

    cutoff_cents = (
        settings["filter_cutoff"]
        + envelope * settings["modulation_envelope_to_filter"]
        + wobble * settings["modulation_lfo_to_filter"]
    )
    cutoff = 8.176 * 2 ** (cutoff_cents / 1200)  # Hz; 0 cents is MIDI key 0
    wave = _filter_low_pass(wave, cutoff / sample_rate, settings["filter_resonance"] / 10)

    decibels = _compute_volume(settings, note, block_seconds, held_seconds)
    decibels = decibels + wobble * settings["modulation_lfo_to_volume"] / 10 - settings["attenuation"] / 10
    return wave * _interpolate(10 ** (decibels / 20), n_samples)


def _interpolate(control: np.ndarray, n_samples: int) -> np.ndarray:
    """(blocks + 1,) control values -> (samples,), on straight lines between them."""
    return np.interp(np.arange(n_samples), np.arange(len(control)) * BLOCK, control)


def _read(voice: Voice, step: np.ndarray) -> np.ndarray:
    """Walk through a recording by `step` recorded samples per output sample, on a cubic through four neighbours.

    Args:
        voice: the recording, and whether it loops.
        step: (samples,) advance before each output sample but the first.

    Returns:
        (samples,) float64; zero past the end of a recording that does not loop.
    """
    position = np.concatenate([[0.0], np.cumsum(step[:-1])])
    whole = np.floor(position).astype(np.int64)
    t = position - whole
    start, end = voice.loop
    loops = voice.settings["loop_mode"] in (1, 3) and 0 <= start < end <= len(voice.data)

    def tap(offset: int) -> np.ndarray:
        index = whole + offset
        if loops:
            index = np.where(index < end, index, start + (index - end) % (end - start))
        inside = (index >= 0) & (index < len(voice.data))
        return np.where(inside, voice.data[index.clip(0, len(voice.data) - 1)], 0.0)

    before, here, after, beyond = tap(-1), tap(0), tap(1), tap(2)
    # Catmull-Rom cubic: passes through `here` at t = 0 and `after` at t = 1 with continuous slope.
    slope = (after - before) / 2
    cubic = (beyond - before) / 2 + 1.5 * (here - after)
    square = after - here - slope - cubic
    return here + t * (slope + t * (square + t * cubic))


def _filter_low_pass(wave: np.ndarray, cutoff: np.ndarray, resonance: float) -> np.ndarray:
    """Two-pole resonant low-pass whose cutoff changes from block to block.

    Args:
        wave: (samples,).
        cutoff: (blocks + 1,) as a fraction of the sample rate.
        resonance: height of the peak over the level at 0 Hz, in dB.

    Source: bilinear-transform low-pass of R. Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter
        coefficients".
    """
    if float(cutoff.min()) >= _MAX_CUTOFF:
        return wave
    cutoff = np.clip(cutoff[:-1], 1e-4, _MAX_CUTOFF)  # (blocks,)
    angle = 2 * np.pi * cutoff
    alpha = np.sin(angle) / 2 / 10 ** ((resonance - 3.01) / 20)  # 0 dB of resonance: no peak (Butterworth)
    cosine = np.cos(angle)
    numerator = np.stack([(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2], axis=1) / (1 + alpha)[:, None]
    denominator = np.stack([1 + alpha, -2 * cosine, 1 - alpha], axis=1) / (1 + alpha)[:, None]
    changes = np.flatnonzero(np.diff(cutoff)) + 1  # one call for all blocks between two changes
    result, state = np.empty_like(wave), np.zeros(2)
    for first, last in zip([0, *changes], [*changes, len(cutoff)], strict=True):
        part = slice(first * BLOCK, last * BLOCK)
        result[part], state = lfilter(numerator[first], denominator[first], wave[part], zi=state)
    return result


def _oscillate(seconds: np.ndarray, delay: int, frequency: int) -> np.ndarray:
    """Triangle between -1 and 1 that starts upwards from 0 after its delay."""
    phase = np.maximum(seconds - _to_seconds(delay), 0) * 8.176 * 2 ** (frequency / 1200)
    return 1 - 4 * np.abs((phase + 0.75) % 1 - 0.5)


def _compute_modulation(settings: dict[str, int], seconds: np.ndarray, held_seconds: float) -> np.ndarray:
    """(blocks + 1,) in 0..1: delay, rise, hold, fall to the sustained level, and release after the key is let go."""
    sustain = 1 - min(max(settings["modulation_sustain"], 0), 1000) / 1000
    attack, decay = _to_seconds(settings["modulation_attack"]), _to_seconds(settings["modulation_decay"])

    def follow_key(at: np.ndarray) -> np.ndarray:
        since = at - _to_seconds(settings["modulation_delay"])
        falling = 1 - (since - attack - _to_seconds(settings["modulation_hold"])) / decay
        return np.minimum(np.clip(since / attack, 0, 1), np.clip(falling, sustain, 1))

    level = follow_key(np.array(held_seconds))
    release = level - (seconds - held_seconds) / _to_seconds(settings["modulation_release"])
    return np.where(seconds < held_seconds, follow_key(seconds), np.maximum(release, 0))


def _compute_volume(settings: dict[str, int], note: int, seconds: np.ndarray, held_seconds: float) -> np.ndarray:
    """(blocks + 1,) gain in dB, -100..0: the rise is straight in amplitude, fall and release are straight in dB."""
    sustain = -min(max(settings["volume_sustain"], 0), 1000) / 10
    attack = _to_seconds(settings["volume_attack"])
    decay = _to_seconds(settings["volume_decay"] + settings["volume_decay_per_key"] * (60 - note))

    def follow_key(at: np.ndarray) -> np.ndarray:
        since = at - _to_seconds(settings["volume_delay"])
        rising = 20 * np.log10(np.clip(since / attack, 1e-5, 1))
        falling = -100 * (since - attack - _to_seconds(settings["volume_hold"])) / decay
        return np.minimum(rising, np.clip(falling, sustain, 0))

    level = follow_key(np.array(held_seconds))
    release = level - 100 * (seconds - held_seconds) / _to_seconds(settings["volume_release"])
    return np.where(seconds < held_seconds, follow_key(seconds), np.maximum(release, -100))


def _to_seconds(timecents: int) -> float:
    """Specification's time unit: 1200 timecents double the time, 0 is one second."""
    return float(2.0 ** (timecents / 1200))
