"""Probes that are small networks trained by gradient steps with early stopping: one linear layer, or hidden ones.

Many are trained side by side: rounds, layers, seeds and learning rates become the first axis of every array, and a step of
all of them is one batched product. Each has random numbers of its own, so that it learns what it would learn alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from evar.metrics import METRICS
from evar.probes import _checked_features
from evar.registry import near_miss
from evar.stored_rows import Rows, standardisation_of
from evar.targets import Targets, TrainedProbe, clip_losses

#: bytes of training and validation vectors of the networks that are trained side by side
BYTES_AT_ONCE = 2**30
#: bytes of the vectors of one step of them; more, and they fall out of the processor's cache
_STEP_BYTES = 2**25
BETAS, EPSILON = (0.9, 0.999), 1e-8
INITS = ("default", "xavier_uniform", "xavier_normal")
NORM_MOMENTUM, NORM_EPSILON = 0.1, 1e-5

Split = tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]


class NetworkProbe(TrainedProbe):
    """A linear layer, or a multilayer perceptron, trained by Adam and stopped early on validation clips.

    Every combination of `learning_rates`, `hiddens` and `inits` is trained on the training clips; after every
    `validate_every` epochs the validation clips are scored by `metric`, and the weights of the best epoch are kept. The
    combination with the best validation score is the probe (ties: smaller validation loss, then the one listed first).
    Batches are drawn without replacement, and the last one of an epoch may be smaller.

    The loss is the cross-entropy of the softmax for one class a clip, the binary cross-entropy of the sigmoids for
    several labels, and the squared error of standardised labels for numbers.

    Args:
        learning_rates: of Adam, constant; several are chosen among on validation clips.
        hiddens: widths of the hidden layers, () for none; several are chosen among.
        inits: "default" (PyTorch's uniform one), "xavier_uniform" or "xavier_normal" (gain 1 for the first layer and
            sqrt(2) after it, biases 0); several are chosen among.
        n_combinations: try at most so many, drawn with seed 42; None tries all.
        dropout: share of hidden units that are left out in a step.
        batch_norm: normalise hidden units over the batch, before dropout and ReLU.
        weight_decay: L2, added to the gradient.
        batch_size: clips a step.
        max_epochs: at most.
        validate_every: epochs.
        patience: stop after so many validations in turn without improvement.
        ties_improve: whether an equal validation score counts as improvement, so that the later weights are kept.
        loss_over_classes: divide the loss by the number of classes, as a mean over all outputs does. Adam does not see
            it, but for its epsilon and weight decay.
        standardise: features by mean and standard deviation of the training clips.
        metric: name in `evar.metrics.METRICS`; its kind tells what the labels are.
        refit: "train"; the validation clips stop the training and are not trained on.
        random_state: of initial weights, order of the clips and dropout.
        device: "auto" takes a GPU where there is one.

    Attributes:
        chosen_: {"learning_rate", "hidden", "init", "epoch"} of the network that is used.
        valid_score_, valid_log_loss_: of it, on the validation clips.
        valid_scores_: (combinations,) best score of each.
        combinations_: what was tried.
        on_grid_edge_: whether the chosen learning rate is the smallest or largest of several.
        classes_: (classes,) labels, sorted; columns where a clip has several; absent for numbers.
        converged_: True if the training stopped by itself, and not at `max_epochs`.
        n_features_in_: width.

    Source: the linear evaluation of EVAR (Niizumi et al., "BYOL for Audio: Exploring Pre-trained General-purpose Audio
        Representations", TASLP 2023) and the downstream classifier of HEAR (Turian et al., "HEAR: Holistic Evaluation of
        Audio Representations", 2022); Adam: Kingma & Ba, ICLR 2015.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(90) % 3
        >>> X = rng.normal(size=(90, 6)) + 4 * np.eye(6)[y]
        >>> probe = NetworkProbe(learning_rates=(0.01,)).fit(X[:40], y[:40], X[40:60], y[40:60])
        >>> bool(probe.score(X[60:], y[60:]) > 0.8)
        True
    """

    kinds = ("multilabel", "regression")
    bytes_together = 4
    reads_rows = True

    def __init__(
        self,
        learning_rates: Sequence[float] = (3e-4,),
        hiddens: Sequence[Sequence[int]] = ((),),
        inits: Sequence[str] = ("default",),
        n_combinations: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        weight_decay: float = 1e-8,
        batch_size: int = 200,
        max_epochs: int = 200,
        validate_every: int = 1,
        patience: int = 20,
        ties_improve: bool = True,
        loss_over_classes: bool = True,
        standardise: bool = True,
        metric: str = "accuracy",
        refit: str = "train",
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.learning_rates = learning_rates
        self.hiddens = hiddens
        self.inits = inits
        self.n_combinations = n_combinations
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.validate_every = validate_every
        self.patience = patience
        self.ties_improve = ties_improve
        self.loss_over_classes = loss_over_classes
        self.standardise = standardise
        self.metric = metric
        self.refit = refit
        self.random_state = random_state
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike, y_valid: ArrayLike) -> NetworkProbe:
        """Train every combination and keep the best.

        Args:
            X: (clips, width) embeddings of the training clips.
            y: labels: (clips,) classes, (clips, labels) of 0 and 1, or (clips,) numbers, as the metric's kind says.
            X_valid, y_valid: of the validation clips, which stop the training.

        Returns:
            self.

        Raises:
            ValueError: if a setting, shape or value is not legal, or there is nothing to learn.
        """
        return self.fit_together([self], [(X, y, X_valid, y_valid)])[0]

    @staticmethod
    def fit_together(probes: Sequence[NetworkProbe], splits: Sequence[Split]) -> Sequence[NetworkProbe]:
        """Fit several probes, each on its own clips, side by side; networks of one shape share every step.

        Args:
            probes: unfitted.
            splits: X, y, X_valid and y_valid of each, as in `fit`.

        Returns:
            The probes, fitted.

        Raises:
            ValueError: as `fit`.
        """
        networks: list[_Network] = []
        for number, (probe, split) in enumerate(zip(probes, splits, strict=True)):
            networks += probe._networks(number, *split)
        for batch in _batches(networks, probes):
            _train(batch, probes[batch[0].probe], [int(probes[network.probe].random_state) for network in batch])
        for number, probe in enumerate(probes):
            probe._choose([network for network in networks if network.probe == number])
        return probes

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Outputs before softmax or sigmoid: (clips, width) -> (clips, classes), or (clips, 1) for numbers."""
        check_is_fitted(self, "chosen_")
        features = _checked_features(X, "given")
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {features.shape[1]} features, expected {self.n_features_in_}; is it another layer?"
            )
        rows = torch.from_numpy(self._scaled(features))[None].to(self._weights[0].device)
        outputs = _forward(self._weights, rows, self._moments)
        return outputs[0].double().cpu().numpy()

    def _networks(self, number: int, X: Any, y: Any, X_valid: Any, y_valid: Any) -> list[_Network]:
        """One network for each combination, ready to be trained."""
        self._check_settings()
        if X_valid is None or y_valid is None or not len(X_valid):  # rows on disk are counted, not read
            raise ValueError("training stops on validation clips; X_valid and y_valid are needed, got none")
        features, valid = _checked_features(X, "training"), _checked_features(X_valid, "validation")
        self._learn_targets(y, len(features), y_valid, len(valid))
        self.n_features_in_ = features.shape[1]
        if valid.shape[1] != self.n_features_in_:
            raise ValueError(
                f"the validation embeddings have {valid.shape[1]} features, expected {self.n_features_in_}"
            )
        self.mean_, self.scale_ = standardisation_of(features)
        if not self.standardise:
            self.mean_, self.scale_ = np.zeros_like(self.mean_), np.ones_like(self.scale_)
        data = _Data(self._scaled_or_later(features), self._scaled_or_later(valid), self._targets)
        self.combinations_ = self._combinations()
        return [_Network(number, data, self._targets.n_outputs, **combination) for combination in self.combinations_]

    def _combinations(self) -> list[dict[str, Any]]:
        every = [
            {"learning_rate": float(rate), "hidden": tuple(int(width) for width in hidden), "init": init}
            for rate, hidden, init in itertools.product(self.learning_rates, self.hiddens, self.inits)
        ]
        if self.n_combinations is None or self.n_combinations >= len(every):
            return every
        drawn = np.random.default_rng(42).permutation(len(every))[: self.n_combinations]
        return [every[at] for at in sorted(drawn)]

    def _check_settings(self) -> None:
        self._check_training()
        for init in self.inits:
            if init not in INITS:
                raise ValueError(f"no init {init!r}; {near_miss(str(init), INITS)}")
        if not 0 <= self.dropout < 1 or self.weight_decay < 0:
            raise ValueError(
                f"dropout must lie in 0..1 and weight_decay be >= 0, got {self.dropout}, {self.weight_decay}"
            )
        counts = ("batch_size", "max_epochs", "validate_every", "patience")
        if any(getattr(self, name) < 1 for name in counts) or (self.batch_norm and self.batch_size < 2):
            raise ValueError(f"{', '.join(counts)} must be at least 1, and batch_norm needs batches of 2 or more")

    def _scaled(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """(clips, width) float32; a constant feature becomes 0."""
        varies = self.scale_ > 0
        return np.where(varies, (features - self.mean_) / np.where(varies, self.scale_, 1.0), 0.0).astype(np.float32)

    def _scaled_or_later(self, features: Any) -> NDArray[np.float32] | Rows:
        """Standardised features; where they are read in parts, so is what is standardised."""
        if isinstance(features, Rows):
            return _ScaledRows(features, self)
        return self._scaled(features)

    def _choose(self, networks: Sequence[_Network]) -> None:
        best = self._best(networks)
        self.chosen_ = {
            "learning_rate": best.learning_rate, "hidden": list(best.hidden), "init": best.init, "epoch": best.best_epoch,
        }  # fmt: skip
        self.converged_ = best.stopped_early
        self._weights, self._moments = best.weights, best.moments


class _ScaledRows(Rows):
    """Rows that are standardised when they are read."""

    def __init__(self, rows: Rows, probe: NetworkProbe) -> None:
        super().__init__(*rows.shape)
        self._rows, self._probe = rows, probe

    def read(self, rows: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:
        return self._probe._scaled(self._rows.read(rows))


@dataclass(eq=False)
class _Data:
    """Clips of one probe: standardised features of training and validation clips, (clips, width) float32, and labels."""

    features: NDArray[np.float32] | Rows
    valid: NDArray[np.float32] | Rows
    targets: Targets

    @property
    def n_bytes(self) -> int:
        return sum(0 if isinstance(rows, Rows) else rows.nbytes for rows in (self.features, self.valid))


@dataclass(eq=False)
class _Network:
    """One network to be trained, and what became of it."""

    probe: int
    data: _Data
    n_outputs: int
    learning_rate: float
    hidden: tuple[int, ...]
    init: str
    best_score: float = -math.inf
    best_loss: float = math.inf
    best_epoch: int = 0
    stopped_early: bool = False
    weights: list[Tensor] = field(default_factory=list)
    moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def _batches(networks: Sequence[_Network], probes: Sequence[NetworkProbe]) -> list[list[_Network]]:
    """Networks of one shape and the same settings together, as many as memory and cache bear."""
    groups: dict[tuple[Any, ...], list[_Network]] = {}
    for network in networks:
        settings = {key: value for key, value in vars(probes[network.probe]).items() if not key.endswith("_")}
        settings.pop("random_state")
        of_probe = repr(sorted((k, v) for k, v in settings.items() if not k.startswith("_")))
        shape = (network.data.features.shape[1], network.hidden, network.n_outputs, network.data.targets.kind, of_probe)
        groups.setdefault(shape, []).append(network)
    batches = []
    for (width, *_), group in groups.items():
        n_most = max(1, _STEP_BYTES // (4 * width * 200))
        batch: list[_Network] = []
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


def _initial(network: _Network, batch_norm: bool, generator: torch.Generator) -> list[Tensor]:
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


def _forward(
    weights: Sequence[Tensor],
    rows: Tensor,
    moments: Sequence[tuple[Tensor, Tensor]],
    *,
    is_row: Tensor | None = None,
    dropped: Sequence[Tensor] = (),
) -> Tensor:
    """Outputs of many networks: rows (network, clips, width) -> (network, clips, outputs).

    Args:
        weights: as `_initial` gives them, with a first axis of networks; biases and the like (network, 1, out).
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

    def __init__(self, networks: Sequence[_Network], settings: NetworkProbe, seeds: Sequence[int]) -> None:
        self.settings, self.kind = settings, networks[0].data.targets.kind
        self.device = settings._place()
        self.networks, self.generators = list(networks), [torch.Generator().manual_seed(seed) for seed in seeds]
        initial = [
            _initial(network, settings.batch_norm, generator)
            for network, generator in zip(networks, self.generators, strict=True)
        ]
        self.weights = [self._stacked(parts) for parts in zip(*initial, strict=True)]
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
        self.features = self._held([one.features for one in data])
        self.targets = torch.cat([one.targets.train for one in data]).to(self.device)
        self.valid = self._held([one.valid for one in data])
        at = [place[id(network.data)] for network in networks]
        self.starts = [int(starts[one]) for one in at]
        self.valid_starts = [int(valid_starts[one]) for one in at]
        self.sizes = [len(network.data.features) for network in networks]
        self.since_best = [0] * len(networks)

    def _held(self, features: Sequence[Any]) -> Tensor:
        """Features of all clips in memory, (clips, width); nothing where they are read in parts."""
        return torch.empty(0) if self.in_parts else torch.from_numpy(np.concatenate(features)).to(self.device)

    def _stacked(self, parts: Sequence[Tensor]) -> Tensor:
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
            self._step(index.to(self.device), torch.tensor(counts, device=self.device), self._dropped(counts))

    def _step(self, index: Tensor, counts: Tensor, dropped: Sequence[Tensor]) -> None:
        """One step of Adam on clips `index` (network, clips), of which the first `counts` (network,) are no padding."""
        rows, targets = self._rows(index), self.targets[index]
        is_row = (torch.arange(index.shape[1], device=self.device) < counts[:, None]).float()
        weights = [weight.requires_grad_() for weight in self.weights]
        outputs = _forward(weights, rows, self.moments, is_row=is_row[..., None], dropped=dropped)
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

    def _rows(self, index: Tensor) -> Tensor:
        """Features (network, clips, width) of clips `index` (network, clips), from memory or read now."""
        if not self.in_parts:
            return self.features[index]
        read = [
            source.features.read((own.cpu().numpy() - start).clip(min=0))  # padding is row 0 of all
            for source, start, own in zip(self.sources, self.starts, index, strict=True)
            if isinstance(source.features, Rows)
        ]
        return torch.from_numpy(np.stack(read)).to(self.device)

    def _valid_parts(self, at: int) -> Iterator[Tensor]:
        """Validation clips of a network, (1, clips, width), in turn where they are read in parts."""
        valid = self.sources[at].valid
        if isinstance(valid, Rows):
            yield from (torch.from_numpy(valid.read(part))[None].to(self.device) for part in valid.parts())
        else:
            start = self.valid_starts[at]
            yield self.valid[None, start : start + len(valid)]

    def _dropped(self, counts: Sequence[int]) -> list[Tensor]:
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
        """Score the validation clips, keep what is best, and drop the networks that no longer improve."""
        metric = METRICS[self.settings.metric]
        sign = 1 if metric.higher_is_better else -1
        improved, left = [], []
        for at, network in enumerate(self.networks):
            own = slice(at, at + 1)
            weights = [weight[own] for weight in self.weights]
            moments = [(mean[own], variance[own]) for mean, variance in self.moments]
            outputs = torch.cat([_forward(weights, rows, moments)[0].cpu() for rows in self._valid_parts(at)])
            score, loss = network.data.targets.validated(outputs)
            is_better = sign * score > sign * network.best_score or network.best_epoch == 0
            if is_better or (self.settings.ties_improve and score == network.best_score):
                network.best_score, network.best_loss, network.best_epoch = score, loss, epoch
                improved.append(at)
                self.since_best[at] = 0
            else:
                self.since_best[at] += 1
            network.stopped_early = self.since_best[at] >= self.settings.patience or not math.isfinite(loss)
            if not network.stopped_early:
                left.append(at)
        for at in improved:
            self.networks[at].weights = [weight[at : at + 1].detach().clone() for weight in self.weights]
            self.networks[at].moments = [(m[at : at + 1].clone(), v[at : at + 1].clone()) for m, v in self.moments]
        if len(left) < len(self.networks):
            self._keep(left)

    def _keep(self, left: Sequence[int]) -> None:
        """Only these networks go on."""
        for name in ("networks", "generators", "sources", "starts", "valid_starts", "sizes", "since_best"):
            values = getattr(self, name)
            setattr(self, name, [values[at] for at in left])
        index = torch.tensor(left, dtype=torch.int64, device=self.device)
        for name in ("weights", "first", "second"):
            setattr(self, name, [value.detach()[index] for value in getattr(self, name)])
        self.n_steps, self.rates = self.n_steps[index], self.rates[index]
        self.moments = [(mean[index], variance[index]) for mean, variance in self.moments]


def _train(networks: Sequence[_Network], settings: NetworkProbe, seeds: Sequence[int]) -> None:
    """Train networks of one shape under the same settings side by side."""
    training = _Training(networks, settings, seeds)
    for epoch in range(1, settings.max_epochs + 1):
        training.epoch()
        if epoch % settings.validate_every == 0 or epoch == settings.max_epochs:
            training.validate(epoch)
        if not training.networks:
            break
