"""The layer or fusion of an encoder to read on a task: chosen on validation clips, scored on test clips.

Rows of one encoder differ in layers and fusion. Each round takes the one with the best validation score, so that the
predictions of the chosen ones, put together, are those of an honest choice.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.config.plain_text import make_printable
from evar.report.tables.compared import Tested
from evar.report.tables.labels import label_layers, make_column_key
from evar.report.tables.tested import load_row_predictions
from evar.results import Result

#: layers, fusion and pooling, as JSON; seed -> the row
FeatureKey = tuple[tuple[str, ...], str, str]
Rows = Mapping[FeatureKey, Mapping[int, Result]]


@dataclass(frozen=True)
class Feature:
    """What to read of one encoder on one task.

    Attributes:
        encoder: name of the encoder in its rows.
        rows: that the score is from: of every seed, the row that each round chose, each once.
        key: of the feature with the best validation score over all rounds: layers, fusion, pooling.
        label: the layers as tables name them.
        n_agree, n_rounds: rounds that chose this feature, of all rounds.
        chosen_by: "validation", "default" (declared by the encoder, as no row tells validation scores), "only" (nothing was
            to be chosen), or "test" (the best test score was taken, which is too high).
        valid_score: mean over rounds and seeds; None where it is not known.
        score, interval: of the test clips, 0..1; the interval is None where predictions are missing.
        tested: predictions; None where they are missing.
    """

    encoder: str
    rows: tuple[Result, ...]
    key: FeatureKey
    label: str
    n_agree: int
    n_rounds: int
    chosen_by: str
    valid_score: float | None
    score: float
    interval: tuple[float, float] | None
    tested: Tested | None

    @property
    def first(self) -> Result:
        """The row of the chosen feature."""
        return next((row for row in self.rows if make_feature_key(row) == self.key), self.rows[0])

    @property
    def width(self) -> int | None:
        """Numbers that the probe reads of a clip."""
        return self.first.width


def make_feature_key(row: Result) -> FeatureKey:
    """Return what tells the features of one encoder apart: layers, fusion and pooling."""
    return tuple(row.layers), row.fusion, json.dumps(dict(row.pooling), sort_keys=True)


def group_features(rows: Sequence[Result]) -> dict[FeatureKey, dict[int, Result]]:
    """Sort the rows of one encoder on one task by feature and seed; the newest where two share a place."""
    found: dict[FeatureKey, dict[int, Result]] = {}
    for row in sorted(rows, key=lambda row: (row.created, row.id)):
        found.setdefault(make_feature_key(row), {})[row.seed] = row
    return found


def choose_task_rows(rows: Sequence[Result], task: str) -> list[Result]:
    """Return the rows of a task that can be compared: of the version, metric and clips that most encoders were tested on.

    Args:
        rows: of one protocol and limit.
        task: name.
    """
    columns: dict[Any, list[Result]] = {}
    for row in rows:
        if row.task == task:
            columns.setdefault(make_column_key(row), []).append(row)

    def rate(key: Any) -> tuple[int, str]:
        return len({row.encoder for row in columns[key]}), max(row.created for row in columns[key])

    return columns[max(columns, key=rate)] if columns else []


def choose_feature(rows: Rows, out: Path, fits: Callable[[Result], bool] = lambda _: True) -> Feature | None:
    """Choose what to read of an encoder on a task, and compute its score on test clips.

    Args:
        rows: features of one encoder on one task, of one protocol.
        out: results folder, for the predictions.
        fits: which features may be chosen.

    Returns:
        None if no feature fits.
    """
    allowed = {key: seeds for key, seeds in rows.items() if fits(next(iter(seeds.values())))}
    n_rounds = Counter(len(row.round_scores) for seeds in allowed.values() for row in seeds.values())
    if not allowed:
        return None
    most = n_rounds.most_common(1)[0][0]
    allowed = {key: seeds for key, seeds in allowed.items() if len(next(iter(seeds.values())).round_scores) == most}
    known = {key: seeds for key, seeds in allowed.items() if _tells_validation(seeds)}
    if known:
        ratings = {key: [_rate(seeds, number) for number in range(most)] for key, seeds in known.items()}
        by_round = [max(ratings, key=lambda key, number=number: ratings[key][number]) for number in range(most)]  # type: ignore[misc]
        best = max(ratings, key=lambda key: tuple(sum(part) / most for part in zip(*ratings[key], strict=True)))
        how = "validation" if len(allowed) > 1 else "only"
        return _make_feature(known, best, by_round, how, out)
    default = [key for key, seeds in allowed.items() if next(iter(seeds.values())).default]
    how = "only" if len(allowed) == 1 else "default" if default else "test"
    best = default[0] if default and how == "default" else max(allowed, key=lambda key: _mean_score(allowed[key]))
    return _make_feature(allowed, best, [best] * most, how, out)


def fix_feature(rows: Rows, key: FeatureKey, out: Path, how: str) -> Feature:
    """Make the feature that was chosen elsewhere and is the same in every round, with its score.

    Args:
        rows: of the encoder on the task, by feature and seed.
        key: of the feature.
        out: results folder, for the predictions.
        how: what chose it, as the tables say it.
    """
    n_rounds = len(next(iter(rows[key].values())).round_scores)
    return _make_feature(rows, key, [key] * n_rounds, how, out)


def _tells_validation(seeds: Mapping[int, Result]) -> bool:
    return all(row.rounds and all(one.get("valid_score") is not None for one in row.rounds) for row in seeds.values())


def find_valid_score(seeds: Mapping[int, Result]) -> float | None:
    """Average the validation score over rounds and seeds, 0..1; None if a row does not tell it."""
    if not _tells_validation(seeds):
        return None
    scores = [one["valid_score"] for row in seeds.values() for one in row.rounds]
    return float(sum(scores) / len(scores))


def _rate(seeds: Mapping[int, Result], number: int) -> tuple[float, float, float]:
    """Return the values that choose a feature in a round: validation score, log-loss and width (less is better)."""
    rounds = [row.rounds[number] for row in seeds.values()]
    losses = [one.get("valid_log_loss") or 0.0 for one in rounds]
    width = next(iter(seeds.values())).width or 0
    return sum(one["valid_score"] for one in rounds) / len(rounds), -sum(losses) / len(losses), -float(width)


def _mean_score(seeds: Mapping[int, Result]) -> float:
    return sum(row.score for row in seeds.values()) / len(seeds)


def _make_feature(rows: Rows, best: FeatureKey, by_round: Sequence[FeatureKey], how: str, out: Path) -> Feature:
    chosen = {key: rows[key] for key in dict.fromkeys([best, *by_round])}
    seeds = sorted(set.intersection(*(set(chosen[key]) for key in by_round)))
    if not seeds:  # of features with different seeds none can be put together: the best one stands for all rounds
        by_round, seeds = [best] * len(by_round), sorted(chosen[best])
    pairs = dict.fromkeys((key, seed) for key in [best, *by_round] for seed in seeds if seed in chosen[key])
    used = tuple(chosen[key][seed] for key, seed in pairs)
    score = sum(chosen[key][seed].round_scores[at] for seed in seeds for at, key in enumerate(by_round))
    tested = _compose(chosen, by_round, seeds, out)
    valid = [find_valid_score({0: row}) for row in chosen[best].values()]
    known = [one for one in valid if one is not None]
    return Feature(
        used[0].encoder,
        used,
        best,
        label_layers(best[0], best[1]),
        sum(key == best for key in by_round),
        len(by_round),
        how,
        sum(known) / len(known) if known and len(known) == len(valid) else None,
        score / (len(seeds) * len(by_round)),
        _find_interval(chosen, by_round, seeds, tested),
        tested,
    )


def _find_interval(
    chosen: Rows, by_round: Sequence[FeatureKey], seeds: Sequence[int], tested: Tested | None
) -> tuple[float, float] | None:
    only = chosen[by_round[0]][seeds[0]] if len(seeds) == 1 and len(set(by_round)) == 1 else None
    if only is not None and only.interval is not None:
        return only.interval[0], only.interval[1]
    from evar.metrics import METRICS, score_interval

    if tested is None or tested.metric not in METRICS or METRICS[tested.metric].resampled is None:
        return None
    return score_interval(tested.metric, tested.y_true, tested.runs, tested.group, tested.round)


def _compose(chosen: Rows, by_round: Sequence[FeatureKey], seeds: Sequence[int], out: Path) -> Tested | None:
    """Put the predictions of each round's feature together, in the order of round and clip; None where some are missing."""
    import numpy as np

    runs, first = [], None
    loaded: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        parts = []
        for number, key in enumerate(by_round):
            row = chosen[key][seed]
            if row.id not in loaded:
                found = _load(out, row)
                if found is None:
                    return None
                loaded[row.id] = found
            is_own = loaded[row.id]["round"] == number
            if not is_own.any():
                return None
            parts.append({name: value[is_own] for name, value in loaded[row.id].items()})
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.lexsort((whole["clip"], whole["round"]))
        whole = {name: value[order] for name, value in whole.items()}
        if first is not None and not all(
            np.array_equal(whole[name], first[name]) for name in ("clip", "round", "group")
        ):
            return None
        first = whole if first is None else first
        runs.append(whole["y_pred"])
    if first is None:
        return None
    metric = chosen[by_round[0]][seeds[0]].metric
    return Tested(metric, first["clip"], first["round"], first["group"], first["y_true"], runs)


def _load(out: Path, row: Result) -> dict[str, Any] | None:
    try:
        return load_row_predictions(out, row)
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"left out of the comparison: {make_printable(error)}", stacklevel=2)
        return None
