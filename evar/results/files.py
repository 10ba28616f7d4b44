"""Results on disk: written so that a crash leaves the old file, and that several processes may write at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.config.plain_text import make_printable
from evar.results.checks import check_keys, is_text, list_of, show
from evar.results.identity import check_id, plain, run_id
from evar.results.records import read_record, read_records, write_json
from evar.results.row import Result, utc_now
from evar.storage.atomic import remove


@dataclass(frozen=True)
class Failure:
    """A cell of the grid that gave no result, and why.

    Attributes:
        cell: the cell, as `save_failure` got it.
        reason: one line.
        created: ISO 8601 time in UTC.
    """

    cell: Mapping[str, Any]
    reason: str
    created: str


def run_path(out: Path, id: str) -> Path:
    """Return the path of a result; raises ValueError if the id is no plain file stem.

    Example:
        >>> run_path(Path("results"), "logmel__esc10").as_posix()
        'results/runs/logmel__esc10.json'
    """
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
    """Load every result below `out/runs`, by file name; a warning names a file that cannot be read."""
    return read_records(Path(out) / "runs", Result.from_dict, "result")


def save_failure(out: Path, cell: Mapping[str, Any], reason: str) -> Path:
    """Write `out/failures/ID.json`, so that the table shows the cell as failed; the id is made from the cell.

    Args:
        out: results folder.
        cell: encoder and task, and if known layers (a list of names, or a command line's text:
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
    for path, failure in _read_failures(out):
        shared = {"encoder", "task"} | (wanted.keys() & failure.cell.keys())
        if all(wanted.get(key) == failure.cell[key] for key in shared):
            remove(path)  # another process may have been first


def load_failures(out: Path) -> list[Failure]:
    """Load every failed cell below `out/failures`, by file name; a warning names a file that cannot be read."""
    return [failure for _, failure in _read_failures(out)]


def _read_failures(out: Path) -> list[tuple[Path, Failure]]:
    found: list[tuple[Path, Failure]] = []
    for path in sorted((Path(out) / "failures").glob("[!.]*.json")):
        try:
            found.append((path, read_record(path, _make_failure)))
        except FileNotFoundError:
            continue  # another process has just cleared it
        except (ValueError, OSError) as error:
            warnings.warn(f"left out of the tables: {make_printable(error)}", stacklevel=3)
    return found


#: keys of a cell that tables read -> kind of their values; "layers" is text or a list
_CELL_KEYS = {
    **dict.fromkeys(("encoder", "task", "protocol", "fusion", "metric", "task_version"), "str"),
    **dict.fromkeys(("seed",), "int"),
    **dict.fromkeys(("limit",), "int | None"),
}


def _make_failure(data: Any) -> Failure:
    """Check plain data and make the failure."""
    if not isinstance(data, dict) or set(data) != {"cell", "reason", "created"} or not _is_cell(data["cell"]):
        raise ValueError("it must hold reason, created and a cell with encoder and task; is it a failure?")
    cell, reason = plain(data["cell"], "cell"), plain(data["reason"], "reason")
    check_keys("cell", cell, _CELL_KEYS)
    layers = cell.get("layers", "all")
    if not is_text(layers) and not list_of(is_text)(layers):
        raise ValueError(f"cell.layers must be text or a list of text, got {show(layers)}")
    check_keys("it", data, {"reason": "str", "created": "str"})
    return Failure(cell, reason, data["created"])


def _is_cell(cell: Any) -> bool:
    return isinstance(cell, dict) and all(isinstance(cell.get(key), str) and cell[key] for key in ("encoder", "task"))
