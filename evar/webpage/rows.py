"""One row: what it mixes up, the score of every class, calibration, rounds, settings, and how to compute it again."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np

from evar.report.plots.confusion import count_confusions, score_classes
from evar.report.tables.layout import format_percent
from evar.results import Result, load_confidence, load_predictions
from evar.webpage.clips import name_classes
from evar.webpage.context import Context, name_row, round_number, to_percent, try_to_describe
from evar.webpage.page import Part, escape_json

#: the most bytes of JSON of all rows together, and the most rows of single layers
MOST_BYTES, MOST_LAYER_ROWS = 5_000_000, 300
MOST_CLASSES = 120
N_BINS = 10


def make_rows(context: Context) -> Part | None:
    """Make the part; None if there is no row.

    Rows of the main tables come first, then those of single layers, until the part holds as much as it may.

    Args:
        context: the results folder.
    """
    ordered: dict[str, tuple[Result, str]] = {}
    for sections in (context.sections, context.layer_sections):
        for section in sections:
            for row in section.rows:
                for cell in row.cells:
                    for result in cell.results if cell else ():
                        ordered.setdefault(result.id, (result, name_row(row)))
        if len(context.results) > MOST_LAYER_ROWS:
            break
    found: list[dict[str, Any]] = []
    n_bytes = 0
    for result, name in ordered.values():
        described = try_to_describe(f"row {result.id}", partial(describe_row, context, result, name))
        if described is None:
            continue
        n_bytes += len(escape_json(described))
        if n_bytes > MOST_BYTES:
            break
        found.append(described)
    if not found:
        return None
    n_others = len(context.results) - len(found)
    return Part("row", "One row", {"n_rows": len(found), "n_others": n_others}, {"rows": found})


def describe_row(context: Context, result: Result, name: str) -> dict[str, Any]:
    """Describe a row for the scripts.

    Args:
        context: the results folder.
        result: the row of one seed.
        name: what the tables call it.
    """
    seed = f", seed {result.seed}" if result.seed else ""
    limit = f" (limit {result.limit})" if result.limit else ""
    return {
        "id": result.id,
        "name": f"{name}{seed}",
        "task": f"{result.task}{limit}, {result.protocol}",
        "score": format_percent(result.score, _get_interval(result)),
        "command": f"evar rerun {context.out.name or 'results'}/runs/{result.id}.json",
        "facts": _list_facts(result),
        "settings": json.dumps(_list_settings(result), indent=1, ensure_ascii=False, default=str),
        "rounds": [
            [
                str(one.get("name", number + 1)),
                to_percent(one.get("score", result.round_scores[number])),
                *(one.get(key) for key in ("n_train", "n_valid", "n_test")),
                to_percent(one.get("valid_score")),
                one.get("strength"),
            ]
            for number, one in enumerate(result.rounds)
        ],
        **_describe_predictions(context, result),
    }


def _get_interval(result: Result) -> tuple[float, float] | None:
    return (result.interval[0], result.interval[1]) if result.interval is not None else None


def _list_facts(result: Result) -> list[list[str]]:
    """List what a reader wants to know first."""
    from evar.metrics.named import get_display_name

    chance = "" if result.chance is None else f", chance {100 * result.chance:.1f} %"
    chosen = result.params.get("chosen_strengths")
    return [
        ["Metric", f"{get_display_name(result.metric)}{chance}"],
        ["Weights", f"{result.weights} (sha256 {result.weights_sha256[:12]})"],
        ["Layers", f"{'+'.join(result.layers)}" + ("" if result.fusion == "none" else f", fused by {result.fusion}")],
        ["Pooling", ", ".join(dict.fromkeys(map(str, result.pooling.values())))],
        ["Clips", f"{result.n_train} to train, {result.n_valid} to validate, {result.n_test} tested over all rounds"],
        ["Width", f"{result.width} features a clip" if result.width else "unknown"],
        ["Chosen strengths", ", ".join(map(str, chosen)) if isinstance(chosen, list | tuple) else "none"],
        ["Other metrics", ", ".join(_describe_extra(result, name) for name in result.extras) or "none"],
        ["Flags", "; ".join(result.flags) or "none"],
        ["Clips that could not be used", str(len(result.skipped))],
        ["Computed", f"{result.created}, in {result.seconds:.1f} s"],
    ]


def _describe_extra(result: Result, name: str) -> str:
    """Write a further metric with its interval, where it has one."""
    ends = result.extra_intervals.get(name)
    return f"{name} {result.extras[name]:.4g}" + (f" ({ends[0]:.4g} to {ends[1]:.4g})" if ends else "")


def _list_settings(result: Result) -> dict[str, Any]:
    """Return everything that was requested and was in effect, without what stands elsewhere on the page."""
    settings = {
        key: value for key, value in result.settings.items() if key not in ("spec", "data_root", "store", "out")
    }
    return {
        "settings": settings,
        "params": dict(result.params),
        "extraction": dict(result.extraction),
        "encoder_options": dict(result.encoder_options),
        "index_sha256": result.index_sha256,
        "task_version": result.task_version,
        "seed": result.seed,
        "versions": dict(result.versions),
    }


def _describe_predictions(context: Context, result: Result) -> dict[str, Any]:
    """Describe confusions, scores of classes and calibration; nothing where predictions are not of classes."""
    try:
        found = load_predictions(context.out, result.id)
    except (OSError, ValueError) as error:
        return {"problem": f"The predictions of this row cannot be shown: {error}"}
    y_true, y_pred = found["y_true"], found["y_pred"]
    if y_true.ndim != 1 or y_true.dtype.kind not in "iu":
        return {"problem": "A confusion matrix needs one class a clip, and this task is of another kind."}
    classes = name_classes(context, result)
    n_classes = max(len(classes), int(y_true.max()) + 1, int(y_pred.max()) + 1)
    names = [*classes, *(f"class {number}" for number in range(len(classes), n_classes))]
    counts = count_confusions(y_true, y_pred, n_classes)
    described: dict[str, Any] = {
        "classes": [
            [one["class"], one["clips"], *(round_number(one[key], 4) for key in ("recall", "precision", "f1")),
             one["taken_for"], one["taken_for_clips"]]
            for one in score_classes(counts, names)
        ]
    }  # fmt: skip
    if n_classes <= MOST_CLASSES:
        rows, columns = np.nonzero(counts)
        described["confusions"] = np.stack([rows, columns, counts[rows, columns]], axis=1).tolist()
    confidence = load_confidence(context.out, result.id)
    if confidence is not None and len(confidence) == len(y_true):
        described["calibration"] = bin_confidence(confidence, y_true == y_pred)
    return described


def bin_confidence(confidence: np.ndarray, is_right: np.ndarray) -> list[list[float]]:
    """Compare how sure a row was with how often it was right, in bins of equal width.

    Args:
        confidence: (clips,) 0..1; NaN is left out.
        is_right: (clips,) truth values.

    Returns:
        For each bin that has clips: mean confidence and share of right ones, in percent, and number of clips.

    Example:
        >>> bin_confidence(np.array([0.95, 0.85, 0.99, np.nan]), np.array([True, False, True, True]))
        [[85.0, 0.0, 1], [97.0, 100.0, 2]]
    """
    known = ~np.isnan(confidence)
    values, right = confidence[known].astype(np.float64), is_right[known]
    number = np.minimum((values * N_BINS).astype(int), N_BINS - 1)
    return [
        [round(100 * float(values[own].mean()), 1), round(100 * float(right[own].mean()), 1), int(own.sum())]
        for own in (number == one for one in range(N_BINS))
        if own.any()
    ]
