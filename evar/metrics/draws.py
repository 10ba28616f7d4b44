"""Uncertainty of a score over draws of labelled clips and over test clips at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evar.metrics.intervals import bootstrap_many
from evar.metrics.named import METRICS


def resample_draws(
    metric: str, y_true: ArrayLike, y_preds: ArrayLike, groups: ArrayLike, rounds: ArrayLike, *, seed: int = 0
) -> NDArray[np.float64]:
    """Score every draw of labelled clips in bootstrap samples of the test clips, which all draws share.

    Args:
        metric: name in `METRICS`.
        y_true: (clips,) labels.
        y_preds: (draws, clips) predictions.
        groups, rounds: (clips,) group and round of each test clip; whole groups are drawn within each round.
        seed: of the samples: two encoders that were tested on the same clips share them.

    Returns:
        (draws, resamples) scores.

    Raises:
        ValueError: as `evar.metrics.bootstrap_many`.

    Example:
        >>> resample_draws("accuracy", [0, 1] * 8, [[0, 1] * 8, [1, 1] * 8], range(16), [0] * 16).shape
        (2, 2000)
    """
    return bootstrap_many(metric, y_true, y_preds, groups, rounds, n_resamples=METRICS[metric].n_resamples, seed=seed)


def weigh_draws(n_draws: int, n_resamples: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw the weights of draws in bootstrap samples of the draws.

    One draw fewer than there are is taken, with replacement, so that the variance of a mean over draws is estimated without
    bias.

    Args:
        n_draws: how many there are.
        n_resamples: bootstrap samples.
        seed: of the samples.

    Returns:
        (draws, resamples) weights, which sum to 1 in each sample; all 1 for a single draw.

    Source: Rao & Wu, "Resampling inference with complex survey data", J. Am. Stat. Assoc. 83 (1988).

    Example:
        >>> weights = weigh_draws(4, 1000)
        >>> weights.shape, bool(np.allclose(weights.sum(axis=0), 1)), weigh_draws(1, 2).tolist()
        ((4, 1000), True, [[1.0, 1.0]])
    """
    if n_draws == 1:
        return np.ones((1, n_resamples))
    generator = np.random.default_rng((seed, n_draws))
    counts = generator.multinomial(n_draws - 1, np.full(n_draws, 1 / n_draws), size=n_resamples)
    return counts.T / (n_draws - 1)


def average_draws(resampled: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Average over draws in bootstrap samples of both draws and test clips.

    Args:
        resampled: (draws, resamples) as `resample_draws` returns.
        seed: of the samples of draws.

    Returns:
        (resamples,) scores.

    Example:
        >>> average_draws(np.array([[0.5, 0.7]])).tolist()
        [0.5, 0.7]
    """
    return (weigh_draws(resampled.shape[0], resampled.shape[1], seed) * resampled).sum(axis=0)


def measure_draws(
    metric: str, y_true: ArrayLike, y_preds: ArrayLike, groups: ArrayLike, rounds: ArrayLike
) -> tuple[NDArray[np.float64], tuple[float, float], tuple[float, float]]:
    """Score every draw of labelled clips, and estimate the intervals of `estimate_draw_intervals`.

    Args:
        metric, y_true, y_preds, groups, rounds: as in `resample_draws`.

    Returns:
        (draws,) scores, means over rounds; (low, high) of their mean; (low, high) of a single draw.

    Raises:
        ValueError: as `evar.metrics.bootstrap_many`.

    Example:
        >>> scores, mean, single = measure_draws("accuracy", [0, 1] * 8, [[0, 1] * 8, [1, 1] * 8], range(16), [0] * 16)
        >>> scores.tolist(), mean[0] >= single[0]
        ([1.0, 0.5], True)
    """
    true, predicted, round_of = np.asarray(y_true), np.asarray(y_preds), np.asarray(rounds)
    of_rounds = [
        [METRICS[metric].function(true[round_of == at], row[round_of == at]) for row in predicted]
        for at in np.unique(round_of)
    ]
    scores = np.mean(of_rounds, axis=0)
    resampled = resample_draws(metric, true, predicted, groups, round_of)
    return scores, *estimate_draw_intervals(metric, scores, resampled)


def estimate_draw_intervals(
    metric: str, scores: ArrayLike, resampled: NDArray[np.float64], *, level: float = 0.95
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Estimate two intervals: of the mean over draws, and of the score of a single draw.

    The first is over draws and test clips, and shrinks with more of either. The second says what one further draw, such as a
    user's own clips, may score on these or other test clips; more draws do not shrink it.

    Args:
        metric: name in `METRICS`.
        scores: (draws,) on the test clips themselves.
        resampled: (draws, resamples) as `resample_draws` returns.
        level: coverage, strictly between 0 and 1.

    Returns:
        (low, high) of the mean, and (low, high) of a single draw; the metric's whole range where no round has two groups.

    Example:
        >>> resampled = resample_draws("accuracy", [0, 1] * 8, [[0, 1] * 8, [1, 1] * 8], range(16), [0] * 16)
        >>> mean, single = estimate_draw_intervals("accuracy", [1.0, 0.5], resampled)
        >>> mean[0] >= single[0], mean[1] <= single[1]
        (True, True)
    """
    least, most = METRICS[metric].bounds
    if not np.isfinite(resampled).any():
        return (least, most), (least, most)
    tail = (1 - level) / 2
    bias = 0.0 if METRICS[metric].is_mean else float(np.nanmean(resampled) - np.mean(np.asarray(scores)))
    found = []
    for values in (average_draws(resampled), resampled.ravel()):
        low, high = np.nanquantile(values, [tail, 1 - tail]) - bias
        found.append((float(min(max(low, least), most)), float(min(max(high, least), most))))
    return found[0], found[1]
