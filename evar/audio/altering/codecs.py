"""Lossy coding and decoding by libsndfile: mp3 (LAME, mpg123) and Opus. No program such as ffmpeg is needed.

The delay of a codec is taken away, so that only what it loses is left.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from evar.audio.altering.bands import fit_length
from evar.audio.errors import AudioError
from evar.audio.quiet import without_decoder_notes
from evar.audio.reading import resample

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Hz -> legal constant bit rates of mp3 in kbit/s, lowest first. Source: ISO/IEC 11172-3 and 13818-3, layer III.
_HIGH = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MIDDLE = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MP3_RATES = {
    **dict.fromkeys((8000, 11025, 12000), _MIDDLE[:8]),
    **dict.fromkeys((16000, 22050, 24000), _MIDDLE),
    **dict.fromkeys((32000, 44100, 48000), _HIGH),
}
#: Hz that Opus takes. Source: RFC 6716, section 2.1.3
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
#: kbit/s of one channel that libsndfile offers
OPUS_KBPS = (6.0, 256.0)
#: samples by which an mp3 without a header about its delay begins late: 576 of the coder and 529 of the decoder
_MP3_DELAY = 576 + 529


def name_codec_library() -> str:
    """Return the library that codes and decodes, with its version: another one gives other samples."""
    import soundfile

    return f"libsndfile {soundfile.__libsndfile_version__}"


def code_mp3(waveform: NDArray[np.float32], sample_rate: int, *, kbps: float) -> NDArray[np.float32]:
    """Code a clip as mp3 at a constant bit rate and decode it.

    Not every rate has every bit rate: the clip is coded at the lowest rate that has it and loses nothing by resampling, or
    else at the highest one that has it, and resampled back.

    Args:
        waveform: (samples,) float32.
        sample_rate: Hz.
        kbps: a legal bit rate of mp3, kbit/s.

    Returns:
        (samples,), without the codec's delay.

    Raises:
        ValueError: if mp3 has no such bit rate.
        AudioError: if the installed libsndfile cannot write mp3.
    """
    legal = sorted({one for rates in MP3_RATES.values() for one in rates})
    if kbps not in legal:
        raise ValueError(f"kbps must be a bit rate of mp3 ({', '.join(map(str, legal))}), got {kbps:g}")
    rates = [rate for rate, found in MP3_RATES.items() if kbps in found]
    rate = min((one for one in rates if one >= sample_rate), default=max(rates))
    least, most = MP3_RATES[rate][0], MP3_RATES[rate][-1]
    compression = min((most - kbps) / (most - least), 0.9999)  # libsndfile refuses 1
    return _code(waveform, sample_rate, rate, "MP3", "MPEG_LAYER_III", compression)


def code_opus(waveform: NDArray[np.float32], sample_rate: int, *, kbps: float) -> NDArray[np.float32]:
    """Code a clip as Opus at a target bit rate and decode it.

    Args:
        waveform: (samples,) float32; resampled to the next rate that Opus takes, and back.
        sample_rate: Hz.
        kbps: target, 6 to 256 kbit/s; the bit rate is variable.

    Returns:
        (samples,), without the codec's delay.

    Raises:
        ValueError: if there is no such bit rate.
        AudioError: if the installed libsndfile cannot write Opus.
    """
    least, most = OPUS_KBPS
    if not least <= kbps <= most:
        raise ValueError(f"kbps must be a bit rate of Opus, {least:g} to {most:g}, got {kbps:g}")
    rate = min((one for one in OPUS_RATES if one >= sample_rate), default=max(OPUS_RATES))
    return _code(waveform, sample_rate, rate, "OGG", "OPUS", (most - kbps) / (most - least))


def _code(
    waveform: NDArray[np.float32], sample_rate: int, rate: int, container: str, coding: str, compression: float
) -> NDArray[np.float32]:
    """Code and decode at one rate, and bring the result back to the clip's rate and length."""
    import soundfile

    given = resample(waveform, sample_rate, rate)
    buffer = io.BytesIO()
    mode = {"bitrate_mode": "CONSTANT"} if container == "MP3" else {}
    try:
        with without_decoder_notes():
            soundfile.write(
                buffer, given, rate, format=container, subtype=coding, compression_level=compression, **mode
            )
            buffer.seek(0)
            decoded, _ = soundfile.read(buffer, dtype="float32")
    except (RuntimeError, TypeError, ValueError) as error:
        raise AudioError(
            f"{name_codec_library()} cannot code {coding.lower()} at {rate} Hz ({error}); update the package soundfile"
        ) from error
    if container == "MP3" and len(decoded) > len(given):  # at low bit rates no header says what to leave out
        decoded = decoded[_MP3_DELAY:]
    return fit_length(resample(fit_length(decoded, len(given)), rate, sample_rate), len(waveform))


for _function in (code_mp3, code_opus):
    _function.library = name_codec_library  # type: ignore[attr-defined]
