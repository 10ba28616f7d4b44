"""From predictions for clean and altered clips to records: score, loss, interval and paired test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import results
from evar.audio.altering.codecs import name_codec_library
from evar.experiment.result_row import versions
from evar.metrics.losses import measure_loss
from evar.results.robustness import FOLDER, RobustnessRecord, name_robustness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task
    from evar.experiment.rounds import FittedRound
    from evar.experiment.spec import RowSpec
    from evar.extraction.conditions import Condition

#: failed clips that a record names; their number is always there
_NAMED = 20


@dataclass(frozen=True)
class CleanRow:
    """The clean rows of some layers, one for each seed, and their fitted probes.

    Attributes:
        rows: specs, seed by seed.
        results: the rows.
        fits: rounds of each.
    """

    rows: Sequence[RowSpec]
    results: Sequence[results.Result]
    fits: Sequence[Sequence[FittedRound]]

    @property
    def predictions(self) -> list[NDArray[Any]]:
        """Predictions of each run for the tested clips of all rounds."""
        return [np.concatenate([one.y_pred for one in fitted]) for fitted in self.fits]

    @property
    def tested(self) -> NDArray[np.int64]:
        """(clips,) positions in the task, round after round; the same for every seed."""
        return np.concatenate([one.tested for one in self.fits[0]])

    @property
    def rounds(self) -> NDArray[np.int64]:
        """(clips,) the round that each tested clip belongs to."""
        return np.repeat(np.arange(len(self.fits[0])), [len(one.tested) for one in self.fits[0]])


def name_record(rows: Sequence[RowSpec], conditions: Sequence[Condition]) -> str:
    """Make the id of the record of some rows and conditions: a file stem that tells everything that can change a number.

    Args:
        rows: clean rows, one for each seed.
        conditions: of one alteration, a severity each.
    """
    return name_robustness(
        [row.to_plain() for row in rows],
        conditions[0].config.name,
        [float(one.severity) for one in conditions],
        [one.describe() for one in conditions],
    )


def make_record(
    task: Task,
    clean: CleanRow,
    conditions: Sequence[Condition],
    altered: Sequence[Sequence[NDArray[Any]]],
    failed: Mapping[int, str],
    ids: Sequence[str],
    seconds: float,
) -> RobustnessRecord:
    """Compare predictions for altered clips with those for the same clips unaltered.

    The interval of the loss is a bootstrap over groups of clips, the same for both sides; the test is that of all paired
    comparisons of this package (`evar.metrics.significance.compare_pairs`). Of several severities, scores are means.

    Args:
        task: whose clips.
        clean: rows and probes.
        conditions: of one alteration, a severity each.
        altered: [severity][run] predictions for the tested clips of all rounds.
        failed: position of a clip -> why it could not be altered or encoded.
        ids: of the predictions, in the order of `altered`.
        seconds: wall time.

    Returns:
        The record, not yet saved.
    """
    metric, tested, rounds = task.config.metric, clean.tested, clean.rounds
    truth, groups = task.truth[tested], task.groups[tested]
    runs = [predicted for of in altered for predicted in of]
    found = measure_loss(metric, truth, clean.predictions, runs, groups, rounds)
    first = clean.results[0]
    return RobustnessRecord(
        id=name_record(clean.rows, conditions),
        **{name: getattr(first, name) for name in _FROM_ROW},
        seeds=[row.seed for row in clean.rows],
        runs=[one.id for one in clean.results],
        **_describe_conditions(conditions),
        n_test=len(tested),
        n_failed=len(failed),
        failed=[{"clip": str(task.index["path"][at]), "reason": failed[at]} for at in list(failed)[:_NAMED]],
        clean_score=float(np.mean([one.score for one in clean.results])),
        clean_interval=first.interval,
        score=found.score,
        interval=found.interval,
        loss=found.loss,
        loss_interval=found.loss_interval,
        p=found.p,
        test=found.test,
        valid_score=_average_valid_scores(clean),
        predictions=list(ids),
        seconds=round(seconds, 3),
        versions={**versions(), "codecs": name_codec_library()},
        created=results.utc_now(),
    )


#: fields of a clean row that its records repeat
_FROM_ROW = (
    *("encoder", "weights", "weights_sha256", "encoder_options", "layers", "fusion", "depth", "default"),
    *("task", "task_version", "index_sha256", "limit", "metric", "chance", "protocol"),
)


def _describe_conditions(conditions: Sequence[Condition]) -> dict[str, Any]:
    """Return the fields of a record that say what was done to the clips."""
    config = conditions[0].config
    return {
        "alteration": config.name,
        "title": config.title,
        "parameter": config.parameter,
        "unit": config.unit,
        "severities": [float(one.severity) for one in conditions],
        "condition": [one.describe() for one in conditions],
    }


def _average_valid_scores(clean: CleanRow) -> float | None:
    """Average the score on clean validation clips over rounds and runs; None where a round has none."""
    found = [a_round.get("valid_score") for one in clean.results for a_round in one.rounds]
    return (
        None if not found or None in found else float(np.mean([float(value) for value in found if value is not None]))
    )


def save_altered_predictions(out: Path, id: str, task: Task, clean: CleanRow, predicted: NDArray[Any]) -> None:
    """Write the predictions of one run for altered clips below `robustness/predictions`.

    Args:
        out: results folder.
        id: of the predictions.
        task: whose clips.
        clean: rows, which say which clips are tested.
        predicted: of the tested clips of all rounds.
    """
    results.save_predictions(
        out / FOLDER,
        id,
        clip=task.index["path"].to_numpy(str)[clean.tested],
        round=clean.rounds,
        group=task.groups[clean.tested],
        y_true=task.truth[clean.tested],
        y_pred=predicted,
    )
