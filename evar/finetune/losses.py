"""Losses of fine-tuning, clip by clip, with label smoothing and weights of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.finetune.protocol import TuningProtocol


def compute_losses(
    outputs: Tensor,
    targets: Tensor,
    protocol: TuningProtocol,
    kind: str,
    class_weights: Tensor | None = None,
    *,
    is_training: bool,
) -> Tensor:
    """Return (batch,) the loss of each clip: cross-entropy, binary cross-entropy over labels, or squared error.

    Args:
        outputs: (batch, outputs) of the network.
        targets: (batch, outputs) shares of classes, labels, or standardised numbers.
        protocol: label_smoothing and loss_over_classes.
        kind: "multiclass", "multilabel" or "regression".
        class_weights: (outputs,), or None.
        is_training: whether labels are smoothed; validation is without.
    """
    outputs = outputs.float()
    n = outputs.shape[1]
    smooth = protocol.label_smoothing if is_training else 0.0
    weights = 1.0 if class_weights is None else class_weights.to(outputs.device)
    if kind == "multiclass":
        smoothed = targets * (1 - smooth) + smooth / n
        losses = -(weights * smoothed * torch.log_softmax(outputs, dim=1)).sum(dim=1)
    elif kind == "multilabel":
        smoothed = targets * (1 - smooth) + 0.5 * smooth
        losses = torch.nn.functional.binary_cross_entropy_with_logits(outputs, smoothed, reduction="none")
        losses = (weights * losses).sum(dim=1)
    else:
        losses = (outputs - targets).square().sum(dim=1)
    return losses / n if protocol.loss_over_classes or kind == "multilabel" else losses


def weigh_classes(y: NDArray[Any], kind: str, n_outputs: int) -> Tensor:
    """Return (outputs,) the inverse frequency of each class in the training clips, with mean 1.

    Args:
        y: (clips,) class numbers, or (clips, labels) of 0 and 1.
        kind: "multiclass" or "multilabel".
        n_outputs: classes or labels.

    Raises:
        ValueError: if the labels are numbers.

    Example:
        >>> weigh_classes(np.array([0, 0, 1]), "multiclass", 2).tolist()
        [0.6666666865348816, 1.3333333730697632]
    """
    if kind == "regression":
        raise ValueError("class_weights need classes, but the task's labels are numbers")
    counts = np.bincount(y, minlength=n_outputs) if kind == "multiclass" else y.sum(axis=0)
    inverse = 1 / np.maximum(counts, 1)
    return torch.from_numpy((inverse / inverse.mean()).astype(np.float32))
