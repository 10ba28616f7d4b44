"""How the ranks of encoders move between protocols: Kendall's tau-b for each pair of protocols, with an interval."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar.report.label_curves import choose_main_rows
from evar.report.tables.cells import make_sections
from evar.report.tables.csv_text import format_csv_table
from evar.report.tables.layout import escape_markdown, format_percent
from evar.report.tables.markdown import format_markdown_table
from evar.report.tables.section import Cell
from evar.report.tables.tested import load_row_predictions
from evar.results import Result
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: encoders that a correlation of ranks needs; of fewer, tau-b can only be 1 or -1
LEAST_ENCODERS = 3
#: of fewer encoders than this a sentence says how few values tau-b can take
FEW_ENCODERS = 6
#: bootstrap samples, at most
_N_RESAMPLES = 1000


@dataclass(frozen=True)
class Correlation:
    """How far two protocols put encoders into the same order.

    Attributes:
        first, second: protocols.
        tau: Kendall's tau-b; None where one of them ties all encoders.
        interval: (low, high) of 95 %, by the bootstrap over groups of test clips; None where it is not known.
    """

    first: str
    second: str
    tau: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class RankTask:
    """The ranks of encoders on one task, or over all tasks.

    Attributes:
        title: of the task.
        protocols: names.
        encoders: names, those that all protocols have.
        scores: encoder -> (protocols,) scores, 0..1; empty for the mean over tasks.
        ranks: encoder -> (protocols,) ranks, 1 the best; ties share their mean. Over tasks, means of ranks.
        correlations: for each pair of protocols; empty for fewer than `LEAST_ENCODERS` encoders.
        left_out: encoders that some protocol lacks.
    """

    title: str
    protocols: tuple[str, ...]
    encoders: tuple[str, ...]
    scores: Mapping[str, Sequence[float]]
    ranks: Mapping[str, Sequence[float]]
    correlations: tuple[Correlation, ...] = ()
    left_out: tuple[str, ...] = ()


def find_ranks(results: Sequence[Result], out: Path) -> list[RankTask]:
    """Compare the protocols of a results folder: every task that two protocols or more tested two encoders or more on.

    An encoder is compared by its default layers, or, where they were not run, by its only or deepest row; fusions of all
    layers, as of protocols that read all, stand for their encoder there.

    Args:
        results: in any order.
        out: results folder, with the predictions.

    Returns:
        One entry a task, and where there are several tasks of the same protocols and encoders their mean at the end.
    """
    by_task: dict[str, dict[str, dict[str, Cell]]] = {}
    for section in make_sections(results, (), out):
        for index, column in enumerate(section.columns):
            rows = [row for row in section.rows if (cell := row.cells[index]) and cell.score is not None]
            found = {row.encoder: row.cells[index] for row in choose_main_rows(rows)}
            kept = {name: cell for name, cell in found.items() if cell is not None}
            by_task.setdefault(column.label, {})[section.title.split(" (limit")[0]] = kept
    tasks = []
    samples: list[NDArray[np.float64]] = []
    for seed, (title, by_protocol) in enumerate(by_task.items()):
        made = _make_task(title, by_protocol, out, seed)
        if made is not None:
            tasks.append(made[0])
            samples.append(made[1])
    alike = [
        at
        for at, task in enumerate(tasks)
        if (task.protocols, task.encoders) == (tasks[0].protocols, tasks[0].encoders)
    ]
    if len(alike) > 1:
        tasks.append(_average([tasks[at] for at in alike], [samples[at] for at in alike]))
    return tasks


def _make_task(
    title: str, by_protocol: Mapping[str, Mapping[str, Cell]], out: Path, seed: int
) -> tuple[RankTask, NDArray[np.float64]] | None:
    """Make a task, and the (protocol pairs, resamples) tau-b of bootstrap samples; None if there is nothing to compare."""
    import numpy as np

    named = {name: cells for name, cells in by_protocol.items() if len(cells) > 1}
    shared = [name for name in next(iter(named.values()), {}) if all(name in cells for cells in named.values())]
    if len(named) < 2 or len(shared) < 2:
        return None
    protocols, every = tuple(named), {name for cells in named.values() for name in cells}
    scores = np.array([[_read_score(named[protocol][name]) for protocol in protocols] for name in shared])
    task = RankTask(
        title,
        protocols,
        tuple(shared),
        {name: tuple(row) for name, row in zip(shared, scores.tolist(), strict=True)},
        {name: tuple(row) for name, row in zip(shared, rank_columns(scores).tolist(), strict=True)},
        left_out=tuple(sorted(every - set(shared))),
    )
    pairs = list(itertools.combinations(range(len(protocols)), 2))
    if len(shared) < LEAST_ENCODERS:
        return task, np.full((len(pairs), 1), np.nan)
    cells = [[named[protocol][name] for name in shared] for protocol in protocols]
    n = _count_resamples([cell for row in cells for cell in row])
    resampled = [_resample(row, out, n, seed) for row in cells]
    return _correlate(task, scores, resampled, pairs)


def _read_score(cell: Cell) -> float:
    return float("nan") if cell.score is None else cell.score


def rank_columns(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank the encoders of each column, 1 the best; ties share the mean of their ranks.

    Args:
        scores: (encoders, columns), larger is better.

    Returns:
        (encoders, columns).

    Example:
        >>> import numpy as np
        >>> rank_columns(np.array([[0.5], [0.9], [0.5]])).ravel().tolist()
        [2.5, 1.0, 2.5]
    """
    from scipy.stats import rankdata

    return rankdata(-scores.round(12), axis=0)


def _correlate(
    task: RankTask,
    scores: NDArray[np.float64],
    resampled: Sequence[Resampled | None],
    pairs: Sequence[tuple[int, int]],
) -> tuple[RankTask, NDArray[np.float64]]:
    """Add the correlations of the protocols, with an interval for each pair that was tested on the same clips."""
    from dataclasses import replace

    import numpy as np

    from evar.metrics.rank_correlation import compute_kendall

    n = max((one.scores.shape[1] for one in resampled if one is not None), default=1)
    found, samples = [], []
    for first, second in pairs:
        tau = float(compute_kendall(scores[:, first], scores[:, second]))
        one, other = resampled[first], resampled[second]
        if one is None or other is None or one.key != other.key:
            drawn = np.full(n, np.nan)
        else:
            drawn = compute_kendall(one.scores.T, other.scores.T)
        samples.append(drawn)
        names = task.protocols[first], task.protocols[second]
        found.append(Correlation(*names, tau if math.isfinite(tau) else None, _find_interval(drawn)))
    return replace(task, correlations=tuple(found)), np.stack(samples)


def _find_interval(samples: NDArray[np.float64]) -> tuple[float, float] | None:
    import numpy as np

    known = samples[np.isfinite(samples)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Resampled:
    """Scores of one protocol's encoders in bootstrap samples of the test clips.

    Attributes:
        key: clips, rounds and groups of the test, as bytes; protocols of one key share their samples.
        scores: (encoders, resamples), larger is better.
    """

    key: tuple[bytes, ...]
    scores: NDArray[np.float64]


def _resample(cells: Sequence[Cell], out: Path, n_resamples: int, seed: int) -> Resampled | None:
    """Score the encoders of a protocol in shared samples; None if predictions are missing or the clips are not the same."""
    import numpy as np

    from evar.metrics import METRICS, bootstrap_many

    found: list[NDArray[np.float64]] = []
    key: tuple[bytes, ...] = ()
    try:
        for cell in cells:
            metric = cell.results[0].metric
            if not _has_bootstrap(cell):
                return None
            runs = [load_row_predictions(out, result) for result in cell.results]
            orders = [np.lexsort((run["clip"], run["round"])) for run in runs]
            for run, order in zip(runs, orders, strict=True):
                own = tuple(np.ascontiguousarray(run[name][order]).tobytes() for name in ("clip", "round", "group"))
                key = key or own
                if key != own:
                    return None
            first, order = runs[0], orders[0]
            predicted = [run["y_pred"][index] for run, index in zip(runs, orders, strict=True)]
            where = first["group"][order], first["round"][order]
            scores = bootstrap_many(
                metric, first["y_true"][order], predicted, *where, n_resamples=n_resamples, seed=seed
            )
            found.append(METRICS[metric].orient(scores.mean(axis=0)))
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        return None
    return Resampled(key, np.array(found))


def _has_bootstrap(cell: Cell) -> bool:
    from evar.metrics import METRICS

    metric = cell.results[0].metric
    return metric in METRICS and METRICS[metric].resampled is not None


def _count_resamples(cells: Sequence[Cell]) -> int:
    """Return how many samples every metric can afford: only samples of one number are the same for all rows."""
    from evar.metrics import METRICS

    return min([_N_RESAMPLES, *(METRICS[cell.results[0].metric].n_resamples for cell in cells if _has_bootstrap(cell))])


def _average(tasks: Sequence[RankTask], samples: Sequence[NDArray[np.float64]]) -> RankTask:
    """Average ranks and correlations over tasks, whose samples are drawn task by task."""
    import numpy as np

    first = tasks[0]
    ranks = np.mean([[task.ranks[name] for name in first.encoders] for task in tasks], axis=0)
    n = min(values.shape[1] for values in samples)
    drawn = np.mean([values[:, :n] for values in samples], axis=0)
    correlations = []
    for at, one in enumerate(first.correlations):
        taus = [task.correlations[at].tau for task in tasks]
        known = [tau for tau in taus if tau is not None]
        mean = float(np.mean(known)) if len(known) == len(taus) else None
        correlations.append(Correlation(one.first, one.second, mean, _find_interval(drawn[at])))
    return RankTask(
        f"mean over {len(tasks)} tasks",
        first.protocols,
        first.encoders,
        {},
        {name: tuple(row) for name, row in zip(first.encoders, ranks.tolist(), strict=True)},
        tuple(correlations),
    )


def describe_task(task: RankTask) -> list[str]:
    """Say how far the protocols agree on a task.

    Example:
        >>> describe_task(RankTask("esc10", ("knn", "linear"), ("a", "b"), {}, {}))
        ['There are 2 encoders; a correlation of ranks needs at least 3.']
    """
    n = len(task.encoders)
    if n < LEAST_ENCODERS:
        said = [f"There are {n} encoders; a correlation of ranks needs at least {LEAST_ENCODERS}."]
    else:
        said = []
        known = [one for one in task.correlations if one.tau is not None]
        if known and len(known) == len(task.correlations) and all(one.tau == 1 for one in known):
            said.append(f"All {len(task.protocols)} protocols put the {n} encoders into the same order.")
        elif known:
            least = min(known, key=lambda one: one.tau or 0.0)
            said.append(
                f"The two protocols that differ most are {least.first} and {least.second}: tau-b {least.tau:+.2f}"
                + (f", 95 % interval {least.interval[0]:+.2f} to {least.interval[1]:+.2f}." if least.interval else ".")
            )
        if tied := [one for one in task.correlations if one.tau is None]:
            where = "" if task.scores else " on a task"
            why = f"one of the two protocols gives all encoders the same score{where}"
            said.append(f"No tau-b for {_name_pairs(tied)}: {why}.")
        if bare := [one for one in known if one.interval is None]:
            why = "predictions are missing, or not all rows were tested on the same clips, or these are a single group"
            said.append(f"No interval for {_name_pairs(bare)}: {why}.")
        if n < FEW_ENCODERS and task.scores:
            n_pairs = n * (n - 1) // 2
            said.append(
                f"{n} encoders are few: without ties tau-b can take only {n_pairs + 1} values, "
                f"{2 / n_pairs:.2f} apart, and one exchange of neighbours costs that much."
            )
    if task.left_out:
        said.append(f"Left out, since a protocol has no row of them: {', '.join(task.left_out)}.")
    return said


def _name_pairs(pairs: Sequence[Correlation], most: int = 3) -> str:
    named = [f"{one.first} with {one.second}" for one in pairs[:most]]
    return ", ".join(named) + (f" and {len(pairs) - most} more" if len(pairs) > most else "")


def write_ranks(tasks: Sequence[RankTask], out: Path) -> list[Path]:
    """Write `protocol_ranks.md` and `protocol_ranks.csv`; nothing if no two protocols can be compared."""
    if not tasks:
        return []
    texts = {"protocol_ranks.md": format_rank_markdown(tasks), "protocol_ranks.csv": format_rank_csv(tasks)}
    for name, text in texts.items():
        write_atomic(Path(out) / name, text.encode("utf-8"))
    return [Path(out) / name for name in texts]


def format_rank_markdown(tasks: Sequence[RankTask]) -> str:
    """Write ranks and correlations for each task.

    Example:
        >>> format_rank_markdown([]).splitlines()[0]
        '# How ranks move between protocols'
    """
    parts = ["# How ranks move between protocols"]
    for task in tasks:
        lines = []
        for name in sorted(task.encoders, key=lambda name: tuple(task.ranks[name])):
            ranks = [f"{rank:g}" if task.scores else f"{rank:.2f}" for rank in task.ranks[name]]
            scores = task.scores.get(name, [])
            shown = [f"{rank} ({format_percent(score)})" for rank, score in zip(ranks, scores, strict=False)] or ranks
            lines.append([escape_markdown(name), *shown])
        parts += [
            f"## {escape_markdown(task.title)}",
            format_markdown_table(["encoder", *map(escape_markdown, task.protocols)], lines, 1),
        ]
        if task.correlations:
            header = ["protocols", "Kendall's tau-b", "95 % interval"]
            parts.append(format_markdown_table(header, [_format_pair(one) for one in task.correlations], 1))
        parts.append("\n".join(f"- {escape_markdown(text)}" for text in describe_task(task)))
    notes = (
        "Rank 1 is the best, ties share the mean of their ranks; behind each rank the score in percent. An encoder is "
        "compared by its default layers.",
        "Kendall's tau-b is 1 where two protocols put the encoders into the same order, and -1 where it is reversed. Its "
        "interval is from bootstrap samples of whole groups of test clips, the same for all encoders and protocols; "
        "samples disturb an order more often than they mend it, so the interval of a tau-b near 1 lies "
        "mostly below it.",
    )
    return "\n\n".join([*(part for part in parts if part), "\n".join(f"- {note}" for note in notes)]) + "\n"


def _format_pair(one: Correlation) -> list[str]:
    interval = "-" if one.interval is None else f"{one.interval[0]:+.2f} to {one.interval[1]:+.2f}"
    names = f"{escape_markdown(one.first)}, {escape_markdown(one.second)}"
    return [names, "-" if one.tau is None else f"{one.tau:+.2f}", interval]


def format_rank_csv(tasks: Sequence[RankTask]) -> str:
    """Write one line for each rank, and one for each correlation.

    Example:
        >>> format_rank_csv([]).strip()
        'kind,task,encoder,protocol,other,score,rank,tau,low,high'
    """
    lines: list[list[object]] = []
    for task in tasks:
        for name in task.encoders:
            scores: Sequence[object] = task.scores.get(name) or [""] * len(task.protocols)
            for protocol, score, rank in zip(task.protocols, scores, task.ranks[name], strict=True):
                lines.append(["rank", task.title, name, protocol, "", score, rank, "", "", ""])
        for one in task.correlations:
            ends = one.interval or ("", "")
            tau = "" if one.tau is None else one.tau
            lines.append(["tau", task.title, "", one.first, one.second, "", "", tau, *ends])
    header = ["kind", "task", "encoder", "protocol", "other", "score", "rank", "tau", "low", "high"]
    return format_csv_table(header, lines)
