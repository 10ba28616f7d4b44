"""Write the table files of a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evar.report.tables.cells import sections
from evar.report.tables.compared import with_equals
from evar.report.tables.machine import long_csv, machine_json
from evar.report.tables.markdown import markdown
from evar.results import Failure, Result
from evar.storage.atomic import write_atomic


def write_tables(results: Sequence[Result], failures: Sequence[Failure], out: Path) -> list[Path]:
    """Write `table.md`, `.csv`, `.tex` and `.json`, and `layers.md` and `.csv` where some encoder has several single layers.

    Args:
        results: in any order, of any encoders, tasks, protocols, limits and seeds.
        failures: cells without a result.
        out: results folder; its predictions give the interval of several seeds.

    Returns:
        The files written.
    """
    from evar.report.tables.latex import latex

    out = Path(out)
    tables = {"table": [with_equals(section, out) for section in sections(results, failures, out)]}
    if has_layer_curve(results):
        tables["layers"] = sections(results, failures, out, single_layers=True)
    paths = []
    for name, found in tables.items():
        for suffix, text in ((".md", markdown(found, by_layer=name == "layers")), (".csv", long_csv(found))):
            write_atomic(out / f"{name}{suffix}", text.encode("utf-8"))
            paths.append(out / f"{name}{suffix}")
    for suffix, text in ((".tex", latex(tables["table"])), (".json", machine_json(tables["table"]))):
        write_atomic(out / f"table{suffix}", text.encode("utf-8"))
        paths.append(out / f"table{suffix}")
    return paths


def has_layer_curve(results: Sequence[Result]) -> bool:
    """Has some encoder two single layers or more?"""
    found = {(result.encoder, result.layers[0]) for result in results if len(result.layers) == 1}
    return len(found) > len({encoder for encoder, _ in found})
