"""From results to the cells of a table: which belong together, and what must be said of them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from evar.report.tables.labels import (
    is_trained_on,
    label_column,
    label_encoder,
    label_layers,
    label_limit,
    make_column_key,
    make_row_key,
)
from evar.results import Failure, Result, load_predictions

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """One task under one metric and version.

    Attributes:
        label: as in the header, "esc10 (limit 50)".
        n_test: clips that most cells of the column were tested on; 0 where all failed.
        chance: score of guessing, 0..1, or None.
    """

    label: str
    task: str
    n_test: int = 0
    chance: float | None = None


@dataclass(frozen=True)
class Cell:
    """One encoder's layers on one task.

    Attributes:
        results: one per seed, by seed; empty where it failed.
        score: mean over seeds, 0..1; None where it failed.
        interval: (low, high), 0..1; None where none can be made.
        flags: what a reader must know of this score alone.
        notes: what a footnote must say.
        p_worse: chance of so large a distance to the best of the column if there were none, corrected over the table
            (Holm); None for the best itself, and where it cannot be told.
        ours: published cells only: our score of the same encoder and task, 0..1.
    """

    results: tuple[Result, ...] = ()
    score: float | None = None
    interval: tuple[float, float] | None = None
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    p_worse: float | None = None
    ours: float | None = None


@dataclass(frozen=True)
class Row:
    """One (encoder, layers, fusion) with a cell, or None, for each column.

    Attributes:
        encoder: label, with what tells apart two variants of one encoder.
        layers: label, "conv5" or "conv1+conv5".
        first: any result of the row; None where all failed.
        depth: relative depth of a single layer, 0..1, else None.
        flags: what a reader must know of all scores of the row.
        average: mean over all columns, 0..1; None unless every column has a score.
        rank: mean rank over all columns, 1 the best; None unless every column has a score.
        published: source of a row that others published and nobody measured here; "" for ours.
    """

    encoder: str
    layers: str
    first: Result | None
    depth: float | None
    cells: tuple[Cell | None, ...]
    flags: tuple[str, ...] = ()
    average: float | None = None
    rank: float | None = None
    published: str = ""


@dataclass(frozen=True)
class Section:
    """One table: everything in it was made by one protocol, on all clips or on one limit."""

    title: str
    protocol: str
    protocol_version: str
    limit: int | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def results(self) -> list[Result]:
        """All results that are shown."""
        return [result for row in self.rows for cell in row.cells if cell for result in cell.results]

    @property
    def flags(self) -> list[str]:
        """Every flag of a row or cell once, in reading order."""
        return _drop_repeats(
            flag for row in self.rows for flag in (*row.flags, *(f for cell in row.cells if cell for f in cell.flags))
        )

    @property
    def notes(self) -> list[str]:
        """Every footnote once, in reading order."""
        return _drop_repeats(note for row in self.rows for cell in row.cells if cell for note in cell.notes)


def is_single_layer(result: Result) -> bool:
    """Has it a place on a layer curve?"""
    return len(result.layers) == 1


def find_depth(result: Result) -> float | None:
    """(layer_index + 1) / n_layers of a single layer, 0..1; None where it is not known."""
    if result.depth is not None or not is_single_layer(result):
        return result.depth
    return (result.layer_index + 1) / result.n_layers if result.layer_index is not None and result.n_layers else None


def make_sections(
    results: Sequence[Result],
    failures: Sequence[Failure] = (),
    out: Path | None = None,
    *,
    single_layers: bool = False,
    every: bool = False,
) -> list[Section]:
    """Sort results into tables.

    A table holds one protocol (name and version) and one limit; a column one task, version, metric and index of clips.
    Where two results would share a cell and a seed, their settings differ: the newer is shown, and a note says so.
    A failure belongs wherever all that it names agrees.

    Args:
        results: in any order.
        failures: shown in cells that have no result.
        out: results folder with the predictions, for the interval of several seeds; None: such cells have none.
        single_layers: False: the main tables, default layers and layers asked for by name. True: every single layer.
        every: all results instead.

    Returns:
        Tables by protocol, those of all clips before those of a limit.
    """
    kept = [result for result in results if is_single_layer(result)] if single_layers else _select_main_rows(results)
    kept = list(results) if every else kept
    grouped = _group(kept, _section_key)
    placed = {key: [failure for failure in failures if _agrees(failure, _describe_section(key))] for key in grouped}
    for failure in failures:
        if not any(failure in found for found in placed.values()):
            limit = failure.cell.get("limit")
            key = (str(failure.cell.get("protocol", "")), "", limit if isinstance(limit, int) else 0)
            grouped.setdefault(key, [])
            placed.setdefault(key, []).append(failure)
    tables = []
    for key in sorted(grouped):
        protocol, version, limit = key
        several = len({other[1] for other in grouped if other[0] == protocol}) > 1
        title = f"{protocol} version {version}" if several and version else protocol or "no protocol"
        columns, rows = _make_columns_and_rows(grouped[key], placed[key], limit or None, out)
        tables.append(Section(label_limit(title, limit), protocol, version, limit or None, tuple(columns), tuple(rows)))
    return tables


def _select_main_rows(results: Sequence[Result]) -> list[Result]:
    """All but the single layers that only `--layers=all` went through, and the candidates of a fusion search.

    The settings of a result say so; an encoder of which every layer is there was swept too. The layers of an encoder
    without a row for its default stay, so that it does not vanish.
    """
    layers: dict[Any, set[str]] = {}
    with_default = set()
    for result in results:
        where = (result.encoder, _section_key(result))
        if is_single_layer(result):
            layers.setdefault(where, set()).add(result.layers[0])
        if result.default:
            with_default.add(where)

    def is_hidden(result: Result) -> bool:
        where = (result.encoder, _section_key(result))
        if result.default or where not in with_default:
            return False
        if result.settings.get("fusion") == "search":
            return True  # what a search compares stands in `fusion.md`
        if not is_single_layer(result):
            return False
        return result.settings.get("layers") == "all" or len(layers[where]) == result.n_layers

    return [result for result in results if not is_hidden(result)]


def _section_key(result: Result) -> tuple[str, str, int]:
    return result.protocol, str(result.params.get("protocol_version", "")), result.limit or 0


def _describe_section(key: tuple[str, str, int]) -> dict[str, Any]:
    return {"protocol": key[0], "limit": key[2] or None}


def _agrees(failure: Failure, known: Mapping[str, Any]) -> bool:
    return all(failure.cell[name] == value for name, value in known.items() if name in failure.cell)


def _group(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return {name: groups[name] for name in sorted(groups)}


def _drop_repeats(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _make_columns_and_rows(
    results: list[Result], failures: list[Failure], limit: int | None, out: Path | None
) -> tuple[list[Column], list[Row]]:
    by_column = _group(results, make_column_key)
    columns, belongs = [], []  # a column, and what a failure must agree with to belong to it
    for key, found in by_column.items():
        n_test = Counter(result.n_test for result in found).most_common(1)[0][0]
        chance = next((result.chance for result in found if result.chance is not None), None)
        columns.append(Column(label_column(key, list(by_column), limit), key[0], n_test, chance))
        belongs.append({"task": key[0], "task_version": key[1], "metric": key[2]})
    for failure in failures:
        if not any(_agrees(failure, known) for known in belongs):
            columns.append(Column(label_limit(failure.cell["task"], limit), failure.cell["task"]))
            names = ("task", "task_version", "metric")
            belongs.append({name: failure.cell[name] for name in names if name in failure.cell})

    keys = [*by_column, *(None for _ in columns[len(by_column) :])]

    by_row = _group(results, make_row_key)
    firsts = [found[0] for found in by_row.values()]
    rows, without_row = [], list(failures)
    for first, found in zip(firsts, by_row.values(), strict=True):
        own = [failure for failure in failures if _is_of_row(failure, first)]
        without_row = [failure for failure in without_row if failure not in own]
        cells = []
        for index, column in enumerate(columns):
            here = [result for result in found if make_column_key(result) == keys[index]]
            cells.append(
                _make_cell(here, [failure for failure in own if _agrees(failure, belongs[index])], column, out)
            )
        rows.append(_make_row(label_encoder(first, firsts), first, cells))
    for (encoder, layers), failed in _group(without_row, _name_failed_row).items():
        cells = [_make_cell([], [failure for failure in failed if _agrees(failure, known)], column, out)
                 for column, known in zip(columns, belongs, strict=True)]  # fmt: skip
        rows.append(Row(encoder, layers, None, None, tuple(cells)))
    order = sorted(range(len(columns)), key=lambda index: columns[index].label)
    rows = [replace(row, cells=tuple(row.cells[index] for index in order)) for row in rows]
    rows.sort(key=lambda row: (row.encoder, row.depth is None, row.depth or 0.0, row.layers))
    return [columns[index] for index in order], _add_ranks(rows)


def _is_of_row(failure: Failure, row: Result) -> bool:
    """Was this row among those that were asked for when it failed?"""
    layers = failure.cell.get("layers", "all")
    if failure.cell["encoder"] != row.encoder:
        return False
    if layers in ("all", "default"):
        return bool(layers == "all" or row.default)
    names = layers.split(",") if isinstance(layers, str) else list(layers)
    if failure.cell.get("fusion", row.fusion) == row.fusion and list(row.layers) == names:
        return True
    return failure.cell.get("fusion", "none") == "none" and is_single_layer(row) and row.layers[0] in names


def _name_failed_row(failure: Failure) -> tuple[str, str]:
    layers = failure.cell.get("layers", "all")
    names = layers.split(",") if isinstance(layers, str) else layers
    return failure.cell["encoder"], label_layers(names, str(failure.cell.get("fusion", "none")))


def _make_row(label: str, first: Result, cells: list[Cell | None]) -> Row:
    """Flags that every score of a row has are said once, at its name."""
    scored = [cell for cell in cells if cell is not None and cell.results]
    common = tuple(flag for flag in scored[0].flags if all(flag in cell.flags for cell in scored))
    marked = [cell and replace(cell, flags=tuple(flag for flag in cell.flags if flag not in common)) for cell in cells]
    return Row(label, label_layers(first.layers, first.fusion), first, find_depth(first), tuple(marked), common)


def _make_cell(results: list[Result], failures: list[Failure], column: Column, out: Path | None) -> Cell | None:
    if not results:
        notes = _drop_repeats(f"failed: {failure.reason}" for failure in failures)
        return Cell(notes=tuple(notes)) if notes else None
    by_seed = _group(results, lambda result: result.seed)
    shown = tuple(max(same, key=lambda result: (result.created, result.id)) for same in by_seed.values())
    flags = _drop_repeats(flag for result in shown for flag in result.flags if flag != "random weights")
    if any(result.is_random for result in shown):
        flags.insert(0, "random weights")
    if any(map(is_trained_on, shown)):
        flags.append("trained on this data")
    interval, problem = _find_interval(shown, out)
    notes = [problem] if problem else []
    # A seed that has a result did not fail, whatever an earlier run left behind.
    for failure in failures:
        if "seed" in failure.cell and failure.cell["seed"] not in by_seed:
            notes.append(f"without seed {failure.cell['seed']}, which failed: {failure.reason}")
    if len(results) > len(shown):
        notes.append(f"the newest results; {len(results) - len(shown)} older ones of other settings are not shown")
    tested = sorted({result.n_test for result in shown})
    if tested != [column.n_test]:
        notes.append(f"tested on n={' and '.join(map(str, tested))}")
    notes += _drop_repeats(f"{column.label}: {text}" for result in shown if (text := _describe_skipped_clips(result)))
    score = sum(result.score for result in shown) / len(shown)
    return Cell(shown, score, interval, tuple(flags), tuple(notes))


def _describe_skipped_clips(result: Result) -> str:
    """How many clips could not be used, of which splits, and what became of them."""
    said = []
    for counted, text in (("wrong", "counted wrong"), ("left_out", "left out")):
        splits = [entry["split"] for entry in result.skipped if entry["counted"] == counted]
        if splits:
            clips = f"{len(splits)} unusable clip" + ("s" if len(splits) > 1 else "")
            said.append(f"{clips} {text} ({', '.join(sorted(set(splits)))})")
    return "; ".join(said)


def _find_interval(results: Sequence[Result], out: Path | None) -> tuple[tuple[float, float] | None, str]:
    """95 % interval of the mean over seeds, and why there is none where that is worth a note.

    One seed: as its run recorded it. Several: from each clip's correctness averaged over the seeds, so that seeds are
    not mistaken for more clips.
    """
    if len(results) == 1 and results[0].interval is not None:
        return (results[0].interval[0], results[0].interval[1]), ""
    from evar.metrics import METRICS, score_interval

    metric = results[0].metric
    if out is None or metric not in METRICS or METRICS[metric].resampled is None:
        return None, ""
    import numpy as np

    try:
        runs = [load_predictions(out, result.id) for result in results]
    except FileNotFoundError:
        return None, "no interval: predictions are missing"
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        return None, "no interval: predictions cannot be read"
    orders = [np.lexsort((run["clip"], run["round"])) for run in runs]
    first, order = runs[0], orders[0]
    for run, other in zip(runs[1:], orders[1:], strict=True):
        same = all(np.array_equal(run[name][other], first[name][order]) for name in ("clip", "round", "group"))
        if not same:
            return None, "no interval: the seeds were tested on other clips"
    predictions = [run["y_pred"][index] for run, index in zip(runs, orders, strict=True)]
    where = first["group"][order], first["round"][order]
    return score_interval(metric, first["y_true"][order], predictions, *where), ""


def _add_ranks(rows: list[Row]) -> list[Row]:
    """Average and rank of the rows that have every column; tied rows share the mean of their ranks."""
    complete = [row for row in rows if row.cells and all(cell and cell.score is not None for cell in row.cells)]
    if not complete:
        return rows
    scores = {id(row): [cell.score for cell in row.cells if cell and cell.score is not None] for row in complete}
    ranked = []
    for row in rows:
        own = scores.get(id(row))
        if own is None:
            ranked.append(row)
            continue
        ranks = []
        for column, score in enumerate(own):
            others = [other[column] for other in scores.values()]
            better = sum(is_better(other, score) for other in others)
            tied = sum(not is_better(other, score) and not is_better(score, other) for other in others)
            ranks.append(better + (tied + 1) / 2)
        ranked.append(replace(row, average=sum(own) / len(own), rank=sum(ranks) / len(ranks)))
    return ranked


def is_better(score: float, other: float) -> bool:
    """Larger by more than the rounding of a mean; every metric here is larger where it is better."""
    return score > other + 1e-12
