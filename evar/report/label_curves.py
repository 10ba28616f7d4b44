"""Label-efficiency curves of a results folder: who leads with few labels, who with many, and from where on that stays so."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.report.tables.cells import make_sections
from evar.report.tables.section import Row, Section
from evar.report.tables.tested import load_row_predictions
from evar.results import Result, load_draws

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: a lead is significant below this p, after Holm's correction over all pairs and numbers of labels of a task
LEVEL = 0.05


@dataclass(frozen=True)
class Point:
    """One number of labelled clips per class.

    Attributes:
        n: clips per class that draws aim at; None for all clips.
        n_per_class: mean clips per class of a draw: more than n where groups are larger, fewer where classes are smaller.
        n_draws: draws.
        n_short: classes with fewer than n clips.
        score: mean over draws.
        draw_scores: of each draw.
        interval: (low, high) of the mean, over draws and test clips.
        one_draw: (low, high) of the score of a single draw.
    """

    n: int | None
    n_per_class: float
    n_draws: int
    n_short: int
    score: float
    draw_scores: tuple[float, ...]
    interval: tuple[float, float]
    one_draw: tuple[float, float]

    @property
    def label(self) -> str:
        """The number as tables show it."""
        return "all" if self.n is None else str(self.n)


@dataclass(frozen=True)
class Curve:
    """The curve of one row.

    Attributes:
        name: encoder, with what tells apart two rows of it.
        layers: label.
        depth: of a single layer, else None.
        is_main: does it stand for its encoder in rankings?
        points: rising; the last is all clips.
        result: the row.
    """

    name: str
    layers: str
    depth: float | None
    is_main: bool
    points: tuple[Point, ...]
    result: Result

    def find(self, n: int | None) -> Point | None:
        """Return the point of a number of labels, or None."""
        return next((point for point in self.points if point.n == n), None)


@dataclass(frozen=True)
class Lead:
    """The difference of two encoders at one number of labels.

    Attributes:
        n: labels per class; None for all.
        difference: first minus second, in fractions.
        deviation: standard error, over draws and test clips, paired.
        p_value: of no difference, two-sided, normal approximation.
        p_holm: corrected over all pairs and numbers of labels of the task.
    """

    n: int | None
    difference: float
    deviation: float
    p_value: float
    p_holm: float = 1.0

    @property
    def sign(self) -> int:
        """1 if the first leads, -1 if the second does, 0 if they are equal."""
        return 0 if abs(self.difference) < 1e-12 else 1 if self.difference > 0 else -1

    @property
    def significant_sign(self) -> int:
        """`sign` where the lead is significant, else 0."""
        return self.sign if self.p_holm < LEVEL else 0


@dataclass(frozen=True)
class Pair:
    """Two encoders at every number of labels that both have, rising."""

    first: str
    second: str
    leads: tuple[Lead, ...]


@dataclass(frozen=True)
class Agreement:
    """How far the order of encoders at one number of labels is that of all labels.

    Attributes:
        n: labels per class; None for all.
        tau: Kendall's tau-b of the two orders; None if all scores of one are equal.
        interval: (low, high) of 95 %, by the bootstrap over draws and test clips; None where it is not known.
        is_same: are they the same order?
        n_opposite: pairs of which the order is significantly the other way round.
    """

    n: int | None
    tau: float | None
    interval: tuple[float, float] | None
    is_same: bool
    n_opposite: int


@dataclass(frozen=True)
class CurveTask:
    """All curves of one task under one protocol.

    Attributes:
        title: of the task, with the protocol where there are several.
        metric: name.
        chance: score of guessing, 0..1, or None.
        curves: by encoder and depth.
        pairs: of the main curves; empty if the draws cannot be compared.
        agreements: for each number of labels that all main curves have; empty for fewer than three encoders.
        problem: why there are no pairs; "" if there are, or there is one encoder only.
    """

    title: str
    metric: str
    chance: float | None
    curves: tuple[Curve, ...]
    pairs: tuple[Pair, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    problem: str = ""

    @cached_property
    def main(self) -> tuple[Curve, ...]:
        """The curves that stand for their encoders."""
        return tuple(curve for curve in self.curves if curve.is_main)

    @cached_property
    def numbers(self) -> list[int | None]:
        """All numbers of labels, rising, None (all) last."""
        found = {point.n for curve in self.curves for point in curve.points}
        return sorted(found, key=lambda n: math.inf if n is None else n)


def find_curves(results: Sequence[Result], out: Path) -> list[CurveTask]:
    """Collect the curves of a results folder and compare the encoders of each task.

    An encoder is compared by its default layers, or, where they were not run, by its only or deepest row.

    Args:
        results: in any order; rows without a curve are left out.
        out: results folder, with the predictions of the draws.

    Returns:
        One entry for each task and protocol.
    """
    kept = [result for result in results if read_points(result)]
    sections = make_sections(kept, (), out, every=True)
    protocols = {(section.protocol, section.protocol_version) for section in sections}
    found = []
    for section in sections:
        for index, column in enumerate(section.columns):
            curves = _list_curves(section, index)
            if not curves:
                continue
            title = f"{column.label}, {section.title.split(' (limit')[0]}" if len(protocols) > 1 else column.label
            metric = curves[0].result.metric
            found.append(_compare(CurveTask(title, metric, column.chance, tuple(curves)), Path(out)))
    return found


def read_points(result: Result) -> tuple[Point, ...]:
    """Read the curve of a row; () if it has none, or one that is not legal."""
    given = result.params.get("curve")
    if not isinstance(given, list | tuple) or not given:
        return ()
    try:
        return tuple(_read_point(entry) for entry in given)
    except (KeyError, TypeError, ValueError):
        return ()


def _read_point(entry: Mapping[str, Any]) -> Point:
    n = entry["n"]
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ValueError(f"n must be a number of labels or None, got {n!r}")
    scores = tuple(float(score) for score in entry["draw_scores"])
    (low, high), (least, most) = map(float, entry["interval"]), map(float, entry["one_draw"])
    numbers = (float(entry["n_per_class"]), float(entry["score"]))
    if not scores or not all(map(math.isfinite, (*scores, *numbers, low, high, least, most))) or numbers[0] <= 0:
        raise ValueError("a point must hold finite scores and a positive number of clips")
    counts = int(entry["n_draws"]), int(entry["n_short"])
    return Point(n, numbers[0], *counts, numbers[1], scores, (low, high), (least, most))


def _list_curves(section: Section, index: int) -> list[Curve]:
    rows = [row for row in section.rows if (cell := row.cells[index]) is not None and cell.results]
    mains = choose_main_rows(rows)
    found = []
    for row in rows:
        cell = row.cells[index]
        assert cell is not None
        result = cell.results[0]
        name = row.encoder + (" (random weights)" if result.is_random and "random" not in row.encoder else "")
        points = tuple(sorted(read_points(result), key=lambda point: math.inf if point.n is None else point.n))
        found.append(Curve(name, row.layers, row.depth, any(row is main for main in mains), points, result))
    return found


def choose_main_rows(rows: Sequence[Row]) -> list[Row]:
    """Choose the row that stands for each encoder: its default layers, else its deepest.

    Args:
        rows: of one table.

    Returns:
        One row an encoder, in their order.
    """
    found = []
    for name in dict.fromkeys(row.encoder for row in rows):
        own = [row for row in rows if row.encoder == name]
        default = [row for row in own if row.first is not None and row.first.default]
        found.append(default[0] if default else max(own, key=lambda row: row.depth or 0.0))
    return found


def _compare(task: CurveTask, out: Path) -> CurveTask:
    """Test the main curves of a task against each other."""
    if len(task.main) < 2:
        return task
    try:
        resampled = [_resample(curve, out) for curve in task.main]
    except FileNotFoundError:
        return _with(task, problem="the predictions of some draws are missing, so no lead is tested")
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        return _with(task, problem="the predictions of some draws cannot be read, so no lead is tested")
    if len({key for _, key in resampled}) > 1:
        return _with(task, problem="the encoders were tested on different clips, so no lead is tested")
    samples = [values for values, _ in resampled]
    shared = [n for n in task.numbers if all(curve.find(n) for curve in task.main)]
    pairs = _correct(
        [
            _compare_pair(task.main[first], task.main[second], samples[first], samples[second], shared)
            for first, second in itertools.combinations(range(len(task.main)), 2)
        ]
    )
    agreements = _measure_agreement(task, samples, shared, pairs) if len(task.main) > 2 else []
    return _with(task, pairs=tuple(pairs), agreements=tuple(agreements))


def _with(task: CurveTask, **values: Any) -> CurveTask:
    from dataclasses import replace

    return replace(task, **values)


def _resample(curve: Curve, out: Path) -> tuple[dict[int | None, NDArray[np.float64]], tuple[bytes, ...]]:
    """Compute (draws, resamples) scores for each number of labels, and what tells the test clips from others."""
    import numpy as np

    from evar.metrics.draws import resample_draws

    found, draws = load_row_predictions(out, curve.result), load_draws(out, curve.result.id)
    listed = read_points(curve.result)
    if len(draws) != len(listed) or draws[0].shape[1] != len(found["clip"]):
        raise ValueError(f"curves/{curve.result.id}.npz does not belong to its row; run the row again")
    order = np.lexsort((found["clip"], found["round"]))
    where = found["y_true"][order], found["group"][order], found["round"][order]
    key = tuple(np.ascontiguousarray(array).tobytes() for array in (found["clip"][order], *where))
    values = {
        point.n: resample_draws(curve.result.metric, where[0], predicted[:, order], where[1], where[2])
        for point, predicted in zip(listed, draws, strict=True)
    }
    return values, key


def _compare_pair(
    first: Curve,
    second: Curve,
    samples: Mapping[int | None, NDArray[np.float64]],
    others: Mapping[int | None, NDArray[np.float64]],
    shared: Sequence[int | None],
) -> Pair:
    import numpy as np

    from evar.metrics.draws import average_draws

    leads = []
    for n in shared:
        one, other = first.find(n), second.find(n)
        assert one is not None and other is not None
        n_draws = min(len(samples[n]), len(others[n]))
        scores = np.array(one.draw_scores[:n_draws]) - np.array(other.draw_scores[:n_draws])
        difference = float(scores.mean())
        deviation = float(average_draws(samples[n][:n_draws] - others[n][:n_draws]).std())
        if not math.isfinite(deviation):
            p_value = 1.0
        elif deviation == 0:
            p_value = 1.0 if difference == 0 else 0.0
        else:
            p_value = math.erfc(abs(difference) / deviation / math.sqrt(2))
        leads.append(Lead(n, difference, deviation, p_value))
    return Pair(first.name, second.name, tuple(leads))


def _correct(pairs: Sequence[Pair]) -> list[Pair]:
    """Correct p-values over all pairs and numbers of labels (Holm)."""
    from dataclasses import replace

    from evar.metrics import holm

    values = [lead.p_value for pair in pairs for lead in pair.leads]
    corrected = iter(holm(values).tolist() if values else [])
    return [replace(pair, leads=tuple(replace(lead, p_holm=next(corrected)) for lead in pair.leads)) for pair in pairs]


def _measure_agreement(
    task: CurveTask,
    samples: Sequence[Mapping[int | None, NDArray[np.float64]]],
    shared: Sequence[int | None],
    pairs: Sequence[Pair],
) -> list[Agreement]:
    """Compare the order of the encoders at each number of labels with that of the largest."""
    import numpy as np

    from evar.metrics.draws import average_draws
    from evar.metrics.rank_correlation import compute_kendall

    scores = {n: [point.score for curve in task.main if (point := curve.find(n))] for n in shared}
    boots = {n: np.stack([average_draws(one[n]) for one in samples], axis=-1) for n in shared}
    last, found = shared[-1], []
    final_signs = [pair.leads[-1].sign for pair in pairs]
    for at, n in enumerate(shared):
        tau = float(compute_kendall(scores[n], scores[last]))
        resampled = compute_kendall(boots[n], boots[last])
        resampled = resampled[np.isfinite(resampled)]
        interval = None
        if n != last and len(resampled):
            low, high = np.quantile(resampled, [0.025, 0.975])
            interval = (float(low), float(high))
        signs = [pair.leads[at].sign for pair in pairs]
        opposite = sum(
            pair.leads[at].significant_sign * final < 0 for pair, final in zip(pairs, final_signs, strict=True)
        )
        found.append(Agreement(n, tau if math.isfinite(tau) else None, interval, signs == final_signs, opposite))
    return found
