"""One record again, from its file and the clean rows that it names."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from evar import results
from evar.config.alteration import AlterationConfig
from evar.experiment.resolving import resolve_request
from evar.extraction.conditions import list_conditions
from evar.rerun import list_named_code, make_request
from evar.results.records import read_record
from evar.results.robustness import RobustnessRecord, load_altered_predictions, make_robustness_record
from evar.robustness.measuring import RobustnessRequest, run_robustness

#: where the functions of this package's alterations are: a record may name no others
_OWN_FUNCTIONS = "evar.audio.altering."


def measure_again(
    path: str | Path, data_root: str | None = None, store: str | None = None, device: str = "auto"
) -> tuple[RobustnessRecord, RobustnessRecord, int]:
    """Fit the probes of a record again, alter its test clips again, and compare.

    Args:
        path: of the record, `robustness/ID.json` of a results folder that has its clean rows.
        data_root: folder that holds the task's folder.
        store: folder of the feature store; an empty one makes the encoder run again, too.
        device: as for `evar.evaluate`.

    Returns:
        The old record, the new one, and the number of predictions for altered clips that differ.

    Raises:
        FileNotFoundError: if there is no such file, or clips or clean rows are missing.
        ValueError: if it is no record, names code or a recording of somebody's own, or what it was made with is no longer
            what is here.
    """
    old = read_record(Path(path), make_robustness_record)
    out = Path(path).parent.parent
    row = results.load(results.run_path(out, old.runs[0]))
    if named := list_named_code(row):
        raise ValueError(f"{old.id} names code to be imported ({'; '.join(named)}); run `evar robust` with it yourself")
    conditions = tuple(list_conditions([_restore_alteration(old)]))
    with tempfile.TemporaryDirectory() as folder:
        settings = make_request(row, data_root, store, device)
        settings = dataclasses.replace(settings, seeds=len(old.seeds), out=folder)
        outcome = run_robustness(RobustnessRequest(resolve_request(settings), conditions))
        for failure in outcome.failures:
            raise ValueError(failure.reason)
        new = next((one for one in outcome.records if one.severities == old.severities), None)
        if new is None or new.id != old.id:
            raise ValueError(
                f"{old.id}: the record was made with another checkpoint, index, protocol, alteration or codec than those "
                f"here, which make {new.id if new else 'none'}"
            )
        try:
            before = load_altered_predictions(out, old)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{old.id}: its predictions are not beside it ({error})") from error
        after = load_altered_predictions(folder, new)
    n_changed = sum(_count_other(one["y_pred"], other["y_pred"]) for one, other in zip(before, after, strict=True))
    return old, new, n_changed


def _restore_alteration(record: RobustnessRecord) -> AlterationConfig:
    """Return the alteration that a record describes.

    Raises:
        ValueError: if it names a function or a recording that does not come with this package.
    """
    first: dict[str, Any] = dict(record.condition[0])
    params = {name: value for name, value in first.get("params", {}).items() if name != record.parameter}
    function = str(first.get("function", ""))
    if not function.startswith(_OWN_FUNCTIONS) or "source_sha256" in first or "recording" in params:
        raise ValueError(
            f"{record.id} was made with a function or a recording of somebody's own ({function}); run `evar robust` with "
            "its YAML or --background again"
        )
    return AlterationConfig(
        name=record.alteration,
        title=record.title,
        function=function,
        parameter=record.parameter,
        unit=record.unit,
        severities=tuple(record.severities),
        version=int(first.get("version", 1)),
        params=params,
    )


def _count_other(one: Any, other: Any) -> int:
    if one.shape != other.shape:
        return len(other)
    return int((one != other).reshape(len(one), -1).any(axis=1).sum())
