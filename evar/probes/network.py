"""Probes that are small networks trained by gradient steps with early stopping: one linear layer, or hidden ones.

Many are trained side by side: rounds, layers, seeds and learning rates become the first axis of every array, and a step of
all of them is one batched product. Each has random numbers of its own, so that it learns what it would learn alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from evar.config.registry import near_miss
from evar.numeric.rows import Rows, standardisation_of
from evar.probes.checks import check_features
from evar.probes.choosing import BestEpoch
from evar.probes.network_training import NetworkData, TrainedNetwork, group_networks, run_forward, train_networks
from evar.probes.protocol import ProbeTraits, per_number
from evar.probes.targets import TrainedProbe

INITS = ("default", "xavier_uniform", "xavier_normal")


Split = tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]


@dataclass(eq=False, repr=False)
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
        n_combinations: try at most this many, drawn with seed 42; None tries all.
        dropout: share of hidden units that are left out in a step.
        batch_norm: normalise hidden units over the batch, before dropout and ReLU.
        weight_decay: L2, added to the gradient.
        batch_size: clips a step.
        max_epochs: at most.
        validate_every: epochs.
        patience: stop after this many validations in turn without improvement.
        ties_improve: whether an equal validation score counts as improvement, so that the later weights are kept.
        loss_over_classes: divide the loss by the number of classes, as a mean over all outputs does. Adam does not see
            it, but for its epsilon and weight decay.
        standardise: features by mean and standard deviation of the training clips.
        metric: name in `evar.metrics.METRICS`; it decides the kind of the labels.
        refit: "train"; the validation clips stop the training and are not trained on.
        random_state: of initial weights, order of the clips and dropout.
        device: "auto" takes a GPU if the machine has one.

    Attributes:
        chosen_: {"learning_rate", "hidden", "init", "epoch"} of the network that is used.
        valid_score_, valid_log_loss_: of it, on the validation clips.
        valid_scores_: (combinations,) best score of each.
        combinations_: the settings that were tried.
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

    traits = ProbeTraits(
        kinds=("multiclass", "multilabel", "regression"),
        reads_parts=True,
        fits_together=True,
        count_bytes=per_number(4),
        takes_device=True,
    )

    # Settings are fields, which scikit-learn reads from the constructor that they make.
    learning_rates: Sequence[float] = (3e-4,)
    hiddens: Sequence[Sequence[int]] = ((),)
    inits: Sequence[str] = ("default",)
    n_combinations: int | None = None
    dropout: float = 0.0
    batch_norm: bool = False
    weight_decay: float = 1e-8
    batch_size: int = 200
    max_epochs: int = 200
    validate_every: int = 1
    patience: int = 20
    ties_improve: bool = True
    loss_over_classes: bool = True
    standardise: bool = True
    metric: str = "accuracy"
    refit: str = "train"
    random_state: int = 0
    device: str = "auto"

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

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> two = [NetworkProbe((0.1,), random_state=seed) for seed in range(2)]
            >>> [probe.valid_score_ for probe in NetworkProbe.fit_together(two, [(X, y, X, y)] * 2)]
            [1.0, 1.0]
        """
        networks: list[TrainedNetwork] = []
        for number, (probe, split) in enumerate(zip(probes, splits, strict=True)):
            networks += probe._make_networks(number, *split)
        for batch in group_networks(networks, probes):
            train_networks(
                batch, probes[batch[0].probe], [int(probes[network.probe].random_state) for network in batch]
            )
        for number, probe in enumerate(probes):
            probe._choose([network for network in networks if network.probe == number])
        return probes

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return outputs before softmax or sigmoid.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, classes) float64, in the order of `classes_`; (clips, 1) for numbers.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> NetworkProbe((0.1,)).fit(X, y, X, y).decision_function(X).argmax(axis=1).tolist()
            [0, 0, 1, 1]
        """
        check_is_fitted(self, "chosen_")
        features = check_features(X, "given")
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {features.shape[1]} features, expected {self.n_features_in_}; is it another layer?"
            )
        rows = torch.from_numpy(self._scale(features))[None].to(self._weights[0].device)
        outputs = run_forward(self._weights, rows, self._moments)
        return outputs[0].double().cpu().numpy()

    def _make_networks(self, number: int, X: Any, y: Any, X_valid: Any, y_valid: Any) -> list[TrainedNetwork]:
        """One network for each combination, ready to be trained."""
        self._check_settings()
        if X_valid is None or y_valid is None or not len(X_valid):  # rows on disk are counted, not read
            raise ValueError("training stops on validation clips; X_valid and y_valid are needed, got none")
        features, valid = check_features(X, "training"), check_features(X_valid, "validation")
        self._learn_targets(y, len(features), y_valid, len(valid))
        self.n_features_in_ = features.shape[1]
        if valid.shape[1] != self.n_features_in_:
            raise ValueError(
                f"the validation embeddings have {valid.shape[1]} features, expected {self.n_features_in_}"
            )
        self.mean_, self.scale_ = standardisation_of(features)
        if not self.standardise:
            self.mean_, self.scale_ = np.zeros_like(self.mean_), np.ones_like(self.scale_)
        data = NetworkData(self._scale_or_defer(features), self._scale_or_defer(valid), self._targets)
        self.combinations_ = self._list_combinations()
        return [
            TrainedNetwork(number, data, self._targets.n_outputs, self._start_epochs(), **combination)
            for combination in self.combinations_
        ]

    def _start_epochs(self) -> BestEpoch:
        return BestEpoch(self.metric, "last" if self.ties_improve else "first")

    def _list_combinations(self) -> list[dict[str, Any]]:
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

    def _scale(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """(clips, width) float32; a constant feature becomes 0."""
        varies = self.scale_ > 0
        return np.where(varies, (features - self.mean_) / np.where(varies, self.scale_, 1.0), 0.0).astype(np.float32)

    def _scale_or_defer(self, features: Any) -> NDArray[np.float32] | Rows:
        """Standardise features; features that are read in parts are standardised when they are read."""
        if isinstance(features, Rows):
            return _ScaledRows(features, self)
        return self._scale(features)

    def _choose(self, networks: Sequence[TrainedNetwork]) -> None:
        best = self._best(networks)
        self.chosen_ = {
            "learning_rate": best.learning_rate, "hidden": list(best.hidden), "init": best.init, "epoch": best.best.epoch,
        }  # fmt: skip
        self.converged_ = best.stopped_early
        self._weights, self._moments = best.weights, best.moments


class _ScaledRows(Rows):
    """Rows that are standardised when they are read."""

    def __init__(self, rows: Rows, probe: NetworkProbe) -> None:
        super().__init__(*rows.shape)
        self._rows, self._probe = rows, probe

    def read(self, rows: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:
        return self._probe._scale(self._rows.read(rows))
