"""Metrics that users write: their promises, the checks of these promises, and how a metric becomes known by name.

A task's YAML names it, `metric: path/to/my_metric.py:TOP_HALF` or `metric: my_package.module:TOP_HALF`, and the name
leads to a `Metric`. The promises are:

1. It is a `Metric` of the task's kind, with bounds (0, 1), and higher is better: tables show percent and average.
2. `function(y_true, y_pred)` returns one finite number within the bounds, and the same one at every call.
3. A perfect prediction scores 1.
4. Clips that could not be read are never right and stop nothing: class -1, or the score -inf for every label.
5. It changes neither input, and raises ValueError if the two differ in length.
6. `chance`, where given, is a number within the bounds, or a function that returns one.
7. `resampled`, where given, agrees with `function` if every clip is drawn once. Where it is not given, intervals call
   `function` for each of 200 bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.metrics.named import KINDS, METRICS, Metric
from evar.metrics.resampling import resample_function

#: bootstrap samples of an own metric that does not say how several are scored at once
_SLOW_RESAMPLES = 200
_N_CLIPS, _N_CLASSES = 60, 5


def check_metric(metric: object) -> list[str]:
    """Try an own metric, and return one sentence for each promise that it breaks.

    Args:
        metric: what "module:name" leads to.

    Returns:
        Sentences; empty if every promise is kept.

    Example:
        >>> check_metric(METRICS["accuracy"])
        []
        >>> for sentence in check_metric(Metric(lambda y_true, y_pred: 2 * METRICS["accuracy"].function(y_true, y_pred))):
        ...     print(sentence)
        a perfect prediction must score 1, got 2
    """
    if not isinstance(metric, Metric):
        return [
            f"it must be an evar.metrics.Metric, got {type(metric).__name__}; write NAME = Metric(your_function, kind=...)"
        ]
    if metric.kind not in KINDS:
        return [f"kind must be {', '.join(KINDS)}, got {metric.kind!r}"]
    found = []
    if metric.bounds != (0.0, 1.0) or not metric.higher_is_better:
        found.append(
            "bounds must be (0.0, 1.0) and higher_is_better True, so that tables can show percent, got "
            f"{metric.bounds} and {metric.higher_is_better}"
        )
    return found + [sentence for check in _CHECKS for sentence in _run_check(check, metric)]


def register_metric(name: str, metric: object, source_sha256: str = "") -> Metric:
    """Check an own metric and make it known under its name.

    Args:
        name: "module:name" or "path/to/file.py:name", as the task's YAML says it.
        metric: the object that the name leads to.
        source_sha256: tells the metric's source; results of another source are not mixed with those of this one.

    Returns:
        The metric as `METRICS[name]` holds it.

    Raises:
        ValueError: if a promise is broken; all of them are named.

    Example:
        >>> found = register_metric("my_metric:HALF", Metric(METRICS["accuracy"].function, chance=0.5))
        >>> found.display_name, found.n_resamples, METRICS.pop("my_metric:HALF") is found
        ('HALF', 200, True)
    """
    broken = check_metric(metric)
    if broken or not isinstance(metric, Metric):
        raise ValueError(f"metric {name} breaks {len(broken)} promise(s): {'; '.join(broken)}")
    n_resamples = metric.n_resamples if metric.resampled else min(metric.n_resamples, _SLOW_RESAMPLES)
    METRICS[name] = replace(
        metric,
        resampled=metric.resampled or resample_function(metric.function),
        n_resamples=n_resamples,
        display_name=metric.display_name or name.rpartition(":")[2],
        is_default=False,
        source_sha256=source_sha256,
    )
    return METRICS[name]


def _run_check(check: Callable[[Metric], Iterator[str]], metric: Metric) -> list[str]:
    try:
        return list(check(metric))
    except (
        Exception
    ) as error:  # any error of a user's function is a broken promise, and the other promises are still checked
        what = (check.__doc__ or "").strip().rstrip(".")
        return [f"{what} raised {type(error).__name__}: {error}"]


def _make_labels(kind: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Labels, a perfect prediction and a random one, all of one shape."""
    rng = np.random.default_rng(0)
    if kind == "multiclass":
        y_true = np.arange(_N_CLIPS) % _N_CLASSES
        return y_true, y_true.copy(), rng.integers(0, _N_CLASSES, _N_CLIPS)
    if kind == "multilabel":
        y_true = (rng.random((_N_CLIPS, _N_CLASSES)) < 0.3).astype(np.uint8)
        y_true[0], y_true[1] = 1, 0
        return y_true, y_true.astype(np.float32), rng.normal(size=y_true.shape).astype(np.float32)
    if kind == "regression":
        values = rng.normal(size=_N_CLIPS)
        return values, values.copy(), rng.normal(size=_N_CLIPS)
    if kind == "captions":
        y_true = np.ones((_N_CLIPS, 4), np.uint8)
        worse = rng.integers(2, _N_CLIPS, y_true.shape).astype(np.float64)
        return y_true, np.tile([1.0, 1.0, 1.0, 2.0], (_N_CLIPS, 1)), worse
    n_true, n_active = rng.integers(1, 9, _N_CLIPS), rng.integers(1, 9, _N_CLIPS)
    zeros = np.zeros(_N_CLIPS, np.int64)
    n_right = rng.integers(0, n_true + 1)
    return (
        np.stack([n_true, zeros, n_active], axis=1),
        np.stack([n_true, n_true, zeros], axis=1),
        np.stack([n_right, n_true, rng.integers(0, n_active + 1)], axis=1),
    )


def _check_scores(metric: Metric) -> Iterator[str]:
    """The score of a random prediction."""
    y_true, _, y_pred = _make_labels(metric.kind)
    kept = y_true.copy(), y_pred.copy()
    scores: list[Any] = [metric.function(y_true, y_pred) for _ in range(2)]
    first, second = scores
    is_number = bool(np.isscalar(first))
    if not is_number or not np.isfinite(float(first)):
        yield f"the score must be one finite number, got {first!r}"
        return
    if not 0 <= float(first) <= 1:
        yield f"the score of a random prediction must lie in 0..1, got {float(first):g}"
    if first != second:
        yield f"the same labels must give the same score, got {float(first):g} and then {float(second):g}"
    if not (np.array_equal(kept[0], y_true) and np.array_equal(kept[1], y_pred)):
        yield "y_true and y_pred must stay as they are, but it changed one of them"


def _check_perfect(metric: Metric) -> Iterator[str]:
    """The score of a perfect prediction."""
    y_true, perfect, _ = _make_labels(metric.kind)
    score = float(metric.function(y_true, perfect))
    if abs(score - 1) > 1e-9:
        yield f"a perfect prediction must score 1, got {score:g}"


def _check_unreadable(metric: Metric) -> Iterator[str]:
    """The score where clips could not be read."""
    y_true, perfect, _ = _make_labels(metric.kind)
    if metric.kind not in ("multiclass", "multilabel"):
        return
    unread = perfect.copy()
    unread[: _N_CLIPS // 2] = -1 if metric.kind == "multiclass" else -np.inf
    score = float(metric.function(y_true, unread))
    if not score < float(metric.function(y_true, perfect)):
        yield f"clips that could not be read (class -1, scores -inf) must count as wrong, but the score stays {score:g}"


def _check_lengths(metric: Metric) -> Iterator[str]:
    """Labels of different lengths."""
    y_true, perfect, _ = _make_labels(metric.kind)
    try:
        score = metric.function(y_true, perfect[:-1])
    except ValueError:
        return
    yield f"labels of different lengths must raise ValueError, but it returned {score}"


def _check_chance(metric: Metric) -> Iterator[str]:
    """The chance level."""
    y_true, _, _ = _make_labels(metric.kind)
    n_classes = 0 if metric.kind == "regression" else _N_CLASSES
    chance = metric.chance(y_true, n_classes) if callable(metric.chance) else metric.chance
    if chance is not None and not 0 <= float(chance) <= 1:
        yield f"chance must lie in 0..1, got {chance}"


def _check_resampled(metric: Metric) -> Iterator[str]:
    """The bootstrap."""
    if metric.resampled is None:
        return
    y_true, _, y_pred = _make_labels(metric.kind)
    each_once = np.ones((2, _N_CLIPS), np.int64)
    found = np.asarray(metric.resampled(y_true, y_pred, np.arange(_N_CLIPS), each_once))
    score = float(metric.function(y_true, y_pred))
    if found.shape != (2,) or np.abs(found - score).max() > 1e-6:
        yield f"resampled must give the score {score:g} twice if every clip is drawn once, got {found.tolist()}"


_CHECKS = (_check_scores, _check_perfect, _check_unreadable, _check_lengths, _check_chance, _check_resampled)
