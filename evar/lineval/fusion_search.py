"""Running a fusion search for one encoder over the tasks of a grid, and keeping what it tried and chose."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import results
from evar.experiment.identity import extraction_settings
from evar.experiment.result_row import versions
from evar.extraction import input_statistics as norm_stats
from evar.lineval.fit import estimate_fit_bytes, side_by_side
from evar.lineval.ranker import N_COMPONENTS, PENALTIES, Layers, SearchRound
from evar.lineval.search import N_FINALISTS, Search, search
from evar.probes.making import make_probe
from evar.probes.protocol import fit_probes, report_fit
from evar.results import SearchRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.encoders.base import Encoder
    from evar.experiment.settings import Settings
    from evar.lineval.cell_features import Vectors

#: raise it when the same inputs give another choice
SEARCH_VERSION = 1
#: the search draws validation clips with one seed; rows of other seeds test its choice
SEED = 0


def layer_names(encoder: Encoder, settings: Settings) -> list[str]:
    """The layers to choose from."""
    if isinstance(settings.layers, str):
        return [layer.name for layer in encoder.layer_infos]
    asked = encoder.layer_names(settings.layers)
    return [layer.name for layer in encoder.layer_infos if layer.name in asked]


def record_id(encoder: Encoder, tasks: Sequence[Task], protocol: ProtocolConfig, settings: Settings) -> str:
    """File stem of the record: a hash of everything that can change the choice."""
    return results.run_id(
        {
            "encoder": encoder.name,
            "weights_sha256": encoder.weights_sha256,
            "encoder_options": dict(encoder.options),
            "layers": layer_names(encoder, settings),
            "task": "+".join(task.name for task in tasks),
            "tasks": [
                {
                    "name": task.name,
                    "version": task.config.version,
                    "index_sha256": task.index_sha256,
                    "extraction": extraction_settings(encoder, task, protocol, settings),
                }
                for task in tasks
            ],
            "limit": settings.limit,
            "protocol": protocol.name,
            "protocol_version": protocol.version,
            "params": protocol.params,
            "seed": SEED,
            "search": [SEARCH_VERSION, settings.objective, settings.max_layers, N_FINALISTS, N_COMPONENTS, *PENALTIES],
        }
    )


def run_search(
    encoder: Encoder,
    tasks: Sequence[Task],
    vectors: Sequence[Vectors],
    protocol: ProtocolConfig,
    settings: Settings,
    fusions: Sequence[str],
) -> SearchRecord:
    """Search, and save the record before any test clip is looked at.

    Args:
        encoder: whose layers.
        tasks: to serve, all at once.
        vectors: of each task; every layer is there.
        protocol: whose probe scores the finalists.
        settings: what the command line says.
        fusions: other fusions of all layers that are run for comparison; only noted.

    Raises:
        ValueError: if there is nothing to choose from, or a task has no usable clip in a split.
    """
    from tqdm import tqdm

    began = time.perf_counter()
    names = layer_names(encoder, settings)
    rounds, task_of = [], []
    for task, of_task in zip(tasks, vectors, strict=True):
        made = make_rounds(task, of_task, names)
        rounds += made
        task_of += [of_task] * len(made)
    label = f"{encoder.name} fusion search"
    with tqdm(total=2 * len(rounds), desc=label, unit="round", delay=2, leave=False, disable=None) as bar:

        def progress(done: int, what: str) -> None:
            bar.n = done if what == "ranker" else len(rounds) + (done if what == "finalists" else 0)
            bar.set_postfix_str(what)

        found = search(
            rounds,
            len(names),
            lambda candidates: probe_sets(protocol, rounds, candidates),
            objective=settings.objective,
            max_layers=settings.max_layers,
            progress=progress,
        )
    record = _record(encoder, tasks, protocol, settings, fusions, names, rounds, found, time.perf_counter() - began)
    results.save_search(record, Path(settings.out))
    return record


def make_rounds(task: Task, vectors: Vectors, names: Sequence[str]) -> list[SearchRound]:
    """The task's rounds without their test clips; bad clips are left out."""
    usable, found = vectors.usable, []
    drawn = task.rounds(SEED)
    for a_round, stats in zip(drawn, vectors.of_rounds[SEED], strict=True):
        train, valid = a_round.train[usable[a_round.train]], a_round.valid[usable[a_round.valid]]
        if not len(train) or not len(valid):
            raise ValueError(f"{task.name} {a_round.name}: no usable clip is left in the training or validation set")

        def layer(
            position: int,
            stats: norm_stats.Statistics = stats,
            train: NDArray[np.int64] = train,
            valid: NDArray[np.int64] = valid,
        ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            every = vectors.layer(names[position], stats, SEED if SEED in vectors.cropped else None)
            return every[train], every[valid]

        found.append(
            SearchRound(
                task.name, a_round.name, len(drawn) > 1, task.y[train], task.y[valid], layer, task.config.metric
            )
        )
    return found


def probe_sets(
    protocol: ProtocolConfig, rounds: Sequence[SearchRound], candidates: Sequence[tuple[Layers, int]]
) -> Iterator[tuple[float, float]]:
    """Validation score and log-loss of the protocol's probe for every candidate in a round, several side by side."""
    for _, of_task in itertools.groupby(candidates, key=lambda candidate: rounds[candidate[1]].task):
        for group in side_by_side(_finalists(protocol, rounds, of_task)):
            probes, splits = zip(*group, strict=True)
            fit_probes(probes, splits)
            for probe, (_, _, valid, y_valid) in group:
                report = report_fit(probe)
                if report.valid_score is None:  # a probe that chooses nothing
                    yield float(probe.score(valid, y_valid)), 0.0
                else:
                    yield report.valid_score, 0.0 if report.valid_log_loss is None else report.valid_log_loss


def _finalists(
    protocol: ProtocolConfig, rounds: Sequence[SearchRound], candidates: Iterable[tuple[Layers, int]]
) -> Iterator[tuple[tuple[Any, tuple[NDArray[Any], ...]], int]]:
    """Probe and split of every candidate, and the bytes that its fit holds; layers are read round by round."""
    for index, of_round in itertools.groupby(candidates, key=lambda candidate: candidate[1]):
        a_round, finalists = rounds[index], [layers for layers, _ in of_round]
        vectors = {position: a_round.layer(position) for position in sorted(set().union(*finalists))}
        for layers in finalists:
            train, valid = (np.concatenate([vectors[at][part] for at in layers], axis=1) for part in (0, 1))
            probe = make_probe(protocol, a_round.metric, SEED)
            known = probe.get_params()
            # The fit that would meet the test clips is not needed: it is as rough as the search itself.
            rough = {"refit": "train", **({"tol": known["search_tol"]} if "search_tol" in known else {})}
            probe.set_params(**{name: value for name, value in rough.items() if name in known})
            yield (
                (probe, (train, a_round.y_train, valid, a_round.y_valid)),
                estimate_fit_bytes(probe, len(train) + len(valid), train.shape[1], _count_classes(a_round)),
            )


def _count_classes(a_round: SearchRound) -> int:
    y = a_round.y_train
    return y.shape[1] if y.ndim == 2 else len(np.unique(y))


def _record(
    encoder: Encoder,
    tasks: Sequence[Task],
    protocol: ProtocolConfig,
    settings: Settings,
    fusions: Sequence[str],
    names: Sequence[str],
    rounds: Sequence[SearchRound],
    found: Search,
    seconds: float,
) -> SearchRecord:
    of_task = {task.name: [at for at, one in enumerate(rounds) if one.task == task.name] for task in tasks}

    def by_task(values: NDArray[np.float64]) -> dict[str, list[float]]:
        return {task: [float(values[at]) for at in own] for task, own in of_task.items()}

    def named(layers: Layers) -> list[str]:
        return [names[layer] for layer in layers]

    return SearchRecord(
        id=record_id(encoder, tasks, protocol, settings),
        encoder=encoder.name,
        weights=encoder.weights_label,
        weights_sha256=encoder.weights_sha256,
        layers=list(names),
        default_layers=list(encoder.default_layers),
        tasks=[
            {
                "name": task.name,
                "version": task.config.version,
                "metric": task.config.metric,
                "is_fold": rounds[of_task[task.name][0]].is_fold,
                "rounds": [rounds[at].name for at in of_task[task.name]],
            }
            for task in tasks
        ],
        protocol=protocol.name,
        protocol_version=protocol.version,
        seed=SEED,
        limit=settings.limit,
        objective=settings.objective,
        method={
            "version": SEARCH_VERSION,
            "ranker": "ridge on the first principal components of each standardised layer",
            "n_components": N_COMPONENTS,
            "penalties": list(PENALTIES),
            "n_finalists": N_FINALISTS,
            "max_layers": settings.max_layers,
        },
        n_ranked=len(found.ranked),
        n_probed=len(found.probed),
        ranked=[{"layers": named(layers), "scores": by_task(values)} for layers, values in found.ranked.items()],
        probed=[
            {"layers": named(layers), "scores": by_task(values), "log_losses": by_task(found.log_losses[layers])}
            for layers, values in found.probed.items()
        ],
        choice=named(found.choice),
        choices={task: [named(found.choices[at]) for at in own] for task, own in of_task.items()},
        fusions=list(fusions),
        row_settings={
            "encoder_options": dict(encoder.options),
            "norm_stats": norm_stats.mode(encoder, settings.norm_stats, protocol.norm_stats),
        },
        seconds=round(seconds, 3),
        created=results.utc_now(),
        versions=versions(),
    )
