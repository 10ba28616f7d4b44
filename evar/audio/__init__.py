"""Audio: the only code that decodes sound files, and the record of files that are known already."""

from evar.audio.reading import (
    AudioError,
    AudioInfo,
    ClipPolicy,
    Sound,
    describe,
    inspect,
    length,
    read,
    read_clip,
    resample,
)

__all__ = [
    "AudioError",
    "AudioInfo",
    "ClipPolicy",
    "Sound",
    "describe",
    "inspect",
    "length",
    "read",
    "read_clip",
    "resample",
]
