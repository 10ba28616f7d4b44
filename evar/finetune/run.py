"""Fine-tuning of a grid: a fresh model for every round, the best validation weights tested once, rows of the one table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.config.messages import tell
from evar.experiment.cell import Cell
from evar.experiment.loading import load_spec_encoder, load_spec_task, provide_clips
from evar.experiment.outcome import EXPECTED_ERRORS, Outcome, clear_failure, load_row, record_failure
from evar.experiment.result_row import make_result, save_row
from evar.experiment.selection import Selection
from evar.experiment.task_warnings import check_labels, warn_about_sounds
from evar.extraction import input_statistics as norm_stats
from evar.finetune.clips import TrainingError
from evar.finetune.export import export
from evar.finetune.network import list_head_layers, mel_filters
from evar.finetune.protocol import TuningProtocol, change_protocol
from evar.finetune.rounds import Tuned, TuningRound, is_first_process, run_round
from evar.finetune.spec import TuningGrid, TuningSettings, TuningSpec, resolve_tuning
from evar.finetune.training import has_logmel
from evar.finetune.waveforms import decode_task
from evar.numeric.device import pick_device
from evar.storage.feature_store import FeatureStore

if TYPE_CHECKING:
    from evar.encoders.base import Encoder
    from evar.experiment.spec import RowSpec
    from evar.results import Result

__all__ = ["Tuned", "TuningSettings", "resolve_tuning", "run_tuning"]


def run_tuning(grid: TuningGrid) -> Outcome:
    """Fine-tune every encoder on every task; a cell that fails is recorded and the others go on.

    Args:
        grid: as `evar.finetune.spec.resolve_tuning` makes it.
    """
    outcome, out = Outcome(), Path(grid.resources.out)
    for spec in grid.cells:
        try:
            task = load_spec_task(spec.cell, grid.resources.data_root)
            provide_clips(task, spec.cell)
            encoder = load_spec_encoder(spec.cell, pick_device(grid.resources.device))
            cell, settled = _settle(Cell(encoder, task, spec.cell), spec)
            for row, is_new in _tune_cell(cell, settled, grid):
                outcome.rows.append(row)
                outcome.n_new += is_new
        except EXPECTED_ERRORS as error:
            shown = ValueError(str(error)) if isinstance(error, TrainingError) else error
            record_failure(outcome, out, spec.cell, shown)
        else:
            clear_failure(out, spec.cell)
    return outcome


def _settle(cell: Cell, spec: TuningSpec) -> tuple[Cell, TuningSpec]:
    """Check that the cell can be fine-tuned, and take out of the protocol what its encoder has no use for."""
    encoder, name = cell.encoder, spec.cell.encoder
    if cell.task.config.kind in ("events", "captions"):
        raise ValueError(
            f"{cell.task.name} is a task of {cell.task.config.kind}, which finetune.py has no head for; lineval.py serves it"
        )
    if spec.protocol.freeze != "encoder" and next(encoder.parameters(), None) is None:
        raise ValueError(f"{name} has no parameters to fine-tune; lineval.py serves it, and --freeze=encoder its head")
    settled = spec.with_protocol(_adapt_protocol(spec.protocol, encoder, dict(spec.given)))
    return replace(cell, spec=settled.cell), settled


def _tune_cell(cell: Cell, spec: TuningSpec, grid: TuningGrid) -> Iterator[tuple[Result, bool]]:
    """Rows of one encoder on one task, one for each seed, and whether they are new; those that are there are left alone."""
    names = list_head_layers(cell.encoder, spec.protocol.layers)
    fusion = "none" if len(names) == 1 else "weighted" if spec.protocol.layers == "weighted" else "concat"
    for row in cell.list_rows([Selection(names, fusion)]):
        found = load_row(grid.resources.out, row.id)
        yield (_tune_row(cell, spec, row, grid), True) if found is None else (found, False)


def _tune_row(cell: Cell, spec: TuningSpec, row: RowSpec, grid: TuningGrid) -> Result:
    """Train every round of one seed, and save the row and the encoder of the last round."""
    task, resources, began = cell.task, grid.resources, time.perf_counter()
    check_labels(task, [row.seed], cell.label)
    warn_about_sounds(cell)
    store, out = FeatureStore(resources.store), Path(resources.out)
    waveforms = decode_task(task, cell.encoder.sample_rate, store.folder / "waveforms")
    statistics = norm_stats.of_task(cell.encoder, task, cell.statistics, [row.seed], store)[row.seed]
    folder, fitted, last = out / "finetuned" / row.id, [], None
    for number, a_round in enumerate(task.rounds(row.seed)):
        one = TuningRound(
            cell, waveforms, spec.protocol, grid.options, resources.device, a_round, statistics[number], row.seed,
            folder / f"round{number}",
        )  # fmt: skip
        a_fit, last = run_round(one)
        fitted.append(a_fit)
    seconds = time.perf_counter() - began
    halved = sorted({size for one in fitted if (size := one.probe.chosen_.get("batch_size")) is not None})
    flags = (
        [f"batches of {halved[0]} instead of {spec.protocol.batch_size} clips, for lack of memory"] if halved else []
    )
    result = make_result(cell, row, fitted, bad=waveforms.bad, seconds=seconds, resources=resources, flags=flags)
    result = replace(result, settings={**result.settings, "given": dict(spec.given)})
    if not is_first_process():
        return result
    save_row(out, result, fitted, task)
    if last is not None:
        exported = export(last.network.encoder, spec.cell.encoder, task, result, folder)
        tell(f"  the encoder of the last round is {exported}, for lineval.py and evar embed")
    return result


def _adapt_protocol(protocol: TuningProtocol, encoder: Encoder, given: dict[str, Any]) -> TuningProtocol:
    """Masks are for encoders that have a log-mel, and so on; others do without, unless the command line requests them."""
    needs = (
        (has_logmel(encoder), "log-mel", {"freq_mask": 0, "time_mask": 0, "rrc": False}),
        (bool(mel_filters(encoder)), "log-mel", {"train_frontend": False}),
        (encoder.has_patches, "patches", {"time_patch_out": 0.0, "freq_patch_out": 0.0}),
    )
    off: dict[str, Any] = {}
    for is_there, what, settings in needs:
        if not is_there:
            requested = [name for name in settings if given.get(name)]
            if requested:
                raise ValueError(f"{encoder.name} has no {what} that --{requested[0]} could change; leave it out")
            off |= {name: value for name, value in settings.items() if getattr(protocol, name)}
    if protocol.layers not in ("default", "weighted"):  # layers by position: a row holds their names
        names = "+".join(encoder.layer_names(protocol.layers.split("+")))
        off |= {"layers": names} if names != protocol.layers else {}
    return change_protocol(protocol, off, protocol.name) if off else protocol
