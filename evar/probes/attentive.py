"""A probe that reads frames: learned attention over time and layers, then a linear map, trained together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from evar.numeric.frames import Frames
from evar.probes.choosing import BestEpoch
from evar.probes.protocol import ProbeTraits
from evar.probes.targets import TrainedProbe, clip_losses

#: clips whose frames are read at once when nothing is learned
_CLIPS_AT_ONCE = 64
_TINY = 1e-6


@dataclass(eq=False, repr=False)
class AttentiveProbe(TrainedProbe):
    """Attention pooling over the frames of all layers and a linear map, trained by Adam and stopped early.

    Frames are standardised, feature by feature, over the training clips: x(l, t). Each of `n_heads` heads h gives every
    frame of every layer a weight, a(h, l, t) = softmax over l and t of q(h, l) . x(l, t) + b(h, l) - log(frames of layer l),
    and the outputs are c + sum over h and l of W(h, l) (sum over t of a(h, l, t) x(l, t)). With q = b = 0, where training
    starts, that is a linear map of the mean over time and layers; layers may be of any width and frame rate.

    Args:
        n_heads: how many weightings are learned.
        learning_rates: of Adam, constant; several are trained side by side and chosen among on validation clips.
        weight_decay: L2 on W, added to the gradient.
        batch_size: clips a step, drawn without replacement.
        max_epochs: at most.
        patience: stop after this many epochs in turn without a better validation score (or, at the same score, a smaller
            validation loss).
        metric: name in `evar.metrics.METRICS`; it decides the kind of the labels.
        refit: "train"; the validation clips stop the training and are not trained on.
        random_state: of initial weights and the order of clips.
        device: "auto" takes a GPU if the machine has one.

    Attributes:
        layer_weights_: (layers,) share of the attention that goes to each layer, mean over heads and training clips.
        chosen_: {"learning_rate", "epoch"} of the network that is used.
        valid_score_, valid_log_loss_: of it, on the validation clips.
        valid_scores_: (learning rates,) best score of each.
        on_grid_edge_: whether the chosen learning rate is the smallest or largest of several.
        classes_: (classes,) labels, sorted; columns where a clip has several; absent for numbers.
        converged_: True if the training stopped by itself, and not at `max_epochs`.
        n_features_in_: features of a frame, over all layers.

    Source: self-attentive pooling, Lin et al., "A Structured Self-attentive Sentence Embedding", ICLR 2017, section 2.1,
        with a linear score in place of its two-layer one, so that an epoch costs two products with the frames; the layers
        share one softmax.

    Example:
        >>> from evar.numeric.frames import FramesInMemory
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(60) % 2
        >>> clips = [np.concatenate([rng.normal(size=(9, 4)), np.full((1, 4), 6.0 * label)]) for label in y]
        >>> frames = FramesInMemory({"fc": clips})
        >>> rows = np.split(np.arange(60), [30, 45])
        >>> probe = AttentiveProbe().fit(frames[rows[0]], y[rows[0]], frames[rows[1]], y[rows[1]])
        >>> bool(probe.score(frames[rows[2]], y[rows[2]]) > 0.9)
        True
    """

    traits = ProbeTraits(kinds=("multiclass", "multilabel", "regression"), reads_frames=True, takes_device=True)

    # Settings are fields, which scikit-learn reads from the constructor that they make.
    n_heads: int = 4
    learning_rates: Sequence[float] = (1e-3,)
    weight_decay: float = 1e-8
    batch_size: int = 32
    max_epochs: int = 200
    patience: int = 10
    metric: str = "accuracy"
    refit: str = "train"
    random_state: int = 0
    device: str = "auto"

    def fit(self, X: Frames, y: ArrayLike, X_valid: Frames, y_valid: ArrayLike) -> AttentiveProbe:
        """Train, and keep the weights of the best epoch.

        Args:
            X: frames of the training clips.
            y: labels: (clips,) classes, (clips, labels) of 0 and 1, or (clips,) numbers, as the metric's kind says.
            X_valid, y_valid: of the validation clips, which stop the training.

        Returns:
            self.

        Raises:
            ValueError: if a setting is not legal, the labels do not fit, or the training diverges.
        """
        self._check(X, X_valid)
        self._learn_targets(y, len(X), y_valid, len(X_valid))
        self.n_features_in_ = sum(X.widths.values())
        self._device = self.place()
        self._scales = {name: _measure_moments(X, name, self._device) for name in X.widths}
        generator = torch.Generator().manual_seed(int(self.random_state))
        first = self._draw_initial(X, generator)
        networks = [_Network(rate, [value.clone() for value in first], self) for rate in self.learning_rates]
        running = list(networks)
        for epoch in range(1, self.max_epochs + 1):
            self._train_epoch(running, X, torch.randperm(len(X), generator=generator))
            outputs = self._compute_outputs([network.parameters for network in running], X_valid)
            for network, own in zip(running, outputs, strict=True):
                network.compare_epoch(*self._targets.score_outputs(own), epoch)
            running = [network for network in running if not network.is_done(self.patience)]
            if not running:
                break
        self._choose(networks)
        self.layer_weights_ = self._weigh_layers(X)
        return self

    def decision_function(self, X: Frames) -> NDArray[np.float64]:
        """Return outputs before softmax or sigmoid.

        Args:
            X: frames of the clips, of the layers and widths of `fit`.

        Returns:
            (clips, classes) float64, in the order of `classes_`; (clips, 1) for numbers.

        Raises:
            ValueError: if the frames are of other layers or widths than in `fit`.

        Example:
            >>> from evar.numeric.frames import FramesInMemory
            >>> frames = FramesInMemory({"fc": [np.full((3, 1), value) for value in (0.0, 1.0, 4.0, 5.0)]})
            >>> probe = AttentiveProbe(learning_rates=(0.1,)).fit(frames, [0, 0, 1, 1], frames, [0, 0, 1, 1])
            >>> probe.decision_function(frames).argmax(axis=1).tolist()
            [0, 0, 1, 1]
        """
        check_is_fitted(self, "chosen_")
        widths = {name: len(scale[0]) for name, scale in self._scales.items()}
        if X.widths != widths:
            raise ValueError(f"expected frames of layers {widths}, got {X.widths}")
        return self._compute_outputs([self._parameters], X)[0].double().numpy()

    def _check(self, X: Any, X_valid: Any) -> None:
        self._check_training()
        counts = ("n_heads", "batch_size", "max_epochs", "patience")
        if any(getattr(self, name) < 1 for name in counts) or self.weight_decay < 0:
            raise ValueError(f"{', '.join(counts)} must be at least 1, and weight_decay >= 0")
        for frames, which in ((X, "training"), (X_valid, "validation")):
            if not isinstance(frames, Frames) or not len(frames):
                raise ValueError(
                    f"the {which} clips must be evar.numeric.frames.Frames and at least one, got {type(frames).__name__}; "
                    "this probe reads frames, and stops on validation clips"
                )

    def _draw_initial(self, X: Frames, generator: torch.Generator) -> list[Tensor]:
        """For each layer q (width, heads), b (heads,), W (heads, width, outputs); at last c (outputs,)."""
        n_outputs = self._targets.n_outputs
        bound = 1 / math.sqrt(self.n_heads * self.n_features_in_)
        parameters = []
        for width in X.widths.values():
            weight = torch.empty(self.n_heads, width, n_outputs).uniform_(-bound, bound, generator=generator)
            parameters += [torch.zeros(width, self.n_heads), torch.zeros(self.n_heads), weight]
        return [value.to(self._device) for value in [*parameters, torch.zeros(n_outputs)]]

    def _train_epoch(self, networks: Sequence[_Network], X: Frames, order: Tensor) -> None:
        for rows in order.split(self.batch_size):
            batch = self._read_batch(X, rows.tolist())
            targets = self._targets.train[rows].to(self._device)
            for network in networks:
                outputs, _ = self._forward(network.parameters, batch)
                over = outputs.shape[-1] if self._targets.kind == "multilabel" else 1
                loss = clip_losses(outputs, targets, self._targets.kind).mean() / over
                network.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                network.optimiser.step()

    def _read_batch(self, X: Frames, rows: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return [tuple(part.to(self._device) for part in X.batch(rows, name)) for name in X.widths]  # type: ignore[misc]

    def _forward(self, parameters: Sequence[Tensor], batch: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Outputs (batch, outputs), and attention on each layer (batch, layers, heads).

        Standardising is folded into the small factors: x' = (x - mean) / scale never exists.
        """
        scores = []
        for at, ((frames, counts), (mean, scale)) in enumerate(zip(batch, self._scales.values(), strict=True)):
            query = parameters[3 * at] / scale[:, None]  # (width, heads)
            offset = parameters[3 * at + 1] - mean @ query - counts.log()[:, None]  # (batch, heads)
            of_frames = frames @ query + offset[:, None]  # (batch, time, heads)
            is_padding = torch.arange(frames.shape[1], device=frames.device)[None, :] >= counts[:, None]
            scores.append(of_frames.masked_fill(is_padding[:, :, None], -math.inf))
        shares = torch.cat(scores, dim=1).softmax(dim=1).split([part.shape[1] for part in scores], dim=1)
        outputs, masses = parameters[-1], []
        for at, ((frames, _), share, (mean, scale)) in enumerate(
            zip(batch, shares, self._scales.values(), strict=True)
        ):
            masses.append(share.sum(dim=1))  # (batch, heads)
            pooled = share.mT @ frames - masses[-1][..., None] * mean  # (batch, heads, width)
            outputs = outputs + (pooled / scale).flatten(1) @ parameters[3 * at + 2].flatten(0, 1)
        return outputs, torch.stack(masses, dim=1)

    def _read_chunks(self, X: Frames) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """All clips in turn, in bounded memory."""
        for rows in torch.arange(len(X)).split(self.batch_size):
            yield self._read_batch(X, rows.tolist())

    @torch.no_grad()
    def _compute_outputs(self, parameters: Sequence[Sequence[Tensor]], X: Frames) -> list[Tensor]:
        """(clips, outputs) float32 on the CPU, for each set of parameters; the frames are read once."""
        found: list[list[Tensor]] = [[] for _ in parameters]
        for batch in self._read_chunks(X):
            for parts, own in zip(found, parameters, strict=True):
                parts.append(self._forward(own, batch)[0].cpu())
        return [torch.cat(parts) for parts in found]

    @torch.no_grad()
    def _weigh_layers(self, X: Frames) -> NDArray[np.float64]:
        total = sum(self._forward(self._parameters, batch)[1].sum(dim=0).cpu() for batch in self._read_chunks(X))
        assert isinstance(total, Tensor)  # (layers, heads)
        return (total.double().mean(dim=1) / len(X)).numpy()

    def _choose(self, networks: Sequence[_Network]) -> None:
        best = self._best(networks)
        self.chosen_ = {"learning_rate": best.learning_rate, "epoch": best.best.epoch}
        self.converged_ = best.is_done(self.patience)
        self._parameters = best.kept


@dataclass(eq=False)
class _Network:
    """The weights that are learned at one learning rate."""

    learning_rate: float
    parameters: list[Tensor]
    settings: AttentiveProbe
    kept: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.learning_rate = float(self.learning_rate)
        self.best = BestEpoch(self.settings.metric, "loss")
        for value in self.parameters:
            value.requires_grad_()
        maps = [value for value in self.parameters if value.dim() == 3]
        others = [value for value in self.parameters if value.dim() != 3]
        groups: list[dict[str, Any]] = [
            {"params": maps, "weight_decay": self.settings.weight_decay},
            {"params": others},
        ]
        self.optimiser = torch.optim.Adam(groups, lr=self.learning_rate)

    def compare_epoch(self, score: float, loss: float, epoch: int) -> None:
        """Keep the weights if they are the best so far."""
        if self.best.take(score, loss, epoch):
            self.kept = [value.detach().clone() for value in self.parameters]

    def is_done(self, patience: int) -> bool:
        """Tell whether `patience` epochs have passed without a better one."""
        return self.best.n_without >= patience


def _measure_moments(X: Frames, layer: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation (width,) of a layer's frames over all clips; 1 if a feature is constant.

    In two passes over the frames, in bounded memory, since the difference of large sums would lose small deviations.
    """
    chunks = torch.arange(len(X)).split(_CLIPS_AT_ONCE)
    total, n_frames = torch.zeros(X.widths[layer], dtype=torch.float64), 0
    for rows in chunks:
        frames, _ = X.join(rows.tolist(), layer)
        total += frames.sum(dim=0, dtype=torch.float64)
        n_frames += len(frames)
    mean = total / n_frames
    squares = torch.zeros_like(total)
    for rows in chunks:
        frames, _ = X.join(rows.tolist(), layer)
        squares += (frames - mean.float()).square().sum(dim=0, dtype=torch.float64)
    scale = (squares / n_frames).sqrt()
    scale = torch.where(scale <= _TINY * mean.abs(), torch.ones_like(scale), scale)
    return mean.float().to(device), scale.float().to(device)
