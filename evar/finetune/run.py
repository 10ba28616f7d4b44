"""Fine-tuning of a grid: a fresh model for every round, the best validation weights tested once, rows of the one table."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar import config as configs
from evar import results
from evar.data.task import load_task, prepare
from evar.data.task_config import load_task_config
from evar.encoders import load_encoder
from evar.experiment.identity import identity
from evar.experiment.outcome import Outcome, record_failure
from evar.experiment.result_row import UNREADABLE, FittedRound, judged, make_result, save_row
from evar.experiment.selection import Selection
from evar.experiment.settings import Settings
from evar.extraction import input_statistics as norm_stats
from evar.finetune.export import export
from evar.finetune.network import Network, mel_filters
from evar.finetune.protocol import TuningProtocol, changed, load_tuning_protocol
from evar.finetune.training import Clips, Trained, Training, TrainingError, has_logmel, predicted, said_by
from evar.finetune.waveforms import Waveforms, decoded
from evar.metrics import METRICS
from evar.numeric.device import pick_device
from evar.storage.feature_store import FeatureStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Round, Task
    from evar.encoders.base import Encoder
    from evar.results import Result

_EXPECTED = (ValueError, KeyError, OSError, ImportError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class TuningSettings:
    """What a command line of finetune.py says.

    Attributes:
        encoders, tasks: names.
        protocol: name in `config/protocols`, of kind finetune.
        given: hyper-parameters in place of the protocol's.
        seeds: how many, from 0; None leaves it to the protocol.
        data_root, weights, norm_stats, device, limit, out, store, skip_bad: as in `evar.experiment.settings.Settings`.
        resume: go on from the checkpoints of an interrupted run; without it they are deleted.
        eval_only: make the rows of rounds that were trained to the end; train none.
        halve: where memory is not enough, try again with half the batch and twice the accumulation.
        only_seed: this one in place of all.
        tensorboard: write losses, scores and rates for TensorBoard too, epoch by epoch, beside the curves.
    """

    encoders: tuple[str, ...]
    tasks: tuple[str, ...]
    protocol: str = "finetune"
    given: dict[str, Any] = field(default_factory=dict)
    seeds: int | None = None
    data_root: str | None = None
    weights: str | None = None
    norm_stats: str | tuple[float, float] | None = None
    device: str = "auto"
    limit: int | None = None
    out: str = "results"
    store: str | None = None
    skip_bad: bool = False
    resume: bool = True
    eval_only: bool = False
    halve: bool = True
    only_seed: int | None = None
    tensorboard: bool = False

    def as_settings(self) -> Settings:
        """The same for the common table."""
        return Settings(
            self.encoders, self.tasks, protocol=self.protocol, seeds=self.seeds, data_root=self.data_root,
            weights=self.weights, norm_stats=self.norm_stats, device=self.device, limit=self.limit, out=self.out,
            store=self.store, skip_bad=self.skip_bad,
        )  # fmt: skip


class Tuned:
    """A fine-tuned round in the place of a probe: what rows ask of one."""

    def __init__(self, trained: Trained | None = None, random_state: int = 0) -> None:
        if trained is None:
            return
        self.n_features_in_ = trained.network.width
        self.valid_score_, self.valid_log_loss_ = trained.valid_score, trained.valid_loss
        self.converged_, self.on_grid_edge_ = True, False
        self.chosen_ = {
            "epoch": trained.best_epoch,
            "epochs": len(trained.history),
            "stopped_early": trained.stopped_early,
        }
        if trained.network.mixing is not None:
            self.layer_weights_ = trained.network.mixing.detach().softmax(0).cpu().numpy()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Nothing beyond the protocol's, but that there is randomness."""
        return {"random_state": 0} if not hasattr(self, "n_features_in_") else {}


def run_tuning(settings: TuningSettings) -> Outcome:
    """Fine-tune every encoder on every task; a cell that fails is recorded and the others go on.

    Raises:
        ValueError: if a name or setting is unknown, before any work is done.
    """
    general = load_tuning_protocol(settings.protocol)
    if settings.given:
        general = changed(general, settings.given, "the command line")
    grid = settings.as_settings()
    cells = []
    for task_name in settings.tasks:
        for encoder_name in settings.encoders:
            configs.load_encoder_config(encoder_name)
            protocol = general.of(encoder_name, task_name)
            cells.append(
                (encoder_name, load_task_config(task_name), changed(protocol, settings.given, "the command line"))
            )
    outcome = Outcome()
    for encoder_name, task_config, protocol in cells:
        named = _named(protocol, settings)
        try:
            task = load_task(task_config.name, settings.data_root, settings.limit, protocol.validation_parts)
            prepare(task)
            if not settings.skip_bad:
                task.require_files()
            for row, is_new in _cell(encoder_name, task, named, settings, grid):
                outcome.rows.append(row)
                outcome.n_new += is_new
        except _EXPECTED as error:
            shown = ValueError(str(error)) if isinstance(error, TrainingError) else error
            record_failure(outcome, grid, encoder_name, task_config, shown, protocol=named.name)
        else:
            cell = {"encoder": encoder_name, "task": task.name, "protocol": named.name, "limit": settings.limit}
            results.clear_failure(Path(settings.out), cell)
    return outcome


def _named(protocol: TuningProtocol, settings: TuningSettings) -> TuningProtocol:
    """A protocol that the command line changed says so in its name: other settings, another table."""
    if not settings.given:
        return protocol
    said = ", ".join(f"{name}={value}" for name, value in sorted(settings.given.items()))
    return replace(protocol, name=f"{protocol.name} ({said})")


def _cell(
    encoder_name: str, task: Task, protocol: TuningProtocol, settings: TuningSettings, grid: Settings
) -> list[tuple[Result, bool]]:
    """Rows of one encoder on one task, one for each seed; those that are there are left alone."""
    device = pick_device(settings.device)
    given = settings.norm_stats if isinstance(settings.norm_stats, tuple) else None
    encoder = load_encoder(encoder_name, grid.weights_of(encoder_name), norm_stats=given, device=device)
    if task.config.kind == "events":
        raise ValueError(f"{task.name} is a task of events, which finetune.py has no head for; lineval.py serves it")
    if protocol.freeze == "none" and next(encoder.parameters(), None) is None:
        raise ValueError(f"{encoder_name} has no parameters to fine-tune; lineval.py serves it")
    effective = _effective(protocol, encoder, settings.given)
    probe_protocol = effective.as_probe_protocol()
    n_outputs = max(1, len(task.config.classes))
    names = Network(copy.deepcopy(encoder), effective.layers, n_outputs).layer_names
    fusion = "none" if len(names) == 1 else "weighted" if effective.layers == "weighted" else "concat"
    selection, out = Selection(names, fusion), Path(settings.out)
    found: list[tuple[Result, bool]] = []
    seeds = range(settings.seeds or effective.seeds) if settings.only_seed is None else (settings.only_seed,)
    for seed in seeds:
        id = results.run_id(identity(encoder, task, probe_protocol, grid, selection, seed))
        path = results.run_path(out, id)
        if path.is_file():
            found.append((results.load(path), False))
            continue
        store = FeatureStore(settings.store)
        waveforms = decoded(task, encoder.sample_rate, store.folder.parent / "waveforms")
        mode = norm_stats.mode(encoder, settings.norm_stats, probe_protocol.norm_stats)
        stats = norm_stats.of_task(encoder, task, mode, [seed], store)[seed]
        began, fitted, last = time.perf_counter(), [], None
        folder = out / "finetuned" / id
        for number, a_round in enumerate(task.rounds(seed)):
            label = f"{encoder_name} x {task.name} {a_round.name}, seed {seed}"
            where = folder / f"round{number}"
            one, last = _round(
                encoder, task, a_round, stats[number], waveforms, effective, settings, seed, where, label
            )
            fitted.append(one)
        result = make_result(
            encoder, task, probe_protocol, grid, selection, seed, id, waveforms.bad, fitted, time.perf_counter() - began
        )  # fmt: skip
        result = replace(result, settings={**result.settings, "given": dict(settings.given)})
        if not _is_first_process():
            found.append((result, True))
            continue
        save_row(out, result, fitted, task)
        if last is not None:
            exported = export(last.network.encoder, encoder_name, task, result, folder)
            print(f"  the encoder of the last round is {exported}, for lineval.py and evar embed", flush=True)
        found.append((result, True))
    return found


def _effective(protocol: TuningProtocol, encoder: Encoder, given: dict[str, Any]) -> TuningProtocol:
    """Masks are for encoders that have a log-mel, and so on; others do without, unless the command line asks for them."""
    needs = (
        (has_logmel(encoder), "log-mel", {"freq_mask": 0, "time_mask": 0, "rrc": False}),
        (bool(mel_filters(encoder)), "log-mel", {"train_frontend": False}),
        (encoder.has_patches, "patches", {"time_patch_out": 0.0, "freq_patch_out": 0.0}),
    )
    off: dict[str, Any] = {}
    for is_there, what, settings in needs:
        if not is_there:
            asked = [name for name in settings if given.get(name)]
            if asked:
                raise ValueError(f"{encoder.name} has no {what} that --{asked[0]} could change; leave it out")
            off |= {name: value for name, value in settings.items() if getattr(protocol, name)}
    if protocol.layers not in ("default", "weighted"):  # layers by position: a row holds their names
        names = "+".join(encoder.layer_names(protocol.layers.split("+")))
        off |= {"layers": names} if names != protocol.layers else {}
    return changed(protocol, off, protocol.name) if off else protocol


def _round(
    encoder: Encoder,
    task: Task,
    a_round: Round,
    stats: tuple[float, float] | None,
    waveforms: Waveforms,
    protocol: TuningProtocol,
    settings: TuningSettings,
    seed: int,
    folder: Path,
    label: str,
) -> tuple[FittedRound, Trained]:
    """Train on one round, then look at its test clips, once."""
    import torch

    usable = np.array([position not in waveforms.bad for position in range(len(task))])
    train, valid, readable = (rows[usable[rows]] for rows in (a_round.train, a_round.valid, a_round.test))
    if not len(train) or not len(valid) or not len(readable):
        raise ValueError(f"{task.name} {a_round.name}: no usable clip is left in the training, validation or test set")
    clips = Clips(waveforms, train, valid, task.y, task.config.metric, max(1, len(task.config.classes)))
    checkpoint = folder / "checkpoint.pt"
    if not settings.resume:
        checkpoint.unlink(missing_ok=True)
    if settings.eval_only and not checkpoint.is_file():
        raise ValueError(f"{label}: --eval_only finds no {checkpoint}; train it first")
    used, trained = protocol, None
    while trained is None:
        torch.manual_seed(seed)  # the head's first weights
        network = Network(copy.deepcopy(encoder), used.layers, clips.n_outputs, used.frozen_norms, used.train_frontend)
        network.encoder.norm_stats = stats
        network = network.to(next(iter(encoder.parameters())).device)
        accelerator = _accelerator(used, pick_device(settings.device))
        try:
            with _board(folder, settings.tensorboard) as on_epoch:
                trained = Training(network, clips, used, seed, checkpoint, label, accelerator, on_epoch).run()
        except TrainingError as error:
            if "out of memory" not in str(error) or not settings.halve or used.batch_size < 2:
                raise
            print(f"  {label}: {error}; trying that, with gradients of twice as many steps", flush=True)
            checkpoint.unlink(missing_ok=True)
            half = {"batch_size": used.batch_size // 2, "accumulate": used.accumulate * 2}
            used = changed(used, half, used.name)
    if _is_first_process():
        _save_curves(trained, folder, label)
    y_pred, shares = _tested(trained, task, waveforms, readable, used.batch_size)
    tested = readable if settings.skip_bad else a_round.test
    score = float(METRICS[task.config.metric].function(task.y[tested], y_pred[tested]))
    extras = judged(task, tested, y_pred[tested], shares if len(readable) == len(tested) else None)
    speed = np.mean([one["clips_per_second"] for one in trained.history]) if trained.history else 0.0
    print(
        f"{label}: test {100 * score:.1f}, best validation {100 * trained.valid_score:.1f} in epoch {trained.best_epoch} of "
        f"{len(trained.history)}; {speed:.1f} clips/s"
        + (f", {trained.peak_memory / 2**30:.1f} GiB" if trained.peak_memory else ""),
        flush=True,
    )
    probe = Tuned(trained)
    if used is not protocol:
        probe.chosen_ |= {"batch_size": used.batch_size, "accumulate": used.accumulate}
    return FittedRound(a_round, tested, y_pred[tested], score, len(train), len(valid), probe, stats, extras), trained


@contextmanager
def _board(folder: Path, is_wanted: bool) -> Iterator[Callable[[dict[str, float]], None] | None]:
    """Gives what writes an epoch's numbers for TensorBoard, or None."""
    if not is_wanted or not _is_first_process():
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("--tensorboard needs the package tensorboard: pip install 'evar-audio[finetune]'") from error
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def on_epoch(numbers: dict[str, float]) -> None:
            for name, value in numbers.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(numbers["epoch"]))
            writer.flush()

        yield on_epoch


def _accelerator(protocol: TuningProtocol, device: str) -> Any:
    """Of Hugging Face accelerate, where it is needed: several processes, or mixed precision; None otherwise."""
    if protocol.amp == "no" and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError as error:
        raise ImportError(
            "mixed precision and several processes need accelerate: pip install 'evar-audio[finetune]'"
        ) from error
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # layers beyond those that the head sees
    return Accelerator(mixed_precision=protocol.amp, cpu=device == "cpu", kwargs_handlers=[unused])


def _is_first_process() -> bool:
    """Whether this process writes the rows; `accelerate launch` and torchrun number them."""
    return int(os.environ.get("RANK", "0")) == 0


def _tested(
    trained: Trained, task: Task, waveforms: Waveforms, readable: NDArray[np.int64], batch_size: int
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """As `evar.lineval.fit._predicted`: of every clip what is predicted, and probabilities of the readable ones."""
    outputs = predicted(trained.network, waveforms, readable, batch_size)
    said = said_by(outputs, task.config.kind, trained.centre, trained.spread)
    if task.config.kind == "multilabel":
        scores = np.full(task.y.shape, -np.inf, np.float32)
        scores[readable] = said
        return scores, None
    if task.config.kind == "regression":
        values = np.full(len(task), trained.centre)
        values[readable] = said
        return values, None
    classes = np.full(len(task), UNREADABLE, np.int64)
    classes[readable] = said
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True)).astype(np.float64)
    return classes, powers / powers.sum(axis=1, keepdims=True)


def _save_curves(trained: Trained, folder: Path, label: str) -> None:
    """`curves.csv` and `curves.png`: losses, validation score and learning rate by epoch."""
    import csv
    import io

    from evar.figures.style import COLOURS, PAGE_INCHES, make_figure, save_figure
    from evar.storage.atomic import write_atomic

    if not trained.history:
        return
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(trained.history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(trained.history)
    write_atomic(folder / "curves.csv", buffer.getvalue().encode())
    epochs = [one["epoch"] for one in trained.history]
    figure = make_figure(PAGE_INCHES, 2.0, f"{label}; the dotted line is the epoch whose weights were tested.")
    panels: Sequence[tuple[str, Sequence[str]]] = (
        ("loss", ("train_loss", "valid_loss")),
        ("validation score", ("valid_score",)),
        ("learning rate", ("learning_rate",)),
    )
    for ax, (title, names) in zip(figure.subplots(1, 3), panels, strict=True):
        for colour, name in zip(COLOURS, names, strict=False):
            values = [one[name] for one in trained.history]
            ax.plot(epochs, values, color=colour, label=name.replace("_", " "), linewidth=1.2)
        ax.axvline(trained.best_epoch, color="0.4", linestyle=":", linewidth=1)
        ax.set_xlabel("epoch")
        ax.set_title(title, fontsize=8)
        if len(names) > 1:
            ax.legend(fontsize=7, frameon=False)
    save_figure(figure, folder / "curves")
