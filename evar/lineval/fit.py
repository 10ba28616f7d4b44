"""The probes of rows: one for each round, fitted on its training clips and tested on its test clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from evar.experiment.result_row import UNREADABLE, FittedRound, judged
from evar.metrics import METRICS
from evar.metrics.events import count_clip
from evar.numeric.rows import Rows
from evar.probes.linear import LinearProbe
from evar.probes.making import make_probe
from evar.probes.protocol import fit_probes, get_traits
from evar.probes.weighted_sum import WeightedSumProbe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Round, Task
    from evar.experiment.selection import Selection
    from evar.lineval.cell_features import Vectors


#: bytes of what is held for fits side by side
BYTES_TOGETHER = 2**30

_Fit = TypeVar("_Fit")


def _probe_for(protocol: ProtocolConfig, task: Task, selection: Selection, seed: int) -> Any:
    """The protocol's probe; for a weighted sum of layers the probe that learns the weights, with the same settings."""
    probe = make_probe(protocol, task.config.metric, seed)
    if isinstance(probe, WeightedSumProbe):
        return probe.set_params(n_layers=len(selection.layers))
    if selection.fusion != "weighted":
        return probe
    if type(probe) is not LinearProbe:
        raise ValueError(
            f"--fusion=weighted goes with the probe of protocol linear and tasks of one class a clip, but {protocol.name} "
            f"has {type(probe).__name__} for {task.name}"
        )
    return WeightedSumProbe(
        len(selection.layers), strengths=probe.strengths, refit=probe.refit, metric=task.config.metric
    )


@dataclass
class _RowFit:
    """The probes of one row, one for each round, and what they are fitted on and tested with."""

    rounds: Sequence[Round]
    parts: list[list[NDArray[np.int64]]]
    features: list[Any]
    probes: list[Any]
    splits: list[tuple[Any, ...]]


def fit_rows(
    protocol: ProtocolConfig, task: Task, vectors: Vectors, rows: Sequence[tuple[Selection, int]], skip_bad: bool
) -> list[list[FittedRound]]:
    """Fit and test a probe for every round of some rows; side by side where the probe knows how.

    Args:
        protocol: which probe.
        task: labels and rounds.
        vectors: of the task's clips.
        rows: which layers, and how they become one feature; seed of the validation draw and the probe.
        skip_bad: leave bad test clips out instead of counting them as wrong.
    """
    fits = [_row_fit(protocol, task, vectors, selection, seed) for selection, seed in rows]
    probes, splits = [p for fit in fits for p in fit.probes], [s for fit in fits for s in fit.splits]
    fit_probes(probes, splits)
    return [_tested(task, fit, skip_bad) for fit in fits]


def estimate_fit_bytes(probe: Any, n_clips: int, width: int, n_classes: int) -> int:
    """Estimate the memory that one fit of a probe holds.

    Args:
        probe: unfitted.
        n_clips: training and validation clips.
        width: features of a clip.
        n_classes: classes or labels of the task.

    Returns:
        Bytes; for a probe that gains nothing by company as many as there are, so that it is fitted alone.
    """
    count_bytes = get_traits(probe).count_bytes
    return BYTES_TOGETHER if count_bytes is None else count_bytes(probe, n_clips, width, n_classes)


def side_by_side(fits: Iterable[tuple[_Fit, int]]) -> Iterator[list[_Fit]]:
    """Consecutive fits, told with their bytes, in groups of `BYTES_TOGETHER` or less, or of one."""
    group: list[_Fit] = []
    held = 0
    for fit, n_bytes in fits:
        if group and held + n_bytes > BYTES_TOGETHER:
            yield group
            group, held = [], 0
        group.append(fit)
        held += n_bytes
    if group:
        yield group


def _row_fit(protocol: ProtocolConfig, task: Task, vectors: Vectors, selection: Selection, seed: int) -> _RowFit:
    rounds, usable = task.rounds(seed), vectors.usable
    parts = [[rows[usable[rows]] for rows in (one.train, one.valid, one.test)] for one in rounds]
    for a_round, (train, _, readable) in zip(rounds, parts, strict=True):
        if not len(train) or not len(readable):
            raise ValueError(f"{task.name} {a_round.name}: no usable clip is left in the training or test set")
    features = vectors.of_every_round(selection, seed, [train for train, *_ in parts], [valid for _, valid, _ in parts])
    probes = [_probe_for(protocol, task, selection, seed) for _ in rounds]
    if not get_traits(probes[0]).reads_parts:
        read = {id(rows): np.asarray(rows) if isinstance(rows, Rows) else rows for rows in features}  # shared by rounds
        features = [read[id(rows)] for rows in features]
    splits = [
        (of_round[train], task.y[train], of_round[valid], task.y[valid])
        for of_round, (train, valid, _) in zip(features, parts, strict=True)
    ]
    return _RowFit(rounds, parts, features, probes, splits)


def _tested(task: Task, fit: _RowFit, skip_bad: bool) -> list[FittedRound]:
    """What fitted probes say of the test clips of their rounds."""
    fitted = []
    for a_round, probe, of_round, (train, valid, readable) in zip(
        fit.rounds, fit.probes, fit.features, fit.parts, strict=True
    ):
        tested = readable if skip_bad else a_round.test
        y_pred, shares = _predicted(task, probe, of_round, readable, train)
        score = float(METRICS[task.config.metric].function(task.truth[tested], y_pred[tested]))
        extras = judged(task, tested, y_pred[tested], shares if len(readable) == len(tested) else None)
        fitted.append(FittedRound(a_round, tested, y_pred[tested], score, len(train), len(valid), probe, extras=extras))
    return fitted


def _predicted(
    task: Task, probe: Any, features: Any, readable: NDArray[np.int64], train: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """What is predicted of every clip (see `FittedRound.y_pred`; others than `readable` count as wrong), and the class
    probabilities of the readable ones where the probe has any."""
    if task.config.kind == "events":
        counts = np.array([count_clip(events, np.empty((0, 3)))[1] for events in task.y], np.float64)
        for position, found in zip(readable, probe.predict(features[readable]), strict=True):
            counts[position] = count_clip(task.y[position], found)[1]
        return counts, None
    if task.config.kind == "multilabel":
        scores = np.full(task.y.shape, -np.inf, np.float32)
        scores[readable] = _said(probe.decision_function, features, readable)
        return scores, None
    if task.config.kind == "regression":
        values = np.full(len(task), task.y[train].mean())
        values[readable] = _said(probe.predict, features, readable)
        return values, None
    classes = np.full(len(task), UNREADABLE, np.int64)
    classes[readable] = _said(probe.predict, features, readable)
    if not hasattr(probe, "predict_proba"):
        return classes, None
    shares = np.zeros((len(readable), len(task.config.classes)))
    shares[:, probe.classes_] = _said(probe.predict_proba, features, readable)
    return classes, shares


def _said(method: Callable[[Any], NDArray[Any]], features: Any, readable: NDArray[np.int64]) -> NDArray[Any]:
    """What a probe's method says of some clips; in parts where their features are read in parts."""
    of_clips = features[readable]
    if not isinstance(of_clips, Rows):
        return method(of_clips)
    return np.concatenate([method(of_clips.read(part)) for part in of_clips.parts()])
