"""A pooling of your own: the mean of the quarter of the frames that are strongest, for sounds that are short events.

Name it in the YAML of an encoder, in the `pooling` of a `LayerInfo`, or on the command line:

    pooling: examples/my_pooling.py:mean_of_strongest     (in config/encoders/NAME.yaml)
    evar embed cnn14.16k sounds/ -o vectors.npz --pooling=examples/my_pooling.py:mean_of_strongest

`evar.encoders.pooling` says what a pooling must keep. A broken promise is named when the pooling is first used.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_of_strongest(features: Tensor, lengths: Tensor) -> Tensor:
    """Average the quarter of a clip's frames that have the largest norms, at least one frame.

    Args:
        features: (batch, time, feature).
        lengths: (batch,) valid frames, each in 1..time.

    Returns:
        (batch, feature).
    """
    lengths = lengths.to(features.device)
    n_kept = -(-lengths // 4)  # (batch,) rounded up
    time = torch.arange(features.shape[1], device=features.device)
    strength = features.norm(dim=2).masked_fill(time[None, :] >= lengths[:, None], -1.0)  # (batch, time)
    rank = strength.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # (batch, time), 0 is the strongest
    kept = (rank < n_kept[:, None]).to(features)  # (batch, time)
    return (features * kept[:, :, None]).sum(dim=1) / n_kept[:, None].to(features)
