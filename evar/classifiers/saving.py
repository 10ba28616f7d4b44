"""From the fitted probes of a row to a classifier file and its model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import config as configs
from evar import results
from evar.classifiers.card import write_card
from evar.classifiers.file import SUFFIX, write_classifier
from evar.classifiers.record import (
    ClassifierRecord,
    ClipFacts,
    EncoderFacts,
    FeatureFacts,
    HeadFacts,
    ScoreFacts,
    TaskFacts,
)
from evar.classifiers.thresholds import DEFAULT, choose_thresholds
from evar.config.encoder import make_absolute
from evar.experiment.result_row import versions
from evar.probes.protocol import report_fit
from evar.probes.saved import SavedProbe, save_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task
    from evar.experiment.cell import Cell
    from evar.experiment.rounds import FittedRound
    from evar.results import Result

#: folder of a results folder that holds the classifier files of its rows
FOLDER = "heads"
#: which probes a file holds, and how several become one prediction
ONE_PROBE = "one probe"
ALL_ROUNDS = (
    "one probe for each round; their probabilities (or numbers) and thresholds are averaged, and --round=NAME takes "
    "one alone"
)


def head_path(out: Path, id: str) -> Path:
    """Return where the classifier file of a row is kept.

    Args:
        out: results folder.
        id: of the row.

    Example:
        >>> head_path(Path("results"), "logmel__x").as_posix()
        'results/heads/logmel__x.safetensors'
    """
    return out / FOLDER / f"{id}{SUFFIX}"


def save_heads(out: Path, cell: Cell, result: Result, fitted: Sequence[FittedRound]) -> Path:
    """Keep the fitted probes of a row beside it, with a model card.

    Args:
        out: results folder.
        cell: encoder, task and protocol.
        result: the row.
        fitted: its rounds, fitted with `with_heads`.

    Returns:
        Path of the classifier file.

    Raises:
        OSError: if it cannot be written.
    """
    rule = ONE_PROBE if len(fitted) == 1 else ALL_ROUNDS
    path = head_path(out, result.id)
    save_classifier(path, *make_classifier(cell, result, fitted, rule, describe_test(cell.task, result)))
    return path


def save_classifier(path: Path, record: ClassifierRecord, probes: Sequence[SavedProbe]) -> list[Path]:
    """Write a classifier file, and its model card beside it.

    Args:
        path: of the classifier file.
        record: what the file says of encoder, task, test and rights.
        probes: its fitted probes, in the order of `record.heads`.

    Returns:
        The paths of both files.
    """
    return [write_classifier(path, record, probes), write_card(path, record)]


def describe_test(task: Task, result: Result) -> str:
    """Describe in one sentence which fit was tested on which clips."""
    if task.config.part == "fold":
        return (
            f"each probe was tested on the clips of its own fold, which it had not seen ({len(result.round_scores)} rounds, "
            f"{result.n_test} clips in all)"
        )
    split = "published" if task.config.splits == "published" else task.config.splits
    return (
        f"this probe on the {result.n_test} test clips of the {split} split, which had no say in fit, strength, layer or "
        "thresholds"
    )


def make_classifier(
    cell: Cell, result: Result, fitted: Sequence[FittedRound], rule: str, tested: str
) -> tuple[ClassifierRecord, list[SavedProbe]]:
    """Collect all that a classifier file holds.

    Args:
        cell: encoder, task and protocol.
        result: the row whose score is said.
        fitted: the rounds whose probes are kept, fitted with `with_heads`.
        rule: which probes they are, and how several become one prediction.
        tested: which fit was tested on which clips.

    Returns:
        The record, and the probes as data.
    """
    probes = [save_probe(one.probe) for one in fitted]
    policy = cell.task.policy()
    record = ClassifierRecord(
        id=result.id,
        rule=rule,
        encoder=_describe_encoder(cell),
        feature=FeatureFacts(tuple(result.layers), result.fusion, dict(result.pooling)),
        clip=ClipFacts(policy.seconds, policy.pad, policy.crop),
        task=_describe_task(cell.task),
        score=ScoreFacts(
            score=result.score,
            interval=tuple(result.interval or ()),
            interval_method=result.interval_method,
            chance=result.chance,
            n_test=result.n_test,
            round_scores=tuple(result.round_scores),
            of=tested,
        ),
        protocol={
            "name": cell.protocol.name,
            "version": cell.protocol.version,
            "description": cell.protocol.description,
            "params": results.plain(dict(cell.protocol.params), "params"),
            "refit": cell.protocol.refit,
        },
        heads=tuple(_describe_head(cell.task, one, probe) for one, probe in zip(fitted, probes, strict=True)),
        versions=versions(),
        created=results.utc_now(),
    )
    return record, probes


def _describe_encoder(cell: Cell) -> EncoderFacts:
    encoder, spec = cell.encoder, cell.spec
    config = configs.load_encoder_config(spec.encoder)
    licence = config.weights.licence if config.weights else "no weights" if encoder.weights_label == "none" else ""
    if spec.weights is not None or encoder.weights_label == "random":
        licence = (
            "of untrained weights none" if encoder.weights_label == "random" else f"that of {encoder.weights_label}"
        )
    return EncoderFacts(
        name=encoder.name,
        request=make_absolute(spec.encoder),
        weights=spec.describe_request()["weights"],
        weights_label=encoder.weights_label,
        weights_sha256=encoder.weights_sha256,
        sample_rate=int(encoder.sample_rate),
        options=results.plain(dict(encoder.options), "options"),
        revision=str(encoder.revision),
        trained_on=encoder.trained_on,
        licence=licence,
    )


def _describe_task(task: Task) -> TaskFacts:
    config = task.config
    return TaskFacts(
        name=config.name,
        title=config.title,
        version=config.version,
        kind=config.kind,
        metric=config.metric,
        index_sha256=task.index_sha256,
        split=config.splits,
        classes=tuple(config.classes),
        unit=config.unit or "",
        licence=config.licence,
        source=config.source,
        limit=task.limit,
    )


def _describe_head(task: Task, one: FittedRound, saved: SavedProbe) -> HeadFacts:
    report = report_fit(one.probe)
    thresholds: list[float] = []
    scores: list[float | None] = []
    train, valid = one.fitted_on
    if task.config.kind == "multilabel":
        thresholds, scores = [DEFAULT] * task.y.shape[1], [None] * task.y.shape[1]
        if one.valid_shares is not None:
            thresholds, scores = choose_thresholds(task.y[valid], one.valid_shares)
    return HeadFacts(
        name=one.a_round.name,
        kind=saved.kind,
        settings=results.plain(saved.settings, "settings"),
        n_train=len(train),
        n_valid=len(valid),
        clips_per_class=count_clips(task, np.concatenate([train, valid])),
        strength=None if report.strength is None else float(report.strength),
        chosen=None if report.chosen is None else results.plain(dict(report.chosen), "chosen"),
        valid_score=_keep_finite(report.valid_score),
        converged=bool(report.converged),
        norm_stats=None if one.norm_stats is None else tuple(one.norm_stats),
        thresholds=tuple(thresholds),
        threshold_scores=tuple(scores),
    )


def count_clips(task: Task, clips: NDArray[np.int64]) -> dict[str, Any]:
    """Count the clips of each class.

    Args:
        task: with its labels.
        clips: positions.

    Returns:
        Class -> clips; empty for numbers.

    Example:
        >>> from evar.data.task import load_task
        >>> count_clips(load_task("esc10"), np.arange(400))["dog_bark"]
        40
    """
    y = task.y[clips]
    if task.config.kind == "multilabel":
        return dict(zip(task.config.classes, y.sum(axis=0).tolist(), strict=True))
    if task.config.kind == "multiclass":
        counts = np.bincount(y, minlength=len(task.config.classes))
        return dict(zip(task.config.classes, counts.tolist(), strict=True))
    return {}


def _keep_finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
