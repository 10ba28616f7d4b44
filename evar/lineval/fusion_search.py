"""Running a fusion search for one encoder over the tasks of a grid, and keeping what it tried and chose."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import results
from evar.config.messages import progress_bar, tell
from evar.experiment.result_row import versions
from evar.experiment.selection import Selection
from evar.extraction import input_statistics as norm_stats
from evar.lineval.cell_features import encode_cell
from evar.lineval.cells import evaluate_cell
from evar.lineval.fit import estimate_fit_bytes, group_fits
from evar.lineval.ranker import N_COMPONENTS, PENALTIES, Layers, SearchRound
from evar.lineval.search import N_FINALISTS, Search, search
from evar.probes.making import make_probe
from evar.probes.protocol import fit_probes, report_fit
from evar.results import SearchRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.config.protocol import ProtocolConfig
    from evar.data.task import Task
    from evar.experiment.cell import Cell
    from evar.experiment.outcome import Outcome
    from evar.experiment.spec import SearchSpec
    from evar.lineval.cell_features import Vectors
    from evar.lineval.cells import Workplace

#: raise it when the same inputs give another choice
SEARCH_VERSION = 1
#: the search draws validation clips with one seed; rows of other seeds test its choice
SEED = 0


def list_layers(cell: Cell) -> list[str]:
    """Return the layers to choose from."""
    every = [layer.name for layer in cell.encoder.layer_infos]
    return every if isinstance(cell.spec.layers, str) else [name for name in every if name in cell.spec.layers]


def make_search_id(cells: Sequence[Cell], spec: SearchSpec) -> str:
    """Return the file stem of the record: a hash of everything that can change the choice."""
    first = cells[0]
    encoder, protocol = first.encoder, first.protocol
    return results.run_id(
        {
            "encoder": encoder.name,
            "weights_sha256": encoder.weights_sha256,
            "encoder_options": dict(encoder.options),
            "layers": list_layers(first),
            "task": "+".join(cell.task.name for cell in cells),
            "tasks": [
                {
                    "name": cell.task.name,
                    "version": cell.task.config.version,
                    "index_sha256": cell.task.index_sha256,
                    "extraction": cell.extraction,
                }
                for cell in cells
            ],
            "limit": first.spec.limit,
            "protocol": protocol.name,
            "protocol_version": protocol.version,
            "params": protocol.params,
            "seed": SEED,
            "search": [SEARCH_VERSION, spec.objective, spec.max_layers, N_FINALISTS, N_COMPONENTS, *PENALTIES],
        }
    )


def run_search(cells: Sequence[Cell], spec: SearchSpec, workplace: Workplace, outcome: Outcome) -> None:
    """Choose layers on validation clips, then compute the rows of the choice, and export it.

    Args:
        cells: of one encoder, with all tasks to serve at once.
        spec: the objective, and the name of the export.
        workplace: store and results folder.
        outcome: of the grid.

    Raises:
        ValueError: if there is nothing to choose from, or a task has no usable clip in a split.
    """
    first = cells[0]
    encoder, names = first.encoder, list_layers(first)
    if len(names) < 2:
        tell(f"{encoder.name}: one layer, nothing to fuse")
        return
    if first.spec.wanted_layers != first.spec.layers:
        tell(f"{encoder.name}: its layers are those of {encoder.store_name}, searched there")
        return
    record = _load_record(results.search_path(workplace.out, make_search_id(cells, spec)))
    if record is None:
        vectors = [encode_cell(cell, workplace.store, workplace.resources, {SEED}) for cell in cells]
        outcome.n_encoded += sum(of_task.n_encoded for of_task in vectors)
        record = choose_layers(cells, vectors, spec, workplace.resources.device)
        results.save_search(record, workplace.out)
    tell(
        f"{encoder.name}: fusion search over {len(cells)} tasks, {record.n_ranked} combinations of {len(names)} layers "
        f"ranked, {record.n_probed} of them probed, on validation clips: {' + '.join(record.choice)}",
    )
    for cell in cells:
        choices = dict.fromkeys(tuple(layers) for layers in record.choices[cell.task.name])
        chosen = [Selection(layers, "none" if len(layers) == 1 else "concat") for layers in choices]
        missing = [one for one in chosen if one not in cell.list_selections()]
        if missing:
            evaluate_cell(cell, workplace, outcome, missing)
    if spec.export:
        _export(cells, record, spec.export)


def _load_record(path: Path) -> SearchRecord | None:
    """The record of an earlier search, if it is whole; a damaged one is made again."""
    try:
        return results.load_search(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        tell(f"searching again: {error}")
        return None


def _export(cells: Sequence[Cell], record: SearchRecord, name: str) -> None:
    from evar.encoders.variants import write_variant

    encoder, given = cells[0].encoder, cells[0].spec.weights
    tasks = ", ".join(cell.task.name for cell in cells)
    about = f"{' and '.join(record.choice)} of {encoder.name}, chosen for {tasks}"
    is_file = given not in (None, "random") and Path(str(given)).is_file()
    path = write_variant(encoder.asked_as or encoder.name, record.choice, name, about, given if is_file else None)
    weights = (
        "" if given is None else f" (with {given})" if is_file else f" (made with --weights={given}: say so again)"
    )
    tell(f"{encoder.name}: exported as encoder {name}, {path}{weights}")


def choose_layers(
    cells: Sequence[Cell], vectors: Sequence[Vectors], spec: SearchSpec, device: str = "auto"
) -> SearchRecord:
    """Search for the layers that serve all tasks; no test clip is looked at.

    Args:
        cells: of one encoder, one for each task.
        vectors: of each cell; every layer is there.
        spec: the objective.
        device: of probes that are trained by gradient steps.

    Returns:
        What was tried and chosen, not yet saved.

    Raises:
        ValueError: if a task has no usable clip in a split.
    """
    began = time.perf_counter()
    names = _list_finite_layers(cells, vectors)
    rounds = [one for cell, own in zip(cells, vectors, strict=True) for one in make_rounds(cell.task, own, names)]
    label = f"{cells[0].encoder.name} fusion search"
    with progress_bar(total=2 * len(rounds), desc=label, unit="round", delay=2, leave=False) as bar:

        def progress(done: int, what: str) -> None:
            bar.n = done if what == "ranker" else len(rounds) + (done if what == "finalists" else 0)
            bar.set_postfix_str(what)

        found = search(
            rounds,
            len(names),
            lambda candidates: probe_sets(cells[0].protocol, rounds, candidates, device),
            objective=spec.objective,
            max_layers=spec.max_layers,
            progress=progress,
        )
    return _make_record(cells, spec, names, rounds, found, time.perf_counter() - began)


def make_rounds(task: Task, vectors: Vectors, names: Sequence[str]) -> list[SearchRound]:
    """Make the task's rounds without their test clips; bad clips are left out."""
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
    protocol: ProtocolConfig,
    rounds: Sequence[SearchRound],
    candidates: Sequence[tuple[Layers, int]],
    device: str = "auto",
) -> Iterator[tuple[float, float]]:
    """Yield the validation score and log-loss of the protocol's probe for every candidate, several fits side by side."""
    for _, of_task in itertools.groupby(candidates, key=lambda candidate: rounds[candidate[1]].task):
        for group in group_fits(_list_finalists(protocol, rounds, of_task, device)):
            probes, splits = zip(*group, strict=True)
            fit_probes(probes, splits)
            for probe, (_, _, valid, y_valid) in group:
                report = report_fit(probe)
                if report.valid_score is None:  # a probe that chooses nothing
                    yield float(probe.score(valid, y_valid)), 0.0
                else:
                    yield report.valid_score, 0.0 if report.valid_log_loss is None else report.valid_log_loss


def _list_finalists(
    protocol: ProtocolConfig, rounds: Sequence[SearchRound], candidates: Iterable[tuple[Layers, int]], device: str
) -> Iterator[tuple[tuple[Any, tuple[NDArray[Any], ...]], int]]:
    """Probe and split of every candidate, and the bytes that its fit holds; layers are read round by round."""
    for index, of_round in itertools.groupby(candidates, key=lambda candidate: candidate[1]):
        a_round, finalists = rounds[index], [layers for layers, _ in of_round]
        vectors = {position: a_round.layer(position) for position in sorted(set().union(*finalists))}
        for layers in finalists:
            train, valid = (np.concatenate([vectors[at][part] for at in layers], axis=1) for part in (0, 1))
            probe = make_probe(protocol, a_round.metric, SEED, device)
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


def _list_finite_layers(cells: Sequence[Cell], vectors: Sequence[Vectors]) -> list[str]:
    """The layers to choose from, without those that are not finite for some clip.

    Raises:
        ValueError: if fewer than 2 are left.
    """
    names = list_layers(cells[0])
    broken = {name for name in names for own in vectors if len(own.find_bad(Selection((name,), "none"))) > len(own.bad)}
    if broken:
        label = cells[0].encoder.name
        tell(
            f"{label}: the fusion search leaves out {', '.join(sorted(broken))}, not finite for some clip",
        )
    kept = [name for name in names if name not in broken]
    if len(kept) < 2:
        raise ValueError(f"a fusion search needs at least 2 layers that are finite for every clip, got {kept}")
    return kept


def _make_record(
    cells: Sequence[Cell],
    spec: SearchSpec,
    names: Sequence[str],
    rounds: Sequence[SearchRound],
    found: Search,
    seconds: float,
) -> SearchRecord:
    encoder, protocol = cells[0].encoder, cells[0].protocol
    tasks = [cell.task for cell in cells]
    of_task = {task.name: [at for at, one in enumerate(rounds) if one.task == task.name] for task in tasks}

    def by_task(values: NDArray[np.float64]) -> dict[str, list[float]]:
        return {task: [float(values[at]) for at in own] for task, own in of_task.items()}

    def name_layers(layers: Layers) -> list[str]:
        return [names[layer] for layer in layers]

    return SearchRecord(
        id=make_search_id(cells, spec),
        encoder=encoder.name,
        weights=encoder.weights_label,
        weights_sha256=encoder.weights_sha256,
        layers=list(names),
        default_layers=list(encoder.default_layers),
        tasks=[_describe_task(task, [rounds[at] for at in of_task[task.name]]) for task in tasks],
        protocol=protocol.name,
        protocol_version=protocol.version,
        seed=SEED,
        limit=cells[0].spec.limit,
        objective=spec.objective,
        method=_describe_method(spec),
        n_ranked=len(found.ranked),
        n_probed=len(found.probed),
        ranked=[{"layers": name_layers(layers), "scores": by_task(values)} for layers, values in found.ranked.items()],
        probed=[
            {"layers": name_layers(layers), "scores": by_task(values), "log_losses": by_task(found.log_losses[layers])}
            for layers, values in found.probed.items()
        ],
        choice=name_layers(found.choice),
        choices={task: [name_layers(found.choices[at]) for at in own] for task, own in of_task.items()},
        fusions=list(dict.fromkeys(row.fusion for row in cells[0].list_selections() if row.fusion == "weighted")),
        row_settings={
            "encoder_options": dict(encoder.options),
            "norm_stats": cells[0].statistics,
        },
        seconds=round(seconds, 3),
        created=results.utc_now(),
        versions=versions(),
    )


def _describe_task(task: Task, rounds: Sequence[SearchRound]) -> dict[str, Any]:
    return {
        "name": task.name,
        "version": task.config.version,
        "metric": task.config.metric,
        "is_fold": rounds[0].is_fold,
        "rounds": [a_round.name for a_round in rounds],
    }


def _describe_method(spec: SearchSpec) -> dict[str, Any]:
    return {
        "version": SEARCH_VERSION,
        "ranker": "ridge on the first principal components of each standardised layer",
        "n_components": N_COMPONENTS,
        "penalties": list(PENALTIES),
        "n_finalists": N_FINALISTS,
        "max_layers": spec.max_layers,
    }
