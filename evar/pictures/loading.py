"""Loading the parts of a picture: the chosen encoders and layers, and the sound of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar import audio
from evar import config as configs
from evar.audio.reading import AudioError
from evar.config.registry import near_miss
from evar.encoders import load_encoder
from evar.experiment.selection import Selection, list_selections
from evar.figures.style import format_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.encoders.base import Encoder


@dataclass(frozen=True)
class Chosen:
    """One encoder of a picture.

    Attributes:
        encoder: loaded, on its device.
        selections: the layers to show, shallow to deep; several default layers are one selection.
        stats: "constants" where the encoder normalises by constants of its own although its paper takes statistics of
            the training clips; "task" for those of all clips of a task; "given" where the numbers come from the command
            line; else "".
    """

    encoder: Encoder
    selections: tuple[Selection, ...]
    stats: str = ""

    @property
    def label(self) -> str:
        """The encoder's name, and whether it is untrained: that must show in a picture that is passed around."""
        untrained = self.encoder.weights_label == "random" and next(self.encoder.parameters(), None) is not None
        return self.encoder.name + (" (random weights)" if untrained else "")

    def note(self, norm_stats: tuple[float, float] | None) -> str:
        """Return a sentence for the caption about the input statistics that were used; "" if none is needed."""
        if not self.stats or norm_stats is None:
            return ""
        whose = {
            "constants": "constants of its own, not statistics of training clips",
            "task": "statistics of all clips of the task",
            "given": "as given",
        }[self.stats]
        mean, std = (format_number(value, 4) for value in norm_stats)
        return f"{self.encoder.name} normalises its log-mel by mean {mean} and standard deviation {std} ({whose})."

    def depth(self, selection: Selection) -> float:
        """Return 0 for the encoder's first layer, 1 for its last; of several layers, the deepest counts."""
        names = [layer.name for layer in self.encoder.layer_infos]
        return max(names.index(layer) for layer in selection.layers) / max(1, len(names) - 1)

    def is_default(self, selection: Selection) -> bool:
        """True if these are the layers that the encoder's paper uses frozen."""
        return selection.layers == tuple(self.encoder.default_layers)


def choose_encoders(
    names: Sequence[str],
    layers: str | Sequence[str | int] = "default",
    weights: str | None = None,
    norm_stats: str | tuple[float, float] | None = None,
    device: str = "cpu",
) -> list[Chosen]:
    """Load encoders; every name and layer is checked before any checkpoint is fetched.

    Args:
        names: as `evar encoders` lists them, once each.
        layers: "default", "all", or names or positions (0 the first, -1 the last) that each encoder has.
        weights: None, "random", or one checkpoint for one encoder.
        norm_stats: (mean, std) to normalise by; None or a word: the encoder's own constants.
        device: "cpu", "cuda", ...

    Raises:
        ValueError: if a name is missing, unknown or given twice, or the statistics are not legal.
        OSError: if a checkpoint is missing or cannot be fetched.
    """
    if not names:
        raise ValueError("no encoders are named; give --encoders=NAME,NAME (`evar encoders` lists them)")
    if len(set(names)) != len(names):
        raise ValueError(f"encoders must be named once each, got {', '.join(names)}")
    if weights not in (None, "random") and len(names) > 1:
        raise ValueError(f"--weights={weights} is one checkpoint for one encoder, got {len(names)} encoders")
    given = norm_stats if isinstance(norm_stats, tuple) else None
    if given and not (all(map(math.isfinite, given)) and given[1] > 0):
        raise ValueError(f"norm_stats must be a mean and a standard deviation above 0, got {given}")
    for name in names:
        configs.load_encoder_config(name)
    if not isinstance(layers, str):
        for name in names:
            list_selections(load_encoder(name, "random"), layers, "none")
    found = []
    for name in names:
        encoder = load_encoder(name, weights, norm_stats=given, device=device)
        stats = "given" if given else "constants" if encoder.default_norm_stats == "train" else ""
        found.append(Chosen(encoder, tuple(list_selections(encoder, layers, "none")), stats))
    return found


def parse_layers(text: str) -> str | tuple[str, ...]:
    """Read the value of a `--layers`: "default", "all", or names.

    Example:
        >>> parse_layers("all"), parse_layers("conv1,conv2")
        ('all', ('conv1', 'conv2'))
    """
    if text in ("", "default", "all"):
        return text or "default"
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or len(set(names)) != len(names):
        raise ValueError(f"layers must be named once each, and at least one, got {text!r}")
    return names


@dataclass(frozen=True)
class Sound:
    """A part of a file.

    Attributes:
        name: of the file, without its folder.
        waveform: (samples,) float32 mono in [-1, 1].
        sample_rate: Hz, the file's own.
        file_seconds: of the whole file.
        start: where the part begins, in seconds.
    """

    name: str
    waveform: NDArray[np.float32]
    sample_rate: int
    file_seconds: float
    start: float = 0.0

    @property
    def seconds(self) -> float:
        """Duration of the waveform."""
        return len(self.waveform) / self.sample_rate

    @property
    def title(self) -> str:
        """Name, duration and rate, and which part of the file it is."""
        is_part = self.file_seconds > self.seconds + 0.5 / self.sample_rate
        part = f"first {self.seconds:.3g} of {self.file_seconds:.4g} s" if is_part else f"{self.seconds:.3g} s"
        if self.start:
            part = f"{self.start:.4g} to {self.start + self.seconds:.4g} of {self.file_seconds:.4g} s"
        return f"{self.name} ({part}, {self.sample_rate} Hz)"


def read_sound(path: str | Path, seconds: float, start: float = 0.0) -> Sound:
    """Decode some seconds of a file at its own rate, mixed down to mono.

    Args:
        path: of the file.
        seconds: how much to read at most, above 0.
        start: seconds to skip first, at least 0.

    Raises:
        AudioError: if it cannot be read; the file is named.
        ValueError: if seconds are not positive, or the file ends before the start.
    """
    if not seconds > 0:
        raise ValueError(f"--seconds must be above 0, got {seconds:g}")
    try:
        info = audio.inspect(path)
        first = round(start * info.sample_rate)
        if first >= info.n_samples:
            length = info.n_samples / info.sample_rate
            raise ValueError(f"--start must lie within the file, which has {length:.4g} s, got {start:g}")
        n_wanted = min(info.n_samples - first, round(seconds * info.sample_rate))
        waveform = audio.read(path, info.sample_rate, first, n_wanted)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
    return Sound(Path(path).name, waveform, info.sample_rate, info.n_samples / info.sample_rate, start)


def check_name(name: str, what: str, names: Sequence[str]) -> str:
    """Return the name if it is one of `names`.

    Raises:
        ValueError: else, with the nearest name.
    """
    if name not in names:
        raise ValueError(f"no {what} {name!r}; {near_miss(name, names)}")
    return name
