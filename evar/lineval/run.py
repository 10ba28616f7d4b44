"""Frozen evaluation: encoders x tasks, every layer from one pass, a probe per layer, one result file per row.

Nothing is computed twice: vectors come from the feature store, rows that have a result file are left alone, and a cell
that fails is recorded with its reason while the others go on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evar import results
from evar.data.task import Task, prepare
from evar.encoders import load_encoder
from evar.experiment.identity import identity, wanted_rows
from evar.experiment.outcome import EXPECTED_ERRORS, Outcome, name_cell, record_failure
from evar.experiment.request import checked
from evar.experiment.result_row import make_result, save_row
from evar.experiment.selection import Selection, compared_fusions, layers_asked, selections
from evar.experiment.settings import Settings
from evar.lineval.cell_features import Vectors, extracted
from evar.lineval.fit import estimate_fit_bytes, fit_rows, side_by_side
from evar.numeric.device import pick_device
from evar.probes.making import make_probe
from evar.probes.protocol import report_fit
from evar.probes.weighted_sum import WeightedSumProbe
from evar.results import Result, SearchRecord
from evar.storage.feature_store import FeatureStore
from evar.storage.mirror import at_hand

if TYPE_CHECKING:
    from evar.config.protocol import ProtocolConfig
    from evar.encoders.base import Encoder


def run_grid(settings: Settings) -> Outcome:
    """Run a grid in this process: one pass over the audio per encoder and clip policy, then a probe per row.

    Returns:
        All rows of the grid, and the cells that failed with their reasons.

    Raises:
        ValueError: if a name or setting is unknown or contradicts another, before any work is done. A task whose data
            are not there fails its cells only.
    """
    protocol, tasks, absent = checked(settings)
    settings = replace(settings, out=at_hand(settings.out))
    device = pick_device(settings.device)
    store = FeatureStore(settings.store)
    outcome = Outcome()
    for config, error in absent:
        for name in settings.encoders:
            if settings.wants(name, config.name):
                record_failure(outcome, settings, name, config, error)
    for name in settings.encoders:
        of_encoder = [task for task in tasks if settings.wants(name, task.name)]
        if not of_encoder:
            continue
        try:
            encoder = loaded(name, settings, device)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            for task in of_encoder:
                record_failure(outcome, settings, name, task.config, error)
            continue
        there = []
        for task in of_encoder:
            try:
                _evaluate_cell(encoder, task, protocol, settings, store, outcome)
            except EXPECTED_ERRORS as error:
                record_failure(outcome, settings, name, task.config, error)
            else:
                there.append(task)
                results.clear_failure(Path(settings.out), name_cell(settings, name, task.config))
        if settings.fusion == "search" and there:
            _search(encoder, there, protocol, settings, store, outcome)
    return outcome


def encode_grid(settings: Settings) -> int:
    """Fill the store with all that the missing rows of a grid are computed from; fits nothing.

    Returns:
        Clips that were encoded.

    Raises:
        ValueError, OSError, ImportError, RuntimeError: what keeps a cell from being encoded; nothing is recorded.
    """
    protocol, tasks, _ = checked(settings)
    out, store, n_encoded = Path(at_hand(settings.out)), FeatureStore(settings.store), 0
    for name in settings.encoders:
        encoder = None
        for task in tasks:
            if not settings.wants(name, task.name):
                continue
            encoder = encoder or loaded(name, settings, pick_device(settings.device))
            wanted = wanted_rows(encoder, task, protocol, settings)
            seeds = {seed for _, seed, id in wanted if _existing(out, id) is None}
            if seeds:
                selections = [selection for selection, *_ in wanted]
                n_encoded += _vectors(encoder, task, protocol, settings, store, seeds, selections).n_encoded
    return n_encoded


def _search(
    encoder: Encoder,
    tasks: Sequence[Task],
    protocol: ProtocolConfig,
    settings: Settings,
    store: FeatureStore,
    outcome: Outcome,
) -> None:
    """Choose layers on validation clips, then make the rows of the choice, and export it."""
    from evar.lineval.fusion_search import SEED, layer_names, record_id, run_search

    names = layer_names(encoder, settings)
    if len(names) < 2:
        print(f"{encoder.name}: one layer, nothing to fuse", flush=True)
        return
    if layers_asked(encoder, settings) != settings.layers:
        print(f"{encoder.name}: its layers are those of {encoder.store_name}, searched there", flush=True)
        return
    if len(tasks) < len(settings.tasks):
        print(f"{encoder.name}: the fusion search leaves out the tasks that failed", flush=True)
    try:
        record = _recorded(results.search_path(Path(settings.out), record_id(encoder, tasks, protocol, settings)))
        if record is None:
            vectors = [extracted(encoder, task, protocol, settings, store, {SEED}) for task in tasks]
            outcome.n_encoded += sum(of_task.n_encoded for of_task in vectors)
            fusions = compared_fusions(encoder, names)
            record = run_search(encoder, tasks, vectors, protocol, settings, fusions)
        print(
            f"{encoder.name}: fusion search over {len(tasks)} tasks, {record.n_ranked} combinations of {len(names)} layers "
            f"ranked, {record.n_probed} of them probed, on validation clips: {' + '.join(record.choice)}",
            flush=True,
        )
        asked_for = selections(encoder, settings.layers, settings.fusion)
        for task in tasks:
            choices = dict.fromkeys(tuple(layers) for layers in record.choices[task.name])
            chosen = [Selection(layers, "none" if len(layers) == 1 else "concat") for layers in choices]
            missing = [one for one in chosen if one not in asked_for]
            if missing:
                _evaluate_cell(encoder, task, protocol, settings, store, outcome, missing)
        if settings.export:
            from evar.encoders.variants import write_variant

            name = settings.export if len(settings.encoders) == 1 else f"{encoder.name}.{settings.export}"
            said = f"{' and '.join(record.choice)} of {encoder.name}, chosen for {', '.join(t.name for t in tasks)}"
            path = write_variant(encoder.name, record.choice, name, said)
            given = settings.weights_of(encoder.asked_as or encoder.name)
            weights = "" if given is None else f" (made with --weights={given}: say so again)"
            print(f"{encoder.name}: exported as encoder {name}, {path}{weights}", flush=True)
    except EXPECTED_ERRORS as error:
        for task in tasks:
            record_failure(outcome, settings, encoder.name, task.config, error, layers="search")
    else:
        for task in tasks:
            results.clear_failure(Path(settings.out), name_cell(settings, encoder.name, task.config, layers="search"))


def _recorded(path: Path) -> SearchRecord | None:
    """The record of an earlier search, if it is whole; a damaged one is made again."""
    try:
        return results.load_search(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"searching again: {error}", flush=True)
        return None


def loaded(name: str, settings: Settings, device: str) -> Encoder:
    """The encoder with the weights and input statistics that were asked for."""
    given = settings.norm_stats if isinstance(settings.norm_stats, tuple) else None
    return load_encoder(name, settings.weights_of(name), norm_stats=given, device=device)


def _evaluate_cell(
    encoder: Encoder,
    task: Task,
    protocol: ProtocolConfig,
    settings: Settings,
    store: FeatureStore,
    outcome: Outcome,
    chosen: Sequence[Selection] | None = None,
) -> None:
    """All rows of one encoder on one task; `chosen` in place of the layers that were asked for."""
    out = Path(settings.out)
    wanted = wanted_rows(encoder, task, protocol, settings, chosen)
    pending = []
    for selection, seed, id in wanted:
        found = _existing(out, id)
        if found is None:
            pending.append((selection, seed, id))
        else:
            outcome.rows.append(found)
    if not pending:
        print(f"{encoder.name} x {task.name}: {len(wanted)} rows are there already", flush=True)
        return
    seeds, selections = {seed for _, seed, _ in pending}, [selection for selection, *_ in wanted]
    vectors = _vectors(encoder, task, protocol, settings, store, seeds, selections)
    outcome.n_encoded += vectors.n_encoded
    if (
        layers_asked(encoder, settings) == "all"
        and len(encoder.layer_infos) > 1
        and chosen is None
        and not vectors.frames
    ):
        _save_hints(encoder, task, protocol, settings, vectors)
    for row in _probe_rows(encoder, task, protocol, settings, vectors, pending):
        outcome.rows.append(row)
        outcome.n_new += 1


def _vectors(
    encoder: Encoder,
    task: Task,
    protocol: ProtocolConfig,
    settings: Settings,
    store: FeatureStore,
    seeds: set[int],
    selections: Sequence[Selection],
) -> Vectors:
    """All that rows of these seeds and layers are computed from, encoded now where it is not stored."""
    prepare(task)
    if not settings.skip_bad:
        task.require_files()
    layers = [name for selection in selections for name in selection.layers]
    return extracted(encoder, task, protocol, settings, store, seeds, layers)


def evaluate_row(
    encoder: Encoder, task: Task, protocol: ProtocolConfig, settings: Settings, selection: Selection, seed: int
) -> Result:
    """One row, whatever is in the results folder already; saved there."""
    vectors = _vectors(encoder, task, protocol, settings, FeatureStore(settings.store), {seed}, [selection])
    id = results.run_id(identity(encoder, task, protocol, settings, selection, seed))
    (row,) = _probe_rows(encoder, task, protocol, settings, vectors, [(selection, seed, id)])
    return row


def _save_hints(encoder: Encoder, task: Task, protocol: ProtocolConfig, settings: Settings, vectors: Vectors) -> None:
    """What can be said of every layer without a label, once; under the input statistics of the first round."""
    from evar.metrics.label_free import measure

    names = tuple(layer.name for layer in encoder.layer_infos)
    out, seed = Path(settings.out), min(vectors.of_rounds)
    row = identity(encoder, task, protocol, settings, Selection(names, "none"), seed)
    own = {key: row[key] for key in results.HINTS_IDENTITY_KEYS}
    if results.hints_path(out, results.hints_id(own)).is_file() or vectors.usable.sum() < 3:
        return
    stats = vectors.of_rounds[seed][0]
    found = measure(lambda layer: vectors.layer(layer, stats)[vectors.usable], names)
    results.save_hints(out, results.HintsRecord(**own, weights=encoder.weights_label, norm_stats=stats, **found))


def _probe_rows(
    encoder: Encoder,
    task: Task,
    protocol: ProtocolConfig,
    settings: Settings,
    vectors: Vectors,
    pending: Sequence[tuple[Selection, int, str]],
) -> Iterator[Result]:
    """Fit each pending row and save it as soon as it is there."""
    from sklearn.exceptions import ConvergenceWarning
    from tqdm import tqdm

    label = f"{encoder.name} x {task.name}"
    with tqdm(total=len(pending), desc=f"probes {label}", unit="row", delay=2, leave=False, disable=None) as bar:
        for together in group_rows(protocol, task, vectors, pending):
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # said below by the row's name, and in the result
                rows = fit_rows(protocol, task, vectors, [(one, seed) for one, seed, _ in together], settings.skip_bad)
            seconds = (time.perf_counter() - began) / len(together)
            for (selection, seed, id), fitted in zip(together, rows, strict=True):
                for one, stats in zip(fitted, vectors.of_rounds[seed], strict=True):
                    one.norm_stats = stats
                if not all(report_fit(one.probe).converged for one in fitted):
                    said = f"  {label} {'+'.join(selection.layers)}: the probe stopped before its optimum"
                    tqdm.write(said) if bar.n else print(said, flush=True)
                result = make_result(
                    encoder, task, protocol, settings, selection, seed, id, vectors.bad, fitted, seconds
                )
                save_row(Path(settings.out), result, fitted, task)
                bar.update()
                yield result


def group_rows(
    protocol: ProtocolConfig, task: Task, vectors: Vectors, pending: Sequence[tuple[Selection, int, str]]
) -> Iterator[list[tuple[Selection, int, str]]]:
    """Rows to fit side by side: several where the probe gains by it, as many as memory bears."""
    probe = make_probe(protocol, task.config.metric, 0)

    def n_bytes(selection: Selection, seed: int) -> int:
        fitted = WeightedSumProbe() if selection.fusion == "weighted" else probe
        width, n_classes = vectors.width(selection), len(task.config.classes)
        return len(task.rounds(seed)) * estimate_fit_bytes(fitted, len(task), width, n_classes)

    return side_by_side((row, n_bytes(*row[:2])) for row in pending)


def _existing(out: Path, id: str) -> Result | None:
    """The result of an earlier run, if it is whole; a damaged file is computed again."""
    path = results.run_path(out, id)
    try:
        return results.load(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"computing {id} again: {error}", flush=True)
        return None
