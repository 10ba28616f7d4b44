"""Audio: the only code that decodes sound files and finds them in folders, and the record of known files."""

from evar.audio.describing import Sound, describe
from evar.audio.errors import AudioError
from evar.audio.reading import (
    AudioInfo,
    ClipPolicy,
    inspect,
    length,
    read,
    read_clip,
    resample,
)
from evar.audio.segments import Segment

__all__ = [
    "AudioError",
    "AudioInfo",
    "ClipPolicy",
    "Segment",
    "Sound",
    "describe",
    "inspect",
    "length",
    "read",
    "read_clip",
    "resample",
]
