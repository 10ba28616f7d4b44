"""Tables and plots of a results folder; everything here is rebuilt from `runs/` and `predictions/`, without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evar.report import fusion
from evar.report.clean import write_clean_scores
from evar.report.comparing import Comparison, compare
from evar.report.guard import try_to_make
from evar.report.hints import write_hints
from evar.report.label_curves import find_curves, read_points
from evar.report.label_tables import write_label_tables
from evar.report.plots.fusion import plot_search, plot_weights
from evar.report.plots.heatmap import plot_heatmap
from evar.report.plots.label_curves import STEM, plot_label_curves
from evar.report.plots.layer_curves import plot_layers
from evar.report.plots.layers_by_name import plot_layers_by_name
from evar.report.plots.protocol_ranks import plot_protocol_ranks
from evar.report.protocol_ranks import describe_task, find_ranks, write_ranks
from evar.report.robustness import write_robustness
from evar.report.tables.terminal import format_terminal_table
from evar.report.tables.writing import has_layer_curve, write_tables
from evar.report.where import find_readings, write_where
from evar.results import load_all, load_failures, load_searches
from evar.results.contamination import load_contaminations
from evar.results.hints import load_hints
from evar.results.robustness import FOLDER as ROBUSTNESS_FOLDER
from evar.storage.atomic import remove

__all__ = [
    "Comparison",
    "compare",
    "describe_rank_moves",
    "format_fusion_tables",
    "format_terminal_table",
    "plot_layers",
    "write_tables",
    "write_tables_and_plots",
]

#: of what is made, and so of what is said to be written
_ORDER = (
    *("table", "layers.png", "layers_by_name.png", "heatmap.png", "where", "hints"),
    *("fusion", "search.png", "weights.png", "clean", "robustness"),
    *("label_curves", "label_curves.png", "protocol_ranks", "protocol_ranks.png"),
)
_SOMETIMES = (
    *("layers.md", "layers.csv", "layers.png", "layers.svg", "where.md", "where.csv"),
    *("fusion.md", "fusion.csv", "search.png", "search.svg", "weights.png", "weights.svg"),
    *("heatmap.png", "heatmap.svg", "layers_by_name.png", "layers_by_name.svg"),
    *("hints.md", "hints.csv", "hints.png", "hints.svg", "clean.md", "clean.csv"),
    *("label_curves.md", "label_curves.csv"),
    *("protocol_ranks.md", "protocol_ranks.csv", "protocol_ranks.png", "protocol_ranks.svg"),
)


def format_fusion_tables(out: Path | str, width: int = 100) -> str:
    """Format the fusion tables of a results folder as plain text for the end of a run; "" where no search was run."""
    return fusion.format_terminal(
        fusion.make_fusion_tables(load_searches(Path(out)), load_all(Path(out)), Path(out)), width
    )


def describe_rank_moves(out: Path | str) -> str:
    """Tell how the ranks of encoders move between the protocols of a results folder, in sentences for the end of a run."""
    found = find_ranks(load_all(Path(out)), Path(out))
    if not found:
        return "Ranks of encoders cannot be compared between protocols: no task has two encoders under two protocols."
    said = [f"{task.title}: {' '.join(describe_task(task))}" for task in found]
    return "How ranks move between protocols (more in protocol_ranks.md):\n" + "\n".join(f"  {text}" for text in said)


def write_tables_and_plots(out: Path | str, *, with_cost: bool = False) -> list[Path]:
    """Write the tables; the layer curves and where to read each encoder where some encoder has at least two single
    layers; the hints where there are some; the fusion table where layers were searched for.

    Files of an earlier build that nothing belongs in any more are removed. Runs that share the folder take turns, so
    that the last one to build shows the results of all.

    Args:
        out: results folder.
        with_cost: show in the main table what each row costs.

    Returns:
        The files written.

    Raises:
        OSError: if the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     [path.name for path in write_tables_and_plots(out)]
        ['table.md', 'table.csv', 'table.tex', 'table.json']
    """
    from filelock import FileLock

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".build.lock"):
        steps = _list_steps(out, with_cost)
        paths = [path for name in _ORDER if name in steps for path in try_to_make(name, steps[name])]
        drawn = [path.name for path in out.glob(f"{STEM}*") if path.suffix in (".png", ".svg")]
        for name in (*_SOMETIMES, *drawn):
            if out / name not in paths and (out / name).exists():
                remove(out / name)
    return paths


def _list_steps(out: Path, with_cost: bool) -> dict[str, Callable[[], list[Path]]]:
    """List what can be made of the results in a folder: name of a step, as in `_ORDER` -> function that writes its files."""
    results, searches, contaminations = load_all(out), load_searches(out), load_contaminations(out)
    steps: dict[str, Callable[[], list[Path]]] = {
        "table": lambda: write_tables(results, load_failures(out), out, with_cost=with_cost),
        "hints": lambda: write_hints(load_hints(out), results, out),
    }
    if has_layer_curve(results):
        steps |= {
            "layers.png": lambda: plot_layers(results, out),
            "layers_by_name.png": lambda: plot_layers_by_name(results, out),
            "heatmap.png": lambda: plot_heatmap(results, out),
            "where": lambda: write_where(find_readings(results, out), out),
        }
    if searches:
        steps |= {
            "fusion": lambda: fusion.write_fusion(fusion.make_fusion_tables(searches, results, out), out),
            "search.png": lambda: plot_search(searches, out),
            "weights.png": lambda: plot_weights(results, out),
        }
    if (out / ROBUSTNESS_FOLDER).is_dir():
        steps["robustness"] = lambda: write_robustness(out)
    if contaminations:
        steps["clean"] = lambda: write_clean_scores(results, contaminations, out)
    if any(read_points(result) for result in results):
        curves = find_curves(results, out)
        steps |= {
            "label_curves": lambda: write_label_tables(curves, out),
            "label_curves.png": lambda: plot_label_curves(curves, out),
        }
    if len({result.protocol for result in results}) > 1 and (ranks := find_ranks(results, out)):
        steps |= {
            "protocol_ranks": lambda: write_ranks(ranks, out),
            "protocol_ranks.png": lambda: plot_protocol_ranks(ranks, out),
        }
    return steps
