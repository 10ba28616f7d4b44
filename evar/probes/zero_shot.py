"""Zero-shot classes: a clip belongs to the class whose prompt is nearest to it. No clip is trained on.

A task's prompts come from several templates. Either the validation clips choose one of them, or all are averaged;
test clips choose nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from evar.config.registry import near_miss
from evar.metrics import METRICS
from evar.probes.checks import check_classes, check_features, check_labels
from evar.probes.choosing import choose_best
from evar.probes.protocol import ProbeTraits

WAYS = ("choose", "average")


def to_directions(vectors: ArrayLike) -> NDArray[np.float64]:
    """Scale vectors to length 1; a vector of zeros stays the same.

    Args:
        vectors: (..., width) in any unit.

    Returns:
        (..., width) float64 of length 1, or zeros.

    Example:
        >>> to_directions([[3.0, 4.0], [0.0, 0.0]]).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    found = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    return found / np.where(lengths > 0, lengths, 1.0)


class ZeroShotProbe(BaseEstimator):
    """The nearest prompt, by cosine.

    Args:
        templates: "choose" the template with the best score on validation clips (equal scores: the one that is listed
            first), or "average" the directions of all templates' prompts.
        metric: that chooses.
        text: (templates, classes, width) vectors of the prompts.

    Attributes:
        chosen_: {"template": number of the chosen template}; None if all are averaged.
        valid_score_: of the choice on the validation clips.

    Example:
        >>> prompts = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])  # the second has its classes swapped
        >>> probe = ZeroShotProbe(text=prompts).fit(None, None, np.array([[0.9, 0.1]]), np.array([0]))
        >>> probe.chosen_, probe.predict(np.array([[0.2, 0.8]])).tolist()
        ({'template': 0}, [1])
    """

    traits = ProbeTraits(reads_text=True)

    def __init__(self, templates: str = "choose", metric: str = "accuracy", text: Any = None) -> None:
        self.templates = templates
        self.metric = metric
        self.text = text

    def fit(self, X: Any, y: Any, X_valid: Any, y_valid: Any) -> ZeroShotProbe:
        """Choose a template on the validation clips; training clips are not looked at.

        Args:
            X, y: not used.
            X_valid: (clips, width) vectors of the validation clips.
            y_valid: (clips,) class numbers, or (clips, labels) of 0 and 1.

        Returns:
            The probe.

        Raises:
            ValueError: if there is no text, widths differ, or a template is to be chosen and there are no validation clips.
        """
        if self.templates not in WAYS:
            raise ValueError(f"no templates {self.templates!r}; {near_miss(self.templates, WAYS)}")
        if self.text is None:
            raise ValueError(
                "a zero-shot probe needs vectors of prompts, and text is None; does the encoder read text?"
            )
        prompts = to_directions(self.text)  # (template, class, width)
        self.n_features_in_ = prompts.shape[2]
        self.classes_ = np.arange(prompts.shape[1])
        self.each_ = prompts
        self.chosen_, self.valid_score_ = None, None
        if self.templates == "average" or len(prompts) == 1:
            self.prompts_ = to_directions(prompts.mean(axis=0))
            return self
        if X_valid is None or not len(X_valid):
            raise ValueError(
                f"choosing one of {len(prompts)} templates needs validation clips, and there are none; average them with "
                "--protocol=zero_shot_average"
            )
        vectors = self._check(X_valid)
        labels = self._check_labels(y_valid, len(vectors))
        scores = [self._score(labels, vectors @ each.T) for each in prompts]
        best = choose_best([METRICS[self.metric].orient(score) for score in scores], list(range(len(prompts))))
        self.prompts_, self.chosen_, self.valid_score_ = prompts[best], {"template": best}, float(scores[best])
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of the nearest prompt of each clip.

        Args:
            X: (clips, width) vectors, finite.

        Returns:
            (clips,) class numbers; the similarities (clips, labels) where a clip may have several labels.

        Raises:
            ValueError: if the width is not that of the prompts.
        """
        return self._decide(self._check(X) @ self.prompts_.T)

    def predict_each(self, X: ArrayLike) -> list[NDArray[Any]]:
        """Return the predictions of each template by itself, to show how much the prompts matter.

        Args:
            X: (clips, width) vectors.

        Returns:
            For each template (clips,) classes.
        """
        vectors = self._check(X)
        return [self._decide(vectors @ each.T) for each in self.each_]

    def _check(self, X: Any) -> NDArray[np.float64]:
        features = np.asarray(check_features(X, "given"))
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"the clips have {features.shape[1]} features and the prompts {self.n_features_in_}; is it the layer that "
                "sound and text share?"
            )
        return to_directions(features)

    def _check_labels(self, y: Any, n_clips: int) -> NDArray[Any]:
        return check_classes(y, n_clips, "validation")

    def _decide(self, similar: NDArray[np.float64]) -> NDArray[Any]:
        """(clips, classes) similarities -> what is predicted."""
        return similar.argmax(axis=1)

    def _score(self, labels: NDArray[Any], similar: NDArray[np.float64]) -> float:
        """Validation clips may lack labels that a metric needs; a template without a score is never chosen."""
        try:
            return float(METRICS[self.metric].function(labels, self._decide(similar)))
        except ValueError:
            return METRICS[self.metric].worst


class ZeroShotLabelsProbe(ZeroShotProbe):
    """The same for clips that may have several labels: a label's score is the similarity of its prompt.

    Args:
        templates, metric, text: as for `ZeroShotProbe`.

    Example:
        >>> probe = ZeroShotLabelsProbe("average", "mean_average_precision", np.eye(2)[None]).fit(None, None, None, None)
        >>> probe.decision_function(np.array([[3.0, 4.0]])).astype(float).round(2).tolist()
        [[0.6, 0.8]]
    """

    traits = ProbeTraits(kinds=("multilabel",), reads_text=True)

    def __init__(self, templates: str = "choose", metric: str = "mean_average_precision", text: Any = None) -> None:
        super().__init__(templates, metric, text)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return a score of each label.

        Args:
            X: (clips, width) vectors.

        Returns:
            (clips, labels) cosines.
        """
        return self._decide(self._check(X) @ self.prompts_.T)

    def _check_labels(self, y: Any, n_clips: int) -> NDArray[Any]:
        return check_labels(y, n_clips, "validation")

    def _decide(self, similar: NDArray[np.float64]) -> NDArray[np.float32]:
        return similar.astype(np.float32)
