"""Make the page of a results folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from evar.config.plain_text import make_printable
from evar.config.registry import near_miss
from evar.report.where import Reading, find_readings
from evar.results import load_all, load_failures, load_searches
from evar.results.hints import load_hints
from evar.storage.atomic import write_atomic
from evar.webpage.context import Context, Settings, try_part
from evar.webpage.costs import make_cost
from evar.webpage.labels import make_labels, make_protocols
from evar.webpage.layers import make_layers
from evar.webpage.listening import list_sounds, make_listen
from evar.webpage.maps import make_map
from evar.webpage.page import Part, render_page
from evar.webpage.robustness import make_robustness
from evar.webpage.rows import make_rows
from evar.webpage.summary import make_summary

#: legal values of --audio
AUDIO_CHOICES = ("embed", "link", "none")
MAP_CHOICES = ("default", "all", "none")


def write_report(
    out: str | Path = "results",
    *,
    file: str | Path | None = None,
    audio: str = "embed",
    data_root: str | None = None,
    store: str | None = None,
    published: str = "all",
    maps: str = "default",
) -> Path:
    """Write a results folder as one HTML file.

    Args:
        out: results folder.
        file: path of the page; None means `report.html` in the results folder.
        audio: "embed" puts short compressed clips into the page (at most 20 MB and 200 clips), "link" points to the files
            in their folders, "none" only names them.
        data_root: folder that holds the tasks' folders; None takes EVAR_DATA, then ./data.
        store: folder of the feature store, for the maps; None takes EVAR_STORE, then the user's cache.
        published: numbers of others that the page offers: "all", names of config/published, or "" for none.
        maps: which layers get a map: "default", "all" or "none".

    Returns:
        The file written.

    Raises:
        ValueError: if there are no results, or a word is not legal.
        OSError: if the file cannot be written.
    """
    for name, value, legal in (("audio", audio, AUDIO_CHOICES), ("maps", maps, MAP_CHOICES)):
        if value not in legal:
            raise ValueError(f"--{name} must be one of {', '.join(legal)}, got {value!r}; {near_miss(value, legal)}")
    folder = Path(out)
    target = Path(file) if file else folder / "report.html"
    context = Context(
        Settings(folder, target, audio, data_root, store, published, maps),
        load_all(folder),
        load_failures(folder),
        load_searches(folder),
        load_hints(folder),
    )
    if not context.results and not context.failures:
        raise ValueError(f"no results below {out}/runs; run `evar lineval` first or name the folder with --out")
    parts = make_parts(context)
    title = f"{os.path.basename(os.path.abspath(folder))}: which representation serves the task"
    text = render_page(title, parts, _write_footer(context), links_files=audio == "link")
    write_atomic(target, text.encode("utf-8"))
    return target


def make_parts(context: Context) -> list[Part]:
    """Make all parts of the page that are not empty; a part that fails shows the reason in its place.

    Args:
        context: the results folder.
    """
    readings = _find_readings(context)
    steps: list[tuple[str, str, Callable[[], Part | None]]] = [
        ("summary", "Summary", lambda: make_summary(context, readings)),
        ("layers", "Layers", lambda: make_layers(context, readings)),
        ("robustness", "Robustness", lambda: make_robustness(context)),
        ("labels", "Labels", lambda: make_labels(context)),
        ("protocols", "Protocols", lambda: make_protocols(context)),
        ("cost", "Cost", lambda: make_cost(context)),
        ("row", "One row", lambda: make_rows(context)),
        ("listen", "Listen", lambda: make_listen(context)),
        ("map", "Map", lambda: make_map(context)),
        ("sounds", "", lambda: list_sounds(context)),
    ]
    found = [try_part(name, title, make) for name, title, make in steps]
    return [part for part in found if part is not None]


def _find_readings(context: Context) -> list[Reading]:
    """Find the layers that validation clips choose; if that fails, warn and return none."""
    try:
        return find_readings(context.results, context.out)
    except Exception as error:
        warnings.warn(
            f"the report does not name the layers that validation clips choose: {make_printable(error)}", stacklevel=2
        )
        return []


def _write_footer(context: Context) -> list[str]:
    """Say where the numbers come from."""
    versions = sorted({str(result.versions.get("evar-audio", "unknown")) for result in context.results})
    newest = max((result.created for result in context.results), default="")
    said = [f"Made by evar report from {len(context.results)} result files, the newest of {newest}."]
    if versions:
        said.append(f"The rows were computed by evar {' and '.join(versions)}.")
    return said
