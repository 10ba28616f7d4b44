"""Read an alteration of recordings and its severities: `config/alterations/NAME.yaml`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evar.config.folders import find, names
from evar.config.reading import read
from evar.config.registry import near_miss


@dataclass(frozen=True)
class AlterationConfig:
    """One `config/alterations/NAME.yaml`: a function, and the severities that it is tested at.

    Attributes:
        name: in tables, files and on the command line.
        title: in sentences and figures.
        function: "module:name", or "path/to/file.py:name", of a function (waveform, sample_rate, *, PARAMETER, ...) ->
            waveform; where it draws, it takes `rng`, which is the same for a clip at every severity.
        parameter: name of the function's argument that takes the severity.
        unit: of the severity, with the unit in brackets, as axes show it.
        severities: values of the parameter, at least one, in the order of columns.
        version: raised when the same settings give other sounds; part of the key of stored vectors.
        family: a word that stands for several alterations on the command line, such as "noise".
        params: further arguments of the function, plain data. A value of the name `recording` is the path of a sound, and
            known by the content of the file.

    Raises:
        ValueError: if there is no severity, one is given twice, or one is not finite.
    """

    name: str
    title: str
    function: str
    parameter: str
    unit: str
    severities: tuple[float, ...]
    version: int = 1
    family: str = ""
    params: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", self.name):
            raise ValueError(f"the name of an alteration must be like low_pass, got {self.name!r}")
        if not self.severities or len(set(self.severities)) != len(self.severities):
            raise ValueError(f"severities must name at least one value, and each once, got {list(self.severities)}")
        if not all(map(math.isfinite, self.severities)):
            raise ValueError(f"severities must be finite numbers, got {list(self.severities)}")


def load_alteration_config(name: str) -> AlterationConfig:
    """Read `alterations/NAME.yaml` of the configuration folders, or the file at a path that ends in .yaml.

    Raises:
        ValueError: if there is none (near misses are named), or it does not fit; file and key are named.
        FileNotFoundError: if there is no such file.

    Example:
        >>> load_alteration_config("telephone").severities
        (3400.0,)
    """
    return read(Path(name) if name.endswith((".yaml", ".yml")) else find("alterations", name), AlterationConfig)


def choose_alterations(
    wanted: str = "all", severities: str = "", background: str | None = None
) -> tuple[AlterationConfig, ...]:
    """Return the alterations that the words of a command line name, with the severities that they give.

    Args:
        wanted: comma list of names, families ("noise"), and paths of YAML files; "all".
        severities: "NAME=VALUE/VALUE,NAME=VALUE", in place of those of the YAML files.
        background: path of a recording, mixed in as the alteration "background" too; None for none.

    Raises:
        ValueError: if a name is unknown, or a severity is no number.

    Example:
        >>> [one.name for one in choose_alterations("noise,mp3")]
        ['pink_noise', 'white_noise', 'mp3']
        >>> choose_alterations("white_noise", "white_noise=10/0")[0].severities
        (10.0, 0.0)
        >>> choose_alterations("reverb")
        Traceback (most recent call last):
        ...
        ValueError: no alteration 'reverb'; it has ... did you mean 'reverberation'?
    """
    found: dict[str, AlterationConfig] = {}
    for word in (one.strip() for one in wanted.split(",") if one.strip()):
        for config in _find_alterations(word):
            found.setdefault(config.name, config)
    if background:
        found["background"] = _mix_in(background)
    if not found:
        raise ValueError("at least one alteration is needed, got none; leave --alterations out for all")
    given = _parse_severities(severities)
    for name in given:
        if name not in found:
            raise ValueError(
                f"--severities names {name!r}, which is not among the alterations; {near_miss(name, found)}"
            )
    return tuple(replace(one, severities=given.get(one.name, one.severities)) for one in found.values())


def _find_alterations(word: str) -> list[AlterationConfig]:
    if word.endswith((".yaml", ".yml")):
        return [load_alteration_config(word)]
    known = names("alterations")
    if word in known:
        return [load_alteration_config(word)]
    every = [load_alteration_config(name) for name in known]
    found = every if word == "all" else [one for one in every if one.family == word]
    if not found:
        families = sorted({one.family for one in every if one.family} - set(known))
        raise ValueError(f"no alteration {word!r}; {near_miss(word, [*known, *families], 30)}")
    return found


def _mix_in(recording: str) -> AlterationConfig:
    """Make the alteration by a user's recording, with the ratios of white noise."""
    path = Path(recording).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"--background must be a sound file, but there is no file {recording}")
    return AlterationConfig(
        name="background",
        title=f"background ({path.name})",
        function="evar.audio.altering.noises:add_recording",
        parameter="snr_db",
        unit="signal-to-noise ratio (dB)",
        severities=load_alteration_config("white_noise").severities,
        params={"recording": str(path)},
    )


def _parse_severities(text: str) -> dict[str, tuple[float, ...]]:
    found = {}
    for part in (one.strip() for one in text.split(",") if one.strip()):
        name, _, values = part.partition("=")
        try:
            found[name.strip()] = tuple(float(value) for value in values.split("/"))
        except ValueError:
            raise ValueError(f"--severities must be NAME=VALUE/VALUE,NAME=VALUE, got {part!r}") from None
    return found
