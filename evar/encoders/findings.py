"""Faults of an encoder: findings of the contract, and one line for each broken promise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One broken promise.

    Attributes:
        check: name of the check, such as "batch_invariance".
        problem: one sentence: what was expected, what was found, and the likely cause.
    """

    check: str
    problem: str

    def __str__(self) -> str:
        return f"{self.check}: {self.problem}"


def summarise(findings: Sequence[Finding]) -> list[str]:
    """Return one line for each broken promise; findings that differ in a layer, parameter or number only are one.

    Args:
        findings: as `check_named` returns them.

    Example:
        >>> alike = [Finding("clips", f"layer conv{n} of a second of silence is not finite") for n in (1, 2, 3)]
        >>> summarise([*alike, Finding("build", "it has\\nno layers")])
        ['clips: layer conv1 of a second of silence is not finite (and 2 more like this)', 'build: it has no layers']
    """
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        alike = re.sub(r"\b(layer|reaches|gradient of|of a|of half a) \S+|\S*\d\S*", "#", finding.problem)
        kinds.setdefault((finding.check, alike), []).append(finding)
    lines = []
    for first, *others in kinds.values():
        more = f" (and {len(others)} more like this)" if others else ""
        lines.append(" ".join(f"{first}{more}".split()))
    return lines
