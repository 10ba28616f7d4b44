"""Encoders that nobody has measured here: what their YAMLs say."""

from __future__ import annotations

from dataclasses import dataclass

from evar.advising.candidates import NO_CHECKPOINT
from evar.advising.wishes import Wishes
from evar.config import load_encoder_config, names
from evar.config.licences import UNKNOWN, YES, allows_commercial_use


@dataclass(frozen=True)
class Unmeasured:
    """An encoder without rows.

    Attributes:
        encoder: name.
        licence, commercial: of the checkpoint.
        description: one line.
        misfits: reasons why it does not fit; cost, width and parameters are not known, so that no limit on them counts.
    """

    encoder: str
    licence: str
    commercial: str
    description: str
    misfits: tuple[str, ...] = ()


def list_unmeasured(wishes: Wishes) -> list[Unmeasured]:
    """List all encoders with a YAML whose checkpoint can be had, by name.

    Args:
        wishes: conditions, of which only the licence can be checked.
    """
    found = []
    for name in names("encoders"):
        try:
            config = load_encoder_config(name)
        except (ValueError, OSError):
            continue
        licence = config.weights.licence if config.weights else NO_CHECKPOINT
        if licence.startswith("none (no weights"):
            continue  # it could only be tried with random weights
        is_own = ":" in config.implementation and config.implementation.startswith("evar.")
        commercial = allows_commercial_use(licence) if config.weights else YES if is_own else UNKNOWN
        only_licence = Wishes(licence=wishes.licence)
        misfits = only_licence.find_misfit(commercial, width=None, parameters=None, seconds_per_second=None)
        found.append(Unmeasured(name, licence, commercial, config.description, tuple(misfits)))
    return found
