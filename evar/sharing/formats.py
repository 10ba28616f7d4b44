"""Scores in the files of other toolkits, as far as their fields allow: MTEB's task results and HEAR's predicted scores.

MTEB keeps `MODEL/REVISION/TASK.json` with the scores of each split; HEAR `MODEL/TASK/test.predicted-scores.json` with the
scores of each fold and their mean. Neither has fields for predictions, intervals, the layers read, the probe's settings or
the clips that could not be read: `LOST` lists them, and the commands print the list. What is read becomes published numbers,
which tables show beside ours and never mix with them.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evar import config
from evar.results import Result
from evar.storage.atomic import write_atomic

FORMATS = ("bundle", "mteb", "hear")
#: what a format cannot hold
LOST = {
    "mteb": (
        "predictions, intervals, chance levels, the probe's settings, the scores of single rounds, and how clips were read; "
        "layers and fusion are part of the model's name, and the hash of the task's index stands where MTEB has the "
        "revision of a data set"
    ),
    "hear": (
        "predictions, intervals, chance levels, the probe's settings, and how clips were read; layers and fusion are part "
        "of the model's name"
    ),
}
#: the largest file that is read
_LARGEST = 2**24


def write_scores(rows: Sequence[Result], folder: str | Path, kind: str) -> list[Path]:
    """Write rows as another toolkit's files.

    Args:
        rows: of one or several encoders; of equal encoder, layers, task and protocol, the seeds are averaged.
        folder: to write into.
        kind: "mteb" or "hear".

    Returns:
        The files written.

    Raises:
        ValueError: for another kind.
        OSError: if the folder cannot be written.
    """
    if kind not in LOST:
        raise ValueError(f"the format must be one of {', '.join(LOST)}, got {kind!r}")
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for row in rows:
        model = f"{row.encoder}__{'+'.join(row.layers)}__{row.fusion}__{row.protocol}"
        groups.setdefault((_make_file_name(model), row.weights_sha256[:12], row.task), []).append(row)
    paths = []
    for (model, revision, task), seeds in sorted(groups.items()):
        name = _make_file_name(task)
        if kind == "mteb":
            path, data = Path(folder) / model / revision / f"{name}.json", _describe_for_mteb(seeds)
        else:
            path, data = Path(folder) / model / name / "test.predicted-scores.json", _describe_for_hear(seeds)
        write_atomic(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
        paths.append(path)
    return paths


def read_scores(folder: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Read another toolkit's files as published numbers.

    Args:
        folder: holds MTEB's or HEAR's files, or folders with them.

    Returns:
        The data of a YAML of published numbers (`evar.config.published`), and sentences on what could not be taken over.

    Raises:
        ValueError: if no file holds scores.
    """
    found: dict[str, dict[str, float]] = {}
    notes: list[str] = []
    kinds: set[str] = set()
    for path in sorted(Path(folder).rglob("*.json")):
        try:
            data = json.loads(path.read_bytes()) if path.stat().st_size <= _LARGEST else None
        except (ValueError, OSError, RecursionError) as error:
            notes.append(f"{path} is left out: {error}")
            continue
        taken = _take_mteb(path, data) or _take_hear(path, data)
        if taken is None:
            continue
        kind, model, task, score = taken
        if not 0.0 <= score <= 1.0:
            notes.append(f"{path} is left out: its score {score} does not lie in 0..1")
            continue
        kinds.add(kind)
        found.setdefault(model, {})[task] = round(100 * score, 4)
    if not found:
        raise ValueError(f"{folder} must hold MTEB's or HEAR's score files, found none that could be read")
    tasks = sorted(set.intersection(*(set(scores) for scores in found.values())))
    for model, scores in found.items():
        if lost := sorted(set(scores) - set(tasks)):
            notes.append(f"{model}: {', '.join(lost)} left out, since not every model has them")
    if not tasks:
        raise ValueError(f"the models of {folder} have no task in common; read them one by one")
    what = " and ".join(sorted(kinds))
    known = set(config.names("tasks"))
    return {
        "name": "scores",
        "title": f"{what} scores",
        "source": f"{what} score files",
        "citation": "none; say whose scores these are",
        "protocol": f"the protocol of {what}, whose files do not say its settings",
        "tasks": tasks,
        "other_tasks": {task: f"a task of {what} by that name" for task in tasks if task not in known},
        "caveats": {task: "the clips and splits may differ from those used here" for task in tasks if task in known},
        "rows": [{"label": model, "scores": [scores[task] for task in tasks]} for model, scores in found.items()],
    }, notes


def _describe_for_mteb(seeds: Sequence[Result]) -> dict[str, Any]:
    first = seeds[0]
    score = statistics.fmean(row.score for row in seeds)
    return {
        "dataset_revision": first.index_sha256,
        "task_name": first.task,
        "mteb_version": None,
        "scores": {
            "test": [
                {
                    first.metric: score,
                    **dict(first.extras),
                    "main_score": score,
                    "hf_subset": "default",
                    "languages": [],
                }
            ]
        },
        "evaluation_time": sum(row.seconds for row in seeds),
        "kg_co2_emissions": None,
    }


def _describe_for_hear(seeds: Sequence[Result]) -> dict[str, Any]:
    first = seeds[0]
    rounds = [statistics.fmean(row.round_scores[number] for row in seeds) for number in range(len(first.round_scores))]
    names = [str(one.get("name", number)) for number, one in enumerate(first.rounds)] or list(
        map(str, range(len(rounds)))
    )
    scores = {
        name: {"test_score": score, f"test_{first.metric}": score} for name, score in zip(names, rounds, strict=True)
    }
    if len(rounds) == 1:
        return {"test": next(iter(scores.values()))}
    return {
        **scores,
        "aggregated_scores": {"test_score_mean": statistics.fmean(rounds), "test_score_std": statistics.stdev(rounds)},
    }


def _take_mteb(path: Path, data: Any) -> tuple[str, str, str, float] | None:
    """(toolkit, model, task, score) of MTEB's file; None if it is none."""
    if not isinstance(data, Mapping) or not isinstance(data.get("scores"), Mapping):
        return None
    splits = data["scores"]
    parts = splits.get("test") or next(iter(splits.values()), None)
    if not isinstance(parts, list) or not all(isinstance(one, Mapping) for one in parts):
        return None
    scores = [one["main_score"] for one in parts if _is_number(one.get("main_score"))]
    if not scores:
        return None
    return "MTEB", path.parent.parent.name, _find_task(str(data.get("task_name", path.stem))), statistics.fmean(scores)


def _take_hear(path: Path, data: Any) -> tuple[str, str, str, float] | None:
    """(toolkit, model, task, score) of HEAR's file; None if it is none."""
    if path.name != "test.predicted-scores.json" or not isinstance(data, Mapping):
        return None
    whole = data.get("aggregated_scores")
    score = whole.get("test_score_mean") if isinstance(whole, Mapping) else None
    if score is None:
        folds = [
            one["test_score"] for one in data.values() if isinstance(one, Mapping) and _is_number(one.get("test_score"))
        ]
        score = statistics.fmean(folds) if folds else None
    if not _is_number(score):
        return None
    return "HEAR", path.parent.parent.name, _find_task(path.parent.name, "hear_"), float(str(score))


def _find_task(name: str, prefix: str = "") -> str:
    """Find our name of a task, if one of ours is spelled like it; else keep its own name."""
    plain = re.sub(r"-v\d.*$", "", name).lower().replace("-", "_")
    known = set(config.names("tasks"))
    for candidate in (f"{prefix}{plain}", plain):
        if candidate in known:
            return candidate
    return plain


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _make_file_name(text: str) -> str:
    return re.sub(r"[^\w.+-]", "-", text, flags=re.ASCII)[:120].lstrip(".-") or "_"
