"""The training loop of one round: schedule, steps, validation, checkpoints. The test clips never come here.

Every random number is drawn from generators seeded by (seed, epoch, step), so that a run that goes on from a checkpoint
does what an uninterrupted one would have done, without any state of random generators in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from evar.config.messages import progress_bar
from evar.encoders._patches import PatchOut
from evar.encoders.base import Encoder
from evar.experiment.targets import make_targets, read_outputs
from evar.finetune import augmentation
from evar.finetune.checkpoints import load_checkpoint, save_checkpoint
from evar.finetune.clips import Clips, Trained, TrainingError
from evar.finetune.losses import compute_losses, weigh_classes
from evar.finetune.network import Lars, Network, replace_input
from evar.finetune.predicting import predict_outputs
from evar.finetune.schedule import learning_rate, seed_generator
from evar.metrics import METRICS
from evar.probes.choosing import is_improvement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.finetune.protocol import TuningProtocol

#: minutes between checkpoints within an epoch
CHECKPOINT_MINUTES = 10.0


class Training:
    """Fine-tuning of a network on the training clips of one round.

    Args:
        network: to be trained; changed in place.
        clips: of the round.
        protocol: hyper-parameters, those of encoder and task already in it.
        seed: of everything random.
        checkpoint: file to go on from and to keep the state in; None keeps none.
        label: before the progress bar.
        accelerator: of Hugging Face `accelerate`, for devices, mixed precision and several processes; None: the
            network's own device, one process.
        on_epoch: called with what `Trained.history` holds of each epoch, once it is over.
    """

    def __init__(
        self,
        network: Network,
        clips: Clips,
        protocol: TuningProtocol,
        seed: int,
        checkpoint: Path | None = None,
        label: str = "",
        accelerator: Any = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.clips, self.protocol, self.seed, self.on_epoch = clips, protocol, seed, on_epoch
        self.checkpoint, self.label, self.accelerator = checkpoint, label, accelerator
        self.result = Trained(network)
        self.network = network
        y = clips.y[clips.train]
        if clips.kind == "regression":
            self.result.centre, self.result.spread = float(y.mean()), float(y.std()) or 1.0
        self.class_weights = weigh_classes(y, clips.kind, clips.n_outputs) if protocol.class_weights else None
        self.optimizer = self._make_optimizer()
        self.averaged = {key: value.clone() for key, value in network.state_dict().items()} if protocol.ema else None
        self.best: dict[str, Tensor] = {}
        self.epoch, self.in_epoch, self.since_best, self.sums = 0, 0, 0, [0.0, 0.0]
        self.draws, self.input_of, self.patch_out = torch.Generator(), None, None
        if has_logmel(network.encoder) and (protocol.freq_mask or protocol.time_mask or protocol.rrc):
            masks = (protocol.freq_mask, protocol.time_mask, protocol.rrc)
            self.input_of = augmentation.wrap_logmel(network.encoder, *masks, self.draws)
        if network.encoder.has_patches and (protocol.time_patch_out or protocol.freq_patch_out):
            self.patch_out = PatchOut(protocol.time_patch_out, protocol.freq_patch_out, self.draws)
        self.module: Any = network
        if protocol.compile:
            from torch._dynamo import config as dynamo

            dynamo.suppress_errors = True  # what cannot be compiled runs as it is
            self.module = torch.compile(network)
        if accelerator is not None:
            self.module, self.optimizer = accelerator.prepare(self.module, self.optimizer)
        self.n_processes = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index
        self._saved_at = time.monotonic()

    def run(self, stop_after: Callable[[int, int], bool] | None = None) -> Trained:
        """Train to the end.

        Args:
            stop_after: called with epoch and step of it (counted from 1) after each step; True interrupts, as a killed
                process would be (for tests).

        Raises:
            TrainingError: if the loss is no longer a number, or memory is not enough.
        """
        self._load()
        per_epoch = self.steps_per_epoch
        total = self.protocol.epochs * per_epoch
        bar = progress_bar(
            total=total, initial=self.epoch * per_epoch + self.in_epoch, desc=self.label, unit="step", delay=2,
            leave=False, disable=self.rank != 0,
        )  # fmt: skip
        with bar:
            while self.epoch < self.protocol.epochs and not self.result.stopped_early:
                began, n_clips = time.perf_counter(), 0
                self.module.train()
                for step, batch in self._list_batches():
                    n_clips += len(batch)
                    self._step(step, batch)
                    self.in_epoch = step + 1
                    bar.update()
                    if stop_after is not None and stop_after(self.epoch + 1, self.in_epoch):
                        return self.result
                    if time.monotonic() - self._saved_at > 60 * CHECKPOINT_MINUTES:
                        self._save()
                self._end_epoch(n_clips / max(1e-9, time.perf_counter() - began))
                bar.set_postfix_str(f"epoch {self.epoch}, best valid {100 * self.result.valid_score:.1f}")
        network = self.network
        if self.best:
            network.load_state_dict(self.best)
        if torch.cuda.is_available():
            self.result.peak_memory = int(torch.cuda.max_memory_allocated())
        network.eval()
        return self.result

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last may be smaller."""
        return -(-len(self.clips.train) // self.protocol.batch_size)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        chosen, decay = self.protocol, self.protocol.weight_decay
        rate = chosen.learning_rate
        head_rate = rate if chosen.head_learning_rate is None else chosen.head_learning_rate
        groups = self.network.groups(rate, head_rate, chosen.layer_decay, chosen.freeze)
        self.tuned: list[Any] = []
        for group in groups:
            if not group["is_head"]:
                self.tuned += cast("list[Any]", group["params"])
        self.network.encoder.requires_grad_(False)  # parameters of no group are not trained, and cost no gradient
        for parameter in self.tuned:
            parameter.requires_grad_()
        if chosen.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), weight_decay=decay)
        if chosen.optimizer == "lars":
            return Lars(groups, lr=rate, momentum=0.9, weight_decay=decay)
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, weight_decay=decay)

    def _list_batches(self) -> Any:
        """(step, positions) of the epoch that are still to come; the order depends on seed and epoch alone."""
        generator = seed_generator(self.seed, "order", self.epoch)
        train = self.clips.train
        if self.protocol.balanced and self.clips.kind == "multilabel":
            y = self.clips.y[train].astype(np.float64)
            rarity = 1 / np.maximum(y.sum(axis=0), 1)
            weights = torch.from_numpy(np.maximum((y * rarity).sum(axis=1), rarity.min()))
            order = torch.multinomial(weights, len(train), replacement=True, generator=generator).numpy()
        else:
            order = torch.randperm(len(train), generator=generator).numpy()
        size = self.protocol.batch_size
        for step in range(self.in_epoch, self.steps_per_epoch):
            yield step, train[order[step * size : (step + 1) * size]]

    def _step(self, step: int, batch: NDArray[np.int64]) -> None:
        protocol = self.protocol
        draws = [protocol.epochs, self.seed, self.epoch, step]
        generator = seed_generator("augmentation", *draws)
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=seed_generator("dropout", *draws, self.rank))))
        starts = (
            torch.rand(len(batch), generator=generator, dtype=torch.float64).numpy() if protocol.random_crop else None
        )
        # Every process augments the whole batch, from the same draws, and takes its share of it.
        waveform, lengths = self.clips.waveforms.batch(batch, starts)
        targets = self._make_targets(batch)
        waveform, lengths, targets = self._augment(waveform, lengths, targets, generator)
        own = slice(self.rank, None, self.n_processes)
        device = next(self.network.parameters()).device
        waveform, lengths, targets = waveform[own].to(device), lengths[own], targets[own].to(device)
        only_head = self.epoch < protocol.head_epochs or protocol.freeze == "encoder"
        n_step = self.epoch * self.steps_per_epoch + step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], n_step, self.steps_per_epoch, protocol)
            if only_head and not group["is_head"]:
                group["lr"] = 0.0
        for parameter in self.tuned:
            parameter.requires_grad_(not only_head)
        loss = self._forward_backward(waveform, lengths, targets, len(batch), generator)
        if not math.isfinite(loss):
            saved = (
                f"; the last good state is {self.checkpoint}" if self.checkpoint and self.checkpoint.is_file() else ""
            )
            raise TrainingError(
                f"the loss became {loss} in epoch {self.epoch + 1}, step {step + 1}; try a smaller --learning_rate than "
                f"{protocol.learning_rate:g}, or a clip_norm in the protocol{saved}"
            )
        self.sums[0] += loss * len(batch)
        self.sums[1] += len(batch)
        if (step + 1) % protocol.accumulate and step + 1 < self.steps_per_epoch:
            return
        if protocol.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), protocol.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            for key, value in self.network.state_dict().items():
                if value.dtype.is_floating_point:
                    self.averaged[key].lerp_(value, 1 - protocol.ema)
                else:
                    self.averaged[key].copy_(value)

    def _forward_backward(
        self, waveform: Tensor, lengths: Tensor, targets: Tensor, n_clips: int, generator: torch.Generator
    ) -> float:
        """Mean loss of the batch; gradients are added up."""
        protocol, encoder = self.protocol, self.network.encoder
        # The front-end and patches draw from one generator that lives as long as the training, so that a compiled network
        # meets the same objects at every step.
        self.draws.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        try:
            with replace_input(encoder, self.input_of, self.patch_out):
                outputs = self.module(waveform, lengths)
                losses = self._compute_losses(outputs, targets, training=True)
                # The mean over the whole batch, whatever the processes' shares; their gradients are averaged.
                loss = losses.sum() * self.n_processes / n_clips / protocol.accumulate
                if self.accelerator is None:
                    loss.backward()
                else:
                    self.accelerator.backward(loss)
        except RuntimeError as error:
            if "out of memory" not in str(error).lower():
                raise
            half = max(1, protocol.batch_size // 2)
            raise TrainingError(
                f"out of memory with batches of {protocol.batch_size} clips; try --batch_size={half}"
            ) from error
        value = loss.detach() * protocol.accumulate
        if self.n_processes > 1:
            value = self.accelerator.reduce(value, "mean")
        return float(value)

    def _make_targets(self, batch: NDArray[np.int64]) -> Tensor:
        """(batch, outputs) floats: one-hot classes, labels, or standardised values."""
        clips, result = self.clips, self.result
        found = make_targets(clips.y[batch], clips.kind, clips.n_outputs, result.centre, result.spread)
        return torch.from_numpy(found.astype(np.float32))

    def _augment(
        self, waveform: Tensor, lengths: Tensor, targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        protocol = self.protocol
        if protocol.shift_seconds:
            samples = round(protocol.shift_seconds * self.network.encoder.sample_rate)
            waveform = augmentation.shift_clips(waveform, lengths, samples, generator)
        if protocol.gain_db:
            waveform = augmentation.change_gain(waveform, protocol.gain_db, generator)
        if protocol.noise_db is not None:
            waveform = augmentation.add_noise(waveform, lengths, protocol.noise_db, generator)
        if protocol.mixup and len(waveform) > 1:
            waveform, lengths, targets = augmentation.mix_clips(waveform, lengths, targets, protocol.mixup, generator)
        return waveform, lengths, targets

    def _compute_losses(self, outputs: Tensor, targets: Tensor, training: bool) -> Tensor:
        """(batch,) loss of each clip."""
        weights = self.class_weights if training else None
        return compute_losses(outputs, targets, self.protocol, self.clips.kind, weights, is_training=training)

    def _end_epoch(self, clips_per_second: float) -> None:
        """Validate, keep the best weights, decide whether to go on, and write the checkpoint."""
        self.epoch, self.in_epoch = self.epoch + 1, 0
        network = self.network
        current = None
        if self.averaged is not None:
            current = {key: value.clone() for key, value in network.state_dict().items()}
            network.load_state_dict(self.averaged)
        outputs = predict_outputs(network, self.clips.waveforms, self.clips.valid, self.protocol.batch_size)
        targets = self._make_targets(self.clips.valid)
        loss = float(self._compute_losses(torch.from_numpy(outputs), targets, training=False).mean())
        predicted = read_outputs(outputs, self.clips.kind, self.result.centre, self.result.spread)
        score = float(METRICS[self.clips.metric].function(self.clips.y[self.clips.valid], predicted))
        result = self.result
        is_first = result.best_epoch == 0
        if is_first or is_improvement(self.clips.metric, score, loss, result.valid_score, result.valid_loss):
            result.valid_score, result.valid_loss, result.best_epoch = score, loss, self.epoch
            self.best = {key: value.detach().clone().cpu() for key, value in network.state_dict().items()}
            self.since_best = 0
        else:
            self.since_best += 1
        if current is not None:
            network.load_state_dict(current)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        result.history.append(
            {
                "epoch": self.epoch, "learning_rate": float(max(rates)), "train_loss": self.sums[0] / max(1.0, self.sums[1]),
                "valid_loss": loss, "valid_score": score, "clips_per_second": clips_per_second,
            }
        )  # fmt: skip
        if self.on_epoch is not None and not self.rank:
            self.on_epoch(result.history[-1])
        self.sums = [0.0, 0.0]
        result.stopped_early = self.protocol.patience is not None and self.since_best >= self.protocol.patience
        self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if self.checkpoint is None or self.rank:
            return
        result = self.result
        is_over = result.stopped_early or self.epoch >= self.protocol.epochs
        state = {
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "averaged": self.averaged,
            "best": self.best, "epoch": self.epoch, "in_epoch": self.in_epoch, "since_best": self.since_best,
            "sums": self.sums, "history": result.history, "best_epoch": result.best_epoch,
            "valid_score": result.valid_score, "valid_loss": result.valid_loss, "stopped_early": result.stopped_early,
            "batch_size": self.protocol.batch_size,
        }  # fmt: skip
        if is_over:  # the training has ended: the best weights are enough
            state |= {"network": None, "optimizer": None, "averaged": None}
        save_checkpoint(self.checkpoint, state)

    def _load(self) -> None:
        """Go on from the checkpoint, if there is one that is whole."""
        if self.checkpoint is None:
            return
        state = load_checkpoint(self.checkpoint, next(self.network.parameters()).device)
        if state is None:
            return
        self.network.load_state_dict(state["network"] or state["best"])
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.averaged, self.best = state["averaged"], state["best"]
        self.epoch, self.since_best = state["epoch"], state["since_best"]
        # Steps of a batch that was halved since: the same clips are two steps now.
        self.in_epoch = (
            state["in_epoch"] * state.get("batch_size", self.protocol.batch_size) // self.protocol.batch_size
        )
        self.sums = list(state["sums"])
        for name in ("history", "best_epoch", "valid_score", "valid_loss", "stopped_early"):
            setattr(self.result, name, state[name])


def has_logmel(encoder: Encoder) -> bool:
    """Does the network see a log-mel that can be masked? Others work on the waveform, or have no such place."""
    if type(encoder).network_input is Encoder.network_input:
        return False
    with torch.no_grad():
        n = max(encoder.min_samples, encoder.sample_rate // 4)
        return encoder.frontend(torch.zeros(1, n)).dim() == 3
