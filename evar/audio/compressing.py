"""Short sounds as small files in memory, for pages that people listen to."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compress(waveform: NDArray[np.float32], sample_rate: int) -> tuple[bytes, str]:
    """Compress a sound as MP3, which every browser plays, or as Ogg Vorbis where libsndfile writes no MP3.

    Args:
        waveform: (samples,) float32 in [-1, 1]; a louder waveform is scaled down.
        sample_rate: Hz; 16000 is one of those that MP3 knows.

    Returns:
        The file's bytes, and its media type.

    Raises:
        ValueError: if the sound is empty or not finite.

    Example:
        >>> data, kind = compress(np.zeros(16000, np.float32), 16000)
        >>> kind in ("audio/mpeg", "audio/ogg"), 100 < len(data) < 16000
        (True, True)
    """
    import soundfile

    if waveform.ndim != 1 or not len(waveform) or not np.isfinite(waveform).all():
        raise ValueError(f"waveform must be (samples,) finite numbers, at least one, got shape {waveform.shape}")
    sound = waveform / max(1.0, float(np.abs(waveform).max()))
    buffer = io.BytesIO()
    if "MP3" in soundfile.available_formats():
        soundfile.write(buffer, sound, sample_rate, format="MP3", subtype="MPEG_LAYER_III")
        return buffer.getvalue(), "audio/mpeg"
    soundfile.write(buffer, sound, sample_rate, format="OGG", subtype="VORBIS")
    return buffer.getvalue(), "audio/ogg"
