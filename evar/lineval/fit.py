"""The probes of rows: one for each round, fitted on its training clips and tested on its test clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from evar.experiment.label_curves import predict_points
from evar.experiment.probing import make_row_probe
from evar.experiment.rounds import FittedRound, list_usable, place_predictions, score_round
from evar.experiment.texts import embed_texts
from evar.lineval.comparing import compare_round, describe_clips, give_pairs
from evar.metrics import METRICS
from evar.numeric.rows import Rows
from evar.probes.draws import FittingClips
from evar.probes.making import compares_clips, needs_text, needs_training
from evar.probes.protocol import fit_probes, get_traits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Round, Task
    from evar.experiment.cell import Cell
    from evar.experiment.selection import Selection
    from evar.lineval.cell_features import Vectors


#: bytes of memory for fits that run side by side
BYTES_TOGETHER = 2**30

_Fit = TypeVar("_Fit")


@dataclass
class _RowFit:
    """The probes of one row, one for each round, and what they are fitted on and tested with."""

    rounds: Sequence[Round]
    parts: list[list[NDArray[np.int64]]]
    features: list[Any]
    probes: list[Any]
    splits: list[tuple[Any, ...]]
    statistics: Sequence[tuple[float, float] | None]


def fit_rows(
    cell: Cell,
    vectors: Vectors,
    rows: Sequence[tuple[Selection, int]],
    device: str = "auto",
    *,
    with_heads: bool = False,
) -> list[list[FittedRound]]:
    """Fit and test a probe for every round of some rows; side by side where the probe can.

    Args:
        cell: protocol, labels and rounds.
        vectors: of the task's clips.
        rows: which layers, and how they become one feature; seed of the validation draw and the probe.
        device: of probes that are trained by gradient steps.
        with_heads: whether the probes are to be kept, so that `valid_shares` of the rounds are needed.

    Returns:
        For each row its rounds.
    """
    fits = [_prepare_fit(cell, vectors, selection, seed, device) for selection, seed in rows]
    probes, splits = [p for fit in fits for p in fit.probes], [s for fit in fits for s in fit.splits]
    fit_probes(probes, splits)
    tested = [_test_rounds(cell, vectors, fit) for fit in fits]
    if with_heads and cell.task.config.kind == "multilabel":
        for fit, rounds in zip(fits, tested, strict=True):
            for one, split in zip(rounds, fit.splits, strict=True):
                one.valid_shares = _predict_validation(one.probe, split)
    return tested


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


def group_fits(fits: Iterable[tuple[_Fit, int]]) -> Iterator[list[_Fit]]:
    """Yield consecutive fits, given with their bytes, in groups of `BYTES_TOGETHER` or less, or of one.

    Example:
        >>> [list(group) for group in group_fits([("a", 600 * 2**20), ("b", 400 * 2**20), ("c", 2**31)])]
        [['a', 'b'], ['c']]
    """
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


def _prepare_fit(cell: Cell, vectors: Vectors, selection: Selection, seed: int, device: str) -> _RowFit:
    task = cell.task
    rounds, usable = task.rounds(seed), vectors.find_usable(selection)
    needs_train = needs_training(cell.protocol)
    parts = [list_usable(one, usable, task.name, needs_valid=False, needs_train=needs_train) for one in rounds]
    features = vectors.read_rounds(selection, seed, [train for train, *_ in parts], [valid for _, valid, _ in parts])
    probes = [make_row_probe(cell, selection, seed, device) for _ in rounds]
    if needs_text(cell.protocol):
        texts = embed_texts(cell.encoder, task, vectors.store)
        probes = [probe.set_params(text=texts) for probe in probes]
    if compares_clips(cell.protocol):
        probes = [
            probe.set_params(valid_clips=describe_clips(task, valid), **give_pairs(probe, task))
            for probe, (_, valid, _) in zip(probes, parts, strict=True)
        ]
    if not get_traits(probes[0]).reads_parts:
        read = {id(rows): np.asarray(rows) if isinstance(rows, Rows) else rows for rows in features}  # shared by rounds
        features = [read[id(rows)] for rows in features]
    if get_traits(probes[0]).reads_clips:
        for probe, one, (train, valid, _) in zip(probes, rounds, parts, strict=True):
            positions = np.concatenate([train, valid])
            probe.set_params(clips=FittingClips(positions, task.groups[positions], bool(one.drawn)))
    splits = [
        (of_round[train], task.y[train], of_round[valid], task.y[valid])
        for of_round, (train, valid, _) in zip(features, parts, strict=True)
    ]
    return _RowFit(rounds, parts, features, probes, splits, vectors.of_rounds[seed])


def _test_rounds(cell: Cell, vectors: Vectors, fit: _RowFit) -> list[FittedRound]:
    """Predict the test clips of each round by its fitted probe."""
    task, fitted = cell.task, []
    for a_round, probe, of_round, (train, valid, readable), stats in zip(
        fit.rounds, fit.probes, fit.features, fit.parts, fit.statistics, strict=True
    ):
        if get_traits(probe).compares_clips:
            scored = compare_round(cell, a_round, probe, of_round, readable)
            fitted.append(
                FittedRound(
                    a_round=a_round, probe=probe, norm_stats=stats, n_train=len(train), n_valid=len(valid), **scored
                )
            )
            continue
        predicted, shares = predict_clips(task, probe, of_round, readable)
        centre = float(task.y[train].mean()) if task.config.kind == "regression" else 0.0
        y_pred = place_predictions(task, readable, predicted, centre)
        scored = score_round(task, a_round, readable, y_pred, shares, skip_bad=cell.spec.skip_bad)
        if hasattr(probe, "predict_draws"):
            scored["curve"] = predict_points(task, probe, np.asarray(of_round[readable]), readable, scored["tested"])
        if hasattr(probe, "predict_each"):
            scored["template_scores"] = _score_templates(cell, probe, of_round, readable, scored["tested"])
        fitted.append(
            FittedRound(
                a_round=a_round,
                probe=probe,
                norm_stats=stats,
                n_train=len(train),
                n_valid=len(valid),
                **scored,
                fitted_on=(train, valid),
            )
        )
    return fitted


def _predict_validation(probe: Any, split: tuple[Any, ...]) -> NDArray[np.float64] | None:
    """Probabilities of the validation clips' labels, (validation clips, labels); None without validation clips.

    A probe whose final fit has seen these clips is fitted once more without them, at the strength that was chosen.
    """
    from sklearn.base import clone

    X, y, X_valid, _ = split
    if not len(X_valid):
        return None
    if getattr(probe, "refit", "train") == "train_and_valid":
        probe = clone(probe).set_params(refit="train", strengths=(probe.strength_,)).fit(X, y)
    return np.asarray(_apply_parts(probe.predict_proba, X_valid))


def _score_templates(
    cell: Cell, probe: Any, features: Any, readable: NDArray[np.int64], tested: NDArray[np.int64]
) -> tuple[float, ...]:
    """Score the prompts of each template alone on the test clips: these scores are shown, and never choose anything."""
    task, scores = cell.task, []
    for predicted in probe.predict_each(np.asarray(features[readable])):
        y_pred = place_predictions(task, readable, predicted)[tested]
        scores.append(float(METRICS[task.config.metric].function(task.truth[tested], y_pred)))
    return tuple(scores)


def predict_clips(
    task: Task, probe: Any, features: Any, readable: NDArray[np.int64]
) -> tuple[Any, NDArray[np.float64] | None]:
    """Predict the readable clips, with class probabilities if the probe has any.

    Args:
        task: its kind decides the form of a prediction.
        probe: fitted.
        features: (clips, width), `Rows` or frames.
        readable: (readable,) positions of the clips to predict.

    Returns:
        Predictions as `evar.experiment.rounds.place_predictions` takes them, and (readable, classes) probabilities or None.
    """
    if task.config.kind == "captions":
        return probe.rank(np.asarray(features[readable]), readable), None
    if task.config.kind == "events":
        return probe.predict(features[readable]), None
    if task.config.kind == "multilabel":
        return _apply(probe.decision_function, features, readable), None
    predicted = _apply(probe.predict, features, readable)
    if task.config.kind == "regression" or not hasattr(probe, "predict_proba"):
        return predicted, None
    shares = np.zeros((len(readable), len(task.config.classes)))
    shares[:, probe.classes_] = _apply(probe.predict_proba, features, readable)
    return predicted, shares


def _apply(method: Callable[[Any], NDArray[Any]], features: Any, readable: NDArray[np.int64]) -> NDArray[Any]:
    """A probe's method on some clips; in parts where their features are read in parts."""
    return _apply_parts(method, features[readable])


def _apply_parts(method: Callable[[Any], NDArray[Any]], of_clips: Any) -> NDArray[Any]:
    if not isinstance(of_clips, Rows):
        return method(of_clips)
    return np.concatenate([method(of_clips.read(part)) for part in of_clips.parts()])
