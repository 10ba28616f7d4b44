"""Events from frames: the frames that an event covers, the events that a row of active frames stands for, and the probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from evar.config.registry import near_miss
from evar.metrics import METRICS
from evar.metrics.events import count_clip, find_collar
from evar.numeric.frames import Frames
from evar.probes.checks import STRENGTHS
from evar.probes.choosing import choose_setting
from evar.probes.multilabel import MultilabelProbe
from evar.probes.protocol import ProbeTraits

#: clips whose frames are in memory at once when events are looked for
_CLIPS_AT_ONCE = 8


def mark_frames(events: NDArray[np.float64], n_frames: int, period: float, n_classes: int) -> NDArray[np.uint8]:
    """Mark the frames that each event covers: those whose middle lies in it.

    An event between two middles marks the frame that it begins in.

    Args:
        events: (events, 3) class number, onset and offset in seconds.
        n_frames: of the clip.
        period: seconds of a frame.
        n_classes: of the task.

    Returns:
        (frames, classes) uint8, 1 if an event of the class is active.

    Example:
        >>> mark_frames(np.array([[1, 0.1, 0.2]]), 3, 0.1, 2).tolist()
        [[0, 0], [0, 1], [0, 0]]
    """
    active = np.zeros((n_frames, n_classes), np.uint8)
    for label, onset, offset in events:
        first = int(np.ceil(onset / period - 0.5 - 1e-9))
        last = int(np.floor(offset / period - 0.5 + 1e-9))
        if last < first:
            first = last = int(onset / period)
        active[max(first, 0) : last + 1, int(label)] = 1
    return active


def find_events(
    active: NDArray[np.bool_], period: float, median_seconds: float, least_seconds: float
) -> NDArray[np.float64]:
    """Find runs of active frames, which are events.

    Args:
        active: (frames, classes).
        period: seconds of a frame.
        median_seconds: a frame takes the majority of the frames in a window of this length around it; the window is an odd
            number of frames.
        least_seconds: shorter events are dropped.

    Returns:
        (events, 3) class number, onset and offset in seconds, by onset.

    Source: post-processing of HEAR's event tasks (median filter, then a least duration).

    Example:
        >>> find_events(np.array([[0], [1], [1], [0], [1]], bool), 0.5, 0.0, 0.6).tolist()
        [[0.0, 0.5, 1.5]]
    """
    from scipy.ndimage import median_filter

    width = 2 * (round(median_seconds / period) // 2) + 1
    if width > 1 and len(active):
        active = median_filter(active.astype(np.uint8), size=(width, 1), mode="constant") > 0
    found = []
    edges = np.diff(np.pad(active.astype(np.int8), ((1, 1), (0, 0))), axis=0)  # (frames + 1, classes)
    for label in range(active.shape[1]):
        for first, end in zip(np.flatnonzero(edges[:, label] == 1), np.flatnonzero(edges[:, label] == -1), strict=True):
            if (end - first) * period >= least_seconds - 1e-9:
                found.append((label, first * period, end * period))
    return np.array(sorted(found, key=lambda event: event[1]), np.float64).reshape(-1, 3)


class EventsProbe(BaseEstimator):
    """Logistic regression on frames, one for each class, and events from the frames that it says are active.

    Frames are standardised over the training clips. Strength and least duration are those with the best event score on the
    validation clips (ties: the longer duration, then the smaller strength).

    Args:
        strengths: values of C to choose from.
        median_seconds, least_seconds: as for `find_events`; several least durations are chosen among.
        metric: name in `evar.metrics.METRICS`, of kind events.
        refit: whose frames the final fit sees: "train" or "train_and_valid".

    Attributes:
        strength_: the chosen C.
        chosen_: {"least_seconds"}.
        valid_scores_: (strengths,) best score of each on the validation clips.
        valid_score_: of the choice.
        on_grid_edge_: whether the chosen C is the smallest or largest of several.
        n_features_in_: features of a frame.
        converged_: whether the final fit reached its tolerance.

    Source: the prediction of HEAR's event tasks (Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022),
        with logistic regression in place of its network.

    Example:
        >>> from evar.numeric.frames import FramesInMemory
        >>> loud = np.float32([[0], [0], [9], [9], [0], [0]])
        >>> frames = FramesInMemory({"level": [loud, loud, loud]}, {"level": 0.1})
        >>> y = [np.array([[0, 0.2, 0.4]])] * 3
        >>> probe = EventsProbe((1.0,), median_seconds=0.0).fit(frames, y, frames, y)
        >>> probe.predict(frames)[0].round(3).tolist()
        [[0.0, 0.2, 0.4]]
    """

    traits = ProbeTraits(kinds=("events",), reads_frames=True)

    def __init__(
        self,
        strengths: Sequence[float] = STRENGTHS,
        median_seconds: float = 0.25,
        least_seconds: Sequence[float] = (0.125, 0.25),
        metric: str = "event_onset_f1",
        refit: str = "train_and_valid",
    ) -> None:
        self.strengths = strengths
        self.median_seconds = median_seconds
        self.least_seconds = least_seconds
        self.metric = metric
        self.refit = refit

    def fit(self, X: Frames, y: Any, X_valid: Frames, y_valid: Any) -> EventsProbe:
        """Choose and fit.

        Args:
            X: frames of one layer of the training clips, with their period.
            y: for each clip (events, 3) class number, onset and offset in seconds.
            X_valid, y_valid: of the validation clips, which choose.

        Returns:
            self.

        Raises:
            ValueError: if a setting is not legal, there are several layers, or no training clip has an event.
        """
        if self.metric not in METRICS or METRICS[self.metric].kind != "events":
            raise ValueError(f"no metric of events {self.metric!r}; {near_miss(self.metric, METRICS)}")
        if self.refit not in ("train", "train_and_valid") or not len(self.strengths) or not len(self.least_seconds):
            raise ValueError(
                "refit must be train or train_and_valid, and strengths and least_seconds at least one each"
            )
        for frames, which in ((X, "training"), (X_valid, "validation")):
            if not isinstance(frames, Frames) or len(frames.widths) != 1 or not len(frames):
                raise ValueError(
                    f"the {which} clips must be frames of one layer, and at least one clip; try --layers=NAME"
                )
        (self._layer,) = X.widths
        self._period = X.periods.get(self._layer, math.nan)
        if not math.isfinite(self._period):
            raise ValueError(f"layer {self._layer} gives no frames, but one vector a clip; events need frames in time")
        self.n_features_in_ = X.widths[self._layer]
        every = np.concatenate([*y, *y_valid])
        self._n_classes = 1 + int(every[:, 0].max(initial=0))  # a class without training clips is never found
        rows, active = self._read_frames(X, y)
        strengths = sorted(float(strength) for strength in self.strengths)
        found: list[tuple[float, float, float]] = []  # score, least duration, strength
        for strength in strengths:
            self._probe = MultilabelProbe((strength,), "train").fit(rows, active)
            found += [
                (self._score_events(own, y_valid), least, strength)
                for least, own in zip(self.least_seconds, self._find_events(X_valid, self.least_seconds), strict=True)
            ]
        orient = METRICS[self.metric].orient
        self.valid_scores_ = np.array(
            [max((score for score, _, own in found if own == one), key=orient) for one in strengths]
        )
        scores, leasts, tried = zip(*found, strict=True)
        best = choose_setting(self.metric, scores, [-least for least in leasts], tried)
        score, least, self.strength_ = found[best]
        self.valid_score_, self.chosen_ = score, {"least_seconds": least}
        self.on_grid_edge_ = len(strengths) > 1 and self.strength_ in (strengths[0], strengths[-1])
        if self.refit == "train_and_valid":
            more, also_active = self._read_frames(X_valid, y_valid)
            rows, active = np.concatenate([rows, more]), np.concatenate([active, also_active])
        self._probe = MultilabelProbe((self.strength_,), "train").fit(rows, active)
        self.converged_ = self._probe.converged_
        return self

    def predict(self, X: Frames) -> NDArray[Any]:
        """Find the events of each clip.

        Args:
            X: frames of the clips, of the layer of `fit`.

        Returns:
            (clips,) objects, each (events, 3) class number, onset and offset in seconds.
        """
        check_is_fitted(self, "chosen_")
        return as_objects(self._find_events(X, [self.chosen_["least_seconds"]])[0])

    def score(self, X: Frames, y: ArrayLike) -> float:
        """Score the events that are found in some clips by the metric.

        Args:
            X: frames of the clips.
            y: for each clip (events, 3) class number, onset and offset in seconds.
        """
        return self._score_events(list(self.predict(X)), y)

    def _read_frames(self, X: Frames, y: Any) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        frames, counts = X.join(range(len(X)), self._layer)
        active = [
            mark_frames(events, n, self._period, self._n_classes) for events, n in zip(y, counts.tolist(), strict=True)
        ]
        return frames.numpy(), np.concatenate(active)

    def _find_events(self, X: Frames, leasts: Sequence[float]) -> list[list[NDArray[np.float64]]]:
        """Events of every clip, for each least duration."""
        found: list[list[NDArray[np.float64]]] = [[] for _ in leasts]
        for start in range(0, len(X), _CLIPS_AT_ONCE):
            frames, counts = X.join(range(start, min(start + _CLIPS_AT_ONCE, len(X))), self._layer)
            active = self._probe.decision_function(frames.numpy()) > 0
            for own in np.split(active, counts.numpy().cumsum()[:-1]):
                for events, least in zip(found, leasts, strict=True):
                    events.append(find_events(own, self._period, self.median_seconds, least))
        return found

    def _score_events(self, predicted: Sequence[NDArray[np.float64]], y: Any) -> float:
        collar = find_collar(self.metric)
        pairs = [count_clip(np.asarray(true), found, collar) for true, found in zip(y, predicted, strict=True)]
        return METRICS[self.metric].function([true for true, _ in pairs], [found for _, found in pairs])


def as_objects(values: Sequence[Any]) -> NDArray[Any]:
    """Put arrays of unequal length into one array of objects.

    Args:
        values: one array for each clip.

    Returns:
        (clips,) objects.

    Example:
        >>> as_objects([np.zeros((2, 3)), np.zeros((0, 3))]).shape
        (2,)
    """
    found = np.empty(len(values), object)
    for at, value in enumerate(values):
        found[at] = value
    return found
