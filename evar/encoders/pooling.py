"""Pooling over time: (batch, time, feature) and valid frame counts -> (batch, feature').

A pooling is a pure function. Its name in a `LayerInfo` or in YAML is the function's name; `POOLINGS` lists those of this
package with the factor by which they widen a layer. Frames beyond a clip's length never reach its vector.

A pooling of your own is named "module:function" or "path/to/file.py:function", in the `pooling` of a `LayerInfo`, as
`pooling:` in the YAML of an encoder, or as `--pooling` of `evar embed`. It is checked when it is met first:

1. `function(features, lengths)` takes features (batch, time, feature) and lengths (batch,) as `mean` does, and returns
   (batch, k x feature) with one whole number k for every width.
2. Frames beyond a clip's length, and the other clips of the batch, change nothing.
3. It is finite for finite frames, also for a single one, gives the same numbers at every call, and passes a gradient.

The key of stored vectors contains the name and a hash of the file, so that an edited pooling is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from evar.config.registry import hash_source, near_miss, resolve

#: (features (batch, time, feature), lengths (batch,)) -> (batch, feature')
Pooling = Callable[[Tensor, Tensor], Tensor]


def _make_mask(features: Tensor, lengths: Tensor) -> Tensor | None:
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
    mask = _make_mask(features, lengths)
    if mask is None:
        return features.mean(dim=1)
    total = features.masked_fill(~mask, 0.0).sum(dim=1)  # (batch, feature)
    return total / lengths[:, None].to(total)


def max(features: Tensor, lengths: Tensor) -> Tensor:
    """Take the largest value of each feature over the valid frames.

    Args:
        features: (batch, time, feature).
        lengths: (batch,) valid frames, each in 1..time.

    Returns:
        (batch, feature).

    Raises:
        ValueError: if a length is outside 1..time.

    Example:
        >>> max(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[3.0]]
    """
    mask = _make_mask(features, lengths)
    return features.amax(dim=1) if mask is None else features.masked_fill(~mask, -torch.inf).amax(dim=1)


def mean_plus_max(features: Tensor, lengths: Tensor) -> Tensor:
    """Add the mean and the maximum over time, feature by feature (the papers' "mean_max"): the width does not change.

    Args:
        features: (batch, time, feature).
        lengths: (batch,) valid frames, each in 1..time.

    Returns:
        (batch, feature).

    Raises:
        ValueError: if a length is outside 1..time.

    Source: EVAR and BYOL-A pool this way (Niizumi et al., "BYOL for Audio", IJCNN 2021, section III-B).

    Example:
        >>> mean_plus_max(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[5.0]]
    """
    return mean(features, lengths) + max(features, lengths)


def mean_std(features: Tensor, lengths: Tensor) -> Tensor:
    """Put the mean and the population standard deviation over time side by side: the width doubles.

    Args:
        features: (batch, time, feature).
        lengths: (batch,) valid frames, each in 1..time.

    Returns:
        (batch, 2 x feature): all means, then all standard deviations. A clip of one frame has deviation 0.

    Raises:
        ValueError: if a length is outside 1..time.

    Example:
        >>> mean_std(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[2.0, 1.0]]
    """
    mask = _make_mask(features, lengths)
    centre = mean(features, lengths)
    deviation = features - centre[:, None, :]
    if mask is not None:
        deviation = deviation.masked_fill(~mask, 0.0)
    variance = deviation.square().sum(dim=1) / lengths[:, None].to(features)  # (batch, feature)
    return torch.cat([centre, variance.sqrt()], dim=1)


def last(features: Tensor, lengths: Tensor) -> Tensor:
    """Take the last valid frame, as recurrent encoders do.

    Args:
        features: (batch, time, feature).
        lengths: (batch,) valid frames, each in 1..time.

    Returns:
        (batch, feature).

    Raises:
        ValueError: if a length is outside 1..time.

    Example:
        >>> last(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
        [[3.0]]
    """
    _make_mask(features, lengths)
    rows = torch.arange(features.shape[0], device=features.device)
    return features[rows, lengths.to(features.device) - 1]


#: pooling name -> (function, factor by which the width grows)
POOLINGS: dict[str, tuple[Pooling, int]] = {
    "mean": (mean, 1),
    "max": (max, 1),
    "mean_plus_max": (mean_plus_max, 1),
    "mean_std": (mean_std, 2),
    "last": (last, 1),
}
#: own poolings that have been checked: name and hash of the source -> as in `POOLINGS`
_OWN: dict[tuple[str, str], tuple[Pooling, int]] = {}


def find_pooling(name: str) -> tuple[Pooling, int]:
    """Find a pooling by its name; one of the user's own is checked first.

    Args:
        name: a key of `POOLINGS`, "module:function", or "path/to/file.py:function".

    Returns:
        The function, and the factor by which it widens a layer.

    Raises:
        ValueError: if no pooling has that name, or an own one breaks a promise.

    Example:
        >>> find_pooling("mean_std")[1]
        2
    """
    if name in POOLINGS:
        return POOLINGS[name]
    if ":" not in name:
        raise ValueError(f"no pooling {name!r}; {near_miss(name, POOLINGS)}")
    try:
        key = (name, hash_source(name))
        if key not in _OWN:
            function = resolve(name)
            broken = check_pooling(function)
            if broken:
                raise ValueError(f"pooling {name} breaks {len(broken)} promise(s): {'; '.join(broken)}")
            _OWN[key] = (function, _measure_factor(function))
    except (ImportError, OSError) as error:
        raise ValueError(f"pooling {name} is not there: {error}") from error
    return _OWN[key]


def describe_pooling(name: str) -> str:
    """Return what tells a pooling in the keys of stored vectors: its name, and of an own one a hash of its file.

    Args:
        name: as for `find_pooling`.

    Raises:
        ValueError: if the file or module of an own pooling is not there.

    Example:
        >>> describe_pooling("mean")
        'mean'
    """
    if ":" not in name:
        return name
    try:
        return f"{name}#{hash_source(name)}"
    except (ImportError, OSError) as error:
        raise ValueError(f"pooling {name} is not there: {error}") from error


def count_pooled_features(width: int, pooling: str) -> int:
    """Return how many features the vector of a clip has.

    Args:
        width: features of a frame.
        pooling: name, as for `find_pooling`.

    Raises:
        ValueError: if no pooling has that name.

    Example:
        >>> count_pooled_features(64, "mean_std")
        128
    """
    return width * find_pooling(pooling)[1]


def pool(features: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """Apply the pooling of a name.

    Args:
        features: (batch, time, feature).
        lengths: (batch,) valid frames, each in 1..time.
        pooling: name, as for `find_pooling`.

    Returns:
        (batch, feature'), as wide as `count_pooled_features` says.

    Raises:
        ValueError: if no pooling has that name, or a length is outside 1..time.

    Example:
        >>> pool(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2]), "max").tolist()
        [[3.0]]
    """
    return find_pooling(pooling)[0](features, lengths)


def check_pooling(function: object) -> list[str]:
    """Try a pooling, and return one sentence for each promise that it breaks.

    Args:
        function: what "module:function" leads to.

    Returns:
        Sentences; empty if every promise is kept.

    Example:
        >>> check_pooling(mean_std)
        []
        >>> check_pooling(lambda features, lengths: features.mean(dim=1))
        ['frames beyond the length of a clip must change nothing, but they do']
    """
    if not callable(function):
        return [f"it must be a function of features and lengths, got {type(function).__name__}"]
    try:
        return list(_find_broken_promises(function))
    except Exception as error:  # a user's function may raise anything; the check reports it
        return [f"it raised {type(error).__name__} for features (3, 6, 4) and lengths (3,): {error}"]


def _find_broken_promises(function: Pooling) -> Iterator[str]:
    generator = torch.Generator().manual_seed(0)
    features, lengths = torch.randn(3, 6, 4, generator=generator), torch.tensor([6, 3, 1])
    found = function(features, lengths)
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 3 or found.shape[1] not in range(4, 400, 4):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        yield f"features (3, 6, 4) must become (3, k x 4) with a whole number k, got {shape}"
        return
    wider = function(torch.cat([features, features], dim=2), lengths)
    if wider.shape != (3, 2 * found.shape[1]):
        yield f"twice as many features must give vectors of twice the width, {2 * found.shape[1]}, got {wider.shape[1]}"
    if not bool(torch.isfinite(found).all()):
        yield "vectors must be finite, also for a clip of a single frame"
    if not torch.equal(found, function(features, lengths)):
        yield "the same frames must give the same vector at every call"
    padded = features.clone()
    padded[1, 3:], padded[2, 1:] = 1e3, -1e3
    if not torch.allclose(found, function(padded, lengths), atol=1e-5):
        yield "frames beyond the length of a clip must change nothing, but they do"
    alone = torch.cat([function(features[at : at + 1], lengths[at : at + 1]) for at in range(3)])
    if not torch.allclose(found, alone, atol=1e-5):
        yield "a clip must get the same vector alone and in a batch"
    variable = features.clone().requires_grad_()
    vectors = function(variable, torch.tensor([6, 6, 6]))
    if not vectors.requires_grad:
        yield "it must pass a gradient to the frames, for fine-tuning"


def _measure_factor(function: Pooling) -> int:
    """By how much a pooling widens a layer."""
    return function(torch.zeros(1, 2, 4), torch.tensor([2])).shape[1] // 4
