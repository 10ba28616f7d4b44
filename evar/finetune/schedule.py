"""Random numbers and learning rates that depend on the place in a training alone, so that it can go on from any step."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from evar.finetune.protocol import TuningProtocol


def seed_generator(*what: object) -> torch.Generator:
    """Return a generator whose numbers depend on these things alone.

    Example:
        >>> draws = [torch.rand(1, generator=seed_generator(0, "order", 3)).item() for _ in range(2)]
        >>> draws[0] == draws[1]
        True
    """
    digest = hashlib.sha256(" ".join(map(str, what)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def learning_rate(peak: float, step: int, per_epoch: int, protocol: TuningProtocol) -> float:
    """Return the rate of a step, counted from 0: linear from 0 over the warm-up, then along half a cosine.

    Args:
        peak: highest rate.
        step: of the whole training.
        per_epoch: steps of an epoch.
        protocol: epochs, warmup_epochs, min_learning_rate.
    """
    warm, whole = protocol.warmup_epochs * per_epoch, protocol.epochs * per_epoch
    if step < warm:
        return peak * (step + 1) / warm
    share = min(1.0, (step - warm) / max(1, whole - warm))
    least = protocol.min_learning_rate
    return peak * (least + (1 - least) * 0.5 * (1 + math.cos(math.pi * share)))
