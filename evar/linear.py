"""Frozen evaluation: encoders x tasks, every layer from one pass, a probe per layer, one result file per row.

Nothing is computed twice: vectors come from the feature store, rows that have a result file are left alone, and a cell
that fails is recorded with its reason while the others go on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import norm_stats, results
from evar.encoders import load_encoder
from evar.extract import Extraction, extract_each
from evar.fusion import fuse
from evar.grid import Outcome, Selection, Settings, asked, checked
from evar.metrics import METRICS
from evar.registry import resolve
from evar.results import Failure, Result
from evar.rows import UNREADABLE, FittedRound, make_result, save_row, wanted_rows
from evar.store import FeatureStore
from evar.tasks import Task, prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.config import ProtocolConfig
    from evar.encoders.base import Encoder


def evaluate(encoders: str | Sequence[str] = "", tasks: str | Sequence[str] = "", **flags: Any) -> Outcome:
    """The command line from Python: the same words, the same results folder, the same rows.

    Args:
        encoders, tasks: names (a list or a comma list), "all", or a grid; nothing: the embedded default grid.
        **flags: fields of `evar.grid.Settings`, such as layers="all", data_root="/data", out="results".

    Returns:
        All rows of the grid, and the cells that failed with their reasons.

    Raises:
        ValueError: if a name or setting is unknown or contradicts another, before any work is done.

    Example:
        >>> outcome = evaluate("logmel", "esc10", data_root="/data", limit=20)  # doctest: +SKIP
        >>> outcome.rows[0].score  # doctest: +SKIP
    """
    words = {  # a pair of numbers is no comma list
        name: ",".join(value) if isinstance(value, list | tuple) and name != "norm_stats" else value
        for name, value in flags.items()
    }
    return run_grid(asked(*(v if isinstance(v, str) else ",".join(v) for v in (encoders, tasks)), **words))


def run_grid(settings: Settings) -> Outcome:
    """Run a grid: one pass over the audio per encoder and clip policy, then a probe per row.

    Returns:
        All rows of the grid, and the cells that failed with their reasons.

    Raises:
        ValueError: if a name or setting is unknown or contradicts another, before any work is done.
    """
    protocol, tasks = checked(settings)
    device = pick_device(settings.device)
    store = FeatureStore(settings.store)
    outcome = Outcome()
    for name in settings.encoders:
        try:
            encoder = _loaded(name, settings, device)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            for task in tasks:
                _fail(outcome, settings, name, task, error)
            continue
        for task in tasks:
            try:
                _evaluate_cell(encoder, task, protocol, settings, store, outcome)
            except (ValueError, KeyError, OSError, ImportError, RuntimeError, MemoryError) as error:
                _fail(outcome, settings, name, task, error)
            else:
                results.clear_failure(Path(settings.out), _cell(settings, name, task))
    return outcome


def _loaded(name: str, settings: Settings, device: str) -> Encoder:
    given = settings.norm_stats if isinstance(settings.norm_stats, tuple) else None
    return load_encoder(name, settings.weights, norm_stats=given, device=device)


def pick_device(device: str) -> str:
    """ "auto" becomes cuda, mps or cpu, whichever is there; anything else must be there.

    Raises:
        ValueError: if the device is unknown or absent.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not available here ({str(error).splitlines()[0]}); try auto") from error
    return device


def _evaluate_cell(
    encoder: Encoder, task: Task, protocol: ProtocolConfig, settings: Settings, store: FeatureStore, outcome: Outcome
) -> None:
    """All rows of one encoder on one task."""
    out = Path(settings.out)
    wanted = wanted_rows(encoder, task, protocol, settings)
    pending = []
    for selection, seed, id in wanted:
        found = _existing(out, id)
        if found is None:
            pending.append((selection, seed, id))
        else:
            outcome.rows.append(found)
    if not pending:
        print(f"{encoder.name} x {task.name}: {len(wanted)} rows are there already", flush=True)
        return
    prepare(task)
    if not settings.skip_bad:
        task.require_files()
    features = _extracted(encoder, task, protocol, settings, store, {seed for _, seed, _ in pending})
    outcome.n_encoded += features.n_encoded
    for row in _probe_rows(encoder, task, protocol, settings, store, features, pending):
        outcome.rows.append(row)
        outcome.n_new += 1


@dataclass(frozen=True)
class _Features:
    """Where the vectors of a cell are: one extraction for each pair of input statistics.

    Attributes:
        of_rounds: seed -> input statistics of each round.
        extractions: by input statistics.
        bad: position of a clip -> why it cannot be used.
    """

    of_rounds: dict[int, list[norm_stats.Statistics]]
    extractions: dict[norm_stats.Statistics, Extraction]
    bad: dict[int, str]

    @property
    def n_encoded(self) -> int:
        """Forwards of a clip, over all input statistics."""
        return sum(extraction.n_encoded for extraction in self.extractions.values())


def _extracted(
    encoder: Encoder, task: Task, protocol: ProtocolConfig, settings: Settings, store: FeatureStore, seeds: set[int]
) -> _Features:
    """Every vector that the rounds need is in the store afterwards; says what was done and which clips are bad."""
    label = f"{encoder.name} x {task.name}"
    mode = norm_stats.mode(encoder, settings.norm_stats, protocol.norm_stats)
    of_rounds = norm_stats.of_task(encoder, task, mode, sorted(seeds), store, settings.batch_size)
    distinct = list(dict.fromkeys(stats for seed in sorted(seeds) for stats in of_rounds[seed]))
    if len(distinct) > 1:
        print(
            f"{label}: {sum(map(len, of_rounds.values()))} rounds have {len(distinct)} different input statistics "
            f"(norm_stats {mode}): every clip is decoded once and encoded {len(distinct)} times",
            flush=True,
        )
    found = extract_each(encoder, distinct, task.paths, task.policy(), store, settings.batch_size, label)
    features = _Features(
        of_rounds,
        dict(zip(distinct, found, strict=True)),
        {position: reason for extraction in found for position, reason in sorted(extraction.bad.items())},
    )
    seconds = found[0].seconds
    speed = f" at {features.n_encoded / seconds:.1f} clips/s" if features.n_encoded else ""
    print(
        f"{label}: encoded {features.n_encoded} clips ({sum(one.audio_seconds for one in found):.0f} s of audio) in "
        f"{seconds:.1f} s{speed}; {sum(one.n_stored for one in found)} were stored already",
        flush=True,
    )
    for position, reason in list(features.bad.items())[:5]:
        print(f"  bad clip {task.index['path'][position]}: {reason}", flush=True)
    if len(features.bad) > 5:
        print(f"  ... and {len(features.bad) - 5} more bad clips, all named in the result files", flush=True)
    return features


def _probe_rows(
    encoder: Encoder,
    task: Task,
    protocol: ProtocolConfig,
    settings: Settings,
    store: FeatureStore,
    features: _Features,
    pending: Sequence[tuple[Selection, int, str]],
) -> Iterator[Result]:
    """Fit each pending row and save it as soon as it is there."""
    from sklearn.exceptions import ConvergenceWarning
    from tqdm import tqdm

    usable = np.array([position not in features.bad for position in range(len(task))])
    stored = {stats: store.rows(extraction.key) for stats, extraction in features.extractions.items()}

    def vectors(selection: Selection, stats: norm_stats.Statistics) -> NDArray[np.float32]:
        """(clips, width); bad clips are NaN."""
        extraction = features.extractions[stats]
        rows = [str(row) for row, ok in zip(extraction.rows, usable, strict=True) if ok]
        layers = {layer: store.load(extraction.key, rows, layer, stored[stats]) for layer in selection.layers}
        fused = fuse(layers, selection.fusion)
        every = np.full((len(task), fused.shape[1]), np.nan, np.float32)
        every[usable] = fused
        return every

    label = f"{encoder.name} x {task.name}"
    for selection, seed, id in tqdm(pending, f"probes {label}", unit="row", delay=2, leave=False, disable=None):
        began = time.perf_counter()
        of_rounds = features.of_rounds[seed]
        by_stats = {stats: vectors(selection, stats) for stats in dict.fromkeys(of_rounds)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # said below by the row's name, and in the result
            fitted = _fit_rounds(
                protocol, task, [by_stats[stats] for stats in of_rounds], usable, settings.skip_bad, seed
            )
        for one, stats in zip(fitted, of_rounds, strict=True):
            one.norm_stats = stats
        if not all(getattr(one.probe, "converged_", True) for one in fitted):
            print(f"  {label} {'+'.join(selection.layers)}: the probe stopped before its optimum", flush=True)
        result = make_result(encoder, task, protocol, settings, selection, seed, id, features.bad, fitted, began)
        save_row(Path(settings.out), result, fitted, task)
        yield result


def _new_probe(protocol: ProtocolConfig, task: Task, seed: int) -> Any:
    """The protocol's estimator; what the protocol, the task and the seed say goes in where it has such a parameter."""
    probe = resolve(protocol.probe)(**protocol.params)
    told = {"refit": protocol.refit, "metric": task.config.metric, "random_state": seed}
    return probe.set_params(**{name: value for name, value in told.items() if name in probe.get_params()})


def _fit_rounds(
    protocol: ProtocolConfig,
    task: Task,
    features: Sequence[NDArray[np.float32]],
    usable: NDArray[np.bool_],
    skip_bad: bool,
    seed: int,
) -> list[FittedRound]:
    """Fit and test a probe for every round; side by side where the probe knows how.

    Args:
        protocol: which probe.
        task: labels and rounds.
        features: (clips, width) for each round, NaN for bad clips; the same array where rounds share it.
        usable: (clips,) False for bad clips.
        skip_bad: leave bad test clips out instead of counting them as wrong.
        seed: of the validation draw and the probe.
    """
    rounds = task.rounds(seed)
    parts = [[rows[usable[rows]] for rows in (one.train, one.valid, one.test)] for one in rounds]
    for a_round, (train, _, readable) in zip(rounds, parts, strict=True):
        if not len(train) or not len(readable):
            raise ValueError(f"{task.name} {a_round.name}: no usable clip is left in the training or test set")
    probes = [_new_probe(protocol, task, seed) for _ in rounds]
    splits = [
        (of_round[train], task.y[train], of_round[valid], task.y[valid])
        for of_round, (train, valid, _) in zip(features, parts, strict=True)
    ]
    if hasattr(probes[0], "fit_together"):
        probes[0].fit_together(probes, splits)
    else:
        for probe, split in zip(probes, splits, strict=True):
            probe.fit(*split)
    fitted = []
    for a_round, probe, of_round, (train, valid, readable) in zip(rounds, probes, features, parts, strict=True):
        tested = readable if skip_bad else a_round.test
        y_pred = np.full(len(task), UNREADABLE, np.int64)
        y_pred[readable] = probe.predict(of_round[readable])
        score = float(METRICS[task.config.metric].function(task.y[tested], y_pred[tested]))
        fitted.append(FittedRound(a_round, tested, y_pred[tested], score, len(train), len(valid), probe))
    return fitted


def _existing(out: Path, id: str) -> Result | None:
    """The result of an earlier run, if it is whole; a damaged file is computed again."""
    path = results.run_path(out, id)
    try:
        return results.load(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        print(f"computing {id} again: {error}", flush=True)
        return None


def _fail(outcome: Outcome, settings: Settings, encoder: str, task: Task, error: Exception) -> None:
    """Record a failed cell, with a next step where the error alone does not say one."""
    reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    reason = " ".join(reason.split()) or type(error).__name__
    if "out of memory" in reason.lower() or isinstance(error, MemoryError):
        reason = f"out of memory; try a smaller --batch_size ({reason[:160]})"
    elif not isinstance(error, ValueError | OSError | ImportError):
        reason = f"{type(error).__name__}: {reason[:300]}"
    cell = _cell(settings, encoder, task)
    outcome.failures.append(Failure(cell, reason, results.utc_now()))
    results.save_failure(Path(settings.out), cell, reason)
    print(f"{encoder} x {task.name} FAILED: {reason}", flush=True)


def _cell(settings: Settings, encoder: str, task: Task) -> dict[str, Any]:
    layers = settings.layers if isinstance(settings.layers, str) else ",".join(settings.layers)
    return {
        "encoder": encoder,
        "task": task.name,
        "task_version": task.config.version,
        "metric": task.config.metric,
        "protocol": settings.protocol,
        "layers": layers,
        "fusion": settings.fusion,
        "limit": settings.limit,
    }
