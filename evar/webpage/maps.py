"""Map: t-SNE of stored vectors, one map for each encoder, layer and task; no clip is encoded for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio.errors import AudioError
from evar.audio.known_files import AudioIndex
from evar.pictures.plane import MIN_CLIPS, draw_balanced_subset, place_clips, standardise
from evar.report.tables.section import Section
from evar.results import Result
from evar.storage.feature_store import FeatureStore
from evar.storage.keys import FeatureKey, row_id
from evar.webpage.clips import find_task, name_classes
from evar.webpage.context import Context, name_row
from evar.webpage.page import Part
from evar.webpage.sounds import Sounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task

#: the most maps on the page, and the most clips of each: a map of that size takes seconds
MOST_MAPS, MOST_CLIPS = 40, 400


def make_map(context: Context) -> Part | None:
    """Make the part; None if no maps were requested or no table has classes.

    Args:
        context: the results folder, of which `make_listen` collected the sounds.
    """
    if context.settings.maps == "none":
        return None
    store = FeatureStore(context.settings.store)
    keys = _read_keys(store)
    maps: list[dict[str, Any]] = []
    tasks: dict[tuple[str, int | None], dict[str, Any]] = {}
    problems: list[str] = []
    n_left = 0
    for result, name in _list_wanted(context):
        if len(maps) >= MOST_MAPS:
            n_left += 1
            continue
        clips = _find_clips(context, result, store, tasks)
        if clips is None:
            continue
        found = _make_map(store, keys, result, clips)
        if isinstance(found, str):
            problems.append(f"{name} on {result.task}: {found}")
        else:
            maps.append({"name": name, "task": clips["number"], **found})
    if not maps and not problems:
        return None
    if n_left:
        problems.append(f"{n_left} further maps were left out; evar plot map draws each of them.")
    described = [_describe_task(context, one) for one in tasks.values()]
    shown = {"n_maps": len(maps), "problems": problems[:12], "n_clips": MOST_CLIPS}
    return Part("map", "Map", shown, {"maps": maps, "tasks": described})


def _list_wanted(context: Context) -> list[tuple[Result, str]]:
    """List the rows whose vectors get a map: default layers, then, where they are wanted, all single layers."""
    sections: Sequence[Section] = context.sections
    if context.settings.maps == "all":
        sections = [*context.sections, *context.layer_sections]
    found: dict[tuple[Any, ...], tuple[Result, str]] = {}
    for section in sections:
        for row in section.rows:
            for cell in row.cells:
                if cell is None or not cell.results or cell.results[0].fusion not in ("none", "concat"):
                    continue
                result = cell.results[0]
                where = result.encoder, result.weights_sha256, tuple(result.layers), result.task, result.limit
                found.setdefault(where, (result, name_row(row)))
    return list(found.values())


def _read_keys(store: FeatureStore) -> list[tuple[FeatureKey, Mapping[str, Any]]]:
    """Read the keys of a store; one that cannot be read is left out."""
    found = []
    for record in sorted(store.folder.glob("*/*/key.json")):
        try:
            values = json.loads(record.read_text(encoding="utf-8"))
            stats = values.get("norm_stats")
            values["norm_stats"] = None if stats is None else tuple(stats)
            key = FeatureKey(**values)
        except (OSError, ValueError, TypeError, AttributeError):
            continue
        if store.key_folder(key) == record.parent:
            found.append((key, values))
    return found


def _find_clips(
    context: Context, result: Result, store: FeatureStore, tasks: dict[tuple[str, int | None], dict[str, Any]]
) -> dict[str, Any] | None:
    """Find the clips of a task that a map shows, and where their vectors are; None if they are not here."""
    where = result.task, result.limit
    if where in tasks:
        return tasks[where] or None
    task = find_task(context, *where)
    if task is None or task.index_sha256 != result.index_sha256 or task.config.kind not in ("multiclass", "multilabel"):
        return None
    labels = task.strata
    drawn = draw_balanced_subset(labels, MOST_CLIPS, 0)
    rows = _find_rows(task, drawn, store)
    tasks[where] = {
        "number": len(tasks),
        "task": task,
        "labels": labels[drawn],
        "paths": task.index["path"].iloc[drawn].tolist(),
        "rows": rows,
        "classes": name_classes(context, result),
    }
    return tasks[where]


def _find_rows(task: Task, drawn: NDArray[np.int64], store: FeatureStore) -> list[str | None]:
    """Return the store's address of each clip's vectors; None for a file that cannot be read."""
    index = AudioIndex(store.folder)
    policy = task.policy()
    found: list[str | None] = []
    paths = [task.paths[at] for at in drawn]
    try:
        for path, known in zip(paths, index.lookup(paths), strict=True):
            try:
                info = known or index.inspect(path)[1]
                found.append(row_id(info, policy.window(info)[0]))
            except (AudioError, OSError):
                found.append(None)
    finally:
        index.close()
    return found


def _make_map(
    store: FeatureStore,
    keys: Sequence[tuple[FeatureKey, Mapping[str, Any]]],
    result: Result,
    clips: Mapping[str, Any],
) -> dict[str, Any] | str:
    """Lay out the vectors of one row's layers; or say why that cannot be done."""
    for key, _ in keys:
        if not _fits(key, result):
            continue
        where = store.rows(key)
        at = [number for number, row in enumerate(clips["rows"]) if row is not None and row in where]
        if len(at) < max(MIN_CLIPS, len(clips["rows"]) // 2):
            continue
        rows = [str(clips["rows"][number]) for number in at]
        try:
            vectors = np.concatenate([store.load(key, rows, layer, where) for layer in result.layers], axis=1)
        except (KeyError, OSError, ValueError):
            continue
        finite = np.isfinite(vectors).all(axis=1)
        if finite.sum() < MIN_CLIPS:
            continue
        places = place_clips(standardise(vectors[finite]), "tsne", 0)
        centred = places - places.mean(axis=0)
        scaled = 100 * centred / (np.abs(centred).max() or 1.0)
        shown = np.asarray(at)[finite]
        return {"clips": shown.tolist(), "x": scaled[:, 0].round(1).tolist(), "y": scaled[:, 1].round(1).tolist()}
    return "its vectors are not in the store; name the right store with --store"


def _fits(key: FeatureKey, result: Result) -> bool:
    """Tell whether a row may have read vectors of this key."""
    extraction = result.extraction
    same = all(
        name not in extraction or extraction[name] == getattr(key, name)
        for name in ("sample_rate", "resampler", "revision", "precision", "clip_seconds", "pad")
    )
    own = (key.weights_sha256, dict(key.options)) == (result.weights_sha256, dict(result.encoder_options))
    return same and own and key.alteration is None and set(result.layers) <= set(key.layers)


def _describe_task(context: Context, clips: Mapping[str, Any]) -> dict[str, Any]:
    sounds: Sounds = context.tasks.get("sounds") or Sounds()
    task: Task = clips["task"]
    limit = f" (limit {task.limit})" if task.limit else ""
    return {
        "name": f"{task.name}{limit}",
        "classes": list(clips["classes"]),
        "labels": clips["labels"].tolist(),
        "paths": clips["paths"],
        "sounds": [sounds.find(task.name, path) for path in clips["paths"]],
    }
