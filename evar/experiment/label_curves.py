"""Label-efficiency curves of a row: the test of every draw, and what the row says of each number of labelled clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import results
from evar.experiment.rounds import DIGITS, FittedRound, TestedPoint, place_predictions
from evar.metrics.draws import measure_draws

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task


def predict_points(
    task: Task, probe: Any, features: NDArray[np.float32], readable: NDArray[np.int64], tested: NDArray[np.int64]
) -> list[TestedPoint]:
    """Predict the test clips of a round by every draw of a fitted `evar.probes.label_curve.LabelCurveProbe`.

    Args:
        task: whose clips.
        probe: fitted.
        features: (readable, width) vectors.
        readable: (readable,) test clips that could be read.
        tested: (tested,) test clips that count.

    Returns:
        One entry for each number of labelled clips, rising.
    """
    found = []
    for point, predicted in zip(probe.points_, probe.predict_draws(features), strict=True):
        every = np.stack([place_predictions(task, readable, row)[tested] for row in predicted])
        found.append(
            TestedPoint(
                n=point.n,
                n_clips=float(np.mean([len(drawn) for drawn in point.draws])),
                n_classes=len(probe.classes_),
                n_short=point.n_short,
                n_free=sum(not model.is_chosen for model in point.models),
                strengths=tuple(model.strength for model in point.models),
                y_pred=every,
            )
        )
    return found


def join_rounds(fitted: Sequence[FittedRound]) -> list[tuple[list[TestedPoint], NDArray[np.int64]]]:
    """Join the rounds of a curve: numbers of clips that all rounds have, with predictions for the clips of all rounds.

    Args:
        fitted: the rounds.

    Returns:
        For each number of clips its entries round by round, and (draws, tested clips of all rounds) predictions, with
        as many draws as every round has.
    """
    shared = [point.n for point in fitted[0].curve if all(point.n in {p.n for p in one.curve} for one in fitted)]
    found = []
    for n in shared:
        points = [next(point for point in one.curve if point.n == n) for one in fitted]
        n_draws = min(len(point.y_pred) for point in points)
        found.append((points, np.concatenate([point.y_pred[:n_draws] for point in points], axis=1)))
    return found


def describe_curve(task: Task, fitted: Sequence[FittedRound]) -> dict[str, Any]:
    """Describe the curve of a row as plain data.

    Args:
        task: which labels are true.
        fitted: the rounds.

    Returns:
        {"curve": one dict for each number of clips}, or {} for rows that have no curve. `n` is None for all clips;
        `interval` is over draws and test clips, `one_draw` is that of a single draw.
    """
    if not fitted[0].curve:
        return {}
    rows = np.concatenate([one.tested for one in fitted])
    rounds = np.repeat(np.arange(len(fitted)), [len(one.tested) for one in fitted])
    metric, truth, groups = task.config.metric, task.truth[rows], task.groups[rows]
    found = []
    for points, predicted in join_rounds(fitted):
        scores, mean, single = measure_draws(metric, truth, predicted, groups, rounds)
        strengths = Counter(strength for point in points for strength in point.strengths)
        n_clips = float(np.mean([point.n_clips for point in points]))
        found.append(
            {
                "n": points[0].n,
                "n_clips": round(n_clips, DIGITS),
                "n_per_class": round(n_clips / float(np.mean([point.n_classes for point in points])), DIGITS),
                "n_draws": len(predicted),
                "n_short": max(point.n_short for point in points),
                "n_not_chosen": sum(point.n_free for point in points),
                "strengths": {f"{strength:g}": count for strength, count in sorted(strengths.items())},
                "score": float(np.mean(scores)),
                "draw_scores": scores.tolist(),
                "interval": list(mean),
                "one_draw": list(single),
            }
        )
    return {"curve": found}


def save_curve(out: Path, id: str, fitted: Sequence[FittedRound]) -> None:
    """Write the predictions of all draws of a row, if it has a curve; clips are in the order of its other predictions.

    Args:
        out: results folder.
        id: of the row.
        fitted: its rounds.
    """
    if fitted[0].curve:
        results.save_draws(out, id, [predicted for _, predicted in join_rounds(fitted)])
