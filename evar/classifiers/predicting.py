"""From vectors to predictions: the probes of a classifier file, one or several, as probabilities, labels or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.registry import near_miss
from evar.numeric.softmax import compute_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.classifiers.record import ClassifierRecord, HeadFacts


@dataclass(frozen=True)
class Predicted:
    """Predictions for some clips.

    Attributes:
        shares: (clips, classes) probabilities, in the order of the task's classes; None for numbers.
        values: (clips,) class numbers, (clips, labels) 0 or 1, or (clips,) numbers.
    """

    shares: NDArray[np.float64] | None
    values: NDArray[Any]


def choose_heads(record: ClassifierRecord, name: str = "") -> list[int]:
    """Return the positions of the heads that predict.

    Args:
        record: of the file.
        name: of a round, such as "fold 1"; "" for all.

    Raises:
        ValueError: if the file has no head of that name; it names those that it has.
    """
    names = [head.name for head in record.heads]
    if not name:
        return list(range(len(names)))
    if name not in names:
        raise ValueError(f"the classifier has no head {name!r}; {near_miss(name, names)}")
    return [names.index(name)]


def predict_vectors(
    record: ClassifierRecord, probes: Sequence[Any], heads: Sequence[int], vectors: Sequence[NDArray[np.float32]]
) -> Predicted:
    """Predict clips from their vectors.

    One head predicts as its row did. Several are averaged: probabilities and thresholds, or numbers.

    Args:
        record: of the file.
        probes: of the file, restored.
        heads: positions of those that predict.
        vectors: for each of these (clips, width) vectors, made with its input statistics.

    Returns:
        Probabilities, and classes, labels or numbers.
    """
    kind, chosen = record.task.kind, [probes[at] for at in heads]
    if kind == "regression":
        numbers = [np.asarray(probe.predict(rows)) for probe, rows in zip(chosen, vectors, strict=True)]
        return Predicted(None, np.mean(numbers, axis=0))
    every = [_spread_shares(record, probe, rows) for probe, rows in zip(chosen, vectors, strict=True)]
    shares = np.mean(every, axis=0)
    if kind == "multilabel":
        thresholds = average_thresholds([record.heads[at] for at in heads])
        return Predicted(shares, (shares >= thresholds).astype(np.uint8))
    if len(chosen) == 1:  # as the row did, also where two classes are nearly equal
        return Predicted(shares, np.asarray(chosen[0].predict(vectors[0]), np.int64))
    return Predicted(shares, shares.argmax(axis=1))


def average_thresholds(heads: Sequence[HeadFacts]) -> NDArray[np.float64]:
    """Average the threshold of each label over several probes.

    Args:
        heads: what is known of each probe; thresholds are probabilities, 0..1.

    Returns:
        (labels,) 0..1.
    """
    return np.mean([head.thresholds for head in heads], axis=0)


def _spread_shares(record: ClassifierRecord, probe: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spread probabilities over all classes of the task, (clips, classes); a class without training clips has 0."""
    if hasattr(probe, "predict_proba"):
        found = np.asarray(probe.predict_proba(rows))
    else:
        logits = np.asarray(probe.decision_function(rows))
        found = compute_shares(logits)
    if record.task.kind == "multilabel":
        return found
    shares = np.zeros((len(found), len(record.task.classes)))
    shares[:, probe.classes_] = found
    return shares
