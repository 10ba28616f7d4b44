"""Pooling over time: (batch, time, feature) and valid frame counts -> (batch, feature').

Pure functions. The name in a `LayerInfo` or in YAML is the function's name; `POOLINGS` lists them with the factor by
which they widen a layer. Frames beyond a clip's length never reach its vector.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from evar.config.registry import near_miss


def _mask(features: Tensor, lengths: Tensor) -> Tensor | None:
    """(batch, time, 1) True at valid frames, or None where every frame is valid (the common, faster case)."""
    n_frames = features.shape[1]
    if lengths.shape != features.shape[:1]:
        raise ValueError(f"lengths must be {features.shape[0]} values, got shape {tuple(lengths.shape)}")
    if bool((lengths < 1).any()) or bool((lengths > n_frames).any()):
        raise ValueError(
            f"lengths must be {features.shape[0]} values in 1..{n_frames}, got {lengths.tolist()[:8]}; "
            "are they in samples instead of frames?"
        )
    if bool((lengths == n_frames).all()):
        return None
    time = torch.arange(n_frames, device=features.device)
    return (time[None, :] < lengths[:, None].to(features.device))[:, :, None]


def mean(features: Tensor, lengths: Tensor) -> Tensor:
    """Average the valid frames.

    Args:
        features: (batch, time, feature).
        lengths: (batch,) valid frames, each in 1..time.

    Returns:
        (batch, feature).

    Raises:
        ValueError: if a length is outside 1..time.

    Example:
        >>> mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[2.0]]
    """
    mask = _mask(features, lengths)
    if mask is None:
        return features.mean(dim=1)
    total = features.masked_fill(~mask, 0.0).sum(dim=1)  # (batch, feature)
    return total / lengths[:, None].to(total)


def max(features: Tensor, lengths: Tensor) -> Tensor:
    """Largest value of each feature over the valid frames. Shapes and errors as in `mean`.

    Example:
        >>> max(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[3.0]]
    """
    mask = _mask(features, lengths)
    return features.amax(dim=1) if mask is None else features.masked_fill(~mask, -torch.inf).amax(dim=1)


def mean_plus_max(features: Tensor, lengths: Tensor) -> Tensor:
    """Elementwise SUM of mean and max over time (the papers' "mean_max"): the width does not change.

    Source: EVAR and BYOL-A pool this way (Niizumi et al., "BYOL for Audio", IJCNN 2021, section III-B).

    Example:
        >>> mean_plus_max(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[5.0]]
    """
    return mean(features, lengths) + max(features, lengths)


def mean_std(features: Tensor, lengths: Tensor) -> Tensor:
    """Mean and population standard deviation over time, concatenated: the width doubles.

    Returns:
        (batch, 2 x feature): all means, then all standard deviations. A clip of one frame has deviation 0.

    Example:
        >>> mean_std(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[2.0, 1.0]]
    """
    mask = _mask(features, lengths)
    centre = mean(features, lengths)
    deviation = features - centre[:, None, :]
    if mask is not None:
        deviation = deviation.masked_fill(~mask, 0.0)
    variance = deviation.square().sum(dim=1) / lengths[:, None].to(features)  # (batch, feature)
    return torch.cat([centre, variance.sqrt()], dim=1)


def last(features: Tensor, lengths: Tensor) -> Tensor:
    """The last valid frame, as recurrent encoders use it. Shapes and errors as in `mean`.

    Example:
        >>> last(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[3.0]]
    """
    _mask(features, lengths)
    rows = torch.arange(features.shape[0], device=features.device)
    return features[rows, lengths.to(features.device) - 1]


#: pooling name -> (function, factor by which the width grows)
POOLINGS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "mean": (mean, 1),
    "max": (max, 1),
    "mean_plus_max": (mean_plus_max, 1),
    "mean_std": (mean_std, 2),
    "last": (last, 1),
}


def pooled_width(width: int, pooling: str) -> int:
    """Width of a clip vector for a layer of `width` features per frame.

    Raises:
        ValueError: if no pooling has that name.

    Example:
        >>> pooled_width(64, "mean_std")
        128
    """
    return width * _entry(pooling)[1]


def pool(features: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """Apply the pooling of that name: (batch, time, feature) and (batch,) -> (batch, feature').

    Raises:
        ValueError: if no pooling has that name, or a length is outside 1..time.
    """
    return _entry(pooling)[0](features, lengths)


def _entry(pooling: str) -> tuple[Callable[[Tensor, Tensor], Tensor], int]:
    if pooling not in POOLINGS:
        raise ValueError(f"no pooling {pooling!r}; {near_miss(pooling, POOLINGS)}")
    return POOLINGS[pooling]
