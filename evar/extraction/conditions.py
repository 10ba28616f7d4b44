"""Conditions: an alteration of recordings at one severity, the same for a clip whenever and wherever it is encoded."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.errors import AudioError
from evar.config.alteration import AlterationConfig
from evar.config.encoder import display_name
from evar.config.own_code import may_call
from evar.config.registry import hash_source, resolve

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: parameters whose value is the path of a sound, which is known by its content
_SOUND_PARAMS = ("recording",)
#: Hz, of the clip that a function is tried on
_TRIAL_RATE = 16000


@dataclass(frozen=True, eq=False)
class Condition:
    """One alteration at one severity; each object stands for itself.

    Attributes:
        config: the alteration.
        severity: value of its parameter.
        seed: of what it draws.

    Example:
        >>> from evar.config.alteration import load_alteration_config
        >>> condition = Condition(load_alteration_config("level"), -20.0)
        >>> condition.label, condition.apply(np.ones(2, np.float32), 8000, "clip").round(3).tolist()
        ('level -20', [0.10000000149011612, 0.10000000149011612])
    """

    config: AlterationConfig
    severity: float
    seed: int = 0

    @property
    def label(self) -> str:
        """Name and severity, for messages."""
        return f"{self.config.name} {self.severity:g}"

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The function that alters a waveform."""
        found = resolve(self.config.function)
        if not callable(found):
            raise ValueError(f"{self.config.function} must be a function, got {type(found).__name__}")
        return found

    @cached_property
    def _draws(self) -> bool:
        return "rng" in inspect.signature(self.function).parameters

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        severity = int(self.severity) if float(self.severity).is_integer() else self.severity
        return {**self.config.params, self.config.parameter: severity}

    def describe(self) -> dict[str, Any]:
        """Return everything that can change the altered sound, as plain data: part of the key of stored vectors."""
        config = self.config
        params = {
            name: _hash_file(value) if name in _SOUND_PARAMS else value
            for name, value in {**config.params, config.parameter: float(self.severity)}.items()
        }
        source = hash_source(config.function)
        library = getattr(self.function, "library", None)
        return {
            "name": config.name,
            "version": config.version,
            "function": display_name(config.function),
            "params": params,
            "seed": self.seed,
            **({"source_sha256": source} if source else {}),
            **({"library": library()} if library else {}),
        }

    def apply(self, waveform: NDArray[np.float32], sample_rate: int, clip: str) -> NDArray[np.float32]:
        """Alter one clip.

        Args:
            waveform: (samples,) float32.
            sample_rate: Hz, of the recording.
            clip: identity of the clip, such as its row id; what is drawn depends on it, the alteration and the seed, and
                is the same at every severity.

        Returns:
            (samples',) float32.

        Raises:
            AudioError: if the function fails, or returns no sound.
        """
        arguments = dict(self._arguments)
        if self._draws:
            text = f"{self.seed}:{self.config.name}:{self.config.version}:{clip}"
            arguments["rng"] = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
        try:
            altered = np.asarray(self.function(waveform, sample_rate, **arguments))
        except AudioError as error:
            raise AudioError(f"{self.label}: {error}") from error
        except Exception as error:  # a function of the user's own may raise anything
            raise AudioError(f"{self.label}: {type(error).__name__}: {error}") from error
        if altered.ndim != 1 or not altered.size or altered.dtype.kind not in "fiu":
            raise AudioError(f"{self.label} must give samples (samples,), got shape {altered.shape} of {altered.dtype}")
        altered = altered.astype(np.float32)
        if not np.isfinite(altered).all():
            raise AudioError(f"{self.label} gave {int((~np.isfinite(altered)).sum())} samples that are not finite")
        return altered


def list_conditions(configs: Iterable[AlterationConfig], seed: int = 0) -> list[Condition]:
    """Return every alteration at every severity, and try each of them on a second of noise.

    Functions of the user's own are not called where that is forbidden (a dry run).

    Args:
        configs: alterations.
        seed: of what they draw.

    Raises:
        ValueError: if a function is not there, or does not work with its severities.

    Example:
        >>> from evar.config.alteration import choose_alterations
        >>> [one.label for one in list_conditions(choose_alterations("clipping,telephone"))]
        ['clipping 6', 'clipping 12', 'clipping 20', 'telephone 3400']
    """
    found = [Condition(config, severity, seed) for config in configs for severity in config.severities]
    for condition in found:
        if not may_call(condition.config.function):
            continue
        try:
            condition.apply(_make_trial_clip(), _TRIAL_RATE, "trial")
        except AudioError as error:
            raise ValueError(f"the alteration {error}") from error
    return found


def _make_trial_clip() -> NDArray[np.float32]:
    noise = np.random.default_rng(0).standard_normal(_TRIAL_RATE)
    return (0.1 * noise / math.sqrt(float(np.square(noise).mean()))).astype(np.float32)


#: (path, time of change) -> SHA-256 of the file
_hashes: dict[tuple[str, int], str] = {}


def _hash_file(path: str) -> str:
    file = Path(path)
    key = (str(file), file.stat().st_mtime_ns)
    if key not in _hashes:
        _hashes[key] = hashlib.sha256(file.read_bytes()).hexdigest()
    return _hashes[key]
