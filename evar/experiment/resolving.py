"""A request becomes a grid of specs, once: every name is looked up, and every illegal value is rejected before any work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from evar import config as configs
from evar.config.registry import resolve
from evar.data.sentences import require_prompts
from evar.data.task import load_task
from evar.data.task_config import TaskConfig, load_task_config
from evar.encoders import describe_encoder, load_encoder
from evar.experiment.fusion_rules import require_fusion
from evar.experiment.loading import name_task
from evar.experiment.request import choose_protocol
from evar.experiment.selection import count_seeds, list_selections
from evar.experiment.settings import Settings
from evar.experiment.spec import CellSpec, GridSpec, Rejection, Resources, SearchSpec
from evar.extraction.texts import require_text
from evar.metrics import METRICS
from evar.metrics.named import COMPARING_KINDS
from evar.probes.making import compares_clips, find_probe_class, needs_text
from evar.probes.saved import require_savable

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.encoders.base import Encoder

#: fusions whose legality depends on the widths of the layers
_EQUAL_WIDTHS = ("average", "weighted")


def resolve_request(settings: Settings) -> GridSpec:
    """Look up every name of a request and make a spec of each cell.

    No sound is read and no checkpoint is fetched. A cell whose task has no index here, whose kind of task the protocol has
    no probe for, or whose layers do not fit the fusion is a rejection, with its reason, beside the cells that can be run.

    Args:
        settings: the values of a command line.

    Raises:
        ValueError: if a name is unknown or a setting is not legal; or if no cell can be run because of what the request
            sets for encoders and fusion.

    Example:
        >>> from evar.experiment.request import parse_request
        >>> grid = resolve_request(parse_request("logmel,ge2e", "esc10,gm_pitch", limit=40))
        >>> [(spec.encoder, spec.task) for spec in grid.cells][:2]
        [('logmel', 'esc10'), ('logmel', 'gm_pitch')]
        >>> resolve_request(parse_request("crepe.tiny", "esc10", layers="all", fusion="average"))
        Traceback (most recent call last):
        ...
        ValueError: crepe.tiny: average needs layers of equal width, got ...
    """
    protocol = choose_protocol(settings)
    _check_protocol(protocol)
    if settings.fusion == "search" and compares_clips(protocol):
        raise ValueError(
            f"--fusion=search fits probes, and protocol {protocol.name} has none; name layers, or take --protocol=linear"
        )
    bases = {name: _find_base(name) for name in settings.encoders}
    tasks, problems = _load_tasks(settings, protocol)
    check_encoder = _check_reader if needs_text(protocol) else _check_encoder
    checks = {encoder: check_encoder(settings, encoder) for encoder in settings.encoders}
    cells: list[CellSpec] = []
    rejections: list[Rejection] = []
    at_fault = []  # faults of the request, and not of things that are missing on this machine
    for encoder, name in itertools.product(settings.encoders, settings.tasks):
        if not settings.wants(encoder, name):
            continue
        check, config = checks[encoder], load_task_config(name)
        spec = _make_spec(settings, protocol, encoder, config, tasks.get(name), check.layers, bases=bases)
        reason = problems.get(name)
        if reason is None:
            needs = partial(require_fusion, protocol, config.kind, "weighted", name)
            reason = check.reason or (_explain(needs) if check.needs_weights else None)
            at_fault += [reason] if reason else []
        if reason is None:
            cells.append(spec)
        else:
            rejections.append(Rejection(spec, reason))
    if at_fault and not cells:
        raise ValueError(at_fault[0])
    searches = {name: search for name in settings.encoders if (search := _make_search(settings, name, bases))}
    return GridSpec(tuple(cells), make_resources(settings), searches, tuple(rejections), tasks)


def resolve_requests(requests: Sequence[Settings]) -> GridSpec:
    """Make one grid of several requests that differ in their protocol: every encoder is loaded once for all of them.

    Cells stand encoder by encoder, then task by task, so that the second protocol of a cell finds the vectors that the first
    one has put into the store.

    Args:
        requests: as `evar.experiment.request.parse_requests` returns them.

    Raises:
        ValueError: as `resolve_request`.

    Example:
        >>> from evar.experiment.request import parse_requests
        >>> grid = resolve_requests(parse_requests("logmel,ge2e", "esc10", protocol="linear,knn"))
        >>> [(spec.encoder, spec.protocol.name) for spec in grid.cells]
        [('logmel', 'linear'), ('logmel', 'knn'), ('ge2e', 'linear'), ('ge2e', 'knn')]
    """
    grids = [resolve_request(one) for one in requests]
    if len(grids) == 1:
        return grids[0]
    first = requests[0]
    places = {pair: at for at, pair in enumerate(itertools.product(first.encoders, first.tasks))}
    cells = sorted((spec for grid in grids for spec in grid.cells), key=lambda spec: places[spec.encoder, spec.task])
    tasks = {name: task for grid in reversed(grids) for name, task in grid.tasks.items()}
    for grid in grids:
        tasks |= {name_task(name, task.validation_parts): task for name, task in grid.tasks.items()}
    rejections = tuple(rejection for grid in grids for rejection in grid.rejections)
    return GridSpec(tuple(cells), grids[0].resources, {}, rejections, tasks)


def make_resources(settings: Settings) -> Resources:
    """Return the settings of a request that cannot change a number.

    Example:
        >>> from evar.experiment.settings import Settings
        >>> make_resources(Settings(("logmel",), ("esc10",), jobs=2)).jobs
        2
    """
    names = ("data_root", "store", "out", "device", "batch_size", "frames_gb", "engine", "jobs", "address", "save_head")
    return Resources(**{name: getattr(settings, name) for name in names})


def _check_protocol(protocol: ProtocolConfig) -> None:
    try:
        resolve(protocol.probe)(**protocol.params)
    except TypeError as error:
        raise ValueError(f"protocol {protocol.name}: {error}") from error
    metric = METRICS.get(protocol.metric)
    if protocol.metric and not compares_clips(protocol):
        raise ValueError(
            f"protocol {protocol.name}: metric goes with probes that compare test clips; those that predict labels are "
            f"scored by the task's own metric, got {protocol.metric!r}"
        )
    if protocol.metric and (metric is None or not metric.higher_is_better or metric.resampled is None):
        known = [name for name, one in METRICS.items() if one.kind in COMPARING_KINDS and one.higher_is_better]
        raise ValueError(
            f"protocol {protocol.name}: metric must be one where higher is better, such as {', '.join(known)}, got "
            f"{protocol.metric!r}"
        )
    if compares_clips(protocol) and (metric is None or metric.kind not in COMPARING_KINDS):
        raise ValueError(
            f"protocol {protocol.name}: a probe that compares clips needs a metric of comparisons, such as "
            f"sound_retrieval_map, nmi or pair_auc, got {protocol.metric!r}"
        )


def _find_base(encoder: str) -> tuple[str, str]:
    """Name of an encoder, and of the one whose layers it reads: its base, where options and checkpoint are the same.

    A variant of another size, or with other weights, has layers of its own.
    """
    config = configs.load_encoder_config(encoder)
    if not config.base:
        return config.name, config.name
    base = configs.load_encoder_config(config.base)
    is_same = (config.options, config.weights) == (base.options, base.weights)
    return config.name, base.name if is_same else config.name


def _load_tasks(settings: Settings, protocol: ProtocolConfig) -> tuple[dict[str, Task], dict[str, str]]:
    """The tasks of a request, and why some cannot be run: no index can be made here, or there is no probe for the kind."""
    tasks: dict[str, Task] = {}
    problems: dict[str, str] = {}
    for name in settings.tasks:
        config = load_task_config(name)
        try:
            tasks[name] = load_task(name, settings.data_root, settings.limit, protocol.validation_parts)
        except (ValueError, OSError) as error:
            if not config.index_maker:
                raise
            problems[name] = " ".join(str(error).split())
            continue
        reason = _explain(partial(find_probe_class, protocol, config.kind))
        if reason is None and settings.save_head:
            require_savable(protocol, config.kind, settings.fusion)
        if reason is None and needs_text(protocol) and config.kind != "captions":
            reason = _explain(partial(require_prompts, config))
        if reason:
            problems[name] = reason
    return tasks, problems


@dataclass(frozen=True)
class _EncoderCheck:
    """Facts about an encoder that are known before it is loaded.

    Attributes:
        layers: as requested, by name.
        reason: why the request does not suit the encoder, or None.
        needs_weights: whether a weighted sum of layers is to be learned.
    """

    layers: str | tuple[str, ...]
    reason: str | None = None
    needs_weights: bool = False


def _check_encoder(settings: Settings, encoder: str) -> _EncoderCheck:
    """Look at the layers of an encoder where the request depends on them.

    Raises:
        ValueError: if it has no such layer.
    """
    layers, is_given = settings.layers, isinstance(settings.norm_stats, tuple)
    if isinstance(layers, str) and settings.fusion not in _EQUAL_WIDTHS and not is_given:
        return _EncoderCheck(layers)
    try:
        described = _describe(encoder)
    except (OSError, ImportError):  # the cells of this encoder fail with that reason when it is loaded
        return _EncoderCheck(layers)
    names = layers if isinstance(layers, str) else described.layer_names(layers)
    if is_given and described.norm_stats is None:
        reason = f"{encoder} does not normalise its input by statistics, so norm_stats cannot be set"
        return _EncoderCheck(names, reason)
    try:
        found = list_selections(described, names, settings.fusion)
    except ValueError as error:
        return _EncoderCheck(names, f"{encoder}: {error}")
    return _EncoderCheck(names, needs_weights=any(selection.fusion == "weighted" for selection in found))


def _check_reader(settings: Settings, encoder: str) -> _EncoderCheck:
    """Look at an encoder for a protocol that compares clips with texts: it must read, and only one layer can be compared."""
    try:
        described = _describe(encoder)
    except (OSError, ImportError):  # the cells of this encoder fail with that reason when it is loaded
        return _EncoderCheck(settings.layers)
    if reason := _explain(partial(require_text, described)):
        return _EncoderCheck(settings.layers, reason)
    asked = settings.layers if isinstance(settings.layers, str) else described.layer_names(settings.layers)
    if asked not in ("default", (described.text_layer,)) or settings.fusion != "none":
        reason = (
            f"protocol {settings.protocol} compares texts with the layer {described.text_layer} of {encoder}, got "
            f"--layers={settings.layers if isinstance(settings.layers, str) else ','.join(asked)} "
            f"--fusion={settings.fusion}; leave both out"
        )
        return _EncoderCheck(settings.layers, reason)
    return _EncoderCheck(asked)


def _describe(encoder: str) -> Encoder:
    """An encoder that knows its layers; without memory for its weights where it can be built so."""
    try:
        return describe_encoder(encoder)
    except (RuntimeError, NotImplementedError, TypeError):  # a class that computes with its weights when it is built
        return load_encoder(encoder, "random")


def _explain(check: Callable[[], Any]) -> str | None:
    """The message of the ValueError that a check raises, or None."""
    try:
        check()
    except ValueError as error:
        return " ".join(str(error).split())
    return None


def _make_spec(
    settings: Settings,
    protocol: ProtocolConfig,
    encoder: str,
    config: TaskConfig,
    task: Task | None,
    layers: str | tuple[str, ...],
    *,
    bases: dict[str, tuple[str, str]],
) -> CellSpec:
    name, base = bases[encoder]
    return CellSpec(
        encoder=encoder,
        task=config.name,
        protocol=protocol,
        protocol_name=settings.protocol,
        task_version=config.version,
        metric=protocol.metric or config.metric,
        index_sha256="" if task is None else task.index_sha256,
        weights=settings.weights_of(encoder),
        norm_stats=settings.norm_stats,
        limit=settings.limit,
        skip_bad=settings.skip_bad,
        learning_rate=settings.learning_rate,
        layers=layers,
        fusion=settings.fusion,
        seeds=(0,) if task is None else tuple(range(count_seeds(task, protocol, settings.seeds))),
        beside_base=base != name and base in settings.encoders,
    )


def _make_search(settings: Settings, encoder: str, bases: dict[str, tuple[str, str]]) -> SearchSpec | None:
    """Make the fusion search of one encoder; None if none is requested."""
    if settings.fusion != "search":
        return None
    export = settings.export
    if export and len(settings.encoders) > 1:
        export = f"{bases[encoder][0]}.{export}"
    return SearchSpec(settings.objective, settings.max_layers, export)
