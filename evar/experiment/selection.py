"""Which layers make the feature of a row, and how they are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evar.config.registry import resolve
from evar.experiment.settings import Settings
from evar.extraction.fusion import ATTENTION

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.encoders.base import Encoder


@dataclass(frozen=True)
class Selection:
    """One row of a table: the layers that make the feature, and how."""

    layers: tuple[str, ...]
    fusion: str


def selections(encoder: Encoder, layers: str | Sequence[str | int], fusion: str) -> list[Selection]:
    """Rows that a `--layers` and `--fusion` ask for, shallow to deep.

    Raises:
        ValueError: if the encoder has no such layer.
    """
    if layers == "default":
        names = tuple(encoder.default_layers)
        return [Selection(names, "none" if len(names) == 1 else "concat")]
    every = [layer.name for layer in encoder.layer_infos]
    names = tuple(every) if layers == "all" else encoder.layer_names(layers)
    if fusion == ATTENTION or (fusion not in ("none", "search") and len(names) > 1):
        return [Selection(names, fusion)]
    rows = [Selection((name,), "none") for name in names]
    default = tuple(encoder.default_layers)
    if (layers == "all" or fusion == "search") and len(default) > 1:
        rows.append(Selection(default, "concat"))
    elif fusion == "search" and default[0] not in names:
        rows.append(Selection(default, "none"))
    if fusion == "search":
        rows += [Selection(names, other) for other in compared_fusions(encoder, names)]
    return rows


def layers_asked(encoder: Encoder, settings: Settings) -> str | tuple[str, ...]:
    """What `--layers` means for one encoder: a variant in a grid with its base has the base's layers, and shows its own
    feature only."""
    if settings.layers == "all" and encoder.store_name != encoder.name and encoder.store_name in settings.encoders:
        return "default"
    return settings.layers


def compared_fusions(encoder: Encoder, names: Sequence[str]) -> list[str]:
    """Fusions of all layers that a search is compared with: the weighted sum, where all are equally wide."""
    from evar.encoders.pooling import pooled_width

    widths = {pooled_width(encoder.layer(name).width, encoder.layer(name).pooling) for name in names}
    return ["weighted"] if len(names) > 1 and len(widths) == 1 else []


def seeds_that_matter(task: Task, protocol: ProtocolConfig, n_seeds: int | None) -> range:
    """Seeds to run: all of them where validation is drawn, clips are cropped or the probe is random, else one."""
    random_probe = "random_state" in resolve(protocol.probe)().get_params()
    is_random = task.draws_validation or random_probe or protocol.crop == "by_role"
    return range((n_seeds or protocol.seeds) if is_random else 1)
