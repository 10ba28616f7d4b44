"""One round of a fine-tuning: trained on its training clips, the best validation weights tested once."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.messages import tell
from evar.experiment.rounds import FittedRound, list_usable, place_predictions, score_round
from evar.experiment.targets import read_outputs
from evar.finetune.clips import Clips, Trained, TrainingError
from evar.finetune.curves import open_board, save_curves
from evar.finetune.memory import halve_batch, load_batch, save_batch
from evar.finetune.network import Network
from evar.finetune.predicting import predict_outputs
from evar.finetune.protocol import TuningProtocol
from evar.finetune.spec import TuningOptions
from evar.finetune.training import Training
from evar.finetune.waveforms import Waveforms
from evar.numeric.device import pick_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Round
    from evar.experiment.cell import Cell


class Tuned:
    """A fine-tuned round in the place of a probe: what rows read from one."""

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
        """Return nothing beyond the protocol's, but that there is randomness."""
        return {"random_state": 0} if not hasattr(self, "n_features_in_") else {}


@dataclass(frozen=True)
class TuningRound:
    """Inputs of the training of one round, and the folder of its checkpoint.

    Attributes:
        cell: encoder, task and request.
        waveforms: of the task's clips.
        protocol: effective hyper-parameters.
        options: whether to go on from checkpoints, and so on.
        device: as requested.
        a_round: which clips are which.
        statistics: (mean, std) of the encoder's input, or None.
        seed: of everything random.
        folder: of checkpoint and curves.
    """

    cell: Cell
    waveforms: Waveforms
    protocol: TuningProtocol
    options: TuningOptions
    device: str
    a_round: Round
    statistics: tuple[float, float] | None
    seed: int
    folder: Path

    @property
    def label(self) -> str:
        """For messages and the progress bar."""
        return f"{self.cell.spec.encoder} x {self.cell.task.name} {self.a_round.name}, seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The file that training goes on from."""
        return self.folder / "checkpoint.pt"


def run_round(one: TuningRound) -> tuple[FittedRound, Trained]:
    """Train on one round, then look at its test clips, once.

    Raises:
        ValueError: if no usable clip is left in a set, or there is nothing to evaluate.
        TrainingError: if the loss is no longer a number, or memory is not enough for the smallest batch.
    """
    task, waveforms = one.cell.task, one.waveforms
    usable = np.array([position not in waveforms.bad for position in range(len(task))])
    train, valid, readable = list_usable(one.a_round, usable, task.name, needs_valid=True)
    clips = Clips(waveforms, train, valid, task.y, task.config.metric, max(1, len(task.config.classes)))
    if not one.options.resume:
        one.checkpoint.unlink(missing_ok=True)
        save_batch(one.folder, None)
    if one.options.eval_only and not one.checkpoint.is_file():
        raise ValueError(f"{one.label}: --eval_only finds no {one.checkpoint}; train it first")
    trained, used = _fit_in_memory(one, clips)
    if is_first_process():
        save_curves(trained, one.folder, one.label)
    y_pred, shares = _predict(trained, one, readable, used.batch_size)
    scored = score_round(task, one.a_round, readable, y_pred, shares, skip_bad=one.cell.spec.skip_bad)
    _report(one, trained, scored["score"])
    probe = Tuned(trained)
    if used != one.protocol:
        probe.chosen_ |= {"batch_size": used.batch_size, "accumulate": used.accumulate}
    fitted = FittedRound(
        a_round=one.a_round, probe=probe, norm_stats=one.statistics, n_train=len(train), n_valid=len(valid), **scored
    )
    return fitted, trained


def _fit_in_memory(one: TuningRound, clips: Clips) -> tuple[Trained, TuningProtocol]:
    """Train; where memory is not enough, go on with half the batch, which is remembered beside the checkpoint."""
    import torch

    used = load_batch(one.folder, one.protocol)
    while True:
        torch.manual_seed(one.seed)  # the head's first weights
        encoder = copy.deepcopy(one.cell.encoder)
        network = Network(encoder, used.layers, clips.n_outputs, used.frozen_norms, used.train_frontend)
        network.encoder.norm_stats = one.statistics
        network = network.to(pick_device(one.device))
        accelerator = _make_accelerator(used, pick_device(one.device))
        try:
            with open_board(one.folder, one.options.tensorboard and is_first_process()) as on_epoch:
                training = Training(network, clips, used, one.seed, one.checkpoint, one.label, accelerator, on_epoch)
                return training.run(), used
        except TrainingError as error:
            if "out of memory" not in str(error) or not one.options.halve or used.batch_size < 2:
                raise
            tell(f"  {one.label}: {error}; trying that, with gradients of twice as many steps")
        used = halve_batch(used)
        save_batch(one.folder, used)
        del training, network, encoder, accelerator  # before the next ones take memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _make_accelerator(protocol: TuningProtocol, device: str) -> Any:
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


def is_first_process() -> bool:
    """Return whether this process writes the rows; `accelerate launch` and torchrun number them."""
    return int(os.environ.get("RANK", "0")) == 0


def _predict(
    trained: Trained, one: TuningRound, readable: NDArray[np.int64], batch_size: int
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Predict every clip, with class probabilities of the readable ones."""
    task = one.cell.task
    outputs = predict_outputs(trained.network, one.waveforms, readable, batch_size)
    predicted = read_outputs(outputs, task.config.kind, trained.centre, trained.spread)
    y_pred = place_predictions(task, readable, predicted, trained.centre)
    if task.config.kind != "multiclass":
        return y_pred, None
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True)).astype(np.float64)
    return y_pred, powers / powers.sum(axis=1, keepdims=True)


def _report(one: TuningRound, trained: Trained, score: float) -> None:
    speed = np.mean([epoch["clips_per_second"] for epoch in trained.history]) if trained.history else 0.0
    memory = f", {trained.peak_memory / 2**30:.1f} GiB" if trained.peak_memory else ""
    tell(
        f"{one.label}: test {100 * score:.1f}, best validation {100 * trained.valid_score:.1f} in epoch "
        f"{trained.best_epoch} of {len(trained.history)}; {speed:.1f} clips/s{memory}",
    )
