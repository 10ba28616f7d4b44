"""Keys of stored vectors: everything that can change a vector."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evar.audio.reading import AudioInfo


@dataclass(frozen=True)
class FeatureKey:
    """Everything besides the audio itself that can change a stored vector.

    Attributes:
        encoder: name in the registry.
        weights_sha256: hash of the checkpoint, or of the random parameters.
        options: of the encoder.
        revision: the encoder's own number, raised when the same settings give other vectors.
        norm_stats: (mean, std) of the input normalisation, or None.
        sample_rate: Hz at which the audio is encoded.
        resampler: name of the resampler.
        clip_seconds, pad, crop, crop_seed: the clip policy.
        layers: layer name -> width of its frames and how it is pooled, such as "256 mean".
        precision: of the forward pass.
        alteration: what was done to the recordings first (see `evar.extraction.conditions`); None: nothing.
    """

    encoder: str
    weights_sha256: str
    options: Mapping[str, Any]
    revision: int
    norm_stats: tuple[float, float] | None
    sample_rate: int
    resampler: str
    clip_seconds: float | None
    pad: str
    crop: str
    crop_seed: int
    layers: Mapping[str, str]
    precision: str = "float32"
    alteration: Mapping[str, Any] | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the fields as plain data; what could not be chosen once stands there only where it is chosen."""
        data = dataclasses.asdict(self)
        if self.alteration is None:
            del data["alteration"]
        return data

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that differ wherever a field differs."""
        text = json.dumps(self.to_plain(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def row_id(info: AudioInfo, start: int) -> str:
    """Address of a clip within a key: the file's content, the first sample of the window and, of a segment, its length.

    Example:
        >>> row_id(AudioInfo("ab" * 32, 16000, 16000), 0)
        'abababababababababababababababab@0'
    """
    length = "" if info.part is None else f"+{info.part[1]}"
    return f"{info.sha256[:32]}@{start}{length}"
