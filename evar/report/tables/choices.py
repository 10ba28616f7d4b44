"""Features chosen on validation clips: composed from the rows of fixed layers, and compared with the default layer.

In a task with folds each round has a choice of its own, made without that round's test clips; the predictions of the
chosen layers of each round, put together, are the predictions of an honest choice.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.config.plain_text import make_printable
from evar.report.tables.labels import label_layers
from evar.report.tables.tested import load_row_predictions
from evar.results import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

Layers = tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """A feature on one task.

    Attributes:
        layers: those of each round.
        score: mean over rounds (and seeds), 0..1.
        interval: (low, high) of the 95 % interval, 0..1.
        clip, round, group: (clips,) what was tested.
        correct: (clips,) correctness, averaged over seeds.
    """

    layers: tuple[Layers, ...]
    score: float
    interval: tuple[float, float]
    clip: NDArray[Any]
    round: NDArray[Any]
    group: NDArray[Any]
    correct: NDArray[Any]

    @property
    def label(self) -> str:
        """The layers of most rounds, and in how many."""
        (most, count), *others = Counter(self.layers).most_common()
        text = label_layers(most, "concat")
        return text if not others else f"{text} ({count} of {len(self.layers)} folds)"


@dataclass(frozen=True)
class Difference:
    """One feature minus another on the same test clips.

    Attributes:
        score: difference of the scores, -1..1.
        interval: of it, 95 %.
        p_value: of the paired randomisation test, two-sided, not corrected.
    """

    score: float
    interval: tuple[float, float]
    p_value: float


def compose_choice(rows: Mapping[Layers, Sequence[Result]], layers: Sequence[Layers], out: Path) -> Chosen | None:
    """Put together the predictions of the layers that each round chose.

    Args:
        rows: layers -> results of one task, one for each seed.
        layers: of each round.
        out: results folder with the predictions.

    Returns:
        None if a row or its predictions are missing, or the rows were tested on different clips.
    """
    import numpy as np

    from evar.metrics import bootstrap_interval

    if not layers or any(chosen not in rows for chosen in layers):
        return None
    if any(row.metric != "accuracy" for row in rows[layers[0]]):  # the others are no mean over clips
        return None
    seeds = set.intersection(*({row.seed for row in rows[chosen]} for chosen in layers))
    scores, corrects = [], []
    tested: dict[str, NDArray[Any]] | None = None
    for seed in sorted(seeds):
        of_seed = {chosen: next(row for row in rows[chosen] if row.seed == seed) for chosen in set(layers)}
        found = _join_rounds(of_seed, layers, out)
        if found is None:
            return None
        if tested is not None and not all(np.array_equal(found[name], tested[name]) for name in ("clip", "round")):
            return None
        tested = found
        corrects.append((found["y_true"] == found["y_pred"]).astype(float))
        scores.append(np.mean([of_seed[chosen].round_scores[number] for number, chosen in enumerate(layers)]))
    if tested is None:
        return None
    correct = np.mean(corrects, axis=0)
    low, high = bootstrap_interval(correct, tested["group"], tested["round"])
    where = tested["clip"], tested["round"], tested["group"]
    return Chosen(tuple(layers), float(np.mean(scores)), (low, high), *where, correct)


def _join_rounds(rows: Mapping[Layers, Result], layers: Sequence[Layers], out: Path) -> dict[str, NDArray[Any]] | None:
    """Put together the predictions of each round's layers, in the order of round and clip; None where some are missing."""
    import numpy as np

    if any(len(row.round_scores) != len(layers) for row in rows.values()):
        return None
    try:
        loaded = {chosen: load_row_predictions(out, row) for chosen, row in rows.items()}
    except (FileNotFoundError, ValueError) as error:
        warnings.warn(f"left out of the comparison: {make_printable(error)}", stacklevel=2)
        return None
    parts = []
    for number, chosen in enumerate(layers):
        is_own = loaded[chosen]["round"] == number
        if not is_own.any():
            return None
        parts.append({name: value[is_own] for name, value in loaded[chosen].items()})
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((whole["clip"], whole["round"]))
    return {name: value[order] for name, value in whole.items()}


def subtract_choices(one: Chosen, other: Chosen) -> Difference | None:
    """`one` minus `other`; None if they were tested on different clips."""
    import numpy as np

    from evar.metrics import bootstrap_interval, paired_permutation

    if not (np.array_equal(one.clip, other.clip) and np.array_equal(one.round, other.round)):
        return None
    low, high = bootstrap_interval((one.correct - other.correct + 1) / 2, one.group, one.round)
    p_value = paired_permutation(one.correct, other.correct, one.group, one.round)
    return Difference(one.score - other.score, (2 * low - 1, 2 * high - 1), p_value)


def find_best_layers(rows: Mapping[Layers, Sequence[Result]], seed: int = 0) -> list[Layers] | None:
    """For each round the single layer with the best validation score; of equals the lower log-loss, then the deeper.

    Args:
        rows: layers -> results of one task.
        seed: whose validation clips judge.

    Returns:
        None if there are fewer than two single layers, or a row does not tell its validation scores.
    """
    single: dict[Layers, Result] = {
        layers: row
        for layers, found in rows.items()
        if len(layers) == 1 and (row := next((row for row in found if row.seed == seed), None)) is not None
    }
    if any(not row.rounds or any(one.get("valid_score") is None for one in row.rounds) for row in single.values()):
        return None
    if len(single) < 2 or len({len(row.rounds) for row in single.values()}) > 1:
        return None

    def rate(layers: Layers, number: int) -> tuple[float, float, int]:
        """Return the values that choose a layer: validation score, log-loss (less is better), and depth."""
        row = single[layers]
        loss = row.rounds[number].get("valid_log_loss")
        return row.rounds[number]["valid_score"], -(loss if loss is not None else 0.0), row.layer_index or 0

    n_rounds = len(next(iter(single.values())).rounds)
    return [max(single, key=lambda layers: rate(layers, number)) for number in range(n_rounds)]
