"""What a results folder holds beside rows, as a bundle packs it: draws of label curves, and records of robustness."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evar.report.label_curves import find_curves
from evar.report.tables.altered import COLUMNS, list_lines
from evar.results import Result, load_all, load_draws, load_predictions, save_draws, save_predictions
from evar.results.records import to_plain
from evar.results.robustness import (
    FOLDER,
    RobustnessRecord,
    load_robustness,
    make_robustness_record,
    name_robustness,
)
from evar.sharing.privacy import scrub


def pack_predictions(predictions: Mapping[str, Any], names: frozenset[str]) -> bytes:
    """Write predictions without absolute paths and names.

    Args:
        predictions: arrays of `evar.results.save_predictions`.
        names: of the user and the machine.
    """
    texts = {key: scrub(predictions[key].tolist(), names) for key in ("clip", "group")}
    with tempfile.TemporaryDirectory() as folder:
        return save_predictions(Path(folder), "a", **{**predictions, **texts}).read_bytes()


def pack_draws(out: Path, row: Result) -> bytes | None:
    """Write the predictions of every draw of a row's curve; None if the row has no curve.

    Args:
        out: results folder.
        row: of that folder.

    Raises:
        FileNotFoundError: if the row has a curve, but its draws are missing.
        ValueError: if the file is torn.
    """
    if "curve" not in row.params:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return save_draws(Path(folder), "a", load_draws(out, row.id)).read_bytes()


def pack_robustness(
    out: Path, rows: Mapping[str, tuple[Result, Result]], names: frozenset[str]
) -> tuple[dict[str, bytes], list[str]]:
    """Write the records of robustness whose clean rows are all packed, with their predictions.

    Args:
        out: results folder.
        rows: id of each packed row -> the row of the folder, and as it is packed.
        names: of the user and the machine.

    Returns:
        Name in the bundle -> bytes, and sentences on records that are left out though some of their rows are packed.
    """
    files: dict[str, bytes] = {}
    notes = []
    for record in load_robustness(out):
        found = [rows[id] for id in record.runs if id in rows]
        if len(found) < len(record.runs):
            if found:
                notes.append(f"robustness/{record.id} is left out: not all of its clean rows are packed")
            continue
        shared = make_record_shareable(record, found, names)
        try:
            packed = {
                f"{FOLDER}/predictions/{to}.npz": pack_predictions(load_predictions(out / FOLDER, id), names)
                for id, to in zip(record.predictions, shared.predictions, strict=True)
            }
        except (FileNotFoundError, ValueError) as error:
            text = scrub(str(error), names)
            notes.append(f"robustness/{record.id} is left out: its predictions cannot be read ({text})")
            continue
        files |= packed
        data = json.dumps(to_plain(shared), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        files[f"{FOLDER}/{shared.id}.json"] = (data + "\n").encode("utf-8")
    return files, notes


def make_record_shareable(
    record: RobustnessRecord, rows: Sequence[tuple[Result, Result]], names: frozenset[str]
) -> RobustnessRecord:
    """Return a record without absolute paths and names; its ids follow what it is made from.

    Args:
        record: of a results folder.
        rows: its clean rows, each as in the folder and as it is packed.
        names: of the user and the machine.
    """
    data = scrub(to_plain(record), names)
    data["runs"] = [shared.id for _, shared in rows]
    before, after = (
        [spec for pair in rows if isinstance(spec := pair[side].settings.get("spec"), Mapping)] for side in (0, 1)
    )
    if data == to_plain(record) or not len(before) == len(after) == len(rows):
        return make_robustness_record(data)
    about = record.alteration, record.severities, record.condition
    if name_robustness(before, *about) == record.id:
        name, severities, condition = data["alteration"], data["severities"], data["condition"]
        data["id"] = name_robustness(after, name, severities, condition)
        n_runs = len(rows)
        data["predictions"] = [
            name_robustness(after, name, [severity], [one]) + (f"_{number}" if number else "")
            for severity, one in zip(severities, condition, strict=True)
            for number in range(n_runs)
        ]
    return make_robustness_record(data)


def make_comparisons(folder: Path) -> bytes | None:
    """`comparisons.json` of a results folder: which encoder leads with how many labels, and corrected tests of losses.

    Args:
        folder: results folder.

    Returns:
        The file; None if there are no label curves and no records of robustness.
    """
    curves, records = find_curves(load_all(folder), folder), load_robustness(folder)
    if not curves and not records:
        return None
    lines = [dict(zip(COLUMNS, line, strict=True)) for line in list_lines(records)]
    tasks = [
        {
            "task": task.title,
            "metric": task.metric,
            "pairs": [dataclasses.asdict(pair) for pair in task.pairs],
            "agreements": [dataclasses.asdict(one) for one in task.agreements],
            "problem": task.problem,
        }
        for task in curves
    ]
    data = {"label_curves": tasks, "robustness": lines}
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
