"""Train several small networks at the same time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evar.numeric.rows import Rows
from evar.probes.choosing import BestEpoch
from evar.probes.targets import Targets, clip_losses

#: bytes of training and validation vectors of the networks that are trained side by side
BYTES_AT_ONCE = 2**30


#: bytes of the vectors of one step of them; more, and they fall out of the processor's cache
_STEP_BYTES = 2**25


BETAS, EPSILON = (0.9, 0.999), 1e-8


NORM_MOMENTUM, NORM_EPSILON = 0.1, 1e-5


class TrainingSettings(Protocol):
    """Settings of the training; `evar.probes.network.NetworkProbe` explains each of them."""

    batch_norm: bool
    batch_size: int
    dropout: float
    loss_over_classes: bool
    max_epochs: int
    metric: str
    patience: int
    ties_improve: bool
    validate_every: int
    weight_decay: float

    def place(self) -> torch.device:
        """Return the device that the networks are trained on."""


@dataclass(eq=False)
class NetworkData:
    """Clips of one probe: standardised features of training and validation clips, (clips, width) float32, and labels."""

    features: NDArray[np.float32] | Rows
    valid: NDArray[np.float32] | Rows
    targets: Targets

    @property
    def n_bytes(self) -> int:
        """Return the bytes that are held in memory; rows that are read in parts count nothing."""
        return sum(0 if isinstance(rows, Rows) else rows.nbytes for rows in (self.features, self.valid))


@dataclass(eq=False)
class TrainedNetwork:
    """One network to be trained, and what became of it."""

    probe: int
    data: NetworkData
    n_outputs: int
    best: BestEpoch
    learning_rate: float
    hidden: tuple[int, ...]
    init: str
    stopped_early: bool = False
    weights: list[Tensor] = field(default_factory=list)
    moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def group_networks(
    networks: Sequence[TrainedNetwork], probes: Sequence[TrainingSettings]
) -> list[list[TrainedNetwork]]:
    """Put networks of one shape and the same settings together, as many as memory and cache bear.

    Args:
        networks: to be trained.
        probes: whose settings they have; `network.probe` is a position here.

    Returns:
        Groups of networks that are trained side by side, each network in one of them.
    """
    groups: dict[tuple[Any, ...], list[TrainedNetwork]] = {}
    for network in networks:
        settings = {key: value for key, value in vars(probes[network.probe]).items() if not key.endswith("_")}
        settings.pop("random_state")
        of_probe = repr(sorted((k, v) for k, v in settings.items() if not k.startswith("_")))
        shape = (network.data.features.shape[1], network.hidden, network.n_outputs, network.data.targets.kind, of_probe)
        groups.setdefault(shape, []).append(network)
    batches = []
    for (width, *_), group in groups.items():
        n_most = max(1, _STEP_BYTES // (4 * width * probes[group[0].probe].batch_size))
        batch: list[TrainedNetwork] = []
        held: dict[int, int] = {}
        for network in group:
            grown = {**held, id(network.data): network.data.n_bytes}
            if batch and (len(batch) >= n_most or sum(grown.values()) > BYTES_AT_ONCE):
                batches.append(batch)
                batch, grown = [], {id(network.data): network.data.n_bytes}
            batch.append(network)
            held = grown
        batches.append(batch)
    return batches


def _draw_initial(network: TrainedNetwork, batch_norm: bool, generator: torch.Generator) -> list[Tensor]:
    """Weight (in, out) and bias (out,) of each layer; before a normalisation no bias, which it would take away, but its
    scale and shift (out,)."""
    widths = [network.data.features.shape[1], *network.hidden, network.n_outputs]
    parameters = []
    for layer, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        weight, bias = torch.empty(n_in, n_out), torch.zeros(n_out)
        if network.init == "default":  # as torch.nn.Linear: both uniform within 1 / sqrt(n_in)
            bound = 1 / math.sqrt(n_in)
            weight.uniform_(-bound, bound, generator=generator)
            bias.uniform_(-bound, bound, generator=generator)
        else:
            spread = (1.0 if layer == 0 else math.sqrt(2.0)) * math.sqrt(2.0 / (n_in + n_out))
            if network.init == "xavier_normal":
                weight.normal_(0, spread, generator=generator)
            else:
                weight.uniform_(-math.sqrt(3.0) * spread, math.sqrt(3.0) * spread, generator=generator)
        is_normalised = batch_norm and layer < len(widths) - 2
        parameters += [weight, torch.ones(n_out), torch.zeros(n_out)] if is_normalised else [weight, bias]
    return parameters


def run_forward(
    weights: Sequence[Tensor],
    rows: Tensor,
    moments: Sequence[tuple[Tensor, Tensor]],
    *,
    is_row: Tensor | None = None,
    dropped: Sequence[Tensor] = (),
) -> Tensor:
    """Outputs of many networks: rows (network, clips, width) -> (network, clips, outputs).

    Args:
        weights: as `_draw_initial` gives them, with a first axis of networks; biases and the like (network, 1, out).
        rows: standardised features.
        moments: mean and variance (network, 1, hidden) of each normalisation; in training they are replaced by those of
            the batch and updated in place.
        is_row: (network, clips, 1) 1 for clips and 0 for padding; given in training only.
        dropped: in training, factor (network, clips, hidden) on the units of each hidden layer; may be empty.
    """
    step = 3 if moments else 2
    n_layers = (len(weights) - 2) // step + 1
    for layer in range(n_layers):
        at = layer * step
        if layer == n_layers - 1 or not moments:
            rows = torch.baddbmm(weights[at + 1], rows, weights[at])
        if layer == n_layers - 1:
            break
        if moments:
            rows = torch.bmm(rows, weights[at])
            mean, variance = moments[layer]
            if is_row is not None:
                n = is_row.sum(dim=1, keepdim=True)
                batch_mean = (rows * is_row).sum(dim=1, keepdim=True) / n
                batch_variance = ((rows - batch_mean).square() * is_row).sum(dim=1, keepdim=True) / n
                with torch.no_grad():
                    is_active = n > 1
                    unbiased = batch_variance * n / (n - 1).clamp(min=1)
                    mean.copy_(torch.where(is_active, mean.lerp(batch_mean, NORM_MOMENTUM), mean))
                    variance.copy_(torch.where(is_active, variance.lerp(unbiased, NORM_MOMENTUM), variance))
                mean, variance = batch_mean, batch_variance
            rows = (rows - mean) * torch.rsqrt(variance + NORM_EPSILON) * weights[at + 1] + weights[at + 2]
        if dropped:
            rows = rows * dropped[layer]
        rows = rows.relu()
    return rows


class _Training:
    """The state of networks that are trained side by side; the first axis of every array counts those not yet done."""

    def __init__(self, networks: Sequence[TrainedNetwork], settings: TrainingSettings, seeds: Sequence[int]) -> None:
        self.settings, self.kind = settings, networks[0].data.targets.kind
        self.device = settings.place()
        self.networks, self.generators = list(networks), [torch.Generator().manual_seed(seed) for seed in seeds]
        initial = [
            _draw_initial(network, settings.batch_norm, generator)
            for network, generator in zip(networks, self.generators, strict=True)
        ]
        self.weights = [self._stack(parts) for parts in zip(*initial, strict=True)]
        self.first = [torch.zeros_like(weight) for weight in self.weights]
        self.second = [torch.zeros_like(weight) for weight in self.weights]
        self.n_steps = torch.zeros(len(networks), 1, 1, device=self.device)
        self.rates = torch.tensor([network.learning_rate for network in networks], device=self.device)[:, None, None]
        hidden = networks[0].hidden if settings.batch_norm else ()
        self.moments = [
            (torch.zeros(len(networks), 1, n, device=self.device), torch.ones(len(networks), 1, n, device=self.device))
            for n in hidden
        ]
        # Clips that several networks share are held once.
        data = list({id(network.data): network.data for network in networks}.values())
        starts = np.cumsum([0, *(len(one.features) for one in data)])
        valid_starts = np.cumsum([0, *(len(one.valid) for one in data)])
        place = {id(one): at for at, one in enumerate(data)}
        self.sources = [network.data for network in networks]
        self.in_parts = any(isinstance(one.features, Rows) for one in data)
        self.features = self._hold_features([one.features for one in data])
        self.targets = torch.cat([one.targets.train for one in data]).to(self.device)
        self.valid = self._hold_features([one.valid for one in data])
        at = [place[id(network.data)] for network in networks]
        self.starts = [int(starts[one]) for one in at]
        self.valid_starts = [int(valid_starts[one]) for one in at]
        self.sizes = [len(network.data.features) for network in networks]

    def _hold_features(self, features: Sequence[Any]) -> Tensor:
        """Features of all clips in memory, (clips, width); nothing if they are read in parts."""
        return torch.empty(0) if self.in_parts else torch.from_numpy(np.concatenate(features)).to(self.device)

    def _stack(self, parts: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(parts)).to(self.device)
        return stacked[:, None] if stacked.dim() == 2 else stacked  # biases broadcast over clips

    def epoch(self) -> None:
        """Every network sees each of its clips once."""
        size = self.settings.batch_size
        orders = [
            start + torch.randperm(n, generator=generator)
            for start, n, generator in zip(self.starts, self.sizes, self.generators, strict=True)
        ]
        for first in range(0, max(self.sizes), size):
            parts = [order[first : first + size] for order in orders]
            longest = max(len(part) for part in parts)
            index = torch.stack([torch.nn.functional.pad(part, (0, longest - len(part))) for part in parts])
            counts = [len(part) for part in parts]
            self._step(index.to(self.device), torch.tensor(counts, device=self.device), self._draw_dropout(counts))

    def _step(self, index: Tensor, counts: Tensor, dropped: Sequence[Tensor]) -> None:
        """One step of Adam on clips `index` (network, clips), of which the first `counts` (network,) are no padding."""
        rows, targets = self._read_rows(index), self.targets[index]
        is_row = (torch.arange(index.shape[1], device=self.device) < counts[:, None]).float()
        weights = [weight.requires_grad_() for weight in self.weights]
        outputs = run_forward(weights, rows, self.moments, is_row=is_row[..., None], dropped=dropped)
        over = outputs.shape[-1] if self.settings.loss_over_classes else 1
        losses = (clip_losses(outputs, targets, self.kind) * is_row).sum(dim=1) / counts.clamp(min=1) / over
        gradients = torch.autograd.grad(losses.sum(), weights)
        is_active = (counts > 0)[:, None, None]
        with torch.no_grad():
            self.n_steps += is_active
            bias_first, bias_second = (1 - beta**self.n_steps for beta in BETAS)
            for at, gradient in enumerate(gradients):
                weight = weights[at].detach()
                gradient = gradient + self.settings.weight_decay * weight
                first = self.first[at].lerp(gradient, 1 - BETAS[0])
                second = self.second[at] * BETAS[1] + (1 - BETAS[1]) * gradient.square()
                change = self.rates / bias_first * first / ((second / bias_second).sqrt() + EPSILON)
                if bool(is_active.all()):
                    self.weights[at], self.first[at], self.second[at] = weight - change, first, second
                    continue
                self.weights[at] = torch.where(is_active, weight - change, weight)
                self.first[at] = torch.where(is_active, first, self.first[at])
                self.second[at] = torch.where(is_active, second, self.second[at])

    def _read_rows(self, index: Tensor) -> Tensor:
        """Features (network, clips, width) of clips `index` (network, clips), from memory or read now."""
        if not self.in_parts:
            return self.features[index]
        read = [
            source.features.read((own.cpu().numpy() - start).clip(min=0))  # padding is row 0 of all
            for source, start, own in zip(self.sources, self.starts, index, strict=True)
            if isinstance(source.features, Rows)
        ]
        return torch.from_numpy(np.stack(read)).to(self.device)

    def _read_valid_parts(self, at: int) -> Iterator[Tensor]:
        """Validation clips of a network, (1, clips, width), in turn where they are read in parts."""
        valid = self.sources[at].valid
        if isinstance(valid, Rows):
            yield from (torch.from_numpy(valid.read(part))[None].to(self.device) for part in valid.parts())
        else:
            start = self.valid_starts[at]
            yield self.valid[None, start : start + len(valid)]

    def _draw_dropout(self, counts: Sequence[int]) -> list[Tensor]:
        """Factor on the units of each hidden layer, (network, clips, hidden); padding takes no random numbers."""
        keep = 1 - self.settings.dropout
        if keep == 1:
            return []
        masks = []
        for n in self.networks[0].hidden:
            kept = torch.zeros(len(counts), max(counts), n)
            for at, (count, generator) in enumerate(zip(counts, self.generators, strict=True)):
                kept[at, :count] = (torch.rand(count, n, generator=generator) < keep) / keep
            masks.append(kept.to(self.device))
        return masks

    @torch.no_grad()
    def validate(self, epoch: int) -> None:
        """Score the validation clips, keep the best weights, and drop the networks that no longer improve."""
        improved, left = [], []
        for at, network in enumerate(self.networks):
            own = slice(at, at + 1)
            weights = [weight[own] for weight in self.weights]
            moments = [(mean[own], variance[own]) for mean, variance in self.moments]
            outputs = torch.cat([run_forward(weights, rows, moments)[0].cpu() for rows in self._read_valid_parts(at)])
            score, loss = network.data.targets.score_outputs(outputs)
            if network.best.take(score, loss, epoch):
                improved.append(at)
            network.stopped_early = network.best.n_without >= self.settings.patience or not math.isfinite(loss)
            if not network.stopped_early:
                left.append(at)
        for at in improved:
            self.networks[at].weights = [weight[at : at + 1].detach().clone() for weight in self.weights]
            self.networks[at].moments = [(m[at : at + 1].clone(), v[at : at + 1].clone()) for m, v in self.moments]
        if len(left) < len(self.networks):
            self._keep(left)

    def _keep(self, left: Sequence[int]) -> None:
        """Only these networks go on."""
        for name in ("networks", "generators", "sources", "starts", "valid_starts", "sizes"):
            values = getattr(self, name)
            setattr(self, name, [values[at] for at in left])
        index = torch.tensor(left, dtype=torch.int64, device=self.device)
        for name in ("weights", "first", "second"):
            setattr(self, name, [value.detach()[index] for value in getattr(self, name)])
        self.n_steps, self.rates = self.n_steps[index], self.rates[index]
        self.moments = [(mean[index], variance[index]) for mean, variance in self.moments]


def train_networks(networks: Sequence[TrainedNetwork], settings: TrainingSettings, seeds: Sequence[int]) -> None:
    """Train networks of one shape under the same settings side by side; each learns what it would learn alone.

    Args:
        networks: their best epoch, weights and moments are set.
        settings: of all of them.
        seeds: of each network: of its initial weights, the order of its clips and its dropout.
    """
    training = _Training(networks, settings, seeds)
    for epoch in range(1, settings.max_epochs + 1):
        training.epoch()
        if epoch % settings.validate_every == 0 or epoch == settings.max_epochs:
            training.validate(epoch)
        if not training.networks:
            break
