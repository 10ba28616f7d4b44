"""Everything that can change the number of a row; its hash names the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evar import results
from evar.config.registry import hash_source
from evar.data.task import VALIDATION_PARTS
from evar.encoders.pooling import describe_pooling
from evar.experiment.selection import layers_asked, seeds_that_matter, selections
from evar.extraction import input_statistics as norm_stats
from evar.extraction.fusion import ATTENTION
from evar.extraction.plan import feature_key
from evar.metrics import METRICS

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.encoders.base import Encoder
    from evar.experiment.selection import Selection
    from evar.experiment.settings import Settings


def identity(
    encoder: Encoder, task: Task, protocol: ProtocolConfig, settings: Settings, selection: Selection, seed: int
) -> dict[str, Any]:
    """Everything that can change the row's number; its hash names the result file."""
    return {
        "encoder": encoder.name,
        "weights_sha256": encoder.weights_sha256,
        "encoder_options": dict(encoder.options),
        "extraction": extraction_settings(encoder, task, protocol, settings),
        "layers": list(selection.layers),
        "fusion": selection.fusion,
        "pooling": name_poolings(encoder, protocol, selection),
        **({} if protocol.frame_seconds is None else {"frame_seconds": protocol.frame_seconds}),
        "task": task.name,
        "task_version": task.config.version,
        "index_sha256": task.index_sha256,
        "limit": settings.limit,
        "skip_bad": settings.skip_bad,
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "params": protocol.params,
        "refit": protocol.refit,
        **({"validation_parts": protocol.validation_parts} if protocol.validation_parts != VALIDATION_PARTS else {}),
        "metric": task.config.metric,
        **_hash_own_sources(task, protocol),
        "seed": seed,
    }


def _hash_own_sources(task: Task, protocol: ProtocolConfig) -> dict[str, str]:
    """Hashes of the source of a metric and of probes that are the user's own; nothing for those of this package."""
    probe = protocol.probes.get(task.config.kind, protocol.probe)
    found = {"metric_sha256": METRICS[task.config.metric].source_sha256, "probe_sha256": hash_source(probe)}
    return {name: digest for name, digest in found.items() if digest}


def name_poolings(encoder: Encoder, protocol: ProtocolConfig, selection: Selection) -> dict[str, str]:
    """How each layer becomes one vector a clip: as it says, or by the probe's attention."""
    if protocol.frame_seconds is not None:
        return dict.fromkeys(selection.layers, ATTENTION if selection.fusion == ATTENTION else "frames")
    return {name: describe_pooling(encoder.layer(name).pooling) for name in selection.layers}


def wanted_rows(
    encoder: Encoder,
    task: Task,
    protocol: ProtocolConfig,
    settings: Settings,
    chosen: Sequence[Selection] | None = None,
) -> list[tuple[Selection, int, str]]:
    """The rows of one cell: layers, seed, and the id that names the result file; `chosen` in place of those asked for."""
    asked = selections(encoder, layers_asked(encoder, settings), settings.fusion) if chosen is None else chosen
    return [
        (selection, seed, results.run_id(identity(encoder, task, protocol, settings, selection, seed)))
        for selection in asked
        for seed in seeds_that_matter(task, protocol, settings.seeds)
    ]


def extraction_settings(encoder: Encoder, task: Task, protocol: ProtocolConfig, settings: Settings) -> dict[str, Any]:
    """What can change a vector. Statistics that depend on the clips stand here by name, with their numbers by round."""
    policy = task.policy()
    key = feature_key(encoder, policy)
    names = ("clip_seconds", "pad", "sample_rate", "resampler", "precision", "revision")
    mode = norm_stats.mode(encoder, settings.norm_stats, protocol.norm_stats)
    is_cropped = protocol.crop == "by_role" and policy.seconds is not None
    crop = (
        "by_role: training and validation clips at random by seed, test clips at the head"
        if is_cropped
        else policy.crop
    )
    found = {name: getattr(key, name) for name in names}
    if protocol.frame_seconds is not None:
        found["frame_seconds"] = protocol.frame_seconds
    return {**found, "crop": crop, "crop_seed": policy.seed, "norm_stats": mode}
