"""Probes: scikit-learn-shaped estimators that are fitted on frozen embeddings and never see a test clip."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from evar.config.registry import near_miss
from evar.metrics import METRICS
from evar.numeric.logistic import principal_coordinates
from evar.numeric.logistic_problem import Coordinates, LogisticFit, LogisticProblem
from evar.numeric.rows import Rows, RowsInMemory, standardisation_of
from evar.numeric.solve import solve_all
from evar.probes.checks import STRENGTHS, check_pair, check_width, join_splits
from evar.probes.choosing import choose_setting, count_always_tried, is_getting_worse
from evar.probes.linear_model import LinearClassifier
from evar.probes.protocol import ProbeTraits, per_number

if TYPE_CHECKING:
    from torch import Tensor

#: bytes that a fit may hold; more, and it goes over the rows in passes. A constant, so that a row is computed the same way
#: on every machine.
BYTES_IN_MEMORY = 6 * 2**30


#: the fits that choose a strength go on until they are this many times closer than their tolerance: of 135 choices
#: (crepe.tiny's layers on esc10, three seeds) 1 was not that of exact fits without it, and none with it
_SEARCH_MARGIN = 3


#: bytes that a fit in memory holds for each feature of a clip, and for each class of a clip
BYTES_OF_FEATURE, BYTES_OF_CLASS = 48, 64


class LinearProbe(LinearClassifier):
    """Standardise, then multinomial logistic regression whose strength is chosen on validation clips.

    Features are standardised by the mean and standard deviation of the training clips alone, also where the final fit
    uses the validation clips too. A feature that is constant over the training clips gets coefficient 0. Every
    strength C minimises C x (sum of log-losses) + 0.5 x ||W||^2, the intercept unpenalised, on the training clips, and
    is scored on the validation clips by `metric`. The smaller half of the grid and two more are always tried; of the
    larger ones, from small to large, none after the first that is worse than the best before it in both score and
    log-loss: weaker regularisation only overfits from there on. The best score wins; of equal scores, the lower
    validation log-loss (64 clips tie often), then the smaller C. The final solution is exact: it equals scikit-learn's
    `LogisticRegression` behind a `StandardScaler` (probabilities to 1e-5, tested), only faster.

    A validation label that training lacks counts as an error of every strength and is left out of the log-loss;
    a final fit on both splits learns it. Where a fit would hold more than `BYTES_IN_MEMORY`, or is given
    `evar.numeric.rows.Rows`, the same solution is found in passes over the rows (probabilities within 1e-5 too), whose cost
    in memory does not grow with the clips.

    Args:
        strengths: values of C to choose from, positive and distinct; a single one needs no validation clips.
        refit: clips of the final fit with the chosen strength, if validation clips are given: "train_and_valid"
            or "train".
        metric: name in `evar.metrics.METRICS`.
        tol: the final fit stops when a full Newton step could move no probability of a fitted clip by more than this.
        search_tol: the same for the fits that only choose the strength, which go on to a third of it so that they choose
            as exact fits do.
        max_iter: Newton steps at most; a fit that ends there sets `converged_` to False and warns.

    Attributes:
        strength_: the chosen C.
        valid_scores_: (strengths,) score on the validation clips, NaN where the search had ended; empty without
            validation clips.
        valid_log_losses_: (strengths,) mean log-loss on the validation clips, in nats; likewise.
        valid_score_, valid_log_loss_: of the chosen C; None without validation clips.
        on_grid_edge_: whether the chosen C is the smallest or largest of several: a wider grid may do better.
        classes_: (classes,) labels, sorted.
        coef_: (classes, width) float64, or (1, width) for two classes; for features as given, not standardised.
        intercept_: (classes,) float64, or (1,) for two classes.
        mean_, scale_: (width,) float64, the training clips' mean and standard deviation; scale 0 marks a constant
            feature.
        converged_: whether the final fit reached `tol`.
        n_iter_: Newton steps of the final fit.
        n_features_in_: width.

    Source: the linear evaluation of HEAR and EVAR (Turian et al., "HEAR: Holistic Evaluation of Audio
        Representations", 2022; Niizumi et al., "BYOL for Audio", 2021), with logistic regression in place of their
        networks.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(90) % 3
        >>> X = rng.normal(size=(90, 20)) + 3 * np.eye(20)[y]
        >>> probe = LinearProbe().fit(X[:40], y[:40], X[40:60], y[40:60])
        >>> bool(probe.score(X[60:], y[60:]) > 0.8), probe.valid_scores_.shape, probe.coef_.shape
        (True, (8,), (3, 20))
    """

    traits = ProbeTraits(reads_parts=True, fits_together=True, count_bytes=per_number(BYTES_OF_FEATURE))

    def __init__(
        self,
        strengths: Sequence[float] = STRENGTHS,
        refit: str = "train_and_valid",
        metric: str = "accuracy",
        tol: float = 3e-6,
        search_tol: float = 1e-3,
        max_iter: int = 100,
    ) -> None:
        self.strengths = strengths
        self.refit = refit
        self.metric = metric
        self.tol = tol
        self.search_tol = search_tol
        self.max_iter = max_iter

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike | None = None, y_valid: ArrayLike | None = None
    ) -> LinearProbe:
        """Choose the strength and fit.

        Args:
            X: (clips, width) embeddings of the training clips.
            y: (clips,) their labels, integers or names.
            X_valid: (validation clips, width), or None where `strengths` is a single value.
            y_valid: (validation clips,) labels of the same type.

        Returns:
            self.

        Raises:
            ValueError: if a setting, shape or value is not legal, there are fewer than 2 classes, or several
                strengths are given without validation clips.
        """
        return self.fit_together([self], [(X, y, X_valid, y_valid)])[0]

    @staticmethod
    def fit_together(
        probes: Sequence[LinearProbe],
        splits: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike | None, ArrayLike | None]],
    ) -> Sequence[LinearProbe]:
        """Fit several probes, each on its own clips, side by side: the rounds of a fold task, for example.

        Small problems are solved in batches, which saves most of the time that they would take one by one. The solutions are
        the same to the probes' tolerance.

        Args:
            probes: unfitted.
            splits: of each probe X (clips, width), y (clips,), X_valid (clips, width) or None, y_valid (clips,) or None.

        Returns:
            The probes, fitted.

        Raises:
            ValueError: as `fit`.

        Example:
            >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
            >>> two = LinearProbe.fit_together([LinearProbe((1.0,)), LinearProbe((0.1,))], [(X, y, None, None)] * 2)
            >>> [probe.strength_ for probe in two]
            [1.0, 0.1]
        """
        running = [probe._run_fit(*split) for probe, split in zip(probes, splits, strict=True)]
        wanted = {index: next(steps) for index, steps in enumerate(running)}
        while wanted:
            for index, found in zip(list(wanted), solve_all(list(wanted.values())), strict=True):
                try:
                    wanted[index] = running[index].send(found)
                except StopIteration:
                    del wanted[index]
        return probes

    def _run_fit(self, X: Any, y: Any, X_valid: Any, y_valid: Any) -> Generator[LogisticProblem, LogisticFit, None]:
        """The steps of `fit`: yields each problem that must be solved, and is sent its solution."""
        strengths = self._check_settings()
        X, y = self._check_pair(X, y, "training")
        self._learn_classes(y)
        has_valid = X_valid is not None and y_valid is not None
        if (X_valid is None) != (y_valid is None):
            raise ValueError("X_valid and y_valid go together, but only one of them was given")
        if not has_valid and len(strengths) > 1:
            raise ValueError(
                f"choosing among {len(strengths)} strengths needs X_valid and y_valid; give them, or a single strength"
            )
        self.n_features_in_ = X.shape[1]
        n_train = len(X)
        if has_valid:
            X_valid, y_valid = self._check_pair(X_valid, y_valid, "validation")
            check_width(X_valid, self.n_features_in_, self)
        X, X_valid = self._stream_if_large(X, X_valid if has_valid else None, y)
        self.mean_, self.scale_ = standardisation_of(X)
        if has_valid:
            X, y = join_splits(X, y, X_valid, y_valid)

        # One change of coordinates serves every fit: it only renames the space that these clips span.
        coordinates: Tensor | Coordinates
        if isinstance(X, Rows):
            coordinates = Coordinates.of(X, self.mean_, self.scale_)
            basis = coordinates.basis
        else:
            coordinates, basis = principal_coordinates(self._standardise(X))
        self.valid_scores_ = self.valid_log_losses_ = np.zeros(0)
        self.strength_ = strengths[0]
        self.valid_score_: float | None = None
        self.valid_log_loss_: float | None = None
        if has_valid:
            self.strength_, rough = yield from self._search(coordinates, y, n_train, strengths)
            chosen = strengths.index(self.strength_)
            self.valid_score_ = float(self.valid_scores_[chosen])
            self.valid_log_loss_ = float(self.valid_log_losses_[chosen])
        self.on_grid_edge_ = len(strengths) > 1 and self.strength_ in (min(strengths), max(strengths))
        if has_valid and self.refit == "train_and_valid":
            n_train = len(y)
            self._learn_classes(y)
        if has_valid and self.refit == "train" and self.tol >= self.search_tol:
            final = rough  # of the same clips
        else:
            final = yield self._make_problem(coordinates[:n_train], y[:n_train], [self.strength_], self.tol)
        self.converged_ = bool(final.converged.all())
        self.n_iter_ = int(final.n_iter[0, 0])
        if not self.converged_:
            warnings.warn(
                f"the probe did not converge to tol={self.tol} in {self.max_iter} steps; raise max_iter, or leave out "
                "the largest strengths",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._store_coefficients(final.weights[0, 0] @ basis.T, final.intercepts[0, 0])

    def _stream_if_large(self, X: Any, X_valid: Any, y: NDArray[Any]) -> tuple[Any, Any]:
        """Arrays as they are, or as rows that are read in passes where a fit of all of them would hold too much."""
        n_clips = len(X) + (0 if X_valid is None else len(X_valid))
        n_classes = y.shape[1] if y.ndim == 2 else len(self.classes_)
        n_bytes = n_clips * (BYTES_OF_FEATURE * X.shape[1] + BYTES_OF_CLASS * n_classes)
        if n_bytes <= BYTES_IN_MEMORY and not isinstance(X, Rows):
            return X, X_valid
        every = [rows if rows is None or isinstance(rows, Rows) else RowsInMemory(rows) for rows in (X, X_valid)]
        return every[0], every[1]

    def _check_pair(self, X: Any, y: Any, which: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """Checked features and labels of one split."""
        return check_pair(X, y, which)

    def _learn_classes(self, y: NDArray[Any]) -> None:
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"a probe needs training clips of at least 2 classes, got one class, {self.classes_[0]!r} "
                f"({len(y)} clips); is the subset too small?"
            )

    def _check_settings(self) -> list[float]:
        strengths = [float(value) for value in np.atleast_1d(np.asarray(self.strengths, dtype=np.float64))]
        if not strengths or not all(0 < value < np.inf for value in strengths):
            raise ValueError(f"strengths must be one or more positive numbers, got {self.strengths!r}")
        if len(set(strengths)) < len(strengths):
            raise ValueError(f"strengths must be distinct, got {self.strengths!r}")
        if self.refit not in ("train", "train_and_valid"):
            raise ValueError(f"refit must be train or train_and_valid, got {self.refit!r}")
        if self.metric not in METRICS:
            raise ValueError(f"no metric {self.metric!r}; {near_miss(self.metric, METRICS)}")
        if not self.tol > 0 or self.max_iter < 1:
            raise ValueError(f"tol must be > 0 and max_iter >= 1, got tol={self.tol}, max_iter={self.max_iter}")
        return strengths

    def _standardise(self, X: NDArray[Any]) -> Tensor:
        varies = self.scale_ > 0
        return torch.from_numpy((X[:, varies].astype(np.float64) - self.mean_[varies]) / self.scale_[varies])

    def _search(
        self, coordinates: Tensor | Coordinates, y: NDArray[Any], n_train: int, strengths: Sequence[float]
    ) -> Generator[LogisticProblem, LogisticFit, tuple[float, LogisticFit]]:
        """The best strength on the validation clips, which follow the `n_train` training clips, and its fit."""
        order = sorted(range(len(strengths)), key=lambda at: strengths[at])
        self.valid_scores_ = np.full(len(strengths), np.nan)
        self.valid_log_losses_ = np.full(len(strengths), np.nan)
        # Those that are tried in any case, together; of the others each costs more than the one before.
        n_together = count_always_tried(len(order))
        tried: list[int] = []
        fits: dict[int, LogisticFit] = {}
        for block in (order[:n_together], *([at] for at in order[n_together:])):
            path = yield self._make_problem(
                coordinates[:n_train], y[:n_train], [strengths[at] for at in block], self.search_tol / _SEARCH_MARGIN
            )
            scores, log_losses = self._validate_path(path, coordinates[n_train:], y[n_train:])
            for at, score, log_loss in zip(block, scores, log_losses, strict=True):
                self.valid_scores_[at], self.valid_log_losses_[at] = score, log_loss
                tried.append(at)
            fits.update((at, path.only(number)) for number, at in enumerate(block))
            tried_scores, tried_losses = self.valid_scores_[tried], self.valid_log_losses_[tried]
            best = tried[choose_setting(self.metric, tried_scores, tried_losses, [strengths[at] for at in tried])]
            fits = {best: fits[best]}
            if is_getting_worse(self.metric, tried_scores, tried_losses):
                break
        return strengths[best], fits[best]

    def _make_problem(
        self, coordinates: Tensor | Coordinates, y: NDArray[Any], strengths: Sequence[float], tol: float
    ) -> LogisticProblem:
        """The problem of fitting clips (clips, rank) of labels in `classes_` at every strength."""
        labels = torch.from_numpy(np.searchsorted(self.classes_, y).astype(np.int64))
        return LogisticProblem(coordinates, labels, tuple(strengths), len(self.classes_), tol, self.max_iter)

    def _validate_path(
        self, path: LogisticFit, coordinates: Tensor | Coordinates, y: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Score and log-loss of each strength on the validation clips (clips, rank)."""
        if not isinstance(coordinates, Coordinates):
            return self._validate(path.logits(coordinates[None])[0], y)
        parts = []
        for number in range(path.weights.shape[1]):  # one after another: logits of many clips and classes are large
            parts.append(self._validate(coordinates.logits(path.only(number)), y))
        scores, log_losses = zip(*parts, strict=True)
        return np.concatenate(scores), np.concatenate(log_losses)

    def _validate(self, logits: Tensor, y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Score and log-loss of logits (strength, class, clips)."""
        predicted = self.classes_[logits.argmax(dim=1).numpy()]  # (strength, clips)
        scores = np.array([METRICS[self.metric].function(y, row) for row in predicted])
        is_known = np.isin(y, self.classes_)
        index = torch.from_numpy(np.searchsorted(self.classes_, y[is_known]).astype(np.int64))
        log_shares = torch.log_softmax(logits[:, :, torch.from_numpy(is_known)], dim=1)
        picked = log_shares.gather(1, index.expand(len(logits), 1, -1))[:, 0]  # (strength, known clips)
        return scores, -picked.mean(dim=1).numpy() if len(index) else np.zeros(len(logits))

    def _store_coefficients(self, weights: Tensor, intercepts: Tensor) -> None:
        """Turn (class, varying feature) weights of standardised features into `coef_` and `intercept_`."""
        standard, offsets = weights.numpy(), intercepts.numpy()
        if len(self.classes_) == 2:
            standard, offsets = standard[1:] - standard[:1], offsets[1:] - offsets[:1]
        varies = self.scale_ > 0
        self.coef_ = np.zeros((len(standard), self.n_features_in_))
        self.coef_[:, varies] = standard / self.scale_[varies]
        self.intercept_ = offsets - self.coef_ @ self.mean_
