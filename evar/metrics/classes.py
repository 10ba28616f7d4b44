"""Metrics of tasks in which a clip has one class: pure functions on class numbers, and on class probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the share of clips whose predicted class is the true one.

    Args:
        y_true: (clips,) true classes, integers or names.
        y_pred: (clips,) predicted classes of the same type.

    Returns:
        A fraction in 0..1.

    Raises:
        ValueError: if there is no clip, or the two differ in shape.

    Source: equals scikit-learn's `accuracy_score` (tested).

    Example:
        >>> accuracy(["dog", "cat", "cat", "dog"], ["dog", "cat", "dog", "dog"])
        0.75
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.ndim != 1 or true.shape != predicted.shape or len(true) == 0:
        raise ValueError(
            f"accuracy needs y_true and y_pred of one shape (clips,) with at least 1 clip, got {true.shape} and "
            f"{predicted.shape}; are these scores instead of classes?"
        )
    return float(np.mean(true == predicted))


def chroma_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the share of clips whose pitch class is right, in any octave.

    Args:
        y_true: (clips,) true class numbers, where neighbouring classes are a semitone apart.
        y_pred: (clips,) predicted class numbers; below 0 (an unreadable clip) is never right.

    Returns:
        A fraction in 0..1.

    Raises:
        ValueError: as `accuracy`.

    Source: HEAR's chroma_acc (Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022, NSynth Pitch).

    Example:
        >>> chroma_accuracy([60, 61, 62], [72, 61, 63])  # an octave above, right, a semitone above
        0.6666666666666666
    """
    true, predicted = _check_class_pair(y_true, y_pred, "chroma_accuracy")
    return float(np.mean(((true - predicted) % 12 == 0) & (predicted >= 0)))


def balanced_accuracy(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the share of clips that are recognised, as the mean over the classes that occur.

    Args:
        y_true: (clips,) true class numbers.
        y_pred: (clips,) predicted class numbers.

    Returns:
        A fraction in 0..1.

    Raises:
        ValueError: as `accuracy`.

    Source: equals scikit-learn's `balanced_accuracy_score` (tested).

    Example:
        >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
        0.5
    """
    true, predicted = _check_class_pair(y_true, y_pred, "balanced_accuracy")
    return float(np.mean([np.mean(predicted[true == label] == label) for label in np.unique(true)]))


def weighted_key_score(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the mean credit of estimated musical keys: near keys are worth a part of a right one.

    Args:
        y_true: (clips,) true keys: 0 to 11 are major keys in semitones (class 0 first), 12 to 23 the minor keys on the same
            tonics.
        y_pred: (clips,) predicted keys; below 0 (an unreadable clip) is never right.

    Returns:
        A fraction in 0..1: 1 for the same key, 0.5 for a fifth above in the same mode, 0.3 for the relative key, 0.2 for the
        parallel key, 0 otherwise.

    Raises:
        ValueError: as `accuracy`, or if a key is above 23.

    Source: the weighted score of MIREX's audio key detection; Raffel et al., "mir_eval: a transparent implementation of
        common MIR metrics", ISMIR 2014.

    Example:
        >>> weighted_key_score([0, 0, 0, 0, 0], [0, 7, 21, 12, 1])  # C major, G major, A minor, C minor, C sharp major
        0.4
    """
    true, predicted = _check_class_pair(y_true, y_pred, "weighted_key_score")
    return float(np.mean(credit_keys(true, predicted)))


def credit_keys(true: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the credit of each estimated key, see `weighted_key_score`.

    Args:
        true: (clips,) 0..23.
        predicted: (clips,) at most 23.

    Returns:
        (clips,) 0, 0.2, 0.3, 0.5 or 1.

    Example:
        >>> credit_keys(np.array([21, 21]), np.array([0, 16]))  # A minor: C major is its relative, E minor a fifth above
        array([0.3, 0.5])
    """
    if len(true) and max(true.max(), predicted.max()) > 23:
        raise ValueError(
            f"keys must be 0..11 (major) or 12..23 (minor), got {max(true.max(), predicted.max())}; is this a task of keys?"
        )
    up, is_minor, is_same = (predicted - true) % 12, true >= 12, (predicted >= 12) == (true >= 12)
    relative = np.where(is_minor, up == 3, up == 9)
    cases = [is_same & (up == 0), is_same & (up == 7), ~is_same & relative, ~is_same & (up == 0)]
    return np.where(predicted < 0, 0.0, np.select(cases, [1.0, 0.5, 0.3, 0.2], 0.0))


def sensitivity_specificity(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the mean of sensitivity and specificity, where class 0 is the healthy one.

    Args:
        y_true: (clips,) true class numbers; 0 is normal, all others are abnormal.
        y_pred: (clips,) predicted class numbers; below 0 (an unreadable clip) is never right.

    Returns:
        A fraction in 0..1. Sensitivity is the share of abnormal clips whose very class is recognised, specificity the share
        of normal clips that are recognised. If one of the two kinds does not occur, the share of the other.

    Raises:
        ValueError: as `accuracy`.

    Source: the score of the ICBHI 2017 challenge: Rocha et al., "An open access database for the evaluation of
        respiratory sound classification algorithms", Physiological Measurement 40 (2019).

    Example:
        >>> sensitivity_specificity([0, 0, 1, 2], [0, 0, 2, 2])
        0.75
    """
    true, predicted = _check_class_pair(y_true, y_pred, "sensitivity_specificity")
    is_right = true == predicted
    return float(np.mean([is_right[side].mean() for side in (true == 0, true != 0) if side.any()]))


def macro_f1(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Compute the mean over classes of F1, the harmonic mean of precision and recall.

    Args:
        y_true: (clips,) true class numbers.
        y_pred: (clips,) predicted class numbers; below 0 (an unreadable clip) counts for no class.

    Returns:
        A fraction in 0..1, over all classes that occur or are predicted.

    Raises:
        ValueError: as `accuracy`.

    Source: equals scikit-learn's `f1_score(average="macro")` (tested).

    Example:
        >>> macro_f1([0, 0, 1, 1], [0, 1, 1, 1])
        0.7333333333333334
    """
    true, predicted = _check_class_pair(y_true, y_pred, "macro_f1")
    labels = np.unique(np.concatenate([true, predicted[predicted >= 0]]))
    hits = np.array([np.sum((true == label) & (predicted == label)) for label in labels])
    sizes = np.array([np.sum(true == label) + np.sum(predicted == label) for label in labels])
    return float(np.mean(2 * hits / sizes))


def calibration_error(y_true: ArrayLike, probabilities: ArrayLike, n_bins: int = 15) -> float:
    """Compute the expected calibration error: the distance between a probe's confidence and its share of right answers.

    Clips are put into bins of equal width by the probability of their most probable class; the error is the mean over
    clips of the distance between their bin's mean confidence and its accuracy.

    Args:
        y_true: (clips,) true class numbers, columns of `probabilities`.
        probabilities: (clips, classes) in 0..1, rows sum to 1.
        n_bins: of the range 0..1.

    Returns:
        A fraction in 0..1; 0 is best.

    Raises:
        ValueError: if the shapes do not fit.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3 (15 bins).

    Example:
        >>> round(calibration_error([0, 0, 0, 1], [[0.75, 0.25]] * 4), 6), calibration_error([1], [[1.0, 0.0]])
        (0.0, 1.0)
    """
    true, shares = np.asarray(y_true), np.asarray(probabilities, dtype=np.float64)
    if shares.ndim != 2 or true.shape != shares.shape[:1] or not len(true):
        raise ValueError(
            f"calibration_error needs y_true (clips,) and probabilities (clips, classes), got {true.shape} and "
            f"{shares.shape}"
        )
    confidence, is_right = shares.max(axis=1), shares.argmax(axis=1) == true
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(true))


def _check_class_pair(y_true: ArrayLike, y_pred: ArrayLike, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if true.ndim != 1 or true.shape != predicted.shape or not len(true) or true.dtype.kind not in "iu":
        raise ValueError(
            f"{name} needs whole class numbers y_true and y_pred of one shape (clips,) with at least 1 clip, got "
            f"{true.shape} of {true.dtype} and {predicted.shape}"
        )
    return true.astype(np.int64), predicted.astype(np.int64)
