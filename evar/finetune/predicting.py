"""Outputs of a network for clips at the head of their files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.finetune.network import Network
    from evar.finetune.waveforms import Waveforms


@torch.no_grad()
def predict_outputs(
    network: Network, waveforms: Waveforms, clips: Sequence[int] | NDArray[np.int64], batch_size: int
) -> NDArray[np.float32]:
    """Return (clips, outputs) for clips at the head of their files, in their order.

    Encoders whose vectors depend on padding get batches of equal length.
    """
    was_training = network.training
    network.eval()
    order = sorted(range(len(clips)), key=lambda at: int(waveforms.starts[clips[at] + 1] - waveforms.starts[clips[at]]))
    found = np.zeros((len(clips), network.head.out_features), np.float32)
    at = 0
    while at < len(order):
        chosen = order[at : at + batch_size]
        waveform, lengths = waveforms.batch([int(clips[one]) for one in chosen])
        if not network.encoder.batch_invariant:
            n_equal = int((lengths == lengths[0]).cumprod(0).sum())
            chosen = chosen[:n_equal]
            waveform, lengths = waveforms.batch([int(clips[one]) for one in chosen])
        found[chosen] = network(waveform.to(next(network.parameters()).device), lengths).float().cpu().numpy()
        at += len(chosen)
    network.train(was_training)
    return found
