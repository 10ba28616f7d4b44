"""Results on disk: written so that a crash leaves the old file, and that several processes may write at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.results.identity import check_id, plain, run_id
from evar.results.records import read_json, read_record, read_records, write_json
from evar.results.row import Result, utc_now
from evar.storage.atomic import remove, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Failure:
    """A cell of the grid that gave no result, and why.

    Attributes:
        cell: what was asked for, as `save_failure` got it.
        reason: one line.
        created: ISO 8601 time in UTC.
    """

    cell: Mapping[str, Any]
    reason: str
    created: str


def run_path(out: Path, id: str) -> Path:
    """Where the result of that id is, or would be; raises ValueError if the id is no plain file stem."""
    return Path(out) / "runs" / f"{check_id(id)}.json"


def save(result: Result, out: Path) -> Path:
    """Write `out/runs/ID.json`, replacing an earlier run of that id; save its predictions first.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     load_all(out)
        []
    """
    path = run_path(out, result.id)
    write_json(path, result.to_dict())
    return path


def load(path: Path) -> Result:
    """Read one result.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is torn or not a result; the file and the key are named.
    """
    return read_record(path, Result.from_dict)


def load_all(out: Path) -> list[Result]:
    """Every result below `out/runs`, by file name; a file that cannot be read is named in a warning and left out."""
    return read_records(Path(out) / "runs", Result.from_dict, "result")


def save_predictions(
    out: Path, id: str, *, clip: ArrayLike, round: ArrayLike, group: ArrayLike, y_true: ArrayLike, y_pred: ArrayLike
) -> Path:
    """Write `out/predictions/ID.npz`: what was predicted for every test clip of every round.

    Args:
        out: results folder.
        id: of the result.
        clip: (clips,) text, the clip's path in the index.
        round: (clips,) whole numbers, the round in which it was tested.
        group: (clips,) text; clips of one recording share a group.
        y_true: (clips,) whole numbers >= 0, index of the class; (clips, labels) whole numbers 0 and 1, where a clip has
            several; (clips, 3) counts of events; or (clips,) numbers.
        y_pred: (clips,) whole numbers, index of the class predicted, -1 for a clip that could not be read; (clips, labels)
            scores; or (clips,) numbers.

    Raises:
        ValueError: if the arrays differ in length, are empty or hold another type.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     path = save_predictions(out, "a", clip=["x.wav"], round=[0], group=["x"], y_true=[1], y_pred=[-1])
        ...     load_predictions(out, "a")["y_pred"].tolist()
        [-1]
    """
    import io

    import numpy as np

    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    arrays: dict[str, Any] = {"clip": clip, "round": round, "group": group}
    has_one_class = true.ndim == 1 and true.dtype.kind in "iu"
    if has_one_class:
        arrays |= {"y_true": true, "y_pred": predicted}
    checked: dict[str, Any] = {}
    for name, values in arrays.items():
        wanted = "text" if name in ("clip", "group") else "whole numbers"
        array = np.asarray(list(values) if wanted == "text" else values)
        if array.ndim != 1 or array.size == 0 or array.dtype.kind not in ("U" if wanted == "text" else "iu"):
            raise ValueError(f"{name} must be {wanted}, one per clip, got shape {array.shape} of {array.dtype}")
        if len(array) != len(checked.get("clip", array)):
            raise ValueError(f"{name} must be {len(checked['clip'])} values, one per clip, got {len(array)}")
        checked[name] = array if wanted == "text" else array.astype(np.int64)
    if not has_one_class:
        if true.shape != predicted.shape or len(true) != len(checked["clip"]) or predicted.dtype.kind != "f":
            raise ValueError(
                f"y_true and y_pred must be {len(checked['clip'])} rows of one shape, y_pred floating point, got "
                f"{true.shape} and {predicted.shape} of {predicted.dtype}"
            )
        is_labels = true.ndim == 2 and np.isin(true, (0, 1)).all()
        is_counts = true.ndim == 2 and true.shape[1] == 3 and true.dtype.kind in "iu" and true.min() >= 0
        if np.isnan(predicted).any() or not (is_labels or is_counts or (true.ndim == 1 and np.isfinite(true).all())):
            raise ValueError("y_true must be finite numbers, or 0 and 1 for each label, and y_pred never NaN")
        checked |= {"y_true": true.astype(np.uint8) if is_labels else true, "y_pred": predicted}
    elif checked["y_true"].min() < 0 or checked["y_pred"].min() < -1:
        raise ValueError("y_true must be >= 0 and y_pred >= -1 (-1 = unreadable clip), got smaller values")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **checked)
    path = Path(out) / "predictions" / f"{check_id(id)}.npz"
    write_atomic(path, buffer.getvalue())
    return path


def load_predictions(out: Path, id: str) -> dict[str, np.ndarray]:
    """Read the arrays of `save_predictions`.

    Raises:
        FileNotFoundError: if they were never saved.
        ValueError: if the file is torn or holds something else.
    """
    import zipfile
    import zlib

    import numpy as np

    path = Path(out) / "predictions" / f"{check_id(id)}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("clip", "round", "group", "y_true", "y_pred")}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} does not hold a run's predictions: {error}; run the row again") from error


def save_failure(out: Path, cell: Mapping[str, Any], reason: str) -> Path:
    """Write `out/failures/ID.json`, so that the table shows the cell as failed; the id is made from the cell.

    Args:
        out: results folder.
        cell: what was asked for: encoder and task, and where known layers (a list of names, or a command line's text:
            "default", "all", "conv1,conv2"), fusion, protocol, seed, limit, metric, task_version; plain data.
        reason: why there is no result, one sentence.

    Raises:
        ValueError: if the cell lacks encoder or task, or holds something that is not plain data.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     path = save_failure(out, {"encoder": "ge2e", "task": "esc10"}, "no clip could be read")
        ...     load_failures(out)[0].reason
        'no clip could be read'
    """
    name = run_id({"layers": "any", "protocol": "any", "seed": 0, **cell})
    path = Path(out) / "failures" / f"{name}.json"
    data = {"cell": plain(cell, "cell"), "reason": " ".join(reason.split()), "created": utc_now()}
    if not _is_cell(data["cell"]):
        raise ValueError(f"a failed cell must name its encoder and task, got {data['cell']}")
    write_json(path, data)
    return path


def clear_failure(out: Path, cell: Mapping[str, Any]) -> None:
    """Forget earlier failures of a cell; call it when the cell has a result.

    A failure is of the cell if encoder and task agree, and whatever else both of them name: one that was saved before
    the layers were known goes when the first layer has a result.
    """
    wanted = plain(cell, "cell")
    for path, failure in _failures(out):
        shared = {"encoder", "task"} | (wanted.keys() & failure.cell.keys())
        if all(wanted.get(key) == failure.cell[key] for key in shared):
            remove(path)  # another process may have been first


def load_failures(out: Path) -> list[Failure]:
    """Every failed cell below `out/failures`, by file name; an unreadable file is named in a warning and left out."""
    return [failure for _, failure in _failures(out)]


def _failures(out: Path) -> list[tuple[Path, Failure]]:
    found = []
    for path in sorted((Path(out) / "failures").glob("[!.]*.json")):
        try:
            data = read_json(path)
            if not isinstance(data, dict) or set(data) != {"cell", "reason", "created"} or not _is_cell(data["cell"]):
                raise ValueError(f"{path} must hold reason, created and a cell with encoder and task; is it a failure?")
            found.append((path, Failure(data["cell"], str(data["reason"]), str(data["created"]))))
        except FileNotFoundError:
            continue  # another process has just cleared it
        except (ValueError, OSError) as error:
            warnings.warn(f"left out of the tables: {error}", stacklevel=3)
    return found


def _is_cell(cell: Any) -> bool:
    return isinstance(cell, dict) and all(isinstance(cell.get(key), str) and cell[key] for key in ("encoder", "task"))
