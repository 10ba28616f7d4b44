"""Which layers of an encoder are alike: a heat map of linear CKA, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar.figures.grids import draw_colour_bar, fill_cells, make_box, place_boxes
from evar.figures.style import save_figure
from evar.report.tables.labels import label_limit
from evar.results.hints import HintsRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBERED_LAYERS = 13  # more layers than these get small cells without numbers


@dataclass(frozen=True)
class SimilarityMap:
    """Linear CKA between the layers of one encoder, [layer][layer] 0..1, mean over tasks; None if no task has one."""

    label: str
    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


def plot_similarity(maps: Sequence[SimilarityMap], out: Path) -> list[Path]:
    """Draw `hints.png` and `hints.svg`.

    Args:
        maps: as `make_similarity_maps` gives them.
        out: results folder.

    Returns:
        The files written; none without maps.
    """
    return save_figure(draw_similarity(maps), Path(out) / "hints") if maps else []


def make_similarity_maps(found: Sequence[tuple[str, HintsRecord]]) -> list[SimilarityMap]:
    """Make one map for each encoder, the mean over its tasks: a map says more about the encoder than about the task.

    Records of a limit, and of other layers, are maps of their own. Encoders with one layer have none.

    Args:
        found: label of the encoder and a record of it; a record may come twice and counts once.
    """
    groups: dict[tuple[str, int, tuple[str, ...]], dict[str, HintsRecord]] = {}
    for encoder, record in found:
        if len(record.layers) > 1:
            groups.setdefault((encoder, record.limit or 0, tuple(record.layers)), {})[record.id] = record
    maps = []
    for (label, limit, layers), records in sorted(groups.items()):
        n = range(len(layers))
        matrices = [record.cka for record in records.values()]
        values = tuple(tuple(_average_known([matrix[i][j] for matrix in matrices]) for j in n) for i in n)
        tasks = tuple(dict.fromkeys(record.task for record in records.values()))
        maps.append(SimilarityMap(label_limit(label, limit), layers, tasks, values))
    return maps


def _average_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def draw_similarity(maps: Sequence[SimilarityMap]) -> Figure:
    """Draw one square for each encoder, shallow layers first; dark is 0 and light is 1 in all of them."""
    tasks = sorted({task for one in maps for task in one.tasks})
    same = all(set(one.tasks) == set(tasks) for one in maps)
    over = _name_tasks(tasks, ", ".join(tasks)) if same else "mean over the tasks of each encoder"
    caption = (
        "Linear CKA between the layers of an encoder (Kornblith et al. 2019): 1 where two layers arrange the clips "
        f"alike; {over}. Labels have no say."
    )
    is_small = [len(one.layers) > _NUMBERED_LAYERS for one in maps]
    sizes = [0.15 if small else 0.28 for small in is_small]
    boxes = [
        make_box(
            one.label,
            one.layers,
            one.layers,
            size,
            size,
            subtitle="" if same else _name_tasks(one.tasks, f"{len(one.tasks)} tasks"),
        )
        for one, size in zip(maps, sizes, strict=True)
    ]
    figure, axes, foot = place_boxes(boxes, caption)
    for ax, one, small in zip(axes, maps, is_small, strict=True):
        texts = [["" if small or value is None else f"{value:.2f}" for value in row] for row in one.values]
        fill_cells(ax, one.values, texts, points=5.5)
    draw_colour_bar(figure, "linear CKA", ("0", "1"), foot)
    return figure


def _name_tasks(tasks: Sequence[str], all_tasks: str) -> str:
    return f"mean over {all_tasks}" if len(tasks) > 1 else f"on {tasks[0]}"
