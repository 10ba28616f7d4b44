"""What the user wants, and which candidates fit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from evar.config.licences import NO, YES
from evar.config.registry import near_miss
from evar.report.tables.costs import format_count

LICENCES = ("any", "commercial")
_COUNT = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmg]?)", re.IGNORECASE)


@dataclass(frozen=True)
class Wishes:
    """Conditions that a candidate must fulfil, and how differences are judged.

    Attributes:
        licence: "any", or "commercial": the licence of the checkpoint must be known to allow commercial use.
        max_seconds_per_second: of encoding, for a second of audio; None for no limit.
        max_width: numbers that a classifier reads of a clip.
        max_parameters: numbers that the network holds.
        labels: number of labelled clips at which scores are wanted; None for all that there are.
        tie: a difference is a tie where it is surely smaller than this, as a fraction 0..1.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> Wishes(max_width=1024).find_misfit("yes", width=2048, parameters=None, seconds_per_second=None)
        ['width 2048 is above 1024']
        >>> Wishes(licence="commercial").find_misfit("unknown", width=1, parameters=None, seconds_per_second=None)
        ['it is not known whether its licence allows commercial use']
    """

    licence: str = "any"
    max_seconds_per_second: float | None = None
    max_width: int | None = None
    max_parameters: int | None = None
    labels: int | None = None
    tie: float = 0.02

    def __post_init__(self) -> None:
        if self.licence not in LICENCES:
            raise ValueError(
                f"--licence must be {' or '.join(LICENCES)}, got {self.licence!r}; {near_miss(self.licence, LICENCES)}"
            )
        for name in ("max_seconds_per_second", "max_width", "max_parameters", "labels"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"--{name} must be above 0, got {value:g}")
        if not 0 < self.tie < 0.5:
            raise ValueError(
                f"--tie must be above 0 and below 50 points of percent, got {100 * self.tie:g}; is it a fraction?"
            )

    def find_misfit(
        self, commercial: str, *, width: int | None, parameters: int | None, seconds_per_second: float | None
    ) -> list[str]:
        """List the reasons why a candidate does not fit; what is not known does not fit a limit.

        Args:
            commercial: "yes", "no" or "unknown".
            width, parameters, seconds_per_second: of the candidate; None where they are not known.
        """
        found = []
        if self.licence == "commercial" and commercial != YES:
            found.append(
                "its licence does not allow commercial use"
                if commercial == NO
                else "it is not known whether its licence allows commercial use"
            )
        if self.max_seconds_per_second is not None:
            if seconds_per_second is None:
                found.append("its cost was not measured")
            elif seconds_per_second > self.max_seconds_per_second:
                found.append(
                    f"{seconds_per_second:.3g} seconds for a second of audio are above {self.max_seconds_per_second:g}"
                )
        if self.max_width is not None and (width is None or width > self.max_width):
            found.append("its width is not recorded" if width is None else f"width {width} is above {self.max_width}")
        if self.max_parameters is not None:
            if parameters is None:
                found.append("its number of parameters is not recorded")
            elif parameters > self.max_parameters:
                found.append(f"{format_count(parameters)} parameters are above {format_count(self.max_parameters)}")
        return found


def parse_count(text: str | int | None, name: str) -> int | None:
    """Read a number such as 5000000, 5e6 or 5M; empty text gives None.

    Args:
        text: the number; k, M and G at its end are thousands, millions and billions.
        name: of the flag, for the error.

    Raises:
        ValueError: if the text is no such number.

    Example:
        >>> parse_count("5M", "max_parameters"), parse_count("750k", "max_parameters"), parse_count("", "x")
        (5000000, 750000, None)
    """
    if text is None or text == "":
        return None
    found = _COUNT.fullmatch(str(text).strip())
    if not found:
        raise ValueError(f"--{name} must be a number such as 5000000 or 5M, got {text!r}")
    return round(float(found[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[found[2].lower()])
