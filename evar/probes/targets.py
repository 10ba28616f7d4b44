"""Labels as networks see them: class numbers, rows of 0 and 1, or standardised numbers; and back again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from evar.config.registry import near_miss
from evar.metrics import METRICS
from evar.probes.checks import check_classes, check_labels, check_numbers
from evar.probes.choosing import BestEpoch, choose_setting

#: class number of a validation clip whose class no training clip has: an error of every network
UNKNOWN = -1


@dataclass(eq=False)
class Targets:
    """Labels of training and validation clips.

    Attributes:
        metric: name in `evar.metrics.METRICS`; it decides the kind of the labels.
        classes: (classes,) labels, sorted; columns where a clip has several; None for numbers.
        n_outputs: of a network.
        train: (clips,) int64 class numbers, or (clips, outputs) float32.
        valid: (clips,) class numbers or UNKNOWN, (clips, labels) of 0 and 1, or (clips,) standardised numbers.
        centre, spread: of the training numbers; 0 and 1 for other kinds.

    Example:
        >>> targets = Targets.of("accuracy", ["b", "a", "b"], 3, ["a", "c"], 2)
        >>> targets.train.tolist(), targets.valid.tolist()
        ([1, 0, 1], [0, -1])
    """

    metric: str
    classes: NDArray[Any] | None
    n_outputs: int
    train: Tensor
    valid: NDArray[Any]
    centre: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, metric: str, y: Any, n_clips: int, y_valid: Any, n_valid: int) -> Targets:
        """Check labels and number them.

        Args:
            metric: name in `evar.metrics.METRICS`.
            y, y_valid: (clips,) classes, (clips, labels) of 0 and 1, or (clips,) numbers, as the metric's kind says.
            n_clips, n_valid: how many there must be of each.

        Raises:
            ValueError: if they are of another shape or kind, or the training clips are all of one class.

        Example:
            >>> targets = Targets.of("pearson", [1.0, 3.0], 2, [2.0], 1)
            >>> targets.centre, targets.spread, targets.valid.tolist()
            (2.0, 1.0, [0.0])
        """
        kind, pairs = METRICS[metric].kind, ((y, n_clips, "training"), (y_valid, n_valid, "validation"))
        if kind == "multiclass":
            labels, valid = (check_classes(*pair) for pair in pairs)
            classes = np.unique(labels)
            if len(classes) < 2:
                raise ValueError(f"a probe needs training clips of at least 2 classes, got one class, {labels[0]!r}")
            train = torch.from_numpy(np.searchsorted(classes, labels).astype(np.int64))
            numbers = np.searchsorted(classes, valid).clip(max=len(classes) - 1)
            return cls(metric, classes, len(classes), train, np.where(classes[numbers] == valid, numbers, UNKNOWN))
        checked = check_labels if kind == "multilabel" else check_numbers
        labels, valid = (checked(*pair) for pair in pairs)
        if kind == "multilabel":
            n_labels = labels.shape[1]
            return cls(metric, np.arange(n_labels), n_labels, torch.from_numpy(labels.astype(np.float32)), valid)
        centre, spread = float(labels.mean()), float(labels.std()) or 1.0
        train = torch.from_numpy(((labels - centre) / spread).astype(np.float32))[:, None]
        return cls(metric, None, 1, train, (valid - centre) / spread, centre, spread)

    @property
    def kind(self) -> str:
        """Return the kind of the labels: "multiclass", "multilabel" or "regression".

        Example:
            >>> Targets.of("accuracy", [0, 1], 2, [0], 1).kind
            'multiclass'
        """
        return METRICS[self.metric].kind

    def score_outputs(self, outputs: Tensor) -> tuple[float, float]:
        """Score a network's outputs for the validation clips.

        Args:
            outputs: (clips, outputs) before softmax or sigmoid.

        Returns:
            Score by the metric, and mean loss a clip in nats; the worst score and infinity if an output is not finite.

        Example:
            >>> targets = Targets.of("accuracy", [0, 1], 2, [0, 1], 2)
            >>> score, loss = targets.score_outputs(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
            >>> score, round(loss, 3)
            (1.0, 0.127)
        """
        if not bool(torch.isfinite(outputs).all()):
            return METRICS[self.metric].worst, math.inf
        function = METRICS[self.metric].function
        if self.kind == "multiclass":
            known = self.valid != UNKNOWN
            known_classes = torch.from_numpy(np.where(known, self.valid, 0))
            losses = clip_losses(outputs, known_classes, self.kind)[torch.from_numpy(known)]
            score = function(self.valid, outputs.argmax(dim=1).numpy())
        elif self.kind == "multilabel":
            losses = clip_losses(outputs, torch.from_numpy(self.valid.astype(np.float32)), self.kind)
            score = function(self.valid, outputs.numpy()) if self.valid.any() else 0.0
        else:  # a correlation does not ask for the unit, which these labels are standardised by
            losses = clip_losses(outputs, torch.from_numpy(self.valid.astype(np.float32))[:, None], self.kind)
            score = function(self.valid, outputs[:, 0].numpy())
        return float(score), float(losses.mean()) if len(losses) else 0.0

    def predict(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Turn outputs into predictions.

        Args:
            outputs: (clips, outputs) before softmax or sigmoid.

        Returns:
            Classes (clips,), labels (clips, labels) that are more likely than not, or numbers (clips,).

        Example:
            >>> Targets.of("accuracy", ["a", "b"], 2, ["a"], 1).predict(np.array([[0.1, 0.9]])).tolist()
            ['b']
        """
        if self.kind == "regression":
            return self.centre + self.spread * outputs[:, 0]
        assert self.classes is not None
        return self.classes[outputs.argmax(axis=1)] if self.kind == "multiclass" else (outputs > 0).astype(np.uint8)

    def probabilities(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Turn outputs into probabilities by the softmax, or the sigmoid for several labels a clip.

        Args:
            outputs: (clips, classes) before softmax or sigmoid.

        Returns:
            (clips, classes) in 0..1.

        Example:
            >>> Targets.of("accuracy", [0, 1], 2, [0], 1).probabilities(np.array([[0.0, 0.0]])).tolist()
            [[0.5, 0.5]]
        """
        given = torch.from_numpy(outputs)
        return (torch.softmax(given, 1) if self.kind == "multiclass" else given.sigmoid()).numpy()


def clip_losses(outputs: Tensor, targets: Tensor, kind: str) -> Tensor:
    """Compute the loss of each clip, summed over outputs.

    It is the cross-entropy of the softmax for one class a clip, the binary cross-entropy of the sigmoids for several labels,
    and the squared error for numbers.

    Args:
        outputs: (..., clips, outputs).
        targets: (..., clips) class numbers, or (..., clips, outputs) labels of 0 and 1 or numbers.
        kind: "multiclass", "multilabel" or "regression".

    Returns:
        (..., clips), in nats or squared units.

    Example:
        >>> clip_losses(torch.zeros(1, 4), torch.tensor([2]), "multiclass").round(decimals=3)
        tensor([1.3860])
    """
    functional = torch.nn.functional
    if kind == "multiclass":
        return functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)
    if kind == "multilabel":
        return functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none").sum(dim=-1)
    return (outputs - targets).square().sum(dim=-1)


class HasBestEpoch(Protocol):
    """A network that was trained at some learning rate, and the epoch of its best weights."""

    learning_rate: float
    best: BestEpoch


class TrainedProbe(BaseEstimator):
    """Base of probes that are trained by gradient steps: several networks at once, compared on validation clips.

    `evar.probes.network.NetworkProbe` reads one vector a clip, `evar.probes.attentive.AttentiveProbe` frames.
    """

    metric: str
    refit: str
    learning_rates: Sequence[float]
    device: str
    _targets: Targets

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return outputs before softmax or sigmoid.

        Args:
            X: (clips, width) vectors, or frames, as in `fit`.

        Returns:
            (clips, classes), or (clips, 1) for numbers.
        """
        raise NotImplementedError

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class or label.

        Args:
            X: as for `decision_function`.

        Returns:
            (clips, classes) in 0..1.
        """
        return self._targets.probabilities(self.decision_function(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the label of each clip.

        Args:
            X: as for `decision_function`.

        Returns:
            Classes (clips,), labels (clips, labels) that are more likely than not, or numbers (clips,).
        """
        return self._targets.predict(self.decision_function(X))

    def score(self, X: Any, y: Any) -> float:
        """Score the predictions of some clips by the metric.

        Args:
            X: as for `decision_function`.
            y: labels, as in `fit`.
        """
        is_ranked = METRICS[self.metric].kind == "multilabel"
        return METRICS[self.metric].function(y, self.decision_function(X) if is_ranked else self.predict(X))

    def _check_training(self) -> None:
        """Raises ValueError unless the settings that all these probes have are legal."""
        if self.metric not in METRICS:
            raise ValueError(f"no metric {self.metric!r}; {near_miss(self.metric, METRICS)}")
        if self.refit != "train":
            raise ValueError(f"refit must be train where validation clips stop the training, got {self.refit!r}")
        if not len(self.learning_rates) or not all(0 < rate < math.inf for rate in self.learning_rates):
            raise ValueError(f"learning_rates must be one or more positive numbers, got {self.learning_rates!r}")

    def _learn_targets(self, y: Any, n_clips: int, y_valid: Any, n_valid: int) -> None:
        """Number the labels; sets `classes_` where they are classes."""
        self._targets = Targets.of(self.metric, y, n_clips, y_valid, n_valid)
        if self._targets.classes is not None:
            self.classes_ = self._targets.classes

    def place(self) -> torch.device:
        """Return the device to train on; "auto" takes a GPU if the machine has one.

        Example:
            >>> from evar.probes.network import NetworkProbe
            >>> NetworkProbe(device="cpu").place()
            device(type='cpu')
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def _best(self, networks: Sequence[AnyNetwork]) -> AnyNetwork:
        """Return the network with the best validation score (ties: smaller loss); sets the attributes of the choice."""
        scores, losses = [one.best.score for one in networks], [one.best.loss for one in networks]
        best = networks[choose_setting(self.metric, scores, losses)]
        if not math.isfinite(best.best.loss):
            raise ValueError("the training diverged: no validation loss is finite; is the learning rate too large?")
        self.valid_scores_ = np.array(scores)
        self.valid_score_, self.valid_log_loss_ = best.best.score, best.best.loss
        rates = [float(rate) for rate in self.learning_rates]
        self.on_grid_edge_ = len(rates) > 1 and best.learning_rate in (min(rates), max(rates))
        return best


AnyNetwork = TypeVar("AnyNetwork", bound=HasBestEpoch)
