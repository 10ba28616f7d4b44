"""From results to the cells of a table: the results that belong together, and the notes about them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from evar.report.tables.compared_clips import describe_comparison
from evar.report.tables.labels import (
    ColumnKey,
    is_trained_on,
    label_column,
    label_encoder,
    label_layers,
    label_limit,
    make_column_key,
    make_row_key,
)
from evar.report.tables.section import Cell, Column, Row, Section, is_better
from evar.report.tables.tested import load_row_predictions
from evar.results import Failure, Result

T = TypeVar("T")
SectionKey = tuple[str, str, int]  # protocol, its version, and limit, 0 if there is none


def is_single_layer(result: Result) -> bool:
    """Has it a place on a layer curve?"""
    return len(result.layers) == 1


def find_depth(result: Result) -> float | None:
    """Compute (layer_index + 1) / n_layers of a single layer, 0..1; None if it is not known."""
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
    kept = list(results)
    if not every:
        kept = (
            [result for result in results if is_single_layer(result)] if single_layers else _select_main_rows(results)
        )
    grouped = _group(kept, _make_section_key)
    placed = _place_failures(failures, grouped)
    tables = []
    for key in sorted(placed):
        protocol, version, limit = key
        several = len({other[1] for other in placed if other[0] == protocol}) > 1
        title = f"{protocol} version {version}" if several and version else protocol or "no protocol"
        columns, rows = _make_columns_and_rows(grouped.get(key, []), placed[key], limit or None, out)
        tables.append(Section(label_limit(title, limit), protocol, version, limit or None, tuple(columns), tuple(rows)))
    return tables


def _place_failures(
    failures: Sequence[Failure], grouped: Mapping[SectionKey, Sequence[Result]]
) -> dict[SectionKey, list[Failure]]:
    """Return every table's failures; a failure that belongs to no table makes one."""
    placed = {
        key: [failure for failure in failures if _is_same_cell(failure, _describe_section(key))] for key in grouped
    }
    for failure in failures:
        if not any(failure in found for found in placed.values()):
            limit = failure.cell.get("limit")
            key = (str(failure.cell.get("protocol", "")), "", limit if isinstance(limit, int) else 0)
            placed.setdefault(key, []).append(failure)
    return placed


def _select_main_rows(results: Sequence[Result]) -> list[Result]:
    """All but the single layers that only `--layers=all` went through, and the candidates of a fusion search.

    The settings of a result say so; an encoder of which every layer is there was swept too. The layers of an encoder
    without a row for its default stay, so that it does not vanish.
    """
    layers: dict[Any, set[str]] = {}
    with_default = set()
    for result in results:
        where = (result.encoder, _make_section_key(result))
        if is_single_layer(result):
            layers.setdefault(where, set()).add(result.layers[0])
        if result.default:
            with_default.add(where)

    def is_hidden(result: Result) -> bool:
        where = (result.encoder, _make_section_key(result))
        if result.default or where not in with_default:
            return False
        if result.settings.get("fusion") == "search":
            return True  # what a search compares stands in `fusion.md`
        if not is_single_layer(result):
            return False
        return result.settings.get("layers") == "all" or len(layers[where]) == result.n_layers

    return [result for result in results if not is_hidden(result)]


def _make_section_key(result: Result) -> SectionKey:
    return result.protocol, str(result.params.get("protocol_version", "")), result.limit or 0


def _describe_section(key: SectionKey) -> dict[str, Any]:
    return {"protocol": key[0], "limit": key[2] or None}


def _is_same_cell(failure: Failure, known: Mapping[str, Any]) -> bool:
    return all(failure.cell[name] == value for name, value in known.items() if name in failure.cell)


def _group(items: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return {name: groups[name] for name in sorted(groups)}


def _drop_repeats(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


@dataclass(frozen=True)
class _Slot:
    """A column while the table is made.

    Attributes:
        column: as the table shows it.
        key: of its results; None if all failed.
        belongs: what a failure must agree with to belong to it.
    """

    column: Column
    key: ColumnKey | None
    belongs: Mapping[str, Any]


def _make_columns_and_rows(
    results: list[Result], failures: list[Failure], limit: int | None, out: Path | None
) -> tuple[list[Column], list[Row]]:
    """Return the columns by label, and the rows by encoder and depth, those without any result among them."""
    slots = sorted(_make_slots(results, failures, limit), key=lambda slot: slot.column.label)
    by_row = _group(results, make_row_key)
    firsts = [found[0] for found in by_row.values()]
    rows, without_row = [], list(failures)
    for first, found in zip(firsts, by_row.values(), strict=True):
        own = [failure for failure in failures if _is_of_row(failure, first)]
        without_row = [failure for failure in without_row if failure not in own]
        rows.append(_make_row(label_encoder(first, firsts), first, _fill_slots(slots, found, own, out)))
    for (encoder, layers), failed in _group(without_row, _name_failed_row).items():
        rows.append(Row(encoder, layers, None, None, tuple(_fill_slots(slots, [], failed, out))))
    rows.sort(key=lambda row: (row.encoder, row.depth is None, row.depth or 0.0, row.layers))
    return [slot.column for slot in slots], _add_ranks(rows)


def _make_slots(results: Sequence[Result], failures: Sequence[Failure], limit: int | None) -> list[_Slot]:
    """Return one column for each task, version, metric and index, and one for each task that failed everywhere."""
    by_column = _group(results, make_column_key)
    slots = []
    for key, found in by_column.items():
        n_test = Counter(result.n_test for result in found).most_common(1)[0][0]
        chance = next((result.chance for result in found if result.chance is not None), None)
        column = Column(label_column(key, list(by_column), limit), key[0], n_test, chance)
        slots.append(_Slot(column, key, {"task": key[0], "task_version": key[1], "metric": key[2]}))
    for failure in failures:
        if not any(_is_same_cell(failure, slot.belongs) for slot in slots):
            task, names = failure.cell["task"], ("task", "task_version", "metric")
            belongs = {name: failure.cell[name] for name in names if name in failure.cell}
            slots.append(_Slot(Column(label_limit(task, limit), task), None, belongs))
    return slots


def _fill_slots(
    slots: Sequence[_Slot], results: Sequence[Result], failures: Sequence[Failure], out: Path | None
) -> list[Cell | None]:
    """Return one cell, or None, for each column of a row."""
    cells = []
    for slot in slots:
        here = [result for result in results if make_column_key(result) == slot.key]
        failed = [failure for failure in failures if _is_same_cell(failure, slot.belongs)]
        cells.append(_make_cell(here, failed, slot.column, out))
    return cells


def _is_of_row(failure: Failure, row: Result) -> bool:
    """Tell whether the failed run contained this row."""
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
    """Return the cell of one row and column; None if nothing was run."""
    if not results:
        notes = _drop_repeats(f"failed: {failure.reason}" for failure in failures)
        return Cell(notes=tuple(notes)) if notes else None
    by_seed = _group(results, lambda result: result.seed)
    shown = tuple(max(same, key=lambda result: (result.created, result.id)) for same in by_seed.values())
    interval, problem = _find_interval(shown, out)
    notes = [problem] if problem else []
    # A seed that has a result did not fail, even if an earlier run left a failure behind.
    for failure in failures:
        if "seed" in failure.cell and failure.cell["seed"] not in by_seed:
            notes.append(f"without seed {failure.cell['seed']}, which failed: {failure.reason}")
    if len(results) > len(shown):
        notes.append(f"the newest results; {len(results) - len(shown)} older ones of other settings are not shown")
    n_tested = sorted({result.n_test for result in shown})
    if n_tested != [column.n_test]:
        notes.append(f"tested on n={' and '.join(map(str, n_tested))}")
    notes += _drop_repeats(f"{column.label}: {text}" for result in shown if (text := _describe_skipped_clips(result)))
    for describe in (_describe_templates, _describe_retrieval):
        notes += _drop_repeats(f"{column.label}: {text}" for result in shown if (text := describe(result)))
    notes += [f"{column.label}: {text}"] if (text := describe_comparison(shown)) else []
    score = sum(result.score for result in shown) / len(shown)
    return Cell(shown, score, interval, tuple(_list_flags(shown)), tuple(notes))


def _list_flags(results: Sequence[Result]) -> list[str]:
    """List the facts that a reader must know about the scores of a cell, untrained weights first."""
    flags = _drop_repeats(flag for result in results for flag in result.flags if flag != "random weights")
    if any(result.is_random for result in results):
        flags.insert(0, "random weights")
    return [*flags, "trained on this data"] if any(map(is_trained_on, results)) else flags


def _describe_retrieval(result: Result) -> str:
    """The other metrics of a row of captions, in both directions."""
    known = {result.metric: result.score, **result.extras}
    parts = []
    for direction in ("text_to_audio", "audio_to_text"):
        names = {f"{direction}_recall_at_{most}": f"R@{most}" for most in (1, 5, 10)}
        names[f"{direction}_map_at_10"] = "mAP@10"
        shown = [f"{name} {100 * known[key]:.1f}" for key, name in names.items() if key in known]
        if (key := f"{direction}_median_rank") in known:
            shown.append(f"median rank {known[key]:g}")
        if len(shown) > 1:
            parts.append(f"{direction.replace('_', ' ')}: {', '.join(shown)}")
    return "; ".join(parts)


def _describe_templates(result: Result) -> str:
    """Describe how much the score of a zero-shot row depends on the words of its prompts."""
    prompts = result.params.get("prompts")
    scores = prompts.get("template_scores") if isinstance(prompts, Mapping) else None
    is_plain = isinstance(scores, Sequence) and all(isinstance(score, int | float) for score in scores)
    if not scores or not is_plain or len(scores) < 2:
        return ""
    return f"each of {len(scores)} templates of prompts alone would score {100 * min(scores):.1f} to {100 * max(scores):.1f}"


def _describe_skipped_clips(result: Result) -> str:
    """Describe the clips that could not be used: their number, their splits, and how they were counted."""
    sentences = []
    for counted, text in (("wrong", "counted wrong"), ("left_out", "left out")):
        splits = [entry["split"] for entry in result.skipped if entry["counted"] == counted]
        if splits:
            clips = f"{len(splits)} unusable clip" + ("s" if len(splits) > 1 else "")
            sentences.append(f"{clips} {text} ({', '.join(sorted(set(splits)))})")
    return "; ".join(sentences)


def _find_interval(results: Sequence[Result], out: Path | None) -> tuple[tuple[float, float] | None, str]:
    """95 % interval of the mean over seeds, and why there is none if that is worth a note.

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
        runs = [load_row_predictions(out, result) for result in results]
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
    """Give average and rank to the rows that have every column; tied rows share the mean of their ranks."""
    scores = {}  # row -> its scores, of the rows that have them all
    for index, row in enumerate(rows):
        own = [cell.score for cell in row.cells if cell and cell.score is not None]
        if own and len(own) == len(row.cells):
            scores[index] = own
    ranked = list(rows)
    metrics = {result.metric for row in rows for cell in row.cells if cell for result in cell.results}
    for index, own in scores.items():
        ranks = [_find_rank(score, [other[column] for other in scores.values()]) for column, score in enumerate(own)]
        # A mean over precision and correlation means nothing, so tables of several metrics have ranks alone.
        average = sum(own) / len(own) if len(metrics) == 1 else None
        ranked[index] = replace(rows[index], average=average, rank=sum(ranks) / len(ranks))
    return ranked


def _find_rank(score: float, scores: Sequence[float]) -> float:
    """Return the place of a score among all, 1 the best; equal scores share the mean of their places.

    Example:
        >>> _find_rank(0.5, [0.9, 0.5, 0.5])
        2.5
    """
    n_better = sum(is_better(other, score) for other in scores)
    n_equal = sum(not is_better(other, score) and not is_better(score, other) for other in scores)
    return n_better + (n_equal + 1) / 2
