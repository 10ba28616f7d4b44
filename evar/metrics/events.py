"""Metrics of tasks in which a clip's labels are events in time: which begin and end when.

A clip is scored by counts, so that sums over clips, and with them bootstrap samples, are cheap: `count_clip` gives what is
true of it, and what was found, as rows of numbers; the metrics are ratios of their sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: seconds that an onset may be off
COLLAR = 0.2
#: metric -> seconds that an onset may be off, where they are others
COLLARS = {"event_onset_f1_50ms": 0.05}
#: seconds of a segment
SEGMENT = 1.0


def find_collar(metric: str) -> float:
    """Return how many seconds an onset may be off in a metric of events.

    Args:
        metric: name in `evar.metrics.METRICS`.

    Example:
        >>> find_collar("event_onset_f1"), find_collar("event_onset_f1_50ms")
        (0.2, 0.05)
    """
    return COLLARS.get(metric, COLLAR)


def count_clip(
    true: NDArray[np.float64], found: NDArray[np.float64], collar: float = COLLAR
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the events of one clip: true events, found events, and how they match.

    Args:
        true: (events, 3) class number, onset and offset in seconds.
        found: likewise.
        collar: seconds that an onset may be off, see `find_collar`.

    Returns:
        [events, 0, active class-segments] of the truth, and [onsets that are right, events found, errors in segments].

    Example:
        >>> true, found = np.array([[0, 1.0, 1.5], [1, 3.0, 3.5]]), np.array([[0, 1.1, 1.2], [0, 3.0, 3.5]])
        >>> [numbers.tolist() for numbers in count_clip(true, found)]
        [[2, 0, 2], [1, 2, 1]]
    """
    n_active, n_errors = _count_segments(true, found)
    truth = np.array([len(true), 0, n_active], np.int64)
    return truth, np.array([match_onsets(true, found, collar), len(found), n_errors], np.int64)


def match_onsets(true: NDArray[np.float64], found: NDArray[np.float64], collar: float = COLLAR) -> int:
    """Count the found events that can be paired with true ones of their class whose onset is at most `collar` seconds away.

    Every event is in one pair at most, and the pairs are as many as can be: with onsets in order, the earliest true one that
    is near enough is never the wrong choice.

    Args:
        true, found: (events, 3) class number, onset and offset in seconds.
        collar: seconds.

    Source: event-based metrics with optimal matching, Mesaros, Heittola & Virtanen, "Metrics for Polyphonic Sound Event
        Detection", Applied Sciences 6 (2016), section 3.3; onsets alone, as HEAR scores DCASE 2016 task 2.

    Example:
        >>> match_onsets(np.array([[0, 1.0, 2.0], [0, 1.3, 2.0]]), np.array([[0, 1.15, 2.0], [0, 0.9, 1.0]]))
        2
    """
    n = 0
    for label in np.unique(true[:, 0]):
        own, others = np.sort(true[true[:, 0] == label, 1]), np.sort(found[found[:, 0] == label, 1])
        at = 0
        for onset in others:
            while at < len(own) and own[at] < onset - collar - 1e-9:
                at += 1
            if at < len(own) and own[at] <= onset + collar + 1e-9:
                n, at = n + 1, at + 1
    return n


def _count_segments(true: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[int, int]:
    """Pairs of a segment and a class that is active in it, and errors: of each segment's misses and false alarms the more.

    Substitutions, deletions and insertions of a segment add up to that (Mesaros et al., section 3.2).
    """
    ends = [*true[:, 2], *found[:, 2]]
    if not ends:
        return 0, 0
    n_segments = int(np.ceil(max(ends) / SEGMENT - 1e-9)) or 1
    n_classes = int(max([*true[:, 0], *found[:, 0]])) + 1
    active = []
    for events in (true, found):
        rows = np.zeros((n_segments, n_classes), bool)
        for label, onset, offset in events:
            first, last = int(onset / SEGMENT), int(np.ceil(max(offset, onset + 1e-9) / SEGMENT - 1e-9))
            rows[first : max(last, first + 1), int(label)] = True
        active.append(rows)
    missed, false = (active[0] & ~active[1]).sum(axis=1), (active[1] & ~active[0]).sum(axis=1)
    return int(active[0].sum()), int(np.maximum(missed, false).sum())


def event_onset_f1(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """F-measure of events whose class and onset (within 0.2 s) are right, over all events of all clips and classes.

    Args:
        y_true: (clips, 3) as `count_clip` gives them.
        y_pred: likewise.

    Returns:
        0..1; 1 if there is no event and none was found.

    Raises:
        ValueError: if the shapes differ or there is no clip.

    Source: as `match_onsets`; counts are summed over clips and classes before the ratio is taken.

    Example:
        >>> event_onset_f1([[2, 0, 2]], [[1, 2, 1]])
        0.5
    """
    return float(compute_f1(_sum_counts(y_true, y_pred)))


def event_onset_f1_50ms(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """F-measure of events whose class and onset (within 0.05 s) are right, over all events of all clips and classes.

    Args:
        y_true: (clips, 3) as `count_clip` gives them.
        y_pred: likewise, counted with a collar of 0.05 s.

    Returns:
        0..1; 1 if there is no event and none was found.

    Raises:
        ValueError: as `event_onset_f1`.

    Source: HEAR's event_onset_50ms_fms (Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022,
        MAESTRO).

    Example:
        >>> true, found = np.array([[60, 1.0, 1.5]]), np.array([[60, 1.1, 1.5]])  # a tenth of a second late
        >>> counts = [count_clip(true, found, find_collar(name)) for name in ("event_onset_f1", "event_onset_f1_50ms")]
        >>> event_onset_f1([counts[0][0]], [counts[0][1]]), event_onset_f1_50ms([counts[1][0]], [counts[1][1]])
        (1.0, 0.0)
    """
    return float(compute_f1(_sum_counts(y_true, y_pred)))


def segment_error_rate(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Errors in segments of 1 s, over the number of active classes in them: substitutions, deletions and insertions.

    Args:
        y_true: (clips, 3) counts of `count_clip` for the true events of each clip.
        y_pred: (clips, 3) counts of found events, in the same form.

    Returns:
        0 or more; 0 is perfect, and finding nothing is 1. 0 if nothing is active and nothing was found.

    Raises:
        ValueError: as `event_onset_f1`.

    Source: Mesaros, Heittola & Virtanen (2016), section 3.2.

    Example:
        >>> segment_error_rate([[2, 0, 4]], [[1, 2, 1]])
        0.25
    """
    _, _, _, n_active, n_errors = _sum_counts(y_true, y_pred)
    return float(n_errors / max(n_active, 1))


def stack_counts(y_true: NDArray[np.float64], y_pred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what metrics of events are sums of, for each clip.

    Args:
        y_true, y_pred: (clips, 3) as `count_clip` gives them.

    Returns:
        (clips, 5): true events, right ones, found ones, active class-segments, errors in segments.

    Example:
        >>> stack_counts(np.array([[2, 0, 4]]), np.array([[1, 3, 1]])).tolist()
        [[2.0, 1.0, 3.0, 4.0, 1.0]]
    """
    return np.stack([y_true[:, 0], y_pred[:, 0], y_pred[:, 1], y_true[:, 2], y_pred[:, 2]], axis=1).astype(np.float64)


def compute_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the F-measure of events from sums over clips.

    Args:
        sums: (..., 5) sums of `stack_counts`.

    Returns:
        (...) in 0..1; 1 if there is no event and none was found.

    Example:
        >>> float(compute_f1(np.array([2.0, 1.0, 2.0, 4.0, 1.0])))
        0.5
    """
    n_true, n_right, n_found = sums[..., 0], sums[..., 1], sums[..., 2]
    n = n_true + n_found
    return np.where(n > 0, 2 * n_right / np.where(n > 0, n, 1), 1.0)


def _sum_counts(y_true: ArrayLike, y_pred: ArrayLike) -> NDArray[np.float64]:
    true, predicted = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if true.ndim != 2 or true.shape != predicted.shape or true.shape[1] != 3 or not len(true):
        raise ValueError(
            f"y_true and y_pred must be (clips, 3) counts of the same clips, got {true.shape} and {predicted.shape}"
        )
    return stack_counts(true, predicted).sum(axis=0)
