"""Which layers make the feature of a row, how they are joined, and which seeds are run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evar.config.registry import resolve
from evar.encoders.pooling import count_pooled_features
from evar.experiment.spec import Selection
from evar.extraction.fusion import ATTENTION, require_equal_widths

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.encoders.base import Encoder

__all__ = ["Selection", "count_seeds", "list_compared_fusions", "list_selections"]


def list_selections(encoder: Encoder, layers: str | Sequence[str | int], fusion: str) -> list[Selection]:
    """Return the rows that `--layers` and `--fusion` request, shallow to deep.

    Args:
        encoder: whose layers.
        layers: "default", "all", or names or positions.
        fusion: "none", the name of a fusion, "attention" or "search".

    Raises:
        ValueError: if the encoder has no such layer, or the layers cannot be fused so.

    Example:
        >>> from evar.encoders import describe_encoder
        >>> encoder = describe_encoder("crepe.tiny")
        >>> [row.layers for row in list_selections(encoder, ["conv2", "conv5"], "none")]
        [('conv2',), ('conv5',)]
        >>> list_selections(encoder, ["conv2", "conv5"], "concat")
        [Selection(layers=('conv2', 'conv5'), fusion='concat')]
    """
    if layers == "default":
        names = tuple(encoder.default_layers)
        return [Selection(names, "none" if len(names) == 1 else "concat")]
    every = [layer.name for layer in encoder.layer_infos]
    names = tuple(every) if layers == "all" else encoder.layer_names(layers)
    if fusion == ATTENTION or (fusion not in ("none", "search") and len(names) > 1):
        if fusion in ("average", "weighted"):
            require_equal_widths(_measure_widths(encoder, names), fusion)
        return [Selection(names, fusion)]
    rows = [Selection((name,), "none") for name in names]
    default = tuple(encoder.default_layers)
    if (layers == "all" or fusion == "search") and len(default) > 1:
        rows.append(Selection(default, "concat"))
    elif fusion == "search" and default[0] not in names:
        rows.append(Selection(default, "none"))
    if fusion == "search":
        rows += [Selection(names, other) for other in list_compared_fusions(encoder, names)]
    return rows


def list_compared_fusions(encoder: Encoder, names: Sequence[str]) -> list[str]:
    """Return the fusions of all layers that a search is compared with: the weighted sum, where all are equally wide."""
    return ["weighted"] if len(names) > 1 and len(set(_measure_widths(encoder, names).values())) == 1 else []


def _measure_widths(encoder: Encoder, names: Sequence[str]) -> dict[str, int]:
    """Features of the pooled vector of each layer."""
    infos = [encoder.layer(name) for name in names]
    return {info.name: count_pooled_features(info.width, info.pooling) for info in infos}


def count_seeds(task: Task, protocol: ProtocolConfig, n_seeds: int | None) -> int:
    """Return how many seeds to run: more than one only where validation is drawn, clips are cropped or the probe is random.

    Args:
        task: whether its validation clips are drawn.
        protocol: its probe, its crop, and its own number of seeds.
        n_seeds: as requested; None leaves it to the protocol.
    """
    has_random_probe = "random_state" in inspect.signature(resolve(protocol.probe)).parameters
    is_random = task.draws_validation or has_random_probe or protocol.crop == "by_role"
    return (n_seeds or protocol.seeds) if is_random else 1
