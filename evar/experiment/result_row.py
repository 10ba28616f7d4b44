"""From fitted probes to rows: one `Result` with everything that re-running it takes, and its predictions."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import results
from evar.experiment.identity import extraction_settings, name_poolings
from evar.extraction import input_statistics as norm_stats
from evar.extraction.fusion import commutes
from evar.metrics import METRICS, calibration_error, estimate_chance, list_extra_metrics, score_interval
from evar.probes.protocol import report_fit
from evar.results import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Round, Task
    from evar.encoders.base import Encoder
    from evar.experiment.selection import Selection
    from evar.experiment.settings import Settings

INTERVAL_METHOD = (
    "95 % interval by bootstrap over the test clips of all rounds ({n:,} resamples of whole groups within each round, "
    "percentiles{bias}); it shows the uncertainty from the choice of test clips"
)


#: predicted class of a test clip that could not be read: never right
UNREADABLE = -1


@dataclass
class FittedRound:
    """One round of one row: what was predicted for its test clips.

    Attributes:
        a_round: which clips were which.
        tested: (clips,) rows of the task that count.
        y_pred: (clips,) predicted class numbers, UNREADABLE for bad clips; (clips, labels) float32 scores, -inf for bad
            clips; or (clips,) float64 values, the training clips' mean for bad ones.
        score: metric over them, at most 1.
        n_train, n_valid: clips fitted on.
        probe: the fitted estimator.
        norm_stats: (mean, std) that the encoder's input was normalised by in this round, None where it has none.
        extras: further metrics of the round, by name.
    """

    a_round: Round
    tested: NDArray[np.int64]
    y_pred: NDArray[Any]
    score: float
    n_train: int
    n_valid: int
    probe: Any
    norm_stats: tuple[float, float] | None = None
    extras: dict[str, float] = field(default_factory=dict)


def make_result(
    encoder: Encoder,
    task: Task,
    protocol: ProtocolConfig,
    settings: Settings,
    selection: Selection,
    seed: int,
    id: str,
    bad: Mapping[int, str],
    fitted: Sequence[FittedRound],
    seconds: float,
) -> Result:
    names = [layer.name for layer in encoder.layer_infos]
    position = names.index(selection.layers[0]) if len(selection.layers) == 1 else None
    poolings = name_poolings(encoder, protocol, selection)
    scores = [one.score for one in fitted]
    mode = norm_stats.mode(encoder, settings.norm_stats, protocol.norm_stats)
    n_test = sum(len(one.tested) for one in fitted)
    return Result(
        encoder=encoder.name,
        weights=encoder.weights_label,
        weights_sha256=encoder.weights_sha256,
        layers=list(selection.layers),
        fusion=selection.fusion,
        pooling=poolings,
        task=task.name,
        task_version=task.config.version,
        protocol=protocol.name,
        params=_params(protocol, fitted),
        seed=seed,
        metric=task.config.metric,
        score=float(np.mean(scores)),
        round_scores=scores,
        n_train=round(float(np.mean([one.n_train for one in fitted]))),
        n_valid=round(float(np.mean([one.n_valid for one in fitted]))),
        n_test=n_test,
        skipped=_skipped(task, bad, settings.skip_bad, fitted),
        seconds=round(seconds, 3),
        versions=versions(),
        created=results.utc_now(),
        id=id,
        rounds=[_round_record(one) for one in fitted],
        interval=_interval(task, fitted),
        interval_method=_interval_method(task.config.metric),
        n_classes=len(task.config.classes),
        chance=estimate_chance(
            task.config.metric, [task.truth[one.tested] for one in fitted], len(task.config.classes)
        ),
        extras={name: float(np.mean([one.extras[name] for one in fitted])) for name in fitted[0].extras},
        depth=None if position is None else (position + 1) / len(names),
        layer_index=position,
        n_layers=len(names),
        default=selection.layers == tuple(encoder.default_layers),
        width=fitted[0].probe.n_features_in_,
        limit=settings.limit,
        sample_rate=encoder.sample_rate,
        encoder_options=dict(encoder.options),
        extraction=extraction_settings(encoder, task, protocol, settings),
        index_sha256=task.index_sha256,
        trained_on=encoder.trained_on,
        protocol_description=protocol.description,
        flags=[
            *(["random weights"] if encoder.weights_label == "random" else []),
            *(["task statistics"] if mode == "task" else []),
            *(["after_pool"] if not commutes(selection.fusion, poolings.values()) else []),
        ],
        settings=_asked(settings, encoder, task.name),
    )


def _params(protocol: ProtocolConfig, fitted: Sequence[FittedRound]) -> dict[str, Any]:
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
    }


def _round_record(one: FittedRound) -> dict[str, Any]:
    report = report_fit(one.probe)
    return {
        "name": one.a_round.name,
        "score": one.score,
        "n_train": one.n_train,
        "n_valid": one.n_valid,
        "n_test": len(one.tested),
        "strength": None if report.strength is None else float(report.strength),
        "valid_score": report.valid_score,
        "valid_log_loss": report.valid_log_loss,
        "converged": bool(report.converged),
        "on_grid_edge": bool(report.on_grid_edge),
        "validation": one.a_round.drawn or "published",
        "valid_clips_sha256": _rows_sha256(one.a_round.valid),
        "norm_stats": None if one.norm_stats is None else list(one.norm_stats),
    }


def _rows_sha256(rows: NDArray[np.int64]) -> str:
    """Which clips were validation, as a hash of their row numbers: a re-run can see whether it drew the same."""
    return hashlib.sha256(",".join(map(str, rows.tolist())).encode()).hexdigest()[:16]


def _interval_method(metric: str) -> str:
    bias = "" if METRICS[metric].is_mean else ", less the bootstrap's bias"
    return INTERVAL_METHOD.format(n=METRICS[metric].n_resamples, bias=bias)


def _interval(task: Task, fitted: Sequence[FittedRound]) -> list[float]:
    rows = np.concatenate([one.tested for one in fitted])
    predicted = np.concatenate([one.y_pred for one in fitted])
    rounds = np.repeat(np.arange(len(fitted)), [len(one.tested) for one in fitted])
    low, high = score_interval(task.config.metric, task.truth[rows], [predicted], task.groups[rows], rounds)
    return [float(low), float(high)]


def judged(
    task: Task, tested: NDArray[np.int64], y_pred: NDArray[Any], shares: NDArray[Any] | None
) -> dict[str, float]:
    """Metrics beside the task's own, by name.

    Args:
        task: which labels are true.
        tested: (clips,) rows of the task.
        y_pred: of them, as in `FittedRound`.
        shares: (clips, classes) probabilities, for the calibration error; None where some clip has none.
    """
    y = task.truth[tested]
    names = list_extra_metrics(task.config.metric, len(task.config.classes), task.config.pitch)
    found = {}
    for name in names:
        try:
            found[name] = float(METRICS[name].function(y, y_pred))
        except ValueError:  # a small test set may have no label that both occurs and does not
            continue
    if shares is not None:
        found["calibration_error"] = calibration_error(y, shares)
    return found


def _skipped(task: Task, bad: Mapping[int, str], skip_bad: bool, fitted: Sequence[FittedRound]) -> list[dict[str, str]]:
    """Every bad clip by name. A bad test clip counts as wrong unless it was asked to be left out."""
    tested = set(np.concatenate([one.a_round.test for one in fitted]).tolist())
    split = task.index["split"] if task.config.splits == "published" else "fold " + task.index["fold"]
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
    rows = np.concatenate([one.tested for one in fitted])
    results.save_predictions(
        out,
        result.id,
        clip=task.index["path"].to_numpy(str)[rows],
        round=np.repeat(np.arange(len(fitted)), [len(one.tested) for one in fitted]),
        group=task.groups[rows],
        y_true=task.truth[rows],
        y_pred=np.concatenate([one.y_pred for one in fitted]),
    )
    results.save(result, out)


def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("evar-audio", "torch", "numpy", "scipy", "scikit-learn", "soundfile", "soxr", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _asked(settings: Settings, encoder: Encoder, task: str) -> dict[str, Any]:
    """What to ask for to get this row again; layers that were asked for by position have their names."""
    name = encoder.asked_as or encoder.name
    return {
        "encoder": name,
        "task": task,
        "layers": settings.layers if isinstance(settings.layers, str) else list(encoder.layer_names(settings.layers)),
        "fusion": settings.fusion,
        "protocol": settings.protocol,
        "learning_rate": settings.learning_rate,
        "weights": settings.weights_of(name),
        "norm_stats": list(settings.norm_stats) if isinstance(settings.norm_stats, tuple) else settings.norm_stats,
        "limit": settings.limit,
        "skip_bad": settings.skip_bad,
        "batch_size": settings.batch_size,
        "device": settings.device,
    }
