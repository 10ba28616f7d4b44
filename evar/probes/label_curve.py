"""The probe of label-efficiency curves: one fit for each number of labelled clips per class and each draw of clips."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from evar.config.registry import near_miss
from evar.metrics import METRICS
from evar.numeric.softmax import compute_shares
from evar.numeric.solve import solve_all
from evar.probes.checks import check_features, check_pair, check_width, join_splits
from evar.probes.draw_fitting import Draw, DrawModel, DrawSettings, PreparedDraw
from evar.probes.draws import FittingClips, draw_groups, list_points
from evar.probes.linear import BYTES_OF_FEATURE
from evar.probes.protocol import ProbeTraits

Split = tuple[ArrayLike, ArrayLike, ArrayLike | None, ArrayLike | None]

#: bytes that fits hold which are solved side by side
BYTES_TOGETHER = 2**28
#: draws of one number of clips hold about this many times the clips that there are, so that large draws, which hardly
#: differ from each other, do not cost more than all smaller ones together
LABELS_OF_DRAWS = 1.5
#: draws of any number of clips but all, at least
LEAST_DRAWS = 3


@dataclass
class CurvePoint:
    """One number of labelled clips per class.

    Attributes:
        n: clips per class that each draw aims at; None for all clips.
        draws: (clips of a draw,) rising positions among the fitting clips, for each draw.
        n_short: classes that have fewer than n clips.
        models: fitted, one for each draw.
    """

    n: int | None
    draws: list[NDArray[np.int64]]
    n_short: int
    models: list[DrawModel] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class LabelCurveProbe(ClassifierMixin, BaseEstimator):
    """Logistic regression on 1, 2, 5, 10, 20, ... labelled clips per class, drawn many times, and on all clips.

    Draws take whole groups (`evar.probes.draws.draw_groups`); draw number d of a smaller n is part of draw number d of a
    larger n. Every fit uses the clips of its draw alone: features are standardised by them, and the strength is chosen
    within them, by leaving out one group after another. `evar.probes.draw_fitting` says how.

    Args:
        n_draws: draws of each number of clips at most; fewer where they hold 1.5 times all clips together, but 3 at least.
            Of all clips there is one draw.
        strengths: values of C to choose from; those above `most_separable` only where a draw has more clips than features.
        strength: C where a draw is too small to choose: fewer than two of its classes have three groups.
        most_separable: largest C for draws that any labels of theirs could be separated in; a larger one changes next to
            nothing there.
        refit: "train_and_valid": clips are drawn from training and validation clips together; "train": from training clips.
        metric: name in `evar.metrics.METRICS`, by which a strength is chosen.
        tol: of the fits of draws, as in `LinearProbe`; the fit of all clips is a hundred times closer.
        max_iter: Newton steps at most.
        random_state: of the draws.
        clips: groups of the clips of `fit`; None: every clip is a group of its own.

    Attributes:
        points_: a `CurvePoint` for each number of clips, rising; the last is all clips. A number at which every draw
            equals that of the number before, because groups are larger, is left out.
        classes_: (classes,) labels, sorted.
        strength_: C of the fit on all clips.
        converged_: whether all fits reached `tol`.
        n_features_in_: width.

    Source: choice without further labels, Perez et al., "True Few-Shot Learning with Language Models", NeurIPS 2021.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(90) % 3
        >>> X = rng.normal(size=(90, 20)) + 3 * np.eye(20)[y]
        >>> probe = LabelCurveProbe(n_draws=4).fit(X[:60], y[:60])
        >>> [(point.n, len(point.draws)) for point in probe.points_]
        [(1, 4), (2, 4), (5, 4), (10, 3), (None, 1)]
        >>> [labels.shape for labels in probe.predict_draws(X[60:])][-2:]
        [(3, 30), (1, 30)]
    """

    # The fits run in parts of `BYTES_TOGETHER`; the split holds every clip in single precision.
    traits = ProbeTraits(
        fits_together=True,
        reads_clips=True,
        count_bytes=lambda probe, n_clips, width, n_classes: (
            4 * n_clips * width + BYTES_TOGETHER + 8 * width * n_classes * 6 * probe.n_draws
        ),
    )

    # Settings are fields, which scikit-learn reads from the constructor that they make.
    n_draws: int = 10
    strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    strength: float = 0.1
    most_separable: float = 0.1
    refit: str = "train_and_valid"
    metric: str = "accuracy"
    tol: float = 3e-4
    max_iter: int = 100
    random_state: int = 0
    clips: FittingClips | None = None

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> LabelCurveProbe:
        """Draw clips of each number, and fit a classifier on each draw.

        Args:
            X: (clips, width) embeddings of the training clips.
            y: (clips,) labels.
            X_valid, y_valid: of the validation clips, which are drawn from too unless `refit` is "train"; or None.

        Returns:
            self.

        Raises:
            ValueError: if a setting, shape or value is not legal.
        """
        return self.fit_together([self], [(X, y, X_valid, y_valid)])[0]

    @staticmethod
    def fit_together(probes: Sequence[LabelCurveProbe], splits: Sequence[Split]) -> Sequence[LabelCurveProbe]:
        """Fit several curves, all draws of about one size side by side.

        Args:
            probes: unfitted.
            splits: X, y, X_valid and y_valid of each, as in `fit`.

        Returns:
            The probes, fitted.

        Raises:
            ValueError: as `fit`.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> two = [LabelCurveProbe(n_draws=2, random_state=seed) for seed in range(2)]
            >>> [len(probe.points_) for probe in LabelCurveProbe.fit_together(two, [(X, y, None, None)] * 2)]
            [2, 2]
        """
        draws: list[tuple[Draw, CurvePoint]] = []
        for probe, split in zip(probes, splits, strict=True):
            draws += probe._list_draws(*split)
        for part in _cut_draws(sorted(draws, key=lambda draw: len(draw[0]))):
            prepared = [PreparedDraw.of(draw) for draw, _ in part]
            fits = solve_all([one.problem for one in prepared])
            for (_, point), one, fit in zip(part, prepared, fits, strict=True):
                point.models.append(one.make_model(fit))
        for probe in probes:
            (last,) = probe.points_[-1].models
            probe.classes_, probe.strength_ = last.classes, last.strength
            probe.converged_ = all(model.converged for point in probe.points_ for model in point.models)
        return probes

    def _list_draws(self, X: Any, y: Any, X_valid: Any, y_valid: Any) -> list[tuple[Draw, CurvePoint]]:
        """Check the clips and draw; returns each draw with its point."""
        settings = self._check_settings()
        features, labels = check_pair(X, y, "training")
        if self.refit == "train_and_valid" and X_valid is not None and len(X_valid):
            features, labels = join_splits(features, labels, *check_pair(X_valid, y_valid, "validation"))
        if len(np.unique(labels)) < 2:
            raise ValueError(f"a probe needs clips of at least 2 classes, got one class, {labels[0]!r}")
        groups = np.arange(len(labels)) if self.clips is None else np.asarray(self.clips.groups)[: len(labels)]
        if len(groups) != len(labels):
            raise ValueError(f"clips must describe {len(labels)} clips, got {len(groups)}")
        self.n_features_in_ = features.shape[1]
        self.points_ = self._draw_points(labels, groups)
        whole = settings.be_closer(100)
        return [
            (Draw(features[own], labels[own], groups[own], settings if point.n else whole), point)
            for point in self.points_
            for own in point.draws
        ]

    def _check_settings(self) -> DrawSettings:
        if self.n_draws < 1:
            raise ValueError(f"n_draws must be at least 1, got {self.n_draws}")
        strengths = tuple(float(value) for value in self.strengths)
        if not all(0 < value < math.inf for value in (*strengths, self.strength)) or not strengths:
            raise ValueError(
                f"strength and strengths must be positive numbers, got {self.strength!r} and {self.strengths!r}"
            )
        if self.refit not in ("train", "train_and_valid"):
            raise ValueError(f"refit must be train or train_and_valid, got {self.refit!r}")
        if self.metric not in METRICS:
            raise ValueError(f"no metric {self.metric!r}; {near_miss(self.metric, METRICS)}")
        return DrawSettings(strengths, self.strength, self.most_separable, self.metric, self.tol, self.max_iter)

    def _draw_points(self, y: NDArray[Any], groups: NDArray[Any]) -> list[CurvePoint]:
        counts = np.unique(y, return_counts=True)[1]
        points: list[CurvePoint] = []
        for n in list_points(int(counts.max())):
            draws = [draw_groups(y, groups, n, (self.random_state, number)) for number in range(self.n_draws)]
            if all(len(drawn) == len(y) for drawn in draws):
                break
            if points and _are_equal(draws, points[-1].draws):
                continue
            mean = float(np.mean([len(drawn) for drawn in draws]))
            n_draws = max(min(LEAST_DRAWS, self.n_draws), min(self.n_draws, round(LABELS_OF_DRAWS * len(y) / mean)))
            points.append(CurvePoint(n, draws[:n_draws], int((counts < n).sum())))
        return [*points, CurvePoint(None, [np.arange(len(y))], 0)]

    def predict_draws(self, X: ArrayLike) -> list[NDArray[Any]]:
        """Predict the class of each clip by every fit.

        Args:
            X: (clips, width) vectors.

        Returns:
            (draws, clips) labels for each of `points_`.

        Raises:
            ValueError: if X has another width than in `fit`, or holds NaN or infinity.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> LabelCurveProbe(n_draws=2).fit(X, y).predict_draws([[0.5], [4.5]])[0].tolist()
            [[0, 1], [0, 1]]
        """
        features = self._check_given(X)
        return [np.stack([model.predict(features) for model in point.models]) for point in self.points_]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities by the fit on all clips.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, classes) float64 in 0..1, in the order of `classes_`; rows sum to 1.

        Raises:
            ValueError: as `predict_draws`.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> LabelCurveProbe(n_draws=2).fit(X, y).predict_proba(X).shape
            (4, 2)
        """
        features = self._check_given(X)
        logits = self.points_[-1].models[0].decide(features)
        return compute_shares(logits)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each clip by the fit on all clips.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips,) labels.

        Raises:
            ValueError: as `predict_draws`.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> LabelCurveProbe(n_draws=2).fit(X, y).predict([[0.5], [4.5]]).tolist()
            [0, 1]
        """
        features = self._check_given(X)
        return self.points_[-1].models[0].predict(features)

    def _check_given(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "points_")
        features = check_features(X, "given")
        check_width(features, self.n_features_in_, self)
        return features.astype(np.float64, copy=False)


def _are_equal(draws: Sequence[NDArray[Any]], before: Sequence[NDArray[Any]]) -> bool:
    """Tell whether each draw of the number before has not grown; of that number some draws may have been left out."""
    return all(np.array_equal(draws[at], own) for at, own in enumerate(before))


def _cut_draws(draws: Sequence[tuple[Draw, CurvePoint]]) -> Iterator[list[tuple[Draw, CurvePoint]]]:
    """Yield consecutive draws in parts of `BYTES_TOGETHER` or less, or of one draw."""
    part: list[tuple[Draw, CurvePoint]] = []
    held = 0
    for draw in draws:
        n_bytes = BYTES_OF_FEATURE * draw[0].X.size
        if part and held + n_bytes > BYTES_TOGETHER:
            yield part
            part, held = [], 0
        part.append(draw)
        held += n_bytes
    if part:
        yield part
