"""Check label curves and records of robustness of a bundle against their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.config.plain_text import make_printable
from evar.report.label_curves import Point, read_points
from evar.results import Result, load_draws, load_predictions
from evar.results.records import read_record
from evar.results.robustness import (
    FOLDER,
    RobustnessRecord,
    load_altered_predictions,
    make_robustness_record,
    name_robustness,
)
from evar.sharing.comparing import are_same, is_same, shorten

if TYPE_CHECKING:
    import numpy as np

#: draws of one number of labels that are resampled; more would fill the memory
MOST_DRAWS = 10_000
#: fields that a record repeats from its clean rows
_FROM_ROW = (
    *("encoder", "weights", "weights_sha256", "encoder_options", "layers", "fusion", "depth", "default"),
    *("task", "task_version", "index_sha256", "limit", "metric", "chance", "protocol", "n_test"),
)


def check_curve(row: Result, folder: Path, predictions: Mapping[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """List differences between a row's label curve and what the predictions of its draws give.

    Args:
        row: with or without a curve.
        folder: results folder.
        predictions: of the row.

    Returns:
        Sentences on differences, and sentences on what could not be checked.
    """
    if "curve" not in row.params:
        return [], []
    points = read_points(row)
    if not points:
        return ["its label curve is not legal"], []
    try:
        draws = load_draws(folder, row.id)
    except FileNotFoundError:
        return [], ["its label curve was not checked: the predictions of its draws are not in the bundle"]
    except ValueError as error:
        return [make_printable(f"the predictions of its draws cannot be read: {error}", one_line=True)], []
    n_clips = len(predictions["clip"])
    if len(draws) != len(points) or draws[0].shape[1] != n_clips:
        return [
            f"its label curve has {len(points)} numbers of labels and {n_clips} test clips, but its draws have "
            f"{len(draws)} and {draws[0].shape[1]}"
        ], []
    reasons = []
    if points[-1].n is None and predictions["y_pred"].tolist() not in draws[-1].tolist():
        reasons.append("its label curve does not end with the predictions of the row, which has all labels")
    for point, predicted in zip(points, draws, strict=True):
        reasons += [
            f"with {point.label} labels per class, {text}" for text in _check_point(row, point, predicted, predictions)
        ]
    return reasons, []


def _check_point(row: Result, point: Point, predicted: np.ndarray, predictions: Mapping[str, np.ndarray]) -> list[str]:
    from evar.metrics.draws import measure_draws

    if not len(predicted) == point.n_draws == len(point.draw_scores):
        return [
            f"it has {point.n_draws} draws and {len(point.draw_scores)} scores, but predictions of {len(predicted)}"
        ]
    if len(predicted) > MOST_DRAWS:
        return [f"it has {len(predicted):,} draws, of which at most {MOST_DRAWS:,} can be checked"]
    where = predictions["group"], predictions["round"]
    try:
        scores, mean, single = measure_draws(row.metric, predictions["y_true"], predicted, *where)
    except (ValueError, IndexError, TypeError) as error:
        return [make_printable(f"its predictions do not fit {row.metric}: {error}", one_line=True)]
    compared: list[tuple[str, Sequence[float], Sequence[float]]] = [
        ("draw_scores", point.draw_scores, scores.tolist()),
        ("score", [point.score], [float(scores.mean())]),
        ("interval", point.interval, mean),
        ("one_draw", point.one_draw, single),
    ]
    return _compare(compared)


def _compare(compared: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> list[str]:
    """Write a sentence on each field whose numbers are not those that the predictions give."""
    return [
        f"{name} is {shorten(_unpack(said))}, but the predictions give {shorten(_unpack(found))}"
        for name, said, found in compared
        if not are_same(said, found)
    ]


def _unpack(values: Sequence[float]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def list_record_ids(folder: Path) -> list[str]:
    """List the ids of the records of robustness of a results folder, readable or not."""
    return sorted(path.stem for path in (folder / FOLDER).glob("*.json"))


def check_record(folder: Path, id: str, rows: Mapping[str, Result]) -> tuple[float | None, list[str]]:
    """List differences between a record of robustness and what follows from its clean rows and its predictions.

    Args:
        folder: results folder.
        id: of the record.
        rows: of the folder that can be read.

    Returns:
        The score on altered clips, None if the record cannot be read, and the sentences.
    """
    try:
        record = read_record(folder / FOLDER / f"{id}.json", make_robustness_record)
    except (ValueError, OSError) as error:
        return None, [make_printable(f"it cannot be read: {error}", one_line=True)]
    clean = [rows[run] for run in record.runs if run in rows]
    if len(clean) < len(record.runs):
        return record.score, ["not all of its clean rows are in the bundle"]
    reasons = _check_origin(record, id, clean)
    try:
        before = [load_predictions(folder, row.id) for row in clean]
        after = load_altered_predictions(folder, record)
    except (FileNotFoundError, ValueError) as error:
        return record.score, [*reasons, make_printable(f"its predictions cannot be read: {error}", one_line=True)]
    return record.score, reasons + _check_losses(record, clean, before, after)


def _check_origin(record: RobustnessRecord, id: str, clean: Sequence[Result]) -> list[str]:
    """Compare what a record repeats with its rows, and its name with what it is made from."""
    reasons = [] if record.id == id else [f"it holds the record {record.id}"]
    first = clean[0].to_dict()
    for name in _FROM_ROW:
        said = getattr(record, name)
        said = list(said) if isinstance(said, tuple) else said
        if said != first[name]:
            reasons.append(make_printable(f"{name} is {shorten(said)}, but its clean row says {shorten(first[name])}"))
    if [row.seed for row in clean] != list(record.seeds):
        reasons.append(f"seeds are {list(record.seeds)}, but those of its clean rows are {[row.seed for row in clean]}")
    if not is_same(record.clean_score, sum(row.score for row in clean) / len(clean)):
        reasons.append(f"clean_score is {record.clean_score!r}, but its clean rows give another mean")
    if record.clean_interval is not None and tuple(record.clean_interval) != tuple(clean[0].interval or ()):
        reasons.append(f"clean_interval is {list(record.clean_interval)}, but its first clean row says another")
    specs = [spec for row in clean if isinstance(spec := row.settings.get("spec"), Mapping)]
    if len(specs) == len(clean):
        try:
            named = name_robustness(specs, record.alteration, record.severities, record.condition)
        except (ValueError, KeyError, TypeError) as error:
            return [*reasons, make_printable(f"it cannot be named: {error}", one_line=True)]
        if named != id:
            reasons.append(f"its clean rows and its alteration belong to the name {named}")
    return reasons


def _check_losses(
    record: RobustnessRecord,
    clean: Sequence[Result],
    before: Sequence[Mapping[str, np.ndarray]],
    after: Sequence[Mapping[str, np.ndarray]],
) -> list[str]:
    """Compute scores, loss, intervals and test again."""
    import numpy as np

    from evar.metrics import METRICS
    from evar.metrics.losses import measure_loss

    if record.metric not in METRICS:
        return [make_printable(f"its metric {record.metric} is not one of evar's, so that nothing can be recomputed")]
    if len(after) != len(record.severities) * len(clean):
        return [f"it has {len(record.severities)} severities of {len(clean)} runs, but {len(after)} predictions"]
    first = before[0]
    for name in ("clip", "round", "group", "y_true"):
        if not all(np.array_equal(first[name], one[name]) for one in (*before, *after)):
            return [f"{name} of its predictions differs from that of its clean rows"]
    runs, others = ([one["y_pred"] for one in side] for side in (before, after))
    try:
        found = measure_loss(record.metric, first["y_true"], runs, others, first["group"], first["round"])
    except (ValueError, IndexError, TypeError) as error:
        return [make_printable(f"its predictions do not fit {record.metric}: {error}", one_line=True)]
    reasons = _compare(
        [
            ("score", [record.score], [found.score]),
            ("interval", record.interval, found.interval),
            ("loss", [record.loss], [found.loss]),
            ("loss_interval", record.loss_interval, found.loss_interval),
            ("p", [record.p], [found.p]),
        ]
    )
    if record.test != found.test:
        reasons.append(make_printable(f"test is {shorten(record.test)}, but the predictions call for {found.test}"))
    return reasons
