"""Advice as data: what `advise` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.advising.many_tasks import RankedAdvice
from evar.advising.one_task import TaskAdvice
from evar.advising.unmeasured import Unmeasured

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Advice:
    """Result of `advise`; a notebook shows it as its tables.

    Attributes:
        request: everything that the answer depends on beside the rows: question, conditions, protocol.
        answer: a few sentences in plain words.
        tasks: advice on each task that was asked about and has rows.
        over_tasks: ranks over several tasks: those of the folder, or tasks that are similar to one without rows; else None.
        new_task: the task that was asked about and has no rows; "" else.
        unmeasured: encoders without rows whose licence fits, where nothing was measured at all.
        notes: sentences on where the numbers are from.
        commands: command lines that would tell more.
        text, markdown: all of it, for a terminal and for a file.
        files: written to the results folder.
    """

    request: Mapping[str, Any]
    answer: str
    tasks: tuple[TaskAdvice, ...] = ()
    over_tasks: RankedAdvice | None = None
    new_task: str = ""
    unmeasured: tuple[Unmeasured, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    text: str = ""
    markdown: str = ""
    files: tuple[Path, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """A row a candidate that fits and task: encoder, layers, scores, cost, verdict; scores are fractions."""
        import pandas as pd

        return pd.DataFrame([
            {
                "task": advice.task,
                "encoder": one.facts.encoder,
                "layers": "+".join(one.feature.key[0]) if one.feature else "",
                "fusion": one.feature.key[1] if one.feature else "",
                "score": one.feature.score if one.feature else None,
                "valid_score": one.feature.valid_score if one.feature else None,
                "width": one.feature.width if one.feature else None,
                "seconds_per_second": one.facts.seconds_per_second,
                "parameters": one.facts.parameters,
                "licence": one.facts.licence,
                "commercial": one.facts.commercial,
                "verdict": "choice" if one.verdict is None else one.verdict.word,
            }
            for advice in self.tasks
            for one in advice.fitting
        ])  # fmt: skip

    def _repr_markdown_(self) -> str:
        return self.markdown
