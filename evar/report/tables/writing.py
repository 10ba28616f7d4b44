"""Write the table files of a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evar.report.tables.cells import make_sections
from evar.report.tables.compared import mark_equals
from evar.report.tables.costs import add_costs
from evar.report.tables.machine import format_csv, format_json
from evar.report.tables.markdown import format_markdown
from evar.results import Failure, Result
from evar.results.costs import load_costs
from evar.storage.atomic import write_atomic


def write_tables(
    results: Sequence[Result], failures: Sequence[Failure], out: Path, *, with_cost: bool = False
) -> list[Path]:
    """Write `table.md`, `.csv`, `.tex` and `.json`, and `layers.md` and `.csv` where some encoder has several single layers.

    Args:
        results: in any order, of any encoders, tasks, protocols, limits and seeds.
        failures: cells without a result.
        out: results folder; its predictions give the interval of several seeds.
        with_cost: show what each row of the main table costs.

    Returns:
        The files written.
    """
    from evar.report.tables.latex import format_latex

    out = Path(out)
    tables = {"table": [mark_equals(section, out) for section in make_sections(results, failures, out)]}
    if with_cost:
        records = load_costs(out)
        tables["table"] = [add_costs(section, records) for section in tables["table"]]
    if has_layer_curve(results):
        tables["layers"] = make_sections(results, failures, out, single_layers=True)
    paths = []
    for name, found in tables.items():
        for suffix, text in ((".md", format_markdown(found, by_layer=name == "layers")), (".csv", format_csv(found))):
            write_atomic(out / f"{name}{suffix}", text.encode("utf-8"))
            paths.append(out / f"{name}{suffix}")
    for suffix, text in ((".tex", format_latex(tables["table"])), (".json", format_json(tables["table"]))):
        write_atomic(out / f"table{suffix}", text.encode("utf-8"))
        paths.append(out / f"table{suffix}")
    return paths


def has_layer_curve(results: Sequence[Result]) -> bool:
    """Has some encoder two single layers or more?"""
    found = {(result.encoder, result.layers[0]) for result in results if len(result.layers) == 1}
    return len(found) > len({encoder for encoder, _ in found})
