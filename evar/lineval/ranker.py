"""Rank sets of layers quickly, with small problems in place of full fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from evar.experiment.targets import make_targets, read_outputs
from evar.metrics import METRICS
from evar.numeric.axes import principal_axes, standardisation

#: components of a layer that the ranker sees; ridge penalties that it tries, times the number of training clips
N_COMPONENTS = 128


PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


MAX_LAYERS = 4


#: positions of layers, ascending: a candidate
Layers = tuple[int, ...]


@dataclass(frozen=True)
class SearchRound:
    """One round of one task, without its test clips.

    Attributes:
        task: name.
        name: of the round.
        is_fold: do other rounds of the task test on this round's validation clips?
        y_train, y_valid: labels as in `evar.data.task.Task.y`.
        layer: position of a layer -> its vectors (training clips, width) and (validation clips, width).
        metric: name in `METRICS`.
    """

    task: str
    name: str
    is_fold: bool
    y_train: NDArray[Any]
    y_valid: NDArray[Any]
    layer: Callable[[int], tuple[NDArray[np.float32], NDArray[np.float32]]]
    metric: str = "accuracy"


class Ranker:
    """Ridge classification of one round from any set of layers, at a cost that does not depend on the clips.

    Args:
        a_round: its vectors are read once, layer by layer.
        n_layers: how many layers there are.
        n_components: of each layer.

    Source: ridge regression on class indicators, as in Hastie, Tibshirani & Friedman, "The Elements of Statistical
        Learning" (2009), sections 3.4.1 and 4.2.
    """

    def __init__(self, a_round: SearchRound, n_layers: int, n_components: int = N_COMPONENTS) -> None:
        train, valid, self._columns = [], [], []
        start = 0
        for layer in range(n_layers):
            fitted, checked = _project(*a_round.layer(layer), n_components)
            train.append(fitted)
            valid.append(checked)
            self._columns.append(np.arange(start, start + fitted.shape[1]))
            start += fitted.shape[1]
        self._valid = np.concatenate(valid, axis=1)  # (validation clips, components of all layers)
        joined = np.concatenate(train, axis=1)
        self._gram = joined.T @ joined
        # Among fewer clips than components, the same ridge is solved from the clips' inner products, which add up.
        is_few = len(joined) < MAX_LAYERS * n_components
        self._of_clips = (
            [(own @ own.T, other @ own.T) for own, other in zip(train, valid, strict=True)] if is_few else []
        )
        self._metric, y = METRICS[a_round.metric], a_round.y_train
        kind = self._metric.kind
        self.classes = np.unique(y) if kind == "multiclass" else np.arange(y[0].size)
        numbers = np.searchsorted(self.classes, y) if kind == "multiclass" else y
        targets = make_targets(numbers, kind, len(self.classes))
        self._shares = targets.mean(axis=0)
        self._centred = targets - self._shares  # (clips, classes)
        self._targets = joined.T @ self._centred  # (components, classes)
        self._n_clips, self._y_valid = len(joined), a_round.y_valid

    def score(self, layers: Layers) -> float:
        """Best validation score over the penalties."""
        columns = np.concatenate([self._columns[layer] for layer in layers])
        if not len(columns):
            return float(self._metric.function(self._y_valid, self._read(np.tile(self._shares, (len(self._valid), 1)))))
        if self._of_clips and len(columns) > self._n_clips:
            own, others = zip(*(self._of_clips[layer] for layer in layers), strict=True)
            gram, targets, valid = np.sum(own, axis=0), self._centred, np.sum(others, axis=0)
        else:
            gram, targets, valid = self._gram[np.ix_(columns, columns)], self._targets[columns], self._valid[:, columns]
        scores = []
        for penalty in PENALTIES:
            system = gram.copy()
            # A standardised feature has variance 1, so that inner products grow with the number of clips.
            system.flat[:: len(system) + 1] += penalty * self._n_clips
            _, coefficients, failed = dposv(system, targets, lower=1)  # Cholesky
            if not failed:
                predicted = self._read(valid @ coefficients + self._shares)
                scores.append(self._metric.function(self._y_valid, predicted))
        return float(max(self._metric.orient(score) for score in scores))

    def _read(self, outputs: NDArray[np.float64]) -> NDArray[Any]:
        """(clips, classes) outputs as the metric takes them: classes, scores of labels, or values."""
        read = read_outputs(outputs, self._metric.kind)
        return self.classes[read] if self._metric.kind == "multiclass" else read


def _project(
    train: NDArray[np.float32], valid: NDArray[np.float32], n_components: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standardised over the training clips, then their first principal components: (clips, width) -> (clips, fewer)."""
    mean, scale = standardisation(train)
    varies = scale > 0
    fitted, checked = ((part[:, varies] - mean[varies]) / scale[varies] for part in (train, valid))
    axes = principal_axes(fitted)[:, :n_components]
    return fitted @ axes, checked @ axes
