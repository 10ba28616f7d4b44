"""Probes without training: the nearest clips, and the nearest class mean. They show what distances alone tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from evar.metrics import METRICS
from evar.numeric.softmax import compute_shares
from evar.probes.checks import check_features, check_labels, check_numbers
from evar.probes.choosing import choose_setting
from evar.probes.cosine import CosineProbe, NearestProbe
from evar.probes.protocol import ProbeTraits


class KNNProbe(ClassifierMixin, NearestProbe):
    """Votes of the nearest clips by cosine similarity; their number is chosen on validation clips.

    Each of the k nearest clips votes for its label with exp(similarity / temperature). The best validation score wins;
    of equal scores the lower log-loss of the vote shares, then the smaller k.

    Args:
        ks: numbers of neighbours to choose from, at least 1; a single one needs no validation clips. More than there
            are clips means all.
        temperature: above 0; a large one counts votes alike.
        refit: whose clips are the neighbours of test clips: "train" or "train_and_valid".
        metric: name in `evar.metrics.METRICS`.

    Attributes:
        chosen_: {"k": the chosen number}.
        valid_scores_, valid_log_losses_: (ks,) on the validation clips; empty without any.
        valid_score_, valid_log_loss_: of the chosen k; None without validation clips.
        classes_, n_features_in_: as in scikit-learn.

    Source: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018, section
        3.4 (weighted k-nearest-neighbour classifier; temperature 0.07).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(90) % 3
        >>> X = rng.normal(size=(90, 8)) + 3 * np.eye(8)[y]
        >>> probe = KNNProbe().fit(X[:50], y[:50], X[50:70], y[50:70])
        >>> bool(probe.score(X[70:], y[70:]) > 0.8), sorted(probe.chosen_)
        (True, ['k'])
    """

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> KNNProbe:
        """Choose k and keep the clips.

        Args:
            X: (clips, width) embeddings of the training clips.
            y: (clips,) labels.
            X_valid, y_valid: of the validation clips; None if there is only one k.

        Returns:
            self.

        Raises:
            ValueError: if a setting, shape or value is not legal, or there are several k without validation clips.
        """
        ks = self._check_ks(X_valid is not None)
        features, labels, X_valid, y_valid = self._start(X, y, X_valid, y_valid)
        self.valid_scores_ = self.valid_log_losses_ = np.zeros(0)
        self.valid_score_: float | None = None
        self.valid_log_loss_: float | None = None
        self.chosen_ = {"k": ks[0]}
        if X_valid is not None and y_valid is not None:
            self.classes_, numbers = np.unique(labels, return_inverse=True)
            self._clips, self._numbers = self._find_directions(features), numbers
            self._choose(ks, X_valid, y_valid)
        self._clips, self._numbers = self._select_final(features, labels, X_valid, y_valid)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the share of votes of each class.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, classes) float64 in 0..1, in the order of `classes_`; rows sum to 1.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]]), ["right", "right", "left", "left"]
            >>> KNNProbe(ks=(1,)).fit(X, y).predict_proba(X[:1]).tolist()
            [[0.0, 1.0]]
        """
        check_is_fitted(self, "classes_")
        checked = check_features(X, "given")
        return np.concatenate(
            [shares[0] for shares in self._compute_shares(self._find_directions(checked), [self.chosen_["k"]])]
        )

    def _choose(self, ks: Sequence[int], X_valid: NDArray[Any], y_valid: NDArray[Any]) -> None:
        shares = np.concatenate(
            list(self._compute_shares(self._find_directions(X_valid), ks)), axis=1
        )  # (ks, clips, classes)
        metric = METRICS[self.metric]
        known = np.isin(y_valid, self.classes_)
        picked = shares[:, known, np.searchsorted(self.classes_, y_valid[known])]
        self.valid_scores_ = np.array([metric.function(y_valid, self.classes_[of_k.argmax(axis=1)]) for of_k in shares])
        self.valid_log_losses_ = -np.log(np.maximum(picked, 1e-12)).sum(axis=1) / max(1, known.sum())
        best = choose_setting(self.metric, self.valid_scores_, self.valid_log_losses_, ks)
        self.chosen_ = {"k": ks[best]}
        self.valid_score_, self.valid_log_loss_ = float(self.valid_scores_[best]), float(self.valid_log_losses_[best])

    def _compute_shares(self, directions: NDArray[np.float32], ks: Sequence[int]) -> Iterator[NDArray[np.float64]]:
        """(ks, some clips, classes) of all clips in turn, at a cost in memory that does not grow with them."""
        n_known, n_classes = len(self._clips), len(self.classes_)
        for nearest, votes in self._find_neighbours(directions, min(max(ks), n_known)):
            of_classes = (
                np.eye(n_classes)[self._numbers[nearest]] * votes[..., None]
            )  # (some clips, neighbours, classes)
            sums = np.stack([of_classes[:, : min(k, n_known)].sum(axis=1) for k in ks])
            yield sums / sums.sum(axis=2, keepdims=True)


class _KNNAverages(NearestProbe):
    """Averages of the targets of the nearest clips, weighted by votes as in `KNNProbe`."""

    _targets: NDArray[np.float64]

    def _to_numbers(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """Labels as (clips, outputs)."""
        raise NotImplementedError

    def _shape_outputs(self, averages: NDArray[np.float64]) -> NDArray[np.float64]:
        """(clips, outputs) as the metric wants them."""
        raise NotImplementedError

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> Any:
        """Choose k and keep the clips; arguments and errors as for `KNNProbe.fit`, with labels of this kind."""
        ks = self._check_ks(X_valid is not None)
        features, labels, X_valid, y_valid = self._start(X, y, X_valid, y_valid)
        self.valid_scores_, self.chosen_ = np.zeros(0), {"k": ks[0]}
        self.valid_score_: float | None = None
        self._clips, self._targets = self._find_directions(features), self._to_numbers(labels)
        if X_valid is None or y_valid is None:
            return self
        averages = np.concatenate(
            list(self._compute_averages(self._find_directions(X_valid), ks)), axis=1
        )  # (ks, clips, outputs)
        metric = METRICS[self.metric]
        scores = [metric.function(y_valid, self._shape_outputs(of_k)) for of_k in averages]
        errors = np.square(averages - self._to_numbers(y_valid)).mean(axis=(1, 2))
        best = choose_setting(self.metric, scores, errors, ks)
        self.valid_scores_, self.valid_score_ = np.array(scores), float(scores[best])
        self.chosen_ = {"k": ks[best]}
        if self.refit == "train_and_valid":
            self._clips = self._find_directions(np.concatenate([features, X_valid]))
            self._targets = np.concatenate([self._targets, self._to_numbers(y_valid)])
        return self

    def _average_neighbours(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self, "chosen_")
        directions = self._find_directions(check_features(X, "given"))
        return np.concatenate([one[0] for one in self._compute_averages(directions, [self.chosen_["k"]])])

    def _compute_averages(self, directions: NDArray[np.float32], ks: Sequence[int]) -> Iterator[NDArray[np.float64]]:
        """(ks, some clips, outputs) of all clips in turn."""
        n_known = len(self._clips)
        for nearest, votes in self._find_neighbours(directions, min(max(ks), n_known)):
            kept = [votes[:, : min(k, n_known)] for k in ks]
            yield np.stack(
                [
                    np.einsum("ij,ijo->io", one, self._targets[nearest[:, : one.shape[1]]]) / one.sum(axis=1)[:, None]
                    for one in kept
                ]
            )


class KNNLabelsProbe(_KNNAverages):
    """Of each label the share of votes of the nearest clips that have it, for clips with several labels.

    Args, attributes: as for `KNNProbe`; labels are (clips, labels) of 0 and 1; of equal scores the lower squared error of
    the shares wins, then the smaller k.

    Source: as `KNNProbe`; one vote for each label of a neighbour.

    Example:
        >>> X = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]])
        >>> y = np.array([[1, 0], [1, 1], [0, 1], [0, 1]])
        >>> KNNLabelsProbe(ks=(1,)).fit(X, y).predict(X).tolist()
        [[1, 0], [1, 1], [0, 1], [0, 1]]
    """

    traits = ProbeTraits(kinds=("multilabel",))

    def _check_pair(self, X: Any, y: Any, which: str) -> tuple[NDArray[Any], NDArray[Any]]:
        return check_features(X, which), check_labels(y, len(X), which)

    def _to_numbers(self, y: NDArray[Any]) -> NDArray[np.float64]:
        return y.astype(np.float64)

    def _shape_outputs(self, averages: NDArray[np.float64]) -> NDArray[np.float64]:
        return averages

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the share of the votes that each label has.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, labels) float64 in 0..1.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]]), [[1, 0], [1, 1], [0, 1], [0, 1]]
            >>> KNNLabelsProbe(ks=(1,)).fit(X, y).decision_function(X[:1]).tolist()
            [[1.0, 0.0]]
        """
        return self._average_neighbours(X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the labels that have at least half of the votes.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, labels) uint8 of 0 and 1.

        Raises:
            ValueError: as `decision_function`.

        Example:
            >>> X, y = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]]), [[1, 0], [1, 1], [0, 1], [0, 1]]
            >>> KNNLabelsProbe(ks=(1,)).fit(X, y).predict(X[1:2]).tolist()
            [[1, 1]]
        """
        return (self._average_neighbours(X) >= 0.5).astype(np.uint8)


class KNNNumbersProbe(RegressorMixin, _KNNAverages):
    """The mean of the nearest clips' numbers, weighted by their votes.

    Args, attributes: as for `KNNProbe`; labels are (clips,) numbers; of equal scores the lower squared error wins, then
    the smaller k.

    Source: as `KNNProbe`, with a mean in place of the vote.

    Example:
        >>> X = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]])
        >>> KNNNumbersProbe(ks=(1,)).fit(X, [1.0, 2.0, 3.0, 4.0]).predict(X).tolist()
        [1.0, 2.0, 3.0, 4.0]
    """

    traits = ProbeTraits(kinds=("regression",))

    def _check_pair(self, X: Any, y: Any, which: str) -> tuple[NDArray[Any], NDArray[Any]]:
        return check_features(X, which), check_numbers(y, len(X), which)

    def _to_numbers(self, y: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(y, np.float64)[:, None]

    def _shape_outputs(self, averages: NDArray[np.float64]) -> NDArray[np.float64]:
        return averages[:, 0]

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the number of each clip.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips,) float64, in the unit of the labels.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]])
            >>> KNNNumbersProbe(ks=(1,)).fit(X, [1.0, 2.0, 3.0, 4.0]).predict(X[2:3]).tolist()
            [3.0]
        """
        return self._average_neighbours(X)[:, 0]


class PrototypeProbe(ClassifierMixin, CosineProbe):
    """The class whose mean direction is nearest by cosine similarity; nothing is chosen.

    Args:
        refit: whose clips make the means where validation clips are given: "train" or "train_and_valid".
        metric: name in `evar.metrics.METRICS`; only checked.

    Attributes:
        prototypes_: (classes, width) float32, of length 1.
        classes_, n_features_in_: as in scikit-learn.

    Source: nearest class mean, Mensink et al., "Distance-Based Image Classification", IEEE TPAMI 2013; prototypes of
        Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, on fixed features.

    Example:
        >>> X = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]])
        >>> PrototypeProbe().fit(X, ["right", "right", "left", "left"]).predict(X).tolist()
        ['right', 'right', 'left', 'left']
    """

    def __init__(self, refit: str = "train_and_valid", metric: str = "accuracy") -> None:
        self.refit = refit
        self.metric = metric

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> PrototypeProbe:
        """Average the directions of each class.

        Args:
            X: (clips, width) vectors of the training clips.
            y: (clips,) labels.
            X_valid, y_valid: of the validation clips, which also vote if `refit` includes them; or None.

        Returns:
            self.

        Raises:
            ValueError: if a setting, shape or value is not legal, or there are fewer than 2 classes.
        """
        directions, numbers = self._select_final(*self._start(X, y, X_valid, y_valid))
        sums = np.zeros((len(self.classes_), directions.shape[1]))
        np.add.at(sums, numbers, directions)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        self.prototypes_ = np.asarray(sums / np.where(lengths > 0, lengths, 1.0), np.float32)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the softmax of the similarities to the classes; for their order, not as probabilities.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, classes) float64 in 0..1, in the order of `classes_`; rows sum to 1.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]]), ["right", "right", "left", "left"]
            >>> PrototypeProbe().fit(X, y).predict_proba(X[:1]).argmax()
            np.int64(1)
        """
        check_is_fitted(self, "prototypes_")
        similar = self._find_directions(check_features(X, "given")).astype(np.float64) @ self.prototypes_.T
        return compute_shares(similar)
