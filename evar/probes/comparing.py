"""Shared parts of the probes that compare test clips with each other: nothing is trained but the space of the vectors.

Such a probe has `compare(X, clips)` in the place of `predict(X)`: the scored items are queries, clips or pairs, with a true
and a found value each. The space (`evar.probes.spaces`) is fitted on the training clips, and the one with the best score on
the validation clips is used: test clips choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from evar.config.registry import near_miss
from evar.metrics import METRICS
from evar.probes.checks import check_features, check_width
from evar.probes.choosing import choose_setting
from evar.probes.spaces import SPACES, Space, fit_space

#: digits kept of validation scores in rows: thread counts change the last ones of a float
_DIGITS = 6


@dataclass(frozen=True, eq=False)
class ComparedClips:
    """What is known of clips that are compared.

    Attributes:
        y: (clips,) whole numbers, the class of each.
        groups: (clips,) texts; clips of one group, such as cuts of one recording, are not compared.
        names: (clips,) texts, the path of each.
        is_readable: (clips,) False for clips that could not be read or encoded.

    Example:
        >>> clips = ComparedClips.of([0, 1], ["a", "b"], ["a.wav", "b.wav"])
        >>> len(clips), clips.is_readable.tolist()
        (2, [True, True])
    """

    y: NDArray[np.int64]
    groups: NDArray[np.str_]
    names: NDArray[np.str_]
    is_readable: NDArray[np.bool_]

    @classmethod
    def of(cls, y: Any, groups: Any, names: Any, is_readable: Any = None) -> ComparedClips:
        """Make it from anything like arrays; None: all clips could be read."""
        labels = np.asarray(y, np.int64)
        readable = np.ones(len(labels), bool) if is_readable is None else np.asarray(is_readable, bool)
        return cls(labels, np.asarray(groups, str), np.asarray(names, str), readable)

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class Compared:
    """What was scored, one entry for each query, clip or pair.

    Attributes:
        names: (items,) texts: the path of a clip, or of two with " and " between them.
        groups: (items,) texts, by which intervals draw.
        y_true, y_pred: (items, ...), as the metric takes them.
        facts: what else a row must say, such as how many queries were left out.
    """

    names: NDArray[np.str_]
    groups: NDArray[np.str_]
    y_true: NDArray[Any]
    y_pred: NDArray[Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


class ComparingProbe(BaseEstimator):
    """Base of these probes.

    Args:
        spaces: names of `SPACES` to choose from, the simplest first.
        metric: that the choice is made by.
        valid_clips: `ComparedClips` of the validation clips; a run sets it.

    Attributes:
        space_: the space that is used.
        chosen_: {"space": its name, "valid_scores": {name: score}}, and {"reason": ...} where nothing could be chosen.
        valid_score_: of the choice on the validation clips; None where nothing could be chosen.
        n_features_in_: as in scikit-learn.
    """

    spaces: Sequence[str]
    metric: str
    valid_clips: ComparedClips | None

    def fit(self, X: Any, y: Any, X_valid: Any, y_valid: Any) -> Any:
        """Fit the spaces on the training clips, and choose one by the validation clips.

        Args:
            X: (clips, width) vectors of the training clips; None or no rows where there are none: then vectors are used as
                they are.
            y: not used.
            X_valid: (clips, width) vectors of the validation clips.
            y_valid: not used; `valid_clips` holds the classes.

        Returns:
            The probe.

        Raises:
            ValueError: if a setting is not legal, or vectors are not finite.
        """
        unknown = [name for name in self.spaces if name not in SPACES]
        if unknown or not len(self.spaces):
            raise ValueError(f"no space {unknown[0]!r}; {near_miss(unknown[0], SPACES)}" if unknown else "no space")
        has_train = X is not None and len(X) >= 2
        features = check_features(X, "training") if has_train else None
        if features is not None:
            self.n_features_in_ = features.shape[1]
        usable = [name for name in self.spaces if has_train or name == "raw"] or ["raw"]
        self.valid_score_: float | None = None
        if len(usable) == 1:
            self.space_ = fit_space(usable[0], features)
            self.chosen_: dict[str, Any] = {"space": usable[0]}
            if len(self.spaces) > 1:
                self.chosen_["reason"] = "there are no training clips, so that vectors are compared as they are"
            return self
        fitted = {name: fit_space(name, features) for name in usable}
        self._choose(fitted, X_valid)
        return self

    def _choose(self, fitted: Mapping[str, Space], X_valid: Any) -> None:
        """Score each space on the validation clips; where they cannot be scored, the first is used, with a warning."""
        names = list(fitted)
        clips, reason = self.valid_clips, "there are no validation clips"
        scores: dict[str, float] = {}
        if clips is not None and X_valid is not None and len(clips):
            vectors = np.asarray(check_features(X_valid, "validation"))
            try:
                for name, space in fitted.items():
                    found = self._compare(space.find_directions(vectors), clips)
                    scores[name] = float(METRICS[self.metric].function(found.y_true, found.y_pred))
            except ValueError as error:
                reason, scores = f"validation clips cannot be scored: {error}", {}
        if not scores:
            self.space_, self.chosen_ = fitted[names[0]], {"space": names[0], "reason": reason}
            return
        best = names[choose_setting(self.metric, list(scores.values()), range(len(names)))]
        self.space_, self.valid_score_ = fitted[best], scores[best]
        self.chosen_ = {"space": best, "valid_scores": {name: round(score, _DIGITS) for name, score in scores.items()}}

    def compare(self, X: Any, clips: ComparedClips) -> Compared:
        """Compare test clips with each other.

        Args:
            X: (clips, width) vectors; rows of clips that could not be read may hold anything.
            clips: what is known of them.

        Returns:
            What is scored.

        Raises:
            ValueError: if nothing can be scored, or the width is another than in `fit`.
        """
        vectors = np.where(clips.is_readable[:, None], np.asarray(X), 0.0)
        vectors = np.asarray(check_features(vectors, "given"))
        if hasattr(self, "n_features_in_"):
            check_width(vectors, self.n_features_in_, self)
        self.n_features_in_ = vectors.shape[1]
        return self._compare(self.space_.find_directions(vectors), clips)

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return the number of the nearest other clip for each clip.

        Args:
            X: (clips, width) vectors, at least 2.
        """
        directions = self.space_.find_directions(np.asarray(check_features(X, "given"))).astype(np.float64)
        similar = directions @ directions.T
        np.fill_diagonal(similar, -np.inf)
        return similar.argmax(axis=1)

    def _compare(self, directions: NDArray[np.float32], clips: ComparedClips) -> Compared:
        """Score clips by their directions (clips, width)."""
        raise NotImplementedError
