"""One cell of a grid: its vectors, then a probe for each of its rows; each row is saved at once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar import results
from evar.classifiers.saving import head_path, save_heads
from evar.config.messages import progress_bar, tell
from evar.experiment.loading import provide_clips
from evar.experiment.outcome import Outcome, clear_failure, load_row, record_failure
from evar.experiment.result_row import make_result, save_row
from evar.experiment.rounds import list_usable
from evar.experiment.selection import Selection
from evar.experiment.task_warnings import check_labels, warn_about_sounds
from evar.lineval.cell_features import Vectors, encode_cell
from evar.lineval.costs import record_cost
from evar.lineval.fit import estimate_fit_bytes, fit_rows, group_fits
from evar.probes.making import compares_clips, make_probe, needs_training
from evar.probes.protocol import report_fit
from evar.probes.weighted_sum import WeightedSumProbe
from evar.results import Result
from evar.storage.feature_store import FeatureStore

if TYPE_CHECKING:
    from evar.experiment.cell import Cell
    from evar.experiment.spec import Resources, RowSpec


@dataclass(frozen=True)
class Workplace:
    """Folders, device and store that the cells of a grid use.

    Attributes:
        resources: folders, devices and limits.
        store: the feature store, opened.
        out: local results folder.
    """

    resources: Resources
    store: FeatureStore
    out: Path


def evaluate_cell(
    cell: Cell, workplace: Workplace, outcome: Outcome, chosen: Sequence[Selection] | None = None
) -> None:
    """Compute the missing rows of a cell and add all of its rows to the outcome.

    Args:
        cell: encoder, task, protocol and request.
        workplace: store and results folder.
        outcome: of the grid.
        chosen: layers in place of those that were requested.

    Raises:
        ValueError, OSError, RuntimeError: what keeps the cell from being computed; rows that were made stay.
    """
    rows = cell.list_rows(chosen)
    pending = []
    for row in rows:
        found = load_row(workplace.out, row.id)
        if found is None or lacks_head(workplace, row):
            pending.append(row)
        else:
            outcome.rows.append(found)
    if not pending:
        tell(f"{cell.label}: {len(rows)} rows are there already")
        return
    vectors = encode_rows(cell, workplace, {row.seed for row in pending}, [row.selection for row in rows])
    outcome.n_encoded += vectors.n_encoded
    record_cost(cell, vectors, workplace.out)
    is_sweep = cell.spec.wanted_layers == "all" and len(cell.encoder.layer_infos) > 1
    if is_sweep and chosen is None and not vectors.frames:
        _save_hints(cell, workplace, vectors)
    for result in probe_rows(cell, workplace, vectors, _leave_out_broken(cell, workplace, vectors, pending, outcome)):
        outcome.rows.append(result)
        outcome.n_new += 1
        if (workplace.out / "failures").is_dir():
            clear_failure(workplace.out, cell.spec, layers="+".join(result.layers))


def lacks_head(workplace: Workplace, row: RowSpec) -> bool:
    """Tell whether the fitted probe of a row is wanted and not there."""
    return workplace.resources.save_head and not head_path(workplace.out, row.id).is_file()


def _leave_out_broken(
    cell: Cell, workplace: Workplace, vectors: Vectors, pending: Sequence[RowSpec], outcome: Outcome
) -> list[RowSpec]:
    """The rows that can be fitted; one whose layer is not finite for a whole set of clips fails alone, with its reason."""
    fine = []
    for row in pending:
        bad, layers = vectors.find_bad(row.selection), "+".join(row.layers)
        if len(bad) == len(vectors.bad):
            fine.append(row)
            continue
        usable = vectors.find_usable(row.selection)
        try:
            for a_round in cell.task.rounds(row.seed):
                list_usable(
                    a_round, usable, cell.task.name, needs_valid=False, needs_train=needs_training(cell.protocol)
                )
        except ValueError as error:
            n_broken = len(bad) - len(vectors.bad)
            reason = f"layer {layers} is not finite for {n_broken} of {len(cell.task)} clips: {error}"
            record_failure(outcome, workplace.out, cell.spec, reason, layers=layers)
        else:
            fine.append(row)
    return fine


def encode_rows(cell: Cell, workplace: Workplace, seeds: set[int], selections: Sequence[Selection]) -> Vectors:
    """Return all that rows of these seeds and layers are computed from, encoded now where it is not stored.

    Raises:
        ValueError: if some round has labels that no probe can be fitted to.
        FileNotFoundError, OSError: as `evar.experiment.loading.provide_clips`.
    """
    check_labels(cell.task, seeds, cell.label, needs_classes=not compares_clips(cell.protocol))
    provide_clips(cell.task, cell.spec)
    warn_about_sounds(cell)
    layers = [name for selection in selections for name in selection.layers]
    return encode_cell(cell, workplace.store, workplace.resources, seeds, layers)


def evaluate_row(cell: Cell, row: RowSpec, workplace: Workplace) -> Result:
    """Compute one row, even if the results folder has it already, and save it there."""
    vectors = encode_rows(cell, workplace, {row.seed}, [row.selection])
    (result,) = probe_rows(cell, workplace, vectors, [row])
    return result


def probe_rows(cell: Cell, workplace: Workplace, vectors: Vectors, pending: Sequence[RowSpec]) -> Iterator[Result]:
    """Fit each pending row, and save each at once."""
    from sklearn.exceptions import ConvergenceWarning

    device, with_heads = workplace.resources.device, workplace.resources.save_head
    with progress_bar(total=len(pending), desc=f"probes {cell.label}", unit="row", delay=2, leave=False) as bar:
        for together in group_rows(cell, vectors, pending):
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", ConvergenceWarning
                )  # printed below by the row's name, and in the result
                fits = fit_rows(
                    cell, vectors, [(row.selection, row.seed) for row in together], device, with_heads=with_heads
                )
            seconds = (time.perf_counter() - began) / len(together)
            for row, fitted in zip(together, fits, strict=True):
                if not all(report_fit(one.probe).converged for one in fitted):
                    text = f"  {cell.label} {'+'.join(row.layers)}: the probe stopped before its optimum"
                    tell(text)
                result = make_result(
                    cell,
                    row,
                    fitted,
                    bad=vectors.find_bad(row.selection),
                    seconds=seconds,
                    resources=workplace.resources,
                )
                if with_heads:  # before the row, so that a row that was asked for with its head has one
                    save_heads(workplace.out, cell, result, fitted)
                save_row(workplace.out, result, fitted, cell.task)
                bar.update()
                yield result


def group_rows(cell: Cell, vectors: Vectors, pending: Sequence[RowSpec]) -> Iterator[list[RowSpec]]:
    """Yield rows to fit side by side: several where the probe gains by it, as many as memory bears."""
    task = cell.task
    probe = make_probe(cell.protocol, cell.metric, 0)

    def count_bytes(row: RowSpec) -> int:
        fitted = WeightedSumProbe() if row.fusion == "weighted" else probe
        width, n_classes = vectors.width(row.selection), len(task.config.classes)
        return len(task.rounds(row.seed)) * estimate_fit_bytes(fitted, len(task), width, n_classes)

    return group_fits((row, count_bytes(row)) for row in pending)


def _save_hints(cell: Cell, workplace: Workplace, vectors: Vectors) -> None:
    """Measure every layer without labels, once, under the input statistics of the first round."""
    from evar.metrics.label_free import measure

    names = tuple(layer.name for layer in cell.encoder.layer_infos)
    seed = min(vectors.of_rounds)
    row = cell.specify_row(Selection(names, "none"), seed).to_plain()
    own = {key: row[key] for key in results.HINTS_IDENTITY_KEYS}
    if results.hints_path(workplace.out, results.hints_id(own)).is_file() or vectors.usable.sum() < 3:
        return
    if len(vectors.find_bad(Selection(names, "none"))) > len(vectors.bad):
        tell(f"{cell.label}: no hints, since some layer is not finite")
        return
    stats = vectors.of_rounds[seed][0]
    found = measure(lambda layer: vectors.layer(layer, stats)[vectors.usable], names)
    record = results.HintsRecord(**own, weights=cell.encoder.weights_label, norm_stats=stats, **found)
    results.save_hints(workplace.out, record)
