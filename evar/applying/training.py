"""`evar train`: one encoder on one task, its layer and strength chosen on validation clips, as a classifier file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.classifiers.file import require_name
from evar.classifiers.record import ClassifierRecord
from evar.classifiers.saving import ONE_PROBE, describe_test, make_classifier, save_classifier
from evar.config.applying_flags import TRAIN_FLAGS
from evar.config.flags import read_flags
from evar.config.messages import silence, tell
from evar.experiment.cell import Cell
from evar.experiment.loading import load_spec_encoder
from evar.experiment.request import parse_request
from evar.experiment.resolving import resolve_request
from evar.experiment.result_row import make_result
from evar.lineval.cells import Workplace, encode_rows, group_rows
from evar.lineval.fit import fit_rows
from evar.lineval.run import open_workplace
from evar.metrics import METRICS
from evar.numeric.device import pick_device
from evar.probes.choosing import choose_setting
from evar.probes.protocol import report_fit

if TYPE_CHECKING:
    from evar.experiment.rounds import FittedRound
    from evar.experiment.spec import RowSpec
    from evar.lineval.cell_features import Vectors
    from evar.results import Result


@dataclass(frozen=True)
class Trained:
    """A classifier that was trained and written.

    Attributes:
        path: of the classifier file.
        card: of its model card.
        record: what the file says.
        n_encoded: clips that were encoded now; the others were stored.
        layer_scores: where a layer was chosen, layer -> mean validation score over rounds, the best first.
    """

    path: Path
    card: Path
    record: ClassifierRecord
    n_encoded: int
    layer_scores: dict[str, float]


def train_classifier(task: str, encoder: str, output: str | Path, **flags: Any) -> Trained:
    """Train a classifier of a task's classes on the vectors of a frozen encoder, and write it with a model card.

    It is the path of `evar lineval`: the same vectors from the same store, the same probe and choices. Test clips have no
    say in anything but the score.

    A published split: the probe in the file is the one that is tested. Folds: the recipe is tested in cross-validation,
    and the probe in the file is then fitted on the clips of all folds, so that none is wasted; it has itself no test clips.

    Args:
        task: name, as `evar tasks` lists them.
        encoder: name, as `evar encoders` lists them.
        output: path of the file, which ends in .safetensors; the model card is written beside it.
        **flags: as `evar train --help` lists them, such as layers="all" (the layer is chosen on validation clips),
            data_root="/data".

    Returns:
        Where the file is, and what it says.

    Raises:
        ValueError: if a name or setting is unknown, or the protocol's probe cannot be saved, before any work is done.
        OSError: if clips are missing, or the file cannot be written.

    Example:
        >>> trained = train_classifier("esc10", "crepe.tiny", "esc10.safetensors", data_root="/data")  # doctest: +SKIP
        >>> trained.record.score.score  # doctest: +SKIP
    """
    values = read_flags(TRAIN_FLAGS, flags, "evar.train_classifier")
    path = require_name(output)
    with silence(values.pop("quiet")), tempfile.TemporaryDirectory() as folder:
        return _train(task, encoder, path, values, folder)


def _train(task: str, encoder: str, path: Path, values: dict[str, Any], folder: str) -> Trained:
    if "," in encoder or "," in task or "all" in (encoder, task):
        raise ValueError(
            f"a classifier has one encoder and one task, got encoder {encoder!r} and task {task!r}; compare several with "
            f"evar lineval {encoder} {task}, then train the best"
        )
    if values.get("fusion") == "search":
        raise ValueError(
            "evar train takes layers as they are: search with evar lineval ENCODER TASK --fusion=search --export=NAME, then "
            "train with --encoder=NAME"
        )
    grid = resolve_request(parse_request(encoder, task, **values, out=folder, save_head=True, seeds=1))
    for rejection in grid.rejections:
        raise ValueError(rejection.reason)
    (spec,) = grid.cells
    workplace = open_workplace(grid)
    cell = Cell(load_spec_encoder(spec, pick_device(workplace.resources.device)), grid.tasks[spec.task], spec)
    rows = cell.list_rows()
    vectors = encode_rows(cell, workplace, {row.seed for row in rows}, [row.selection for row in rows])
    row, fitted, scores = _choose_row(cell, workplace, vectors, rows)
    result = make_result(
        cell, row, fitted, bad=vectors.find_bad(row.selection), seconds=0.0, resources=workplace.resources
    )
    kept, tested = list(fitted), describe_test(cell.task, result)
    if cell.task.config.part == "fold":
        kept, tested = [fit_all_clips(cell, workplace, row)], _describe_cross_validation(result)
    record, probes = make_classifier(cell, result, kept, ONE_PROBE, tested)
    written, card = save_classifier(path, record, probes)
    return Trained(written, card, record, vectors.n_encoded, scores)


def _choose_row(
    cell: Cell, workplace: Workplace, vectors: Vectors, rows: Sequence[RowSpec]
) -> tuple[RowSpec, list[FittedRound], dict[str, float]]:
    """Choose the row whose layers have the best validation score, mean over rounds (of equal ones the smaller loss)."""
    fits: list[list[FittedRound]] = []
    for together in group_rows(cell, vectors, rows):
        wanted = [(row.selection, row.seed) for row in together]
        fits += fit_rows(cell, vectors, wanted, workplace.resources.device, with_heads=True)
    if len(rows) == 1:
        return rows[0], fits[0], {}
    reports = [[report_fit(one.probe) for one in fitted] for fitted in fits]
    if any(report.valid_score is None for of_row in reports for report in of_row):
        raise ValueError(
            f"protocol {cell.protocol.name} chooses nothing on validation clips, so that it cannot choose among "
            f"{len(rows)} layers; name one with --layers=NAME"
        )
    scores = [_average([report.valid_score for report in of_row]) for of_row in reports]
    losses = [_average([report.valid_log_loss for report in of_row]) for of_row in reports]
    best = choose_setting(cell.task.config.metric, scores, losses)
    names = ["+".join(row.layers) for row in rows]
    tell(f"{cell.label}: layer {names[best]} chosen on validation clips among {len(rows)}")
    ranked = sorted(zip(names, scores, strict=True), key=lambda pair: -METRICS[cell.task.config.metric].orient(pair[1]))
    return rows[best], fits[best], dict(ranked)


def _average(values: Sequence[float | None]) -> float:
    return sum(0.0 if value is None else float(value) for value in values) / len(values)


def fit_all_clips(cell: Cell, workplace: Workplace, row: RowSpec) -> FittedRound:
    """Fit one more probe, on the clips of all folds: one part of them chooses the strength, as in every round.

    Args:
        cell: of a task with folds.
        workplace: its store holds the vectors.
        row: layers, fusion and seed.

    Returns:
        The round "all clips". It has no test clips, and its score means nothing.
    """
    whole = Cell(cell.encoder, cell.task.join_folds(row.seed), replace(cell.spec, index_sha256=""))
    vectors = encode_rows(whole, workplace, {row.seed}, [row.selection])
    ((fitted,),) = fit_rows(whole, vectors, [(row.selection, row.seed)], workplace.resources.device, with_heads=True)
    return fitted


def _describe_cross_validation(result: Result) -> str:
    return (
        f"the same recipe in {len(result.round_scores)} rounds of cross-validation on {result.n_test} clips, each tested by "
        "a probe that had not seen it; the probe in this file was fitted on all clips afterwards, and has no test clips left"
    )
