"""From fitted probes to rows: one `Result` with everything that re-running it takes, and its predictions."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import results
from evar.data.problems import describe_unknown_classes
from evar.experiment.label_curves import describe_curve, save_curve
from evar.experiment.rounds import DIGITS, FittedRound
from evar.experiment.sources import hash_sources, keep_sources
from evar.experiment.task_warnings import list_task_warnings
from evar.experiment.texts import describe_texts
from evar.extraction.fusion import commutes
from evar.metrics import METRICS, estimate_chance, score_interval
from evar.probes.protocol import report_fit
from evar.results import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.experiment.cell import Cell
    from evar.experiment.spec import Resources, RowSpec

INTERVAL_METHOD = (
    "95 % interval by bootstrap over the test clips of all rounds ({n:,} resamples of whole groups within each round, "
    "percentiles{bias}); it shows the uncertainty from the choice of test clips"
)


def make_result(
    cell: Cell,
    row: RowSpec,
    fitted: Sequence[FittedRound],
    *,
    bad: Mapping[int, str],
    seconds: float,
    resources: Resources,
    flags: Sequence[str] = (),
) -> Result:
    """Make the row of a table from the predictions of its rounds.

    The row holds everything that computing it again takes: its spec, what was requested, and which rows of the task were
    validation clips. Scores are means over rounds; the interval is over the test clips of all rounds.

    Args:
        cell: encoder, task, protocol and request.
        row: which layers, fusion and seed; its id names the result.
        fitted: one for each round, in the order of the task's rounds.
        bad: position of a clip -> why it could not be used; such test clips are counted as wrong unless the request leaves
            them out, and all are named in the row.
        seconds: wall time of the row.
        resources: device and batch size, which are noted beside the request.
        flags: what else a reader must know beside the score.

    Returns:
        The row, not yet saved.

    Raises:
        ValueError: if a value is not legal, such as a score outside 0..1.
    """
    task = cell.task
    scores = [one.score for one in fitted]
    return Result(
        id=row.id,
        seed=row.seed,
        limit=row.limit,
        score=float(np.mean(scores)),
        round_scores=scores,
        rounds=[_round_record(one) for one in fitted],
        n_train=round(float(np.mean([one.n_train for one in fitted]))),
        n_valid=round(float(np.mean([one.n_valid for one in fitted]))),
        n_test=sum(len(one.y_pred) for one in fitted),
        skipped=_list_skipped(task, bad, cell.spec.skip_bad, fitted),
        interval=_compute_interval(cell, cell.metric, fitted),
        extra_intervals=_compute_extra_intervals(cell, fitted),
        interval_method=_describe_interval(cell.metric),
        chance=estimate_chance(cell.metric, [one.find_truth(task) for one in fitted], len(task.config.classes)),
        extras={name: float(np.mean([one.extras[name] for one in fitted])) for name in fitted[0].extras},
        params={
            **_list_params(cell.protocol, fitted),
            **_describe_prompts(cell, fitted),
            **describe_curve(task, fitted),
        },
        width=fitted[0].probe.n_features_in_,
        flags=[*_list_flags(cell, row, fitted), *flags],
        seconds=round(seconds, 3),
        versions=versions(),
        created=results.utc_now(),
        settings={
            **cell.spec.describe_request(),
            "batch_size": resources.batch_size,
            "device": resources.device,
            "spec": row.to_plain(),
            **({"sources": sources} if (sources := hash_sources(cell.spec.encoder)) else {}),
            **({"warnings": warnings} if (warnings := list_task_warnings(cell)) else {}),
        },
        **_describe_cell(cell, row),
    )


def _describe_cell(cell: Cell, row: RowSpec) -> dict[str, Any]:
    """Describe the encoder, layers, task and protocol of a row."""
    encoder, task = cell.encoder, cell.task
    names = [layer.name for layer in encoder.layer_infos]
    position = names.index(row.layers[0]) if len(row.layers) == 1 else None
    return {
        "encoder": encoder.name,
        "weights": encoder.weights_label,
        "weights_sha256": encoder.weights_sha256,
        "encoder_options": dict(encoder.options),
        "trained_on": encoder.trained_on,
        "sample_rate": encoder.sample_rate,
        "extraction": dict(row.extraction),
        "layers": list(row.layers),
        "fusion": row.fusion,
        "pooling": dict(row.pooling),
        "depth": None if position is None else (position + 1) / len(names),
        "layer_index": position,
        "n_layers": len(names),
        "default": row.layers == tuple(encoder.default_layers),
        "task": task.name,
        "task_version": task.config.version,
        "index_sha256": task.index_sha256,
        "metric": cell.metric,
        "n_classes": len(task.config.classes),
        "protocol": cell.protocol.name,
        "protocol_description": cell.protocol.description,
    }


def _list_flags(cell: Cell, row: RowSpec, fitted: Sequence[FittedRound]) -> list[str]:
    """List the facts that a reader must know beside the score."""
    unknown = describe_unknown_classes(cell.task, [one.a_round for one in fitted if one.items is None])
    return [
        *([unknown] if unknown else []),
        *(["random weights"] if cell.encoder.weights_label == "random" else []),
        *(["task statistics"] if cell.statistics == "task" else []),
        *(["after_pool"] if not commutes(row.fusion, row.pooling.values()) else []),
    ]


def _list_params(protocol: ProtocolConfig, fitted: Sequence[FittedRound]) -> dict[str, Any]:
    """Every effective hyper-parameter: the protocol's, the estimator's own, and what each round chose."""
    effective = {k: v for k, v in fitted[0].probe.get_params(deep=False).items() if isinstance(v, int | float | str)}
    reports = [report_fit(one.probe) for one in fitted]
    others = [dict(one.chosen) for one in reports if one.chosen is not None]
    weights = [np.asarray(one.layer_weights).tolist() for one in reports if one.layer_weights is not None]
    return {
        **effective,
        **protocol.params,
        "protocol_version": protocol.version,
        "refit": protocol.refit,
        "validation": fitted[0].a_round.drawn or "published",
        "chosen_strengths": [None if one.strength is None else float(one.strength) for one in reports],
        **({"chosen": others} if others else {}),
        **({"layer_weights": weights} if weights else {}),
        **({"compared": [dict(one.items.facts) for one in fitted if one.items]} if fitted[0].items else {}),
    }


def _describe_prompts(cell: Cell, fitted: Sequence[FittedRound]) -> dict[str, Any]:
    """The prompts of a zero-shot row, and what each template alone would score, mean over rounds."""
    if not fitted[0].template_scores:
        return {}
    scores = np.mean([one.template_scores for one in fitted], axis=0).round(DIGITS)
    return {"prompts": {**describe_texts(cell.task), "template_scores": scores.tolist()}}


def _round_record(one: FittedRound) -> dict[str, Any]:
    report = report_fit(one.probe)
    return {
        "name": one.a_round.name,
        "score": one.score,
        "n_train": one.n_train,
        "n_valid": one.n_valid,
        "n_test": len(one.y_pred),
        "strength": None if report.strength is None else float(report.strength),
        "valid_score": report.valid_score,
        "valid_log_loss": _round_loss(report.valid_log_loss),
        "converged": bool(report.converged),
        "on_grid_edge": bool(report.on_grid_edge),
        "validation": one.a_round.drawn or "published",
        "valid_clips_sha256": _hash_rows(one.a_round.valid),
        "norm_stats": None if one.norm_stats is None else list(one.norm_stats),
    }


def _round_loss(loss: float | None) -> float | None:
    return None if loss is None else round(float(loss), DIGITS)


def _hash_rows(rows: NDArray[np.int64]) -> str:
    """Which clips were validation, as a hash of their row numbers: a re-run can see whether it drew the same."""
    return hashlib.sha256(",".join(map(str, rows.tolist())).encode()).hexdigest()[:16]


def _describe_interval(metric: str) -> str:
    bias = "" if METRICS[metric].is_mean else ", less the bootstrap's bias"
    return INTERVAL_METHOD.format(n=METRICS[metric].n_resamples, bias=bias)


def _compute_interval(cell: Cell, metric: str, fitted: Sequence[FittedRound]) -> list[float] | None:
    """The interval of a score; None if it is not known and the metric has no least score."""
    true, groups = (
        np.concatenate([find(one) for one in fitted])
        for find in (lambda one: one.find_truth(cell.task), lambda one: one.find_groups(cell.task))
    )
    predicted = np.concatenate([one.y_pred for one in fitted])
    rounds = np.repeat(np.arange(len(fitted)), [len(one.y_pred) for one in fitted])
    low, high = score_interval(metric, true, [predicted], groups, rounds)
    return [float(low), float(high)] if np.isfinite([low, high]).all() else None


def _compute_extra_intervals(cell: Cell, fitted: Sequence[FittedRound]) -> dict[str, list[float]]:
    """Intervals of the further metrics of comparisons, which can all be resampled; those of other rows have none."""
    if fitted[0].items is None:
        return {}
    found = {name: _compute_interval(cell, name, fitted) for name in fitted[0].extras}
    return {name: ends for name, ends in found.items() if ends is not None}


def _list_skipped(
    task: Task, bad: Mapping[int, str], skip_bad: bool, fitted: Sequence[FittedRound]
) -> list[dict[str, str]]:
    """Every bad clip by name. A bad test clip counts as wrong unless the request leaves such clips out."""
    tested = set(np.concatenate([one.a_round.test for one in fitted]).tolist())
    split = task.index["split"] if task.config.part == "split" else "fold " + task.index["fold"]
    return [
        {
            "clip": str(task.index["path"][position]),
            "split": str(split[position]),
            "reason": reason,
            "counted": "wrong" if position in tested and not skip_bad else "left_out",
        }
        for position, reason in sorted(bad.items())
    ]


def save_row(out: Path, result: Result, fitted: Sequence[FittedRound], task: Task) -> None:
    """Write the predictions, then the result: a result file without predictions cannot exist."""
    results.save_predictions(
        out,
        result.id,
        clip=np.concatenate([one.find_names(task) for one in fitted]),
        round=np.repeat(np.arange(len(fitted)), [len(one.y_pred) for one in fitted]),
        group=np.concatenate([one.find_groups(task) for one in fitted]),
        y_true=np.concatenate([one.find_truth(task) for one in fitted]),
        y_pred=np.concatenate([one.y_pred for one in fitted]),
        confidence=_join_confidence(fitted),
    )
    save_curve(out, result.id, fitted)
    keep_sources(out, str(result.settings.get("encoder", "")))
    results.save(result, out)


def _join_confidence(fitted: Sequence[FittedRound]) -> NDArray[np.float32] | None:
    """Return the probabilities of the predicted classes of all rounds; None if a round has none."""
    known = [one.confidence for one in fitted if one.confidence is not None]
    return np.concatenate(known) if len(known) == len(fitted) else None


def versions() -> dict[str, str]:
    """Versions of what can change a number.

    Example:
        >>> sorted(versions())[:3]
        ['evar-audio', 'numpy', 'platform']
    """
    return dict(_read_versions())


@cache
def _read_versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("evar-audio", "torch", "numpy", "scipy", "scikit-learn", "soundfile", "soxr", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
