"""A probe of your own: linear discriminant analysis, whose shrinkage is chosen on the validation clips.

Name it on the command line, or as `probe:` in the YAML of a protocol, where `params:` gives it other settings:

    evar lineval cnn14.16k esc50 --protocol=examples/my_probe.py:DiscriminantProbe

`evar.probes.protocol` says what a probe must keep. A broken promise is named before any work is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import log_loss

from evar.metrics import METRICS
from evar.probes.choosing import choose_setting
from evar.probes.protocol import ProbeTraits


class DiscriminantProbe(ClassifierMixin, BaseEstimator):
    """Linear discriminant analysis; of several shrinkages, the one with the best validation score.

    Args:
        shrinkages: values to choose from, each in 0..1; 1 uses the variances alone.
        metric: name in `evar.metrics.METRICS`; the task's is put in here.

    Attributes:
        chosen_: {"shrinkage": the chosen value}.
        valid_score_, valid_log_loss_: of it, on the validation clips.
        on_grid_edge_: whether it is the smallest or the largest of several.
        classes_: (classes,) labels, sorted.
        n_features_in_: features of a clip.
    """

    traits = ProbeTraits(kinds=("multiclass",))

    def __init__(self, shrinkages: Sequence[float] = (0.01, 0.1, 0.5, 0.9), metric: str = "accuracy") -> None:
        self.shrinkages = shrinkages
        self.metric = metric

    def fit(self, X: ArrayLike, y: ArrayLike, X_valid: ArrayLike, y_valid: ArrayLike) -> DiscriminantProbe:
        """Fit every shrinkage on the training clips, X (clips, width) and y (clips,), and keep the best one."""
        models = [LinearDiscriminantAnalysis(solver="lsqr", shrinkage=value).fit(X, y) for value in self.shrinkages]
        scores = [METRICS[self.metric].function(y_valid, model.predict(X_valid)) for model in models]
        losses = [log_loss(y_valid, model.predict_proba(X_valid), labels=model.classes_) for model in models]
        best = choose_setting(self.metric, scores, losses, [-value for value in self.shrinkages])
        self._model, self.classes_, self.n_features_in_ = models[best], models[best].classes_, np.shape(X)[1]
        self.chosen_ = {"shrinkage": float(self.shrinkages[best])}
        self.valid_score_, self.valid_log_loss_ = float(scores[best]), float(losses[best])
        self.on_grid_edge_ = self.shrinkages[best] in (min(self.shrinkages), max(self.shrinkages))
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each clip: (clips, width) -> (clips,)."""
        return self._model.predict(X)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities: (clips, width) -> (clips, classes)."""
        return self._model.predict_proba(X)
