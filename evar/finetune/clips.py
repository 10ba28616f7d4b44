"""Input and output of a training: labelled clips, and the network with the weights of its best epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evar.metrics import METRICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evar.finetune.network import Network
    from evar.finetune.waveforms import Waveforms


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what helps."""


@dataclass
class Clips:
    """Labelled clips of one round, test clips left out.

    Attributes:
        waveforms: of the task.
        train, valid: positions of usable clips.
        y: labels of all clips of the task, as `evar.data.task.Task.y`.
        metric: the task's.
        n_outputs: classes, labels, or 1.
    """

    waveforms: Waveforms
    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    y: NDArray[Any]
    metric: str
    n_outputs: int

    @property
    def kind(self) -> str:
        """Of the task."""
        return METRICS[self.metric].kind


@dataclass
class Trained:
    """Result of a training.

    Attributes:
        network: with the weights of the best epoch.
        best_epoch: counted from 1.
        valid_score, valid_loss: of it.
        history: one dict an epoch: epoch, learning_rate, train_loss, valid_loss, valid_score, clips_per_second.
        stopped_early: whether validation ended it.
        centre, spread: that the labels of a regression task were standardised by.
        peak_memory: bytes of the device, 0 where unknown.
    """

    network: Network
    best_epoch: int = 0
    valid_score: float = -math.inf
    valid_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    stopped_early: bool = False
    centre: float = 0.0
    spread: float = 1.0
    peak_memory: int = 0
